-- Raises the mark of a partition. KEYS: marks. ARGV: the partition, the offset.
local mark = redis.call('HGET', KEYS[1], ARGV[1])
if mark then
  local al, ah = struct.unpack('<I4I4', ARGV[2])
  local bl, bh = struct.unpack('<I4I4', mark)
  if ah < bh or (ah == bh and al <= bl) then return 0 end
end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
