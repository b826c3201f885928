"""Sequences by the client of Triton, over REST and gRPC, against a model that keeps a state. Asked for by tests/http/oip/sequence.rs.

Argument: the server's address. The model answers ten times the sum of what its sequence has sent.
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

ADDRESS = sys.argv[1]


def asked(module, client, name, adds, **sequence):
    values = np.full((1, 2), adds, np.float32)
    x = module.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(values)
    return float(client.infer("totals", [x], sequence_id=name, **sequence).as_numpy("sum")[0])


for first, module in ((100, http), (200, grpc)):
    client = module.InferenceServerClient(ADDRESS)
    assert asked(module, client, first, 1, sequence_start=True) == 10
    assert asked(module, client, first + 1, 5, sequence_start=True) == 50
    assert asked(module, client, first, 2) == 30
    assert asked(module, client, first + 1, 1, sequence_end=True) == 60
    assert asked(module, client, first, 3, sequence_end=True) == 60
    try:
        asked(module, client, first, 1)
    except InferenceServerException as error:
        assert "has not begun, or is over" in error.message(), error
    else:
        raise AssertionError("a sequence that is over goes on")

# The same in a stream.
client, came = grpc.InferenceServerClient(ADDRESS), queue.Queue()
client.start_stream(lambda result, error: came.put((result, error)))
for at in range(5):
    x = grpc.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.ones((1, 2), np.float32))
    client.async_stream_infer("totals", [x], sequence_id=300, sequence_start=at == 0, sequence_end=at == 4)
    result, error = came.get(timeout=30)
    assert error is None and float(result.as_numpy("sum")[0]) == 10 * (at + 1), (at, error)
client.stop_stream()

print("the same")
