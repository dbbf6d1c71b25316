-- Extends the lease of a worker that still holds it.
--
-- KEYS    1 marker  2 permission  3 schedule
-- ARGV    1 offset  2 permission id  3 token  4 lease (ms)
-- RETURNS {'renewed'} | {'lapsed'} (extended, but it had run out) | {'lost_lease'} | {'no_marker'} | {'wrong_type', key}
-- WHY     A reconciliation makes several calls of up to 45 s each; the lease must outlast the one that starts now.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'zset' })
if wrong then return { 'wrong_type', wrong } end
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[3] then return { 'lost_lease' } end
local lapsed = not is_leased(KEYS[2])
local till = ms(now + tonumber(ARGV[4]))
redis.call('HSET', KEYS[2], 'lease_until', till)
redis.call('ZADD', KEYS[3], till, ARGV[2])
return { lapsed and 'lapsed' or 'renewed' }
