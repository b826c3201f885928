//! Why a run gave no reply.

use std::sync::Arc;

use millstream_graph::{ErrorKind, RunId, StepError};

/// Why [`crate::Engine::run`] gave no reply.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The rows do not have the columns that the plan was compiled for.
    #[error("rows have columns ({got}) where the graph wants ({wanted})")]
    Input {
        /// The plan's columns.
        wanted: String,
        /// The columns that came.
        got: String,
    },
    /// As many runs as the limits allow are under way.
    #[error("too many runs are under way")]
    Overloaded,
    /// The engine takes no more runs.
    #[error("the engine is closed")]
    Closed,
    /// The rows of requests that came together could not be put together.
    #[error("rows could not be put together: {reason}")]
    Gather {
        /// What Arrow said.
        reason: String,
    },
    /// A reply cannot be run again as the graph's stream says.
    #[error("the reply cannot be run again: {reason}")]
    Fed {
        /// What Arrow said.
        reason: String,
    },
    /// The deadline passed while the request waited for others that it shares a run with.
    #[error("the deadline passed")]
    DeadlineExceeded {
        /// The run.
        run: RunId,
    },
    /// A step failed and nothing in the graph took care of it.
    #[error("step `{step}`: {source}")]
    Failed {
        /// The run.
        run: RunId,
        /// The step.
        step: Arc<str>,
        /// What it said.
        source: StepError,
    },
}

impl RunError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Input { .. } => ErrorKind::Rows,
            Self::Overloaded => ErrorKind::Overloaded,
            Self::Closed => ErrorKind::Unavailable,
            Self::Gather { .. } | Self::Fed { .. } => ErrorKind::Internal,
            Self::DeadlineExceeded { .. } => ErrorKind::DeadlineExceeded,
            Self::Failed { source, .. } => source.kind(),
        }
    }

    /// The step that failed, if one did.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Failed { step, .. } => Some(step),
            _ => None,
        }
    }
}
