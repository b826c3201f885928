-- Empties one bucket of a set, and says how many rows it had. KEYS: rows, marks, ids, the count of ids.
local rows = redis.call('HLEN', KEYS[1])
redis.call('UNLINK', unpack(KEYS))
return rows
