-- Throws or lifts the red switch.
--
-- KEYS    1 marker  2 events
-- ARGV    1 offset  2 source  3 event time  4 'on' | 'off'  5 event type  6 event data (JSON)
-- RETURNS {'on', since ms} | {'off'} | {'no_marker'} | {'wrong_type', key}
-- WHY     No send is marked while it is on, on any instance, and it survives restarts. The time it was on is added up, because the
--         windows of the intents stand still meanwhile.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream' })
if wrong then return { 'wrong_type', wrong } end
local since = redis.call('HGET', KEYS[1], 'stop_since')
if ARGV[4] == 'on' then
  if not since then
    since = ms(now)
    begin_halt('stop_since')
    write_event(KEYS[2], KEYS[1], ARGV[2], ARGV[3], 'account', ARGV[5], ARGV[6])
  end
  return { 'on', since }
end
if since then
  end_halt('stop_since')
  write_event(KEYS[2], KEYS[1], ARGV[2], ARGV[3], 'account', ARGV[5], ARGV[6])
end
return { 'off' }
