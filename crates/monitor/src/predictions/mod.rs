//! What a model predicted on an edge, on its way to its labels: how well it did, and how well it is expected to do.

mod columns;
mod inbox;
mod judge;
mod saved;
mod series;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use arrow::{array::RecordBatch, datatypes::Schema};
use millstream_graph::{EdgeId, Origin, Rows, Seen, Share, Tap, spec::Time};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    columns::{PredictionColumns, estimator},
    inbox::{Arrived, Inbox, own},
};
pub use self::{
    judge::{Judge, LabelCounts},
    saved::RestoreError,
};
use crate::performance::{BinaryEstimator, BinaryMetrics, JoinConfig, LabelJoin};

/// What of an edge's rows are predictions, and how they are held against labels that come later.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerformanceSpec {
    /// What is predicted.
    #[serde(default)]
    pub task: Task,
    /// The column that has the prediction: a number, a yes or no, or a category. Without it, a `probability` of at least `threshold`
    /// is a yes.
    pub prediction: Option<String>,
    /// The value of `prediction` that is a yes, where it is a category or a number.
    pub positive: Option<String>,
    /// The column that has the probability of a yes.
    pub probability: Option<String>,
    /// The probability from which on a row is a yes, where there is no `prediction`; 0.5 by default.
    pub threshold: Option<f64>,
    /// The column by which labels name their row. Without it they name the request, and its row behind a `/` where it has several.
    pub id: Option<String>,
    /// The column that says when the prediction was made: a timestamp, or microseconds since 1970 UTC. Without it, it is when the row
    /// was seen.
    pub time: Option<String>,
    /// A column whose values are judged by themselves, too.
    pub segment: Option<String>,
    /// The stretch of time that is judged as one; `1d` by default.
    pub window: Option<Time>,
    /// How long after its prediction a label still counts; `30d` by default.
    pub lateness: Option<Time>,
    /// Predictions that are held for their labels at most; 1 000 000 by default, of about 200 bytes each. The oldest make room: they
    /// count as predictions without a label, or with the label that they have. Of labels whose prediction has not come, a tenth as
    /// many are held.
    #[serde(default = "most")]
    pub most: usize,
    /// The column of the edge's `reference` that has the label. With it, performance is estimated before labels come.
    pub label: Option<String>,
}

fn most() -> usize {
    1_000_000
}

/// What is predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Yes or no.
    #[default]
    Binary,
    /// A number.
    Regression,
}

/// The predictions of one edge, on their way to a [`Judge`].
pub struct Predictions {
    /// The columns of a batch that are kept.
    kept: Vec<usize>,
    /// What these are.
    columns: PredictionColumns,
    inbox: Inbox,
    config: JoinConfig,
    estimator: Option<BinaryEstimator>,
    /// What time it is, in microseconds since 1970 UTC.
    clock: fn() -> i64,
}

/// Microseconds of a day.
const DAY: i64 = 24 * 3600 * 1_000_000;

impl Predictions {
    /// The predictions of rows of `schema`. `reference` are rows whose labels are known, where the estimate is wanted.
    ///
    /// # Errors
    /// Every mistake.
    pub fn new(
        spec: &PerformanceSpec,
        schema: &Schema,
        reference: Option<&[RecordBatch]>,
    ) -> Result<Arc<Self>, Vec<String>> {
        Self::with_clock(spec, schema, reference, system)
    }

    /// The same with another clock, which says when rows come, in microseconds since 1970 UTC.
    ///
    /// # Errors
    /// Every mistake.
    pub fn with_clock(
        spec: &PerformanceSpec,
        schema: &Schema,
        reference: Option<&[RecordBatch]>,
        clock: fn() -> i64,
    ) -> Result<Arc<Self>, Vec<String>> {
        let mut mistakes = Vec::new();
        let columns = PredictionColumns::new(spec, schema, &mut mistakes);
        if spec.most == 0 {
            mistakes.push("`most` is 0: no prediction would be held until its label comes".to_owned());
        }
        let micros = |time: Option<Time>, usual: i64| {
            time.map_or(usual, |time| i64::try_from(time.0.as_micros()).unwrap_or(i64::MAX))
        };
        let config = JoinConfig {
            capacity: spec.most,
            waiting: spec.most.div_ceil(10),
            ..JoinConfig::new(micros(spec.window, DAY), micros(spec.lateness, 30 * DAY))
        };
        if let Err(error) = LabelJoin::new(BinaryMetrics::default(), config.clone(), 0) {
            mistakes.push(error.to_string());
        }
        let estimator = match (&spec.label, reference) {
            (None, _) => None,
            (Some(_), None) => {
                mistakes.push("`label` is a column of the `reference`, which is not named".to_owned());
                None
            }
            (Some(_), _) if spec.task == Task::Regression => {
                mistakes.push(
                    "regression is not estimated: an error model's output can be watched as a column"
                        .to_owned(),
                );
                None
            }
            (Some(label), Some(rows)) => {
                let estimator = estimator(spec, label, rows);
                estimator
                    .map_err(|mistake| mistakes.push(format!("the reference cannot be judged by: {mistake}")))
                    .ok()
            }
        };
        match columns {
            Some(columns) if mistakes.is_empty() => {
                let (kept, columns) = columns.alone();
                Ok(Arc::new(Self { kept, columns, inbox: Inbox::default(), config, estimator, clock }))
            }
            _ => Err(mistakes),
        }
    }

    /// The tap for the edge.
    pub fn tap(self: Arc<Self>) -> Arc<dyn Tap> {
        Arc::new(PredictionTap { predictions: self, edge: OnceLock::new() })
    }

    /// Rows that were not looked at: too many waited, or without an `id` they no longer knew which row of the request they are.
    pub fn dropped(&self) -> u64 {
        self.inbox.dropped.load(Relaxed)
    }

    /// Keeps the rows of a request. Answers whether it could.
    fn keep(&self, share: &Share, rows: &Rows, at: i64) -> bool {
        if self.columns.id.is_none() && matches!(rows.origin(), Origin::Lost) {
            return false;
        }
        self.inbox.push(rows.len(), || {
            let columns = self.kept.iter().map(|column| rows.batch().columns().get(*column).map(own));
            Some(Arrived {
                at,
                request: share.request.id.clone(),
                run: share.run,
                brought: share.rows,
                rows: rows.len(),
                origin: rows.origin().clone(),
                columns: columns.collect::<Option<_>>()?,
            })
        })
    }
}

/// The system's time, in microseconds since 1970 UTC.
fn system() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Hands on what travels an edge.
struct PredictionTap {
    predictions: Arc<Predictions>,
    /// The edge whose rows are taken: a port with several readers has several.
    edge: OnceLock<EdgeId>,
}

impl Tap for PredictionTap {
    fn observe(&self, seen: &Seen<'_>) {
        if *self.edge.get_or_init(|| seen.edge()) != seen.edge() {
            return;
        }
        let at = (self.predictions.clock)();
        let mut dropped = seen.rows().len() as u64;
        for (share, rows) in seen.requests() {
            if self.predictions.keep(share, &rows, at) {
                dropped = dropped.saturating_sub(rows.len() as u64);
            }
        }
        if dropped > 0 {
            self.predictions.inbox.dropped.fetch_add(dropped, Relaxed);
        }
    }
}
