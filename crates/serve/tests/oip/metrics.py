"""Metrics under the names of Triton and KServe, read by Prometheus' own client. Asked for by tests/http/oip/compat.rs, whose server has
answered three requests of two rows each for `sum`, and refused one of one row for `slow`.

Arguments: the server's address, and whose names.
"""

import sys

import httpx
from prometheus_client.parser import text_string_to_metric_families

ADDRESS, NAMES = sys.argv[1:]
families = {family.name: family for family in text_string_to_metric_families(httpx.get(f"http://{ADDRESS}/metrics").text)}


def values(name, **labels):
    """The samples of a metric, by what labels they have beside these."""
    found = {}
    for family in families.values():
        for sample in family.samples:
            # The client has a name of its own for counters.
            if sample.name in (name, f"{name}_total") and labels.items() <= sample.labels.items():
                rest = {key: value for key, value in sample.labels.items() if key not in labels}
                found[tuple(sorted(rest.items()))] = sample.value
    return found


if NAMES == "triton":
    of = {"model": "sum", "version": "1"}
    slow = {"model": "slow", "version": "1"}
    assert values("nv_inference_request_success", **of) == {(): 3}
    assert values("nv_inference_request_success", **slow) == {(): 0}
    failures = {(("reason", "REJECTED"),): 0, (("reason", "CANCELED"),): 0, (("reason", "BACKEND"),): 1}
    assert values("nv_inference_request_failure", **slow) == failures, values("nv_inference_request_failure")
    assert values("nv_inference_count", **of) == {(): 6}
    assert 1 <= values("nv_inference_exec_count", **of)[()] <= 3
    assert values("nv_inference_pending_request_count", **of) == {(): 0}
    parts = {part: values(f"nv_inference_{part}_duration_us", **of)[()] for part in (
        "request", "queue", "compute_input", "compute_infer", "compute_output")}
    assert parts["request"] > 0 and parts["queue"] + parts["compute_infer"] >= parts["request"] - 1, parts
    assert families["nv_inference_pending_request_count"].type == "gauge"
    assert families["nv_inference_request_duration_us"].type in ("counter", "unknown")
else:
    for part in ("preprocess", "predict", "postprocess"):
        name = f"request_{part}_seconds"
        of = {"model_name": "sum", "version": "1"}
        assert families[name].type == "histogram"
        assert values(f"{name}_count", **of) == {(): 3}, values(f"{name}_count")
        buckets = [value for _, value in sorted(values(f"{name}_bucket", **of).items(), key=lambda one: float(one[0][0][1]))]
        assert buckets == sorted(buckets) and buckets[-1] == 3, buckets
        assert 0 < values(f"{name}_sum", **of)[()] < 60

print("the same")
