-- Writes what a reconciliation decided, and gives the lease back.
--
-- KEYS    1 marker  2 permission  3 hints  4 open  5 schedule  6 events  7 quarantine  8 held back
--         9.. the intents of the payload, in order, then quota, and then the lists
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 token  6 wake number the claim read  7 retention of ended things (ms)
--         8 quarantine event type  9 quarantine entries at most  10 payload (JSON):
--           record, closed '0'|'1', not_before ms|'', hints_due ms|'', events [{type, data}],
--           hints [{field, seen, fate 'done'|'defer'|'quarantine', value, reason, data}],
--           unused and limits (calls that were reserved and not made, see prelude.lua),
--           intents [{id, state, outcome, charge, progress, due ms|'', entry (in the lists), retry (the wish that was seen to) |'',
--           number {value, status, sends, first_mark, last_mark, tainted, instrument},
--           capture {value, status, sends, first_mark, last_mark, tainted, clear} or absent, events [{type, data}]}],
--           held_back '0'|'1': the stop switch kept something from being sent,
--           look_asked (as the claim read it, if it was answered; or ''),
--           unheard '' | {found, changes, span ms, type, data}: what the sweep found, and when it is told that notifications are missing
-- RETURNS {'committed', next due ms|''} | {'already'} | {'lost_lease'} | {'no_marker'} | {'wrong_type', key}
-- WHY     State and events change together or not at all. Monotone per intent: captured absorbs everything, nothing terminal re-opens
--         (an unverified end may still become captured), and an event is written only with its transition. Only the hints that the
--         claim read are cleared. A wake number that has changed meanwhile makes the permission due now: no wake is lost.
if not has_marker() then return { 'no_marker' } end
local kinds = { KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'zset', KEYS[6], 'stream', KEYS[7], 'stream', KEYS[8], 'zset' }
for i = 9, #KEYS - #lists do
  kinds[#kinds + 1] = KEYS[i]
  kinds[#kinds + 1] = 'hash'
end
local wrong = wrong_type(and_lists(kinds))
if wrong then return { 'wrong_type', wrong } end
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[5] then
  return { redis.call('HGET', KEYS[2], 'last_commit') == ARGV[5] and 'already' or 'lost_lease' }
end
local records = { KEYS[2] }
for i = 1, #KEYS - #lists - 9 do records[#records + 1] = KEYS[8 + i] end
-- A later version has written meanwhile. As after a lost lease: a success is noted as a hint, and whoever knows the record goes on.
if newer(records) then return { 'lost_lease' } end
local payload = cjson.decode(ARGV[10])

local function write_events(events)
  for _, event in ipairs(events) do
    write_event(KEYS[6], KEYS[2], ARGV[2], ARGV[3], ARGV[4], event.type, event.data)
  end
end

-- States that stand for a charge which Amazon has shown.
local charged = { captured = true, authorized = true, pending = true }

local function may_become(current, outcome, recovery, wanted)
  if not current then return false end
  -- What a recovery holds gets out only by a charge that exists: a plan may rest on data older than what Amazon saw.
  if current == 'held' and recovery == '1' then return charged[wanted] end
  if not terminal[current] then return true end
  return current ~= 'captured' and outcome == 'unverified' and wanted == 'captured'
end

-- First what may happen, then what is told of the permission, then of the charges: causes come before effects in the stream.
local applies, overtaken = {}, false
for i, intent in ipairs(payload.intents) do
  local stored = redis.call('HMGET', KEYS[8 + i], 'state', 'outcome', 'recovery')
  applies[i] = may_become(stored[1], stored[2], stored[3], intent.state)
  if not applies[i] and (not stored[1] or terminal[stored[1]]) then
    redis.call('ZREM', KEYS[4], intent.id)
    -- The intent ended while its worker found a charge. The hint stays, and the charge is judged again, now as one after the end.
    overtaken = overtaken or (stored[1] and stored[1] ~= intent.state and charged[intent.state])
  end
end

if not overtaken then
  write_events(payload.events)
  redis.call('HSET', KEYS[2], 'record', payload.record)
end

for i, intent in ipairs(payload.intents) do
  if applies[i] then
    local key, number = KEYS[8 + i], intent.number
    -- What gets out of a recovery is no longer held by it: the next recovery must hold it anew, and no declaration can resume it.
    redis.call('HSET', key, 'state', intent.state, 'outcome', intent.outcome, 'charge', intent.charge, 'progress', intent.progress,
      'recovery', '0',
      'number', number.value, 'number_status', number.status, 'sends', number.sends, 'first_mark', number.first_mark,
      'last_mark', number.last_mark, 'tainted', number.tainted, 'instrument', number.instrument)
    local capture = intent.capture
    if capture then
      redis.call('HSET', key, 'capture_number', capture.value, 'capture_status', capture.status, 'capture_sends', capture.sends,
        'capture_first_mark', capture.first_mark, 'capture_last_mark', capture.last_mark, 'capture_tainted', capture.tainted)
      -- The wish itself is the caller's: only the very one that was given up is removed.
      if capture.clear ~= '' and redis.call('HGET', key, 'capture_request') == capture.clear then
        redis.call('HDEL', key, 'capture_request', 'capture_requested_at')
      end
    end
    -- Another wish that came meanwhile stays.
    if intent.retry ~= '' and redis.call('HGET', key, 'retry_wish') == intent.retry then redis.call('HDEL', key, 'retry_wish') end
    enlist(key, intent.state, intent.entry, intent.outcome == 'unverified', terminal[intent.state] and tonumber(ARGV[7]) or nil)
    if terminal[intent.state] then
      redis.call('ZREM', KEYS[4], intent.id)
      redis.call('PEXPIRE', key, ARGV[7])
    else
      redis.call('ZADD', KEYS[4], intent.due == '' and '+inf' or intent.due, intent.id)
    end
    write_events(intent.events)
  end
end

local full = false
for _, hint in ipairs(overtaken and {} or payload.hints) do
  if hint.fate == 'quarantine' and redis.call('XLEN', KEYS[7]) >= tonumber(ARGV[9]) then
    full = true
  elseif redis.call('HGET', KEYS[3], hint.field) == hint.seen then
    if hint.fate == 'defer' then
      redis.call('HSET', KEYS[3], hint.field, hint.value)
    else
      redis.call('HDEL', KEYS[3], hint.field)
    end
    if hint.fate == 'quarantine' then
      redis.call('XADD', KEYS[7], '*', 'reason', hint.reason, 'charge_permission_id', ARGV[4], 'hint', hint.field, 'note', hint.value)
      write_event(KEYS[6], KEYS[2], ARGV[2], ARGV[3], ARGV[4], ARGV[8], hint.data)
    end
  end
end

redis.call('HSET', KEYS[2], 'v', '1', 'last_commit', ARGV[5])
if payload.closed == '1' then
  redis.call('HSET', KEYS[2], 'closed', '1')
  -- The wish to close it is fulfilled, whoever did.
  redis.call('HDEL', KEYS[2], 'close_at', 'close_reason', 'close_cancel_pending')
end
if payload.look_asked ~= '' and redis.call('HGET', KEYS[2], 'look_asked') == payload.look_asked then
  redis.call('HDEL', KEYS[2], 'look_asked')
end
-- Changes are found, and no notification comes: counted from the first one on, anew after a notification and after the span.
local unheard = payload.unheard
if unheard ~= '' then
  local marker = redis.call('HMGET', KEYS[1], 'last_notification_at', 'unheard_since', 'unheard', 'unheard_of', 'unheard_of_others',
    'silence_told_at')
  local heard, since, told = tonumber(marker[1] or '0'), tonumber(marker[2] or '0'), tonumber(marker[6] or '0')
  local count, first, others = tonumber(marker[3] or '0'), marker[4], marker[5] == '1'
  if heard >= since or now - since > unheard.span then
    since, count, first, others = now, 0, ARGV[4], false
  end
  count = count + unheard.found
  others = others or first ~= ARGV[4]
  redis.call('HSET', KEYS[1], 'unheard_since', ms(since), 'unheard', ms(count), 'unheard_of', first, 'unheard_of_others', others and '1' or '0')
  if count >= unheard.changes and others and now - told >= unheard.span then
    redis.call('HSET', KEYS[1], 'silence_told_at', ms(now))
    write_event(KEYS[6], KEYS[1], ARGV[2], ARGV[3], 'account', unheard.type, unheard.data)
  end
end
move_tokens(KEYS[#KEYS - #lists], read_limits(payload.limits), read_needs(payload.unused), 1)
redis.call('HDEL', KEYS[2], 'lease_token', 'lease_until')

local next_due
if overtaken or (redis.call('HGET', KEYS[2], 'wake') or '0') ~= ARGV[6] then
  next_due = now
else
  local first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
  if first[2] and first[2] ~= 'inf' then next_due = tonumber(first[2]) end
  local not_before = tonumber(payload.not_before)
  if next_due and not_before then next_due = math.max(next_due, not_before) end
  local hints_due = tonumber(payload.hints_due)
  -- A hint that found no place in the quarantine stays, and tries again.
  if full then hints_due = math.min(hints_due or math.huge, now + 3600000) end
  if hints_due and (not next_due or hints_due < next_due) then next_due = hints_due end
end
-- Due as soon as the switch is lifted; whoever holds the lease then has put it there in vain at worst.
if payload.held_back == '1' and next_due then redis.call('ZADD', KEYS[8], ms(now), ARGV[4]) end
if next_due then
  -- Not before now: who had its turn goes behind everybody who is overdue.
  redis.call('ZADD', KEYS[5], ms(math.max(next_due, now)), ARGV[4])
else
  redis.call('ZREM', KEYS[5], ARGV[4])
end
if redis.call('EXISTS', KEYS[4]) == 1 or redis.call('EXISTS', KEYS[3]) == 1 or redis.call('HEXISTS', KEYS[2], 'paused_since') == 1 then
  redis.call('PERSIST', KEYS[2])
else
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
end
return { 'committed', next_due and ms(next_due) or '' }
