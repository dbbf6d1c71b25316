-- Stores a verified notification and makes its charge permission due now.
--
-- KEYS    1 marker  2 seen:<message id>  3 journal  4 permission  5 hints  6 schedule
-- ARGV    1 offset  2 permission id  3 seen TTL (ms)  4 hint field  5 hint's published time (ms)  6 hint note (JSON)
--         7 hints at most  8 oldest journal id to keep (ms)  9.. journal fields and values
-- RETURNS {'accepted'} | {'duplicate'} | {'full'} | {'no_marker'} | {'wrong_type', key}
-- WHY     SNS delivers at least once and, after a 200, never again. Seen is written last: a crash or an error before it lets the
--         redelivery do everything again, which is harmless; the other way round it would lose the notification.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'string', KEYS[3], 'stream', KEYS[4], 'hash', KEYS[5], 'hash', KEYS[6], 'zset' })
if wrong then return { 'wrong_type', wrong } end
if redis.call('EXISTS', KEYS[2]) == 1 then return { 'duplicate' } end

local before = redis.call('HGET', KEYS[5], ARGV[4])
if not before and redis.call('HLEN', KEYS[5]) >= tonumber(ARGV[7]) then return { 'full' } end

redis.call('XADD', KEYS[3], 'MINID', '~', ARGV[8], '*', unpack(ARGV, 9))
local number = wake(KEYS[4], KEYS[6], ARGV[2])
-- The newest publication stands for all; the wake number makes the value new, so that a running reconciliation cannot clear it.
local published, note = ARGV[5], ARGV[6]
if before then
  local before_published, before_note = string.match(before, '^%d+ (%d+) (.*)$')
  if before_published and tonumber(before_published) > tonumber(published) then
    published, note = before_published, before_note
  end
end
redis.call('HSET', KEYS[5], ARGV[4], ms(number) .. ' ' .. published .. ' ' .. note)
-- They arrive: what the sweep found before is no silence.
redis.call('HSET', KEYS[1], 'last_notification_at', ms(now))
redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
return { 'accepted' }
