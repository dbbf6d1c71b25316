-- Takes what is to be forwarded now: what is new in the journal, and what was tried before and is due again.
--
-- KEYS    1 marker  2 journal  3 forward
-- ARGV    1 offset  2 how many at most  3 how many may wait at most  4 for how long nobody else takes them (ms)  5 older than this is not
--         begun with (ms)  6 'begin': from now on, unless it was begun before
-- RETURNS {'begun'} | {'taken', now (ms), how many are not in the journal any more, entry, taken at (ms), message id, topic, body, entry, ...}
--         | {'no_marker'} | {'wrong_type', key}
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
    -- Nothing accepted from this millisecond on is left out, so a few of it may be sent that came before.
    redis.call('HSET', KEYS[1], 'forwarded_to', last and last[1] or '0-0')
  end
  return { 'begun' }
end

local at_most = tonumber(ARGV[2])
local room = math.min(at_most, tonumber(ARGV[3]) - redis.call('ZCARD', KEYS[3]))
if room > 0 then
  -- Without a mark of how far it was read the data are new since this process began: all of them are to be sent.
  local time_part, number = string.match(read_to or '0-0', '^(%d+)-(%d+)$')
  local from = time_part .. '-' .. ms(tonumber(number) + 1)
  -- Entries have the server's own time, not a moved clock's.
  local oldest = now - tonumber(offset) - tonumber(ARGV[5])
  if tonumber(time_part) < oldest then from = ms(oldest) .. '-0' end
  local new = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', room)
  for _, entry in ipairs(new) do
    redis.call('ZADD', KEYS[3], ms(now), entry[1] .. ' ' .. ms(now))
  end
  if #new > 0 then redis.call('HSET', KEYS[1], 'forwarded_to', new[#new][1]) end
end

local taken, gone = { 'taken', ms(now), 0 }, 0
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ms(now), 'LIMIT', 0, at_most)) do
  local id, since = string.match(entry, '^(%S+) (%d+)$')
  local kept = id and redis.call('XRANGE', KEYS[2], id, id)[1]
  if kept then
    local value = {}
    for i = 1, #kept[2], 2 do value[kept[2][i]] = kept[2][i + 1] end
    redis.call('ZADD', KEYS[3], ms(now + tonumber(ARGV[4])), entry)
    for _, part in ipairs({ entry, since, value.message_id or '', value.topic_arn or '', value.body or '' }) do
      taken[#taken + 1] = part
    end
  else
    redis.call('ZREM', KEYS[3], entry)
    gone = gone + 1
  end
end
taken[3] = ms(gone)
return taken
