//! The Open Inference Protocol over REST, which KServe calls v2, as Triton and the clients of both speak it.
//!
//! Every graph is a model whose inputs are the columns of its requests, and whose outputs are those of its replies. Every model of
//! the project that has not the name of a graph is one too, in a graph of one step. So whatever comes here is let in, run and told
//! of as what comes to `/v1/graphs`: this is another [`Protocol`](crate::service::Protocol), and nothing else.

mod datatype;
mod inference;
mod inputs;
mod models;
mod outputs;
mod pack;
mod request;
mod routes;
mod scan;
mod tensor;
mod values;

pub(crate) use models::{Model, models};
pub(crate) use routes::{infer, inferred, openapi, routes};
