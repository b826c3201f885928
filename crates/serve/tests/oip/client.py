"""The clients of Triton and of KServe against a served project. Asked for by tests/http/oip.rs.

Arguments: the server's address, the folder of the fraud example, and that of the models' tests.
"""

import asyncio
import json
import math
import sys

import httpx
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from common import array, arrays, check_fraud, lines, same, texts
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ADDRESS, EXAMPLE, MODELS = sys.argv[1:]
URL = f"http://{ADDRESS}"
COMPRESSIONS = [None, "gzip", "deflate"]

client = triton.InferenceServerClient(ADDRESS, concurrency=4)


def tensor(name, values, datatype=None, binary=True):
    made = triton.InferInput(name, values.shape, datatype or np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def refused(call, status, sentence):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == str(status) and sentence in error.message(), error
        return
    raise AssertionError(f"not refused: {sentence}")


# What servers and models say of themselves.
assert client.is_server_live() and client.is_server_ready()
server = client.get_server_metadata()
assert server["name"] == "millstream" and "binary_tensor_data" in server["extensions"]
assert client.is_model_ready("fraud") and client.is_model_ready("fraud", "1") and client.is_model_ready("lgbm")
assert not client.is_model_ready("fraud", "2") and not client.is_model_ready("frod")
metadata = client.get_model_metadata("lgbm", "1")
assert metadata["platform"] == "onnx_onnxv1" and metadata["versions"] == ["1"], metadata
assert {"name": "X", "datatype": "FP32", "shape": [-1, 28]} in metadata["inputs"], metadata
assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]} in metadata["outputs"], metadata
config = client.get_model_config("lgbm")
assert config["input"][0]["dims"] == [-1, 28] and config["input"][0]["data_type"] == "TYPE_FP32", config
refused(lambda: client.get_model_metadata("frod"), 404, "did you mean `fraud`?")
refused(lambda: client.get_model_metadata("fraud", "2"), 404, "no version `2`")
index = client.get_model_repository_index()
assert {"name": "fraud", "version": "1", "state": "READY", "reason": ""} in index, index
assert [model["name"] for model in index] == httpx.get(f"{URL}/v2/models").json()["models"], index
assert httpx.post(f"{URL}/v2/repository/index", json={"ready": True}).json() == index
refused(lambda: client.load_model("fraud"), 403, "--model-control explicit")

# Every model of the models' tests answers what Python's ONNX Runtime does, whatever way its tensors go.
for model, told in json.load(open(f"{MODELS}/expected.json")).items():
    known = client.get_model_metadata(model)
    assert [i["name"] for i in known["inputs"]] == list(told["inputs"]), known
    for binary_in in (True, False):
        for binary_out in (True, False, None):
            # Neither client sends floats of 16 bits as JSON.
            inputs = [
                tensor(name, values, binary=binary_in or values.dtype == np.float16)
                for name, values in ((name, array(of)) for name, of in told["inputs"].items())
            ]
            wanted = None
            if binary_out is not None:
                wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in told["outputs"]]
            result = client.infer(model, inputs, outputs=wanted, request_id="7")
            assert result.get_response()["id"] == "7" and result.get_response()["model_version"] == "1"
            for name, of in told["outputs"].items():
                place = f"{model}.{name}, binary: {binary_in}, {binary_out}"
                got = result.as_numpy(name)
                if "maps" in of:
                    same(got, np.array([[value for _, value in row] for row in of["maps"]], dtype=np.float32), place)
                else:
                    same(got, array(of), place)
                declared = next(output for output in known["outputs"] if output["name"] == name)
                assert len(declared["shape"]) == len(got.shape), (place, declared)

# Of maps the keys are known, so they are the labels.
features = array(json.load(open(f"{MODELS}/expected.json"))["zip_strings"]["inputs"]["features"])
outputs = [triton.InferRequestedOutput("output_probability", binary_data=True, class_count=2)]
classes = client.infer("zip_strings", [tensor("features", features)], outputs=outputs).as_numpy("output_probability")
assert classes.shape == (3, 2), classes
value, place, label = classes[0][0].decode().split(":")
assert len(value.split(".")[1]) == 6 and (place, label) == ("1", "no"), classes

# The fraud example, row by row and as a batch, packed in every way.
requests, expected = lines(EXAMPLE, "requests"), lines(EXAMPLE, "expected")


def columns(rows, binary=True):
    return [tensor(name, values, binary=binary) for name, values in arrays(rows)]


for row in range(50):
    check_fraud(client.infer("fraud", columns(requests[row : row + 1])), expected[row : row + 1], f"row {row}")
for ask in COMPRESSIONS:
    for give in COMPRESSIONS:
        for binary in (True, False):
            result = client.infer(
                "fraud",
                columns(requests, binary),
                "1",
                request_compression_algorithm=ask,
                response_compression_algorithm=give,
                outputs=[
                    triton.InferRequestedOutput(name, binary_data=binary)
                    for name in ("score", "decision", "models.lgbm", "models.lr", "models.mlp")
                ],
            )
            check_fraud(result, expected, f"{ask} {give} {binary}")
pending = [client.async_infer("fraud", columns(requests[row : row + 1])) for row in range(8)]
for row, result in enumerate(pending):
    check_fraud(result.get_result(), expected[row : row + 1], f"row {row} of several")
body, header = triton.InferenceServerClient.generate_request_body(columns(requests[:2]))
answer = httpx.post(f"{URL}/v2/models/fraud/infer", content=body, headers={"Inference-Header-Content-Length": str(header)})
length = int(answer.headers["Inference-Header-Content-Length"])
check_fraud(triton.InferenceServerClient.parse_response_body(answer.content, header_length=length), expected[:2], "by hand")

# Times, priorities, errors.
one = columns(requests[:1])
client.infer("fraud", one, timeout=30_000_000, priority=2, parameters={"mine": "x"})
refused(lambda: client.infer("fraud", one, timeout=1), 504, "deadline")
refused(lambda: client.infer("fraud", one[1:]), 400, "input `txn_id` is missing")
refused(lambda: client.infer("fraud", one + one[:1]), 400, "input `txn_id` is there twice")
refused(lambda: client.infer("frod", one), 404, "did you mean `fraud`?")
refused(lambda: client.infer("fraud", one, "2"), 404, "no version `2`")
refused(lambda: client.infer("fraud", one, outputs=[triton.InferRequestedOutput("scor")]), 400, "did you mean `score`?")
unknown_card = columns([{**requests[0], "card_id": 99999999}])
refused(lambda: client.infer("fraud", unknown_card), 400, "no row for card_id=99999999")
refused(lambda: client.infer("lgbm", [tensor("X", np.zeros((1, 27), np.float32))]), 400, "shape is [-1,28], not [1, 27]")
refused(lambda: client.infer("lgbm", [tensor("X", np.zeros((1, 28), np.float64))]), 400, "datatype is FP32, not FP64")

# Nulls and what is no number.
kept = client.infer("sum", [tensor("a", np.array([1, 2])), tensor("b", np.array([math.nan, -math.inf]))])
assert kept.as_numpy("next").tolist() == [2, 3] and kept.as_numpy("name.is_null").tolist() == [True, True]
assert math.isnan(kept.as_numpy("twice")[0]) and kept.as_numpy("twice")[1] == -math.inf
inputs = [tensor("a", np.array([1]), binary=False), tensor("b", np.array([math.inf]), binary=False)]
twice = client.infer("sum", inputs, outputs=[triton.InferRequestedOutput("twice", binary_data=False)])
assert twice.as_numpy("twice").tolist() == [math.inf]


async def others():
    async with triton_aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("fraud")
        assert (await client.get_model_metadata("sum"))["name"] == "sum"
        for give in COMPRESSIONS:
            result = await client.infer("fraud", columns(requests[:300]), response_compression_algorithm=give)
            check_fraud(result, expected[:300], f"aio, {give}")

    kserve = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await kserve.is_server_live(URL) and await kserve.is_server_ready(URL)
    assert await kserve.is_model_ready(URL, "fraud")
    for binary in (True, False):
        inputs = []
        for name, values in arrays(requests[:300]):
            made = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
            made.set_data_from_numpy(values, binary_data=binary)
            inputs.append(made)
        for wanted in (None, [RequestedOutput(name, {"binary_data": not binary}) for name in ("score", "decision")]):
            parameters = {"binary_data_output": binary}
            request = InferRequest("fraud", inputs, "id-1", parameters=parameters, request_outputs=wanted)
            told = await kserve.infer(URL, request, "fraud")
            assert told.id == "id-1" and told.model_name == "fraud"
            score = told.get_output_by_name("score").as_numpy()
            np.testing.assert_allclose(score, [row["score"] for row in expected[:300]], atol=1e-5)
            decision = told.get_output_by_name("decision").data
            assert decision == [row["decision"] for row in expected[:300]], decision
    half = InferInput("f16", [2, 2], "FP16")
    half.set_data_from_numpy(np.array([[0.5, -2], [65504, 1]], np.float16), binary_data=True)
    told = json.load(open(f"{MODELS}/expected.json"))["dtypes"]["inputs"]
    inputs = [half]
    for name, of in told.items():
        if name != "f16":
            values = array(of)
            made = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
            made.set_data_from_numpy(values, binary_data=True)
            inputs.append(made)
    request = InferRequest("dtypes", inputs, parameters={"binary_data_output": True})
    told = await kserve.infer(URL, request, "dtypes")
    assert told.get_output_by_name("f16_out").data == [0.5, -2.0, 65504.0, 1.0]
    for model, status, sentence in [("frod", 404, "did you mean `fraud`?"), ("lgbm", 400, "no input `f16`")]:
        try:
            await kserve.infer(URL, request, model)
            raise AssertionError(f"not refused: {sentence}")
        except httpx.HTTPStatusError as error:
            assert error.response.status_code == status and sentence in str(error), error
    await kserve.close()


asyncio.run(others())
client.close()
print("the same")
