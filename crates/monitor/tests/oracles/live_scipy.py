#!/usr/bin/env python3
"""What scipy says of pairs of samples: reads a JSON list of [reference, live] and writes a list of its values.

    echo '[[[1, 2, 3], [2, 3, 4]]]' | python3 live_scipy.py

Ends with status 3 where scipy cannot be imported.
"""

import json
import math
import sys
import warnings

try:
    import numpy as np
    from scipy import stats
    from scipy.spatial.distance import jensenshannon
except ImportError:
    sys.exit(3)

warnings.filterwarnings("ignore")


def number(value):
    return None if math.isnan(value) else float(value)


def values(r, c):
    r, c = np.array(r, float), np.array(c, float)
    exact, asymptotic = stats.ks_2samp(r, c), stats.ks_2samp(r, c, method="asymp")
    edges = np.unique(np.quantile(r, np.arange(1, 10) / 10))
    a, b = (np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1) for x in (r, c))
    kept = (a + b) > 0
    contingency = stats.chi2_contingency(np.vstack([a[kept], b[kept]])) if kept.sum() > 1 else (0.0, 1.0)
    return dict(
        ks=number(exact.statistic), p=number(exact.pvalue), p_asymp=number(asymptotic.pvalue),
        w1=number(stats.wasserstein_distance(r, c)), ref=a.tolist(), live=b.tolist(),
        js=number(jensenshannon(a, b)), chi2=number(contingency[0]), chi2_p=number(contingency[1]),
        sturges=len(np.histogram_bin_edges(r, bins="sturges")) - 1, doane=len(np.histogram_bin_edges(r, bins="doane")) - 1,
    )


json.dump([values(r, c) for r, c in json.load(sys.stdin)], sys.stdout)
