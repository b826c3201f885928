"""The real clients over TLS, with keys and certificates. Asked for by tests/http/security.rs.

Arguments: the server's port, the folder of certificates, and whether to look at all, or only until a new certificate is shown.
"""

import ssl
import sys
import time

import httpx
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

PORT, FOLDER, WHAT = sys.argv[1:]
ADDRESS, URL = f"localhost:{PORT}", f"https://localhost:{PORT}"


def context(client):
    made = ssl.create_default_context(cafile=f"{FOLDER}/ours.pem")
    if client:
        made.load_cert_chain(f"{FOLDER}/{client}.pem", f"{FOLDER}/{client}.key")
    return made


def get(path, client="client", key="viewer"):
    with httpx.Client(verify=context(client)) as session:
        return session.get(f"{URL}{path}", headers={"authorization": f"Bearer {key}"})


def refused(call, *kinds):
    try:
        call()
    except kinds as error:
        return str(error)
    raise AssertionError("not refused")


if WHAT == "again":
    for _ in range(600):
        try:
            assert get("/v1/graphs").status_code == 200
            break
        except httpx.ConnectError:
            time.sleep(0.1)
    else:
        raise AssertionError("the new certificate is not shown")
    print("the same")
    sys.exit()

assert get("/v1/graphs").status_code == 200
assert get("/v1/graphs", key="nobody").status_code == 401
refused(lambda: get("/v1/graphs", client=None), httpx.TransportError)
refused(lambda: get("/v1/graphs", client="stranger"), httpx.TransportError)
refused(lambda: httpx.get(f"http://localhost:{PORT}/livez"), httpx.TransportError)

values = triton_http.InferInput("a", [2], "INT64")
values.set_data_from_numpy(np.array([1, 2], dtype=np.int64))
client = triton_http.InferenceServerClient(ADDRESS, ssl=True, ssl_context_factory=lambda: context("client"))
answer = client.infer("echo", [values], headers={"x-api-key": "invoker"})
np.testing.assert_array_equal(answer.as_numpy("a"), [1, 2])
said = refused(lambda: client.infer("echo", [values], headers={"x-api-key": "viewer"}), InferenceServerException)
assert "this takes the role `invoker`" in said, said

values = triton_grpc.InferInput("a", [2], "INT64")
values.set_data_from_numpy(np.array([1, 2], dtype=np.int64))
client = triton_grpc.InferenceServerClient(
    ADDRESS,
    ssl=True,
    root_certificates=f"{FOLDER}/ours.pem",
    private_key=f"{FOLDER}/client.key",
    certificate_chain=f"{FOLDER}/client.pem",
)
assert client.is_server_live()
answer = client.infer("echo", [values], headers={"authorization": "Bearer invoker"})
np.testing.assert_array_equal(answer.as_numpy("a"), [1, 2])
for headers, status in ((None, "UNAUTHENTICATED"), ({"x-api-key": "viewer"}, "PERMISSION_DENIED")):
    said = refused(lambda: client.infer("echo", [values], headers=headers), InferenceServerException)
    assert status in said, said
print("the same")
