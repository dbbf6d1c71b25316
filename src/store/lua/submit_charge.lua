-- Accepts a charge intent, or recognises one that was accepted before.
--
-- KEYS    1 marker  2 intent  3 permission  4 open  5 schedule  6 events  7.. the lists
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 intent id  6 digest of the body  7 request (JSON)
--         8 progress (JSON)  9 due (ms)  10 '' | 'new' | last number  11 progress when held (JSON)
--         12 open intents at most  13 events at most  14 state  15 events of the plan (JSON: [{type, data}])
--         16 held event type  17 its data  18 list entry  19 list entry when held
-- RETURNS {'accepted'} | {'held'} | {'resumed'} | {'same'} | {'conflict'} | {'contradicted'} | {'too_many'} | {'closing'} | {'full'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     The id is the caller's promise that this is one charge. After a loss of data we cannot know which numbers were used, so an
--         intent that the caller does not declare as new, or with its last number, waits for the operator. What the data that is
--         left knows of higher numbers outweighs the declaration.
if not has_marker() then return { 'no_marker' } end
local kinds = { KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'zset', KEYS[6], 'stream' }
local wrong = wrong_type(and_lists(kinds))
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2], KEYS[3] })
if later then return { 'newer', later } end

local last_number = tonumber(ARGV[10])
local function write_number(value, status)
  local mark = status == 'unknown' and ms(now) or ''
  -- A declared number was sent at least once; of one that is only held we know no send.
  redis.call('HSET', KEYS[2], 'number', ms(value), 'number_status', status, 'sends', last_number and '1' or '0',
    'first_mark', mark, 'last_mark', mark, 'tainted', status == 'unknown' and '1' or '0')
end

local plan_events = cjson.decode(ARGV[15])
local function tell_the_plan()
  for _, event in ipairs(plan_events) do
    write_event(KEYS[6], KEYS[3], ARGV[2], ARGV[3], ARGV[4], event.type, event.data)
  end
end

local digest = redis.call('HGET', KEYS[2], 'digest')
if digest then
  if digest ~= ARGV[6] then return { 'conflict' } end
  local held = redis.call('HMGET', KEYS[2], 'state', 'recovery', 'recovery_least')
  if held[1] ~= 'held' or held[2] ~= '1' or ARGV[10] == '' then return { 'same' } end
  -- The last number that this data knows to be marked; -1 if none.
  local known = tonumber(held[3] or '-1')
  if (last_number or -1) < known then return { 'contradicted' } end
  if redis.call('XLEN', KEYS[6]) >= tonumber(ARGV[13]) then return { 'full' } end
  write_number(last_number or 0, last_number and 'unknown' or 'fresh')
  redis.call('HSET', KEYS[2], 'state', ARGV[14], 'progress', ARGV[8], 'recovery', '0',
    'stopped_base_ms', ms(intent_still_ms(KEYS[3], KEYS[2])))
  enlist(KEYS[2], ARGV[14], ARGV[18], false, nil)
  redis.call('ZADD', KEYS[4], ARGV[9], ARGV[5])
  -- A reconciliation under way read the numbers of before: it loses its lease, lest it write them over the declared one.
  redis.call('HDEL', KEYS[3], 'lease_token', 'lease_until')
  wake(KEYS[3], KEYS[5], ARGV[4])
  tell_the_plan()
  return { 'resumed' }
end

if redis.call('HEXISTS', KEYS[3], 'close_at') == 1 then return { 'closing' } end
if redis.call('XLEN', KEYS[6]) >= tonumber(ARGV[13]) then return { 'full' } end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[12]) then return { 'too_many' } end

local hold = redis.call('HGET', KEYS[1], 'recovering') == '1' and ARGV[10] == ''
local unknown = hold or last_number
write_number(last_number or 0, unknown and 'unknown' or 'fresh')
redis.call('HSET', KEYS[2], 'v', '1', 'id', ARGV[5], 'permission', ARGV[4], 'digest', ARGV[6], 'request', ARGV[7],
  'submitted_at', ms(now), 'stopped_base_ms', ms(intent_still_ms(KEYS[3], KEYS[2])),
  'state', hold and 'held' or ARGV[14], 'progress', hold and ARGV[11] or ARGV[8], 'recovery', hold and '1' or '0')
enlist(KEYS[2], hold and 'held' or ARGV[14], hold and ARGV[19] or ARGV[18], false, nil)
redis.call('ZADD', KEYS[4], hold and '+inf' or ARGV[9], ARGV[5])
wake(KEYS[3], KEYS[5], ARGV[4])
if hold then
  write_event(KEYS[6], KEYS[3], ARGV[2], ARGV[3], ARGV[4], ARGV[16], ARGV[17])
  return { 'held' }
end
tell_the_plan()
return { 'accepted' }
