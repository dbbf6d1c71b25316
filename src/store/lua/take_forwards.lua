-- Takes what is to be forwarded now: what is new in the journal, and what was tried before and is due again.
--
-- KEYS    1 marker  2 journal  3 forward
-- ARGV    1 offset  2 how many at most  3 how many may wait at most  4 for how long nobody else takes them (ms)  5 older than this is not
--         begun with (ms)  6 'begin': from now on, unless it was begun before
-- RETURNS {'begun'} | {'taken', now (ms), how many are not in the journal any more, entry, taken at (ms), refused since (ms) or 0, '1' if it
--         is too old to begin with, message id, topic, body, entry, ...} | {'no_marker'} | {'wrong_type', key}
-- WHY     The journal is what is to be forwarded, so accepting a notification writes nothing more. How far it was read stands in the marker;
--         what was read and is not through waits in a sorted set, by when it is due. A process that dies with one in hand gives it back
--         by time. More wait in the journal than in the set, so the set is bounded whatever the other side does.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream', KEYS[3], 'zset' })
if wrong then return { 'wrong_type', wrong } end
local read_to = redis.call('HGET', KEYS[1], 'forwarded_to')
if ARGV[6] == 'begin' then
  if not read_to then
    local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
    redis.call('HSET', KEYS[1], 'forwarded_to', last and last[1] or '0-0')
  end
  return { 'begun' }
end
if not read_to then
  -- The data are new since this process began: all of them are to be sent, also by whoever begins after it.
  read_to = '0-0'
  redis.call('HSET', KEYS[1], 'forwarded_to', read_to)
end

local at_most = tonumber(ARGV[2])
local room = math.min(at_most, tonumber(ARGV[3]) - redis.call('ZCARD', KEYS[3]))
if room > 0 then
  local time_part, number = string.match(read_to, '^(%d+)-(%d+)$')
  local new = redis.call('XRANGE', KEYS[2], time_part .. '-' .. ms(tonumber(number) + 1), '+', 'COUNT', room)
  for _, entry in ipairs(new) do
    redis.call('ZADD', KEYS[3], ms(now), entry[1] .. ' ' .. ms(now) .. ' 0')
  end
  if #new > 0 then redis.call('HSET', KEYS[1], 'forwarded_to', new[#new][1]) end
end

-- Entries have the server's own time, not a moved clock's.
local oldest = now - tonumber(offset) - tonumber(ARGV[5])
local taken, gone = { 'taken', ms(now), 0 }, 0
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ms(now), 'LIMIT', 0, at_most)) do
  local id, since, refused = string.match(entry, '^(%d+%-%d+) (%d+) (%d+)$')
  local kept = id and redis.call('XRANGE', KEYS[2], id, id)[1]
  if kept then
    local value = {}
    for i = 1, #kept[2], 2 do value[kept[2][i]] = kept[2][i + 1] end
    local late = tonumber(string.match(id, '^%d+')) < oldest and '1' or '0'
    redis.call('ZADD', KEYS[3], ms(now + tonumber(ARGV[4])), entry)
    for _, part in ipairs({ entry, since, refused, late, value.message_id or '', value.topic_arn or '', value.body or '' }) do
      taken[#taken + 1] = part
    end
  else
    redis.call('ZREM', KEYS[3], entry)
    gone = gone + 1
  end
end
taken[3] = ms(gone)
return taken
