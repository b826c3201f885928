//! The Open Inference Protocol, which KServe calls v2, as Triton and the clients of both speak it: over REST, and in `grpc`.
//!
//! Every graph is a model whose inputs are the columns of its requests, and whose outputs are those of its replies. Every model of
//! the project that has not the name of a graph is one too, in a graph of one step. So whatever comes here is let in, run and told
//! of as what comes to `/v1/graphs`: this is another [`Protocol`](crate::service::Protocol), and nothing else.

mod datatype;
mod grpc;
mod inference;
mod inputs;
mod models;
mod outputs;
mod pack;
mod request;
mod routes;
mod rows;
mod scan;
mod tensor;
mod typed;
mod values;

pub(crate) use grpc::{Grpc, is_call};
pub(crate) use models::{Model, models};

/// How a request to a model is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// As tensors; or as MLRun does, on the same path.
    Tensors,
    Rows(rows::Dialect),
}

pub(crate) use routes::{infer, inferred, openapi, routes};
