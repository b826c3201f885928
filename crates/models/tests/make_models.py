#!/usr/bin/env python3
"""Makes the small models that the tests run, and what Python's ONNX Runtime answers for them.

    pip install onnx numpy onnxruntime scikit-learn skl2onnx
    python crates/models/tests/make_models.py

Writes tests/data/*.onnx and tests/data/expected.json, the same ones every time:
    {"<model>": {"inputs": {"<input>": {"dtype", "shape", "values"}}, "outputs": {...the same...}}}
A sequence of maps is {"maps": [[[key, value], ..], ..]}.
"""
import json
import os

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T, helper as h, numpy_helper

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
OPSET, IR = 15, 8
expected = {}


def model(name, nodes, inputs, outputs, initializers=(), inputs_are=None, opsets=(("", OPSET),)):
    graph = h.make_graph(nodes, name, inputs, outputs, initializer=list(initializers))
    proto = h.make_model(graph, opset_imports=[h.make_opsetid(d, v) for d, v in opsets], ir_version=IR)
    proto.producer_name = ""
    save(name, proto, inputs_are)


def save(name, proto, inputs_are):
    onnx.checker.check_model(proto)
    path = os.path.join(HERE, f"{name}.onnx")
    with open(path, "wb") as file:
        file.write(proto.SerializeToString(deterministic=True))
    if inputs_are is None:
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answers = session.run(None, inputs_are)
    expected[name] = {
        "inputs": {key: described(value) for key, value in inputs_are.items()},
        "outputs": {output.name: described(value) for output, value in zip(session.get_outputs(), answers)},
    }


def described(value):
    if isinstance(value, list):
        return {"maps": [[[key, float(v)] for key, v in row.items()] for row in value]}
    flat = value.reshape(-1)
    values = flat.tolist() if flat.dtype != object else [str(text) for text in flat]
    dtype = "string" if value.dtype == object or value.dtype.kind in "US" else str(value.dtype)
    return {"dtype": dtype, "shape": list(value.shape), "values": values}


def value(name, dtype, *shape):
    return h.make_tensor_value_info(name, dtype, list(shape))


def every_dtype():
    """One model with every dtype in and out: each value is passed through two transpositions."""
    dtypes = {
        "f16": (T.FLOAT16, np.float16([[0.5, -2], [65504, 1]])),
        "f32": (T.FLOAT, np.float32([[0.5, -2], [3e38, 1]])),
        "f64": (T.DOUBLE, np.float64([[0.5, -2], [1e300, 1]])),
        "i8": (T.INT8, np.int8([[-128, 127], [0, 1]])),
        "i16": (T.INT16, np.int16([[-32768, 32767], [0, 1]])),
        "i32": (T.INT32, np.int32([[-(2**31), 2**31 - 1], [0, 1]])),
        "i64": (T.INT64, np.int64([[-(2**63), 2**63 - 1], [2**53 + 1, 1]])),
        "u8": (T.UINT8, np.uint8([[0, 255], [7, 1]])),
        "u16": (T.UINT16, np.uint16([[0, 65535], [7, 1]])),
        "u32": (T.UINT32, np.uint32([[0, 2**32 - 1], [7, 1]])),
        "u64": (T.UINT64, np.uint64([[0, 2**64 - 1], [7, 1]])),
        "bool": (T.BOOL, np.array([[True, False], [False, True]])),
        "str": (T.STRING, np.array([["", "naïve"], ["b", "日本"]], dtype=object)),
    }
    nodes, inputs, outputs, feed = [], [], [], {}
    for name, (dtype, values) in dtypes.items():
        inputs.append(value(name, dtype, None, 2))
        outputs.append(value(f"{name}_out", dtype, None, 2))
        nodes.append(h.make_node("Transpose", [name], [f"{name}_t"], perm=[1, 0]))
        nodes.append(h.make_node("Transpose", [f"{name}_t"], [f"{name}_out"], perm=[1, 0]))
        feed[name] = values
    model("dtypes", nodes, inputs, outputs, inputs_are=feed)


def main():
    os.makedirs(HERE, exist_ok=True)
    rng = np.random.default_rng(7)
    every_dtype()

    # Two inputs, three outputs: [N, 3], [N, 1] and [N].
    weights = numpy_helper.from_array(rng.normal(size=(3, 3)).astype(np.float32), "w")
    model(
        "several",
        [
            h.make_node("MatMul", ["a", "w"], ["wide"]),
            h.make_node("Add", ["wide", "b"], ["sum"]),
            h.make_node("ReduceMax", ["sum"], ["top"], axes=[1], keepdims=1),
            h.make_node("ArgMax", ["sum"], ["best"], axis=1, keepdims=0),
        ],
        [value("a", T.FLOAT, "N", 3), value("b", T.FLOAT, "N", 1)],
        [value("sum", T.FLOAT, "N", 3), value("top", T.FLOAT, "N", 1), value("best", T.INT64, "N")],
        [weights],
        {"a": rng.normal(size=(4, 3)).astype(np.float32), "b": rng.normal(size=(4, 1)).astype(np.float32)},
    )

    # Rank 3 in, rank 3 and 2 out; rank 4 in (images, channels first), rank 4 and 2 out.
    model(
        "rank3",
        [
            h.make_node("Transpose", ["x"], ["swapped"], perm=[0, 2, 1]),
            h.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        ],
        [value("x", T.FLOAT, "N", 2, 3)],
        [value("swapped", T.FLOAT, "N", 3, 2), value("mean", T.FLOAT, "N", 3)],
        inputs_are={"x": np.arange(18, dtype=np.float32).reshape(3, 2, 3)},
    )
    kernel = numpy_helper.from_array(rng.normal(size=(2, 3, 3, 3)).astype(np.float32), "k")
    model(
        "image",
        [
            h.make_node("Conv", ["pixels", "k"], ["maps"], pads=[1, 1, 1, 1]),
            h.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
            h.make_node("Flatten", ["pooled"], ["embedding"]),
        ],
        [value("pixels", T.FLOAT, "N", 3, 4, 4)],
        [value("maps", T.FLOAT, "N", 2, 4, 4), value("embedding", T.FLOAT, "N", 2)],
        [kernel],
        {"pixels": rng.normal(size=(2, 3, 4, 4)).astype(np.float32)},
    )

    # Sequences of any length: [N, S] in, [N, S] and [N] out.
    axes = numpy_helper.from_array(np.int64([1]), "axes")
    model(
        "sequence",
        [
            h.make_node("CumSum", ["tokens", "one"], ["running"]),
            h.make_node("ReduceSum", ["tokens", "axes"], ["total"], keepdims=0),
        ],
        [value("tokens", T.INT64, "N", "S")],
        [value("running", T.INT64, "N", "S"), value("total", T.INT64, "N")],
        [numpy_helper.from_array(np.int64(1), "one"), axes],
        {"tokens": np.int64([[1, 2, 3], [10, 20, 30]])},
    )

    # A batch size that is fixed: 1, and 3.
    for rows in (1, 3):
        model(
            f"fixed{rows}",
            [h.make_node("Mul", ["x", "x"], ["y"])],
            [value("x", T.FLOAT, rows, 2)],
            [value("y", T.FLOAT, rows, 2)],
            inputs_are={"x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)},
        )

    # Texts to numbers and back, in the operators of classical models.
    ml = (("", OPSET), ("ai.onnx.ml", 3))
    model(
        "labels",
        [
            h.make_node(
                "LabelEncoder", ["country"], ["code"], domain="ai.onnx.ml",
                keys_strings=["DE", "FR", "US"], values_int64s=[1, 2, 3], default_int64=-1,
            ),
            h.make_node(
                "LabelEncoder", ["code"], ["name"], domain="ai.onnx.ml",
                keys_int64s=[1, 2, 3], values_strings=["Germany", "France", "USA"], default_string="?",
            ),
        ],
        [value("country", T.STRING, "N")],
        [value("code", T.INT64, "N"), value("name", T.STRING, "N")],
        inputs_are={"country": np.array(["DE", "XX", "US"], dtype=object)},
        opsets=ml,
    )

    # Fails for values that are not 0 or 1, and for nothing else.
    model(
        "picky",
        [h.make_node("Gather", ["table", "at"], ["found"])],
        [value("at", T.INT64, "N")],
        [value("found", T.FLOAT, "N")],
        [numpy_helper.from_array(np.float32([0.25, 0.75]), "table")],
        {"at": np.int64([1, 0])},
    )

    # Goes round as often as its largest input says: a run can last as long as a test wants.
    body = h.make_graph(
        [h.make_node("Add", ["sum", "sum"], ["next"]), h.make_node("Identity", ["more"], ["goes_on"])], "body",
        [value("round", T.INT64), value("more", T.BOOL), value("sum", T.FLOAT, "N", 1)],
        [value("goes_on", T.BOOL), value("next", T.FLOAT, "N", 1)],
    )
    model(
        "rounds",
        [
            h.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            h.make_node("Cast", ["most"], ["rounds"], to=T.INT64),
            h.make_node("Loop", ["rounds", "", "x"], ["y"], body=body),
        ],
        [value("x", T.FLOAT, "N", 1)],
        [value("y", T.FLOAT, "N", 1)],
        # Equal ones, so that a row alone is answered as in its batch.
        inputs_are={"x": np.float32([[3], [3]])},
    )

    # Keeps a state: what it was given so far, `by` times. It has an input that is a single number, as many such models have.
    model(
        "sums",
        [
            h.make_node("Cast", ["by"], ["factor"], to=T.FLOAT),
            h.make_node("Mul", ["x", "factor"], ["more"]),
            h.make_node("Add", ["total", "more"], ["next"]),
            h.make_node("Identity", ["next"], ["y"]),
        ],
        [value("x", T.FLOAT, "N", 2), value("total", T.FLOAT, "N", 2), value("by", T.INT64)],
        [value("y", T.FLOAT, "N", 2), value("next", T.FLOAT, "N", 2)],
    )

    # Writes one token after the other: each from the one before and a state.
    drawn = np.random.default_rng(7)
    weights = {
        "embedding": drawn.normal(size=(8, 4)), "turn": drawn.normal(size=(4, 4)), "logits": drawn.normal(size=(4, 8)),
    }
    model(
        "decoder",
        [
            h.make_node("Gather", ["embedding", "token"], ["read"]),
            h.make_node("MatMul", ["state", "turn"], ["turned"]),
            h.make_node("Add", ["read", "turned"], ["sum"]),
            h.make_node("Tanh", ["sum"], ["state_out"]),
            h.make_node("MatMul", ["state_out", "logits"], ["scores"]),
            h.make_node("ArgMax", ["scores"], ["next"], axis=1, keepdims=0),
        ],
        [value("token", T.INT64, "N"), value("state", T.FLOAT, "N", 4)],
        [value("next", T.INT64, "N"), value("state_out", T.FLOAT, "N", 4)],
        [numpy_helper.from_array(of.astype(np.float32), name) for name, of in weights.items()],
    )

    # Weights in a file of their own, as large models have them.
    outside = numpy_helper.from_array(np.float32([[1, 2], [3, 4]]), "w")
    onnx.external_data_helper.set_external_data(outside, "weights.bin", offset=0, length=16)
    with open(os.path.join(HERE, "weights.bin"), "wb") as file:
        file.write(outside.raw_data)
    outside.ClearField("raw_data")
    graph = h.make_graph(
        [h.make_node("MatMul", ["x", "w"], ["y"])], "outside",
        [value("x", T.FLOAT, "N", 2)], [value("y", T.FLOAT, "N", 2)], [outside],
    )
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=IR)
    path = os.path.join(HERE, "outside.onnx")
    with open(path, "wb") as file:
        file.write(proto.SerializeToString(deterministic=True))
    x = np.float32([[1, 0], [1, 1]])
    expected["outside"] = {
        "inputs": {"x": described(x)},
        "outputs": {"y": described(onnxruntime.InferenceSession(path).run(None, {"x": x})[0])},
    }

    # Classifiers of scikit-learn, with their ZipMap: classes that are numbers, and classes that are names.
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    x = rng.normal(size=(60, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] > 1)
    for name, classes in (("zip_ints", np.int64([10, 20, 30])), ("zip_strings", np.array(["maybe", "no", "yes"]))):
        fitted = LogisticRegression().fit(x, classes[y])
        proto = convert_sklearn(fitted, initial_types=[("features", FloatTensorType([None, 4]))], target_opset=OPSET)
        proto.ir_version, proto.graph.name = IR, name
        proto.opset_import.sort(key=lambda opset: opset.domain)
        save(name, proto, {"features": x[:3]})

    # The models of the fraud example, on made-up features.
    for name in ("lgbm", "lr", "mlp"):
        path = os.path.join(HERE, "../../../../examples/fraud/models", f"{name}.onnx")
        x = np.round(rng.lognormal(0, 2, size=(8, 28)), 3).astype(np.float32)
        answer = onnxruntime.InferenceSession(path).run(["probabilities"], {"X": x})[0]
        expected[name] = {"inputs": {"X": described(x)}, "outputs": {"probabilities": described(answer)}}

    with open(os.path.join(HERE, "expected.json"), "w") as file:
        lines = (f"{json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in expected.items())
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
