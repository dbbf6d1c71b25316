-- Puts off a message that the other side has not taken.
--
-- KEYS    1 marker  2 forward
-- ARGV    1 offset  2 entry  3 since when it is refused (ms), or 0  4 when it is due again (ms)
-- RETURNS {'put_off'} | {'no_marker'} | {'wrong_type', key}
-- WHY     Since when it is refused is a part of the entry. What is not there any more another instance has brought to its end.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'zset' })
if wrong then return { 'wrong_type', wrong } end
local id, since = string.match(ARGV[2], '^(%d+%-%d+) (%d+) %d+$')
if id and redis.call('ZREM', KEYS[2], ARGV[2]) == 1 then
  redis.call('ZADD', KEYS[2], ARGV[4], id .. ' ' .. since .. ' ' .. ARGV[3])
end
return { 'put_off' }
