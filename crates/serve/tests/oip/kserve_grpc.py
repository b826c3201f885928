"""The client of KServe over gRPC against a served project: no process can have its messages and those of Triton's client.

Arguments: the server's address, and the folder of the fraud example. Asked for by tests/http/oip.
"""

import asyncio
import sys

import grpc
import numpy as np
from common import arrays, lines
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from tritonclient.utils import np_to_triton_dtype

ADDRESS, EXAMPLE, *_ = sys.argv[1:]
requests, expected = lines(EXAMPLE, "requests")[:300], lines(EXAMPLE, "expected")[:300]


def inputs(binary):
    for name, values in arrays(requests):
        made = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        made.set_data_from_numpy(values, binary_data=binary)
        yield made


async def main():
    client = InferenceGRPCClient(ADDRESS, use_ssl=False, retries=2)
    assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("fraud")
    for binary in (True, False):
        told = await client.infer(InferRequest("fraud", list(inputs(binary)), "id-1"))
        assert told.id == "id-1" and told.model_name == "fraud", told
        score = told.get_output_by_name("score").as_numpy()
        np.testing.assert_allclose(score, [row["score"] for row in expected], atol=1e-5)
        decision = [text.decode() if isinstance(text, bytes) else text for text in told.get_output_by_name("decision").as_numpy()]
        assert decision == [row["decision"] for row in expected], decision[:3]
    try:
        await client.infer(InferRequest("frod", list(inputs(True))))
        raise AssertionError("a model that is not there answers")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND and "did you mean `fraud`?" in error.details(), error
    await client.close()
    # What only KServe's messages have.
    index = grpc.insecure_channel(ADDRESS).unary_unary("/inference.GRPCInferenceService/ModelMetadata")
    assert b"millstream_graph" in index(messages.ModelMetadataRequest(name="fraud").SerializeToString())


asyncio.run(main())
print("the same")
