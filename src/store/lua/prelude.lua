-- Put before every script. ARGV[1] of every script is the clock offset in milliseconds (0 outside demo and tests), followed by
-- ' promise' if replicas are waited for after it; KEYS[1] is the marker.
--
-- Every script answers with an array whose first element names the outcome. Every script checks types and arguments first, then
-- writes, so that an error in the middle cannot leave half a write that means something.

local function ms(number)
  return string.format('%.0f', number)
end

local offset, promise = string.match(ARGV[1], '^(%S+)(.*)$')
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(offset)

-- The version of records that this version of the service knows (docs/adr/0016). src/store/record.rs has the same.
local known_version = 1

local function is_newer(version)
  return version and (tonumber(version) or math.huge) > known_version
end

-- A marker of a later version says that everything may be laid out anew: then no script of this one does anything.
local marker_version = redis.call('TYPE', KEYS[1]).ok == 'hash' and redis.call('HGET', KEYS[1], 'version')
if is_newer(marker_version) then return { 'newer', KEYS[1] } end

-- Without its marker a server may have lost its data: nothing is written to it (docs/adr/0006).
-- WAIT waits for what its connection wrote. A script that finds everything stored writes nothing; but what it found may be of another
-- connection, and not with the replicas yet. So a promise always writes. This comes before the scripts check types: a counter that
-- nobody reads may grow for what is refused then.
local function has_marker()
  if marker_version and promise ~= '' then redis.call('HINCRBY', KEYS[1], 'promises', 1) end
  return marker_version and true or false
end

-- The first of the given records (intents, permissions) that a later version wrote, or nil: it is left alone.
local function newer(records)
  for _, key in ipairs(records) do
    if is_newer(redis.call('HGET', key, 'v')) then return key end
  end
  return nil
end

-- The first of the given keys that is neither missing nor of its type, or nil: {key, type, key, type, ...}.
local function wrong_type(pairs_of)
  for i = 1, #pairs_of, 2 do
    local found = redis.call('TYPE', pairs_of[i]).ok
    if found ~= 'none' and found ~= pairs_of[i + 1] then
      return pairs_of[i]
    end
  end
  return nil
end

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

local function is_leased(permission)
  local till = redis.call('HGET', permission, 'lease_until')
  return till and tonumber(till) > now
end

-- A write from outside: one more wake, and due now unless somebody holds the lease (its commit sees the new number).
local function wake(permission, schedule, id)
  local number = redis.call('HINCRBY', permission, 'wake', 1)
  redis.call('PERSIST', permission)
  if not is_leased(permission) then
    redis.call('ZADD', schedule, 'LT', ms(now), id)
  end
  return number
end

-- CloudEvents 1.0 in flat fields. `counter` is the hash whose event_seq numbers the events of `subject`.
local function write_event(events, counter, source, time_text, subject, kind, data)
  local seq = redis.call('HINCRBY', counter, 'event_seq', 1)
  redis.call('XADD', events, '*',
    'specversion', '1.0', 'id', subject .. '-' .. ms(seq) .. '-' .. ms(now), 'source', source, 'type', kind,
    'subject', subject, 'time', time_text, 'datacontenttype', 'application/json', 'data', data)
end

-- Which server this is: a restart gives it another run id, a failover another replication id.
local function server_identity()
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  local repl_id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
  return run_id .. '/' .. repl_id
end

-- When the server last changed, or nil. A restart or a failover may have lost the newest marks: for X after it no send counts as the
-- only one. For the scripts that mark a send. The marker is written with its server: where none is known, by an earlier version, the
-- first mark of all may be among the lost ones.
local function server_changed_at()
  local server = server_identity()
  local known = redis.call('HMGET', KEYS[1], 'server', 'server_changed_at')
  local changed_at = tonumber(known[2] or '')
  if known[1] ~= server then
    changed_at = now
    redis.call('HSET', KEYS[1], 'server', server, 'server_changed_at', ms(now))
  end
  return changed_at
end

local terminal = { captured = true, canceled = true, abandoned = true }

-- What an operator looks charges up by: a list for each state, one for ends that are unverified, and one that says when an entry may
-- go. They are the last KEYS, in this order, of every script that writes a state.
local lists = { 'scheduled', 'parked', 'pending', 'authorized', 'held', 'captured', 'canceled', 'abandoned', 'unverified', 'expiry' }
local list_at = {}
for i, name in ipairs(lists) do list_at[name] = i end

local function list(name)
  return KEYS[#KEYS - #lists + list_at[name]]
end

-- For wrong_type: the given pairs and the lists.
local function and_lists(pairs_of)
  for _, name in ipairs(lists) do
    pairs_of[#pairs_of + 1] = list(name)
    pairs_of[#pairs_of + 1] = 'zset'
  end
  return pairs_of
end

-- Puts an intent into the list of its state, and takes it out of the one it was in. `kept` is how long an ended one is kept (ms), or
-- nil: the entry goes some time after it.
local function enlist(intent, state, member, unverified, kept)
  local was = redis.call('HMGET', intent, 'listed_in', 'listed_as')
  if was[1] and list_at[was[1]] and (was[1] ~= state or was[2] ~= member) then
    redis.call('ZREM', list(was[1]), was[2])
    redis.call('ZREM', list('unverified'), was[2])
    redis.call('ZREM', list('expiry'), was[1] .. '\t' .. was[2])
  end
  redis.call('ZADD', list(state), 0, member)
  redis.call('HSET', intent, 'listed_in', state, 'listed_as', member)
  if unverified then
    redis.call('ZADD', list('unverified'), 0, member)
  else
    redis.call('ZREM', list('unverified'), member)
  end
  if kept then redis.call('ZADD', list('expiry'), ms(now + kept + 3600000), state .. '\t' .. member) end
end

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
