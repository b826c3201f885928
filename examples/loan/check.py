"""Serves data/requests.jsonl in plain Python and compares the answers with data/expected.jsonl.

    python check.py [DIR]

It reads only what the real graph reads, features.json and models/*.onnx: DataFusion evaluates the expressions,
ONNX Runtime the models. So it is also the shortest exact description of what the graph has to do.
"""

import collections
import json
import pathlib
import sys

import numpy as np
import onnxruntime
import pyarrow as pa
from datafusion import SessionConfig, SessionContext

TOLERANCE = 1e-5
TYPES = {"int64": pa.int64(), "float64": pa.float64(), "utf8": pa.string(), "bool": pa.bool_()}


def prepare(spec, rows):
    """Validates rows and computes every column that a model reads.

    Returns the columns of the valid rows, and for each id the names of the rules that its row breaks.
    """
    schema = pa.schema([pa.field(c["name"], TYPES[c["type"]], c["nullable"]) for c in spec["input"]])
    session = SessionContext(SessionConfig().with_target_partitions(1))
    session.from_arrow(pa.Table.from_pylist(rows, schema), "request")
    run = lambda query: session.sql(query).to_arrow_table()
    project = lambda items: ", ".join(f"{i['expr']} as {i['name']}" for i in items)

    rules = spec["validate"]["rules"]
    checks = run("select id, " + ", ".join(f"{r['expr']} as rule{i}" for i, r in enumerate(rules)) + " from request")
    failed = {
        row["id"]: [r["name"] for i, r in enumerate(rules) if row[f"rule{i}"] is not True] for row in checks.to_pylist()
    }

    imputed = {i["name"]: i["expr"] for i in spec["impute"]}
    columns = ", ".join(f"{imputed.get(n, n)} as {n}" for n in schema.names)
    query = f"select {columns} from request where {spec['validate']['valid']}"
    query = f"select *, {project(spec['prepare'])} from ({query})"
    query = f"select *, {project(spec['features'])}, {spec['route']['expr']} as route from ({query}) order by id"
    table = run(query)
    return {name: table[name].to_numpy() for name in table.column_names}, failed


def matrix(table, columns):
    """The input tensor of a model: the named columns in order, cast to float32 once."""
    return np.column_stack([np.asarray(table[c], np.float64) for c in columns]).astype(np.float32)


def serve(spec, folder, table):
    """The probabilities of all members and the score, by ONNX Runtime, for prepared rows."""

    def infer(name, table):
        model = spec["models"][name]
        session = onnxruntime.InferenceSession(folder / model["file"], providers=["CPUExecutionProvider"])
        tensor = matrix(table, model["input"]["columns"])
        out = session.run([model["outputs"][1]["name"]], {model["input"]["name"]: tensor})[0]
        return np.array([row[1] for row in out], np.float32)

    out = {name: infer(name, table) for name in ("gbm", "lr", "rf")}
    out["specialist"] = np.empty(len(table["id"]), np.float32)
    for route, name in spec["route"]["routes"].items():
        at = table["route"] == route
        if at.any():
            out["specialist"][at] = infer(name, {c: v[at] for c, v in table.items()})
    out["score"] = infer("stacker", out)
    return out


def check(folder):
    lines = lambda name: [json.loads(line) for line in (folder / "data" / name).read_text("utf-8").splitlines()]
    spec = json.loads((folder / "features.json").read_text("utf-8"))
    requests, expected = lines("requests.jsonl"), lines("expected.jsonl")
    table, failed = prepare(spec, requests)
    out = serve(spec, folder, table)
    index = {ident: i for i, ident in enumerate(table["id"].tolist())}

    worst, wrong = 0.0, []
    for request, want in zip(requests, expected, strict=True):
        i = index.get(request["id"])
        got = {"id": request["id"], "failed": failed[request["id"]], **spec["validate"]["otherwise"]}
        if i is not None:
            score = float(out["score"][i])
            limits = spec["decision"]
            got["decision"] = (
                "approve"
                if score >= limits["approve_from"]
                else "review"
                if score >= limits["review_from"]
                else "decline"
            )
            got["route"] = table["route"][i]
            # The numbers are compared here; the rest must be equal to the letter.
            gaps = [abs(score - want["score"]), *(abs(out[m][i] - want["members"][m]) for m in want["members"])]
            worst = max(worst, *map(float, gaps))
            got |= {"score": want["score"], "members": want["members"]}
        if got != want:
            wrong.append((want, got))

    count = lambda key: dict(sorted(collections.Counter(str(e[key]) for e in expected).items()))
    print(f"{len(requests)} requests, {len(requests) - len(index)} to a person")
    print("decisions", count("decision"))
    print("routes   ", count("route"))
    print("failed   ", dict(sorted(collections.Counter(f for e in expected for f in e["failed"]).items())))
    for field in ("driver_tenure", "salary_range"):
        null = sum(field in r and r[field] is None for r in requests)
        print(f"{field}: {null} null, {sum(field not in r for r in requests)} left out")
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    if wrong or worst > TOLERANCE:
        sys.exit(f"{len(wrong)} answers differ, the first: {wrong[:1]}")


if __name__ == "__main__":
    check(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent)
