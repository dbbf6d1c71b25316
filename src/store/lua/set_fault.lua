-- Notes that the account is at fault, or that it no longer is; or that somebody wants the next probe now.
--
-- KEYS    1 marker  2 events
-- ARGV    1 offset  2 source  3 event time  4 'on' | 'off' | 'probe'  5 event type  6 event data (JSON)  7 reason  8 time to the first probe (ms)
--         9 the longest time from one probe to the next (ms)
-- RETURNS {'on'} | {'off'} | {'probe'} | {'unchanged'} | {'no_marker'} | {'wrong_type', key}
-- WHY     It is one fault, however many charges meet it: told of once, and nobody but the probe calls while it lasts. The time of it is
--         added up with that of the stop switch, because the windows of the intents stand still meanwhile. The first probe comes early,
--         because it may be one permission alone that is refused; not so early again if the account was found well and is refused again:
--         one that answers looks and refuses charges must not meet it every minute.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream' })
if wrong then return { 'wrong_type', wrong } end
local on = redis.call('HEXISTS', KEYS[1], 'fault_since') == 1
if ARGV[4] == 'probe' then
  if not on then return { 'unchanged' } end
  redis.call('HSET', KEYS[1], 'next_probe_at', ms(now))
  return { 'probe' }
end
if on == (ARGV[4] == 'on') then return { 'unchanged' } end
if ARGV[4] == 'on' then
  begin_halt('fault_since')
  local before, longest = redis.call('HMGET', KEYS[1], 'fault_ended_at', 'probe_wait_ms'), tonumber(ARGV[9])
  local wait = tonumber(ARGV[8])
  if before[1] and now - tonumber(before[1]) < longest then
    wait = math.min(2 * math.max(wait, tonumber(before[2] or '0')), longest)
  end
  redis.call('HSET', KEYS[1], 'fault_reason', ARGV[7], 'next_probe_at', ms(now + wait), 'probe_wait_ms', ms(wait))
else
  end_halt('fault_since')
  redis.call('HDEL', KEYS[1], 'fault_reason', 'next_probe_at')
  redis.call('HSET', KEYS[1], 'fault_ended_at', ms(now))
end
write_event(KEYS[2], KEYS[1], ARGV[2], ARGV[3], 'account', ARGV[5], ARGV[6])
return { ARGV[4] }
