#!/usr/bin/env python3
"""The Open Inference Protocol beside MLServer, KServe and Triton: one ONNX model, the same requests, one server after the other.

  cargo build --release
  scripts/oip_peers.py [--seconds 3] [--only millstream,mlserver,kserve,triton] [--triton PYTHON]
  scripts/oip_peers.py --floor HAND [--seconds 3] [--rounds 3]

Packages go below target/peers. Each server has the machine to itself and this load generator: `wrk` for REST, `h2load` for gRPC (Debian:
apt-get install wrk nghttp2-client). Triton is the server inside the package nvidia-pytriton, with a function in Python that calls ONNX
Runtime; MLServer and KServe run the same function in theirs. `--triton` names an interpreter that has that package and onnxruntime, where
none is to be installed. Before a server is measured, its answers over each protocol are compared with ours.

With `--floor`, Millstream is measured beside a server of the fraud example written by hand: see oip_floor.py.
Prints a table in Markdown."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import oip_floor
from oip_load import BINARY, CONNECTIONS, PROTOCOLS, ROOT, ROWS, answered, bodies, environment, free_port, load, once_up, start, stop, table, told

MODEL = ROOT / "examples/fraud/models/lgbm.onnx"
PACKAGES = {
    "mlserver": ["mlserver==1.7.1", "onnxruntime==1.32.0"],
    "kserve": ["kserve==0.21.0", "onnxruntime==1.32.0"],
    "triton": ["nvidia-pytriton==0.7.0", "onnxruntime==1.32.0", "numpy<2"],
}
WIDTH = 28


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


def libpython(python):
    """What makes the process that Triton starts for a model load the same libpython as the interpreter whose modules it reads."""
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    return {"LD_LIBRARY_PATH": subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()}


def command(server, http, grpc, folder, triton):
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
        return [environment(server, PACKAGES[server]).parent / "mlserver", "start", folder], {"PYTHONPATH": str(folder)}
    python = triton if server == "triton" and triton else environment(server, PACKAGES[server])
    return [python, __file__, "--serve", server, str(http), str(grpc)], libpython(python) if server == "triton" else {}


# Measuring.


def asked(rows, folder):
    values = [((row * WIDTH + at) * 37 % 101) / 10 - 5 for row in range(rows) for at in range(WIDTH)]
    return bodies("lgbm", [("X", "FP32", [rows, WIDTH], values)], ["probabilities"], folder)


def same(server, protocol, rows, got, expected):
    """Stops if a server answers otherwise than the first one."""
    expected.setdefault(rows, got)
    apart = max(abs(mine - theirs) for mine, theirs in zip(got, expected[rows], strict=True))
    assert apart < 1e-5, f"{server} answers otherwise over {protocol}: {apart}"


def measured(server, args, folder, expected):
    """Every cell of a server, by protocol, rows and connections."""
    http, grpc = free_port(), free_port()
    (folder / server).mkdir()
    process = start(*command(server, http, grpc, folder / server, args.triton))
    rest = f"http://127.0.0.1:{http}/v2/models/lgbm/infer"
    calls = f"http://127.0.0.1:{http if server == 'millstream' else grpc}/inference.GRPCInferenceService/ModelInfer"
    cells = {}
    try:
        for rows in ROWS:
            made = asked(rows, folder)
            if once_up(process, lambda: answered("json", rest, *made["json"])) is None:
                print(f"{server} does not start here, and is left out", file=sys.stderr)
                return None
            for protocol, (body, headers) in made.items():
                url = calls if protocol == "grpc" else rest
                try:
                    got = answered(protocol, url, body, headers)["probabilities"]
                except (OSError, subprocess.CalledProcessError) as refused:
                    print(f"{server} does not speak {protocol}: {refused}", file=sys.stderr)
                    continue
                same(server, protocol, rows, got, expected)
                for connections in CONNECTIONS:
                    try:
                        load(protocol)(url, body, headers, connections, 1, folder)
                        cells[protocol, rows, connections] = load(protocol)(url, body, headers, connections, args.seconds, folder)
                    except (AssertionError, AttributeError, ZeroDivisionError, subprocess.CalledProcessError) as failed:
                        print(f"{server} failed over {protocol}: {failed}", file=sys.stderr)
                    print(server, protocol, rows, connections, cells.get((protocol, rows, connections)), file=sys.stderr)
    finally:
        stop(process)
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default="millstream,mlserver,kserve,triton")
    parser.add_argument("--triton", type=Path, metavar="PYTHON", help="an interpreter with nvidia-pytriton and onnxruntime")
    parser.add_argument("--floor", type=Path, metavar="HAND", help="the server written by hand, beside which Millstream is measured")
    parser.add_argument("--rounds", type=int, default=3, help="of --floor")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        server, http, grpc = args.serve
        {"kserve": serve_kserve, "triton": serve_triton}[server](int(http), int(grpc))
        return
    if args.floor:
        oip_floor.beside(args.floor, args.seconds, args.rounds)
        return
    servers, expected = args.only.split(","), {}
    with tempfile.TemporaryDirectory() as folder:
        cells = {server: measured(server, args, Path(folder), expected) for server in servers}
    servers = [server for server in servers if cells[server] is not None]
    if not servers:
        return
    each = [(protocol, rows, connections) for protocol in PROTOCOLS for rows in ROWS for connections in CONNECTIONS]
    table(["protocol", "rows", "connections", *servers], [[*at, *(told(cells[server].get(at)) for server in servers)] for at in each])


if __name__ == "__main__":
    main()
