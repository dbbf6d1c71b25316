-- Accepts the wish to capture an authorisation, or recognises one that was accepted before.
--
-- KEYS    1 marker  2 intent  3 permission  4 open  5 schedule  6 events
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 intent id  6 wish (JSON)  7 events at most  8 event type
--         9 event data (JSON)
-- RETURNS {'accepted'} | {'same'} | {'conflict', state} | {'not_authorized', state} | {'canceling'} | {'unknown'} | {'full'}
--         | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     One capture at a time. The wish is written here and nowhere else, and removed only by a commit that names it, so a
--         reconciliation under way can neither overwrite nor lose it; the wake number makes the permission due again after that one.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'zset', KEYS[6], 'stream' })
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2], KEYS[3] })
if later then return { 'newer', later } end
local fields = redis.call('HMGET', KEYS[2], 'state', 'capture_request', 'cancel_at', 'capture_number')
local state, wish, cancel_at = fields[1], fields[2] or '', fields[3] or ''
if not state then return { 'unknown' } end
-- Also when it was captured or has ended meanwhile: a caller that asks again must not be told that it never asked.
if wish == ARGV[6] then return { 'same' } end
if wish ~= '' then return { 'conflict', state } end
if state ~= 'authorized' then return { 'not_authorized', state } end
if cancel_at ~= '' then return { 'canceling' } end
if redis.call('XLEN', KEYS[6]) >= tonumber(ARGV[7]) then return { 'full' } end

if not fields[4] then
  redis.call('HSET', KEYS[2], 'capture_number', '0', 'capture_status', 'fresh', 'capture_sends', '0')
end
redis.call('HSET', KEYS[2], 'capture_request', ARGV[6], 'capture_requested_at', ms(now))
redis.call('ZADD', KEYS[4], ms(now), ARGV[5])
wake(KEYS[3], KEYS[5], ARGV[4])
write_event(KEYS[6], KEYS[3], ARGV[2], ARGV[3], ARGV[4], ARGV[8], ARGV[9])
return { 'accepted' }
