-- Takes the entry of an intent that has gone out of the lists.
--
-- KEYS    1 marker  2 intent, or the marker again  3.. the lists
-- ARGV    1 offset  2 state it was listed in, or 'malformed'  3 its entry, or what cannot be read
-- RETURNS {'trimmed'} | {'kept'} | {'dropped'} | {'no_marker'} | {'wrong_type', key}
-- WHY     Ended intents go by their TTL, which no list hears of. One that is still there is looked at again a day later.
--         What cannot be read is dropped: left at the head it would keep everything behind it from being trimmed.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type(and_lists({ KEYS[2], 'hash' }))
if wrong then return { 'wrong_type', wrong } end
if ARGV[2] == 'malformed' then
  redis.call('ZREM', list('expiry'), ARGV[3])
  return { 'dropped' }
end
local entry = ARGV[2] .. '\t' .. ARGV[3]
local listed = redis.call('HMGET', KEYS[2], 'listed_in', 'listed_as')
if listed[1] == ARGV[2] and listed[2] == ARGV[3] then
  redis.call('ZADD', list('expiry'), ms(now + 86400000), entry)
  return { 'kept' }
end
redis.call('ZREM', list('expiry'), entry)
if list_at[ARGV[2]] then redis.call('ZREM', list(ARGV[2]), ARGV[3]) end
if not listed[1] then redis.call('ZREM', list('unverified'), ARGV[3]) end
return { 'trimmed' }
