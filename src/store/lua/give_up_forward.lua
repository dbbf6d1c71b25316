-- Ends the tries to forward a message, and tells of it, once a day.
--
-- KEYS    1 marker  2 forward  3 events
-- ARGV    1 offset  2 source  3 event time  4 entry  5 event type  6 event data (JSON)  7 for how long it is not told again (ms)
-- RETURNS {'given_up'} | {'no_marker'} | {'wrong_type', key}
-- WHY     The end and its event are one write. Where the other side was gone for days, thousands end at once: one event is enough.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'zset', KEYS[3], 'stream' })
if wrong then return { 'wrong_type', wrong } end
if redis.call('ZREM', KEYS[2], ARGV[4]) == 1 then
  local told = tonumber(redis.call('HGET', KEYS[1], 'not_forwarded_told_at') or '') or 0
  if now - told >= tonumber(ARGV[7]) then
    redis.call('HSET', KEYS[1], 'not_forwarded_told_at', ms(now))
    write_event(KEYS[3], KEYS[1], ARGV[2], ARGV[3], 'account', ARGV[5], ARGV[6])
  end
end
return { 'given_up' }
