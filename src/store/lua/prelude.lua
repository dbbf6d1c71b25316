-- Put before every script, and after it those of parts/ that the script uses: each costs at every call. ARGV[1] of every script is the clock offset in milliseconds (0 outside demo and tests), followed by
-- ' promise' if replicas are waited for after it; KEYS[1] is the marker.
--
-- Every script answers with an array whose first element names the outcome. Every script checks types and arguments first, then
-- writes, so that an error in the middle cannot leave half a write that means something.

local function ms(number)
  return string.format('%.0f', number)
end

local offset, promise = string.match(ARGV[1], '^(%S+)(.*)$')
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(offset)

-- The version of records that this version of the service knows (docs/adr/0016). src/store/record.rs has the same.
local known_version = 1

local function is_newer(version)
  return version and (tonumber(version) or math.huge) > known_version
end

-- What redis.pcall has read; nil where the key is of another type. To ask for the TYPE before would be a call more.
local function unless_wrong_type(value)
  if type(value) == 'table' and value.err then
    if string.find(value.err, '^WRONGTYPE') then return nil end
    error(value)
  end
  return value
end

-- A marker of a later version says that everything may be laid out anew: then no script of this one does anything.
local marker_version = unless_wrong_type(redis.pcall('HGET', KEYS[1], 'version'))
if is_newer(marker_version) then return { 'newer', KEYS[1] } end

-- Without its marker a server may have lost its data: nothing is written to it (docs/adr/0006).
-- WAIT waits for what its connection wrote. A script that finds everything stored writes nothing; but what it found may be of another
-- connection, and not with the replicas yet. So a promise always writes. This comes before the scripts check types: a counter that
-- nobody reads may grow for what is refused then.
local function has_marker()
  if marker_version and promise ~= '' then redis.call('HINCRBY', KEYS[1], 'promises', 1) end
  return marker_version and true or false
end

-- The first of the given records (intents, permissions) that a later version wrote, or nil: it is left alone.
local function newer(records)
  for _, key in ipairs(records) do
    if is_newer(redis.call('HGET', key, 'v')) then return key end
  end
  return nil
end

-- The first of the given keys that is neither missing nor of its type, or nil: {key, type, key, type, ...}.
local function wrong_type(pairs_of)
  for i = 1, #pairs_of, 2 do
    local found = redis.call('TYPE', pairs_of[i]).ok
    if found ~= 'none' and found ~= pairs_of[i + 1] then
      return pairs_of[i]
    end
  end
  return nil
end
