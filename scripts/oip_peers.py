#!/usr/bin/env python3
"""The Open Inference Protocol beside MLServer, KServe and Triton: one ONNX model, the same requests, one server after the other.

  cargo build --release
  scripts/oip_peers.py [--seconds 3] [--only millstream,mlserver,kserve,triton]

Packages go below target/peers. Each server has the machine to itself and this load generator: `wrk` for REST, `h2load` for gRPC (Debian:
apt-get install wrk nghttp2-client). Triton is the server inside the package nvidia-pytriton, with a function in Python that calls ONNX
Runtime; MLServer and KServe run the same function in theirs. Before a server is measured, its answer is compared with ours.
Prints a table in Markdown."""

import argparse
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/millstream"
MODEL = ROOT / "examples/fraud/models/lgbm.onnx"
PACKAGES = {
    "mlserver": ["mlserver==1.7.1", "onnxruntime==1.32.0"],
    "kserve": ["kserve==0.21.0", "onnxruntime==1.32.0"],
    "triton": ["nvidia-pytriton==0.7.0", "onnxruntime==1.32.0", "numpy<2"],
    "client": ["tritonclient[grpc]==2.73.0"],
}
ROWS, CONNECTIONS = (1, 32), (1, 16, 64)
WIDTH = 28


def python(peer):
    """The interpreter of an environment with a peer's packages."""
    folder = ROOT / "target/peers" / f"oip-{peer}"
    mark = folder / "packages"
    if not mark.exists() or mark.read_text() != str(PACKAGES[peer]):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES[peer]], check=True)
        mark.write_text(str(PACKAGES[peer]))
    return folder / "bin/python"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


# Servers, each in a process of its own.


def model():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["probabilities"], {"X": x})[0]


def serve_kserve(http, grpc):
    import kserve

    class Lgbm(kserve.Model):
        def __init__(self):
            super().__init__("lgbm")
            self.run, self.ready = model(), True

        async def predict(self, payload, headers=None, response_headers=None):
            answer = self.run(payload.inputs[0].as_numpy().astype("float32"))
            output = kserve.InferOutput("probabilities", list(answer.shape), "FP32")
            output.set_data_from_numpy(answer, binary_data=False)
            return kserve.InferResponse(payload.id or "", "lgbm", [output])

    sys.argv = sys.argv[:1]
    server = kserve.ModelServer(http_port=http, grpc_port=grpc, workers=1, access_log_format=None, enable_latency_logging=False)
    server.start([Lgbm()])


def serve_triton(http, grpc):
    import numpy as np
    from pytriton.decorators import batch
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    run = model()

    @batch
    def infer(X):
        return {"probabilities": run(X)}

    here = dict(http_address="127.0.0.1", grpc_address="127.0.0.1", allow_metrics=False)
    with Triton(config=TritonConfig(http_port=http, grpc_port=grpc, **here)) as triton:
        x, y = Tensor(name="X", dtype=np.float32, shape=(WIDTH,)), Tensor(name="probabilities", dtype=np.float32, shape=(2,))
        triton.bind("lgbm", infer, inputs=[x], outputs=[y], config=ModelConfig(max_batch_size=64))
        triton.serve()


MLSERVER = """
import sys
sys.path.insert(0, {scripts!r})
import oip_peers
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Lgbm(MLModel):
    async def load(self):
        self.run = oip_peers.model()
        return True

    async def predict(self, payload):
        answer = self.run(NumpyCodec.decode_input(payload.inputs[0]).astype("float32"))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", answer)])
"""


def command(server, http, grpc, folder):
    """How a server is started, and what of its environment is another."""
    if server == "millstream":
        project = "name: peers\nmodels: { lgbm: { path: lgbm.onnx } }\n"
        (folder / "millstream.yaml").write_text(project)
        (folder / "lgbm.onnx").write_bytes(MODEL.read_bytes())
        return [BINARY, "serve", folder, "--bind", f"127.0.0.1:{http}", "--threads", "2", "--drain-delay-s", "0"], {}
    if server == "mlserver":
        settings = {
            "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_endpoint": None, "parallel_workers": 0,
            "debug": False, "use_structured_logging": False,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text('{"name": "lgbm", "implementation": "peer_model.Lgbm"}')
        (folder / "peer_model.py").write_text(MLSERVER.format(scripts=str(Path(__file__).parent)))
        return [python(server).parent / "mlserver", "start", folder], {"PYTHONPATH": str(folder)}
    return [python(server), __file__, "--serve", server, str(http), str(grpc)], {}


# Requests.


def features(rows):
    return [((row * WIDTH + at) * 37 % 101) / 10 - 5 for row in range(rows) for at in range(WIDTH)]


def tensor(rows, **more):
    return {"name": "X", "datatype": "FP32", "shape": [rows, WIDTH], **more}


def bodies(rows, folder):
    """Files with a request's body, and its headers, by protocol."""
    values = features(rows)
    raw = struct.pack(f"<{len(values)}f", *values)
    outputs = [{"name": "probabilities"}]
    plain = json.dumps({"inputs": [tensor(rows, data=values)], "outputs": outputs}).encode()
    head = json.dumps({
        "inputs": [tensor(rows, parameters={"binary_data_size": len(raw)})],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
    }).encode()
    made = {
        "json": (plain, {"content-type": "application/json"}),
        "binary": (head + raw, {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}),
        "grpc": (message(rows), {"content-type": "application/grpc", "te": "trailers"}),
    }
    for name, (body, headers) in made.items():
        path = folder / f"{name}-{rows}"
        path.write_bytes(body)
        made[name] = (path, headers)
    return made


def message(rows):
    """A `ModelInferRequest` in a frame of gRPC, written by the real client's messages."""
    code = (
        "import struct, sys\n"
        "from tritonclient.grpc import service_pb2 as pb\n"
        "values, rows = list(map(float, sys.argv[2].split(','))), int(sys.argv[1])\n"
        "ask = pb.ModelInferRequest(model_name='lgbm')\n"
        f"ask.inputs.add(name='X', datatype='FP32', shape=[rows, {WIDTH}])\n"
        "ask.outputs.add(name='probabilities')\n"
        "ask.raw_input_contents.append(struct.pack(f'<{len(values)}f', *values))\n"
        "text = ask.SerializeToString()\n"
        "sys.stdout.buffer.write(struct.pack('>BI', 0, len(text)) + text)\n"
    )
    values = ",".join(map(str, features(rows)))
    return subprocess.run([python("client"), "-c", code, str(rows), values], check=True, stdout=subprocess.PIPE).stdout


def asked(url, path, headers):
    request = urllib.request.Request(url, path.read_bytes(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["outputs"][0]["data"]


# Measuring.

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
    assert failed == "0", told
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


def measured(server, args, folder, expected):
    """Every cell of a server, by protocol, rows and connections."""
    http, grpc = free_port(), free_port()
    (folder / server).mkdir()
    run, more = command(server, http, grpc, folder / server)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(part) for part in run], env={**os.environ, **more}, start_new_session=True, **quiet)
    rest = f"http://127.0.0.1:{http}/v2/models/lgbm/infer"
    calls = f"http://127.0.0.1:{http if server == 'millstream' else grpc}/inference.GRPCInferenceService/ModelInfer"
    cells = {}
    try:
        for rows in ROWS:
            made = bodies(rows, folder)
            until = time.monotonic() + 120
            while True:
                try:
                    got = asked(rest, *made["json"])
                    break
                except OSError:
                    if time.monotonic() > until or process.poll() is not None:
                        print(f"{server} does not start here, and is left out", file=sys.stderr)
                        return None
                    time.sleep(0.2)
            flat = [value for row in got for value in (row if isinstance(row, list) else [row])]
            expected.setdefault(rows, flat)
            apart = max(abs(mine - theirs) for mine, theirs in zip(flat, expected[rows], strict=True))
            assert apart < 1e-5, f"{server} answers otherwise: {apart}"
            for protocol, (body, headers) in made.items():
                load, url = (over_grpc, calls) if protocol == "grpc" else (over_rest, rest)
                for connections in CONNECTIONS:
                    try:
                        load(url, body, headers, connections, 1, folder)
                        cells[protocol, rows, connections] = load(url, body, headers, connections, args.seconds, folder)
                    except (AssertionError, AttributeError, ZeroDivisionError, subprocess.CalledProcessError):
                        # It does not speak that.
                        cells[protocol, rows, connections] = None
                    print(server, protocol, rows, connections, cells[protocol, rows, connections], file=sys.stderr)
    finally:
        stop(process)
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default="millstream,mlserver,kserve,triton")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        server, http, grpc = args.serve
        {"kserve": serve_kserve, "triton": serve_triton}[server](int(http), int(grpc))
        return
    servers, expected = args.only.split(","), {}
    with tempfile.TemporaryDirectory() as folder:
        cells = {server: measured(server, args, Path(folder), expected) for server in servers}
    servers = [server for server in servers if cells[server] is not None]
    if not servers:
        return
    told = lambda cell: "" if cell is None else f"{cell[0]:,.0f} us, {cell[1]:,.0f}/s"
    print("| protocol | rows | connections |", " | ".join(servers), "|")
    print("|---" * (3 + len(servers)) + "|")
    for protocol in ("json", "binary", "grpc"):
        for rows in ROWS:
            for connections in CONNECTIONS:
                row = [told(cells[server][protocol, rows, connections]) for server in servers]
                print(f"| {protocol} | {rows} | {connections} |", " | ".join(row), "|")


if __name__ == "__main__":
    main()
