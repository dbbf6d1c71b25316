-- Lets in whom there are tokens for, and lists the permissions that are due.
--
-- KEYS    1 marker  2 schedule  3 quota  4 waiting  5 tickets  6 held back
-- ARGV    1 offset  2 permissions at most  3 how long a grant holds (ms)  4 limits  5 classes
-- RETURNS {'due', {permission id, ...}, let in} | {'no_marker'} | {'wrong_type', key}
-- WHY     Whoever waits for tokens holds no lease and is not due: a backlog is no busy loop. The room is gone through class by class, whoever
--         waits longest first. The first of a class that must go on waiting keeps the tokens there are for what it needs from everybody
--         behind it; so nobody is overtaken for a token, and what nobody before needs is used. While the account is at fault only the
--         probe is let in: whoever waits longest, of any class, so that one permission cannot be the probe for ever. What the stop switch held
--         back is due once it is lifted, a part with each step, so that no script has to touch all of it.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'hash', KEYS[6], 'zset' })
if wrong then return { 'wrong_type', wrong } end
local at_most, classes = tonumber(ARGV[2]), tonumber(ARGV[5])
if redis.call('HEXISTS', KEYS[1], 'stop_since') == 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[6], 0, 99)) do
    -- If somebody holds the lease, the claim puts the score right; he may send by now, and notes it anew if he may not.
    redis.call('ZADD', KEYS[2], 'XX', 'LT', ms(now), id)
    redis.call('ZREM', KEYS[6], id)
  end
end
-- Who was let in and had no turn yet. While workers wait for slow answers no more are let in than a full bucket holds, and than can have
-- a turn soon: more would meet Amazon all at once, or let their tokens run out, and whoever is more urgent would find them given away.
local turns = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ms(class_span * classes / turn_divisor), 'LIMIT', 0, at_most)
local room = at_most - #turns

-- The tokens of whoever was let in are still to be used: with them a bucket holds no more than a full one. Else, while all workers stood
-- still, it would fill again beside them, and both would meet Amazon at once.
local function keep_within(limits)
  local given = {}
  for _, id in ipairs(turns) do
    local ticket = read_ticket(KEYS[5], id)
    for name, count in pairs(ticket and ticket.kind == 'granted' and ticket.till > now and ticket.needs or {}) do
      given[name] = (given[name] or 0) + count
    end
  end
  for name, count in pairs(given) do
    local bucket = limits[name] and read_bucket(KEYS[3], name, limits[name])
    if bucket and bucket.tokens > limits[name].capacity - count then
      bucket.tokens = limits[name].capacity - count
      write_bucket(KEYS[3], name, bucket)
    end
  end
end

local function first_of(class, count)
  local low = class * class_span
  return redis.call('ZRANGEBYSCORE', KEYS[4], ms(low), '(' .. ms(low + class_span), 'WITHSCORES', 'LIMIT', 0, count)
end

local function let_in(limits)
  local buckets, held, admitted = {}, {}, 0
  for name, limit in pairs(limits) do
    buckets[name], held[name] = read_bucket(KEYS[3], name, limit), 0
  end
  for class = 0, classes - 1 do
    local members = first_of(class, room - admitted)
    for i = 1, #members, 2 do
      local id = members[i]
      local ticket = read_ticket(KEYS[5], id)
      local wanted, fits = {}, true
      -- A bucket that is full lets in whoever needs more than it holds, and owes the rest.
      for name, count in pairs(ticket and ticket.needs or {}) do
        if limits[name] then
          wanted[name] = math.min(count, limits[name].capacity)
          fits = fits and lets_in(buckets[name], held[name], wanted[name])
        end
      end
      if not fits then
        for name, count in pairs(wanted) do held[name] = held[name] + count end
        break
      end
      redis.call('ZREM', KEYS[4], id)
      if ticket then
        for name, count in pairs(ticket.needs) do
          if limits[name] then buckets[name].tokens = buckets[name].tokens - count end
        end
        move_tokens(KEYS[3], limits, ticket.needs, -1)
        count_waiting(KEYS[3], ticket.class, ticket.needs, -1)
        write_ticket(KEYS[5], id, 'granted', ticket.class, ticket.since, now + tonumber(ARGV[3]), ticket.text)
      end
      -- Before everybody who has no tokens yet. If somebody holds the lease, the claim puts the score right.
      redis.call('ZADD', KEYS[2], string.format('%.3f', tonumber(members[i + 1]) / turn_divisor), id)
      admitted = admitted + 1
    end
    if admitted >= room then break end
  end
  return admitted
end

local function let_in_the_probe()
  local oldest, since
  for class = 0, classes - 1 do
    local member = first_of(class, 1)
    local waits_since = member[2] and tonumber(member[2]) - class * class_span
    if waits_since and (not since or waits_since < since) then
      oldest, since = member[1], waits_since
    end
  end
  if oldest then redis.call('ZADD', KEYS[2], 0, oldest) end
  return oldest and 1 or 0
end

local admitted, limits = 0, read_limits(ARGV[4])
if #turns > 0 then keep_within(limits) end
if redis.call('ZCARD', KEYS[4]) > 0 then
  local fault = redis.call('HMGET', KEYS[1], 'fault_since', 'next_probe_at')
  if not fault[1] then
    if room > 0 then admitted = let_in(limits) end
  elseif now >= tonumber(fault[2] or '0') then
    admitted = let_in_the_probe()
  end
end
return { 'due', redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ms(now), 'LIMIT', 0, at_most), ms(admitted) }
