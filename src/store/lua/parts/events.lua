-- CloudEvents 1.0 in flat fields. `counter` is the hash whose event_seq numbers the events of `subject`.
local function write_event(events, counter, source, time_text, subject, kind, data)
  local seq = redis.call('HINCRBY', counter, 'event_seq', 1)
  redis.call('XADD', events, '*',
    'specversion', '1.0', 'id', subject .. '-' .. ms(seq) .. '-' .. ms(now), 'source', source, 'type', kind,
    'subject', subject, 'time', time_text, 'datacontenttype', 'application/json', 'data', data)
end
