-- Token buckets (docs/adr/0015). The same arithmetic is in src/model/quota.rs.

-- 'create_charge=5:0.5,...': capacity, and tokens that come back in a second.
local function read_limits(text)
  local limits = {}
  for name, capacity, rate in string.gmatch(text, '([%w_]+)=([%d.]+):([%d.e-]+)') do
    limits[name] = { capacity = tonumber(capacity), rate = tonumber(rate) }
  end
  return limits
end

-- 'create_charge=1,...'
local function read_needs(text)
  local needs = {}
  for name, count in string.gmatch(text, '([%w_]+)=(%d+)') do
    needs[name] = tonumber(count)
  end
  return needs
end

-- The part of its rate that a bucket fills at: slowed down by Amazon, it gets an eighth back each minute.
local function factor_at(bucket, at)
  local steps = math.floor(math.max(0, at - bucket.slowed_at) / 60000)
  return math.min(1, bucket.factor + steps / 8)
end

-- The longest Retry-After that we believe (ms).
local longest_closed = 900000

local function write_bucket(quota, name, bucket)
  redis.call('HSET', quota, name, string.format('%.6f %.0f %.4f %.0f %.0f',
    bucket.tokens, bucket.at, bucket.factor, bucket.slowed_at, bucket.closed_until))
end

-- A bucket as it is now. One that is not there, or cannot be read, is full.
local function read_bucket(quota, name, limit)
  local text = redis.call('HGET', quota, name) or ''
  local tokens, at, factor, slowed_at, closed_until = string.match(text, '^(%S+) (%d+) (%S+) (%d+) (%d+)$')
  local bucket = {
    tokens = tonumber(tokens or '') or limit.capacity, at = tonumber(at or '') or now,
    factor = tonumber(factor or '') or 1, slowed_at = tonumber(slowed_at or '') or 0,
    closed_until = tonumber(closed_until or '') or 0,
  }
  if bucket.at > now or bucket.slowed_at > now then
    -- The server before this one was ahead. By its clock the bucket would stay empty until this one has caught up.
    bucket.at, bucket.slowed_at = math.min(bucket.at, now), math.min(bucket.slowed_at, now)
    bucket.closed_until = math.min(bucket.closed_until, now + longest_closed)
    write_bucket(quota, name, bucket)
  end
  local span = math.max(0, now - math.max(bucket.at, bucket.closed_until)) / 1000
  bucket.tokens = math.min(limit.capacity, bucket.tokens + span * limit.rate * factor_at(bucket, bucket.at))
  bucket.at = now
  return bucket
end

-- Whether a bucket, less what is held back, lets so many calls in; until a Retry-After is over none, whatever was given back.
local function lets_in(bucket, held, count)
  return bucket.closed_until <= now and bucket.tokens - held >= count
end

-- Adds tokens to the buckets: negative counts take.
local function move_tokens(quota, limits, counts, sign)
  for name, count in pairs(counts) do
    local limit = limits[name]
    if limit and count > 0 then
      local bucket = read_bucket(quota, name, limit)
      bucket.tokens = math.min(limit.capacity, bucket.tokens + sign * count)
      write_bucket(quota, name, bucket)
    end
  end
end

-- The waiting room: a sorted set by class and, within it, since when; for each member a ticket with what it needs; and in the hash of
-- the buckets how many calls of each operation each class waits for.
local class_span = 1e13
-- Whoever was let in stands in the schedule by its score of the room divided by this: before all times there are, in the same order.
local turn_divisor = 1000

-- 'waits|granted <class> <since> <until> <needs>'; nil if there is none.
local function read_ticket(tickets, id)
  local text = redis.call('HGET', tickets, id) or ''
  local kind, class, since, till, needs = string.match(text, '^(%a+) (%d+) (%d+) (%d+) (%S*)$')
  if not kind then return nil end
  return { kind = kind, class = tonumber(class), since = tonumber(since), till = tonumber(till), text = needs, needs = read_needs(needs) }
end

local function write_ticket(tickets, id, kind, class, since, till, needs)
  redis.call('HSET', tickets, id, kind .. ' ' .. ms(class) .. ' ' .. ms(since) .. ' ' .. ms(till) .. ' ' .. needs)
end

local function count_waiting(quota, class, needs, sign)
  for name, count in pairs(needs) do
    local field = 'waiting:' .. ms(class) .. ':' .. name
    if redis.call('HINCRBY', quota, field, sign * count) <= 0 then
      redis.call('HDEL', quota, field)
    end
  end
end
