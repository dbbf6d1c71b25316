-- Writes the marker without which no other script writes anything.
--
-- KEYS    1 marker  2 schedule  3 journal  4 events
-- ARGV    1 offset  2 'first' | 'after_loss' | 'after_restore' | 'end_recovery'  3 merchant  4 environment
-- RETURNS {'done'} | {'exists'} | {'not_empty'} | {'missing'} | {'not_recovering'} | {'wrong_type', key}
-- WHY     An emptied or rolled-back server must be noticed at once: only a person, who knows what happened, may say that it is new.
--         After a loss or a restored backup nothing is sent until the operator has looked.
local wrong = wrong_type({ KEYS[1], 'hash' })
if wrong then return { 'wrong_type', wrong } end
local mode, exists = ARGV[2], has_marker()
if mode == 'end_recovery' then
  if not exists then return { 'missing' } end
  if redis.call('HDEL', KEYS[1], 'recovering') == 0 then return { 'not_recovering' } end
  return { 'done' }
end
-- The same recovery again finishes one that was interrupted: perhaps not every open intent is held yet.
local again = mode == 'after_loss' and redis.call('HGET', KEYS[1], 'initialised_as') == mode
  and redis.call('HEXISTS', KEYS[1], 'recovering') == 1
if exists and mode ~= 'after_restore' and not again then return { 'exists' } end
if mode == 'first' and redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) > 0 then return { 'not_empty' } end

redis.call('HSET', KEYS[1], 'version', '1', 'merchant', ARGV[3], 'environment', ARGV[4], 'initialised_at', ms(now), 'initialised_as', mode)
-- After a loss or a restored backup marks may be missing as after a failover: for X from now sends are tainted.
redis.call('HSET', KEYS[1], 'server', server_identity(), 'server_changed_at', mode == 'first' and '' or ms(now))
if mode == 'first' then
  -- There is no charge yet that is in none of the lists.
  redis.call('HSET', KEYS[1], 'listed', '1')
else
  redis.call('HSET', KEYS[1], 'recovering', '1')
  -- A switch that is on stays on since then: the windows stand still for all of it.
  begin_halt('stop_since')
end
return { 'done' }
