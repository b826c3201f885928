#!/usr/bin/env python3
"""Windows over random events, by three others: exact fractions, DuckDB's RANGE windows and, where it is right, storey.

    python3 windows.py 1 2 > windows.json       # a number is a seed
    python3 windows.py --only duckdb 7          # what a test runs where DuckDB is installed

Fractions need nothing, DuckDB `pip install duckdb`, storey `pip install storey==1.14.1 packaging`.
"""

import argparse
import json
import math
import random
from fractions import Fraction

SECOND = 1_000_000
UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
NUMBERS = ["count", "sum", "sqr", "min", "max", "avg", "stdvar", "stddev", "first", "last", "distinct", "p50", "p95"]
DUCKDB_SPECS = [
    {"column": "amount", "functions": NUMBERS, "windows": ["10m", "1h"]},
    {"column": "units", "functions": ["count", "sum", "avg", "max", "last"], "windows": ["1h", "24h"]},
    {"column": "tier", "functions": ["count", "first", "last", "distinct"], "windows": ["1h"]},
    {"column": "amount", "functions": ["count", "sum", "min"], "windows": ["2h"], "where": "units > 0", "name": "some"},
    {"column": "amount", "functions": ["count", "sum", "max", "first"], "windows": ["1h", "3h", "1d"], "fixed": True, "name": "fixed"},
]
# Not `first`: storey answers with the newest bucket's when a window slides.
STOREY_SPECS = [
    {
        "column": "amount",
        "functions": ["count", "sum", "sqr", "min", "max", "avg", "stdvar", "stddev", "last"],
        "windows": ["1h", "2h", "6h"],
        "period": "10m",
    }
]


def micros(text):
    return int(text[:-1]) * UNITS[text[-1]]


def events(seed, ties):
    """Three keys; steps that hit edges of windows, gaps, ties if wanted; nulls in every column."""
    rng = random.Random(seed)
    at, out = 18_464 * UNITS["d"] + 21 * UNITS["h"], []
    for sequence in range(110):
        step = rng.choice([0, 30 * SECOND, 600 * SECOND, 3600 * SECOND, 3600 * SECOND + 1, rng.randrange(1, 900 * SECOND), rng.randrange(1, 60 * SECOND)])
        if rng.random() < 0.03:
            step = rng.randrange(3600 * SECOND, 90_000 * SECOND)
        at += step if ties else step + 1
        maybe = lambda value: value if rng.random() < 0.9 else None
        amount = maybe(rng.choice([round(rng.uniform(-500, 500), 2), rng.uniform(-1, 1) * 10 ** rng.randrange(0, 6), 12.5]))
        out.append([rng.choice("abc"), at, amount, maybe(rng.randrange(-20, 20)), maybe(rng.choice(["", "gold", "basic", "münze"])), sequence])
    return out


def fractions_case(seed):
    """Floats of every size, one correct rounding each: equal to the bit."""
    rng = random.Random(seed)
    at, rows = 0, []
    for sequence in range(60):
        at += rng.randrange(0, 1200 * SECOND)
        amount = rng.choice([rng.uniform(-1, 1) * 10.0 ** rng.randrange(-150, 150), rng.uniform(-1, 1) * 10.0 ** rng.randrange(-2, 17), 0.1, -0.1, 1e16])
        rows.append([rng.choice("ab"), at, amount, None, None, sequence])
    specs = [{"column": "amount", "functions": ["sum", "sqr", "avg", "stdvar", "stddev"], "windows": ["1h", "3h"]}]
    expected = {}
    for window in specs[0]["windows"]:
        for key, at, *_ in rows:
            inside = [Fraction(row[2]) for row in rows if row[0] == key and at - micros(window) <= row[1] <= at]
            n, total, squares = len(inside), sum(inside), sum(value * value for value in inside)
            variance = float((n * squares - total * total) / (n * (n - 1))) if n > 1 else None
            values = {
                "sum": float(total),
                "sqr": float(squares),
                "avg": float(total / n),
                "stdvar": variance,
                "stddev": None if variance is None else math.sqrt(variance),
            }
            for function, value in values.items():
                expected.setdefault(f"amount_{function}_{window}", []).append(value)
    return {"by": "fractions", "seed": seed, "specs": specs, "events": rows, "expected": expected}


def duckdb_case(seed):
    import duckdb

    rows = events(seed, ties=True)
    db = duckdb.connect()
    db.execute("CREATE TABLE events (key TEXT, event BIGINT, amount DOUBLE, units BIGINT, tier TEXT, seq BIGINT)")
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
    named = {}
    for spec in DUCKDB_SPECS:
        for function in spec["functions"]:
            for window in spec["windows"]:
                column = spec["column"]
                keep = f"{column} IS NOT NULL AND ({spec.get('where', 'true')})"
                call = {
                    "count": f"count({column})",
                    "sum": f"sum({column})",
                    "sqr": f"sum({column} * {column})",
                    "min": f"min({column})",
                    "max": f"max({column})",
                    "avg": f"avg({column})",
                    "stdvar": f"var_samp({column})",
                    "stddev": f"stddev_samp({column})",
                    "first": f"arg_min({column}, seq)",
                    "last": f"arg_max({column}, seq)",
                    "distinct": f"count(DISTINCT {column})",
                    "p50": f"quantile_disc({column}, 0.5)",
                    "p95": f"quantile_disc({column}, 0.95)",
                }[function]
                if spec.get("fixed"):
                    over = f"PARTITION BY key, event // {micros(window)} ORDER BY event RANGE UNBOUNDED PRECEDING"
                else:
                    over = f"PARTITION BY key ORDER BY event RANGE BETWEEN {micros(window)} PRECEDING AND CURRENT ROW"
                name = f"{spec.get('name', column)}_{function}_{window}"
                named[name] = f"{call} FILTER (WHERE {keep}) OVER ({over})"
    selected = ", ".join(f'{sql} AS "{name}"' for name, sql in named.items())
    found = db.execute(f"SELECT {selected} FROM events ORDER BY seq").fetchall()
    expected = {name: [plain(row[i]) for row in found] for i, name in enumerate(named)}
    return {"by": f"DuckDB {duckdb.__version__}", "seed": seed, "specs": DUCKDB_SPECS, "events": rows, "expected": expected}


def storey_case(seed):
    import datetime
    import importlib.metadata

    import storey

    rows = [row for row in events(seed, ties=False) if row[2] is not None]
    (spec,) = STOREY_SPECS
    aggregator = storey.FieldAggregator(spec["column"], spec["column"], spec["functions"], storey.dtypes.SlidingWindows(spec["windows"], spec["period"]))
    source = storey.SyncEmitSource()
    table = storey.Table("windows", storey.NoopDriver())
    collect = storey.Reduce([], lambda all, event: all + [event])
    flow = storey.build_flow([source, storey.AggregateByKey([aggregator], table, time_field="time"), collect]).run()
    for key, at, amount, *_ in rows:
        time = datetime.datetime.fromtimestamp(0, datetime.timezone.utc) + datetime.timedelta(microseconds=at)
        flow.emit({"amount": amount, "time": time}, key)
    flow.terminate()
    found = flow.await_termination()
    names = [f"amount_{function}_{window}" for function in spec["functions"] for window in spec["windows"]]
    expected = {name: [plain(event[name]) for event in found] for name in names}
    version = importlib.metadata.version("storey")
    return {"by": f"storey {version}", "seed": seed, "specs": STOREY_SPECS, "events": rows, "expected": expected}


def plain(value):
    return None if isinstance(value, float) and math.isnan(value) else value


MAKERS = {"fractions": fractions_case, "duckdb": duckdb_case, "storey": storey_case}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=list(MAKERS))
    parser.add_argument("seeds", type=int, nargs="+")
    wanted = parser.parse_args()
    cases = [make(seed) for name, make in MAKERS.items() if wanted.only in (None, name) for seed in wanted.seeds]
    print("[" + ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases) + "]")


main()
