"""Requests of the Open Inference Protocol, answers, load and servers, for the scripts that measure it. Not a program by itself.

The generators are `wrk` for REST and `h2load` for gRPC (Debian: apt-get install wrk nghttp2-client)."""

import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/millstream"
PROTOCOLS, ROWS, CONNECTIONS = ("json", "binary", "grpc"), (1, 32), (1, 16, 64)
# Of a datatype: how `struct` calls it. BYTES have their length before each value.
FORMATS = {"FP32": "f", "FP64": "d", "INT64": "q", "BOOL": "?"}


def environment(name, packages):
    """The interpreter of an environment with these packages, below target/peers."""
    folder = ROOT / "target/peers" / f"oip-{name}"
    mark = folder / "packages"
    if not mark.exists() or mark.read_text() != str(packages):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
        mark.write_text(str(packages))
    return folder / "bin/python"


def client():
    """The interpreter with the client of Triton, which writes and reads the messages of gRPC."""
    return environment("client", ["tritonclient[grpc]==2.73.0"])


# Servers.


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(command, more):
    """A server in a process group of its own, with `more` in its environment."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([str(part) for part in command], env={**os.environ, **more}, start_new_session=True, **quiet)


def stop(process):
    """Ends a server and what it has started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(20)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def once_up(process, ask):
    """The answer to the first request that a server takes; None if it ends before, or takes none within two minutes."""
    until = time.monotonic() + 120
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > until or process.poll() is not None:
                return None
            time.sleep(0.2)


# Requests. An input is its name, its datatype, its shape and its values; without outputs, all are asked for.


def raw(datatype, values):
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value.encode())) + value.encode() for value in values)
    return struct.pack(f"<{len(values)}{FORMATS[datatype]}", *values)


def bodies(model, inputs, outputs, folder):
    """Files with a request's body, and its headers, by protocol."""
    described = [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape, _ in inputs]
    data = [raw(datatype, values) for _, datatype, _, values in inputs]
    plain = {"inputs": [{**tensor, "data": given[3]} for tensor, given in zip(described, inputs)]}
    sized = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(part)}} for tensor, part in zip(described, data)]}
    if outputs:
        plain["outputs"] = [{"name": name} for name in outputs]
        sized["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    else:
        sized["parameters"] = {"binary_data_output": True}
    head = json.dumps(sized).encode()
    made = {
        "json": (json.dumps(plain).encode(), {"content-type": "application/json"}),
        "binary": (
            b"".join([head, *data]),
            {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))},
        ),
        "grpc": (message(model, described, data, outputs), {"content-type": "application/grpc", "te": "trailers"}),
    }
    for name, (body, headers) in made.items():
        path = folder / f"{model}-{name}-{inputs[0][2][0]}"
        path.write_bytes(body)
        made[name] = (path, headers)
    return made


MESSAGE = """
import base64, json, struct, sys
from tritonclient.grpc import service_pb2 as pb
asked = json.load(sys.stdin)
ask = pb.ModelInferRequest(model_name=asked["model"])
for tensor in asked["inputs"]:
    ask.inputs.add(**tensor)
for name in asked["outputs"]:
    ask.outputs.add(name=name)
ask.raw_input_contents.extend(base64.b64decode(part) for part in asked["data"])
text = ask.SerializeToString()
sys.stdout.buffer.write(struct.pack(">BI", 0, len(text)) + text)
"""


def message(model, described, data, outputs):
    """A `ModelInferRequest` in a frame of gRPC, written by the real client's messages."""
    asked = {"model": model, "inputs": described, "outputs": outputs, "data": [base64.b64encode(part).decode() for part in data]}
    made = subprocess.run([client(), "-c", MESSAGE], input=json.dumps(asked).encode(), check=True, stdout=subprocess.PIPE)
    return made.stdout


# Answers: the values of each output, flat, by its name.


def posted(url, body, headers):
    request = urllib.request.Request(url, body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read(), answer.headers.get("inference-header-content-length")


def flat(data):
    return [value for item in data for value in flat(item)] if isinstance(data, list) else [data]


def values_of(datatype, part):
    if datatype != "BYTES":
        return [value for (value,) in struct.iter_unpack(f"<{FORMATS[datatype]}", part)]
    values, at = [], 0
    while at < len(part):
        (length,) = struct.unpack_from("<I", part, at)
        values.append(part[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return values


def answered(protocol, url, path, headers):
    if protocol == "grpc":
        return answered_over_grpc(url, path)
    text, head = posted(url, path.read_bytes(), headers)
    at = len(text) if head is None else int(head)
    found = {}
    for output in json.loads(text[:at])["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = flat(output["data"])
        else:
            found[output["name"]] = values_of(output["datatype"], text[at : at + size])
            at += size
    return found


CALL = """
import base64, json, sys
import grpc
from tritonclient.grpc import service_pb2 as pb
text = sys.stdin.buffer.read()[5:]
method = "/inference.GRPCInferenceService/ModelInfer"
with grpc.insecure_channel(sys.argv[1]) as channel:
    call = channel.unary_unary(method, request_serializer=None, response_deserializer=pb.ModelInferResponse.FromString)
    reply = call(text, timeout=30)
values = lambda given: [x for _, field in given.contents.ListFields() for x in field]
bare = [] if reply.raw_output_contents else [(given.name, values(given)) for given in reply.outputs]
raws = [base64.b64encode(part).decode() for part in reply.raw_output_contents]
print(json.dumps([bare, [(given.name, given.datatype, part) for given, part in zip(reply.outputs, raws)]]))
"""


def answered_over_grpc(url, path):
    place = url.split("/")[2]
    run = subprocess.run([client(), "-c", CALL, place], input=path.read_bytes(), check=True, capture_output=True)
    bare, raws = json.loads(run.stdout)
    return {**dict(bare), **{name: values_of(datatype, base64.b64decode(part)) for name, datatype, part in raws}}


# Load.

LUA = """
wrk.method = "POST"
local file = io.open({body!r}, "rb")
wrk.body = file:read("*a")
{headers}
done = function(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format("RESULT %f %f %d\\n", latency:percentile(50), summary.requests / summary.duration * 1e6, failed))
end
"""


def over_rest(url, body, headers, connections, seconds, folder):
    """The median in microseconds, and requests per second."""
    script = folder / "ask.lua"
    lines = "\n".join(f"wrk.headers[{name!r}] = {value!r}" for name, value in headers.items())
    script.write_text(LUA.format(body=str(body), headers=lines))
    run = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script, url]
    told = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
    median, rate, failed = re.search(r"RESULT (\S+) (\S+) (\d+)", told).groups()
    assert failed == "0" and float(rate) > 0, told
    return float(median), float(rate)


def over_grpc(url, body, headers, connections, seconds, folder):
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    run = ["h2load", f"-c{connections}", "-m1", "-t1", f"-D{seconds}", f"-d{body}", f"--log-file={log}"]
    run += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    told = subprocess.run([*run, url], check=True, stdout=subprocess.PIPE, text=True).stdout
    # A line for each request: when it began, its status, and its time in microseconds.
    lines = [line.split() for line in log.read_text().splitlines()]
    times = sorted(int(time) for _, status, time in lines if status == "200")
    assert times and len(times) == len(lines), told
    return float(times[len(times) // 2]), len(times) / seconds


def load(protocol):
    return over_grpc if protocol == "grpc" else over_rest


def told(cell):
    return "" if cell is None else f"{cell[0]:,.0f} us, {cell[1]:,.0f}/s"


def table(head, lines):
    """A table in Markdown."""
    for line in (head, ["---"] * len(head), *lines):
        print("|", " | ".join(str(cell) for cell in line), "|")
