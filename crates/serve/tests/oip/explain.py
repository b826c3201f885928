"""Explanations and labels as the clients of KServe and Triton see them. Asked for by tests/http/oip/explain.rs.

Argument: the server's address.
"""

import asyncio
import sys

import httpx
import tritonclient.http as triton
from kserve import InferenceRESTClient, RESTConfig

ADDRESS = sys.argv[1]
URL = f"http://{ADDRESS}"


async def explained():
    kserve = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    told = await kserve.explain(URL, "score", {"instances": [[1, 0.5], [2, 1.0]]})
    assert told == {"explanations": [{"of_a": 10, "of_b": 1.0}, {"of_a": 20, "of_b": 2.0}]}, told
    try:
        await kserve.explain(URL, "why", {"instances": [[1, 0.5]]})
        raise AssertionError("it has no explainer")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404 and "has no explainer" in str(error), error
    await kserve.close()


asyncio.run(explained())

config = triton.InferenceServerClient(ADDRESS).get_model_config("swap")
assert config["parameters"]["team"] == {"string_value": "risk"}, config
print("the same")
