"""Makes concept.json: where the drift detectors of river fire on streams that the tests make again.

    pip install river==0.26.1 && python concept.py

The streams use sums, products and comparisons only, so that they are the same to the last bit in any language.
A drift is an index of the stream, from 0. Warnings are indexes that warn without a drift. Of each list the file has the
first few, the length, and a digest of the whole.
"""

import json
import pathlib

import river
from river import drift

LENGTH = 4000
FIRST = 6


def uniform(seed):
    """Knuth's linear congruential generator: the upper 53 bits of its state, from 0 to 1."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield (state >> 11) / 2**53


def rate(rates, i):
    """The rate that holds at `i`, where the rates share the stream equally."""
    return rates[i * len(rates) // LENGTH]


def stream(kind, seed, p):
    u = uniform(seed)
    for i in range(LENGTH):
        a = next(u)
        ramp = min(max((i - 1000) / 2000, 0.0), 1.0)
        match kind:
            case "bernoulli":
                yield 1.0 if a < rate(p, i) else 0.0
            case "bernoulli_ramp":
                yield 1.0 if a < p[0] + (p[1] - p[0]) * ramp else 0.0
            case "bernoulli_mix":
                yield 1.0 if a < (p[1] if next(u) < ramp else p[0]) else 0.0
            case "shift":
                yield a + rate(p, i)
            case "scale":
                yield a * rate(p, i)
            case "ramp":
                yield a + p[0] * ramp
            case "squares":
                yield a * a * rate(p, i)
            case "bell":
                yield a + sum(next(u) for _ in range(11)) - 6.0 + rate(p, i)
            case "heavy":
                yield 1.0 / (a + 0.01) + rate(p, i)
            case "constant":
                yield rate(p, i)
            case "saw":
                yield i % p[0] / p[0]
            case "pattern":
                yield 1.0 if i % rate(p, i) == 0 else 0.0


STREAMS = {
    "sudden": ("shift", 12345, [0.0, 0.35]),
    "errors_rise": ("bernoulli", 12345, [0.1, 0.25]),
    "no_drift": ("shift", 1, [0.0]),
    "gradual": ("ramp", 2, [0.5]),
    "there_and_back": ("shift", 3, [0.0, 0.2, 0.0, -0.1]),
    "errors_rare": ("bernoulli", 4, [0.02]),
    "errors_half": ("bernoulli", 5, [0.5]),
    "errors_fall": ("bernoulli", 6, [0.9, 0.6]),
    "errors_rare_then_common": ("bernoulli", 7, [0.001, 0.05, 0.3, 0.02]),
    "errors_gradual": ("bernoulli_ramp", 8, [0.1, 0.4]),
    "errors_mixed": ("bernoulli_mix", 9, [0.05, 0.3]),
    "errors_never": ("constant", 0, [0.0]),
    "errors_always": ("constant", 0, [1.0]),
    "errors_begin": ("constant", 0, [0.0, 1.0]),
    "errors_end": ("constant", 0, [1.0, 0.0]),
    "errors_by_pattern": ("pattern", 0, [7, 3, 11]),
    "losses": ("squares", 10, [0.6, 0.9, 0.3]),
    "losses_of_one_value": ("constant", 0, [0.7]),
    "normal": ("bell", 11, [0.0, 0.0, 1.0, -1.0]),
    "spread": ("scale", 12, [1.0, 4.0]),
    "negative": ("shift", 13, [-5.0, -8.0]),
    "negative_constant": ("constant", 0, [-3.0]),
    "heavy_tail": ("heavy", 14, [0.0, 3.0]),
    "sudden_large": ("scale", 15, [1e6, 1.2e6]),
    "sudden_small": ("scale", 16, [1e-6, 2e-6]),
    "saw": ("saw", 0, [500]),
    "steps": ("constant", 0, [0.1, 0.4, 0.2, 0.9, 0.0]),
}

DETECTORS = {
    "adwin": (
        drift.ADWIN,
        [
            {},
            {"delta": 0.05},
            {"delta": 0.3, "clock": 1},
            {"delta": 0.9, "clock": 1, "max_buckets": 2, "min_window_length": 1, "grace_period": 0},
            {"delta": 1e-6, "clock": 7, "max_buckets": 2},
            {"delta": 0.1, "clock": 16, "max_buckets": 20, "min_window_length": 40, "grace_period": 300},
        ],
    ),
    "page_hinkley": (
        drift.PageHinkley,
        [
            {},
            {"threshold": 10.0},
            {"min_instances": 5, "delta": 0.0, "threshold": 5.0, "alpha": 1.0, "mode": "up"},
            {"min_instances": 5, "delta": 0.0, "threshold": 5.0, "alpha": 1.0, "mode": "down"},
            {"min_instances": 100, "delta": 0.1, "threshold": 2.0, "alpha": 0.99, "mode": "both"},
            {"min_instances": 0, "delta": 0.01, "threshold": 0.5, "alpha": 0.9},
        ],
    ),
    "ddm": (
        drift.binary.DDM,
        [
            {},
            {"warm_start": 10, "warning_threshold": 1.5, "drift_threshold": 2.0},
            {"warm_start": 200, "warning_threshold": 2.5, "drift_threshold": 4.0},
            {"warm_start": 0, "warning_threshold": 1.0, "drift_threshold": 6.0},
        ],
    ),
    "eddm": (
        drift.binary.EDDM,
        [
            {},
            {"warm_start": 10, "alpha": 0.99, "beta": 0.95},
            {"warm_start": 60, "alpha": 0.9, "beta": 0.7},
            {"warm_start": 0, "alpha": 1.0, "beta": 0.5},
        ],
    ),
    "hddm_a": (
        drift.binary.HDDMA,
        [
            {},
            {"two_sided_test": True},
            {"drift_confidence": 0.05, "warning_confidence": 0.1},
            {"drift_confidence": 1e-6, "warning_confidence": 0.01, "two_sided_test": True},
        ],
    ),
    "hddm_w": (
        drift.binary.HDDMW,
        [
            {},
            {"two_sided_test": True},
            {"lambda": 0.01, "drift_confidence": 0.01, "warning_confidence": 0.1},
            {"lambda": 0.3, "drift_confidence": 0.0001, "warning_confidence": 0.02, "two_sided_test": True},
            {"lambda": 0.1, "drift_confidence": 0.2, "warning_confidence": 0.5, "two_sided_test": True},
        ],
    ),
}


def indexes(found):
    digest = 0
    for index in found:
        digest = (digest * 1000003 + index) % 2**64
    return {"first": found[:FIRST], "count": len(found), "digest": digest}


def fire(make, parameters, values):
    parameters = dict(parameters)
    if "lambda" in parameters:
        parameters["lambda_val"] = parameters.pop("lambda")
    detector = make(**parameters)
    drifts, warnings = [], []
    for i, value in enumerate(values):
        # The detectors of errors are annotated with `bool`, but count what they are given.
        detector.update(value)
        if detector.drift_detected:
            drifts.append(i)
        elif getattr(detector, "warning_detected", False):
            warnings.append(i)
    found = {"drifts": indexes(drifts), "warnings": indexes(warnings)}
    if make is drift.ADWIN:
        found["window"] = [int(detector.width), detector.total, detector.variance]
    return found


def main():
    streams, cases = {}, []
    for name, (kind, seed, p) in STREAMS.items():
        values = list(stream(kind, seed, p))
        total = 0.0
        for value in values:
            total += value
        streams[name] = {"kind": kind, "seed": seed, "p": p, "sum": total, "last": values[-1]}
        shares = all(0 <= value <= 1 for value in values)
        for detector, (make, choices) in DETECTORS.items():
            if detector == "ddm" and not shares:
                continue
            for parameters in choices:
                found = fire(make, parameters, values)
                cases.append({"stream": name, "settings": {detector: parameters}} | found)
    out = {"river": river.__version__, "length": LENGTH, "streams": streams, "cases": cases}
    lines = json.dumps(out).replace('{"stream"', '\n{"stream"').replace('": {"kind"', '":\n{"kind"')
    pathlib.Path(__file__).with_suffix(".json").write_text(lines + "\n")


if __name__ == "__main__":
    main()
