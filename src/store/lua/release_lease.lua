-- Gives a lease back without a decision; the permission is due again after a delay.
--
-- KEYS    1 marker  2 permission  3 schedule
-- ARGV    1 offset  2 permission id  3 token  4 delay (ms)
-- RETURNS {'released'} | {'lost_lease'} | {'no_marker'} | {'wrong_type', key}
-- WHY     A worker that is told to shut down, or that cannot read what it needs, must not keep the permission for a whole lease.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'zset' })
if wrong then return { 'wrong_type', wrong } end
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[3] then return { 'lost_lease' } end
redis.call('HDEL', KEYS[2], 'lease_token', 'lease_until')
redis.call('ZADD', KEYS[3], ms(now + tonumber(ARGV[4])), ARGV[2])
return { 'released' }
