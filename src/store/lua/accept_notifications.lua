-- Stores verified notifications and makes their charge permissions due now: all that came while the call before was under way.
--
-- KEYS    1 marker  2 journal  3 schedule, then for each notification: seen:<message id>, permission, hints
-- ARGV    1 offset  2 seen TTL (ms)  3 hints of a permission at most  4 oldest journal id to keep (ms), then for each notification:
--         permission id, hint field, hint's published time (ms), hint note (JSON), message id, topic ARN, published at, object type,
--         object id, notification type, notification id, body
-- RETURNS {'done', outcome, ...}, one for each: 'accepted' | 'duplicate' | 'full' | 'wrong_type <key>'
--         {'no_marker'} | {'wrong_type', key}
-- WHY     SNS delivers at least once and, after a 200, never again. Seen is written last: a crash or an error before it lets the
--         redelivery do everything again, which is harmless; the other way round it would lose the notification. Many are stored in one
--         call because a call costs as much as a notification. What is wrong with one permission refuses its notifications only.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream', KEYS[3], 'zset' })
if wrong then return { 'wrong_type', wrong } end

local stored = 0

local function accept(seen, permission, hints, at)
  -- TYPE says both: whether it is there, and that nobody else put it there.
  local known = redis.call('TYPE', seen).ok
  if known == 'string' then return 'duplicate' end
  if known ~= 'none' then return 'wrong_type ' .. seen end
  local fields = unless_wrong_type(redis.pcall('HMGET', permission, 'wake', 'lease_until'))
  if not fields or (fields[1] and not string.match(fields[1], '^%d+$')) then return 'wrong_type ' .. permission end
  local id, field, published, note = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local before = unless_wrong_type(redis.pcall('HGET', hints, field))
  if before == nil then return 'wrong_type ' .. hints end
  if not before and redis.call('HLEN', hints) >= tonumber(ARGV[3]) then return 'full' end

  redis.call('XADD', KEYS[2], '*', 'message_id', ARGV[at + 4], 'topic_arn', ARGV[at + 5], 'published_at', ARGV[at + 6],
    'object_type', ARGV[at + 7], 'object_id', ARGV[at + 8], 'charge_permission_id', id,
    'notification_type', ARGV[at + 9], 'notification_id', ARGV[at + 10], 'body', ARGV[at + 11])
  local number = wake_unless(fields[2], permission, KEYS[3], id)
  -- The newest publication stands for all; the wake number makes the value new, so that a running reconciliation cannot clear it.
  if before then
    local before_published, before_note = string.match(before, '^%d+ (%d+) (.*)$')
    if before_published and tonumber(before_published) > tonumber(published) then
      published, note = before_published, before_note
    end
  end
  redis.call('HSET', hints, field, ms(number) .. ' ' .. published .. ' ' .. note)
  redis.call('SET', seen, '1', 'PX', ARGV[2])
  stored = stored + 1
  return 'accepted'
end

local outcomes = { 'done' }
for i = 0, (#KEYS - 3) / 3 - 1 do
  outcomes[i + 2] = accept(KEYS[3 * i + 4], KEYS[3 * i + 5], KEYS[3 * i + 6], 12 * i + 5)
end
if stored > 0 then
  redis.call('XTRIM', KEYS[2], 'MINID', '~', ARGV[4])
  -- They arrive: what the sweep found before is no silence.
  redis.call('HSET', KEYS[1], 'last_notification_at', ms(now))
end
return outcomes
