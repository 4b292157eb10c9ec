-- Put one customer's facts, unless Redis has already seen a newer version: a slow reader can't put back an old answer.
-- Both keys carry the customer as hash tag, so they share a slot of a cluster. What is held under them is never trusted
-- to be of our making: another type or another text counts as nothing.
--
-- KEYS  1 the entry   2 its guard, the highest version seen. It outlives the entry: one that expires at an edge, or
--                       after negative_ttl, must not leave the door open to an older one.
-- ARGV  1 version   2 facts   3 entry's life, ms   4 guard's life, ms   5 channel, or '' to tell nobody   6 message
-- Returns the version that Redis holds now, as text: versions are microseconds and must not be rounded.

-- A version is digits only: `tonumber` also takes inf, nan, 1e300 and 0x7f, which no reader of the answer could.
local function version_in(text)
  return type(text) == 'string' and #text <= 18 and string.match(text, '^%d+$') or nil
end

local function held_version()
  local guard = version_in(redis.pcall('GET', KEYS[2]))
  if guard then
    return guard
  end
  local entry = redis.pcall('GET', KEYS[1])
  if type(entry) ~= 'string' then
    return nil
  end
  local readable, facts = pcall(cjson.decode, entry)
  if readable and type(facts) == 'table' and type(facts.version) == 'number' and facts.version % 1 == 0 then
    return version_in(string.format('%.0f', facts.version))
  end
  return nil
end

local held = held_version()
if held and tonumber(held) > tonumber(ARGV[1]) then
  return held
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[4])
if ARGV[5] ~= '' then
  redis.call('PUBLISH', ARGV[5], ARGV[6])
end
return ARGV[1]
