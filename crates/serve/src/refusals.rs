//! What was turned away before it became a run.

use prometheus::{IntCounterVec, Opts, Registry};

/// Counts refusals by reason. Reasons are codes of answers and names given here, so their number is bounded.
#[derive(Clone)]
pub(crate) struct Refusals {
    counts: IntCounterVec,
}

/// Marks an answer as a refusal, for the server to count.
#[derive(Clone, Copy)]
pub(crate) struct Refused(pub(crate) &'static str);

impl Refusals {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "millstream_http_refused_total",
            "Requests, and connections without one, that were refused before a run",
        );
        let counts = IntCounterVec::new(opts, &["reason"])?;
        registry.register(Box::new(counts.clone()))?;
        Ok(Self { counts })
    }

    pub(crate) fn count(&self, reason: &str) {
        self.counts.with_label_values(&[reason]).inc();
    }
}
