//! What can go wrong in a step: while it is typed, and while it runs.

use std::sync::Arc;

use arrow::error::ArrowError;

/// Everything that is wrong with how a step is typed. Each problem names the place and the fix.
///
/// ```
/// use millstream_graph::SchemaError;
/// let columns = ["amount", "country"];
/// let error = SchemaError::unknown_column("amuont", columns);
/// assert_eq!(error.to_string(), "no column `amuont`; did you mean `amount`?");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    problems: Vec<String>,
}

impl SchemaError {
    /// One problem, in a sentence without a capital or a full stop.
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }

    /// A column that is not there, with the closest one that is.
    pub fn unknown_column<'a>(wanted: &str, columns: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(crate::suggest::unknown("column", wanted, columns))
    }

    /// All problems of several checks, or `Ok` when there were none.
    ///
    /// # Errors
    /// When there is at least one problem.
    pub fn collect(errors: impl IntoIterator<Item = SchemaError>) -> Result<(), SchemaError> {
        let problems: Vec<_> = errors.into_iter().flat_map(|error| error.problems).collect();
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    /// The problems, one sentence each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl std::fmt::Display for SchemaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problems.join("; "))
    }
}

impl std::error::Error for SchemaError {}

/// What kind of failure a step met: what a caller decides on without reading text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The rows themselves are at fault: a value out of range, an unknown key.
    Rows,
    /// The step, its model or its code is at fault.
    Internal,
    /// Something the step depends on did not answer or refused.
    Unavailable,
    /// The deadline passed.
    DeadlineExceeded,
    /// A bound was reached; trying later may help.
    Overloaded,
    /// The step panicked.
    Panicked,
}

impl ErrorKind {
    /// Every kind.
    const ALL: [Self; 6] = [
        Self::Rows,
        Self::Internal,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Overloaded,
        Self::Panicked,
    ];

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind's stable name on the wire and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Overloaded => "overloaded",
            Self::Panicked => "panicked",
        }
    }
}

/// Why a step failed in one run.
#[derive(Clone, Debug)]
pub struct StepError {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    /// An error of a kind, in a sentence without a capital or a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The rows themselves are at fault.
    pub fn rows(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rows, message)
    }

    /// The step, its model or its code is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the step says about it, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl std::fmt::Display for StepError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<ArrowError> for StepError {
    fn from(error: ArrowError) -> Self {
        Self::internal(error.to_string()).with_source(error)
    }
}
