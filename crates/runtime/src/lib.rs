//! The engine: runs plans on the caller's async runtime and a compute pool.
//!
//! An [`Engine`] holds a compiled plan. [`Engine::run`] is one future that owns everything the run holds: dropping it
//! cancels the run at once. Steps that answer at once run inline; steps that wait are polled inside the run; steps that
//! compute run inline when they are measured cheap, else on a bounded pool of threads.

mod admission;
mod core;
mod cost;
mod distribution;
mod door;
mod engine;
mod error;
mod guard;
pub mod layers;
mod metrics;
mod panics;
mod pool;
mod ready;
mod reply;
mod run;
mod serial;
mod state;
mod stream;
mod sync;
pub mod testkit;
mod times;
mod totals;

pub use admission::{Budget, Reserved};
pub use distribution::Distribution;
pub use door::{Append, Door, Gather, Portion};
pub use engine::{Engine, EngineError, Limits};
pub use error::RunError;
pub use metrics::Metrics;
pub use pool::ComputePool;
pub use reply::{Degraded, Reply};
pub use serial::run_serially;
pub use stream::{Part, ReplyStream};
pub use totals::{StepTotals, Totals};
