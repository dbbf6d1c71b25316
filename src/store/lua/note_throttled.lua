-- Slows an operation down for all: Amazon answered 429.
--
-- KEYS    1 marker  2 quota
-- ARGV    1 offset  2 operation  3 Retry-After (ms), 0 if none  4 limits
-- RETURNS {'noted'} | {'no_marker'} | {'wrong_type', key}
-- WHY     Somebody else uses the account too, or the documented figures do not hold. The bucket is emptied and fills half as fast, a sixteenth
--         at the slowest; prelude.lua gives the rate back step by step. The answers to calls that were under way together are one sign.
if not has_marker() then return { 'no_marker' } end
local wrong = wrong_type({ KEYS[2], 'hash' })
if wrong then return { 'wrong_type', wrong } end
local limit = read_limits(ARGV[4])[ARGV[2]]
if limit then
  local bucket = read_bucket(KEYS[2], ARGV[2], limit)
  if now - bucket.slowed_at >= 5000 then
    bucket.factor = math.max(1 / 16, factor_at(bucket, now) / 2)
    bucket.slowed_at = now
  end
  bucket.tokens = math.min(0, bucket.tokens)
  bucket.closed_until = math.max(bucket.closed_until, now + tonumber(ARGV[3]))
  write_bucket(KEYS[2], ARGV[2], bucket)
end
return { 'noted' }
