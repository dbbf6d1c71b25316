-- Notes how many messages the journal has ever taken, for a chart of what arrives.
--
-- KEYS    1 marker  2 journal  3 arrivals
-- ARGV    1 offset  2 hours that are kept
-- RETURNS {'noted'} | {'no_marker'} | {'wrong_type', key}
-- WHY     The server counts what is added to a stream, so taking a message costs nothing more: what came in an hour is the difference
--         between two of these. All instances note the same; the last of an hour stands. 'from' is the count before the first hour.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream', KEYS[3], 'hash' })
if wrong then return { 'wrong_type', wrong } end
local added = 0
if redis.call('EXISTS', KEYS[2]) == 1 then
  local stream = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #stream, 2 do
    if stream[i] == 'entries-added' then added = stream[i + 1] end
  end
end
local hour = math.floor(now / 3600000)
redis.call('HSETNX', KEYS[3], 'from', added)
redis.call('HSET', KEYS[3], ms(hour), added)
local oldest, before, past = hour - tonumber(ARGV[2]) + 1, -1, nil
local noted, gone = redis.call('HGETALL', KEYS[3]), {}
for i = 1, #noted, 2 do
  local at = tonumber(noted[i])
  if at and at < oldest then
    gone[#gone + 1] = noted[i]
    if at > before then before, past = at, noted[i + 1] end
  end
end
if past then
  redis.call('HSET', KEYS[3], 'from', past)
  redis.call('HDEL', KEYS[3], unpack(gone))
end
return { 'noted' }
