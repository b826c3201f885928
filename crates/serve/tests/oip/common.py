"""What the tests by clients of the protocol have in common."""

import json

import numpy as np

NUMPY = {"string": np.object_, "bool": np.bool_}
TYPES = {"card_id": np.int64, "amount": np.float64, "ts": np.int64}


def lines(example, name):
    return [json.loads(line) for line in open(f"{example}/data/{name}.jsonl")]


def texts(values):
    return np.array([text.encode() if isinstance(text, str) else text for text in values], dtype=np.object_)


def same(got, wanted, place):
    assert got is not None, place
    assert got.shape == wanted.shape, (place, got.shape, wanted.shape)
    if wanted.dtype.kind in "fV":
        np.testing.assert_allclose(got.astype(np.float64), wanted.astype(np.float64), rtol=1e-5, atol=1e-6, err_msg=place)
    elif wanted.dtype == np.object_:
        decoded = [text.decode() if isinstance(text, bytes) else text for text in got.ravel()]
        assert decoded == [text.decode() for text in wanted.ravel()], place
    else:
        assert got.dtype == wanted.dtype and (got == wanted).all(), place


def array(told):
    if told["dtype"] == "string":
        return texts(told["values"]).reshape(told["shape"])
    return np.array(told["values"], dtype=NUMPY.get(told["dtype"], told["dtype"])).reshape(told["shape"])


def arrays(rows):
    """The columns of rows of the fraud example."""
    for name in rows[0]:
        values = [row[name] for row in rows]
        yield name, np.array(values, dtype=TYPES[name]) if name in TYPES else texts(values)


def check_fraud(result, answers, place):
    for name, of in [("score", lambda row: row["score"])] + [
        (f"models.{model}", lambda row, model=model: row["models"][model]) for model in ("lgbm", "lr", "mlp")
    ]:
        wanted = np.array([of(row) for row in answers])
        np.testing.assert_allclose(result.as_numpy(name), wanted, atol=1e-5, err_msg=f"{place}: {name}")
    decisions = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("decision")]
    assert decisions == [row["decision"] for row in answers], place
