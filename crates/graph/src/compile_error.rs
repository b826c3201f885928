//! Every way in which a graph can be wrong, and the list that compile answers.

/// One mistake in a graph: the place, and the fix where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant's message says what it and its fields mean")]
pub enum CompileError {
    #[error(
        "step `{step}`: a step's name is letters, digits, spaces, `_`, `-` and `/`, and not `input` or `on_error`"
    )]
    BadName { step: String },
    #[error("step `{step}`: there is another step of this name; rename one")]
    DuplicateName { step: String },
    #[error("step `{step}`: {message}")]
    UnknownInput { step: String, wanted: String, message: String },
    #[error("step `{step}`: input `{from}` has {message}")]
    UnknownPort { step: String, from: String, message: String },
    #[error("step `{step}`: port `{port}` is there twice or has the name of the error port")]
    DuplicatePort { step: String, port: String },
    #[error("step `{step}`: reads nothing, so no row ever reaches it; name its input")]
    Unreachable { step: String },
    #[error("steps form a cycle: {}", .path.iter().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(" -> "))]
    Cycle { path: Vec<String> },
    #[error("step `{step}`: {problem}")]
    Schema { step: String, problem: String },
    #[error(
        "step `{step}`: rows of input `{input}` no longer know their place in the request, so they cannot be lined up; \
         join them on a key"
    )]
    OutOfOrder { step: String, input: String },
    #[error(
        "step `{step}`: its rows have a column `error`, which its error port would overwrite; rename the column"
    )]
    ErrorColumn { step: String },
    #[error("step `{step}`: has both a policy for errors and a reader of its error port; keep one")]
    TwoPolicies { step: String },
    #[error("no step responds; make one the reply")]
    NoReply,
    #[error("{} steps respond ({}); merge them into one", .steps.len(), .steps.join(", "))]
    SeveralReplies { steps: Vec<String> },
    #[error("`stream`: {problem}")]
    Stream { problem: String },
    #[error("a tap observes `{port}`, but there is no such port")]
    UnknownTap { port: String },
    #[error("a tap of `{port}`: {problem}")]
    UnknownTapColumn { port: String, problem: String },
    #[error(
        "step `{step}`: graph `{graph}` handles its own errors and cannot be a step; route its errors outside"
    )]
    EmbeddedHandler { step: String, graph: String },
}

impl CompileError {
    /// The step at fault, where one is.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::BadName { step }
            | Self::DuplicateName { step }
            | Self::UnknownInput { step, .. }
            | Self::UnknownPort { step, .. }
            | Self::DuplicatePort { step, .. }
            | Self::Unreachable { step }
            | Self::Schema { step, .. }
            | Self::OutOfOrder { step, .. }
            | Self::ErrorColumn { step }
            | Self::TwoPolicies { step }
            | Self::EmbeddedHandler { step, .. } => Some(step),
            Self::Cycle { path } => path.first().map(String::as_str),
            Self::SeveralReplies { steps } => steps.last().map(String::as_str),
            Self::NoReply | Self::Stream { .. } | Self::UnknownTap { .. } | Self::UnknownTapColumn { .. } => {
                None
            }
        }
    }
}

/// Every mistake of one graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileErrors {
    graph: String,
    errors: Vec<CompileError>,
}

impl CompileErrors {
    pub(crate) fn new(graph: &str, mut errors: Vec<CompileError>) -> Self {
        let mut seen = std::collections::HashSet::new();
        errors.retain(|error| seen.insert(error.clone()));
        Self { graph: graph.to_owned(), errors }
    }

    /// The graph's name.
    pub fn graph(&self) -> &str {
        &self.graph
    }

    /// The mistakes, in the order in which compile found them.
    pub fn errors(&self) -> &[CompileError] {
        &self.errors
    }
}

impl std::fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<_> = self.errors.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for CompileErrors {}
