-- Puts a permission off that this version cannot work on: it, or one of its charges, was written by a later version.
--
-- KEYS    1 marker  2 permission  3 schedule  4 events  5 quota  6 waiting  7 tickets
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 token of the lease, or '' if none was taken  6 delay (ms)
--         7 event type  8 event data (JSON)  9 for how long it is not told again (ms)
-- RETURNS {'told'} | {'put_off'} | {'no_marker'} | {'wrong_type', key}
-- WHY     During a rolling upgrade an instance of the later version takes it, a little later. After a roll-back nobody does, and a
--         person has to know; and what stayed at the head of the schedule would keep everybody behind it from a turn.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'zset', KEYS[4], 'stream', KEYS[5], 'hash', KEYS[6], 'zset', KEYS[7], 'hash' })
if wrong then return { 'wrong_type', wrong } end
if ARGV[5] ~= '' and redis.call('HGET', KEYS[2], 'lease_token') == ARGV[5] then
  -- This lease is ours, so the permission itself was of a version that we know.
  redis.call('HDEL', KEYS[2], 'lease_token', 'lease_until')
end
-- Somebody who knows the record may have taken it meanwhile: then the score is his.
if not is_leased(KEYS[2]) then
  -- Without a lease of ours it may have been worked on meanwhile: then its time is later than this one.
  -- It takes no turn now: nobody may wait behind it in the waiting room, nor the account for it as the probe.
  local ticket = read_ticket(KEYS[7], ARGV[4])
  if ticket and ticket.kind == 'waits' then
    redis.call('ZREM', KEYS[6], ARGV[4])
    count_waiting(KEYS[5], ticket.class, ticket.needs, -1)
    redis.call('HDEL', KEYS[7], ARGV[4])
  end
  redis.call('ZADD', KEYS[3], 'XX', ARGV[5] == '' and 'GT' or 'CH', ms(now + tonumber(ARGV[6])), ARGV[4])
end
local told = tonumber(redis.call('HGET', KEYS[1], 'newer_told_at') or '') or 0
if now - told < tonumber(ARGV[9]) then return { 'put_off' } end
redis.call('HSET', KEYS[1], 'newer_told_at', ms(now))
write_event(KEYS[4], KEYS[1], ARGV[2], ARGV[3], 'account', ARGV[7], ARGV[8])
return { 'told' }
