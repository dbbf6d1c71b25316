-- The lists of charges by state.

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
