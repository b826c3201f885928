#!/usr/bin/env python3
"""Drift of a large file beside Evidently and whylogs: the same two Parquet files, each to a report in HTML, one after the other.

  cargo build --release
  scripts/monitor_peers.py [--rows 1000000] [--peer-rows N] [--only millstream,evidently,whylogs] [--runs 3] [--timeout 1800]

40 numeric columns and 10 of categories, of which every fourth has drifted. Packages and data go below target/monitor-peers; data that is
there is used again. Each measurement is a process of its own, whose wall time, processor time and memory are the system's. A peer that
takes longer than the timeout, or that the system ends for its memory, is given a tenth of the rows, and so is Millstream: a ratio is
always of the same rows. Each tool judges by its own measures and thresholds. Millstream's time is the median of some runs, a peer's is
one. Prints a table in Markdown."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "target/monitor-peers"
PACKAGES = {
    "tables": ["numpy==2.4.6", "pyarrow==26.0.1"],
    "evidently": ["evidently==0.7.23", "numpy==2.4.6", "pandas==2.3.3", "pyarrow==26.0.1"],
    # It is older than NumPy 2.
    "whylogs": ["whylogs[viz]==1.6.4", "numpy==1.26.4", "pandas==2.2.3", "pyarrow==17.0.0", "scipy==1.13.1", "ipython==8.37.0"],
}
QUIET = {"DO_NOT_TRACK": "1", "WHYLOGS_NO_ANALYTICS": "True"}
NUMERIC, CATEGORICAL, GROUP = 40, 10, 100_000
NUMBERS = [f"n{at:02}" for at in range(NUMERIC)]
CATEGORIES = [f"c{at}" for at in range(CATEGORICAL)]
DRIFTED = {name for at, name in enumerate(NUMBERS + CATEGORIES) if at % 4 == 3}
# Fewer say nothing about a large file.
FEWEST = 10_000


def install(name):
    """The folder of a peer's packages."""
    folder = FOLDER / name
    mark = folder / "packages"
    if not mark.exists() or mark.read_text() != str(PACKAGES[name]):
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
        subprocess.run([*pip, "--no-warn-conflicts", "--target", folder, *PACKAGES[name]], check=True)
        mark.write_text(str(PACKAGES[name]))
    return folder


# What is run in a process of its own. Each prints one line: the columns that it says have drifted, and the seconds of its work.


def measure_generate(rows, folder):
    """Both files, in groups of rows, so that one group is all that is in memory. The same on every machine."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    def numbers(random, at, count):
        kinds = [
            lambda: random.normal(100, 15, count),
            lambda: random.lognormal(3, 1, count),
            lambda: random.exponential(20, count),
            lambda: random.uniform(-1, 1, count),
            lambda: random.gamma(2, 5, count),
            lambda: random.poisson(30, count),
            lambda: np.where(random.random(count) < 0.3, random.normal(-4, 1, count), random.normal(4, 1, count)),
            lambda: np.where(random.random(count) < 0.4, 0.0, random.exponential(3, count)),
            lambda: random.beta(2, 5, count),
            lambda: random.standard_t(6, count),
        ]
        return kinds[at % len(kinds)]()

    def group(random, count, drifts):
        columns = {}
        for at, name in enumerate(NUMBERS):
            values = numbers(random, at, count)
            if drifts and name in DRIFTED:
                values = values + values.dtype.type(values.std() * 0.5)
            # Every fifth column has nulls.
            columns[name] = pa.array(values, mask=random.random(count) < 0.02 if at % 5 == 4 else None)
        for at, name in enumerate(CATEGORIES):
            kinds = (3, 5, 8, 12, 20, 30, 50, 80, 120, 200)[at % 10]
            shares = 1 / np.arange(1, kinds + 1)
            if drifts and name in DRIFTED:
                shares = shares[::-1]
            codes = random.choice(kinds, count, p=shares / shares.sum())
            columns[name] = pa.array([f"{name}_{kind:03}" for kind in range(kinds)]).take(pa.array(codes))
        return pa.table(columns)

    for side, name in enumerate(("reference", "current")):
        writer = None
        for start in range(0, int(rows), GROUP):
            random = np.random.default_rng([side, start])
            table = group(random, min(GROUP, int(rows) - start), drifts=side == 1)
            writer = writer or pq.ParquetWriter(f"{folder}/{name}.parquet", table.schema, compression="zstd")
            writer.write_table(table, row_group_size=GROUP)
        writer.close()


def measure_evidently(reference, current, out):
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    start = time.perf_counter()
    definition = DataDefinition(numerical_columns=NUMBERS, categorical_columns=CATEGORIES)
    sides = [Dataset.from_pandas(pd.read_parquet(path), data_definition=definition) for path in (current, reference)]
    told = Report([DataDriftPreset()]).run(*sides)
    told.save_html(out)
    seconds = time.perf_counter() - start
    # Of so many rows every measure is a distance.
    columns = [metric for metric in told.dict()["metrics"] if "column" in metric["config"]]
    drifted = [metric["config"]["column"] for metric in columns if metric["value"] >= metric["config"]["threshold"]]
    return {"drifted": drifted, "seconds": seconds}


def measure_whylogs(reference, current, out):
    import pyarrow.parquet as pq
    import whylogs as why
    from whylogs.viz import NotebookProfileVisualizer
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

    start = time.perf_counter()

    def profiled(path):
        # In parts, as its profiles are made for: the file need not fit into memory.
        profile = None
        for batch in pq.ParquetFile(path).iter_batches(GROUP):
            if profile is None:
                profile = why.log(pandas=batch.to_pandas()).profile()
            else:
                profile.track(batch.to_pandas())
        return profile.view()

    sides = {"target_profile_view": profiled(current), "reference_profile_view": profiled(reference)}
    shown = NotebookProfileVisualizer()
    shown.set_profiles(**sides)
    Path(out).write_text(shown.summary_drift_report().data)
    seconds = time.perf_counter() - start
    scores = calculate_drift_scores(target_view=sides["target_profile_view"], reference_view=sides["reference_profile_view"], with_thresholds=True)
    drifted = [name for name, score in scores.items() if score and score["drift_category"] == "DRIFT"]
    return {"drifted": drifted, "seconds": seconds}


# Measuring.


def run(command, environment, timeout):
    """Wall time, processor time, the most memory in MiB and the last line of what a process prints; none if it does not end well."""

    def first_to_go():
        """When memory runs out, the system ends this process rather than another."""
        os.setpgid(0, 0)
        Path("/proc/self/oom_score_adj").write_text("1000")

    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, env={**os.environ, **QUIET, **environment},
                               text=True, preexec_fn=first_to_go, cwd=FOLDER)
    late = threading.Timer(timeout, lambda: os.killpg(process.pid, signal.SIGKILL))
    late.start()
    try:
        told = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        late.cancel()
        os.killpg(process.pid, signal.SIGKILL)
        raise
    wall = time.perf_counter() - start
    late.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        print(f"{command[-4:]} ended with {process.returncode} after {wall:.0f} s", file=sys.stderr)
        return None
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss / 1024, "told": told}


def python(packages, what, arguments, timeout):
    command = [sys.executable, __file__, "--measure", what, *map(str, arguments)]
    return run(command, {"PYTHONPATH": str(install(packages))}, timeout)


def data(rows):
    """The two files of so many rows, in the system's cache as far as they fit."""
    folder = FOLDER / f"data-{rows}"
    files = [folder / "reference.parquet", folder / "current.parquet"]
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if python("tables", "generate", [rows, folder], 7200) is None:
            sys.exit(f"{rows} rows could not be made")
        (folder / "whole").touch()
    for path in files:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
    return files


def millstream(binary, rows, runs, timeout):
    measured = []
    for _ in range(runs):
        reference, current = data(rows)
        page, told = FOLDER / "millstream.html", FOLDER / "millstream.json"
        done = run([binary, "monitor", "compare", reference, current, "--html", page, "--json", told], {}, timeout)
        if done is None:
            sys.exit("millstream did not compare the files")
        measured.append(done)
    columns = [column for edge in json.loads(told.read_text())["edges"] for column in edge["columns"]]
    drifted = [column["column"] for column in columns if column["drifted"]]
    middle = {name: median(done[name] for done in measured) for name in ("wall", "cpu", "memory")}
    return {**middle, "work": middle["wall"], "drifted": drifted}


def peer(name, rows, timeout):
    """What it takes for so many rows, or for fewer if it does not end with those."""
    while rows >= FEWEST:
        done = python(name, name, [*data(rows), FOLDER / f"{name}.html"], timeout)
        if done:
            told = json.loads(done["told"].splitlines()[-1])
            return rows, {**done, "work": told["seconds"], "drifted": told["drifted"]}
        rows //= 10
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/millstream")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, help="what peers begin with; by default as many")
    parser.add_argument("--only", default="millstream,evidently,whylogs")
    parser.add_argument("--runs", type=int, default=3, help="of Millstream")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds that one process may take")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        what, *rest = args.measure
        print(json.dumps(globals()[f"measure_{what}"](*rest)))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    print("| rows | tool | s | without its start | processor s | memory, MiB | drifted columns found, others said to be | times as long, as much processor time, memory |")
    print("|---" * 8 + "|")
    made = {}

    def ours(rows):
        if rows not in made:
            made[rows] = millstream(args.binary, rows, args.runs, args.timeout)
            show(rows, "Millstream", made[rows])
        return made[rows]

    def show(rows, name, cell, mine=None):
        ratios = ", ".join(f"{cell[of] / mine[of]:.1f}" for of in ("wall", "cpu", "memory")) if mine else ""
        found = set(cell["drifted"])
        judged = f"{len(found & DRIFTED)} of {len(DRIFTED)}, {len(found - DRIFTED)}"
        print(f"| {rows:,} | {name} | {cell['wall']:.2f} | {cell['work']:.2f} | {cell['cpu']:.2f} | {cell['memory']:,.0f} "
              f"| {judged} | {ratios} |", flush=True)

    ours(args.rows)
    for name in args.only.split(","):
        if name == "millstream":
            continue
        found = peer(name, args.peer_rows or args.rows, args.timeout)
        if found is None:
            print(f"| {FEWEST:,} | {name} | did not end | | | | | |", flush=True)
            continue
        rows, cell = found
        show(rows, name, cell, ours(rows))


if __name__ == "__main__":
    main()
