"""The fraud example over the Open Inference Protocol beside a server of it written by hand, for oip_peers.py.

The server takes `--port PORT --threads 2` and answers `POST /score` as the example's graph `fraud` answers one row; more it does not
take. It and Millstream are up at the same time with two threads each, and take turns: in each round everything is measured once, and a
ratio is the median of those of the rounds. Before, the answers for a hundred rows are compared, over each protocol. Where the server
loads ONNX Runtime by ORT_DYLIB_PATH, it gets ours."""

import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from oip_load import BINARY, CONNECTIONS, PROTOCOLS, ROOT, ROWS, answered, bodies, free_port, load, once_up, posted, start, stop, table

EXAMPLE = ROOT / "examples/fraud"
# The inputs of the example's graph, in its order.
DATATYPES = {"txn_id": "BYTES", "card_id": "INT64", "amount": "FP64", "category": "BYTES", "country": "BYTES", "ts": "INT64"}
DATATYPES |= dict.fromkeys(["merchant_id", "channel", "currency", "device"], "BYTES")
JSON = {"content-type": "application/json"}
HAND = ("hand", 1)


def beside(hand, seconds, rounds):
    """Measures Millstream and the server `hand` in turns, and prints what each takes."""
    requests = [json.loads(line) for line in (EXAMPLE / "data/requests.jsonl").read_text().splitlines()][:100]
    with tempfile.TemporaryDirectory() as folder:
        folder, port, hands = Path(folder), free_port(), free_port()
        shutil.copytree(EXAMPLE, folder / "fraud")
        serve = [BINARY, "serve", folder / "fraud", "--bind", f"127.0.0.1:{port}", "--threads", "2", "--drain-delay-s", "0"]
        found = next(iter(sorted(ROOT.glob(".onnxruntime/libonnxruntime.so*"))), "")
        runtime = {"ORT_DYLIB_PATH": os.environ.get("ORT_DYLIB_PATH", str(found))}
        ours, theirs = start(serve, {}), start([hand.resolve(), "--port", hands, "--threads", "2"], runtime)
        try:
            score = f"http://127.0.0.1:{hands}/score"
            expected = [once_up(theirs, lambda row=row: by_hand(score, row)) for row in requests]
            if None in expected:
                sys.exit(f"{hand} does not answer")
            # What is measured, by protocol and rows: the server, and what `load` takes of a request to it.
            alone = folder / "hand"
            alone.write_bytes(compact(requests[0]))
            kinds = {HAND: (theirs, "json", score, alone, JSON)}
            for rows in ROWS:
                for protocol, (body, headers) in asked(requests[:rows], folder).items():
                    kinds[protocol, rows] = (ours, protocol, place(port, protocol), body, headers)
            _, *first = kinds["json", 1]
            if once_up(ours, lambda: answered(*first)) is None:
                sys.exit(f"{BINARY} does not answer")
            for rows in (*ROWS, len(requests)):
                for protocol, (body, headers) in asked(requests[:rows], folder).items():
                    same(protocol, answered(protocol, place(port, protocol), body, headers), expected[:rows])
            cells = in_turns(kinds, seconds, rounds, folder)
        finally:
            stop(ours)
            stop(theirs)
    tell(cells, rounds)


def compact(request):
    return json.dumps(request, separators=(",", ":")).encode()


def by_hand(score, request):
    return json.loads(posted(score, compact(request), JSON)[0])


def place(port, protocol):
    path = "inference.GRPCInferenceService/ModelInfer" if protocol == "grpc" else "v2/models/fraud/infer"
    return f"http://127.0.0.1:{port}/{path}"


def asked(requests, folder):
    rows = [len(requests)]
    return bodies("fraud", [(name, kind, rows, [row[name] for row in requests]) for name, kind in DATATYPES.items()], [], folder)


def same(protocol, got, expected):
    """Stops if a row has another score or decision here than there."""
    assert got["decision"] == [row["decision"] for row in expected], f"other decisions over {protocol}"
    apart = max(abs(mine - row["score"]) for mine, row in zip(got["score"], expected, strict=True))
    assert apart < 1e-5, f"other scores over {protocol}: {apart}"
    print(f"{protocol}, {len(expected)} rows: the same decisions, and scores no further apart than {apart:.1g}", file=sys.stderr)


def in_turns(kinds, seconds, rounds, folder):
    """The median, requests per second and processor time per request of each kind at each number of connections, round by round.

    A kind some of whose requests fail is not in it."""
    cells = {}
    for connections in CONNECTIONS:
        failed = set()
        for turn in range(rounds):
            for kind, (process, protocol, *request) in kinds.items():
                if kind in failed:
                    continue
                try:
                    if turn == 0:
                        load(protocol)(*request, connections, 1, folder)
                    before = worked(process)
                    median, rate = load(protocol)(*request, connections, seconds, folder)
                except AssertionError as told:
                    print(*kind, connections, "failed:", told, file=sys.stderr)
                    failed.add(kind)
                    cells.pop((*kind, connections), None)
                    continue
                cell = (median, rate, (worked(process) - before) * 1e6 / (rate * seconds))
                cells.setdefault((*kind, connections), []).append(cell)
                print(*kind, connections, *(f"{value:,.1f}" for value in cell), file=sys.stderr)
    return cells


def worked(process):
    """Seconds of processor time that a server has taken so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tell(cells, rounds):
    middle = lambda rows: [statistics.median(column) for column in zip(*rows)]
    text = lambda cell: f"{cell[0]:,.0f} us, {cell[1]:,.0f}/s, {cell[2]:,.0f} us"
    lines = []
    for protocol in PROTOCOLS:
        for rows in ROWS:
            for connections in CONNECTIONS:
                ours, theirs = cells.get((protocol, rows, connections)), cells.get((*HAND, connections))
                line = [protocol, rows, connections, text(middle(ours)) if ours else ""]
                if rows == 1 and ours and theirs:
                    ratios = middle([[mine / other for mine, other in zip(*pair)] for pair in zip(ours, theirs)])
                    line += [text(middle(theirs)), *(f"{ratio:.2f}" for ratio in ratios)]
                lines.append(line + [""] * (8 - len(line)))
    print(f"Median, requests per second, and processor time per request of the server; medians of {rounds} rounds. `hand` takes its own JSON")
    print("and one row, so requests of 32 rows have nothing beside them. gRPC is asked by h2load, all else by wrk.\n")
    table(["protocol", "rows", "connections", "Millstream", "hand", "median", "requests/s", "processor time"], lines)
