#!/usr/bin/env python3
"""What monitoring costs over HTTP: the fraud example without it, with every edge watched, with the request log, and with both.

  cargo build --release
  scripts/monitor_http.py [--servers 4] [--turns 6] [--seconds 1] [--connections 1,16,64] [--only none,same,watched,record,all] [--pane 1s]

All variants are up at once and take turns, because a machine that is shared is now faster and now slower: a ratio is that to the turn of
`none` beside it, and the median of the turns is printed. Two servers that do the same differ, too, by where their memory lies: all are
started anew several times, and `same` is a second one of `none`, whose ratios say what a ratio is worth. The load generator is `wrk` (Debian: apt-get install wrk). What is counted is
compared and written every second, which is as often as it can be. Processor time is all of the server's, until a while after the load, so
that what is counted or logged is compared and written in it; a server that waits for its turn takes little. Prints tables in Markdown."""

import argparse
import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/fraud"
# Every port that a step reads.
EDGES = ("input", "enriched", "known", "features", "lgbm", "lr", "mlp", "scored", "decided")
WATCHED = "    monitor:\n" + "".join(f"      {edge}: {{}}\n" for edge in EDGES)
RECORD = "    record: { path: log, flush: 1s }\n"
# What is appended to the project, whose last graph is the one that is asked.
VARIANTS = {"none": "", "same": "", "watched": WATCHED, "record": RECORD, "all": WATCHED + RECORD}
MONITORING = "monitoring: {{ pane: {}, path: panes }}\n"
# By then everything of a load is on the disk and, with panes of a second, in a pane.
SETTLE = 2.5

LUA = """
local asks, count, at = {}, 0, 0
function init(args)
  for line in io.lines(%r) do
    count = count + 1
    asks[count] = wrk.format("POST", nil, {["content-type"] = "application/json"}, line)
  end
end
function request()
  at = at %% count + 1
  return asks[at]
end
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("RESULT %%d %%f %%f %%f %%d\\n", summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50), latency:percentile(99), failed))
end
"""


class Server:
    """A variant of the example, served for as long as the block runs."""

    def __init__(self, binary, variant, pane, folder):
        self.project = folder / variant
        shutil.copytree(EXAMPLE, self.project)
        more = VARIANTS[variant] and VARIANTS[variant] + MONITORING.format(pane)
        text = (self.project / "millstream.yaml").read_text()
        (self.project / "millstream.yaml").write_text(text + more)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.binary, self.url, self.told = binary, f"http://127.0.0.1:{self.port}/v1/graphs/fraud", {}

    def __enter__(self):
        command = [self.binary, "serve", self.project, "--bind", f"127.0.0.1:{self.port}", "--threads", "2", "--drain-delay-s", "0"]
        environment = {**os.environ, "MILLSTREAM_LOG": "warn"}
        for library in (ROOT / ".onnxruntime").glob("libonnxruntime.so*"):
            environment.setdefault("ORT_DYLIB_PATH", str(library))
        self.process = subprocess.Popen([str(part) for part in command], env=environment)
        until = time.monotonic() + 60
        while self.get("/readyz") is None:
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                sys.exit(f"{self.project.name}: {self.binary} does not serve the project")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.project)

    def get(self, path):
        """The answer if it is a good one."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
            return text if answer.status == 200 else None
        except OSError:
            return None

    def cpu(self):
        """Seconds of processor time so far, the system's for it included."""
        # Its name, which comes second, may have blanks.
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """The most that was resident, in MiB."""
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def losses(self):
        """What was not counted or not logged, since this was asked last. Of what was not counted the server tells what its window has,
        so this is asked after every load."""
        told = self.get("/metrics")
        if told is None:
            sys.exit(f"{self.project.name}: the server does not tell its metrics")
        values = r'^(millstream_monitor_(?:lost_rows\{\S*|recorded\{\S*outcome="(?!written)\w*"\S*)) (\S+)$'
        now = {name: float(value) for name, value in re.findall(values, told, re.MULTILINE)}
        lost = sum(max(0, value - self.told.get(name, 0)) for name, value in now.items())
        self.told = now
        return lost

    def load(self, script, connections, seconds):
        """How many requests were answered, how many per second, and their p50 and p99 in microseconds."""
        run = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script, self.url]
        told = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
        requests, rate, p50, p99, failed = re.search(r"RESULT (\S+) (\S+) (\S+) (\S+) (\d+)", told).groups()
        if failed != "0" or requests == "0":
            sys.exit(f"{self.project.name}: {failed} of {requests} requests failed\n{told}")
        return int(requests), float(rate), float(p50), float(p99)


def measured(args, folder):
    """The turns of each variant and number of connections, its processor time over all requests; what each lost, and its memory."""
    script = folder / "post.lua"
    script.write_text(LUA % str(EXAMPLE / "data/requests.jsonl"))
    turns, cpu, lost, memory = defaultdict(list), Counter(), Counter(), Counter()
    for started in range(args.servers):
        with contextlib.ExitStack() as stack:
            # In another order each time: whoever comes first has other memory.
            names = args.only[started % len(args.only) :] + args.only[: started % len(args.only)]
            servers = {name: stack.enter_context(Server(args.binary, name, args.pane, folder)) for name in names}
            for server in servers.values():
                server.load(script, 16, 1)
                server.losses()
            for connections in args.connections:
                time.sleep(SETTLE)
                before = {variant: server.cpu() for variant, server in servers.items()}
                for turn in range(args.turns):
                    for variant in names if turn % 2 == 0 else reversed(names):
                        turns[variant, connections].append(servers[variant].load(script, connections, args.seconds))
                time.sleep(SETTLE)
                for variant, server in servers.items():
                    cpu[variant, connections] += server.cpu() - before[variant]
                    lost[variant] += server.losses()
                print(f"servers {started + 1} of {args.servers}, {connections} connections", file=sys.stderr)
            for variant, server in servers.items():
                memory[variant] = max(memory[variant], server.memory())
    return turns, cpu, lost, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = lambda of: lambda text: [of(part) for part in text.split(",")]
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/millstream")
    parser.add_argument("--servers", type=int, default=4, help="how often all are started anew")
    parser.add_argument("--turns", type=int, default=6, help="of each variant, for each start and number of connections")
    parser.add_argument("--seconds", type=int, default=1, help="for each turn")
    parser.add_argument("--connections", type=listed(int), default=[1, 16, 64])
    parser.add_argument("--only", type=listed(str), default=list(VARIANTS))
    parser.add_argument("--pane", default="1s", help="with a longer one, its end is mostly outside the loads")
    args = parser.parse_args()
    unknown = set(args.only) - set(VARIANTS)
    if unknown or "none" not in args.only or min(args.servers, args.turns, args.seconds) < 1:
        parser.error(f"--only names some of {', '.join(VARIANTS)}, `none` among them; --servers, --turns and --seconds are at least 1")
    if not shutil.which("wrk"):
        sys.exit("there is no wrk (Debian: apt-get install wrk)")
    # Not in memory, where /tmp may lie: the log is written to a disk.
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        turns, cpu, lost, memory = measured(args, Path(folder))
    print("| connections | variant | requests/s | p50, us | p99, us | CPU per request, us | ratio to `none`: requests/s | p50 | p99 | CPU |")
    print("|---" * 10 + "|")
    for connections in args.connections:
        for variant in args.only:
            pairs = list(zip(turns[variant, connections], turns["none", connections]))
            rate, p50, p99 = (median(took[at] for took, _ in pairs) for at in (1, 2, 3))
            ratios = [median(took[at] / none[at] for took, none in pairs) for at in (1, 2, 3)]
            own, plain = (
                cpu[name, connections] / sum(took[0] for took in turns[name, connections]) * 1e6 for name in (variant, "none")
            )
            ratios.append(own / plain)
            told = " | ".join(f"{ratio:.3f}" for ratio in ratios)
            print(f"| {connections} | {variant} | {rate:,.0f} | {p50:,.0f} | {p99:,.0f} | {own:.1f} | {told} |")
    print("\n| variant | most memory, MiB | rows and requests not counted or not logged |\n|---|---|---|")
    for variant in args.only:
        print(f"| {variant} | {memory[variant]:.0f} | {lost[variant]:,.0f} |")


if __name__ == "__main__":
    main()
