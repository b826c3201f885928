//! Which role a route takes. What is not listed takes that of who changes things: a route that is forgotten here is closed.

use http::Method;

use super::Role;

/// The service of the protocol, over gRPC.
const INFERENCE: &str = "/inference.GRPCInferenceService/";

/// The role that a request takes; none for those who only ask whether the server is there.
pub(super) fn needs(method: &Method, path: &str) -> Option<Role> {
    if let Some(call) = path.strip_prefix(INFERENCE) {
        return of_call(call);
    }
    let reads = method == Method::GET || method == Method::HEAD;
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    match path {
        "/" | "/livez" | "/readyz" | "/ping" | "/health" | "/v2/health" | "/v2/health/live"
        | "/v2/health/ready"
            if reads =>
        {
            return None;
        }
        "/v2/repository/index" | "/invocations" | "/get-online-features" => {}
        _ if path.starts_with("/grpc.health.v1.Health/") => return None,
        _ if path.starts_with("/grpc.reflection.") => return Some(Role::Viewer),
        _ => {}
    }
    if reads {
        return Some(Role::Viewer);
    }
    if method == Method::DELETE && path.starts_with("/v1/alerts/silences/") {
        return Some(Role::Operator);
    }
    if method != Method::POST {
        return Some(Role::Admin);
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    let below = |place: &str| path.strip_prefix(place).is_some_and(|rest| !rest.is_empty());
    Some(match path {
        "/v2/repository/index" => Role::Viewer,
        "/invocations" | "/get-online-features" => Role::Invoker,
        _ if below("/v1/graphs/") || below("/v1/vectors/") => Role::Invoker,
        _ if below("/v1/models/") && (last.ends_with(":predict") || last.ends_with(":explain")) => {
            Role::Invoker
        }
        _ if reads_features(path) => Role::Invoker,
        _ if below("/v2/models/")
            && (matches!(last, "infer" | "predict" | "infer_dict" | "predict_dict" | "explain")
                || matches!(last, "infer_stream" | "generate" | "generate_stream")) =>
        {
            Role::Invoker
        }
        _ => Role::Operator,
    })
}

/// Whether a path is that of reading a set, and not that of writing one which is named `read`.
fn reads_features(path: &str) -> bool {
    let set = path.strip_prefix("/v1/features/").and_then(|rest| rest.strip_suffix("/read"));
    set.is_some_and(|set| !set.is_empty())
}

/// Whether a path is that of a call of the protocol, over gRPC.
pub(super) fn is_inference(path: &str) -> bool {
    path.starts_with(INFERENCE)
}

/// Whether requests come one after the other behind a path, with no head of their own.
pub(super) fn is_stream(path: &str) -> bool {
    path.strip_prefix(INFERENCE) == Some("ModelStreamInfer")
}

fn of_call(call: &str) -> Option<Role> {
    match call {
        "ServerLive" | "ServerReady" => None,
        "ModelInfer" | "ModelStreamInfer" => Some(Role::Invoker),
        "ServerMetadata" | "ModelReady" | "ModelMetadata" | "ModelConfig" | "ModelStatistics"
        | "RepositoryIndex" => Some(Role::Viewer),
        _ => Some(Role::Operator),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_take_the_least_role_that_fits_and_unknown_ones_a_high_one() {
        let role = |method: &str, path: &str| needs(&method.parse().unwrap(), path);
        for (method, path, wanted) in [
            ("GET", "/livez", None),
            ("GET", "/readyz", None),
            ("GET", "/", None),
            ("POST", "/", Some(Role::Operator)),
            ("GET", "/health", None),
            ("HEAD", "/ping", None),
            ("POST", "/health", Some(Role::Operator)),
            ("GET", "/v2/health", None),
            ("GET", "/v2/health/ready", None),
            ("GET", "/v2/health/ready/", None),
            ("POST", "/grpc.health.v1.Health/Check", None),
            ("POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Some(Role::Viewer)),
            ("GET", "/metrics", Some(Role::Viewer)),
            ("GET", "/openapi.json", Some(Role::Viewer)),
            ("GET", "/v1/graphs/fraud", Some(Role::Viewer)),
            ("POST", "/v1/graphs/fraud", Some(Role::Invoker)),
            ("POST", "/v1/vectors/v", Some(Role::Invoker)),
            ("POST", "/v1/features/s/read", Some(Role::Invoker)),
            ("POST", "/v1/features/s", Some(Role::Operator)),
            ("POST", "/v1/features/read", Some(Role::Operator)),
            ("DELETE", "/v1/features/s", Some(Role::Admin)),
            ("GET", "/v1/alerts", Some(Role::Viewer)),
            ("POST", "/v1/alerts/income/reset", Some(Role::Operator)),
            ("DELETE", "/v1/alerts/silences/3", Some(Role::Operator)),
            ("POST", "/v1/graphs/fraud/labels", Some(Role::Invoker)),
            ("POST", "/push", Some(Role::Operator)),
            ("POST", "/get-online-features", Some(Role::Invoker)),
            ("POST", "/v1/models/m:predict", Some(Role::Invoker)),
            ("POST", "/v1/models/m:explain", Some(Role::Invoker)),
            ("POST", "/v2/models/m/infer", Some(Role::Invoker)),
            ("POST", "/v2/models/m/explain", Some(Role::Invoker)),
            ("POST", "/v2/models/m/infer_stream", Some(Role::Invoker)),
            ("POST", "/v2/models/m/versions/1/generate", Some(Role::Invoker)),
            ("POST", "/v2/models/m/generate_stream", Some(Role::Invoker)),
            ("POST", "/v2/models/infer", Some(Role::Invoker)),
            ("POST", "/v2/models/m/versions/1/infer", Some(Role::Invoker)),
            ("POST", "/v2/repository/index", Some(Role::Viewer)),
            ("POST", "/v2/repository/models/infer/load", Some(Role::Operator)),
            ("POST", "/v2/logging", Some(Role::Operator)),
            ("POST", "/invocations", Some(Role::Invoker)),
            ("POST", "/inference.GRPCInferenceService/ModelInfer", Some(Role::Invoker)),
            ("POST", "/inference.GRPCInferenceService/ServerLive", None),
            ("POST", "/inference.GRPCInferenceService/ModelMetadata", Some(Role::Viewer)),
            ("POST", "/inference.GRPCInferenceService/RepositoryModelLoad", Some(Role::Operator)),
            ("POST", "/inference.GRPCInferenceService/WhatComesNext", Some(Role::Operator)),
            ("POST", "/something/else", Some(Role::Operator)),
        ] {
            assert_eq!(role(method, path), wanted, "{method} {path}");
        }
    }
}
