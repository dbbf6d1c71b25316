-- Notes that an object is to be looked at, without a notification: a success that arrived after its worker had lost the lease, or a
-- charge that an operator named.
--
-- KEYS    1 marker  2 permission  3 hints  4 schedule
-- ARGV    1 offset  2 permission id  3 hint field  4 hint note (JSON)
-- RETURNS {'noted'} | {'no_marker'} | {'wrong_type', key}
-- WHY     A success is never thrown away. The charge is read again under a lease and matched by its tag, so there is one path from a
--         charge to its intent, and noting the same charge twice does nothing twice.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset' })
if wrong then return { 'wrong_type', wrong } end
local number = wake(KEYS[2], KEYS[4], ARGV[2])
redis.call('HSET', KEYS[3], ARGV[3], ms(number) .. ' ' .. ms(now) .. ' ' .. ARGV[4])
return { 'noted' }
