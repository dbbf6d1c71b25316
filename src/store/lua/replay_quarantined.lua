-- Takes an entry out of the quarantine and lets it do what it names: its object is to be looked at, and its permission is due now.
--
-- KEYS    1 marker  2 quarantine  3 permission  4 hints  5 schedule
-- ARGV    1 offset  2 entry id  3 permission id  4 hint field  5 hint's published time (ms)  6 hint note (JSON)  7 hints at most
-- RETURNS {'replayed'} | {'gone'} | {'full'} | {'no_marker'} | {'wrong_type', key} | {'newer', key}
-- WHY     The hint and the end of the entry are one step: an entry that is gone was replayed or dropped, never lost between the two. A
--         replay that is repeated finds it gone. The newest publication stands for all, as in accept_notifications: it is what a parked
--         charge is released by.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'stream', KEYS[3], 'hash', KEYS[4], 'hash', KEYS[5], 'zset' })
if wrong then return { 'wrong_type', wrong } end
local later = newer({ KEYS[3] })
if later then return { 'newer', later } end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then return { 'gone' } end
local before = redis.call('HGET', KEYS[4], ARGV[4])
if not before and redis.call('HLEN', KEYS[4]) >= tonumber(ARGV[7]) then return { 'full' } end

local number = wake(KEYS[3], KEYS[5], ARGV[3])
local published, note = ARGV[5], ARGV[6]
if before then
  local before_published, before_note = string.match(before, '^%d+ (%d+) (.*)$')
  -- What an operator says of a charge is kept, too.
  local is_claim = before_note and string.find(before_note, '"forIntent":"', 1, true)
  if before_published and (is_claim or tonumber(before_published) > tonumber(published)) then
    published, note = before_published, before_note
  end
end
redis.call('HSET', KEYS[4], ARGV[4], ms(number) .. ' ' .. published .. ' ' .. note)
redis.call('XDEL', KEYS[2], ARGV[2])
return { 'replayed' }
