"""Makes record.json: what Python's hmac and a plain reading of the sampling rule answer. Python 3.11, standard library only."""

import hashlib
import hmac
import json
from pathlib import Path

MASK = (1 << 64) - 1


def sample_hash(name: bytes) -> int:
    h = 0xCBF29CE484222325
    for byte in b"record:" + name:
        h = ((h ^ byte) * 0x100000001B3) & MASK
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & MASK
    return h ^ (h >> 31)


keys = ["0123456789abcdef", "k" * 64, "k" * 65, "schlüssel-" * 20]
values = ["", "alice@example.com", "Zoë", "x" * 200, "-7", "true"]
names = ["", "a", "req-00000001", "req-00000002", "Zoë", "x" * 100]
answer = {
    "hmac": [
        {"key": key, "value": value, "digest": hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest()}
        for key in keys
        for value in values
    ],
    "sample": [{"name": name, "hash": f"{sample_hash(name.encode()):016x}"} for name in names],
}
Path(__file__).with_name("record.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
