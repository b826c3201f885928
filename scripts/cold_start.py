#!/usr/bin/env python3
"""How long `millstream serve` takes from its start to ready, without models, and the memory it then has: `cold_start.py BINARY`."""

import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

PROJECT = """name: small
graphs:
  echo:
    input: {id: int64, amount: float64}
    steps:
      twice:
        with: {twice: amount * 2.0}
    respond: twice
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ready(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 0.2) as client:
            client.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            return client.recv(200).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def start(binary, project):
    port, begin = free_port(), time.perf_counter()
    server = subprocess.Popen(
        [binary, "serve", project, "--bind", f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not ready(port):
            if server.poll() is not None:
                sys.exit(f"{binary} ended with {server.returncode}")
            time.sleep(0.0005)
        took = (time.perf_counter() - begin) * 1e3
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        return took, int(status.split("VmRSS:")[1].split()[0]) / 1024
    finally:
        server.kill()
        server.wait()


with tempfile.TemporaryDirectory() as project:
    pathlib.Path(project, "millstream.yaml").write_text(PROJECT)
    runs = [start(sys.argv[1], project) for _ in range(9)]
print(f"ready after {statistics.median(run[0] for run in runs):.1f} ms, {statistics.median(run[1] for run in runs):.0f} MiB")
