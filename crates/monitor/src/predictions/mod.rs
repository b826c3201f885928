//! What a model predicted on an edge, on its way to its labels: how well it did, and how well it is expected to do.

mod classes;
mod columns;
mod detect;
#[cfg(test)]
mod detect_tests;
mod estimator;
mod inbox;
mod judge;
mod outcome;
#[cfg(test)]
mod outcome_tests;
mod saved;
mod series;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use arrow::{array::RecordBatch, datatypes::Schema};
use millstream_graph::{EdgeId, Origin, Rows, Seen, Share, Tap, spec::Time, suggest};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    classes::class_of,
    columns::PredictionColumns,
    detect::Named,
    estimator::Estimator,
    inbox::{Arrived, Inbox, own},
};
pub use self::{
    judge::Judge,
    outcome::{LabelCounts, Outcome, OutcomeCounts, Truth},
    saved::RestoreError,
};
use crate::{
    concept::DetectorSettings,
    performance::{
        BinaryMetrics, JoinConfig, LabelJoin, MeasureMetrics, MulticlassMetrics, RegressionMetrics,
    },
};

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
    /// For `multiclass`, the column that has the probability of each class, by the names of the classes: `{cat: p_cat, dog: p_dog}`,
    /// from 2 to 64 of them. Without a `prediction`, the likeliest is predicted.
    #[serde(default)]
    pub probabilities: BTreeMap<String, String>,
    /// For `multiclass`, the names of the classes that `prediction` and labels have, where there are no `probabilities`.
    #[serde(default)]
    pub classes: Vec<String>,
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
    /// many are held. A prediction of several classes takes 8 bytes more for each, and each of the `outcomes` as much as a label.
    #[serde(default = "most")]
    pub most: usize,
    /// The column of the edge's `reference` that has the label. With it, performance is estimated before labels come.
    pub label: Option<String>,
    /// Detectors of a change of the model's errors, such as `{ddm: {}}` or `{adwin: {delta: 0.002}}`; 16 at most. Each is told of every
    /// prediction whose label has come whether it was wrong, or for regression by how much.
    #[serde(default)]
    pub detectors: Vec<DetectorSettings>,
    /// Names of what predictions lead to, such as `revenue`: numbers that are posted as labels are, and summed up; 8 at most.
    #[serde(default)]
    pub outcomes: Vec<String>,
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
    /// One of several classes.
    Multiclass,
}

/// The predictions of one edge, on their way to a [`Judge`].
pub struct Predictions {
    /// The columns of a batch that are kept.
    kept: Vec<usize>,
    /// What these are.
    columns: PredictionColumns,
    inbox: Inbox,
    config: JoinConfig,
    estimator: Option<Estimator>,
    detectors: Vec<Named>,
    /// What predictions lead to, by name.
    outcomes: Vec<String>,
    /// What time it is, in microseconds since 1970 UTC.
    clock: fn() -> i64,
}

/// Bytes of the name of a class or measure that is told of.
const NAME_BYTES: usize = 256;
/// Score histograms that the open windows of one judge may hold: a few MiB at most, as a rule, and 9 GB without a bound.
const HISTOGRAMS: i64 = 4096;
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
        let detectors = detect::named(&spec.detectors, spec.task, &mut mistakes);
        outcomes(spec, &mut mistakes);
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
        let open = (config.lateness / config.window.max(1)).saturating_add(2);
        let classes = spec.probabilities.len() as i64;
        if spec.task == Task::Multiclass && open.saturating_mul(classes) > HISTOGRAMS {
            mistakes.push(format!(
                "{open} windows of {classes} classes are too many to hold at once: give a longer `window` or less `lateness`"
            ));
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
                let estimator = Estimator::fit(spec, label, rows);
                estimator
                    .map_err(|mistake| mistakes.push(format!("the reference cannot be judged by: {mistake}")))
                    .ok()
            }
        };
        match columns {
            Some(columns) if mistakes.is_empty() => {
                let (kept, columns) = columns.alone();
                let (inbox, outcomes) = (Inbox::default(), spec.outcomes.clone());
                Ok(Arc::new(Self { kept, columns, inbox, config, estimator, detectors, outcomes, clock }))
            }
            _ => Err(mistakes),
        }
    }

    /// The tap for the edge.
    pub fn tap(self: Arc<Self>) -> Arc<dyn Tap> {
        Arc::new(PredictionTap { predictions: self, edge: OnceLock::new() })
    }

    /// The names of the metrics that labels and outcomes lead to.
    pub fn metrics(&self) -> Vec<String> {
        let names = |metrics: Vec<(&'static str, Option<f64>)>| {
            metrics.into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        let mut all = match self.columns.task {
            Task::Binary => names(series::binary(&BinaryMetrics::default())),
            Task::Regression => names(series::regression(&RegressionMetrics::default())),
            Task::Multiclass => names(series::multiclass(&MulticlassMetrics::new(0))),
        };
        for outcome in &self.outcomes {
            let measured = series::measured(outcome, &MeasureMetrics::default());
            all.extend(measured.into_iter().map(|(name, _)| name));
        }
        all
    }

    /// Whether what is told of a prediction can be true of these.
    ///
    /// # Errors
    /// When it is of no class or measure that there is, or says nothing.
    pub fn check(&self, outcome: &Outcome) -> Result<(), String> {
        let classes = &self.columns.classes;
        // Which names are like a long one would take long to find, and be told with all of it.
        let long = |name: &str| name.len() > NAME_BYTES;
        if outcome.measures.iter().any(|(name, _)| long(name))
            || matches!(&outcome.label, Some(Truth::Class(name)) if long(name))
        {
            return Err(format!("a name has more than {NAME_BYTES} bytes"));
        }
        match &outcome.label {
            None if outcome.measures.is_empty() => {
                return Err("there is neither a `label` nor `measures`".to_owned());
            }
            Some(truth) if self.columns.task == Task::Multiclass => {
                if class_of(classes, truth).is_none() {
                    let known = classes.iter().map(String::as_str);
                    return Err(suggest::unknown("class", &truth.class(), known));
                }
            }
            Some(Truth::Class(_)) => return Err("`label` is a number, or true or false".to_owned()),
            Some(Truth::Number(_) | Truth::Flag(_)) | None => {}
        }
        for (name, value) in &outcome.measures {
            if !self.outcomes.contains(name) {
                let known = self.outcomes.iter().map(String::as_str);
                return Err(format!("measures: {}", suggest::unknown("outcome", name, known)));
            }
            if !value.is_finite() {
                return Err(format!("measures: `{name}` is no finite number"));
            }
        }
        Ok(())
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

/// What is wrong with the names of outcomes.
fn outcomes(spec: &PerformanceSpec, mistakes: &mut Vec<String>) {
    /// Each holds the predictions once more.
    const MOST: usize = 8;
    if spec.outcomes.len() > MOST {
        mistakes.push(format!("there are at most {MOST} `outcomes`, not {}", spec.outcomes.len()));
    }
    for (at, name) in spec.outcomes.iter().enumerate() {
        if !is_name(name) {
            mistakes.push(format!("outcomes: `{name}` {NAMING}"));
        }
        if spec.outcomes[..at].contains(name) {
            mistakes.push(format!("outcomes: `{name}` is there twice"));
        }
    }
}

/// The names of the metrics of all tasks.
pub(crate) fn metrics_of_tasks() -> impl Iterator<Item = &'static str> {
    let binary = series::binary(&BinaryMetrics::default());
    let regression = series::regression(&RegressionMetrics::default());
    let multiclass = series::multiclass(&MulticlassMetrics::new(0));
    [binary, regression, multiclass].into_iter().flatten().map(|(name, _)| name)
}

/// Whether a metric may be called that.
pub(crate) fn is_name(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    first && name.len() <= 64 && name.chars().all(|next| next.is_ascii_alphanumeric() || next == '_')
}

/// What names that are not [`is_name`] should be.
pub(crate) const NAMING: &str =
    "is no name of a metric: letters, digits and `_`, at most 64, and no digit first";

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
