-- Which server this is: a restart gives it another run id, a failover another replication id.
local function server_identity()
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  local repl_id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
  return run_id .. '/' .. repl_id
end

-- When the server last changed, or nil. A restart or a failover may have lost the newest marks: for X after it no send counts as the
-- only one. For the scripts that mark a send. The marker is written with its server: where none is known, by an earlier version, the
-- first mark of all may be among the lost ones.
local function server_changed_at()
  local server = server_identity()
  local known = redis.call('HMGET', KEYS[1], 'server', 'server_changed_at')
  local changed_at = tonumber(known[2] or '')
  if known[1] ~= server then
    changed_at = now
    redis.call('HSET', KEYS[1], 'server', server, 'server_changed_at', ms(now))
  end
  return changed_at
end
