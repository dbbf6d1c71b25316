-- Notes the wish that an intent be tried now.
--
-- KEYS    1 marker  2 intent  3 permission  4 schedule
-- ARGV    1 offset  2 permission id
-- RETURNS {'noted'} | {'not_waiting', state} | {'paused'} | {'unknown'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     A wish and not a new plan: while a lease runs only its holder writes the plan. The wish stays until a commit says that exactly
--         this one was seen to, so that no crash loses it. A wish that is still there is not doubled.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset' })
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2], KEYS[3] })
if later then return { 'newer', later } end
local state = redis.call('HGET', KEYS[2], 'state')
if not state then return { 'unknown' } end
if state ~= 'scheduled' and state ~= 'parked' then return { 'not_waiting', state } end
if is_paused(KEYS[3], KEYS[2]) then return { 'paused' } end
local number = wake(KEYS[3], KEYS[4], ARGV[2])
if redis.call('HEXISTS', KEYS[2], 'retry_wish') == 0 then
  redis.call('HSET', KEYS[2], 'retry_wish', ms(number))
end
return { 'noted' }
