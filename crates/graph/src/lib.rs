//! The vocabulary of Millstream: steps, graphs, and the plans they compile to.
//!
//! A [`Graph`] is what the user writes: named [`Step`]s and edges, maybe wrong. [`Graph::compile`] checks and types it
//! into a [`Plan`], which an engine runs. Rows travel as Arrow record batches; see [`Rows`] and [`Token`].
//! This crate knows no async runtime and does no input or output.

pub use arrow;

mod compile;
mod compile_error;
mod cx;
mod error;
mod explain;
mod failure;
mod fallback;
mod graph;
mod ids;
mod macros;
mod narrow;
mod plan;
mod policy;
mod rows;
pub mod spec;
mod step;
mod steps;
mod stream;
pub mod suggest;
mod svg;
mod waiting;
mod watch;

pub use compile_error::{CompileError, CompileErrors};
pub use cx::{Compute, Priority, Request, RunCx, RunId, Share};
pub use error::{ErrorKind, SchemaError, StepError};
pub use failure::{ERROR_COLUMN, failed_rows};
pub use graph::{ERROR_PORT, Graph, INPUT, ON_ERROR, PortRef, Ports};
pub use ids::{EdgeId, StepId};
pub use macros::IntoColumn;
#[doc(hidden)]
pub use macros::batch_of;
pub use narrow::{Carried, Narrow};
pub use plan::{Edge, Fallback, Fallbacks, Fill, Phase, Plan, PlanPort, PlanStep, Source};
pub use policy::{OnError, Substitute};
pub use rows::{Origin, Rows};
pub use step::{
    Effect, FailedRows, Input, Job, OutPort, Output, RowFlow, Seen, Signature, Step, StepFuture, StepResult,
    Tap, Token, Work,
};
pub use steps::{JoinHow, JoinOn};
pub use stream::{Feed, PlanStream, Stream};
pub use waiting::{Stop, Waiting, when_nobody_waits};
pub use watch::{Ran, StepCall, Watch};
