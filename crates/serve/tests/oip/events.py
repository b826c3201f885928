"""Events of the package `cloudevents`, which KServe's clients send, against a served project. Asked for by tests/http/oip/events.rs.

Argument: the server's address.
"""

import sys

import httpx
from cloudevents.http import CloudEvent, from_http, to_binary, to_structured

ATTRIBUTES = {"type": "ask", "source": "/tests", "id": "7"}
URL = f"http://{sys.argv[1]}"

for path, data, expected in [
    ("/v1/graphs/one", {"a": 1}, {"twice": 2}),
    ("/v1/models/one:predict", {"instances": [1, 2]}, {"predictions": [2, 4]}),
]:
    for write in (to_binary, to_structured):
        headers, body = write(CloudEvent(ATTRIBUTES, data))
        answer = httpx.post(f"{URL}{path}", headers=headers, content=body)
        event = from_http(dict(answer.headers), answer.content)
        assert event.data == expected, event
        assert event["type"] == "io.kserve.inference.response" and event["source"] == "io.kserve.inference.one", event

print("the same")
