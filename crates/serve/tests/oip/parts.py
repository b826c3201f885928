"""Replies in parts: a model that writes token after token, against a loop around ONNX Runtime in Python. Asked for by
tests/http/oip/streamed.rs.

Arguments: the server's address, the model's file. The client of Triton asks over gRPC, `httpx-sse` over HTTP.
"""

import json
import queue
import sys

import httpx
import numpy as np
import onnxruntime
import tritonclient.grpc as triton
from httpx_sse import connect_sse

ADDRESS, MODEL = sys.argv[1:]
MOST = 20

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def by_hand(first):
    """The tokens behind `first`, up to the token 0 or so many, each with the state behind it."""
    token, state, written = np.array([first], np.int64), np.zeros((1, 4), np.float32), []
    while len(written) < MOST and (not written or written[-1][0] != 0):
        token, state = session.run(["next", "state_out"], {"token": token, "state": state})
        written.append((int(token[0]), state[0]))
    return written


EXPECTED = {first: by_hand(first) for first in range(8)}
assert len({len(written) for written in EXPECTED.values()}) > 3, "they end at different times"


def same(written, first, of):
    wanted = EXPECTED[first]
    assert [token for token, _ in written] == [token for token, _ in wanted], (of, first, written, wanted)
    for (_, got), (_, state) in zip(written, wanted):
        np.testing.assert_allclose(np.asarray(got, np.float32), state, rtol=1e-5, atol=1e-6, err_msg=of)


def events(path, body, **headers):
    with httpx.Client(timeout=60) as client:
        with connect_sse(client, "POST", f"http://{ADDRESS}{path}", json=body, headers=headers) as source:
            assert source.response.status_code == 200, source.response.read()
            return [(event.event, json.loads(event.data)) for event in source.iter_sse()]


ZEROS = [0.0] * 4

# Of the graph itself, one by one and all at once.
for first in range(8):
    parts = events("/v1/graphs/write", {"token": first, "state": ZEROS})
    assert parts.pop() == ("end", {"parts": len(EXPECTED[first])}), parts
    same([(part["next"], part["state_out"]) for _, part in parts], first, "a graph")
written, rows = {first: [] for first in range(8)}, list(range(8))
for name, data in events("/v1/graphs/write", [{"token": first, "state": ZEROS} for first in range(8)]):
    if name == "rows":
        rows = data
    elif name == "message":
        # A part of one row is an array all the same.
        for row, part in zip(rows, data):
            written[row].append((part["next"], part["state_out"]))
    else:
        assert name == "end", name
for first in range(8):
    same(written[first], first, "a graph, all at once")

# As tensors and as members of an object.
for first in range(8):
    tensors = [
        {"name": "token", "datatype": "INT64", "shape": [1], "data": [first]},
        {"name": "state", "datatype": "FP32", "shape": [1, 4], "data": ZEROS},
    ]
    parts = []
    for _, part in events("/v2/models/write/infer_stream", {"inputs": tensors}):
        outputs = {output["name"]: output["data"] for output in part["outputs"]}
        parts.append((outputs["next"][0], outputs["state_out"]))
    same(parts, first, "infer_stream")
    parts = events("/v2/models/write/generate_stream", {"token": first, "parameters": {"state": ZEROS}})
    same([(part["next"], part["state_out"]) for _, part in parts], first, "generate_stream")

# Over gRPC: all at once in one stream, whose replies come between each other.
client = triton.InferenceServerClient(ADDRESS)
assert client.get_model_config("write").config.model_transaction_policy.decoupled
assert not client.get_model_config("plain").config.model_transaction_policy.decoupled


def ask(first, **more):
    token, state = triton.InferInput("token", [1], "INT64"), triton.InferInput("state", [1, 4], "FP32")
    token.set_data_from_numpy(np.array([first], np.int64))
    state.set_data_from_numpy(np.zeros((1, 4), np.float32))
    client.async_stream_infer("write", [token, state], request_id=str(first), **more)


def is_final(response):
    return response.parameters["triton_final_response"].bool_param


for empty in (False, True):
    came = queue.Queue()
    client.start_stream(lambda result, error: came.put((result, error)))
    for first in range(8):
        ask(first, enable_empty_final_response=empty)
    plain = triton.InferInput("a", [1], "INT64")
    plain.set_data_from_numpy(np.array([21], np.int64))
    client.async_stream_infer("plain", [plain], request_id="plain")
    written, open_ones = {first: [] for first in range(8)}, set(range(8)) | {"plain"}
    while open_ones:
        result, error = came.get(timeout=60)
        assert error is None, error
        response = result.get_response()
        if response.id == "plain":
            assert result.as_numpy("twice").tolist() == [42] and is_final(response)
            open_ones.remove("plain")
            continue
        first = int(response.id)
        assert first in open_ones, "nothing follows the last"
        if response.outputs:
            written[first].append((int(result.as_numpy("next")[0]), result.as_numpy("state_out")[0]))
        assert bool(response.outputs) or (empty and is_final(response)), response
        assert not (empty and response.outputs and is_final(response)), response
        if is_final(response):
            open_ones.remove(first)
    for first in range(8):
        same(written[first], first, f"a stream, {empty}")
    # What fails is told, and the stream goes on.
    wrong = triton.InferInput("token", [1], "INT64")
    wrong.set_data_from_numpy(np.array([1], np.int64))
    client.async_stream_infer("write", [wrong], request_id="wrong")
    result, error = came.get(timeout=60)
    assert error is not None and "input `state` is missing" in str(error), error
    ask(4, enable_empty_final_response=empty)
    parts = [came.get(timeout=60) for _ in range(len(EXPECTED[4]) + empty)]
    assert all(error is None for _, error in parts) and is_final(parts[-1][0].get_response())
    client.stop_stream()
client.close()

print("the same")
