-- Puts rows to their keys, within one bucket of a set.
-- KEYS: rows, marks, ids, the count of ids.
-- ARGV: the partition or '', how many ids are kept; then four for each row: key, row, offset or '', id or ''.
-- Answers for each row: 1 taken, 2 older, 3 repeated.

-- Numbers of Lua have 53 bits, so those of 64 are compared in halves.
local function above(a, b)
  local al, ah = struct.unpack('<I4I4', a)
  local bl, bh = struct.unpack('<I4I4', b)
  return ah > bh or (ah == bh and al > bl)
end

local function later(a, b, at)
  local al, ah = struct.unpack('<I4i4', a, at)
  local bl, bh = struct.unpack('<I4i4', b, at)
  if ah ~= bh then return ah > bh end
  if al ~= bl then return al > bl end
  return nil
end

local function older(new, known)
  local is = later(known, new, 1)
  if is == nil then is = later(known, new, 9) end
  return is == true
end

local mark = ARGV[1] ~= '' and redis.call('HGET', KEYS[2], ARGV[1])
local top = mark
local fates = {}
for i = 3, #ARGV, 4 do
  local key, row, offset, id = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local fate = 1
  if offset ~= '' then
    if mark and not above(offset, mark) then fate = 3 end
    if not top or above(offset, top) then top = offset end
  end
  if fate == 1 and id ~= '' then
    if redis.call('ZSCORE', KEYS[3], id) then
      fate = 3
    else
      redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), id)
      redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[2]))
    end
  end
  if fate == 1 then
    local known = redis.call('HGET', KEYS[1], key)
    if known and older(row, known) then
      fate = 2
    else
      redis.call('HSET', KEYS[1], key, row)
    end
  end
  fates[#fates + 1] = fate
end
if top and top ~= mark then redis.call('HSET', KEYS[2], ARGV[1], top) end
return fates
