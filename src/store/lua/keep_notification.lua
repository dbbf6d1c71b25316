-- Stores a verified message that names no work: a test, a confirmation, or something that must be kept aside for a person.
--
-- KEYS    1 marker  2 seen:<message id>  3 journal  4 quarantine  5 events
-- ARGV    1 offset  2 seen TTL (ms)  3 reason, or '' if it need not be kept aside  4 quarantine entries at most
--         5 oldest journal id to keep (ms)  6 source  7 event time  8 event type, or '' for none  9 event data (JSON)
--         10.. journal fields and values
-- RETURNS {'kept'} | {'duplicate'} | {'full'} | {'no_marker'} | {'wrong_type', key}
-- WHY     As accept_notifications: a 200 promises that nothing was lost, so what we cannot use is kept until a person decides.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'string', KEYS[3], 'stream', KEYS[4], 'stream', KEYS[5], 'stream' })
if wrong then return { 'wrong_type', wrong } end
if redis.call('EXISTS', KEYS[2]) == 1 then return { 'duplicate' } end
if ARGV[3] ~= '' and redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[4]) then return { 'full' } end

redis.call('XADD', KEYS[3], 'MINID', '~', ARGV[5], '*', unpack(ARGV, 10))
if ARGV[3] ~= '' then
  redis.call('XADD', KEYS[4], '*', 'reason', ARGV[3], unpack(ARGV, 10))
end
if ARGV[8] ~= '' then
  write_event(KEYS[5], KEYS[1], ARGV[6], ARGV[7], 'account', ARGV[8], ARGV[9])
end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
return { 'kept' }
