"""Makes multivariate.json: reconstruction errors by scikit-learn, and by NannyML on the data of the loan example.

    pip install nannyml==0.13.1 scikit-learn==1.9.1 pandas==3.1.1 numpy==2.4.6 statsmodels==0.15.0
    python multivariate.py

The matrices are made again by the tests: their entries are sums and products of a generator's numbers.
"""

import json
import os
import pathlib

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"

import nannyml
import numpy as np
import pandas as pd
import sklearn
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).parent
LOAN = HERE / "../../../../examples/loan/data"
NUMBERS = ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"]
CATEGORIES = ["salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"]
COLUMNS = ["car_value", "salary_range", "debt_to_income_ratio", "loan_length", *CATEGORIES[1:], "driver_tenure"]


def uniform(seed):
    """Knuth's linear congruential generator: the upper 53 bits of its state, from 0 to 1."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield (state >> 11) / 2**53


def matrix(seed, rows, columns, factors, missing):
    """Columns that share hidden factors, each with a scale and an offset of its own."""
    u = uniform(seed)
    weights = [[next(u) - 0.5 for _ in range(factors)] for _ in range(columns)]
    out = []
    for _ in range(rows):
        hidden = [next(u) - 0.5 for _ in range(factors)]
        for j in range(columns):
            value = 0.2 * (next(u) - 0.5)
            for k in range(factors):
                value += weights[j][k] * hidden[k]
            value = value * (1.0 + j * j) + 10.0 * j
            out.append(float("nan") if next(u) < missing else value)
    return np.array(out).reshape(rows, columns)


MATRICES = {
    "six": (1, 400, 6, 2, 0.0),
    "holes": (2, 500, 8, 3, 0.1),
    "one_column": (3, 100, 1, 1, 0.0),
    "two_columns": (4, 60, 2, 1, 0.05),
    "more_columns_than_rows": (5, 20, 30, 4, 0.0),
    "many": (6, 1003, 40, 5, 0.02),
}
CHOICES = [0.65, 0.2, 0.9, 0.99, 1, 2]


def reconstruct(data, keep):
    data = SimpleImputer().fit_transform(data)
    scaler = StandardScaler().fit(data)
    z = scaler.transform(data)
    pca = PCA(n_components=keep, random_state=16, svd_solver="full").fit(z)
    errors = np.linalg.norm(z - pca.inverse_transform(pca.transform(z)), axis=1)
    size = len(data) // 10
    means = [errors[i : i + size].mean() for i in range(0, len(errors), size)]
    return {
        "components": int(pca.n_components_),
        "explained": float(pca.explained_variance_ratio_.sum()),
        "means": scaler.mean_.tolist() if keep == 0.65 else [],
        "scales": scaler.scale_.tolist() if keep == 0.65 else [],
        "errors": errors[:12].tolist(),
        "mean": float(errors.mean()),
        "sampling_error": float(errors.std(ddof=1) / np.sqrt(len(errors))),
        "limits": [float(np.mean(means) - 3 * np.std(means)), float(np.mean(means) + 3 * np.std(means))],
    }


def eigen():
    data = matrix(7, 50, 12, 3, 0.0)
    symmetric = data[:12] + data[:12].T
    return {"matrix": symmetric.ravel().tolist(), "values": np.linalg.eigvalsh(symmetric)[::-1].tolist()}


def text(value):
    """Booleans as the reference file writes them; missing stays missing."""
    return np.nan if value is None else str(value).lower() if isinstance(value, bool) else value


def number(value):
    """As the tests read it: what is no number is missing."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan


def loan():
    reference = pd.read_csv(LOAN / "reference_sample.csv", dtype={name: object for name in CATEGORIES})
    lines = (LOAN / "requests.jsonl").read_text().splitlines()
    requests = [json.loads(line) for line in lines]
    analysis = pd.DataFrame(
        {
            name: pd.Series([(number if name in NUMBERS else text)(r.get(name)) for r in requests])
            for name in COLUMNS
        }
    )
    out = {}
    for name in CATEGORIES:
        analysis[name] = analysis[name].astype(object)
    for keep in (0.65, 0.9):
        calculator = nannyml.DataReconstructionDriftCalculator(
            column_names=COLUMNS, n_components=keep, chunk_size=500
        )
        calculator.fit(reference[COLUMNS])
        analysed = calculator.calculate(analysis[COLUMNS]).filter(period="all").to_df()
        error = analysed["reconstruction_error"]
        out[str(keep)] = {
            "values": error["value"].tolist(),
            "sampling_errors": error["sampling_error"].tolist(),
            "alerts": [bool(alert) for alert in error["alert"]],
            "lower": float(error["lower_threshold"].iloc[0]),
            "upper": float(error["upper_threshold"].iloc[0]),
        }
    return out


def main():
    cases = []
    for name, parameters in MATRICES.items():
        data = matrix(*parameters)
        for keep in CHOICES:
            if isinstance(keep, int) and keep > min(data.shape):
                continue
            cases.append({"matrix": name, "keep": keep} | reconstruct(data, keep))
    versions = {"sklearn": sklearn.__version__, "nannyml": nannyml.__version__, "numpy": np.__version__}
    matrices = {name: dict(zip(("seed", "rows", "columns", "factors", "missing"), p)) for name, p in MATRICES.items()}
    out = {"versions": versions, "matrices": matrices, "cases": cases, "eigen": eigen(), "loan": loan()}
    lines = json.dumps(out, allow_nan=False).replace('{"matrix"', '\n{"matrix"')
    (HERE / "multivariate.json").write_text(lines + "\n")


if __name__ == "__main__":
    main()
