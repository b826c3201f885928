//! The Open Inference Protocol, which KServe calls v2, as Triton and the clients of both speak it: over REST, and in `grpc`.
//!
//! Every graph is a model whose inputs are the columns of its requests, and whose outputs are those of its replies. Every model of
//! the project that has not the name of a graph is one too, in a graph of one step. So whatever comes here is let in, run and told
//! of as what comes to `/v1/graphs`: this is another [`Protocol`](crate::service::Protocol), and nothing else.

mod about;
mod compat;
mod control;
mod datatype;
mod find;
mod generate;
mod grpc;
mod inference;
mod inputs;
mod models;
mod named;
mod openapi;
mod outputs;
mod pack;
mod place;
mod repository;
mod request;
mod routes;
mod rows;
mod scan;
mod settings;
mod statistics;
mod streamed;
mod tensor;
mod typed;
mod values;

pub(crate) use about::OWN_NAMES;
pub use compat::CompatMetrics;
pub(crate) use find::look;
pub(crate) use grpc::{Grpc, denied, is_call};
pub(crate) use models::{Model, columns, models};
pub(crate) use repository::{Repository, RepositoryMetrics};

/// How a request to a model is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// As tensors; or as MLRun does, on the same path.
    Tensors,
    /// As members of an object, with one value each.
    Generated,
    Rows(rows::Dialect),
    /// For explanations of what the model would answer to these rows.
    Explanations(rows::Dialect),
}

pub(crate) use openapi::openapi;
pub(crate) use routes::{infer, inferred, routes};
