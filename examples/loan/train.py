"""Trains the models of the loan example and writes everything that the example needs.

    pip install -r requirements.txt
    python train.py [--cache DIR] [--out DIR]

The applications come from the car-loan data set inside the PyPI package `nannyml` (see NOTICE). The wheel is
downloaded once with `pip download`, pinned by version and sha256, into --cache (by default target/datasets of the
repository). Nothing else is fetched, and all seeds are fixed: the same machine writes the same bytes again.

Written to --out (by default this folder):
  models/*.onnx              three members, two specialists, one stacker
  features.json              the contract of the graph: input, rules, SQL expressions, tensors, thresholds, metrics
  data/requests.jsonl        single applications from the months after the training data
  data/expected.jsonl        what the graph must answer, from the original models, not from ONNX
  data/labels.csv            whether these loans were repaid: the delayed labels of the requests
  data/reference_sample.csv  held-out applications with score and label, the reference for monitoring
  LICENSE-nannyml            the licence of the data, copied from the wheel

The SQL expressions below are the only definition of the features. DataFusion evaluates them here in float64, and
DataFusion evaluates them again when the graph serves, so training and serving cannot drift apart. A model sees
them through one cast to float32, as the last act.

The reference half of the data is cut by time: the members learn from the first 30,000 applications, the stacker
from the next 10,000, and the last 10,000 are held out. The second half (`analysis`) is later, and drifts.
"""

import argparse
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import zipfile

import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightGBMFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import check

SEED = 20261123
PACKAGE, VERSION = "nannyml", "0.13.1"
WHEEL = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
SHA256 = "cf5f4a33489834ae6773cb1baa33a0f98c0a3ee6ed9b43049478b25ce22fe869"
FILES = {  # the `dq` files are the data set with its faults: missing values and an unknown downpayment
    "reference": "nannyml/datasets/data/synthetic_car_loan_dq_reference.csv",
    "analysis": "nannyml/datasets/data/synthetic_car_loan_dq_analysis.csv",
    "target": "nannyml/datasets/data/synthetic_car_loan_analysis_target.csv",
}
LICENCE = f"{PACKAGE}-{VERSION}.dist-info/LICENSE"
MEMBERS_UNTIL, STACKER_UNTIL = 30_000, 40_000  # ids; ids follow time

INPUT = [  # name, type, nullable
    ("id", "int64", False),
    ("car_value", "float64", False),
    ("salary_range", "utf8", True),
    ("debt_to_income_ratio", "float64", False),
    ("loan_length", "float64", False),
    ("repaid_loan_on_prev_car", "bool", False),
    ("size_of_downpayment", "utf8", False),
    ("driver_tenure", "float64", True),
]
SALARIES = {  # category -> suffix of its one-hot column; the order is the ordinal rank
    "0 - 20K €": "0_20k",
    "20K - 40K €": "20_40k",
    "40K - 60K €": "40_60k",
    "60K+ €": "60k",
}
DOWNPAYMENTS = ["0%", "10%", "20%", "30%", "40%"]


def sql_list(values):
    return "(" + ", ".join(f"'{v}'" for v in values) + ")"


RULES = {  # an application that breaks one of these is not scored: a person looks at it
    "car_value": "car_value between 10000.0 and 100000.0",
    "salary_range": f"salary_range is null or salary_range in {sql_list(SALARIES)}",
    "debt_to_income_ratio": "debt_to_income_ratio between 0.25 and 0.75",
    "loan_length": "loan_length between 6.0 and 24.0",
    "size_of_downpayment": f"size_of_downpayment in {sql_list(DOWNPAYMENTS)}",
    "driver_tenure": "driver_tenure is null or driver_tenure between 0.0 and 7.0",
}
PREPARE = {  # over the imputed input
    "downpayment": "cast(replace(size_of_downpayment, '%', '') as double) / 100.0",
    "repaid_before": "case when repaid_loan_on_prev_car then 1.0 else 0.0 end",
    "salary_rank": "case salary_range "
    + " ".join(f"when '{s}' then {rank:.1f}" for rank, s in enumerate(SALARIES))
    + " end",
} | {f"salary_{suffix}": f"case when salary_range = '{s}' then 1.0 else 0.0 end" for s, suffix in SALARIES.items()}
FEATURES = {  # over the imputed input and the prepared columns
    # The trees see exact arithmetic only. A logarithm may differ in its last bit between two maths
    # libraries, which a smooth model forgives and a split at that very value does not.
    "financed": "car_value * (1.0 - downpayment)",
    "instalment": "car_value * (1.0 - downpayment) / loan_length",
    "ln_car_value": "ln(car_value)",
    "ln_instalment": "ln(car_value * (1.0 - downpayment) / loan_length)",
    "debt_to_income_squared": "debt_to_income_ratio * debt_to_income_ratio",
    "loan_length_squared": "loan_length * loan_length",
    "downpayment_squared": "downpayment * downpayment",
    "sqrt_driver_tenure": "sqrt(driver_tenure)",
} | {f"debt_salary_{suffix}": f"debt_to_income_ratio * salary_{suffix}" for suffix in SALARIES.values()}
TREE_COLUMNS = [
    "car_value", "salary_rank", "debt_to_income_ratio", "loan_length", "repaid_before",
    "downpayment", "driver_tenure", "financed", "instalment",
]  # fmt: skip
SMOOTH_COLUMNS = [
    "ln_car_value", "ln_instalment", "debt_to_income_ratio", "debt_to_income_squared",
    "loan_length", "loan_length_squared", "downpayment", "downpayment_squared",
    "driver_tenure", "sqrt_driver_tenure", "repaid_before",
    *(f"salary_{s}" for s in SALARIES.values()),
    *(f"debt_salary_{s}" for s in SALARIES.values()),
]  # fmt: skip
ROUTE = "case when car_value >= 40000.0 or loan_length >= 18.0 then 'large' else 'standard' end"
STACK = ["gbm", "lr", "rf", "specialist"]
APPROVE_FROM, REVIEW_FROM = 0.7, 0.3
OPSET = {"": 15, "ai.onnx.ml": 3}  # old enough for every ONNX Runtime of the last years

SAMPLED, UNKNOWN_DOWNPAYMENTS, LARGE_CARS = 370, 12, 8  # how the requests are drawn
EDITS = [  # one real application each, with one field spoiled, so that every rule is broken at least once
    ("car_value", 0.0),
    ("car_value", 2_500_000.0),
    ("salary_range", "60k+"),
    ("salary_range", ""),
    ("debt_to_income_ratio", 65.9),
    ("loan_length", 0.0),
    ("loan_length", 240.0),
    ("size_of_downpayment", "n/a"),
    ("size_of_downpayment", "10"),
    ("driver_tenure", -1.0),
]


def wheel(cache):
    path = cache / WHEEL
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--ignore-requires-python", "--dest", str(cache), f"{PACKAGE}=={VERSION}"], check=True)
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != SHA256:
        sys.exit(f"{path}: sha256 is {got}, expected {SHA256}; remove the file and run again")
    return zipfile.ZipFile(path)


def load(archive):
    read = lambda name: pd.read_csv(io.BytesIO(archive.read(FILES[name])))
    reference = read("reference")
    analysis = read("analysis").merge(read("target"), on="id", validate="one_to_one")
    return reference, analysis


def rows(table):
    """The applications of a table as the service would receive them: plain values, None for a missing one."""
    names = [name for name, _, _ in INPUT]
    return [{n: None if pd.isna(v) else v for n, v in r.items()} for r in table[names].to_dict("records")]


def contract(reference):
    """The part of features.json that is known before any model: it drives the preparation of all data."""
    learned = reference[reference.id < MEMBERS_UNTIL]
    impute = {
        "driver_tenure": ("median", float(learned.driver_tenure.median())),
        "salary_range": ("most_frequent", learned.salary_range.mode()[0]),
    }
    literal = lambda v: f"'{v}'" if isinstance(v, str) else repr(v)
    return {
        "input": [{"name": n, "type": t, "nullable": null} for n, t, null in INPUT],
        "validate": {
            "rules": [{"name": n, "expr": e} for n, e in RULES.items()],
            "valid": " and ".join(f"({e})" for e in RULES.values()),
            "otherwise": {"decision": "manual", "score": None, "route": None, "members": None},
        },
        "impute": [
            {"name": n, "strategy": s, "value": v, "expr": f"coalesce({n}, {literal(v)})"}
            for n, (s, v) in impute.items()
        ],
        "encoders": [
            {"column": "salary_range", "kind": "ordinal", "categories": list(SALARIES), "output": "salary_rank"},
            {
                "column": "salary_range",
                "kind": "one_hot",
                "categories": list(SALARIES),
                "outputs": [f"salary_{s}" for s in SALARIES.values()],
            },
        ],
        "prepare": [{"name": n, "expr": e} for n, e in PREPARE.items()],
        "features": [{"name": n, "expr": e} for n, e in FEATURES.items()],
        "route": {
            "expr": ROUTE,
            "routes": {"large": "specialist_large", "standard": "specialist_standard"},
            "output": "specialist",
        },
        "decision": {
            "expr": f"case when score >= {APPROVE_FROM} then 'approve' "
            f"when score >= {REVIEW_FROM} then 'review' else 'decline' end",
            "approve_from": APPROVE_FROM,
            "review_from": REVIEW_FROM,
        },
    }


def untrained():
    """name -> (model, columns, the rows it learns from, kind)"""
    boosted = lambda trees, leaves, seed: lightgbm.LGBMClassifier(
        n_estimators=trees, num_leaves=leaves, learning_rate=0.1, min_child_samples=40, random_state=seed,
        deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1,
    )  # fmt: skip
    forest = RandomForestClassifier(60, max_leaf_nodes=48, min_samples_leaf=10, random_state=SEED + 1, n_jobs=1)
    linear = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    network = make_pipeline(
        StandardScaler(), MLPClassifier((24, 12), alpha=1e-3, early_stopping=True, random_state=SEED + 3)
    )
    return {
        "gbm": (boosted(60, 15, SEED), TREE_COLUMNS, None, "LightGBM gradient boosting"),
        "lr": (linear, SMOOTH_COLUMNS, None, "standard scaler and logistic regression"),
        "rf": (forest, TREE_COLUMNS, None, "random forest"),
        "specialist_large": (network, SMOOTH_COLUMNS, "large", "standard scaler and neural network"),
        "specialist_standard": (boosted(50, 12, SEED + 4), TREE_COLUMNS, "standard", "LightGBM gradient boosting"),
    }


def round_thresholds(model):
    """Moves every split of a LightGBM model down to the nearest float32.

    LightGBM splits at float64 values, ONNX at float32 ones. A threshold that is rounded up on the way sends the rows
    which lie exactly on it to the other side. Rounded down it parts float32 rows as before.
    """

    def down(text):
        value = np.float64(text)
        near = np.float32(value)
        return repr(float(near if near <= value else np.nextafter(near, np.float32(-np.inf))))

    lines = []
    for line in model.booster_.model_to_string().splitlines():
        if line.startswith("threshold="):
            line = "threshold=" + " ".join(map(down, line.removeprefix("threshold=").split()))
        if not line.startswith("tree_sizes="):  # in bytes, of the old text; optional
            lines.append(line)
    model._Booster = lightgbm.Booster(model_str="\n".join(lines) + "\n")


def probability(model, x):
    return model.predict_proba(x)[:, 1]


def answers(models, stacker, prepared):
    """Base probabilities and score of every prepared (that is: valid) application, by the original models."""
    base = {n: probability(m, check.matrix(prepared, columns)) for n, (m, columns, _, _) in models.items()}
    large = prepared["route"] == "large"
    base["specialist"] = np.where(large, base.pop("specialist_large"), base.pop("specialist_standard"))
    if stacker is not None:
        base["score"] = probability(stacker, check.matrix(base, STACK))
    return base


def to_file(name, model, columns, path):
    """Exports one model. `gbm` stays as its converter leaves it by default: ZipMap, and one label declared for N rows."""
    zipmap = name == "gbm"
    if isinstance(model, lightgbm.LGBMClassifier):
        tensor = [("X", LightGBMFloats([None, len(columns)]))]
        onnx = convert_lightgbm(model, name, tensor, target_opset=OPSET[""], zipmap=zipmap)
        if not zipmap:  # the converter says that there is one label, however many rows there are
            onnx.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    else:
        tensor = [("X", FloatTensorType([None, len(columns)]))]
        onnx = to_onnx(model, initial_types=tensor, options={"zipmap": zipmap}, target_opset=OPSET, name=name)
    # The converters list these in the order of a set, and a domain sometimes twice.
    opsets = {o.domain: o for o in onnx.opset_import}
    del onnx.opset_import[:]
    onnx.opset_import.extend(opsets[domain] for domain in sorted(opsets))
    path.write_bytes(onnx.SerializeToString(deterministic=True))


def describe(path, kind, columns, learned_from):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tensor = lambda v: {"name": v.name, "type": v.type, "shape": [d if isinstance(d, int) else "N" for d in v.shape]}
    outputs = [tensor(o) for o in session.get_outputs()]
    zipmap = outputs[1]["type"].startswith("seq")
    return {
        "file": f"models/{path.name}",
        "kind": kind,
        "learned_from": learned_from,
        "input": {**tensor(session.get_inputs()[0]), "columns": columns},
        "outputs": outputs,
        "zipmap": zipmap,
        "probability": f"{outputs[1]['name']}: " + ("key 1 of each map" if zipmap else "column 1"),
    }


def draw(analysis, scored):
    """Picks the requests. A score too near to a threshold is left out: its decision would hang on the last bit."""
    rng = np.random.default_rng(SEED)
    margin = np.minimum(abs(scored.score - APPROVE_FROM), abs(scored.score - REVIEW_FROM))
    clear = analysis[~analysis.id.isin(scored.id[margin < 1e-3])]
    unknown = ~clear.size_of_downpayment.isin(DOWNPAYMENTS)
    groups = [
        (clear[unknown], UNKNOWN_DOWNPAYMENTS),
        (clear[~unknown & (clear.car_value > 100_000)], LARGE_CARS),
        (clear[~unknown & (clear.car_value <= 100_000)], SAMPLED + len(EDITS)),
    ]
    picked = [rng.choice(group.id.to_numpy(), count, replace=False) for group, count in groups]
    requests = rows(analysis[analysis.id.isin(np.concatenate(picked))].sort_values("id"))
    edits = dict(zip(picked[2].tolist(), EDITS))  # the first ten of a random draw
    for request in requests:
        if request["id"] in edits:
            field, value = edits[request["id"]]
            request[field] = value
    # A client may leave a missing field out or send null: every second one does it this way.
    for i, request in enumerate(r for r in requests if None in r.values()):
        if i % 2:
            for field in [f for f, v in request.items() if v is None]:
                del request[field]
    return requests, sorted(edits)


def jsonl(path, items):
    lines = (json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in items)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")


def expected(requests, spec, models, stacker):
    prepared, failed = check.prepare(spec, requests)
    got = answers(models, stacker, prepared)
    scored = {}
    for i, ident in enumerate(prepared["id"].tolist()):
        score = float(got["score"][i])
        decision = "approve" if score >= APPROVE_FROM else "review" if score >= REVIEW_FROM else "decline"
        members = {name: round(float(got[name][i]), 9) for name in STACK}
        route = prepared["route"][i]
        scored[ident] = {"decision": decision, "score": round(score, 9), "route": route, "members": members}
    manual = spec["validate"]["otherwise"]
    return [{"id": r["id"], **scored.get(r["id"], manual), "failed": failed[r["id"]]} for r in requests]


def main():
    repository = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description="Trains the models of the loan example.")
    parser.add_argument("--cache", type=pathlib.Path, default=repository / "target" / "datasets")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    args = parser.parse_args()
    for folder in ("models", "data"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)

    archive = wheel(args.cache)
    reference, analysis = load(archive)
    (args.out / "LICENSE-nannyml").write_bytes(archive.read(LICENCE))
    spec = contract(reference)

    # Only valid applications reach a model, so only they are learned from.
    past, later = (check.prepare(spec, rows(table))[0] for table in (reference, analysis))
    repaid = lambda source, table: source.set_index("id").repaid[table["id"]].to_numpy()
    truth = repaid(reference, past)
    pick = lambda table, mask: {column: values[mask] for column, values in table.items()}

    models = untrained()
    for name, (model, columns, route, _) in models.items():
        mask = past["id"] < MEMBERS_UNTIL
        if route:
            mask &= past["route"] == route
        model.fit(check.matrix(pick(past, mask), columns), truth[mask])
        if isinstance(model, lightgbm.LGBMClassifier):
            round_thresholds(model)
    mask = (past["id"] >= MEMBERS_UNTIL) & (past["id"] < STACKER_UNTIL)
    stacker = LogisticRegression(solver="newton-cholesky")
    stacker.fit(check.matrix(answers(models, None, pick(past, mask)), STACK), truth[mask])

    spec["models"] = {}
    for name, (model, columns, route, kind) in models.items():
        path = args.out / "models" / f"{name}.onnx"
        to_file(name, model, columns, path)
        learned = f"reference, id < {MEMBERS_UNTIL}" + (f", route {route}" if route else "")
        spec["models"][name] = describe(path, kind, columns, learned)
    path = args.out / "models" / "stacker.onnx"
    to_file("stacker", stacker, STACK, path)
    learned = f"reference, {MEMBERS_UNTIL} <= id < {STACKER_UNTIL}"
    spec["models"]["stacker"] = describe(path, "logistic regression", STACK, learned)

    held_out = past["id"] >= STACKER_UNTIL
    scored, metrics = {}, {}
    for name, table, outcome in (
        ("held_out", pick(past, held_out), truth[held_out]),
        ("analysis", later, repaid(analysis, later)),
    ):
        got = answers(models, stacker, table)
        auc = {n: round(float(roc_auc_score(outcome, got[n])), 4) for n in (*STACK, "score")}
        for route in spec["route"]["routes"]:
            at = table["route"] == route
            auc[f"score, {route}"] = round(float(roc_auc_score(outcome[at], got["score"][at])), 4)
        metrics[name] = {"rows": len(outcome), "auc": auc}
        scored[name] = pd.DataFrame({"id": table["id"], "route": table["route"], "score": got["score"]})

        onnx = check.serve(spec, args.out, table)
        worst = max(float(abs(onnx[n] - got[n]).max()) for n in got)
        print(f"{name}: ONNX and original differ by at most {worst:.1e} over {len(outcome)} rows")
        assert worst <= check.TOLERANCE
    spec["metrics"] = metrics
    spec["source"] = {"package": f"{PACKAGE}=={VERSION}", "wheel_sha256": SHA256, "files": FILES}

    requests, edited = draw(analysis, scored["analysis"])
    spec["requests"] = {"count": len(requests), "edited_ids": edited}
    jsonl(args.out / "data" / "requests.jsonl", requests)
    jsonl(args.out / "data" / "expected.jsonl", expected(requests, spec, models, stacker))
    asked = analysis[analysis.id.isin([r["id"] for r in requests])].sort_values("id")
    asked[["id", "timestamp", "repaid"]].to_csv(args.out / "data" / "labels.csv", index=False, lineterminator="\n")

    sample = reference[reference.id >= STACKER_UNTIL].iloc[::2].merge(scored["held_out"], on="id", how="left")
    sample["score"] = sample.score.round(6)
    sample["repaid"] = sample.repaid.astype(int)
    sample["repaid_loan_on_prev_car"] = sample.repaid_loan_on_prev_car.map({True: "true", False: "false"})
    columns = [n for n, _, _ in INPUT] + ["timestamp", "y_pred_proba", "route", "score", "repaid"]
    sample[columns].to_csv(args.out / "data" / "reference_sample.csv", index=False, lineterminator="\n")

    text = json.dumps(spec, ensure_ascii=False, indent=2) + "\n"
    (args.out / "features.json").write_text(text, encoding="utf-8", newline="\n")

    print(json.dumps(metrics, indent=2))
    check.check(args.out)


if __name__ == "__main__":
    # One thread everywhere: the order of a sum is part of the result.
    with threadpool_limits(1):
        main()
