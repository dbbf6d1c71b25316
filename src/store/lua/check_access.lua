-- Says what the user of this connection may not do. Writes nothing, reads nothing; needs no marker, and no prelude.
--
-- KEYS    none: the names are only asked about
-- ARGV    each a JSON array: a command with its arguments
-- RETURNS the commands, of those given, that are refused: the same JSON
-- WHY     A script that is refused a command stops in its middle, with what it wrote before. So a missing permission has to be noticed
--         at the start, all of them at once, and not at the first charge.
local refused = {}
-- Since Redis 7.0. Without it permissions show when they are missed.
if not redis.acl_check_cmd then return refused end
for i = 1, #ARGV do
  if not redis.acl_check_cmd(unpack(cjson.decode(ARGV[i]))) then
    refused[#refused + 1] = ARGV[i]
  end
end
return refused
