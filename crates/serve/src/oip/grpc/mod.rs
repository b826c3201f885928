//! The protocol over gRPC: the same models, the same runs.
//!
//! It shares its listener with HTTP: what comes over HTTP/2 as `application/grpc` is for [`Grpc`].

mod arrival;
mod call;
mod describe;
mod request;
mod service;
mod streamed;

use std::sync::Arc;

use http::{HeaderMap, Request, Response, header::CONTENT_TYPE};
use hyper::body::Incoming;
use millstream_runtime::Budget;
use tonic::{
    Code, Status,
    body::Body,
    codec::CompressionEncoding,
    service::{Routes, RoutesBuilder},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::ServiceExt;

use self::{arrival::Arrival, service::Inference};
use crate::{body::BodyLimits, observe::Observer, security::Denied, snapshot::Shared};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::all,
    clippy::clone_on_ref_ptr,
    clippy::pedantic,
    reason = "made by a generator"
)]
mod proto {
    tonic::include_proto!("inference");
}

pub(super) use proto::InferTensorContents;

/// The protocol's messages, for clients that ask for them.
const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("inference");

/// How messages of a call are packed, and how those of its answer may be.
const ENCODING: &str = "grpc-encoding";
const ACCEPTED: &str = "grpc-accept-encoding";

/// Of which health is told: all of the server, and the protocol.
const SERVICES: [&str; 2] = ["", proto::grpc_inference_service_server::SERVICE_NAME];

/// Every service over gRPC.
pub(crate) struct Grpc {
    routes: Routes,
    health: HealthReporter,
    /// Bytes of messages that have begun to arrive.
    arriving: Arc<Budget>,
    limits: BodyLimits,
}

impl Grpc {
    pub(crate) async fn new(shared: &Arc<Shared>, observer: &Arc<Observer>) -> Self {
        let most = shared.terms.decode.body_bytes;
        let inference = Inference::new(Arc::clone(shared), Arc::clone(observer));
        let server = proto::grpc_inference_service_server::GrpcInferenceServiceServer::new(inference)
            .max_decoding_message_size(most)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
            .send_compressed(CompressionEncoding::Gzip);
        let (health, health_server) = tonic_health::server::health_reporter();
        for name in SERVICES {
            health.set_service_status(name, ServingStatus::Serving).await;
        }
        let mut routes = RoutesBuilder::default();
        routes.add_service(server).add_service(health_server);
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // The descriptors are made when this is built; a test asks for them.
        match (describe().build_v1(), describe().build_v1alpha()) {
            (Ok(newer), Ok(older)) => drop(routes.add_service(newer).add_service(older)),
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no reflection over gRPC"),
        }
        Self {
            routes: routes.routes().prepare(),
            health,
            arriving: Budget::new(shared.terms.limits.bytes),
            limits: shared.terms.body,
        }
    }

    /// Answers one call.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let mut request = request.map(|body| Body::new(Arrival::new(body, &self.arriving, self.limits)));
        // Every client can unpack, and says so. Those that find packing worth its while pack what they send.
        let packs = request.headers().get(ENCODING).is_some_and(|encoding| encoding != "identity");
        if !packs {
            request.headers_mut().remove(ACCEPTED);
        }
        match self.routes.clone().oneshot(request).await {
            Ok(answer) => answer.map(Body::new),
            Err(never) => match never {},
        }
    }

    /// Tells those who watch that requests should go elsewhere.
    pub(crate) async fn stop(&self) {
        for name in SERVICES {
            self.health.set_service_status(name, ServingStatus::NotServing).await;
        }
    }

    /// Ends the streams of those who watch, which would hold up the end.
    pub(crate) async fn end(&self) {
        for name in SERVICES {
            self.health.clone().clear_service_status(name).await;
        }
    }
}

/// What a call hears that was not let in.
pub(crate) fn denied(denied: &Denied) -> Response<Body> {
    refusal(denied).into_http()
}

fn refusal(denied: &Denied) -> Status {
    let code = match denied {
        Denied::Unknown(_) => Code::Unauthenticated,
        Denied::Forbidden { .. } => Code::PermissionDenied,
        Denied::TooMany { .. } => Code::ResourceExhausted,
    };
    Status::new(code, denied.to_string())
}

/// Whether a request over HTTP/2 is a call.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).map(|media| media.as_bytes());
    media
        .and_then(|media| media.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| !rest.starts_with(b"-"))
}
