"""Writes performance_metrics.json and performance_cbpe.json beside this file.

pip install nannyml==0.13.1 scikit-learn==1.9.1 numpy==2.4.6 pandas==3.1.1 statsmodels
NML_DISABLE_USAGE_LOGGING=1 python performance.py
"""

import json
import os
import pathlib
import warnings

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
warnings.simplefilter("ignore")

import nannyml
import numpy as np
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

HERE = pathlib.Path(__file__).parent


def number(value):
    """None for what has no value."""
    return None if value is None or not np.isfinite(value) else float(value)


def curve(labels, p):
    if len(p) == 0:
        return [], [], None
    observed, predicted = calibration_curve(labels, p, n_bins=10)
    bins = np.searchsorted(np.linspace(0, 1, 11)[1:-1], p)
    weights = np.array([(bins == b).sum() for b in range(10) if (bins == b).any()]) / len(p)
    return observed.tolist(), predicted.tolist(), float(np.sum(weights * np.abs(observed - predicted)))


def binary(name, p, labels):
    p, labels = np.asarray(p, float), np.asarray(labels, int)
    predicted = (p >= 0.5).astype(int)
    both = len(set(labels.tolist())) == 2
    rows = len(p) > 0
    tn, fp, fn, tp = sk.confusion_matrix(labels, predicted, labels=[0, 1]).ravel().tolist() if rows else (0, 0, 0, 0)
    score = lambda f, **more: number(f(labels, predicted, zero_division=np.nan, **more)) if rows else None
    observed, predicted_mean, ece = curve(labels, p)
    return {
        "name": name,
        "probability": p.tolist(),
        "label": labels.tolist(),
        "expected": {
            "confusion": [tp, fp, tn, fn],
            "accuracy": number(sk.accuracy_score(labels, predicted)) if rows else None,
            "precision": score(sk.precision_score),
            "recall": score(sk.recall_score),
            "f1": score(sk.f1_score),
            "specificity": score(sk.recall_score, pos_label=0),
            "roc_auc": number(sk.roc_auc_score(labels, p)) if both else None,
            "average_precision": number(sk.average_precision_score(labels, p)) if rows and labels.any() else None,
            "log_loss": number(sk.log_loss(labels, p, labels=[0, 1])) if rows else None,
            "brier": number(np.mean((p - labels) ** 2)) if rows else None,
            "ece": ece,
            "observed": observed,
            "predicted": predicted_mean,
        },
    }


def multiclass(name, classes, predicted, labels, probabilities):
    every = list(range(classes))
    out = {
        "accuracy": number(sk.accuracy_score(labels, predicted)),
        "log_loss": number(sk.log_loss(labels, probabilities, labels=every)) if len(probabilities) else None,
        "roc_auc": number(sk.roc_auc_score(labels, probabilities, multi_class="ovr")) if len(probabilities) else None,
        "confusion": sk.confusion_matrix(labels, predicted, labels=every).tolist(),
    }
    for average in ["macro", "weighted"]:
        for metric in ["precision", "recall", "f1"]:
            out[f"{metric}_{average}"] = number(getattr(sk, f"{metric}_score")(labels, predicted, average=average))
    return {
        "name": name,
        "classes": classes,
        "predicted": predicted.tolist(),
        "label": labels.tolist(),
        "probabilities": probabilities.tolist(),
        "expected": out,
    }


def regression(name, prediction, label):
    prediction, label = np.asarray(prediction, float), np.asarray(label, float)
    positive = (prediction > -1).all() and (label > -1).all()
    return {
        "name": name,
        "prediction": prediction.tolist(),
        "label": label.tolist(),
        "expected": {
            "mae": number(sk.mean_absolute_error(label, prediction)),
            "mse": number(sk.mean_squared_error(label, prediction)),
            "rmse": number(sk.root_mean_squared_error(label, prediction)),
            "mape": number(sk.mean_absolute_percentage_error(label, prediction)),
            "rmsle": number(sk.root_mean_squared_log_error(label, prediction)) if positive else None,
            "r2": number(sk.r2_score(label, prediction)) if len(label) > 1 else None,
        },
    }


def realised():
    rng = np.random.default_rng(7)
    spread = rng.random(1000).round(6)
    tied = rng.random(300).round(1)
    mild = (rng.beta(2, 5, 800)).round(4)
    draw = lambda p: (rng.random(len(p)) < p).astype(int)
    three = rng.dirichlet([1, 1, 1], 400).round(3)
    three[:, 2] = (1 - three[:, 0] - three[:, 1]).round(3)
    label3 = np.array([rng.choice(3, p=np.abs(row) / np.abs(row).sum()) for row in three])
    target = rng.gamma(2, 30, 300).round(3) + 0.5
    wide = 10 ** rng.uniform(-6, 12, 200)
    # The variance is a small part of the mean square here: a plain sum of squares would lose it.
    far = 1e9 + rng.normal(0, 1, 200)
    return {
        "binary": [
            binary("spread", spread, draw(spread)),
            binary("tied", tied, draw(tied)),
            binary("mild", mild, draw(mild**2)),
            binary("sure and wrong", [0.0, 1.0, 1.0, 0.0, 0.5], [1, 0, 1, 0, 1]),
            binary("all positive", tied[:50], np.ones(50)),
            binary("all negative, none predicted", (tied[:50] / 3).round(3), np.zeros(50)),
            binary("all equal", np.full(20, 0.3), draw(np.full(20, 0.5))),
            binary("one row", [0.7], [1]),
            binary("empty", [], []),
        ],
        "multiclass": [
            multiclass("three", 3, three.argmax(axis=1), label3, three),
            multiclass("a class never predicted", 4, rng.integers(0, 3, 100), rng.integers(0, 4, 100), np.array([])),
            multiclass("a class never seen", 5, rng.integers(0, 3, 60), rng.integers(1, 4, 60), np.array([])),
            multiclass("one class", 3, np.full(10, 1), np.full(10, 1), np.array([])),
        ],
        "regression": [
            regression("gamma", (target + rng.normal(0, 10, 300)).clip(0.1).round(3), target),
            regression("wide", wide * rng.uniform(0.5, 2, 200), wide),
            regression("far from zero", far + rng.normal(0, 0.5, 200), far),
            regression("negative", rng.normal(-5, 3, 100), rng.normal(-5, 3, 100)),
            regression("constant label", [1.0, 2.0, 3.0], [0.5, 0.5, 0.5]),
            regression("constant and right", [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
            regression("one row", [2.0], [3.0]),
        ],
    }


METRICS = ["roc_auc", "f1", "precision", "recall", "specificity", "accuracy"]


def chunks_of(result, period):
    frame = result.filter(period=period).to_df()
    chunks = [{metric: number(frame[metric]["value"].iloc[i]) for metric in METRICS} for i in range(len(frame))]
    alerts = [{metric: bool(frame[metric]["alert"].iloc[i]) for metric in METRICS} for i in range(len(frame))]
    return chunks, alerts, frame


def summary(estimator, analysis):
    chunks, alerts, frame = chunks_of(estimator.estimate(analysis), "analysis")
    reference, _, _ = chunks_of(estimator.result, "reference")
    bounds = {m: [float(frame[m]["lower_threshold"].iloc[0]), float(frame[m]["upper_threshold"].iloc[0])] for m in METRICS}
    return {"chunks": chunks, "alerts": alerts, "reference_chunks": reference, "bounds": bounds}


def counted(frame, columns, size):
    """Rows of each chunk as distinct rows and how often they occur: their order within a chunk does not matter."""
    chunks = [frame.iloc[start : start + size] for start in range(0, len(frame), size)]
    count = lambda chunk: chunk.groupby(columns).size().reset_index().values.astype(int).tolist()
    return [count(chunk) for chunk in chunks]


def car_loan():
    reference, analysis, _ = nannyml.load_synthetic_car_loan_dataset()
    for frame in (reference, analysis):
        frame["percent"] = (frame.y_pred_proba * 100).round().astype(int)
        assert np.allclose(frame.percent / 100, frame.y_pred_proba, atol=1e-12)
    estimator = nannyml.CBPE(
        y_pred_proba="y_pred_proba", y_pred="y_pred", y_true="repaid", metrics=METRICS, chunk_size=5000,
        problem_type="classification_binary",
    )
    estimator.fit(reference)
    return {
        "name": "synthetic_car_loan",
        "chunk_size": 5000,
        "needs_calibration": bool(estimator.needs_calibration),
        # Rows as [score in percent, predicted class, label, how many].
        "reference": counted(reference, ["percent", "y_pred", "repaid"], 5000),
        "analysis": counted(analysis, ["percent", "y_pred"], 5000),
        **summary(estimator, analysis),
    }


def sample_of_the_example():
    """The reference sample of examples/loan, whose `score` is not rounded to percent. Its later half is estimated."""
    import pandas as pd

    path = HERE / "../../../../examples/loan/data/reference_sample.csv"
    frame = pd.read_csv(path).dropna(subset=["score"]).reset_index(drop=True)
    frame["predicted"] = (frame.score >= 0.5).astype(int)
    reference, analysis = frame.iloc[:3000], frame.iloc[3000:].reset_index(drop=True)
    out = {}
    for column in ["score", "y_pred_proba"]:
        estimator = nannyml.CBPE(
            y_pred_proba=column, y_pred="predicted", y_true="repaid", metrics=METRICS, chunk_size=500,
            problem_type="classification_binary",
        )
        estimator.fit(reference)
        out[column] = {
            "needs_calibration": bool(estimator.needs_calibration),
            "reference_rows": 3000,
            "chunk_size": 500,
            **summary(estimator, analysis),
        }
    return out


def synthetic_multiclass():
    reference, analysis, _ = nannyml.load_synthetic_multiclass_classification_dataset()
    classes = ["highstreet_card", "prepaid_card", "upmarket_card"]
    columns = [f"y_pred_proba_{c}" for c in classes]
    # A part of the data set keeps this file small; the scores are rounded to percent in it.
    reference, analysis = reference.iloc[:12000], analysis.iloc[24000:36000].reset_index(drop=True)
    frames = []
    for frame in (reference, analysis):
        frame = frame.copy()
        for column in columns:
            frame[column] = frame[column].round(2)
            frame[column + "%"] = (frame[column] * 100).round().astype(int)
            frame[column] = frame[column + "%"] / 100
        frame["predicted"] = frame.y_pred.map({c: i for i, c in enumerate(classes)})
        if "y_true" in frame:
            frame["label"] = frame.y_true.map({c: i for i, c in enumerate(classes)})
        frames.append(frame)
    reference, analysis = frames
    estimator = nannyml.CBPE(
        y_pred_proba=dict(zip(classes, columns)), y_pred="y_pred", y_true="y_true", metrics=METRICS, chunk_size=3000,
        problem_type="classification_multiclass",
    )
    estimator.fit(reference)
    percents = [c + "%" for c in columns]
    kind = lambda c: type(estimator._calibrators[c]).__name__ != "NoopCalibrator"
    return {
        "name": "synthetic_multiclass",
        "chunk_size": 3000,
        "needs_calibration": [kind(c) for c in classes],
        # Rows as [three scores in percent, predicted class, label, how many].
        "reference": counted(reference, [*percents, "predicted", "label"], 3000),
        "analysis": counted(analysis, [*percents, "predicted"], 3000),
        **summary(estimator, analysis),
    }


def write(name, content):
    (HERE / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write("performance_metrics.json", realised())
    write(
        "performance_cbpe.json",
        {"car_loan": car_loan(), "example": sample_of_the_example(), "multiclass": synthetic_multiclass()},
    )
