-- Notes that the caller wants a charge permission closed at Amazon.
--
-- KEYS    1 marker  2 permission  3 schedule
-- ARGV    1 offset  2 permission id  3 closure reason  4 whether pending charges are canceled '0'|'1'
--         5 the wish that may be replaced (its close_at), or ''
-- RETURNS {'asked'} | {'same'} | {'conflict'} | {'closed'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     From here on mark_send refuses every send for the permission, on any instance, until a look says Closed. The wish is stored
--         and not carried out here: a crash at any later step leaves it standing, and closing twice does nothing.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'zset' })
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2] })
if later then return { 'newer', later } end
local wish = redis.call('HMGET', KEYS[2], 'closed', 'close_at', 'close_reason', 'close_cancel_pending')
if wish[1] == '1' then return { 'closed' } end
local at = now
if wish[2] then
  if wish[2] ~= ARGV[5] then
    return { wish[3] == ARGV[3] and wish[4] == ARGV[4] and 'same' or 'conflict' }
  end
  at = math.max(at, tonumber(wish[2]) + 1)
end
redis.call('HSET', KEYS[2], 'close_at', ms(at), 'close_reason', ARGV[3], 'close_cancel_pending', ARGV[4])
wake(KEYS[2], KEYS[3], ARGV[2])
return { 'asked' }
