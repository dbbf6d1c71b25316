-- Keeps aside a verified notification that is not understood, or that is another merchant's.
--
-- KEYS    1 marker  2 seen:<message id>  3 journal  4 quarantine  5 events
-- ARGV    1 offset  2 seen TTL (ms)  3 reason  4 quarantine entries at most  5 oldest journal id to keep (ms)  6 source
--         7 event time  8 event type  9 event data (JSON)  10.. journal fields and values
-- RETURNS {'quarantined'} | {'duplicate'} | {'full'} | {'no_marker'} | {'wrong_type', key}
-- WHY     As accept_notification: a 200 promises that nothing was lost, so what we cannot use is kept until a person decides.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'string', KEYS[3], 'stream', KEYS[4], 'stream', KEYS[5], 'stream' })
if wrong then return { 'wrong_type', wrong } end
if redis.call('EXISTS', KEYS[2]) == 1 then return { 'duplicate' } end
if redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[4]) then return { 'full' } end

redis.call('XADD', KEYS[3], 'MINID', '~', ARGV[5], '*', unpack(ARGV, 10))
redis.call('XADD', KEYS[4], '*', 'reason', ARGV[3], unpack(ARGV, 10))
write_event(KEYS[5], KEYS[1], ARGV[6], ARGV[7], 'account', ARGV[8], ARGV[9])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
return { 'quarantined' }
