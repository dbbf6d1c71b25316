-- Marks a send: the point of no return. After it the signed request goes out once or never.
--
-- KEYS    1 marker  2 permission  3 intent  4 events  5 open
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 token  6 number  7 'new' | 'repeat'  8 state the worker saw
--         9 time that must be left of the lease (ms)  10 X, the confirmation delay (ms)  11 events at most
--         12 instrument digest  13 trigger  14 event type  15 event data (JSON)  16 intent id
-- RETURNS {'marked', tainted 0|1, now, sends, first mark} | {'stopped'} | {'refused', why} | {'full'} | {'lost_lease'} | {'no_marker'}
--         | {'wrong_type', key}
-- WHY     Between the decision and the send anything may have happened: a cancellation, a closing or the wish for one, the stop switch, another worker.
--         Only this script sees all of it at once. A send is tainted if an earlier copy of the same number, marked within the last X,
--         may still be accepted by Amazon; or if the server changed within X and may have lost such a mark.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'stream', KEYS[5], 'zset' })
if wrong then return { 'wrong_type', wrong } end
if newer({ KEYS[2], KEYS[3] }) then return { 'refused', 'a newer version of the service has written it' } end
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[5] then return { 'lost_lease' } end
local till = tonumber(redis.call('HGET', KEYS[2], 'lease_until') or '0')
if till - now < tonumber(ARGV[9]) then return { 'lost_lease' } end
if redis.call('HEXISTS', KEYS[1], 'stop_since') == 1 then return { 'stopped' } end
-- Repeats too: a repeat may charge.
if is_paused(KEYS[2], KEYS[3]) then return { 'refused', 'the charge is paused' } end

local fields = redis.call('HMGET', KEYS[3], 'state', 'number', 'number_status', 'cancel_at', 'last_mark', 'first_mark')
local state, number, status, cancel_at = fields[1], fields[2], fields[3], fields[4]
local last_mark, first_mark = tonumber(fields[5] or ''), fields[6]
if not state or terminal[state] or state == 'held' then return { 'refused', 'the intent is ' .. (state or 'gone') } end
if number ~= ARGV[6] then return { 'refused', 'the number is ' .. (number or 'gone') } end
-- A repeat waits too: once the permission is closed at Amazon no new charge can come of it.
local closing = redis.call('HMGET', KEYS[2], 'close_at', 'closed')
if closing[1] and closing[2] ~= '1' then return { 'refused', 'a closing was asked for' } end
if ARGV[7] == 'new' then
  if status ~= 'fresh' then return { 'refused', 'the number was marked before' } end
  if cancel_at and cancel_at ~= '' then return { 'refused', 'a cancellation was accepted' } end
  if closing[2] == '1' then return { 'refused', 'the charge permission is closed' } end
  if state ~= ARGV[8] then return { 'refused', 'the intent is ' .. state } end
  if redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[11]) then return { 'full' } end
elseif status == 'fresh' then
  return { 'refused', 'the number was never marked' }
end

local changed_at = server_changed_at()
local x = tonumber(ARGV[10])
local tainted = (last_mark and now - last_mark < x) or (changed_at and now - changed_at < x)
if ARGV[7] == 'new' then
  first_mark = ms(now)
  redis.call('HSET', KEYS[3], 'first_mark', first_mark, 'instrument', ARGV[12], 'trigger', ARGV[13])
end
local sends = redis.call('HINCRBY', KEYS[3], 'sends', 1)
redis.call('HSET', KEYS[3], 'number_status', 'unknown', 'last_mark', ms(now), 'tainted', tainted and '1' or '0')
-- Due from now on: if this worker dies, whoever comes next finds an unknown number and not the time of the plan before it.
redis.call('ZADD', KEYS[5], ms(now), ARGV[16])
write_event(KEYS[4], KEYS[2], ARGV[2], ARGV[3], ARGV[4], ARGV[14], ARGV[15])
return { 'marked', tainted and '1' or '0', ms(now), ms(sends), first_mark or '' }
