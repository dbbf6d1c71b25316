-- Writes what an operator decided about an intent that is held, or has seen of one whose end is unverified.
--
-- KEYS    1 marker  2 intent  3 permission  4 open  5 schedule  6 events  7.. the lists
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 intent id  6 'abandoned' | 'new_number' | 'seen'
--         7 progress the caller read  8 number the caller read  9 progress as it becomes (JSON)  10 state  11 outcome  12 list entry
--         13 number as it becomes  14 due (ms)  15 retention of ended intents (ms)  16 X, the confirmation delay (ms)
--         17 events (JSON: [{type, data}])
-- RETURNS {'resolved'} | {'changed'} | {'busy'} | {'too_soon', from ms} | {'unknown'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     Only what was read is resolved, and never under a running reconciliation; one whose lease has run out loses it, lest it write
--         the number of before over the decision. A new number is possible only X after the last mark, by the clock of the marks; after a
--         loss the last marks may be gone, so that X counts from when it was noticed.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type(and_lists({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'zset', KEYS[6], 'stream' }))
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2], KEYS[3] })
if later then return { 'newer', later } end
local fields = redis.call('HMGET', KEYS[2], 'state', 'progress', 'number', 'outcome', 'last_mark', 'recovery', 'listed_as',
  'capture_request')
if not fields[1] then return { 'unknown' } end
if fields[2] ~= ARGV[7] or fields[3] ~= ARGV[8] then return { 'changed' } end
if ARGV[6] == 'seen' then
  if not terminal[fields[1]] or fields[4] ~= 'unverified' then return { 'changed' } end
  redis.call('HSET', KEYS[2], 'resolved_at', ms(now))
  redis.call('ZREM', list('unverified'), fields[7] or '')
  return { 'resolved' }
end
if fields[1] ~= 'held' then return { 'changed' } end
if is_leased(KEYS[3]) then return { 'busy' } end
if ARGV[6] == 'new_number' then
  -- A wished capture means that a charge exists: the wish would capture the next one, unasked.
  if fields[8] and fields[8] ~= '' then return { 'changed' } end
  local last = tonumber(fields[5] or '') or 0
  if fields[6] == '1' then last = math.max(last, tonumber(redis.call('HGET', KEYS[1], 'initialised_at') or '') or 0) end
  local from = last + tonumber(ARGV[16])
  if now < from then return { 'too_soon', ms(from) } end
end

local events = cjson.decode(ARGV[17])
redis.call('HDEL', KEYS[3], 'lease_token', 'lease_until')
redis.call('HSET', KEYS[2], 'state', ARGV[10], 'outcome', ARGV[11], 'progress', ARGV[9], 'recovery', '0', 'resolved_at', ms(now))
if ARGV[6] == 'new_number' then
  redis.call('HSET', KEYS[2], 'number', ARGV[13], 'number_status', 'fresh', 'sends', '0', 'first_mark', '', 'last_mark', '',
    'tainted', '0', 'instrument', '', 'stopped_base_ms', ms(intent_still_ms(KEYS[3], KEYS[2])))
  redis.call('HDEL', KEYS[2], 'resolved_at')
  redis.call('ZADD', KEYS[4], ARGV[14], ARGV[5])
  enlist(KEYS[2], ARGV[10], ARGV[12], false, nil)
else
  redis.call('ZREM', KEYS[4], ARGV[5])
  -- The operator has seen it: it is not among those that wait for one.
  enlist(KEYS[2], ARGV[10], ARGV[12], false, tonumber(ARGV[15]))
  redis.call('PEXPIRE', KEYS[2], ARGV[15])
end
wake(KEYS[3], KEYS[5], ARGV[4])
for _, event in ipairs(events) do
  write_event(KEYS[6], KEYS[3], ARGV[2], ARGV[3], ARGV[4], event.type, event.data)
end
return { 'resolved' }
