-- Removes events that are old enough to go, and tells of consumer groups that are behind.
--
-- KEYS    1 marker  2 events
-- ARGV    1 offset  2 source  3 event time  4 oldest entry that stays  5 field of the marker that says when it was told, or '' for nothing
--         6 event type  7 event data (JSON)  8 for how long it is not told again (ms)
-- RETURNS {'trimmed', how many} | {'no_marker'} | {'wrong_type', key}
-- WHY     The alert is written after the trimming, so that it stands in the stream when the consumers come back.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream' })
if wrong then return { 'wrong_type', wrong } end
local trimmed = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4])
if ARGV[5] ~= '' then
  local told = tonumber(redis.call('HGET', KEYS[1], ARGV[5]) or '') or 0
  if now - told >= tonumber(ARGV[8]) then
    redis.call('HSET', KEYS[1], ARGV[5], ms(now))
    write_event(KEYS[2], KEYS[1], ARGV[2], ARGV[3], 'account', ARGV[6], ARGV[7])
  end
end
return { 'trimmed', trimmed }
