-- Holds one open intent after a loss or a restored backup.
--
-- KEYS    1 marker  2 intent  3 permission  4 open  5 events  6.. the lists
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 intent id  6 progress the caller read  7 progress when held (JSON)
--         8 event type  9 event data (JSON)  10 list entry when held
-- RETURNS {'held'} | {'ended'} | {'changed'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     The data may be older than what Amazon saw: the stored number may have been used, and higher ones too.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type(and_lists({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'stream' }))
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2], KEYS[3] })
if later then return { 'newer', later } end
local fields = redis.call('HMGET', KEYS[2], 'state', 'progress', 'recovery')
if not fields[1] or terminal[fields[1]] then return { 'ended' } end
if fields[3] == '1' then return { 'held' } end
if fields[2] ~= ARGV[6] then return { 'changed' } end
-- A number that was never marked in this data may have been marked in the data that was lost: it counts as marked now.
local number = redis.call('HMGET', KEYS[2], 'number', 'number_status')
local least = tonumber(number[1])
if number[2] == 'fresh' then
  least = least - 1
  redis.call('HSET', KEYS[2], 'first_mark', ms(now), 'last_mark', ms(now), 'sends', '1')
end
-- A wished capture likewise: what is sent again goes out under the same number. Where nothing is wished a capture may have been under
-- way all the same, so a first send within X of now is tainted.
local capture = redis.call('HMGET', KEYS[2], 'capture_request', 'capture_status')
redis.call('HSET', KEYS[2], 'capture_last_mark', ms(now))
if capture[1] and capture[1] ~= '' and capture[2] ~= 'answered' then
  if capture[2] == 'fresh' then redis.call('HSET', KEYS[2], 'capture_first_mark', ms(now), 'capture_sends', '1') end
  redis.call('HSET', KEYS[2], 'capture_status', 'unknown', 'capture_tainted', '1')
end
redis.call('HSET', KEYS[2], 'state', 'held', 'progress', ARGV[7], 'number_status', 'unknown', 'tainted', '1', 'recovery', '1',
  'recovery_least', ms(least))
enlist(KEYS[2], 'held', ARGV[10], false, nil)
redis.call('ZADD', KEYS[4], '+inf', ARGV[5])
write_event(KEYS[5], KEYS[3], ARGV[2], ARGV[3], ARGV[4], ARGV[8], ARGV[9])
return { 'held' }
