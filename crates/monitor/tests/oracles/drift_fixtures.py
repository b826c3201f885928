#!/usr/bin/env python3
"""What other programs say of pairs of samples. Each part is written by one set of packages, pinned here.

    python3 drift_fixtures.py samples TITANIC > drift_samples.json
        numpy==2.4.6 scikit-learn==1.9.1; TITANIC is the folder nannyml/datasets/data of the wheel nannyml==0.13.1
    python3 drift_fixtures.py pairs > drift_pairs.json
        numpy==2.4.6 scipy==1.17.1
    python3 drift_fixtures.py evidently > drift_evidently.json
        evidently==0.7.23 pandas==2.3.3 numpy==2.4.6 scipy==1.17.1
    python3 drift_fixtures.py nannyml > drift_nannyml.json
        nannyml==0.13.1 statsmodels patsy pandas==3.1.1 numpy==2.4.6 scipy==1.17.1

`drift.json` holds the values that the samples of `drift_samples.json` have. The samples of the other files are not
stored: `sample` makes them of a seed, with nothing but sums, products and floors, so that a test makes the same bits.
"""

import csv
import json
import math
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")
MASK = 2**64


def uniforms(seed):
    """A linear congruential generator; its upper 53 bits are a number from 0 to 1."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % MASK
        yield (state >> 11) / 2**53


KINDS = {
    "uniform": lambda u: next(u),
    "eighths": lambda u: math.floor(next(u) * 100) / 8,
    "bell": lambda u: next(u) + next(u) + next(u) + next(u) - 2.0,
    "few": lambda u: math.floor(next(u) * 8) * 1.0,
    "skewed": lambda u: cube(next(u)) * 1000.0,
    "coin": lambda u: math.floor(next(u) * 2) * 1.0,
    "tiny": lambda u: next(u) * 1e-6,
    "constant": lambda u: next(u) * 0.0 + 3.0,
}


def cube(x):
    return x * x * x


def sample(kind, seed, size, scale=1.0, shift=0.0):
    u = uniforms(seed)
    for _ in range(4):
        next(u)
    return np.array([KINDS[kind](u) * scale + shift for _ in range(size)])


def both(case):
    r = sample(case["kind"], case["seed"], case["n"])
    return r, sample(case["kind"], case["seed"] + 1, case["m"], case["scale"], case["shift"])


def cases():
    kinds = list(KINDS)
    u = uniforms(2024)
    for i in range(248):
        size = lambda: 1 + math.floor(next(u) * next(u) * 300)
        n = size()
        m = n if i % 5 == 0 else size()
        yield dict(kind=kinds[i % len(kinds)], seed=1000 + 2 * i, n=n, m=m, scale=[1.0, 1.0, 1.5, 0.5][i // 8 % 4], shift=[0.0, 0.125, 0.0, 1.0, 0.25][i // 8 % 5])
    for kind, n, m, shift in [
        ("bell", 500, 500, 1.5), ("bell", 400, 300, 1.75), ("uniform", 3000, 2500, 0.01), ("bell", 3000, 2500, 0.3), ("uniform", 2000, 2000, 0.03),
        ("uniform", 150, 7000, 0.02), ("few", 1200, 900, 0.0), ("uniform", 10001, 400, 0.02), ("bell", 12000, 11000, 0.005), ("uniform", 30000, 20000, 0.004),
        ("eighths", 1, 300, 0.0), ("uniform", 300, 1, 0.0), ("uniform", 1, 1, 0.5), ("bell", 2, 299, 0.0),
    ]:
        yield dict(kind=kind, seed=77 + n, n=n, m=m, scale=1.0, shift=shift)


def write(value):
    """One entry a line, so that changes can be read."""
    if isinstance(value, list):
        print("[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]")
    else:
        print("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items()) + "\n}")


def samples(titanic):
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

    cancer, wine, diabetes = load_breast_cancer(), load_wine(), load_diabetes(scaled=False)
    x = cancer.data

    def column(name):
        def of(part):
            with open(f"{titanic}/titanic_{part}.csv") as file:
                return [float(row[name]) for row in csv.DictReader(file) if row[name] != ""]

        return of("reference"), of("analysis")

    pairs = {
        "breast_cancer.mean_radius[:300]vs[300:]": (x[:300, 0], x[300:, 0]),
        "breast_cancer.worst_area benign vs malignant": (x[cancer.target == 1, 23], x[cancer.target == 0, 23]),
        "breast_cancer.mean_smoothness even vs odd": (x[::2, 4], x[1::2, 4]),
        "wine.alcohol class0 vs class1": (wine.data[wine.target == 0, 0], wine.data[wine.target == 1, 0]),
        "wine.proline class0 vs class2": (wine.data[wine.target == 0, 12], wine.data[wine.target == 2, 12]),
        "diabetes.bmi[:221]vs[221:]": (diabetes.data[:221, 2], diabetes.data[221:, 2]),
        "nannyml_titanic.Fare ref vs analysis": column("Fare"),
        "nannyml_titanic.Age ref vs analysis": column("Age"),
    }
    write({name: [list(map(float, r)), list(map(float, c))] for name, (r, c) in pairs.items()})


def histograms(r, c):
    """What is computed of counts: over ten quantile bins, and over seven of equal width."""
    from scipy import stats
    from scipy.spatial.distance import jensenshannon

    edges = np.unique(np.quantile(r, np.arange(1, 10) / 10))
    a, b = (np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1) for x in (r, c))
    p, q = a / a.sum(), b / b.sum()
    floored = lambda s: np.where(s == 0, 1e-4, s)
    added = lambda s: (s + 1e-6) / (s + 1e-6).sum()
    psi = lambda p, q: float(((p - q) * np.log(p / q)).sum())
    kept = (a + b) > 0
    out = dict(
        edges=edges.tolist(), ref=a.tolist(), live=b.tolist(),
        psi=psi(floored(p), floored(q)), kl=float((floored(p) * np.log(floored(p) / floored(q))).sum()),
        psi_epsilon=psi(added(a), added(b)), js_epsilon=float(jensenshannon(added(a), added(b))) ** 2,
        js=float(jensenshannon(p, q)), js2=float(jensenshannon(p, q, base=2)),
        hellinger=float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2)), tvd=float(abs(p - q).sum() / 2), linf=float(abs(p - q).max()),
        ks=float(abs(np.cumsum(p) - np.cumsum(q)).max()),
    )
    if kept.sum() > 1:
        x = stats.chi2_contingency(np.vstack([a[kept], b[kept]]))
        out.update(chi2=float(x[0]), chi2_p=float(x[1]), dof=int(x[2]))
        if (a[kept] > 0).all():
            g = stats.chisquare(b[kept], a[kept] * (b.sum() / a.sum()))
            out.update(fit=float(g[0]), fit_p=float(g[1]))
    edges = np.histogram_bin_edges(np.concatenate([r, c]), bins=7)
    a, b = np.histogram(r, edges)[0], np.histogram(c, edges)[0]
    centres = (edges[1:] + edges[:-1]) / 2
    difference = np.concatenate([[0], np.cumsum(a) / len(r) - np.cumsum(b) / len(c)])
    area = 0.0
    for i in range(len(a)):
        left, right = difference[i], difference[i + 1]
        at = [0.0, left / (left - right), 1.0] if left * right < 0 else [0.0, 1.0]
        area += np.trapezoid([abs(left + (right - left) * t) for t in at], at) * (edges[i + 1] - edges[i])
    out["width7"] = dict(ref=a.tolist(), live=b.tolist(), centres=float(stats.wasserstein_distance(centres, centres, a, b)), bins=float(area))
    return out


def binned(r, c):
    """Sturges, Doane and MLRun."""
    from scipy import stats
    from scipy.spatial.distance import jensenshannon

    b = np.histogram_bin_edges(np.concatenate([r, c]), bins="sturges")
    p, q = np.histogram(r, b)[0] / len(r), np.histogram(c, b)[0] / len(c)
    js = float(jensenshannon(p, q))
    for a in (p, q):
        least = min(a[a != 0])
        a[a == 0] = least / 10**6 if least <= 1e-4 else 1e-4
    sturges = dict(bins=len(b) - 1, psi=float(((p - q) * np.log(p / q)).sum()), kl=float(stats.entropy(p, q)), js=js)
    b = np.histogram_bin_edges(r, bins="doane")
    doane = dict(bins=len(b) - 1, ref=np.histogram(r, b)[0].tolist(), live=np.histogram(c, b)[0].tolist())
    h, b = np.histogram(r, 20)
    top = np.finfo(float).max
    p, q = np.concatenate([[0], h, [0]]) / len(r), np.histogram(c, np.concatenate([[-top], b, [top]]))[0] / len(c)

    def kl(a, e):
        mask = a != 0
        a, e = a[mask], e[mask]
        return float((a * np.log(a / np.where(e != 0, e, 1e-4))).sum())

    mlrun = dict(tvd=float(abs(p - q).sum() / 2), hellinger=float(np.sqrt(max(1 - np.sqrt(p * q).sum(), 0))), kld=kl(q, p) + kl(p, q))
    return dict(sturges=sturges, doane=doane, mlrun=mlrun)


def pairs():
    from scipy import stats

    out = []
    for case in cases():
        r, c = both(case)
        exact, asymptotic = stats.ks_2samp(r, c), stats.ks_2samp(r, c, method="asymp")
        case.update(
            sums=[float(math.fsum(r)), float(math.fsum(c))],
            ks=float(exact.statistic), p=float(exact.pvalue), p_asymp=None if math.isnan(asymptotic.pvalue) else float(asymptotic.pvalue),
            w1=float(stats.wasserstein_distance(r, c)), w1_scaled=float(stats.wasserstein_distance(r, c) / max(np.std(r), 1e-3)),
            counts=histograms(r, c), **binned(r, c),
        )
        out.append(case)
    u = uniforms(5)
    levels = []
    for size in [1, 2, 3, 10, 40, 200]:
        p = [cube(next(u)) for _ in range(size)]
        p[-1] = p[0]
        levels.append(dict(p=p, bh=np.atleast_1d(stats.false_discovery_control(p)).tolist()))
    limits = [
        dict(alpha=alpha, bins=bins, chi2=float(stats.chi2.isf(alpha, bins - 1)), normal=float(bins - 1 + stats.norm.isf(alpha) * math.sqrt(2 * (bins - 1))))
        for alpha in [0.5, 0.1, 0.05, 0.01, 1e-6, 1e-30] for bins in [2, 3, 10, 20, 101, 5001]
    ]
    # Far out and for large samples: the pairs above hardly get there. A statistic is k/2n, as counts of 2n values have it.
    steps = lambda n: sorted({min(2 * n, max(1, round(d * 2 * n))) for d in
             [0.0009, 0.002, 0.004, 0.01, 0.02, 0.05, 0.08, 0.1, 0.12, 0.18, 0.25, 0.4, 0.49, 0.5, 0.7, 0.95]})
    kstwo = [dict(n=n, k=k, p=float(stats.kstwo.sf(k / (2 * n), n))) for n in [1, 2, 5, 20, 140, 141, 1000, 5000, 100000, 400000, 3000000] for k in steps(n)]
    tails = [dict(counts=[a, b], p=float(stats.chi2_contingency([a, b])[1])) for a, b in
             [([500, 500, 10], [100, 900, 10]), ([1000, 10, 10, 10], [10, 1000, 10, 10]), ([300, 300], [340, 260]), ([5, 0, 3], [2, 9, 0])]]
    print("{")
    print('"pairs": [\n' + ",\n".join(json.dumps(case) for case in out) + "\n],")
    print('"levels": ' + json.dumps(levels) + ",\n" + '"limits": ' + json.dumps(limits) + ",\n" + '"kstwo": ' + json.dumps(kstwo) + ",\n" + '"tails": ' + json.dumps(tails) + "\n}")


def evidently():
    import pandas as pd
    from evidently.legacy.calculations import stattests
    from evidently.legacy.calculations.stattests.registry import get_stattest
    from evidently.legacy.core import ColumnType

    extra = [dict(kind=kind, seed=4000 + 2 * i, n=n, m=m, scale=1.0, shift=0.0) for i, (kind, n, m) in enumerate([
        ("coin", 1500, 300), ("few", 1500, 300), ("bell", 1500, 300), ("skewed", 1001, 999), ("bell", 1000, 400), ("coin", 1000, 90), ("constant", 1500, 10)])]
    out = []
    for case in [case for i, case in enumerate(cases()) if i % 5 == 1 and case["n"] < 400] + extra:
        r, c = (pd.Series(x) for x in both(case))
        for kind, name in [(ColumnType.Numerical, "numeric"), (ColumnType.Categorical, "categorical")]:
            if kind == ColumnType.Categorical and case["kind"] not in ("few", "coin", "constant"):
                continue
            try:
                test = get_stattest(r, c, kind, None)
                got = test(r, c, kind, None)
            except ValueError:
                # scipy refuses what it cannot sum to 1e-8.
                continue
            score = float(got.drift_score)
            case[name] = dict(test=test.name, score=None if math.isnan(score) else score, threshold=float(got.actual_threshold), drifted=bool(got.drifted))
        for name, test in [("psi", stattests.psi_stat_test), ("kl", stattests.kl_div_stat_test), ("js", stattests.jensenshannon_stat_test), ("hellinger", stattests.hellinger_stat_test)]:
            score = float(test(r.copy(), c.copy(), ColumnType.Numerical, None).drift_score)
            case[name] = None if math.isnan(score) else score
        out.append(case)
    write(out)


def nannyml():
    import pandas as pd
    from nannyml.chunk import DefaultChunker
    from nannyml.drift.univariate.methods import FeatureType, MethodFactory
    from nannyml.thresholds import StandardDeviationThreshold

    def fitted(name, kind, reference):
        method = MethodFactory.create(name, kind, chunker=DefaultChunker(), threshold=StandardDeviationThreshold(std_lower_multiplier=None))
        return method.fit(pd.Series(reference, name="x"))

    extra = [dict(kind=kind, seed=6000 + 2 * i, n=n, m=m, scale=scale, shift=shift) for i, (kind, n, m, scale, shift) in enumerate([
        ("bell", 10000, 500, 1.0, 0.0), ("bell", 12345, 700, 1.5, 0.25), ("skewed", 10000, 300, 1.0, 100.0), ("uniform", 10000, 50, 0.5, -0.25)])]
    out = []
    for case in [case for i, case in enumerate(cases()) if i % 5 == 2 and 20 <= case["n"] < 4000 and case["kind"] != "constant"] + extra:
        r, c = both(case)
        for name in ["jensen_shannon", "hellinger", "kolmogorov_smirnov", "wasserstein"]:
            method = fitted(name, FeatureType.CONTINUOUS, r)
            case[name] = dict(value=float(method.calculate(pd.Series(c, name="x"))), upper=float(method.upper_threshold_value))
        if case["kind"] in ("few", "coin"):
            case["categorical"] = {}
            for name in ["jensen_shannon", "hellinger", "l_infinity", "chi2"]:
                method = fitted(name, FeatureType.CATEGORICAL, r)
                case["categorical"][name] = float(method.calculate(pd.Series(c, name="x")))
        out.append(case)
    write(out)


if __name__ == "__main__":
    {"samples": samples, "pairs": pairs, "evidently": evidently, "nannyml": nannyml}[sys.argv[1]](*sys.argv[2:])
