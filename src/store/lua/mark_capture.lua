-- Marks the send of a capture: the point of no return, as mark_send is for a charge.
--
-- KEYS    1 marker  2 permission  3 intent  4 events  5 open
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 token  6 capture number  7 'new' | 'repeat'  8 charge that is captured
--         9 time that must be left of the lease (ms)  10 X, the confirmation delay (ms)  11 events at most  12 wish (JSON)
--         13 event type  14 event data (JSON)  15 intent id
-- RETURNS {'marked', tainted 0|1, now, sends, first mark} | {'stopped'} | {'refused', why} | {'full'} | {'lost_lease'} | {'no_marker'}
--         | {'wrong_type', key}
-- WHY     Between the decision and the send anything may have happened. Unlike a charge a capture is not repeated after a cancellation:
--         Get Charge tells what became of the copies that are out, so nothing need be sent to find out. A closed permission does not
--         refuse it: what was authorised before may be captured, and Amazon decides. After a recovery the marks of before are gone:
--         for X no send counts as the only one.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'stream', KEYS[5], 'zset' })
if wrong then return { 'wrong_type', wrong } end
if newer({ KEYS[2], KEYS[3] }) then return { 'refused', 'a newer version of the service has written it' } end
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[5] then return { 'lost_lease' } end
local till = tonumber(redis.call('HGET', KEYS[2], 'lease_until') or '0')
if till - now < tonumber(ARGV[9]) then return { 'lost_lease' } end
if redis.call('HEXISTS', KEYS[1], 'stop_since') == 1 then return { 'stopped' } end
if is_paused(KEYS[2], KEYS[3]) then return { 'refused', 'the charge is paused' } end

local fields = redis.call('HMGET', KEYS[3], 'state', 'charge', 'cancel_at', 'capture_request', 'capture_number', 'capture_status',
  'capture_last_mark', 'capture_first_mark')
local state, status = fields[1], fields[6]
if state ~= 'authorized' then return { 'refused', 'the intent is ' .. (state or 'gone') } end
if fields[2] ~= ARGV[8] then return { 'refused', 'the charge is ' .. (fields[2] or 'gone') } end
if fields[3] and fields[3] ~= '' then return { 'refused', 'a cancellation was accepted' } end
if fields[4] ~= ARGV[12] then return { 'refused', 'another capture is asked for' } end
if fields[5] ~= ARGV[6] then return { 'refused', 'the capture number is ' .. (fields[5] or 'gone') } end
if ARGV[7] == 'new' then
  if status ~= 'fresh' then return { 'refused', 'the capture number was marked before' } end
  if redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[11]) then return { 'full' } end
elseif status ~= 'unknown' then
  return { 'refused', 'the capture number is ' .. (status or 'gone') }
end

local x = tonumber(ARGV[10])
local last_mark, first_mark = tonumber(fields[7] or ''), fields[8]
local changed_at = server_changed_at()
local marker = redis.call('HMGET', KEYS[1], 'initialised_as', 'initialised_at')
local recovered_at = marker[1] ~= 'first' and tonumber(marker[2] or '')
local tainted = (last_mark and now - last_mark < x) or (changed_at and now - changed_at < x)
  or (recovered_at and now - recovered_at < x)
if ARGV[7] == 'new' then
  first_mark = ms(now)
  redis.call('HSET', KEYS[3], 'capture_first_mark', first_mark)
end
local sends = redis.call('HINCRBY', KEYS[3], 'capture_sends', 1)
redis.call('HSET', KEYS[3], 'capture_status', 'unknown', 'capture_last_mark', ms(now), 'capture_tainted', tainted and '1' or '0')
-- Due from now on: if this worker dies, whoever comes next finds an unknown capture.
redis.call('ZADD', KEYS[5], ms(now), ARGV[15])
write_event(KEYS[4], KEYS[2], ARGV[2], ARGV[3], ARGV[4], ARGV[13], ARGV[14])
return { 'marked', tainted and '1' or '0', ms(now), ms(sends), first_mark or '' }
