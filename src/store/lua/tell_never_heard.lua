-- Tells that no notification has ever come, once a week.
--
-- KEYS    1 marker  2 events
-- ARGV    1 offset  2 source  3 event time  4 event type  5 event data (JSON)  6 how long one may take to come (ms)
--         7 for how long it is not told again (ms)
-- RETURNS {'told'} | {'quiet'} (one has come, may still come in time, or it was told lately) | {'no_marker'} | {'wrong_type', key}
-- WHY     An address that was entered wrongly fails in silence: the sweep notices only once there is something to miss. All instances
--         ask; the marker remembers, so that one of them tells.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream' })
if wrong then return { 'wrong_type', wrong } end
local fields = redis.call('HMGET', KEYS[1], 'last_notification_at', 'never_heard_told_at', 'initialised_at')
local since = tonumber(fields[3] or '')
if fields[1] or not since or now - since < tonumber(ARGV[6]) then return { 'quiet' } end
if now - (tonumber(fields[2] or '') or 0) < tonumber(ARGV[7]) then return { 'quiet' } end
redis.call('HSET', KEYS[1], 'never_heard_told_at', ms(now))
write_event(KEYS[2], KEYS[1], ARGV[2], ARGV[3], 'account', ARGV[4], ARGV[5])
return { 'told' }
