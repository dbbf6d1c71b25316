-- Reserves all calls that a reconciliation may make, or none: then it waits without its lease.
--
-- KEYS    1 marker  2 permission  3 schedule  4 quota  5 waiting  6 tickets
-- ARGV    1 offset  2 permission id  3 token  4 wake number the claim read  5 class  6 needs  7 limits
--         8 when it is planned anew if it must wait (ms)  9 the longest time from one probe of an account at fault to the next (ms)  10 the probe's needs
-- RETURNS {'reserved'} | {'probe'} | {'waits'} | {'lost_lease'} | {'no_marker'} | {'wrong_type', key}
-- WHY     Several instances use one quota, and half of a reconciliation helps nobody. Nobody passes by who waits for the same in its class
--         or a better one. What was let in before has its tokens already. Whoever comes back keeps the place it had.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'zset', KEYS[4], 'hash', KEYS[5], 'zset', KEYS[6], 'hash' })
if wrong then return { 'wrong_type', wrong } end
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[3] then return { 'lost_lease' } end

local id, class, needs, limits = ARGV[2], tonumber(ARGV[5]), read_needs(ARGV[6]), read_limits(ARGV[7])
local since, granted = now, false
local ticket = read_ticket(KEYS[6], id)
if ticket then
  since = ticket.since
  if ticket.kind == 'waits' then
    redis.call('ZREM', KEYS[5], id)
    count_waiting(KEYS[4], ticket.class, ticket.needs, -1)
  elseif ticket.till > now then
    -- Its tokens go back and are taken again just below: what it needs may have changed.
    granted = true
    move_tokens(KEYS[4], limits, ticket.needs, 1)
  end
  redis.call('HDEL', KEYS[6], id)
end
if next(needs) == nil then return { 'reserved' } end

local function wait()
  redis.call('ZADD', KEYS[5], ms(class * class_span + since), id)
  write_ticket(KEYS[6], id, 'waits', class, since, 0, ARGV[6])
  count_waiting(KEYS[4], class, needs, 1)
  redis.call('HDEL', KEYS[2], 'lease_token', 'lease_until')
  local woken = (redis.call('HGET', KEYS[2], 'wake') or '0') ~= ARGV[4]
  redis.call('ZADD', KEYS[3], woken and ms(now) or ARGV[8], id)
  return { 'waits' }
end

local fault = redis.call('HMGET', KEYS[1], 'fault_since', 'next_probe_at', 'probe_wait_ms')
if fault[1] then
  if now < tonumber(fault[2] or '0') then return wait() end
  -- Each time twice as long, for it is the less likely to be over soon.
  local pause = math.min(2 * tonumber(fault[3] or ARGV[9]), tonumber(ARGV[9]))
  redis.call('HSET', KEYS[1], 'next_probe_at', ms(now + pause), 'probe_wait_ms', ms(pause))
  move_tokens(KEYS[4], limits, read_needs(ARGV[10]), -1)
  return { 'probe' }
end

if not granted then
  for better = 0, class do
    for name in pairs(needs) do
      if redis.call('HEXISTS', KEYS[4], 'waiting:' .. ms(better) .. ':' .. name) == 1 then return wait() end
    end
  end
end
for name, count in pairs(needs) do
  local limit = limits[name]
  -- A bucket that is full lets in whoever needs more than it holds, and owes the rest.
  if limit and not lets_in(read_bucket(KEYS[4], name, limit), 0, math.min(count, limit.capacity)) then return wait() end
end
move_tokens(KEYS[4], limits, needs, -1)
return { 'reserved' }
