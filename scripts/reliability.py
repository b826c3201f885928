#!/usr/bin/env python3
"""Puts a served project under more than it can take, or under load for long, and says what happened.

    cargo build --release
    python3 scripts/reliability.py overload        # three times the load that a graph can take, for 60 s
    python3 scripts/reliability.py soak            # ten minutes of load, reloads, bad requests and callers that go

Everything runs on this machine, the load generator too. `docs/reliability.md` has what was measured.
"""
import argparse
import atexit
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/millstream"
TOKEN = "reliability-of-millstream"

# A model that goes round as often as its input says: a request costs what the test wants.
HEAVY = """
name: reliability
models:
  rounds: { path: rounds.onnx }
graphs:
  heavy:
    input: { rounds: float32 }
    steps:
      answer: { model: { use: rounds, inputs: { x: [rounds] }, outputs: { y: y } } }
    respond: answer
"""


class Served:
    """A `millstream serve`, and what it holds."""

    def __init__(self, project, *flags):
        self.port, self.admin = free_port(), free_port()
        command = [BINARY, "serve", project, "--bind", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"]
        environment = {**os.environ, "MILLSTREAM_ADMIN_TOKEN": TOKEN, "RUST_LOG": "error"}
        self.process = subprocess.Popen([*map(str, command), *flags], env=environment)
        # Whatever goes wrong here, no server is left behind.
        atexit.register(self.process.kill)
        until(lambda: self.get("/readyz") == 200)

    def get(self, path):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None

    def url(self, graph):
        return f"http://127.0.0.1:{self.port}/v1/graphs/{graph}"

    def reload(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        connection.request("POST", "/admin/reload", headers={"authorization": f"Bearer {TOKEN}"})
        return json.load(connection.getresponse())["outcome"]

    def memory(self):
        """Resident now and at most, in MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        of = lambda key: int(next(line for line in status.splitlines() if line.startswith(key)).split()[1]) / 1024
        return of("VmRSS"), of("VmHWM")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(done, seconds=30):
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            sys.exit("the server is not ready")
        time.sleep(0.05)


def bench(url, bodies, rate, seconds, connections, svg=None):
    command = [BINARY, "bench", url, "--bodies", bodies, "--rate", str(rate), "--seconds", str(seconds)]
    command += ["--connections", str(connections), "--output", "json"] + (["--svg", svg] if svg else [])
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def goodput(report, seconds):
    return sum(count for status, count in report["statuses"].items() if status.startswith("2")) / seconds


def ms(report, which, percentile):
    return report[which]["us"][f"p{percentile}"] / 1000


def overload(args):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "millstream.yaml").write_text(HEAVY)
        shutil.copy(ROOT / "crates/models/tests/data/rounds.onnx", folder)
        bodies = folder / "bodies.jsonl"
        bodies.write_text(json.dumps({"rounds": args.rounds}) + "\n")
        # Requests that share a run of this model cost hardly more than one: then this machine could not send three times too many.
        served = Served(folder, "--deadline-ms", str(args.deadline_ms), "--shared-rows", "1")
        url = served.url("heavy")
        peak, rate = 0, 50
        while rate < 1.5 * peak or not peak:
            peak = max(peak, goodput(bench(url, bodies, rate, 4, args.connections), 4))
            rate *= 1.25
        before = served.memory()[1]
        report = bench(url, bodies, 3 * peak, args.seconds, args.connections, args.svg)
        after = served.memory()[1]
        good = goodput(report, args.seconds)
        print(f"peak goodput                {peak:9.0f} requests/s")
        print(f"offered                     {3 * peak:9.0f} requests/s for {args.seconds} s")
        print(f"goodput                     {good:9.0f} requests/s  {good / peak:.2f} x peak")
        print(f"accepted p50 / p99          {ms(report, 'accepted', 50):.1f} / {ms(report, 'accepted', 99):.1f} ms, deadline {args.deadline_ms} ms")
        print(f"refused p50 / p99           {ms(report, 'refused', 50):.2f} / {ms(report, 'refused', 99):.2f} ms")
        print(f"statuses                    {report['statuses']}, without an answer {report['failed']}")
        print(f"memory at most              {after:.0f} MiB, {after / before:.2f} x before")
        print(f"stopped with                {served.stop()}")


def soak(args):
    with tempfile.TemporaryDirectory() as folder:
        project = pathlib.Path(folder) / "fraud"
        shutil.copytree(ROOT / "examples/fraud", project)
        served = Served(project)
        url, bodies = served.url("fraud"), project / "data/requests.jsonl"
        ended = threading.Event()

        def disturb():
            """Reloads, bodies that are no JSON, unknown routes, and callers that go in the middle."""
            original = (project / "millstream.yaml").read_text()
            turn = 0
            while not ended.wait(1):
                turn += 1
                if turn % 10 == 0:
                    (project / "millstream.yaml").write_text(original + f"# {turn}\n")
                    assert served.reload() == "swapped"
                for path, body in (("/v1/graphs/fraud", b"no JSON"), ("/nowhere", b"{}")):
                    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
                    connection.request("POST", path, body)
                    connection.getresponse().read()
                with socket.create_connection(("127.0.0.1", served.port)) as gone:
                    gone.sendall(b"POST /v1/graphs/fraud HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{")

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        print("minute  requests/s  p50 ms  p99 ms  failed  resident MiB  descriptors")
        for minute in range(args.minutes):
            report = bench(url, bodies, args.rate, 60, 64)
            print(f"{minute + 1:6} {goodput(report, 60):11.0f} {ms(report, 'accepted', 50):7.2f} "
                  f"{ms(report, 'accepted', 99):7.2f} {report['failed']:7} {served.memory()[0]:13.1f} "
                  f"{served.descriptors():12}", flush=True)
        ended.set()
        disturbing.join()
        print(f"stopped with {served.stop()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    over = commands.add_parser("overload", help="three times the load that a graph can take")
    over.add_argument("--rounds", type=float, default=10000, help="rounds of the model per request")
    over.add_argument("--seconds", type=int, default=60)
    over.add_argument("--connections", type=int, default=512)
    over.add_argument("--deadline-ms", type=int, default=1000)
    over.add_argument("--svg", help="draws the latencies into this file")
    over.set_defaults(run=overload)
    long = commands.add_parser("soak", help="load for long, with disturbances")
    long.add_argument("--minutes", type=int, default=10)
    long.add_argument("--rate", type=float, default=5000)
    long.set_defaults(run=soak)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
