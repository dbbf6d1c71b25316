-- Puts an intent of a version without lists into them; or notes that all are.
--
-- KEYS    1 marker  2 intent, or the marker again  3.. the lists
-- ARGV    1 offset  2 'one' | 'all'  3 state the caller read  4 progress the caller read  5 list entry  6 '1' if its end is unverified
--         7 retention of ended intents (ms)
-- RETURNS {'listed'} | {'changed'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     Whoever writes a state lists the intent. This is only for what nobody has written since; what was written meanwhile is listed.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type(and_lists({ KEYS[2], 'hash' }))
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2] })
if later then return { 'newer', later } end
if ARGV[2] == 'all' then
  redis.call('HSET', KEYS[1], 'listed', '1')
  return { 'listed' }
end
local fields = redis.call('HMGET', KEYS[2], 'listed_in', 'state', 'progress')
if fields[1] then return { 'listed' } end
if fields[2] ~= ARGV[3] or fields[3] ~= ARGV[4] then return { 'changed' } end
enlist(KEYS[2], ARGV[3], ARGV[5], ARGV[6] == '1', terminal[ARGV[3]] and tonumber(ARGV[7]) or nil)
return { 'listed' }
