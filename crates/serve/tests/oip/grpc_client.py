"""The client of Triton over gRPC against a served project. Asked for by tests/http/oip.

Arguments: the server's address, the folder of the fraud example, and that of the models' tests.
"""

import asyncio
import json
import math
import queue
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from common import array, arrays, check_fraud, lines, same, texts
from tritonclient.grpc import _utils, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ADDRESS, EXAMPLE, MODELS = sys.argv[1:]
client = triton.InferenceServerClient(ADDRESS)
channel = grpc.insecure_channel(ADDRESS)
stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(name, values, datatype=None):
    made = triton.InferInput(name, list(values.shape), datatype or np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values)
    return made


def refused(call, status, sentence):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}" and sentence in error.message(), error
        return
    raise AssertionError(f"not refused: {sentence}")


# What servers and models say of themselves.
assert client.is_server_live() and client.is_server_ready()
server = client.get_server_metadata()
assert server.name == "millstream" and "classification" in server.extensions, server
assert client.is_model_ready("fraud") and client.is_model_ready("fraud", "1") and client.is_model_ready("lgbm")
refused(lambda: client.get_model_metadata("frod"), "NOT_FOUND", "did you mean `fraud`?")
refused(lambda: client.get_model_metadata("fraud", "2"), "NOT_FOUND", "no version `2`")
metadata = client.get_model_metadata("lgbm", "1", as_json=True)
assert metadata["platform"] == "onnx_onnxv1" and metadata["versions"] == ["1"], metadata
assert {"name": "X", "datatype": "FP32", "shape": ["-1", "28"]} in metadata["inputs"], metadata
config = client.get_model_config("lgbm").config
assert list(config.input[0].dims) == [-1, 28] and config.input[0].data_type == 11 and config.backend == "onnxruntime"
assert config.version_policy.latest.num_versions == 1, config
index = client.get_model_repository_index(as_json=True)["models"]
assert {"name": "fraud", "version": "1", "state": "READY"} in index, index
refused(lambda: client.load_model("fraud"), "PERMISSION_DENIED", "--model-control explicit")
refused(lambda: client.get_cuda_shared_memory_status(), "UNIMPLEMENTED", "")

# Every model of the models' tests answers what Python's ONNX Runtime does.
for model, told in json.load(open(f"{MODELS}/expected.json")).items():
    inputs = [tensor(name, array(of)) for name, of in told["inputs"].items()]
    for outputs in (None, [triton.InferRequestedOutput(name) for name in told["outputs"]]):
        result = client.infer(model, inputs, outputs=outputs, request_id="7")
        assert result.get_response().id == "7" and result.get_response().model_version == "1"
        for name, of in told["outputs"].items():
            if "maps" in of:
                wanted = np.array([[value for _, value in row] for row in of["maps"]], dtype=np.float32)
            else:
                wanted = array(of)
            same(result.as_numpy(name), wanted, f"{model}.{name}")
features = array(json.load(open(f"{MODELS}/expected.json"))["zip_strings"]["inputs"]["features"])
outputs = [triton.InferRequestedOutput("output_probability", class_count=2)]
classes = client.infer("zip_strings", [tensor("features", features)], outputs=outputs).as_numpy("output_probability")
assert classes.shape == (3, 2) and classes[0][0].decode().split(":")[1:] == ["1", "no"], classes

# The fraud example, row by row and as a batch, packed in every way.
requests, expected = lines(EXAMPLE, "requests"), lines(EXAMPLE, "expected")


def columns(rows):
    return [tensor(name, values) for name, values in arrays(rows)]


for row in range(50):
    check_fraud(client.infer("fraud", columns(requests[row : row + 1])), expected[row : row + 1], f"row {row}")
for packed in (None, "gzip", "deflate"):
    check_fraud(client.infer("fraud", columns(requests), compression_algorithm=packed), expected, f"{packed}")
came = queue.Queue()
for row in range(8):
    client.async_infer("fraud", columns(requests[row : row + 1]), lambda result, error, row=row: came.put((row, result, error)))
for _ in range(8):
    row, result, error = came.get(timeout=30)
    assert error is None, error
    check_fraud(result, expected[row : row + 1], f"row {row} of several")

# Times, priorities, names, errors.
one = columns(requests[:1])
client.infer("fraud", one, timeout=30_000_000, priority=2, parameters={"mine": "x"}, client_timeout=30)
refused(lambda: client.infer("fraud", one, timeout=1), "DEADLINE_EXCEEDED", "deadline")
refused(lambda: client.infer("fraud", one[1:]), "INVALID_ARGUMENT", "input `txn_id` is missing")
refused(lambda: client.infer("fraud", one + one[:1]), "INVALID_ARGUMENT", "input `txn_id` is there twice")
refused(lambda: client.infer("frod", one), "NOT_FOUND", "did you mean `fraud`?")
refused(lambda: client.infer("fraud", one, "2"), "NOT_FOUND", "no version `2`")
scor = [triton.InferRequestedOutput("scor")]
refused(lambda: client.infer("fraud", one, outputs=scor), "INVALID_ARGUMENT", "did you mean `score`?")
unknown_card = columns([{**requests[0], "card_id": 99999999}])
refused(lambda: client.infer("fraud", unknown_card), "INVALID_ARGUMENT", "no row for card_id=99999999")
wide = [tensor("X", np.zeros((1, 27), np.float32))]
refused(lambda: client.infer("lgbm", wide), "INVALID_ARGUMENT", "shape is [-1,28], not [1, 27]")
request = _utils._get_inference_request(
    model_name="fraud", inputs=one, model_version="", request_id="", outputs=None, sequence_id=0, sequence_start=False,
    sequence_end=False, priority=0, timeout=None, parameters=None)
_, call = stub.ModelInfer.with_call(request, metadata=[("x-request-id", "mine-7")])
assert ("x-request-id", "mine-7") in [(name, value) for name, value in call.initial_metadata()], call.initial_metadata()

# Values in fields by their type, as clients without raw contents send them.
told = json.load(open(f"{MODELS}/expected.json"))["dtypes"]
FIELDS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}


def typed(model, tensors):
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, datatype, shape, values in tensors:
        made = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if datatype in FIELDS:
            getattr(made.contents, FIELDS[datatype]).extend(values)
    return request


def typed_of(name, values):
    return name, np_to_triton_dtype(values.dtype), values.shape, values.ravel().tolist()


answer = triton.InferResult(stub.ModelInfer(typed("fraud", [typed_of(*column) for column in arrays(requests)])))
check_fraud(answer, expected, "typed")
halves = [name for name, of in told["inputs"].items() if of["dtype"] == "float16"]
every = [typed_of(name, array(of)) for name, of in told["inputs"].items() if name not in halves]
for bad, sentence in [
    (typed("dtypes", every + [(halves[0], "FP16", [2, 2], [])]), "FP16 comes in `raw_input_contents` only"),
    (typed("sum", [("a", "INT64", [2], [1]), ("b", "FP64", [2], [1, 2])]), "has 1 values in `int64_contents`"),
    (typed("sum", [("a", "INT64", [-1], [1])]), "`shape` has -1"),
    (typed("sum", []), "`inputs` is empty"),
    (service_pb2.ModelInferRequest(model_name="sum", raw_input_contents=[b"x"]), "1 values where there are 0 inputs"),
    (typed("types", [("i8", "INT8", [1], [300])]), "`int_contents` has 300, which is out of range"),
]:
    try:
        stub.ModelInfer(bad)
        raise AssertionError(f"not refused: {sentence}")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and sentence in error.details(), error
kept = client.infer("sum", [tensor("a", np.array([1, 2])), tensor("b", np.array([math.nan, -math.inf]))])
assert kept.as_numpy("next").tolist() == [2, 3] and kept.as_numpy("name.is_null").tolist() == [True, True]
assert math.isnan(kept.as_numpy("twice")[0]) and kept.as_numpy("twice")[1] == -math.inf

# A stream: replies in the order of requests; an error is a reply, unless it is to end the stream.
replies = queue.Queue()
client.start_stream(callback=lambda result, error: replies.put((result, error)))
for row in range(100):
    client.async_stream_infer("fraud", columns(requests[row : row + 1]), request_id=str(row))
client.async_stream_infer("frod", one)
client.async_stream_infer("fraud", columns(requests[:1]), request_id="after")
for row in range(100):
    result, error = replies.get(timeout=30)
    assert error is None and result.get_response().id == str(row), (row, error)
    assert result.get_response().parameters["triton_final_response"].bool_param
    check_fraud(result, expected[row : row + 1], f"row {row} of a stream")
result, error = replies.get(timeout=30)
assert "did you mean `fraud`?" in str(error), error
result, error = replies.get(timeout=30)
assert error is None and result.get_response().id == "after", error
client.stop_stream()
client.start_stream(callback=lambda result, error: replies.put((result, error)), headers={"triton_grpc_error": "true"})
client.async_stream_infer("frod", one)
result, error = replies.get(timeout=30)
assert error.status() == "StatusCode.NOT_FOUND" and "did you mean `fraud`?" in error.message(), error
client.stop_stream()

# A call that its caller takes back.
# It may be answered before; not each of a hundred is.
def taken_back():
    pending = stub.ModelInfer.future(request)
    pending.cancel()
    return pending.cancelled()


assert any(taken_back() for _ in range(100))
check_fraud(client.infer("fraud", one), expected[:1], "after a call was taken back")

# Health, and the protocol itself, for tools that ask. Written by hand: the packages of both are not among the client's.
check = channel.unary_unary("/grpc.health.v1.Health/Check")
assert check(b"") == b"\x08\x01" and check(b"\x0a\x1einference.GRPCInferenceService") == b"\x08\x01"
try:
    check(b"\x0a\x04nope")
    raise AssertionError("a service that is not there is healthy")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
for version in ("v1", "v1alpha"):
    reflect = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
    services = next(iter(reflect(iter([b"\x3a\x00"]))))
    assert b"inference.GRPCInferenceService" in services and b"grpc.health.v1.Health" in services, services


async def others():
    async with triton_aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_live() and await client.is_model_ready("fraud")
        check_fraud(await client.infer("fraud", columns(requests[:300])), expected[:300], "aio")

        async def asks():
            for row in range(10):
                yield {"model_name": "fraud", "inputs": columns(requests[row : row + 1]), "request_id": str(row)}

        row = 0
        async for result, error in client.stream_infer(asks()):
            assert error is None and result.get_response().id == str(row), error
            check_fraud(result, expected[row : row + 1], f"aio, row {row} of a stream")
            row += 1
        assert row == 10


asyncio.run(others())
client.close()
channel.close()
print("the same")
