-- How long outbound work stood still: the stop switch, a fault of the account, pauses.

-- Outbound work halts while the stop switch is on or the account is at fault. Both at once are one halt: the time counts once.
-- The begin of the halt that is going on, in milliseconds, or nil. Data of earlier versions has no halted_since.
local function halted_since()
  local fields = redis.call('HMGET', KEYS[1], 'stop_since', 'fault_since', 'halted_since')
  if not fields[1] and not fields[2] then return nil end
  return tonumber(fields[3] or fields[1] or fields[2])
end

-- How long outbound work was halted so far, in milliseconds, over the life of the account.
local function stopped_ms()
  local total = tonumber(redis.call('HGET', KEYS[1], 'stopped_total_ms') or '0')
  local since = halted_since()
  if since then
    total = total + math.max(0, now - since)
  end
  return total
end

-- That, and how long `what` was paused besides, up to now (ms). `still` is the time that stood still anyway: what overlaps counts once.
local function with_pause(what, still)
  local pause = redis.call('HMGET', what, 'paused_since', 'paused_base_ms', 'paused_total_ms')
  local total = still + tonumber(pause[3] or '0')
  if pause[1] then
    total = total + math.max(0, (now - tonumber(pause[1])) - (still - tonumber(pause[2] or '0')))
  end
  return total
end

local function permission_still_ms(permission)
  return with_pause(permission, stopped_ms())
end

local function intent_still_ms(permission, intent)
  return with_pause(intent, permission_still_ms(permission))
end

-- Nothing is sent for an intent while it, or its permission, is paused.
local function is_paused(permission, intent)
  return redis.call('HEXISTS', permission, 'paused_since') == 1 or redis.call('HEXISTS', intent, 'paused_since') == 1
end

-- Sets stop_since or fault_since where it is not set, and with the first of them the begin of the halt.
local function begin_halt(field)
  redis.call('HSET', KEYS[1], 'halted_since', ms(halted_since() or now))
  redis.call('HSETNX', KEYS[1], field, ms(now))
end

-- Takes stop_since or fault_since away, and adds the halt up when it was the last of them.
local function end_halt(field)
  local total = stopped_ms()
  redis.call('HDEL', KEYS[1], field)
  if not halted_since() then
    redis.call('HSET', KEYS[1], 'stopped_total_ms', ms(total))
    redis.call('HDEL', KEYS[1], 'halted_since')
  end
end
