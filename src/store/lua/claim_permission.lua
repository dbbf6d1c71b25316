-- Takes the lease of a charge permission that is due, and reads what is stored about it.
--
-- KEYS    1 marker  2 schedule  3 permission  4 hints  5 open  6 tickets
-- ARGV    1 offset  2 permission id  3 lease (ms)  4 nonce
-- RETURNS {'claimed', token, wake, now, time that stood still (ms), closed, record, {hint field, value, ...}, {intent id, ...},
--           close_at, close_reason, close_cancel_pending, look_asked, paused since (ms) | '', ticket 0|1}
--         | {'not_due'} | {'leased'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     One worker at a time. The lease record decides, not the score of the schedule. The token is a fence number plus a nonce, so
--         that a server that rolled back and counts anew cannot make two workers valid. While the lease runs the score is its end: a
--         worker that died makes the permission due again by itself.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'zset' })
if wrong then return { 'wrong_type', wrong } end

local due = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not due or tonumber(due) > now then return { 'not_due' } end
wrong = wrong_type({ KEYS[3], 'hash', KEYS[4], 'hash', KEYS[5], 'zset', KEYS[6], 'hash' })
if wrong then
  -- Put off by a lease: left where it is, it would be the first of every step and nobody else would have a turn.
  redis.call('ZADD', KEYS[2], ms(now + tonumber(ARGV[3])), ARGV[2])
  return { 'wrong_type', wrong }
end
if is_leased(KEYS[3]) then
  redis.call('ZADD', KEYS[2], redis.call('HGET', KEYS[3], 'lease_until'), ARGV[2])
  return { 'leased' }
end

-- Neither lease nor schedule is touched: put_off.lua does what this version may do.
if newer({ KEYS[3] }) then return { 'newer', KEYS[3] } end

local token = ms(redis.call('HINCRBY', KEYS[3], 'fence', 1)) .. '-' .. ARGV[4]
local till = ms(now + tonumber(ARGV[3]))
redis.call('HSET', KEYS[3], 'lease_token', token, 'lease_until', till)
redis.call('ZADD', KEYS[2], till, ARGV[2])
local record = redis.call('HMGET', KEYS[3], 'wake', 'closed', 'record', 'close_at', 'close_reason', 'close_cancel_pending', 'look_asked',
  'paused_since')
return { 'claimed', token, record[1] or '0', ms(now), ms(permission_still_ms(KEYS[3])), record[2] or '0', record[3] or '',
  redis.call('HGETALL', KEYS[4]), redis.call('ZRANGE', KEYS[5], 0, -1),
  record[4] or '', record[5] or '', record[6] or '', record[7] or '', record[8] or '', ms(redis.call('HEXISTS', KEYS[6], ARGV[2])) }
