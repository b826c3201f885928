//! What a model predicted on an edge, on its way to its labels: how well it did, and how well it is expected to do.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, Schema, TimeUnit},
};
use indexmap::IndexMap;
use millstream_graph::{EdgeId, Seen, Tap, spec::Time, suggest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    performance::{
        BinaryEstimator, BinaryMetrics, BinaryPrediction, ExpectedMetrics, JoinConfig, JoinCounts, JoinError,
        JoinState, LabelJoin, LabelReply, LabelledScore, Number, RegressionMetrics, ScoredRow,
    },
    report::{MetricSeries, Point},
    values,
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
    /// The column of the edge's `reference` that has the label. With it, performance is estimated before labels come.
    pub label: Option<String>,
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

/// The predictions of one edge, and what became of them.
pub struct Predictions {
    columns: PredictionColumns,
    inbox: Mutex<VecDeque<Arrived>>,
    dropped: AtomicU64,
    config: JoinConfig,
    estimator: Option<BinaryEstimator>,
}

/// The places of what a prediction is made of.
#[derive(Clone, Debug)]
struct PredictionColumns {
    task: Task,
    prediction: Option<usize>,
    positive: Option<String>,
    probability: Option<usize>,
    threshold: f64,
    id: Option<usize>,
    time: Option<usize>,
    segment: Option<usize>,
}

/// Rows as they came, which are looked at later.
struct Arrived {
    request: Option<Arc<str>>,
    run: u64,
    rows: RecordBatch,
}

/// Batches that wait to be looked at. When there are more, the newest is dropped and its rows are counted.
const INBOX: usize = 65_536;
/// Microseconds of a day.
const DAY: i64 = 24 * 3600 * 1_000_000;
/// Points of a series that are kept.
const POINTS: usize = 1000;

impl Predictions {
    /// The predictions of rows of `schema`. `reference` are rows whose labels are known, where the estimate is wanted.
    ///
    /// # Errors
    /// Every mistake.
    pub fn new(spec: &PerformanceSpec, schema: &Schema, reference: Option<&[RecordBatch]>) -> Result<Arc<Self>, Vec<String>> {
        let mut mistakes = Vec::new();
        let columns = PredictionColumns::new(spec, schema, &mut mistakes);
        let micros = |time: Option<Time>, usual: i64| {
            time.map_or(usual, |time| i64::try_from(time.0.as_micros()).unwrap_or(i64::MAX))
        };
        let config = JoinConfig::new(micros(spec.window, DAY), micros(spec.lateness, 30 * DAY));
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
                mistakes.push("regression is not estimated: an error model's output can be watched as a column".to_owned());
                None
            }
            (Some(label), Some(rows)) => {
                let estimator = estimator(spec, label, rows);
                estimator.map_err(|mistake| mistakes.push(format!("the reference cannot be judged by: {mistake}"))).ok()
            }
        };
        match columns {
            Some(columns) if mistakes.is_empty() => Ok(Arc::new(Self {
                columns,
                inbox: Mutex::default(),
                dropped: AtomicU64::new(0),
                config,
                estimator,
            })),
            _ => Err(mistakes),
        }
    }

    /// The tap for the edge.
    pub fn tap(self: Arc<Self>) -> Arc<dyn Tap> {
        Arc::new(PredictionTap { predictions: self, edge: std::sync::OnceLock::new() })
    }

    /// Rows that were not looked at because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Hands on what travels an edge.
struct PredictionTap {
    predictions: Arc<Predictions>,
    /// The edge whose rows are taken: a port with several readers has several.
    edge: std::sync::OnceLock<EdgeId>,
}

impl Tap for PredictionTap {
    fn observe(&self, seen: &Seen<'_>) {
        if *self.edge.get_or_init(|| seen.edge()) != seen.edge() {
            return;
        }
        for (share, rows) in seen.requests() {
            let arrived =
                Arrived { request: share.request.id.clone(), run: share.run.0, rows: rows.into_batch() };
            let mut inbox = self.predictions.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.len() < INBOX {
                inbox.push_back(arrived);
            } else {
                self.predictions.dropped.fetch_add(arrived.rows.num_rows() as u64, Relaxed);
            }
        }
    }
}

impl PredictionColumns {
    fn new(spec: &PerformanceSpec, schema: &Schema, mistakes: &mut Vec<String>) -> Option<Self> {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let before = mistakes.len();
        let mut place = |name: &Option<String>| {
            let name = name.as_ref()?;
            let found = names().position(|known| known == name);
            if found.is_none() {
                mistakes.push(suggest::unknown("column", name, names()));
            }
            found
        };
        let columns = Self {
            task: spec.task,
            prediction: place(&spec.prediction),
            positive: spec.positive.clone(),
            probability: place(&spec.probability),
            threshold: spec.threshold.unwrap_or(0.5),
            id: place(&spec.id),
            time: place(&spec.time),
            segment: place(&spec.segment),
        };
        match spec.task {
            Task::Binary if spec.prediction.is_none() && spec.probability.is_none() => {
                mistakes.push("name the column of the `prediction`, of the `probability`, or of both".to_owned());
            }
            Task::Regression if spec.prediction.is_none() => {
                mistakes.push("name the column of the `prediction`".to_owned());
            }
            _ => {}
        }
        (mistakes.len() == before).then_some(columns)
    }

    /// What was predicted in each row: yes or no, or a number, and the probability of a yes.
    fn read(&self, rows: &RecordBatch) -> Vec<Option<(f64, f64)>> {
        let number = |place: Option<usize>| -> Option<ArrayRef> {
            cast(rows.columns().get(place?)?, &DataType::Float64).ok()
        };
        let probability = number(self.probability);
        let value = |array: &Option<ArrayRef>, row: usize| {
            let array = array.as_ref()?.as_primitive::<Float64Type>();
            array.is_valid(row).then(|| array.value(row))
        };
        let prediction = self.prediction.and_then(|place| rows.columns().get(place));
        let mut said: Vec<Option<f64>> = match prediction {
            Some(array) if self.positive.is_some() || is_text(array.data_type()) => {
                let mut said = vec![None; rows.num_rows()];
                let positive = self.positive.as_deref();
                values::labels(array, &mut |row, label| {
                    said[row] = label.map(|label| f64::from(u8::from(Some(label) == positive)));
                });
                said
            }
            Some(_) => {
                let numbers = number(self.prediction);
                (0..rows.num_rows()).map(|row| value(&numbers, row)).collect()
            }
            None => vec![None; rows.num_rows()],
        };
        if self.prediction.is_none() {
            for (row, said) in said.iter_mut().enumerate() {
                *said = value(&probability, row).map(|probability| f64::from(u8::from(probability >= self.threshold)));
            }
        }
        let probability = |row| value(&probability, row).unwrap_or(f64::NAN);
        said.into_iter().enumerate().map(|(row, said)| Some((said?, probability(row)))).collect()
    }

    fn times(&self, rows: &RecordBatch) -> Option<ArrayRef> {
        micros(rows.columns().get(self.time?)?)
    }

    fn names(&self, arrived: &Arrived) -> Vec<Option<String>> {
        let rows = arrived.rows.num_rows();
        if let Some(column) = self.id.and_then(|place| arrived.rows.columns().get(place)) {
            let mut names = vec![None; rows];
            values::labels(column, &mut |row, label| names[row] = label.map(str::to_owned));
            return names;
        }
        let request = arrived.request.as_ref().map_or_else(|| format!("{:016x}", arrived.run), |id| id.to_string());
        match rows {
            1 => vec![Some(request)],
            _ => (0..rows).map(|row| Some(format!("{request}/{row}"))).collect(),
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean | DataType::Dictionary(..))
}

/// Times as microseconds since 1970 UTC. Text is read as a timestamp.
fn micros(array: &ArrayRef) -> Option<ArrayRef> {
    let stamps = match array.data_type() {
        DataType::Int64 => return Some(Arc::clone(array)),
        _ => cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?,
    };
    cast(&stamps, &DataType::Int64).ok()
}

/// What a reference says of probabilities and labels.
fn estimator(spec: &PerformanceSpec, label: &str, reference: &[RecordBatch]) -> Result<BinaryEstimator, String> {
    let mut rows = Vec::new();
    // A reference has no names, times or segments, and may leave it to the threshold what was predicted.
    let mut spec = PerformanceSpec { id: None, time: None, segment: None, ..spec.clone() };
    let predicted = |name: &mut String| reference.iter().all(|batch| batch.column_by_name(name).is_some());
    spec.prediction = spec.prediction.take_if(predicted);
    let spec = &spec;
    for batch in reference {
        let mut mistakes = Vec::new();
        let columns = PredictionColumns::new(spec, &batch.schema(), &mut mistakes);
        let columns = columns.ok_or_else(|| mistakes.join("; "))?;
        let labels = batch.column_by_name(label);
        let names = batch.schema();
        let known = || names.fields().iter().map(|field| field.name().as_str());
        let labels = labels.ok_or_else(|| suggest::unknown("column", label, known()))?;
        let labels = cast(labels, &DataType::Float64).map_err(|error| error.to_string())?;
        let labels = labels.as_primitive::<Float64Type>();
        for (row, said) in columns.read(batch).into_iter().enumerate() {
            let Some((predicted, score)) = said.filter(|_| labels.is_valid(row)) else { continue };
            let row = LabelledScore {
                row: ScoredRow { score, predicted: predicted > 0.5 },
                label: labels.value(row) > 0.5,
            };
            rows.push(row);
        }
    }
    // As many chunks as NannyML makes when nothing else is said.
    const CHUNKS: usize = 10;
    BinaryEstimator::fit(&rows, rows.len().div_ceil(CHUNKS).max(1)).map_err(|error| error.to_string())
}

/// How the predictions of one edge are judged, over the versions of a project. It is driven by whoever turns panes.
#[derive(Debug)]
pub struct Judge {
    judged: Judged,
    /// The time of the last prediction, where predictions say when they were made: that is the present then.
    clock: Option<i64>,
    closed: BTreeMap<String, VecDeque<Point>>,
    estimates: BTreeMap<i64, ExpectedMetrics>,
}

#[derive(Debug)]
enum Judged {
    Binary(LabelJoin<BinaryMetrics>),
    Regression(LabelJoin<RegressionMetrics>),
}

/// What became of a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelCounts {
    /// Labels whose prediction was there.
    pub joined: u64,
    /// Labels that took the place of another.
    pub corrected: u64,
    /// Labels whose prediction may still come.
    pub waiting: u64,
    /// Labels that came too late or too early.
    pub out_of_time: u64,
    /// Labels of no prediction.
    pub unknown: u64,
    /// Labels that were there already.
    pub repeated: u64,
}

impl Judge {
    /// Judges predictions as `predictions` has them, from `now` on.
    ///
    /// # Errors
    /// When the windows make no sense, which [`Predictions::new`] has ruled out.
    pub fn new(predictions: &Predictions, now: i64) -> Result<Self, JoinError> {
        let config = predictions.config.clone();
        let judged = match predictions.columns.task {
            Task::Binary => Judged::Binary(LabelJoin::new(BinaryMetrics::default(), config, now)?),
            Task::Regression => Judged::Regression(LabelJoin::new(RegressionMetrics::default(), config, now)?),
        };
        Ok(Self { judged, clock: None, closed: BTreeMap::new(), estimates: BTreeMap::new() })
    }

    /// Takes what has arrived.
    pub fn take(&mut self, predictions: &Predictions, now: i64) {
        let arrived = std::mem::take(&mut *predictions.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        let columns = &predictions.columns;
        // Where rows say when they are of, their time is the clock: a replay has no other.
        let mut clock = if columns.time.is_some() { i64::MIN } else { now };
        for arrived in &arrived {
            let times = columns.times(&arrived.rows);
            let mut segments = vec![String::new(); arrived.rows.num_rows()];
            if let Some(column) = columns.segment.and_then(|place| arrived.rows.columns().get(place)) {
                values::labels(column, &mut |row, label| segments[row] = label.unwrap_or_default().to_owned());
            }
            let names = columns.names(arrived);
            for (row, said) in columns.read(&arrived.rows).into_iter().enumerate() {
                let (Some((said, probability)), Some(name)) = (said, &names[row]) else { continue };
                let at = times.as_ref().map(|times| times.as_primitive::<Int64Type>());
                let at = at.map_or(Some(now), |times| times.is_valid(row).then(|| times.value(row)));
                let Some(at) = at else { continue };
                clock = clock.max(at);
                self.predict(name, at, &segments[row], (said, probability), predictions);
            }
        }
        if columns.time.is_some() && clock > i64::MIN {
            self.clock = self.clock.max(Some(clock));
        }
        if clock > i64::MIN {
            self.advance(clock);
        }
    }

    fn predict(&mut self, name: &str, at: i64, segment: &str, (said, probability): (f64, f64), predictions: &Predictions) {
        match &mut self.judged {
            Judged::Binary(join) => {
                // The clock goes with the rows, or those of a replay would be of the future.
                join.advance(at);
                join.predict(name, at, segment, BinaryPrediction { positive: said > 0.5, probability });
                if let Some(estimator) = &predictions.estimator {
                    let calibrated = estimator.calibrator().calibrate(probability);
                    let start = at.div_euclid(predictions.config.window) * predictions.config.window;
                    self.estimates.entry(start).or_default().add(probability, said > 0.5, calibrated);
                    while self.estimates.len() > POINTS {
                        self.estimates.pop_first();
                    }
                }
            }
            Judged::Regression(join) => {
                join.advance(at);
                join.predict(name, at, segment, Number(said));
            }
        }
    }

    /// Takes a label of the prediction of this name, which became true at `at`, or at the present: `now`, unless predictions say
    /// themselves when they were made.
    pub fn label(&mut self, name: &str, at: Option<i64>, value: f64, now: i64, counts: &mut LabelCounts) {
        let at = at.or(self.clock).unwrap_or(now);
        let reply = match &mut self.judged {
            Judged::Binary(join) => {
                join.advance(at);
                join.label(name, at, value > 0.5)
            }
            Judged::Regression(join) => {
                join.advance(at);
                join.label(name, at, Number(value))
            }
        };
        *match reply {
            LabelReply::Joined => &mut counts.joined,
            LabelReply::Corrected => &mut counts.corrected,
            LabelReply::Waiting => &mut counts.waiting,
            LabelReply::TooLate | LabelReply::TooEarly => &mut counts.out_of_time,
            LabelReply::Unknown => &mut counts.unknown,
            LabelReply::Repeated => &mut counts.repeated,
        } += 1;
    }

    fn advance(&mut self, now: i64) {
        let closed = match &mut self.judged {
            Judged::Binary(join) => {
                join.advance(now);
                let closed = join.take_closed();
                closed.iter().flat_map(|window| series_of(window.start(), window.segments(), window.total(), binary)).collect::<Vec<_>>()
            }
            Judged::Regression(join) => {
                join.advance(now);
                let closed = join.take_closed();
                closed.iter().flat_map(|window| series_of(window.start(), window.segments(), window.total(), regression)).collect()
            }
        };
        for (key, point) in closed {
            let points = self.closed.entry(key).or_default();
            if points.len() == POINTS {
                points.pop_front();
            }
            points.push_back(point);
        }
    }

    /// What became of predictions and labels.
    pub fn counts(&self) -> &JoinCounts {
        match &self.judged {
            Judged::Binary(join) => join.counts(),
            Judged::Regression(join) => join.counts(),
        }
    }

    /// Every metric over time: as labels say, and as is expected where they have not come.
    pub fn series(&self, predictions: &Predictions) -> Vec<MetricSeries> {
        let mut realised: IndexMap<String, Vec<Point>> =
            self.closed.iter().map(|(key, points)| (key.clone(), points.iter().copied().collect())).collect();
        let open = match &self.judged {
            Judged::Binary(join) => join
                .open_windows()
                .flat_map(|window| series_of(window.start(), window.segments(), window.total(), binary))
                .collect::<Vec<_>>(),
            Judged::Regression(join) => join
                .open_windows()
                .flat_map(|window| series_of(window.start(), window.segments(), window.total(), regression))
                .collect(),
        };
        for (key, point) in open {
            realised.entry(key).or_default().push(point);
        }
        let mut estimated: IndexMap<&str, Vec<Point>> = IndexMap::new();
        for (start, expected) in &self.estimates {
            for (name, value) in expected.metrics().named() {
                let point = value.map(|value| Point { at: *start, value });
                estimated.entry(name).or_default().extend(point);
            }
        }
        let bounds = |name: &str| {
            let bounds = predictions.estimator.as_ref()?.bounds().named();
            bounds.into_iter().find(|(known, _)| *known == name)?.1
        };
        for name in estimated.keys() {
            realised.entry((*name).to_owned()).or_default();
        }
        let series = realised.into_iter().map(|(key, realised)| {
            let (name, segment) = match key.split_once('\u{1f}') {
                Some((name, segment)) => (name.to_owned(), Some(segment.to_owned())),
                None => (key, None),
            };
            let bounds = bounds(&name).filter(|_| segment.is_none());
            MetricSeries {
                estimated: match segment {
                    None => estimated.get(&*name).cloned().unwrap_or_default(),
                    Some(_) => Vec::new(),
                },
                lower: bounds.map(|bounds| bounds.lower),
                upper: bounds.map(|bounds| bounds.upper),
                name,
                segment,
                realised,
            }
        });
        series.collect()
    }

    /// All that a restart needs, for a file.
    ///
    /// # Errors
    /// None that its own types allow.
    pub fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        let (binary, regression) = match &self.judged {
            Judged::Binary(join) => (Some(join.state()), None),
            Judged::Regression(join) => (None, Some(join.state())),
        };
        let closed = self.closed.clone();
        postcard::to_stdvec(&Saved { version: VERSION, binary, regression, closed, estimates: self.estimates.clone() })
    }

    /// Takes up what was saved, if it is of the same task.
    ///
    /// # Errors
    /// When the bytes are of something else.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let saved: Saved = postcard::from_bytes(bytes)?;
        self.judged = match (&self.judged, saved.binary, saved.regression) {
            (Judged::Binary(_), Some(state), _) if saved.version == VERSION => Judged::Binary(LabelJoin::restore(state)?),
            (Judged::Regression(_), _, Some(state)) if saved.version == VERSION => {
                Judged::Regression(LabelJoin::restore(state)?)
            }
            _ => return Err(RestoreError::Foreign),
        };
        (self.closed, self.estimates) = (saved.closed, saved.estimates);
        Ok(())
    }
}

/// The version of the form that predictions are saved in.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    binary: Option<JoinState<BinaryMetrics>>,
    regression: Option<JoinState<RegressionMetrics>>,
    closed: BTreeMap<String, VecDeque<Point>>,
    estimates: BTreeMap<i64, ExpectedMetrics>,
}

/// Why saved predictions cannot be taken up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The bytes are no predictions.
    #[error("they are no predictions that were saved")]
    Bytes(#[from] postcard::Error),
    /// They do not go together.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// They are of another task or version.
    #[error("they are of another task or version")]
    Foreign,
}

/// The metrics of a window and its segments, by name; a segment stands behind a separator that no name has.
fn series_of<'s, A: Clone + 's>(
    start: i64,
    segments: impl Iterator<Item = (&'s str, &'s crate::performance::Segment<A>)>,
    total: crate::performance::Segment<A>,
    metrics: impl Fn(&A) -> Vec<(&'static str, Option<f64>)>,
) -> Vec<(String, Point)> {
    let mut series = Vec::new();
    let mut add = |segment: Option<&str>, counted: &A, labelled: u64| {
        for (name, value) in metrics(counted).into_iter().filter(|_| labelled > 0) {
            let key = segment.map_or_else(|| name.to_owned(), |segment| format!("{name}\u{1f}{segment}"));
            series.extend(value.map(|value| (key, Point { at: start, value })));
        }
    };
    add(None, &total.metrics, total.labelled);
    for (name, segment) in segments.filter(|(name, _)| !name.is_empty()) {
        add(Some(name), &segment.metrics, segment.labelled);
    }
    series
}

fn binary(metrics: &BinaryMetrics) -> Vec<(&'static str, Option<f64>)> {
    let rates = metrics.confusion().rates();
    vec![
        ("roc_auc", metrics.roc_auc()),
        ("f1", rates.f1),
        ("precision", rates.precision),
        ("recall", rates.recall),
        ("specificity", rates.specificity),
        ("accuracy", rates.accuracy),
        ("log_loss", metrics.log_loss()),
        ("brier", metrics.brier()),
        ("calibration_error", metrics.expected_calibration_error()),
    ]
}

fn regression(metrics: &RegressionMetrics) -> Vec<(&'static str, Option<f64>)> {
    vec![
        ("mae", metrics.mae()),
        ("mse", metrics.mse()),
        ("rmse", metrics.rmse()),
        ("mape", metrics.mape()),
        ("r2", metrics.r2()),
    ]
}
