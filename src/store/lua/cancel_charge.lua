-- Cancels an intent, or notes the wish where a charge may still come of it.
--
-- KEYS    1 marker  2 intent  3 permission  4 open  5 schedule  6 events  7.. the lists
-- ARGV    1 offset  2 source  3 event time  4 permission id  5 intent id  6 progress the caller read  7 progress when canceled (JSON)
--         8 retention of ended intents (ms)  9 event type  10 event data (JSON)
--         11 list entry when canceled
-- RETURNS {'canceled'} | {'canceling'} | {'terminal', state} | {'changed'} | {'unknown'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     Final only if nothing can be charged any more: no number or capture is unknown, no charge is pending or authorised. It may run between
--         another worker's decision and its send; the mark sees it.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type(and_lists({ KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'zset', KEYS[6], 'stream' }))
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[2], KEYS[3] })
if later then return { 'newer', later } end
local fields = redis.call('HMGET', KEYS[2], 'state', 'number_status', 'progress', 'cancel_at', 'capture_status')
local state = fields[1]
if not state then return { 'unknown' } end
if state == 'canceled' then return { 'canceled' } end
if terminal[state] then return { 'terminal', state } end

local settled = state == 'scheduled' or state == 'parked' or state == 'held'
if fields[2] == 'fresh' and fields[5] ~= 'unknown' and settled then
  if fields[3] ~= ARGV[6] then return { 'changed' } end
  redis.call('HSET', KEYS[2], 'state', 'canceled', 'outcome', 'verified', 'progress', ARGV[7], 'cancel_at', ms(now))
  enlist(KEYS[2], 'canceled', ARGV[11], false, tonumber(ARGV[8]))
  redis.call('PEXPIRE', KEYS[2], ARGV[8])
  redis.call('ZREM', KEYS[4], ARGV[5])
  wake(KEYS[3], KEYS[5], ARGV[4])
  write_event(KEYS[6], KEYS[3], ARGV[2], ARGV[3], ARGV[4], ARGV[9], ARGV[10])
  return { 'canceled' }
end
if not fields[4] or fields[4] == '' then
  redis.call('HSET', KEYS[2], 'cancel_at', ms(now))
  wake(KEYS[3], KEYS[5], ARGV[4])
end
return { 'canceling' }
