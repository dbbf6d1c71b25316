-- Leases, and writes from outside that wake a permission.

local function is_leased(permission)
  local till = redis.call('HGET', permission, 'lease_until')
  return till and tonumber(till) > now
end

-- A write from outside: one more wake, and due now unless somebody holds the lease (its commit sees the new number).
local function wake_unless(leased_until, permission, schedule, id)
  local number = redis.call('HINCRBY', permission, 'wake', 1)
  redis.call('PERSIST', permission)
  if not (leased_until and tonumber(leased_until) > now) then
    redis.call('ZADD', schedule, 'LT', ms(now), id)
  end
  return number
end

local function wake(permission, schedule, id)
  return wake_unless(redis.call('HGET', permission, 'lease_until'), permission, schedule, id)
end
