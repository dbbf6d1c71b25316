-- Notes that the account is at fault, or that it no longer is.
--
-- KEYS    1 marker  2 events
-- ARGV    1 offset  2 source  3 event time  4 'on' | 'off'  5 event type  6 event data (JSON)  7 reason  8 time to the first probe (ms)
-- RETURNS {'on'} | {'off'} | {'unchanged'} | {'no_marker'} | {'wrong_type', key}
-- WHY     It is one fault, however many charges meet it: told of once, and nobody but the probe calls while it lasts. The time of it is
--         added up with that of the stop switch, because the windows of the intents stand still meanwhile.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream' })
if wrong then return { 'wrong_type', wrong } end
local on = redis.call('HEXISTS', KEYS[1], 'fault_since') == 1
if on == (ARGV[4] == 'on') then return { 'unchanged' } end
if ARGV[4] == 'on' then
  begin_halt('fault_since')
  redis.call('HSET', KEYS[1], 'fault_reason', ARGV[7], 'next_probe_at', ms(now + tonumber(ARGV[8])))
else
  end_halt('fault_since')
  redis.call('HDEL', KEYS[1], 'fault_reason', 'next_probe_at')
end
write_event(KEYS[2], KEYS[1], ARGV[2], ARGV[3], 'account', ARGV[5], ARGV[6])
return { ARGV[4] }
