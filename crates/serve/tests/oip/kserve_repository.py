"""The clients of KServe load and unload models. Asked for by tests/http/oip.

Its calls have the name of the model where Triton's have the repository's. Argument: the server's address.
"""

import asyncio
import sys

import grpc
import httpx
from kserve import InferenceRESTClient, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb2
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

ADDRESS = sys.argv[1]
URL = f"http://{ADDRESS}"
stub = GRPCInferenceServiceStub(grpc.insecure_channel(ADDRESS))
rest = InferenceRESTClient(RESTConfig(protocol="v2"))


def is_ready():
    return stub.ModelReady(pb2.ModelReadyRequest(name="several")).ready


assert not is_ready()
loaded = stub.RepositoryModelLoad(pb2.RepositoryModelLoadRequest(model_name="several"))
assert loaded.model_name == "several" and loaded.isLoaded and is_ready(), loaded
assert asyncio.run(rest.is_model_ready(URL, "several"))
unloaded = stub.RepositoryModelUnload(pb2.RepositoryModelUnloadRequest(model_name="several"))
assert unloaded.model_name == "several" and unloaded.isUnloaded and not is_ready(), unloaded
try:
    stub.RepositoryModelLoad(pb2.RepositoryModelLoadRequest(model_name="nothing"))
    raise AssertionError("not refused")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
# Over REST there is no method for it in the client; its documentation has these routes.
for what in ("load", "unload"):
    assert httpx.post(f"{URL}/v2/repository/models/several/{what}").status_code == 200
    assert is_ready() == (what == "load")
print("the same")
