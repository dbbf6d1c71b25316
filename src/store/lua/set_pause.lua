-- Pauses or resumes one intent, or a charge permission with all of its intents.
--
-- KEYS    1 marker  2 permission  3 what is paused: the intent, or the permission again  4 open  5 schedule  6 events
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 'pause' | 'resume'  6 events (JSON: [{id, type, data}])
-- RETURNS {'paused', since ms} | {'resumed'} | {'ended', state} | {'unknown'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     The mark of a send reads the same fields: once this script has run no send is marked, on any instance. How long it lasted is
--         added up without the time that stood still anyway, because the windows stand still meanwhile. Repeating it changes nothing.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'zset', KEYS[6], 'stream' })
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2], KEYS[3] })
if later then return { 'newer', later } end
if redis.call('EXISTS', KEYS[3]) == 0 then return { 'unknown' } end
local whole = KEYS[3] == KEYS[2]
local state = not whole and redis.call('HGET', KEYS[3], 'state')
if state and terminal[state] then return { 'ended', state } end

local events = cjson.decode(ARGV[6])
local function tell()
  for _, event in ipairs(events) do
    if redis.call('ZSCORE', KEYS[4], event.id) then
      write_event(KEYS[6], KEYS[2], ARGV[2], ARGV[3], ARGV[4], event.type, event.data)
    end
  end
end

local still = whole and stopped_ms() or permission_still_ms(KEYS[2])
local since = redis.call('HGET', KEYS[3], 'paused_since')
if ARGV[5] == 'pause' then
  if since then return { 'paused', since } end
  redis.call('HSET', KEYS[3], 'paused_since', ms(now), 'paused_base_ms', ms(still))
  -- A pause does not run out because nothing happens.
  redis.call('PERSIST', KEYS[2])
  tell()
  return { 'paused', ms(now) }
end
if not since then return { 'resumed' } end
redis.call('HSET', KEYS[3], 'paused_total_ms', ms(with_pause(KEYS[3], still) - still))
redis.call('HDEL', KEYS[3], 'paused_since', 'paused_base_ms')
-- What was due meanwhile is due now, and what is not finds its time again. What waits for somebody (+inf) goes on doing so.
local due = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
for i = 1, #due, 2 do
  if due[i + 1] ~= 'inf' and (whole or KEYS[3]:sub(-#due[i] - 1) == ':' .. due[i]) then
    redis.call('ZADD', KEYS[4], ms(now), due[i])
  end
end
wake(KEYS[2], KEYS[5], ARGV[4])
tell()
return { 'resumed' }
