"""The clients of Triton load and unload models, and ask what was done. Asked for by tests/http/oip.

Arguments: the server's address, and the folder of the models' tests.
"""

import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

ADDRESS, MODELS = sys.argv[1:]
MODEL = open(f"{MODELS}/rank3.onnx", "rb").read()
VALUES = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def refused(call, sentence):
    try:
        call()
    except InferenceServerException as error:
        assert sentence in error.message(), error
        return
    raise AssertionError(f"not refused: {sentence}")


def infer(triton, client, model, version=""):
    x = triton.InferInput("x", [1, 2, 3], "FP32")
    x.set_data_from_numpy(VALUES)
    result = client.infer(model, [x], model_version=version)
    np.testing.assert_array_equal(result.as_numpy("swapped"), VALUES.transpose(0, 2, 1))
    response = result.get_response()
    return response["model_version"] if isinstance(response, dict) else response.model_version


for triton, options in ((triton_http, {}), (triton_grpc, {"as_json": True})):
    client = triton.InferenceServerClient(ADDRESS)
    rest = triton is triton_http

    def index():
        told = client.get_model_repository_index(**options)
        return {(m["name"], m.get("version")): m["state"] for m in (told if rest else told["models"])}

    assert index() == {
        ("echo", "1"): "READY",
        ("outside", None): "UNAVAILABLE",
        ("several", None): "UNAVAILABLE",
        ("zip", None): "UNAVAILABLE",
    }, index()
    assert not client.is_model_ready("several")
    refused(lambda: infer(triton, client, "several"), "has no available versions")
    client.load_model("several")
    assert client.is_model_ready("several") and client.is_model_ready("several", "1")
    assert infer(triton, client, "several") == "3" and infer(triton, client, "several", "1") == "1"
    # Another configuration, and a model that comes along.
    client.load_model("several", config='{"version_policy": {"specific": {"versions": [1]}}}')
    assert infer(triton, client, "several") == "1"
    client.load_model("zip", config="{}", files={"file:7/model.onnx": MODEL})
    assert infer(triton, client, "zip") == "7"
    refused(lambda: client.load_model("zip", config="{}", files={"file:7/model.onnx": MODEL[:-9]}), "cannot be loaded")
    refused(lambda: client.load_model("zip", config='{"backend": "python"}'), "backend `python` is not served")
    refused(lambda: client.load_model("nothing"), "no model `nothing`")

    # What was done.
    told = client.get_inference_statistics("zip", **options)["model_stats"]
    assert len(told) == 1 and int(told[0]["inference_stats"]["success"]["count"]) >= 1, told
    assert int(told[0]["inference_count"]) >= 1 and int(told[0]["last_inference"]) > 10**12, told
    assert len(client.get_inference_statistics(**options)["model_stats"]) == 3
    refused(lambda: client.get_inference_statistics("nothing"), "no model `nothing`")

    # What is traced and logged. Traces of this server have nowhere to go, and its log is the test's.
    def value(told, key):
        if rest:
            return told[key]
        setting = told["settings"][key]
        return next(iter(setting.values()))

    traced = client.get_trace_settings(**options)
    assert value(traced, "trace_level") == ["OFF"] and value(traced, "trace_rate") in ("1000", ["1000"]), traced
    assert client.get_trace_settings("zip", **options) == traced
    refused(lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}), "traces have nowhere to go")
    assert "log_verbose_level" in (client.get_log_settings(**options) if rest else client.get_log_settings(**options)["settings"])
    refused(lambda: client.update_log_settings({"log_verbose_level": 1}), "the log is the application's")
    refused(lambda: client.update_log_settings({"log_file": "/tmp/x"}), "the log goes to standard error")

    client.unload_model("several")
    client.unload_model("zip")
    client.unload_model("zip")
    assert not client.is_model_ready("zip")

print("the same")
