#!/usr/bin/env python3
"""The feature store beside Feast, storey, DuckDB and pandas: the same data, the same answers, one after the other.

  scripts/store_peers.py [--quick] [--only reads,writes,windows,join,in_memory]

Packages go below target/peers, data below target/peers-data. A Redis for Feast is started where the system has `redis-server`. Every
peer runs in a process of its own; its answers must equal ours. Prints a table in Markdown."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "target/peers-data"
PACKAGES = {
    "feast": ["feast[redis]==0.67.0"],
    "storey": ["storey==1.14.1", "packaging"],
    "tables": ["duckdb==2.0.1", "pandas==3.1.1", "pyarrow==26.0.1"],
}
# Of the events, in the order of time.
PEER_EVENTS = 60_000
START = 1_700_000_000_000_000


def install(name):
    """The folder of a peer's packages."""
    folder = ROOT / "target/peers" / name
    mark = folder / "packages"
    if not mark.exists() or mark.read_text() != str(PACKAGES[name]):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]
        subprocess.run([*pip, "--no-warn-conflicts", "--upgrade", "--target", folder, *PACKAGES[name]], check=True)
        mark.write_text(str(PACKAGES[name]))
    return folder


def python(peer, what, *arguments):
    """Runs a measurement of this file with the packages of a peer, and answers what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(install(peer)), "FEAST_USAGE": "False"}
    command = [sys.executable, __file__, "--measure", what, *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(what):
    command = ["cargo", "bench", "--quiet", "--bench", "stores", "--", what, str(DATA)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def generate(quick):
    """The data, the same on every machine."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    DATA.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    scale = 10 if quick else 1
    rows = 100_000 // scale
    columns = {"id": np.arange(rows)}
    columns |= {f"f{at}": random.random(rows) for at in range(50)}
    pq.write_table(pa.table(columns), DATA / "entities.parquet")
    # Forty events an hour for each of a thousand keys, in order: peers are right in no other.
    events = 1_000_000 // scale
    columns = {"id": random.integers(0, 1000, events), "at": START + np.arange(events) * 90_000}
    pq.write_table(pa.table({**columns, "amount": random.integers(1, 100_000, events) / 4}), DATA / "events.parquet")
    log, spine, keys = 10_000_000 // scale, 1_000_000 // scale, 200_000 // scale
    columns = {"id": random.integers(0, keys, log), "event": START + np.arange(log) * 1000}
    columns |= {name: random.random(log) for name in "abc"}
    pq.write_table(pa.table(columns), DATA / "log.parquet", compression="zstd")
    columns = {"id": random.integers(0, keys, spine), "at": START + random.integers(0, log * 1000, spine)}
    pq.write_table(pa.table(columns), DATA / "spine.parquet", compression="zstd")


def feast_store(online):
    """A Feast store with the view `entities`, and its rows."""
    import tempfile
    from datetime import datetime, timedelta, timezone

    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    rows = pd.read_parquet(DATA / "entities.parquet")
    rows["event_timestamp"] = datetime.now(timezone.utc) - timedelta(hours=1)
    folder = tempfile.mkdtemp(dir=DATA)
    rows.iloc[:10].to_parquet(f"{folder}/source.parquet")
    online = {"type": "sqlite", "path": f"{folder}/online.db"} if online == "sqlite" else {"type": "redis", "connection_string": online}
    config = RepoConfig(project="peers", provider="local", registry=f"{folder}/registry.db", online_store=online,
                        offline_store={"type": "file"}, entity_key_serialization_version=3)
    store = FeatureStore(config=config)
    names = [name for name in rows.columns if name.startswith("f")]
    entity = Entity(name="entity", join_keys=["id"], value_type=ValueType.INT64)
    schema = [Field(name="id", dtype=Int64)] + [Field(name=name, dtype=Float64) for name in names]
    source = FileSource(path=f"{folder}/source.parquet", timestamp_field="event_timestamp")
    store.apply([entity, FeatureView(name="entities", entities=[entity], ttl=timedelta(days=3650), schema=schema, source=source)])
    return store, rows, [f"entities:{name}" for name in names]


def measure_feast(online):
    store, rows, features = feast_store(online)
    count = min(len(rows), 20_000)
    start = time.perf_counter()
    for first in range(0, count, 1000):
        store.write_to_online_store("entities", rows.iloc[first:first + 1000])
    measured = {"batched": count / (time.perf_counter() - start)}
    start = time.perf_counter()
    for row in range(50):
        store.write_to_online_store("entities", rows.iloc[row:row + 1])
    measured["single"] = 50 / (time.perf_counter() - start)
    for keys in (1, 100):
        took = []
        for i in range(220):
            asked = [{"id": (i * 7919 + j * 104_729) % count} for j in range(keys)]
            start = time.perf_counter_ns()
            store.get_online_features(features=features, entity_rows=asked).to_dict()
            took.append(time.perf_counter_ns() - start)
        took = sorted(took[20:])
        measured[str(keys)] = [took[len(took) // 2] / 1e3, took[len(took) * 99 // 100] / 1e3]
    found = store.get_online_features(features=features, entity_rows=[{"id": id} for id in range(1000)]).to_dict()
    measured["sum"] = sum(sum(found[name.split(":")[1]]) for name in features)
    return measured


def measure_storey():
    from datetime import datetime, timezone

    import pyarrow.parquet as pq
    from storey import AggregateByKey, FieldAggregator, NoopDriver, Reduce, SyncEmitSource, Table, build_flow
    from storey.dtypes import SlidingWindows

    events = pq.read_table(DATA / "events.parquet").slice(0, PEER_EVENTS).to_pydict()
    aggregator = FieldAggregator("amount", "amount", ["count", "sum"], SlidingWindows(["1h", "24h"], "10m"))

    def last(found, event):
        if event["id"] == 7:
            found = event
        return found

    flow = build_flow([SyncEmitSource(), AggregateByKey([aggregator], Table("peers", NoopDriver()), time_field="at"), Reduce(None, last)]).run()
    rows = [{"id": id, "amount": amount, "at": datetime.fromtimestamp(at / 1e6, timezone.utc)}
            for id, amount, at in zip(events["id"], events["amount"], events["at"])]
    start = time.perf_counter()
    for row in rows:
        flow.emit(row, key=str(row["id"]))
    flow.terminate()
    found = flow.await_termination()
    rate = len(rows) / (time.perf_counter() - start)
    return {"events_per_second": rate, "key_7": {name: found[name] for name in found if name.startswith("amount_")}}


def measure_duckdb():
    import duckdb

    measured = {}
    for name, threads in (("one", 1), ("all", os.cpu_count())):
        con = duckdb.connect(config={"threads": threads})
        took = []
        for _ in range(3):
            start = time.perf_counter()
            joined = con.sql(
                f"SELECT spine.*, a, b, c FROM '{DATA}/spine.parquet' AS spine ASOF LEFT JOIN '{DATA}/log.parquet' AS log "
                "ON spine.id = log.id AND spine.at >= log.event").to_arrow_table()
            took.append(time.perf_counter() - start)
        measured[name] = sorted(took)[1]
    import pyarrow.compute as pc

    return {**measured, "sum": pc.sum(joined["a"]).as_py(), "rows": joined.num_rows}


def measure_pandas():
    import pandas as pd

    took = []
    for _ in range(3):
        start = time.perf_counter()
        spine = pd.read_parquet(DATA / "spine.parquet").sort_values("at")
        log = pd.read_parquet(DATA / "log.parquet")
        joined = pd.merge_asof(spine, log, left_on="at", right_on="event", by="id")
        took.append(time.perf_counter() - start)
    return {"one": sorted(took)[1], "sum": float(joined["a"].sum()), "rows": len(joined)}


def measure_duckdb_in_memory():
    import duckdb

    con = duckdb.connect(config={"threads": 1})
    for table in ("log", "spine"):
        con.execute(f"CREATE TABLE {table} AS SELECT * FROM '{DATA}/{table}.parquet'")
    took = []
    for _ in range(3):
        start = time.perf_counter()
        joined = con.sql("SELECT spine.*, a, b, c FROM spine ASOF LEFT JOIN log ON spine.id = log.id AND spine.at >= log.event").to_arrow_table()
        took.append(time.perf_counter() - start)
    import pyarrow.compute as pc

    return {"one": sorted(took)[1], "sum": pc.sum(joined["a"]).as_py(), "rows": joined.num_rows}


def measure_pandas_in_memory():
    import pandas as pd

    spine, log = pd.read_parquet(DATA / "spine.parquet"), pd.read_parquet(DATA / "log.parquet")
    took = []
    for _ in range(3):
        start = time.perf_counter()
        joined = pd.merge_asof(spine.sort_values("at"), log, left_on="at", right_on="event", by="id")
        took.append(time.perf_counter() - start)
    return {"one": sorted(took)[1], "sum": float(joined["a"].sum()), "rows": len(joined)}


class Redis:
    """A server on a free port, for as long as the block runs."""

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return f"127.0.0.1:{port}"
            except OSError:
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.kill()


def close(left, right):
    return abs(left - right) <= 1e-9 * max(abs(left), abs(right))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--only", default="reads,writes,windows,join,in_memory")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, *rest = arguments.measure
        print(json.dumps(globals()[f"measure_{what}"](*rest)))
        return
    sys.path.insert(0, str(install("tables")))
    generate(arguments.quick)
    only = arguments.only.split(",")
    print("| what | Millstream | peer | ratio |\n|---|---|---|---|")
    if {"reads", "writes"} & set(only):
        mine, written = ours("reads"), ours("writes")
        for keys in ("1", "100"):
            (p50, p99), (hand50, hand99) = mine[keys], mine["by hand"][keys]
            print(f"| {keys} x 50 features, p50 / p99 us, a map and copies by hand | {p50:.1f} / {p99:.1f} | {hand50:.1f} / {hand99:.1f} | {hand50 / p50:.2f} |")
        stores = {"Feast, SQLite": python("feast", "feast", "sqlite")}
        with Redis() as address:
            stores["Feast, Redis"] = python("feast", "feast", address)
        for name, peer in stores.items():
            assert close(mine["sum"], peer["sum"]), (name, mine["sum"], peer["sum"])
            for keys in ("1", "100"):
                (p50, p99), (peer50, peer99) = mine[keys], peer[keys]
                print(f"| {keys} x 50 features, p50 / p99 us, {name} | {p50:.1f} / {p99:.1f} | {peer50:.0f} / {peer99:.0f} | {peer50 / p50:.0f} |")
            for mode in ("batched", "single"):
                rate = written["always"][mode]
                print(f"| rows/s {mode}, {name} | {rate:.0f} | {peer[mode]:.0f} | {rate / peer[mode]:.0f} |")
        for mode in ("always", "every 5 ms", "system"):
            row = written[mode]
            recovery = row["recovery_seconds"] * 1e6 / written["rows"]
            print(f"| `{mode}`: rows/s batched, single; recovery s and memory MB per million rows | {row['batched']:.0f}, {row['single']:.0f}; "
                  f"{recovery:.2f}, {row['bytes_per_row']:.0f} | | |")
    if "windows" in only:
        mine, peer = ours("windows"), python("storey", "storey")
        # Within a day nothing leaves the windows of a day; hours the peer rounds to ten minutes.
        for name in ("amount_count_24h", "amount_sum_24h"):
            assert close(mine["key_7"][name], peer["key_7"][name]), (name, mine, peer)
        rates = mine["events_per_second"], peer["events_per_second"]
        print(f"| windows, events/s, storey | {rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.0f} |")
    for kind, ending in (("join", ""), ("in_memory", "_in_memory")):
        if kind not in only:
            continue
        mine = ours(kind)
        for name in (f"duckdb{ending}", f"pandas{ending}"):
            peer = python("tables", name)
            assert close(mine["sum"], peer["sum"]) and mine["rows"] == peer["rows"], (name, mine, peer)
            for cores in ("one", "all"):
                if cores in peer:
                    print(f"| {mine['rows']} spine rows, seconds, {cores} of the cores, {name} | {mine[cores]:.2f} | {peer[cores]:.2f} | {peer[cores] / mine[cores]:.1f} |")


if __name__ == "__main__":
    main()
