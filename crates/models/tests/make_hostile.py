#!/usr/bin/env python3
"""Makes model files that nobody should load, and says how each of them is refused.

    pip install onnx==1.23.2 numpy
    python crates/models/tests/make_hostile.py

Writes, the same ones every time:
    tests/data/hostile/*.onnx        the files
    tests/data/hostile/weights.bin   what those with data in another file point at: 16 bytes
    tests/data/hostile/expected.json {"<file>": what its error contains; "" where only the runtime refuses it}
    tests/data/hostile/harmless.json ["<file>"]: look alike, and are loaded
"""
import json
import os
import random
import shutil
import struct

import numpy as np
import onnx
from onnx import AttributeProto as A, TensorProto as T, helper as h, numpy_helper

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "hostile")
OPSET, IR = 15, 8
expected, harmless = {}, []

NO_MODEL = "the file is not an ONNX model: "
UNDERFLOW, NO_TEXT = "buffer underflow", "data is not UTF-8 encoded"
WRONG_TYPE, TOO_DEEP = "invalid wire type: ", "recursion limit reached"
LEAVES, NOT_PLAIN = "it leaves the model's folder", "it is not a plain relative path"
NO_NUMBER, TWICE = " is no number", "it names one entry twice"
CUSTOM, TRAINING = "custom operators are refused", "the model carries a training graph"
UNFOLDS = "calls itself, or unfolds into more than "
IMPOSSIBLE = "has an impossible shape "


def write(name, file):
    file = file if isinstance(file, bytes) else file.SerializeToString(deterministic=True)
    assert name not in expected and name not in harmless, name
    with open(os.path.join(HERE, f"{name}.onnx"), "wb") as out:
        out.write(file)


def refused(name, text, file):
    """Refused before the runtime sees it; the error contains `text`."""
    write(name, file)
    expected[f"{name}.onnx"] = text


def fails(name, file):
    """Nothing is wrong with its structure: the runtime refuses it, or its first run fails."""
    write(name, file)
    expected[f"{name}.onnx"] = ""


def fine(name, file):
    """Looks odd, and is loaded all the same."""
    write(name, file)
    harmless.append(f"{name}.onnx")


# Models, from the outside in.


def model(nodes, inputs=None, outputs=None, tensors=(), sparse=(), functions=(), opsets=(("", OPSET),), ir=IR):
    """A model from `x` to `y`, unless said otherwise."""
    inputs = [value("x", T.FLOAT, "N", 2)] if inputs is None else inputs
    outputs = [value("y", T.FLOAT, "N", 2)] if outputs is None else outputs
    graph = h.make_graph(nodes, "g", inputs, outputs, initializer=list(tensors), sparse_initializer=list(sparse))
    ids = [h.make_opsetid(domain, version) for domain, version in opsets]
    proto = h.make_model(graph, opset_imports=ids, ir_version=ir, functions=list(functions))
    proto.producer_name = ""
    return proto


def value(name, dtype, *shape):
    return h.make_tensor_value_info(name, dtype, list(shape))


def relu(frm="x", to="y"):
    return h.make_node("Relu", [frm], [to])


def good():
    return model([h.make_node("MatMul", ["x", "w"], ["y"])], tensors=[floats([2, 2])])


def with_tensor(tensor):
    return model([h.make_node("MatMul", ["x", "w"], ["y"])], tensors=[tensor])


def with_sparse(sparse):
    return model([h.make_node("MatMul", ["x", "w"], ["y"])], sparse=[sparse])


def with_node(node):
    """`node` makes `k`, which nobody needs."""
    return model([relu(), node])


def floats(dims, size=16, dtype=T.FLOAT, name="w"):
    return T(name=name, dims=dims, data_type=dtype, raw_data=bytes(size))


def outside(*entries, dims=(2, 2), dtype=T.FLOAT):
    """A tensor whose data is said to lie elsewhere."""
    tensor = T(name="w", dims=dims, data_type=dtype, data_location=T.EXTERNAL)
    for key, text in entries:
        tensor.external_data.add(key=key, value=text)
    return tensor


def sparse_of(values, indices, dims):
    return onnx.SparseTensorProto(values=values, indices=indices, dims=dims)


def indices(*at, name="i"):
    return numpy_helper.from_array(np.int64(at), name)


def attribute(name, kind, **fields):
    return A(name=name, type=kind, **fields)


def node(op, attributes, domain="", inputs=(), outputs=("k",)):
    made = h.make_node(op, list(inputs), list(outputs), domain=domain)
    made.attribute.extend(attributes)
    return made


def constant(tensor):
    return node("Constant", [attribute("value", A.TENSOR, t=tensor)])


def branches(inner, out="y"):
    """An `If` whose branches are the same graph."""
    graph = h.make_graph(inner, "branch", [], [value(out, T.FLOAT, None, None)])
    return h.make_node("If", ["c"], [out], then_branch=graph, else_branch=graph)


def with_branches(inner):
    return model([branches(inner)], inputs=[value("x", T.FLOAT, "N", 2), value("c", T.BOOL)])


def function(name, nodes, domain="own"):
    opsets = [h.make_opsetid("", OPSET), h.make_opsetid("own", 1)]
    return h.make_function(domain, name, ["x"], ["y"], nodes, opsets)


def call(name, frm="x", to="y"):
    return h.make_node(name, [frm], [to], domain="own")


def with_functions(functions, nodes=None):
    return model(nodes or [call("f0")], functions=functions, opsets=(("", OPSET), ("own", 1)))


# Bytes, where the library would not write what is wanted.

VARINT, FIXED64, BYTES, GROUP, END, FIXED32 = range(6)


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def field(tag, wire, content=b""):
    if wire == BYTES:
        content = varint(len(content)) + content
    return varint(tag << 3 | wire) + content


def spliced(file, **parts):
    """`file` with the bytes of `parts` in the place of its own fields."""
    for name in parts:
        file.ClearField(name)
    return file.SerializeToString(deterministic=True) + b"".join(parts.values())


def in_graph(more):
    """A good model whose graph has `more` at its end."""
    file = good()
    graph = file.graph.SerializeToString(deterministic=True) + more
    return spliced(file, graph=field(7, BYTES, graph))


def in_tensor(more, tensor=None):
    tensor = tensor or floats([2, 2])
    return in_graph(field(5, BYTES, tensor.SerializeToString(deterministic=True) + more))


def external_data():
    offset = ("offset", "0")
    for name, text, entries in (
        ("absolute", LEAVES, [("location", "/etc/passwd")]),
        ("device", LEAVES, [("location", "/dev/zero")]),
        ("parent", LEAVES, [("location", "../weights.bin")]),
        ("parent_alone", LEAVES, [("location", "..")]),
        ("parent_behind_a_dot", LEAVES, [("location", "./../../secret")]),
        ("parent_behind_a_file", LEAVES, [("location", "weights.bin/../../../weights.bin")]),
        ("backslash", NOT_PLAIN, [("location", "..\\..\\secret")]),
        ("drive", NOT_PLAIN, [("location", "C:/secret")]),
        ("url", NOT_PLAIN, [("location", "file:///etc/passwd")]),
        ("nul", NOT_PLAIN, [("location", "weights.bin\0.txt")]),
        ("without_location", "it names no file", [offset]),
        ("empty_location", "it names no file", [("location", ""), offset]),
        ("in_memory", "it is an address in memory", [("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "4096")]),
        ("in_memory_below", "it is an address in memory", [("location", "a/_ORT_MEM_ADDR_/b")]),
        ("absent", "entity not found", [("location", "absent.bin")]),
        ("folder", "it is not a regular file", [("location", ".")]),
        ("through_a_file", "not a directory", [("location", "weights.bin/inner.bin")]),
        ("long_name", "invalid filename", [("location", "a" * 300)]),
        ("offset_at_the_end", "ends 0 bytes after its offset", [("location", "weights.bin"), ("offset", "16")]),
        ("offset_behind", "its offset lies behind the end", [("location", "weights.bin"), ("offset", "17")]),
        ("offset_largest", "its offset lies behind", [("location", "weights.bin"), ("offset", str(2**64 - 1))]),
        ("offset_overflows", "offset" + NO_NUMBER, [("location", "weights.bin"), ("offset", str(2**64))]),
        ("offset_negative", "offset" + NO_NUMBER, [("location", "weights.bin"), ("offset", "-16")]),
        ("offset_hexadecimal", "offset" + NO_NUMBER, [("location", "weights.bin"), ("offset", "0x0")]),
        ("offset_empty", "offset" + NO_NUMBER, [("location", "weights.bin"), ("offset", "")]),
        ("length_long", "its length is 17 bytes but", [("location", "weights.bin"), ("length", "17")]),
        ("length_short", "its length is 8 bytes but", [("location", "weights.bin"), ("length", "8")]),
        ("length_negative", "length" + NO_NUMBER, [("location", "weights.bin"), ("length", "-1")]),
        ("length_overflows", "length" + NO_NUMBER, [("location", "weights.bin"), ("length", str(2**65))]),
        ("location_twice", TWICE, [("location", "weights.bin"), ("location", "/etc/passwd")]),
        ("offset_twice", TWICE, [("location", "weights.bin"), offset, ("offset", "4096")]),
        ("length_twice", TWICE, [("location", "weights.bin"), ("length", "16"), ("length", "4096")]),
    ):
        refused(f"external_{name}", text, with_tensor(outside(*entries)))
    here = ("location", "weights.bin")
    refused("external_shape_larger", "needs 64 bytes but the file ends 16", with_tensor(outside(here, dims=(4, 4))))
    refused("external_shape_overflows", IMPOSSIBLE, with_tensor(outside(here, dims=(2**32, 2**32))))
    refused("external_strings", "values of this type cannot", with_tensor(outside(here, dtype=T.STRING)))
    refused("external_unknown_type", "values of this type cannot", with_tensor(outside(here, dtype=99)))
    # Says that its data is here, and where else it is.
    both = outside(("location", "/etc/passwd"))
    both.raw_data, both.data_location = bytes(16), T.DEFAULT
    refused("external_and_internal", LEAVES, with_tensor(both))

    # Everywhere that a tensor can hide.
    away = outside(("location", "../secret"))
    refused("external_in_constant", LEAVES, with_node(constant(away)))
    listed = attribute("values", A.TENSORS, tensors=[floats([2, 2]), away])
    refused("external_in_list", LEAVES, with_node(node("Constant", [listed])))
    inner = h.make_node("MatMul", ["x", "w"], ["y"])
    graph = h.make_graph([inner], "branch", [], [value("y", T.FLOAT, None, None)], initializer=[away])
    taken = h.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
    refused("external_in_branch", LEAVES, model([taken]))
    graphs = attribute("unused", A.GRAPHS, graphs=[graph])
    refused("external_in_graphs", LEAVES, with_node(node("Constant", [graphs])))
    hidden = function("f0", [relu(), constant(away)])
    refused("external_in_function", LEAVES, with_functions([hidden]))
    refused("external_in_unused_function", LEAVES, with_functions([hidden], [relu()]))
    default = function("f0", [relu()])
    default.attribute_proto.append(attribute("default", A.TENSOR, t=away))
    refused("external_in_default", LEAVES, with_functions([default]))
    refused("external_in_sparse_values", LEAVES, with_sparse(sparse_of(away, indices(0), [2, 2])))
    refused("external_in_sparse_indices", LEAVES, with_sparse(sparse_of(floats([1], 4), away, [2, 2])))
    kept = attribute("sparse_value", A.SPARSE_TENSOR, sparse_tensor=sparse_of(away, indices(0), [2, 2]))
    refused("external_in_sparse_constant", LEAVES, with_node(node("Constant", [kept])))
    kept = attribute("many", A.SPARSE_TENSORS, sparse_tensors=[sparse_of(away, indices(0), [2, 2])])
    refused("external_in_sparse_list", LEAVES, with_node(node("Constant", [kept])))
    training = good()
    training.training_info.add().initialization.initializer.append(away)
    refused("external_in_training", TRAINING, training)
    # One field twice is one message: the second half of it must not be overlooked.
    half = h.make_graph([], "", [], [], initializer=[away]).SerializeToString()
    refused("external_in_second_graph", LEAVES, good().SerializeToString() + field(7, BYTES, half))

    fine("harmless_external", with_tensor(outside(("location", "./weights.bin"), offset, ("length", "16"))))


def operators():
    def custom(name, domain, op, *attributes):
        opsets = (("", OPSET), (domain, 1)) if domain else (("", OPSET),)
        file = model([relu(), node(op, attributes, domain, ["x"])], opsets=opsets)
        refused(f"operator_{name}", f"the model uses `{op}` of `{domain or 'ai.onnx'}`; {CUSTOM}", file)

    custom("of_its_own", "evil.example", "Shell")
    custom("python", "ai.onnx.contrib", "PyOp")
    custom("torch", "org.pytorch.aten", "ATen")
    custom("training", "ai.onnx.preview.training", "Adam")
    custom("internal", "com.ms.internal.nhwc", "Conv")
    custom("padded_domain", "ai.onnx ", "Relu")
    custom("upper_case_domain", "AI.ONNX", "Relu")
    custom("lookalike_domain", "\u0430i.onnx", "Relu")
    # A compiled model in another file, which the accelerator's driver runs.
    away = [attribute("embed_mode", A.INT, i=0), attribute("ep_cache_context", A.STRING, s=b"../../secret.so")]
    custom("compiled", "com.microsoft", "EPContext", *away)
    custom("compiled_and_disguised", "", "EPContext", *away)
    shell = h.make_node("Shell", ["x"], ["y"], domain="evil.example")
    refused("operator_in_branch", CUSTOM, with_branches([shell]))
    refused("operator_in_function", CUSTOM, with_functions([function("f0", [shell])]))
    refused("operator_in_unused_function", CUSTOM, with_functions([function("f0", [shell])], [relu()]))
    # A function vouches for its own name in its own domain only.
    refused("operator_beside_function", CUSTOM, with_functions([function("f0", [relu()])], [call("f1")]))


def versions():
    supported = "; supported are 7 to 28"
    for name, got in (("high", 29), ("highest", 2**63 - 1), ("low", 6), ("zero", 0), ("negative", -1)):
        said = f"the model has opset {got} of `ai.onnx`{supported}"
        refused(f"opset_{name}", said, model([relu()], opsets=[("", got)]))
    unsaid = good()
    unsaid.opset_import[0].ClearField("version")
    refused("opset_without_version", f"opset 0 of `ai.onnx`{supported}", unsaid)
    refused("opset_absent", "it has no operator set", model([relu()], opsets=[]))
    refused("opset_twice", "opset 99 of `ai.onnx`", model([relu()], opsets=[("", OPSET), ("ai.onnx", 99)]))
    for name, domain, got in (("classical", "ai.onnx.ml", 7), ("runtime", "com.microsoft", 2)):
        file = model([relu()], opsets=[("", OPSET), (domain, got)])
        refused(f"opset_of_{name}", f"opset {got} of `{domain}`", file)
    late = function("f0", [relu()])
    late.opset_import[0].version = 99
    refused("opset_of_function", "opset 99 of `ai.onnx`", with_functions([late]))
    for name, got in (("zero", 0), ("low", 2), ("high", 15), ("highest", 2**63 - 1), ("negative", -(2**63))):
        file = good()
        file.ir_version = got
        refused(f"ir_{name}", f"the model has ir_version {got}; supported are 3 to 14", file)
    unsaid = good()
    unsaid.ClearField("ir_version")
    refused("ir_absent", "it has no ir_version", unsaid)

    fine("harmless_opset", model([relu()], opsets=[("", OPSET), ("never.used", 2**63 - 1)]))


def structure():
    refused("empty", "it has no graph", b"")
    refused("without_graph", "it has no graph", spliced(good(), graph=b""))
    refused("without_anything_known", "it has no graph", field(1000, BYTES, b"unknown") * 3)
    training = good()
    training.training_info.add()
    refused("training", TRAINING, training)

    # Cut short: nearly whole, in the middle, in the first length, in the first number.
    whole = good().SerializeToString(deterministic=True)
    for name, text, end in (
        ("late", UNDERFLOW, len(whole) - 1), ("in_graph", UNDERFLOW, len(whole) // 2), ("early", UNDERFLOW, 6),
        ("in_length", "invalid varint", 3), ("in_number", "invalid varint", 1),
    ):
        refused(f"cut_{name}", text, whole[:end])
    refused("cut_in_fixed", UNDERFLOW, whole + field(100, FIXED64, b"short"))
    refused("cut_after_key", "invalid varint", whole + field(1, VARINT))

    # What the wire says that a field is, is not what it is.
    for name, got, wanted, file in (
        ("number_as_bytes", "LengthDelimited", "Varint", spliced(good(), ir_version=field(1, BYTES, b"8"))),
        ("number_as_fixed", "SixtyFourBit", "Varint", spliced(good(), ir_version=field(1, FIXED64, bytes(8)))),
        ("graph_as_number", "Varint", "LengthDelimited", spliced(good(), graph=field(7, VARINT, b"\1"))),
        ("graph_as_group", "StartGroup", "LengthDelimited", spliced(good(), graph=field(7, GROUP) + field(7, END))),
        ("opset_as_fixed", "ThirtyTwoBit", "LengthDelimited", whole + field(8, FIXED32, bytes(4))),
        ("training_as_number", "Varint", "LengthDelimited", whole + field(20, VARINT, b"\1")),
        ("data_as_number", "Varint", "LengthDelimited", in_tensor(field(9, VARINT, b"\1"))),
        ("data_as_group", "StartGroup", "LengthDelimited", in_tensor(field(9, GROUP) + field(9, END))),
        ("dims_as_fixed", "SixtyFourBit", "Varint", in_tensor(field(1, FIXED64, bytes(8)))),
        ("location_as_number", "Varint", "LengthDelimited", in_tensor(field(13, VARINT, b"\1"))),
        ("name_as_number", "Varint", "LengthDelimited", in_tensor(field(8, VARINT, b"\1"))),
    ):
        refused(f"wire_{name}", f"{WRONG_TYPE}{got} (expected {wanted})", file)
    refused("wire_unknown_6", "invalid wire type value: 6", whole + field(100, 6))
    refused("wire_unknown_7", "invalid wire type value: 7", whole + field(100, 7))
    refused("wire_tag_0", "invalid tag value: 0", whole + field(0, VARINT, b"\1"))
    refused("wire_tag_large", "invalid key value: ", whole + field(2**29, VARINT, b"\1"))
    refused("wire_group_left_open", "invalid varint", whole + field(100, GROUP))
    refused("wire_group_only_closed", "unexpected end group tag", whole + field(100, END))
    refused("wire_group_closed_by_another", "unexpected end group tag", whole + field(100, GROUP) + field(101, END))
    refused("wire_group_deep", TOO_DEEP, whole + field(100, GROUP) * 300 + field(100, END) * 300)

    # Lengths that no file has.
    for name, length in (("largest", 2**64 - 1), ("sign", 2**63), ("over_32_bits", 2**32), ("one_more", 1)):
        refused(f"length_of_graph_{name}", UNDERFLOW, spliced(good(), graph=varint(7 << 3 | BYTES) + varint(length)))
    refused("length_of_data_largest", UNDERFLOW, in_tensor(varint(9 << 3 | BYTES) + varint(2**64 - 1)))
    refused("length_of_dims_largest", UNDERFLOW, in_tensor(varint(1 << 3 | BYTES) + varint(2**63 - 1)))
    refused("length_of_unknown_largest", UNDERFLOW, whole + varint(100 << 3 | BYTES) + varint(2**64 - 1))
    # The tensor ends inside of its own last field.
    inner = varint(9 << 3 | BYTES) + varint(8) + bytes(4)
    file = in_tensor(inner) + field(100, BYTES, bytes(8))
    refused("length_of_data_leaves_tensor", "delimited length exceeded", file)

    for name, number in (("11_bytes", b"\x80" * 10 + b"\1"), ("65_bits", b"\xff" * 9 + b"\2")):
        refused(f"varint_of_{name}", "invalid varint", spliced(good(), ir_version=field(1, VARINT, number)))
    refused("varint_in_dims", "invalid varint", in_tensor(field(1, BYTES, b"\xff" * 11)))

    # Names that are no text.
    bad = b"\xff\xfe\xc0\x80"
    shape = field(1, BYTES, field(2, BYTES, bad))
    kind = field(1, BYTES, field(2, BYTES, shape))
    for name, file in (
        ("operator", in_graph(field(1, BYTES, field(4, BYTES, bad)))),
        ("domain", in_graph(field(1, BYTES, field(4, BYTES, b"Relu") + field(7, BYTES, bad)))),
        ("node_input", in_graph(field(1, BYTES, field(1, BYTES, bad)))),
        ("node_output", in_graph(field(1, BYTES, field(2, BYTES, bad)))),
        ("attribute", in_graph(field(1, BYTES, field(5, BYTES, field(1, BYTES, bad))))),
        ("tensor", in_tensor(field(8, BYTES, bad))),
        ("location", in_tensor(field(13, BYTES, field(1, BYTES, b"location") + field(2, BYTES, bad)))),
        ("input", in_graph(field(11, BYTES, field(1, BYTES, bad)))),
        ("output", in_graph(field(12, BYTES, field(1, BYTES, bad)))),
        ("dimension", in_graph(field(11, BYTES, field(2, BYTES, kind)))),
        ("producer", whole + field(2, BYTES, bad)),
        ("opset", whole + field(8, BYTES, field(1, BYTES, bad))),
        ("surrogate", in_tensor(field(8, BYTES, b"\xed\xa0\x80"))),
    ):
        refused(f"text_{name}", NO_TEXT, file)

    # A length in more bytes than it needs, and fields nobody knows, are read by everyone alike.
    fine("harmless_long_varint", spliced(good(), ir_version=field(1, VARINT, b"\x88\x80\x80\0")))
    fine("harmless_unknown_fields", whole + field(1000, BYTES, b"unknown") + field(1001, GROUP) + field(1001, END))


def nesting():
    def deep(levels):
        graph = b""
        for _ in range(levels):
            inner = field(1, BYTES, b"g") + field(6, BYTES, graph) + field(20, VARINT, varint(A.GRAPH))
            graph = field(1, BYTES, field(4, BYTES, b"If") + field(5, BYTES, inner))
        return spliced(good(), graph=field(7, BYTES, graph))

    refused("nested_17", "graphs are nested more than 16 deep", deep(17))
    refused("nested_40", TOO_DEEP, deep(40))
    refused("nested_300", TOO_DEEP, deep(300))
    inner = branches([relu()])
    for _ in range(17):
        graph = h.make_graph([inner], "b", [], [value("y", T.FLOAT)])
        inner = node("If", [attribute("g", A.GRAPHS, graphs=[graph])])
    refused("nested_in_function", "graphs are nested more than 16 deep", with_functions([function("f0", [inner])]))
    kind = b""
    for _ in range(80):
        kind = field(4, BYTES, field(1, BYTES, kind))
    refused("nested_type", TOO_DEEP, in_graph(field(11, BYTES, field(1, BYTES, b"s") + field(2, BYTES, kind))))


def disguised():
    rng = random.Random(4)
    zipped = b"PK\3\4\x14\0\0\0\0\0" + bytes(16) + b"\x0b\0\0\0archive/data.pkl" + bytes(8)
    for name, text, file in (
        ("random_1", "", rng.randbytes(64)),
        ("random_2", "", rng.randbytes(512)),
        ("random_3", "", rng.randbytes(1024)),
        ("zeros", "invalid tag value: 0", bytes(256)),
        ("ones", "invalid varint", b"\xff" * 256),
        ("text", "", b"this is not a model, it is a letter\n"),
        ("html", "", b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"),
        ("json", "", b'{"format": "onnx", "graph": {"node": []}}\n'),
        ("yaml", "", b"ir_version: 8\ngraph: {node: []}\n"),
        ("large_file_pointer", "", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n"),
        ("zip", "", zipped),
        ("gzip", "", b"\x1f\x8b\x08\0\0\0\0\0\0\3" + bytes(32)),
        # Would run `os.system`, were it ever unpickled.
        ("pickle", "", b"\x80\x04cposix\nsystem\nX\x04\0\0\0true\x85R."),
        ("gguf", "", b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63)),
        ("safetensors", "", struct.pack("<Q", 2**40) + b'{"w":{"dtype":"F32"}}'),
        ("hdf5", "", b"\x89HDF\r\n\x1a\n" + bytes(64)),
        ("lightgbm", "", b"tree\nversion=v4\nnum_class=1\n"),
        ("xgboost", "", b"binf" + bytes(64)),
        ("elf", "", b"\x7fELF\2\1\1" + bytes(57)),
        ("script", "", b"#!/bin/sh\nrm -rf /\n"),
        # The runtime's own format, which it would take instead.
        ("runtime_format", "", struct.pack("<I", 24) + b"ORTM" + bytes(64)),
        ("numpy", "", b"\x93NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n" + bytes(8)),
    ):
        refused(f"disguised_{name}", NO_MODEL + (text and "failed to decode Protobuf message: " + text), file)


def shapes():
    large = 2**32
    for name, dims in (
        ("negative", [-1, 2]), ("most_negative", [-(2**63)]), ("overflows", [large, large]),
        ("overflows_signed", [2**62, 2]), ("overflows_beside_zero", [0, large, large]),
        ("overflows_in_bits", [2**61]), ("overflows_at_rank_1000", [2] * 1000),
    ):
        refused(f"shape_{name}", IMPOSSIBLE, with_tensor(floats(dims)))
    for name, tensor, needed, got in (
        ("short", floats([2, 2], 15), 16, 15), ("long", floats([2, 2], 17), 16, 17),
        ("empty", floats([2, 2], 0), 16, 0), ("for_nothing", floats([0, 2], 4), 0, 4),
        ("of_another_type", floats([2, 2], 16, T.DOUBLE), 32, 16), ("of_half_bytes", floats([3], 3, T.INT4), 2, 3),
        ("huge", floats([2**40]), 2**42, 16),
    ):
        refused(f"data_{name}", f"needs {needed} bytes but has {got}", with_tensor(tensor))
    # No bytes at all: the shape promises more values than the whole file could hold.
    for name, kind in (("data_absent", T.FLOAT), ("data_of_strings_absent", T.STRING)):
        absent = T(name="w", dims=[2**40], data_type=kind)
        refused(name, "tensor `w` of shape [1099511627776] needs ", with_tensor(absent))
    impossible = floats([-1])
    refused("shape_in_constant", IMPOSSIBLE, with_node(constant(impossible)))
    refused("shape_in_branch", IMPOSSIBLE, with_branches([constant(impossible), relu()]))
    refused("shape_in_function", IMPOSSIBLE, with_functions([function("f0", [relu(), constant(impossible)])]))
    # What the second half of a message adds to the first counts: [2] and then [-1].
    refused("shape_in_two_parts", IMPOSSIBLE, in_tensor(field(1, VARINT, varint(2**64 - 1)), floats([2], 8)))
    refused("shape_packed", IMPOSSIBLE, in_tensor(field(1, BYTES, varint(2**32) * 3)))

    one = floats([1], 4)
    refused("sparse_too_dense", IMPOSSIBLE, with_sparse(sparse_of(one, indices(0), [2**20, 2**20])))
    refused("sparse_negative", IMPOSSIBLE, with_sparse(sparse_of(one, indices(0), [-2, 2])))
    refused("sparse_overflows", IMPOSSIBLE, with_sparse(sparse_of(one, indices(0), [large, large])))
    refused("sparse_of_unknown_size", IMPOSSIBLE, with_sparse(sparse_of(None, None, [2**40])))
    for name, said, values, at in (
        ("values", "needs 16 bytes but has 4", floats([4], 4), indices(0)),
        ("indices", "needs 32 bytes but has 8", one, floats([4], 8, T.INT64, "i")),
    ):
        refused(f"sparse_{name}_short", said, with_sparse(sparse_of(values, at, [2, 2])))
    kept = attribute("sparse_value", A.SPARSE_TENSOR, sparse_tensor=sparse_of(one, indices(0), [2**40]))
    refused("sparse_in_constant", IMPOSSIBLE, with_node(node("Constant", [kept])))

    shape = numpy_helper.from_array(np.int64([1, 1]), "s")
    nodes = [h.make_node("Reshape", ["w", "s"], ["v"]), h.make_node("Add", ["x", "v"], ["y"])]
    fine("harmless_rank_1000", model(nodes, tensors=[floats([1] * 1000, 4), shape]))
    fine("harmless_sparse", with_sparse(sparse_of(floats([1], 4), indices(3), [2, 2])))


def functions():
    refused("function_calls_itself", f"function `f0` {UNFOLDS}", with_functions([function("f0", [call("f0")])]))
    circle = [function(f"f{at}", [call(f"f{(at + 1) % 2}")]) for at in range(2)]
    refused("function_calls_its_caller", f"function `f0` {UNFOLDS}", with_functions(circle))
    circle = [function(f"f{at}", [call(f"f{(at + 1) % 5}")]) for at in range(5)]
    refused("function_circle_of_five", f"function `f0` {UNFOLDS}", with_functions(circle))
    tail = [function("f0", [call("f1")]), function("f1", [call("f1")])]
    refused("function_calls_a_circle", f"function `f1` {UNFOLDS}", with_functions(tail))
    inner = h.make_graph([call("f0")], "branch", [], [value("y", T.FLOAT, None, None)])
    hidden = [h.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)]
    refused("function_calls_itself_in_a_branch", UNFOLDS, with_functions([function("f0", hidden)]))
    refused("function_called_in_a_branch", UNFOLDS, model(
        [h.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        functions=[function("f0", [call("f0")])], opsets=(("", OPSET), ("own", 1)),
    ))
    refused("function_shadows_an_operator", UNFOLDS, model([relu()], functions=[function("Relu", [relu()], "")]))

    def laughs(levels, times):
        """Each function calls the next so many times."""
        for at in range(levels):
            names = ["x", *(f"t{i}" for i in range(1, times)), "y"]
            yield function(f"f{at}", [call(f"f{at + 1}", *pair) for pair in zip(names, names[1:])])
        yield function(f"f{levels}", [relu()])

    refused("function_laughs_by_two", UNFOLDS, with_functions(laughs(30, 2)))
    refused("function_laughs_by_ten", UNFOLDS, with_functions(laughs(8, 10)))
    refused("function_laughs_without_end", UNFOLDS, with_functions(laughs(63, 3)))
    refused("function_chain", f"function `f64` {UNFOLDS}", with_functions(laughs(100, 1)))

    fine("harmless_functions", with_functions(laughs(5, 2)))


def graphs():
    """Well-formed, and nonsense."""
    one = value("x", T.FLOAT, "N", 2)
    fails("graph_empty", model([], inputs=[], outputs=[]))
    fails("graph_operator_unknown", model([h.make_node("Nul", ["x"], ["y"])]))
    fails("graph_operator_too_new", model([h.make_node("Gelu", ["x"], ["y"])]))
    fails("graph_operator_nameless", model([h.make_node("", ["x"], ["y"])]))
    fails("graph_input_missing", model([h.make_node("Add", ["x", "nowhere"], ["y"])]))
    fails("graph_output_missing", model([relu(to="z")]))
    fails("graph_output_missing_in_branch", with_branches([relu(to="z")]))
    fails("graph_cycle", model([h.make_node("Add", ["x", "b"], ["a"]), relu("a", "b"), relu("b", "y")]))
    fails("graph_cycle_of_one", model([h.make_node("Add", ["x", "y"], ["y"])]))
    fails("graph_name_twice", model([relu(), relu()]))
    fails("graph_inputs_too_many", model([h.make_node("Relu", ["x"] * 9, ["y"])]))
    fails("graph_inputs_too_few", model([h.make_node("Relu", [], ["y"])]))
    fails("graph_types_mixed", model([h.make_node("Add", ["x", "w"], ["y"])], tensors=[indices(1, 2, name="w")]))
    fails("graph_type_of_output", model([relu()], outputs=[value("y", T.STRING, "N", 2)]))
    fails("graph_type_unknown", model([relu()], inputs=[one, value("z", 99, 2)]))
    fails("graph_type_undefined", model([relu()], inputs=[one, value("z", T.UNDEFINED, 2)]))
    fails("graph_type_absent", model([relu()], inputs=[one, onnx.ValueInfoProto(name="z")]))
    # Types that the runtime knows and rows cannot be turned into.
    fails("graph_type_of_two_bits", model([relu()], inputs=[one, value("z", T.UINT2, 2)]))
    fails("graph_type_complex", model([relu()], inputs=[one, value("z", T.COMPLEX128, 2)]))
    fails("graph_type_sequence", model([relu()], inputs=[one, h.make_tensor_sequence_value_info("z", T.FLOAT, None)]))
    sequence = h.make_sequence_type_proto(h.make_tensor_type_proto(T.FLOAT, None))
    for name, kind in (
        ("optional", h.make_optional_type_proto(sequence)), ("sequences", h.make_sequence_type_proto(sequence)),
        ("map", h.make_map_type_proto(T.FLOAT, h.make_tensor_type_proto(T.FLOAT, None))),
    ):
        fails(f"graph_type_{name}", model([relu()], inputs=[one, h.make_value_info("z", kind)]))
    fails("graph_type_sparse", model([relu()], inputs=[one, h.make_sparse_tensor_value_info("z", T.FLOAT, [2])]))
    opaque = onnx.ValueInfoProto(name="z")
    opaque.type.opaque_type.name = "handle"
    fails("graph_type_opaque", model([relu()], inputs=[one, opaque]))

    fails("graph_attribute_missing", model([h.make_node("Cast", ["x"], ["y"])]))
    fails("graph_attribute_unknown", model([h.make_node("Relu", ["x"], ["y"], evil=1)]))
    fails("graph_attribute_of_another_type", model([h.make_node("Cast", ["x"], ["y"], to="float")]))
    fails("graph_attribute_without_branch", model([h.make_node("If", ["x"], ["y"])], inputs=[value("x", T.BOOL)]))
    reference = attribute("to", A.INT, ref_attr_name="to")
    fails("graph_attribute_reference", model([node("Cast", [reference], "", ["x"], ["y"])]))

    def second(op, values, outputs=("y",), **attributes):
        """`op` of the input and a constant."""
        made = h.make_node(op, ["x", "k"], outputs, **attributes)
        return model([made], tensors=[indices(*values, name="k")], outputs=[value("y", T.FLOAT, None, None)])

    # Refused while it is loaded, or by its first run.
    fails("run_reshape", second("Reshape", [7, 7]))
    fails("run_reshape_negative", second("Reshape", [-2, 7]))
    fails("run_gather", second("Gather", [10**6], axis=1))
    far = [numpy_helper.from_array(np.int64([[2**40]]), "i"), floats([1, 1], 4, name="u")]
    fails("run_scatter", model([h.make_node("ScatterElements", ["x", "i", "u"], ["y"])], tensors=far))
    fails("run_tile", second("Tile", [2**40, 2**40]))
    fails("run_expand", second("Expand", [2**62, 2]))
    fails("run_pad", second("Pad", [0, 2**62, 0, 2**62]))
    fails("run_top", second("TopK", [2**40], ("y", "at")))
    fails("run_transpose", model([h.make_node("Transpose", ["x"], ["y"], perm=[5, -1])]))
    fails("run_pool", model(
        [h.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 0])],
        inputs=[value("x", T.FLOAT, "N", 1, 4, 4)], outputs=[value("y", T.FLOAT, None, None, None, None)],
    ))
    fails("run_unpool", model(
        [h.make_node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2])],
        inputs=[value("x", T.FLOAT, "N", 1, 1, 1)], outputs=[value("y", T.FLOAT, None, None, None, None)],
        tensors=[numpy_helper.from_array(np.int64([[[[2**40]]]]), "i")],
    ))
    whole = [numpy_helper.from_array(np.int64([at]), name) for name, at in (("a", 1), ("b", 0))]
    for op in ("Div", "Mod"):
        nodes = [h.make_node(op, ["a", "b"], ["y"])]
        fails(f"run_{op.lower()}_by_zero", model(nodes, inputs=[], outputs=[value("y", T.INT64, 1)], tensors=whole))
    fails("run_divide_input", model(
        [h.make_node("Div", ["x", "x"], ["y"])], inputs=[value("x", T.INT64, "N")], outputs=[value("y", T.INT64, "N")]
    ))

    # Tensors that say one thing and hold another.
    fails("tensor_typed_short", with_tensor(T(name="w", dims=[2, 2], data_type=T.FLOAT, float_data=[1, 2])))
    fails("tensor_typed_long", with_tensor(T(name="w", dims=[2, 2], data_type=T.FLOAT, float_data=[1] * 9)))
    fails("tensor_typed_otherwise", with_tensor(T(name="w", dims=[2, 2], data_type=T.FLOAT, int64_data=[1] * 4)))
    fails("tensor_of_nothing", with_tensor(T(name="w", dims=[2, 2], data_type=T.FLOAT)))
    fails("tensor_of_unknown_type", with_tensor(floats([2, 2], dtype=99)))
    fails("tensor_of_undefined_type", with_tensor(floats([2, 2], dtype=T.UNDEFINED)))
    fails("tensor_of_negative_type", with_tensor(floats([2, 2], dtype=-1)))
    fails("tensor_of_raw_strings", with_tensor(floats([2, 2], dtype=T.STRING)))
    for name, at in (("behind", 4), ("far_behind", 2**40), ("before", -5)):
        fails(f"sparse_index_{name}", with_sparse(sparse_of(floats([1], 4), indices(at), [2, 2])))
    fails("sparse_more_values", with_sparse(sparse_of(floats([4]), indices(0), [2, 2])))
    fails("sparse_more_indices", with_sparse(sparse_of(floats([1], 4), indices(0, 1, 2), [2, 2])))
    fails("sparse_without_indices", with_sparse(sparse_of(floats([1], 4), None, [2, 2])))
    fails("sparse_indices_of_floats", with_sparse(sparse_of(floats([1], 4), floats([1], 4, name="i"), [2, 2])))

    wide = h.make_node("f0", ["x", "x"], ["y"], domain="own")
    fails("function_of_other_arity", with_functions([function("f0", [relu()])], [wide]))
    fails("function_twice", with_functions([function("f0", [relu()])] * 2))
    fails("function_circle_unused", with_functions([function("f0", [call("f0")])], [relu()]))
    # Begins like the runtime's own format and is a model too: whoever reads it must not be talked into the former.
    prefix = struct.pack("<I", 0x68 | 1 << 8 | (4 << 3 | BYTES) << 16 | 4 << 24) + b"ORTM"
    refused("two_formats", "it is in the runtime's own format", prefix + good().SerializeToString(deterministic=True))


def trees():
    """Operators of classical models, whose attributes are arrays that must fit each other."""
    classical = (("", OPSET), ("ai.onnx.ml", 3))
    ys = [value("y", T.FLOAT, None, None)]

    def ml(op, outputs=ys, **attributes):
        made = h.make_node(op, ["x"], [o.name for o in outputs], domain="ai.onnx.ml", **attributes)
        return model([made], outputs=outputs, opsets=classical)

    def tree(**other):
        sound = dict(
            n_targets=1, nodes_treeids=[0] * 3, nodes_nodeids=[0, 1, 2], nodes_featureids=[0] * 3,
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[0.5, 0.0, 0.0],
            nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
            target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 2.0],
        )
        return ml("TreeEnsembleRegressor", **(sound | other))

    fine("harmless_tree", tree())
    branch = "BRANCH_LEQ"
    for name, other in (
        ("child_is_itself", {"nodes_truenodeids": [0, 0, 0]}),
        ("child_is_parent", {"nodes_modes": [branch, branch, "LEAF"], "nodes_falsenodeids": [2, 2, 0]}),
        ("child_absent", {"nodes_truenodeids": [9, 0, 0]}),
        ("child_negative", {"nodes_truenodeids": [-1, 0, 0]}),
        ("without_leaf", {"nodes_modes": [branch] * 3}),
        ("mode_unknown", {"nodes_modes": ["LOOP", "LEAF", "LEAF"]}),
        ("feature_absent", {"nodes_featureids": [10**6, 0, 0]}),
        ("feature_negative", {"nodes_featureids": [-(10**6), 0, 0]}),
        ("target_absent", {"target_ids": [0, 10**6]}),
        ("target_negative", {"target_ids": [0, -(10**6)]}),
        ("target_of_absent_node", {"target_nodeids": [1, 99]}),
        ("targets_negative", {"n_targets": -1}),
        ("values_short", {"nodes_values": [0.5]}),
        ("modes_short", {"nodes_modes": [branch]}),
        ("weights_short", {"target_weights": [1.0]}),
        ("children_short", {"nodes_truenodeids": [1]}),
    ):
        fails(f"tree_{name}", tree(**other))
    labels = [value("l", T.INT64, None), *ys]
    linear = dict(coefficients=[1.0], intercepts=[0.0] * 2, classlabels_ints=[0, 1])
    fails("linear_short", ml("LinearClassifier", labels, **linear))
    vectors = dict(coefficients=[1.0], support_vectors=[1.0], rho=[0.0], kernel_params=[1.0, 0.0, 0.0])
    fails("vectors_short", ml("SVMRegressor", n_supports=10**6, **vectors))
    fails("scale_long", ml("Scaler", offset=[1.0], scale=[1.0, 2.0, 3.0]))
    maps = h.make_sequence_type_proto(h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(T.FLOAT, [])))
    fails("classes_few", ml("ZipMap", [h.make_value_info("y", maps)], classlabels_int64s=[1]))
    fails("classes_many", ml("ZipMap", [h.make_value_info("y", maps)], classlabels_int64s=list(range(100))))


def resources():
    """Files that ask for more than a machine has, or of which the runtime would read something else than was checked."""
    wide = lambda *dims: model([relu()], inputs=[value("x", T.FLOAT, "N", *dims)], outputs=[value("y", T.FLOAT, "N", *dims)])
    refused("input_huge", f"tensor `x` {IMPOSSIBLE}", wide(2**40))
    refused("input_overflows", f"tensor `x` {IMPOSSIBLE}", wide(2**32, 2**32))
    several = [sparse_of(floats([1], 4, name=f"s{at}"), indices(3, name=f"i{at}"), [2**28]) for at in range(8)]
    refused("sparse_together", IMPOSSIBLE, model([relu()], sparse=several))
    depth = 1200
    nodes, leaves = 2 * depth + 1, depth + 1
    chain = dict(
        n_targets=1, nodes_treeids=[0] * nodes, nodes_nodeids=list(range(nodes)), nodes_featureids=[0] * nodes,
        nodes_modes=["BRANCH_LEQ"] * depth + ["LEAF"] * leaves, nodes_values=[0.5] * nodes,
        nodes_truenodeids=list(range(1, depth + 1)) + [0] * leaves,
        nodes_falsenodeids=list(range(depth + 1, nodes)) + [0] * leaves,
        target_treeids=[0], target_nodeids=[depth], target_ids=[0], target_weights=[1.0],
    )
    deep = h.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **chain)
    opsets = (("", OPSET), ("ai.onnx.ml", 3))
    outputs = [value("y", T.FLOAT, None, None)]
    refused("tree_deep", "a tree is more than 1000 levels deep", model([deep], outputs=outputs, opsets=opsets))
    twice = h.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **chain)
    shallow = h.make_attribute("nodes_truenodeids", [0] * 8)
    twice.attribute.insert(0, shallow)
    refused("tree_deep_behind_a_shallow_one", "attribute `nodes_truenodeids` is there twice", model([twice], outputs=outputs, opsets=opsets))
    grown = h.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1)
    grown.attribute.append(A(name="nodes_truenodeids", type=A.INTS, ref_attr_name="nodes_truenodeids"))
    body = h.make_function("own", "f", ["x"], ["y"], [grown], [h.make_opsetid("ai.onnx.ml", 3)], ["nodes_truenodeids"])
    called = h.make_node("f", ["x"], ["y"], domain="own", nodes_truenodeids=[1, 2, 3])
    refused("tree_given_to_a_function", "attribute `nodes_truenodeids` is given by a function", with_functions([body], [called]))
    refused("outputs_none", "it has no output", model([relu()], outputs=[]))

    laughs = [function(f"f{at}", [call(f"f{at + 1}", "x", "t"), call(f"f{at + 1}", "t", "y")]) for at in range(30)]
    decoy = function("f0", [relu()])
    decoy.overload = "o"
    hidden = with_functions([*laughs, function("f30", [relu()]), decoy])
    hidden.ir_version = 10
    refused("function_overload_hides_laughs", "function `f0` has an overload", hidden)
    refused("function_laughs_by_twenty", UNFOLDS, with_functions([*laughs[:20], function("f20", [relu()])]))
    body = h.make_graph([h.make_node("RandomUniform", [], ["z"], shape=[2])], "inner", [], [value("z", T.FLOAT, 2)])
    given = h.make_node("f", ["x"], ["y"], domain="own", body=body)
    refused("function_given_a_graph", "function `f` is given a graph", with_functions([function("f", [relu()])], [given]))

    entry = "it has an entry that is none of"
    plain = "it is not a plain relative path"
    refused("external_slash", plain, with_tensor(outside(("location", "weights.bin/"))))
    refused("external_slashes", plain, with_tensor(outside(("location", "a//weights.bin"))))
    refused("external_prepacked", entry, with_tensor(outside(("location", "weights.bin"), ("prepacked_0", "MatMul+1|0;16;0"))))
    refused("external_base", entry, with_tensor(outside(("location", "weights.bin"), ("basepath", "/etc"))))
    refused("opset_of_operator_absent", "opset 0 of `ai.onnx`", model([relu()], opsets=[("ai.onnx.ml", 3)]))
    classical = model([h.make_node("Normalizer", ["x"], ["y"], domain="ai.onnx.ml")])
    refused("opset_of_classical_absent", "opset 0 of `ai.onnx.ml`", classical)
    forged = node("\x1b[2J\nforged", [], "evil")
    refused("text_forged", "uses `\\u{1b}[2J\\nforged` of `evil`", model([relu(), forged]))
    refused("text_long", "..." , model([relu(), node("x" * 300, [], "evil")]))


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    os.makedirs(HERE)
    with open(os.path.join(HERE, "weights.bin"), "wb") as file:
        file.write(np.float32([1, 2, 3, 4]).tobytes())
    for part in (external_data, operators, versions, structure, nesting, disguised, shapes, functions, graphs, trees, resources):
        part()
    # Loads, and ends its process when it is asked for the smallest number: the processor does not divide that by -1.
    ends = h.make_node("Div", ["x", "k"], ["y"])
    x, y = value("x", T.INT64, "N", 1), value("y", T.INT64, "N", 1)
    with open(os.path.join(HERE, "..", "crashes.onnx"), "wb") as out:
        out.write(model([ends], [x], [y], [indices(-1, name="k")]).SerializeToString(deterministic=True))
    for name, content in (("expected.json", expected), ("harmless.json", harmless)):
        with open(os.path.join(HERE, name), "w") as file:
            file.write(json.dumps(content, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
