"""Labels as the client of Triton sees them over gRPC. Asked for by tests/http/oip/explain.rs.

Argument: the server's address.
"""

import sys

import tritonclient.grpc as triton

config = triton.InferenceServerClient(sys.argv[1]).get_model_config("swap").config
told = {name: parameter.string_value for name, parameter in config.parameters.items()}
assert told["team"] == "risk" and told["explain"] == "turned", told
print("the same")
