-- Notes that somebody wants a charge permission to be looked at now.
--
-- KEYS    1 marker  2 permission  3 schedule
-- ARGV    1 offset  2 permission id  3 'known' | 'any'
-- RETURNS {'asked'} | {'unknown'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     Not a hint: a hint stands for a notification, and that is evidence that something changed. The wake number makes the note new,
--         so that a running reconciliation cannot clear it.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'zset' })
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2] })
if later then return { 'newer', later } end
-- A mistyped id leaves nothing behind.
if ARGV[3] == 'known' and redis.call('EXISTS', KEYS[2]) == 0 then return { 'unknown' } end
local number = wake(KEYS[2], KEYS[3], ARGV[2])
redis.call('HSET', KEYS[2], 'look_asked', ms(number))
return { 'asked' }
