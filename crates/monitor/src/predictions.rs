//! What a model predicted on an edge, on its way to its labels: how well it did, and how well it is expected to do.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array},
    compute::{cast, take},
    datatypes::{DataType, Float64Type, Int64Type, Schema, TimeUnit},
};
use indexmap::IndexMap;
use millstream_graph::{EdgeId, Origin, Rows, RunId, Seen, Share, Tap, spec::Time, suggest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    performance::{
        Accumulator, BinaryEstimator, BinaryMetrics, BinaryPrediction, ExpectedMetrics, JoinConfig,
        JoinCounts, JoinError, JoinState, LabelJoin, LabelReply, LabelledScore, Number, PredictReply,
        RegressionMetrics, ScoredRow, Segment, Window,
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
    /// When they came, in microseconds since 1970 UTC.
    at: i64,
    request: Option<Arc<str>>,
    run: RunId,
    /// How many rows the request brought.
    brought: usize,
    /// How many of them are here, and which.
    rows: usize,
    origin: Origin,
    columns: Vec<ArrayRef>,
}

/// Microseconds of a day.
const DAY: i64 = 24 * 3600 * 1_000_000;
/// Points of a series that are kept, and how many windows a series goes without one until it is dropped.
const POINTS: usize = 1000;
/// Series that are kept. Those go first whose last point is the oldest.
const SERIES: usize = 2000;
/// The segment of all those for which a window had no place.
const OTHERS: &str = "others";

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

/// Rows that wait to be looked at. Nobody who adds some waits for a lock: where a place is taken, there is the next one.
#[derive(Default)]
struct Inbox {
    places: [Place; 4],
    rows: AtomicUsize,
    batches: AtomicUsize,
    dropped: AtomicU64,
}

/// On cache lines of its own, because its lock is taken for each batch.
#[derive(Default)]
#[repr(align(128))]
struct Place(Mutex<Vec<Arrived>>);

impl Inbox {
    /// Rows, and batches, that wait at most. Where there are more, the newest are dropped.
    const ROWS: usize = 1_000_000;
    const BATCHES: usize = 65_536;
    /// How often all places are tried.
    const ROUNDS: usize = 2;

    /// Adds a batch of so many rows, if there is room. Answers whether there was.
    fn push(&self, rows: usize, batch: impl FnOnce() -> Option<Arrived>) -> bool {
        let before = (self.rows.fetch_add(rows, Relaxed), self.batches.fetch_add(1, Relaxed));
        let room = before.0.saturating_add(rows) <= Self::ROWS && before.1 < Self::BATCHES;
        let batch = if room { batch() } else { None };
        let pushed = batch.is_some_and(|batch| self.place().map(|mut place| place.push(batch)).is_some());
        if !pushed {
            self.make_room(rows, 1);
        }
        pushed
    }

    /// A place that is free.
    fn place(&self) -> Option<MutexGuard<'_, Vec<Arrived>>> {
        let (first, places) = (this_thread(), self.places.len());
        (0..places * Self::ROUNDS).find_map(|next| match self.places[(first + next) % places].0.try_lock() {
            Ok(place) => Some(place),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    /// Takes all, by the time at which they came.
    fn drain(&self) -> Vec<Arrived> {
        let mut all = Vec::new();
        for Place(place) in &self.places {
            // The lock is not held while they are moved: somebody may want to add some.
            let taken = std::mem::take(&mut *place.lock().unwrap_or_else(PoisonError::into_inner));
            all.extend(taken);
        }
        self.make_room(all.iter().map(|arrived| arrived.rows).sum(), all.len());
        all.sort_by_key(|arrived| arrived.at);
        all
    }

    fn make_room(&self, rows: usize, batches: usize) {
        self.rows.fetch_sub(rows, Relaxed);
        self.batches.fetch_sub(batches, Relaxed);
    }
}

/// A number for the thread, so that threads begin at different places.
fn this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed));
    }
    NUMBER.get()
}

/// The column to keep. One that is a small part of what it was cut from is copied, or it would hold all of that.
fn own(array: &ArrayRef) -> ArrayRef {
    /// What a column may hold without being looked at, in bytes, and for each row.
    const FREE: (usize, usize) = (256, 64);
    if array.get_buffer_memory_size() <= FREE.0 + FREE.1 * array.len() {
        return Arc::clone(array);
    }
    let copy = match array.data_type() {
        DataType::Utf8View => Ok(Arc::new(array.as_string_view().gc()) as ArrayRef),
        // A dictionary holds values of other rows.
        DataType::Dictionary(_, values) if **values == DataType::Utf8View => cast(array, &DataType::Utf8),
        DataType::Dictionary(_, values) => cast(array, values),
        _ => take(array, &UInt32Array::from_iter_values(0..array.len() as u32), None),
    };
    copy.unwrap_or_else(|_| Arc::clone(array))
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
                mistakes
                    .push("name the column of the `prediction`, of the `probability`, or of both".to_owned());
            }
            Task::Regression if spec.prediction.is_none() => {
                mistakes.push("name the column of the `prediction`".to_owned());
            }
            _ => {}
        }
        (mistakes.len() == before).then_some(columns)
    }

    /// The columns that are needed, and these places among those alone.
    fn alone(self) -> (Vec<usize>, Self) {
        let mut kept = Vec::new();
        let mut place = |place: Option<usize>| {
            let place = place?;
            let known = kept.iter().position(|kept| *kept == place);
            Some(known.unwrap_or_else(|| {
                kept.push(place);
                kept.len() - 1
            }))
        };
        let alone = Self {
            prediction: place(self.prediction),
            probability: place(self.probability),
            id: place(self.id),
            time: place(self.time),
            segment: place(self.segment),
            ..self
        };
        (kept, alone)
    }

    /// What was predicted in each row: yes or no, or a number, and the probability of a yes.
    fn read(&self, columns: &[ArrayRef], rows: usize) -> Vec<Option<(f64, f64)>> {
        let number = |place: Option<usize>| -> Option<ArrayRef> {
            cast(columns.get(place?)?, &DataType::Float64).ok()
        };
        let probability = number(self.probability);
        let value = |array: &Option<ArrayRef>, row: usize| {
            let array = array.as_ref()?.as_primitive::<Float64Type>();
            array.is_valid(row).then(|| array.value(row))
        };
        let prediction = self.prediction.and_then(|place| columns.get(place));
        let mut said: Vec<Option<f64>> = match prediction {
            Some(array) if self.positive.is_some() || is_text(array.data_type()) => {
                let mut said = vec![None; rows];
                let positive = self.positive.as_deref();
                values::labels(array, &mut |row, label| {
                    said[row] = label.map(|label| f64::from(u8::from(Some(label) == positive)));
                });
                said
            }
            Some(_) => {
                let numbers = number(self.prediction);
                (0..rows).map(|row| value(&numbers, row)).collect()
            }
            None => vec![None; rows],
        };
        if self.prediction.is_none() {
            for (row, said) in said.iter_mut().enumerate() {
                *said = value(&probability, row)
                    .map(|probability| f64::from(u8::from(probability >= self.threshold)));
            }
        }
        let probability = |row| value(&probability, row).unwrap_or(f64::NAN);
        said.into_iter().enumerate().map(|(row, said)| Some((said?, probability(row)))).collect()
    }

    /// When each row was predicted: as it says itself, or when it came, which is not after the present.
    fn times(&self, arrived: &Arrived, now: i64) -> Vec<Option<i64>> {
        let Some(place) = self.time else { return vec![Some(arrived.at.min(now)); arrived.rows] };
        let Some(times) = arrived.columns.get(place).and_then(micros) else {
            return vec![None; arrived.rows];
        };
        times.as_primitive::<Int64Type>().iter().collect()
    }

    /// What labels call each row.
    fn names(&self, arrived: &Arrived) -> Vec<Option<String>> {
        if let Some(column) = self.id.and_then(|place| arrived.columns.get(place)) {
            let mut names = vec![None; arrived.rows];
            values::labels(column, &mut |row, label| names[row] = label.map(str::to_owned));
            return names;
        }
        let request = arrived.request.as_ref().map_or_else(|| arrived.run.to_string(), |id| id.to_string());
        let name = |row| match arrived.brought {
            1 => Some(request.clone()),
            _ => Some(format!("{request}/{}", arrived.origin.place(row)?)),
        };
        (0..arrived.rows).map(name).collect()
    }

    /// The segment of each row, empty where it has none.
    fn segments(&self, arrived: &Arrived) -> Vec<String> {
        let mut segments = vec![String::new(); arrived.rows];
        if let Some(column) = self.segment.and_then(|place| arrived.columns.get(place)) {
            values::labels(column, &mut |row, label| segments[row] = label.unwrap_or_default().to_owned());
        }
        segments
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Boolean
            | DataType::Dictionary(..)
    )
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
fn estimator(
    spec: &PerformanceSpec,
    label: &str,
    reference: &[RecordBatch],
) -> Result<BinaryEstimator, String> {
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
        for (row, said) in columns.read(batch.columns(), batch.num_rows()).into_iter().enumerate() {
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
///
/// Its clock is the present, or the time of the last prediction where predictions say themselves when they were made: a replay has no
/// other. It never goes beyond the present, and labels do not move it.
#[derive(Debug)]
pub struct Judge {
    judged: Judged,
    /// Whether predictions say themselves when they were made.
    timed: bool,
    closed: Series,
    estimates: BTreeMap<i64, ExpectedMetrics>,
}

#[derive(Debug)]
enum Judged {
    Binary(LabelJoin<BinaryMetrics>),
    Regression(LabelJoin<RegressionMetrics>),
}

/// The same for both kinds.
macro_rules! either {
    ($judged:expr, $join:ident => $do:expr) => {
        match $judged {
            Judged::Binary($join) => $do,
            Judged::Regression($join) => $do,
        }
    };
}

/// What is known of one row.
struct Row<'r> {
    name: &'r str,
    at: i64,
    segment: &'r str,
    said: f64,
    probability: f64,
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
            Task::Regression => {
                Judged::Regression(LabelJoin::new(RegressionMetrics::default(), config, now)?)
            }
        };
        let timed = predictions.columns.time.is_some();
        Ok(Self { judged, timed, closed: Series::default(), estimates: BTreeMap::new() })
    }

    /// Whether it was made for the same task, window and lateness. One that does not fit cannot go on with these predictions.
    pub fn fits(&self, predictions: &Predictions) -> bool {
        let task = match &self.judged {
            Judged::Binary(_) => Task::Binary,
            Judged::Regression(_) => Task::Regression,
        };
        task == predictions.columns.task && goes_on(self.config(), &predictions.config)
    }

    /// Takes what has arrived up to `now`.
    pub fn take(&mut self, predictions: &Predictions, now: i64) {
        let columns = &predictions.columns;
        self.timed = columns.time.is_some();
        let JoinConfig { capacity, waiting, .. } = predictions.config;
        either!(&mut self.judged, join => join.bound(capacity, waiting));
        for arrived in predictions.inbox.drain() {
            let (names, times) = (columns.names(&arrived), columns.times(&arrived, now));
            let segments = columns.segments(&arrived);
            for (row, said) in columns.read(&arrived.columns, arrived.rows).into_iter().enumerate() {
                let (Some((said, probability)), Some(name), Some(at)) = (said, &names[row], times[row])
                else {
                    continue;
                };
                let row = Row { name, at, segment: &segments[row], said, probability };
                self.predict(&row, predictions.estimator.as_ref(), now);
            }
        }
        if !self.timed {
            either!(&mut self.judged, join => join.advance(now));
        }
        self.close();
    }

    fn predict(&mut self, row: &Row<'_>, estimator: Option<&BinaryEstimator>, now: i64) {
        let Row { name, at, segment, said, probability } = *row;
        // The clock goes with the rows, or those of a replay would be of the future. What is too far in the future to be taken says
        // nothing of the time.
        if at <= now.saturating_add(self.config().lateness) {
            either!(&mut self.judged, join => join.advance(at.min(now)));
        }
        let reply = match &mut self.judged {
            Judged::Binary(join) => {
                join.predict(name, at, segment, BinaryPrediction { positive: said > 0.5, probability })
            }
            Judged::Regression(join) => join.predict(name, at, segment, Number(said)),
        };
        let taken = matches!(reply, PredictReply::Added | PredictReply::Joined);
        if let Some(estimator) = estimator.filter(|_| taken) {
            let calibrated = estimator.calibrator().calibrate(probability);
            let start = self.config().window_of(at);
            self.estimates.entry(start).or_default().add(probability, said > 0.5, calibrated);
            while self.estimates.len() > POINTS {
                self.estimates.pop_first();
            }
        }
    }

    /// Takes a label of the prediction of this name, which became true at `at`. Without it, it is dated `now`, or at the last
    /// prediction where predictions say themselves when they were made.
    pub fn label(&mut self, name: &str, at: Option<i64>, value: f64, now: i64, counts: &mut LabelCounts) {
        let last = Some(self.now()).filter(|last| self.timed && *last > i64::MIN);
        let at = at.or(last).unwrap_or(now);
        let reply = match &mut self.judged {
            Judged::Binary(join) => join.label(name, at, value > 0.5),
            Judged::Regression(join) => join.label(name, at, Number(value)),
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

    fn now(&self) -> i64 {
        either!(&self.judged, join => join.now())
    }

    fn config(&self) -> &JoinConfig {
        either!(&self.judged, join => join.config())
    }

    /// Notes what is final, and forgets what is long ago.
    fn close(&mut self) {
        let (now, window) = (self.now(), self.config().window);
        let closed = match &mut self.judged {
            Judged::Binary(join) => points_of(join.take_closed().iter(), binary),
            Judged::Regression(join) => points_of(join.take_closed().iter(), regression),
        };
        if !closed.is_empty() {
            self.closed.add(closed, now, window);
        }
        let oldest = now.saturating_sub(windows(window));
        self.estimates.retain(|start, _| *start >= oldest);
    }

    /// What became of predictions and labels.
    pub fn counts(&self) -> &JoinCounts {
        either!(&self.judged, join => join.counts())
    }

    /// Every metric over time: as labels say, and as is expected where they have not come.
    pub fn series(&self, predictions: &Predictions) -> Vec<MetricSeries> {
        let mut realised = self.closed.clone();
        let open = match &self.judged {
            Judged::Binary(join) => points_of(join.open_windows(), binary),
            Judged::Regression(join) => points_of(join.open_windows(), regression),
        };
        realised.add(open, self.now(), self.config().window);
        let mut realised = realised.0;
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
            let (name, segment) = match key.split_once(SEPARATOR) {
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
                realised: realised.into(),
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
        postcard::to_stdvec(&Saved {
            version: VERSION,
            binary,
            regression,
            closed,
            estimates: self.estimates.clone(),
        })
    }

    /// Takes up what was saved, if it is of the same task, window and lateness.
    ///
    /// # Errors
    /// When the bytes are of something else. The judge is as it was then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let saved: Saved = postcard::from_bytes(bytes)?;
        if saved.version != VERSION {
            return Err(RestoreError::Foreign);
        }
        self.judged = match (&self.judged, saved.binary, saved.regression) {
            (Judged::Binary(join), Some(state), _) => Judged::Binary(taken_up(join, state)?),
            (Judged::Regression(join), _, Some(state)) => Judged::Regression(taken_up(join, state)?),
            _ => return Err(RestoreError::Changed),
        };
        (self.closed, self.estimates) = (saved.closed, saved.estimates);
        Ok(())
    }
}

/// Whether what was counted under one of the two stays true under the other.
fn goes_on(one: &JoinConfig, other: &JoinConfig) -> bool {
    (one.window, one.lateness) == (other.window, other.lateness)
}

/// A table that was saved, under the bounds of this one.
fn taken_up<A: Accumulator>(join: &LabelJoin<A>, state: JoinState<A>) -> Result<LabelJoin<A>, RestoreError> {
    if !goes_on(state.config(), join.config()) {
        return Err(RestoreError::Changed);
    }
    Ok(LabelJoin::restore(state.with_config(join.config().clone()))?)
}

/// The version of the form that predictions are saved in.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    binary: Option<JoinState<BinaryMetrics>>,
    regression: Option<JoinState<RegressionMetrics>>,
    closed: Series,
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
    /// They are in another form.
    #[error("they are of another version of the program")]
    Foreign,
    /// They were counted otherwise.
    #[error("they are of another `task`, `window` or `lateness`")]
    Changed,
}

/// The points of metrics, and of metrics of segments: those stand behind a separator that no name of a metric has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
struct Series(IndexMap<String, VecDeque<Point>>);

const SEPARATOR: char = '\u{1f}';

/// The form of series in a file: points are written for JSON otherwise, which a file of bytes cannot be read back from.
type Wire = Vec<(String, Vec<(i64, f64)>)>;

impl From<Wire> for Series {
    fn from(wire: Wire) -> Self {
        let points =
            |points: Vec<(i64, f64)>| points.into_iter().map(|(at, value)| Point { at, value }).collect();
        Self(wire.into_iter().map(|(key, of)| (key, points(of))).collect())
    }
}

impl From<Series> for Wire {
    fn from(Series(series): Series) -> Self {
        let points =
            |points: VecDeque<Point>| points.into_iter().map(|Point { at, value }| (at, value)).collect();
        series.into_iter().map(|(key, of)| (key, points(of))).collect()
    }
}

impl Series {
    /// Adds points, by time. Series that end long before the last window, and before `now`, are dropped, and those beyond the bound.
    fn add(&mut self, points: Vec<(String, Point)>, now: i64, window: i64) {
        for (key, point) in points {
            let points = self.0.entry(key).or_default();
            if points.len() == POINTS {
                points.pop_front();
            }
            points.push_back(point);
        }
        let last = |points: &VecDeque<Point>| points.back().map_or(i64::MIN, |point| point.at);
        let newest = self.0.values().map(last).max().unwrap_or(i64::MIN).min(now);
        let oldest = newest.saturating_sub(windows(window));
        self.0.retain(|_, points| last(points) >= oldest);
        if self.0.len() > SERIES {
            let mut ends: Vec<(i64, String)> =
                self.0.iter().map(|(key, points)| (last(points), key.clone())).collect();
            ends.sort_unstable();
            ends.truncate(self.0.len() - SERIES);
            let gone: BTreeSet<String> = ends.into_iter().map(|(_, key)| key).collect();
            self.0.retain(|key, _| !gone.contains(key));
        }
    }
}

/// How far back the first of as many windows begins as series have points.
fn windows(window: i64) -> i64 {
    window.saturating_mul(POINTS as i64 - 1)
}

/// The metrics of windows and their segments, where there are labels.
fn points_of<'w, A: Accumulator + 'w>(
    windows: impl Iterator<Item = &'w Window<A>>,
    metrics: impl Fn(&A) -> Vec<(&'static str, Option<f64>)>,
) -> Vec<(String, Point)> {
    let mut points = Vec::new();
    for window in windows {
        let at = window.start();
        let mut add = |name: Option<&str>, segment: &Segment<A>| {
            for (metric, value) in metrics(&segment.metrics).into_iter().filter(|_| segment.labelled > 0) {
                let key = name.map_or_else(|| metric.to_owned(), |name| format!("{metric}{SEPARATOR}{name}"));
                points.extend(value.map(|value| (key, Point { at, value })));
            }
        };
        add(None, &window.total());
        for (name, segment) in window.segments().filter(|(name, _)| !name.is_empty() && *name != OTHERS) {
            add(Some(name), segment);
        }
        // A segment may have that name, too.
        let mut others = window.other().clone();
        window.segment(OTHERS).into_iter().for_each(|segment| others.merge(segment));
        add(Some(OTHERS), &others);
    }
    points
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use arrow::array::StringArray;
    use millstream_graph::{Request, RunCx, rows};
    use serde_json::json;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    thread_local! {
        static CLOCK: Cell<i64> = const { Cell::new(0) };
    }

    /// Predictions of `rows`, of windows of a minute and ten minutes of lateness, that come when the thread's clock says.
    fn predictions(rows: &RecordBatch, more: serde_json::Value) -> Arc<Predictions> {
        let mut spec = json!({"probability": "p", "window": "1m", "lateness": "10m"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec: PerformanceSpec = serde_json::from_value(spec).unwrap();
        Predictions::with_clock(&spec, &rows.schema(), None, || CLOCK.get()).unwrap()
    }

    fn share(id: Option<&str>, rows: usize) -> Share {
        let request = Request { id: id.map(Arc::from), ..Request::default() };
        Share { run: RunId(7), request, rows }
    }

    fn observe(predictions: &Arc<Predictions>, at: i64, shares: Vec<Share>, rows: &Rows) {
        CLOCK.set(at);
        let cx = RunCx::shared(RunId(7), shares.into(), Instant::now);
        Arc::clone(predictions).tap().observe(&Seen::new(rows, EdgeId(0), &cx));
    }

    /// One request of these rows that comes at `at`.
    fn asked(predictions: &Arc<Predictions>, at: i64, id: &str, batch: RecordBatch) {
        let rows = batch.num_rows();
        observe(predictions, at, vec![share(Some(id), rows)], &Rows::whole(batch));
    }

    fn label(judge: &mut Judge, name: &str, at: Option<i64>, now: i64) -> LabelCounts {
        let mut counts = LabelCounts::default();
        judge.label(name, at, 1.0, now, &mut counts);
        counts
    }

    fn joined() -> LabelCounts {
        LabelCounts { joined: 1, ..LabelCounts::default() }
    }

    fn out_of_time() -> LabelCounts {
        LabelCounts { out_of_time: 1, ..LabelCounts::default() }
    }

    /// The times of the points of a series.
    fn times(judge: &Judge, predictions: &Predictions, name: &str, segment: Option<&str>) -> Vec<i64> {
        let series = judge.series(predictions);
        let mut found =
            series.iter().filter(|series| series.name == name && series.segment.as_deref() == segment);
        let times = found.next().map(|series| series.realised.iter().map(|point| point.at).collect());
        assert!(found.next().is_none(), "{name} is there once");
        times.unwrap_or_default()
    }

    /// One row called `id` that is dated `at`.
    fn dated(id: &str, at: i64) -> RecordBatch {
        rows! { p: [0.9], id: [id], at: [at] }
    }

    #[test]
    fn labels_and_rows_of_the_future_or_the_far_past_do_not_move_the_clock_beyond_now() {
        let now = 100 * MINUTE;
        let of_row = |at| (Some(at), None);
        let of_label = |at| (None, Some(at));
        for (timed, (row, dated_label)) in [
            (true, of_row(i64::MAX)),
            (true, of_row(i64::MIN)),
            (true, of_row(now + 10 * MINUTE)),
            (true, of_row(now + 10 * MINUTE + 1)),
            (true, of_label(i64::MAX)),
            (true, of_label(now + 365 * 24 * 60 * MINUTE)),
            (false, of_label(i64::MAX)),
            (false, of_label(i64::MIN)),
        ] {
            let case = format!("{timed} {row:?} {dated_label:?}");
            let columns = if timed { json!({"id": "id", "time": "at"}) } else { json!({"id": "id"}) };
            let predictions = predictions(&dated("a", 0), columns);
            let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
            asked(&predictions, now, "r", dated("a", now));
            judge.take(&predictions, now);
            if let Some(at) = row {
                asked(&predictions, now, "r", dated("bad", at));
                judge.take(&predictions, now);
            }
            if let Some(at) = dated_label {
                assert_eq!(label(&mut judge, "a", Some(at), now), out_of_time(), "{case}");
            }
            assert_eq!(judge.now(), now, "{case}");
            let later = now + MINUTE;
            asked(&predictions, later, "r", dated("b", later));
            judge.take(&predictions, later);
            assert_eq!(label(&mut judge, "a", Some(later), later), joined(), "{case}");
            assert_eq!(label(&mut judge, "b", None, later), joined(), "{case}");
            assert_eq!(times(&judge, &predictions, "accuracy", None), [now, later], "{case}");
        }
    }

    #[test]
    fn a_replay_goes_by_the_time_of_its_rows() {
        let (now, old) = (i64::MAX / 2 / MINUTE * MINUTE, 7 * MINUTE);
        let predictions = predictions(&dated("a", 0), json!({"id": "id", "time": "at"}));
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        judge.take(&predictions, now);
        assert_eq!(judge.now(), i64::MIN, "nothing says what time it is");
        for (name, at) in [("future", i64::MAX), ("a", old + 3), ("b", old + MINUTE), ("c", old + 1)] {
            asked(&predictions, now, "r", dated(name, at));
        }
        judge.take(&predictions, now);
        assert_eq!((judge.now(), judge.counts().predictions), (old + MINUTE, 3));
        assert_eq!(label(&mut judge, "a", Some(now), now), out_of_time());
        assert_eq!(label(&mut judge, "a", None, now), joined(), "it is dated at the last row");
        // One that has no date of its own is dated now where rows have none.
        let predictions = self::predictions(&dated("a", 0), json!({"id": "id"}));
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        asked(&predictions, 5, "r", dated("a", 0));
        judge.take(&predictions, 5);
        assert_eq!(label(&mut judge, "a", None, 5 + 10 * MINUTE), joined());
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        asked(&predictions, 5, "r", dated("a", 0));
        judge.take(&predictions, 5);
        assert_eq!(label(&mut judge, "a", None, 5 + 10 * MINUTE + 1), out_of_time());
    }

    #[test]
    fn a_row_is_of_the_time_when_it_came_and_not_of_the_turn() {
        // When it came, when it was taken, and the window it is counted in.
        for (came, taken, window) in
            [(MINUTE + 5, 3 * MINUTE, MINUTE), (9 * MINUTE, 2 * MINUTE + 1, 2 * MINUTE)]
        {
            let predictions = predictions(&rows! { p: [0.9] }, json!({}));
            let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
            asked(&predictions, came, "a", rows! { p: [0.9] });
            judge.take(&predictions, taken);
            assert_eq!(label(&mut judge, "a", None, taken), joined());
            assert_eq!(times(&judge, &predictions, "accuracy", None), [window]);
        }
    }

    #[test]
    fn the_oldest_predictions_make_room_and_are_counted() {
        let row = || rows! { p: [0.9] };
        let predictions = predictions(&row(), json!({"most": 20}));
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        (0..25).for_each(|at| asked(&predictions, at, &format!("r{at}"), row()));
        judge.take(&predictions, 30);
        assert_eq!((judge.counts().predictions, judge.counts().evicted), (25, 5));
        assert_eq!(label(&mut judge, "r4", None, 30).waiting, 1);
        assert_eq!(label(&mut judge, "r5", None, 30), joined());
        for at in 0..3 {
            label(&mut judge, &format!("x{at}"), None, 30);
        }
        assert_eq!(judge.counts().waiting_evicted, 2, "a tenth as many labels wait");
        let said = serde_json::to_value(judge.counts()).unwrap();
        assert_eq!((&said["evicted"], &said["waiting_evicted"]), (&json!(5), &json!(2)));
        // Another version of the project may hold fewer.
        let fewer = self::predictions(&row(), json!({"most": 3}));
        assert!(judge.fits(&fewer));
        judge.take(&fewer, 30);
        assert_eq!((judge.counts().evicted, judge.counts().evicted_labelled), (21, 1));

        let spec = |most: serde_json::Value| -> PerformanceSpec {
            serde_json::from_value(json!({"probability": "p", "most": most})).unwrap()
        };
        let of = |most| Predictions::new(&spec(json!(most)), &row().schema(), None).map(drop);
        assert_eq!(of(0).unwrap_err(), ["`most` is 0: no prediction would be held until its label comes"]);
        assert_eq!(serde_json::from_value::<PerformanceSpec>(json!({})).unwrap().most, 1_000_000);
    }

    #[test]
    fn what_has_no_room_or_no_free_place_is_dropped_and_counted_exactly() {
        let many = |rows: usize| rows! { p: vec![0.5; rows] };
        let predictions = predictions(&many(1), json!({}));
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        for (rows, dropped) in [(600_000, 0), (600_000, 600_000), (400_000, 600_000), (1, 600_001)] {
            asked(&predictions, 1, "a", many(rows));
            assert_eq!(predictions.dropped(), dropped, "{rows}");
        }
        assert_eq!(predictions.inbox.drain().len(), 2);
        {
            let _all: Vec<_> = predictions.inbox.places.iter().map(|place| place.0.lock().unwrap()).collect();
            asked(&predictions, 1, "a", many(3));
        }
        assert_eq!(predictions.dropped(), 600_004);
        for _ in 0..=Inbox::BATCHES {
            asked(&predictions, 1, "a", many(1));
        }
        assert_eq!(predictions.dropped(), 600_005);
        judge.take(&predictions, 2);
        assert_eq!((predictions.inbox.rows.load(Relaxed), predictions.inbox.batches.load(Relaxed)), (0, 0));
        assert_eq!((judge.counts().predictions, judge.counts().predictions_repeated), (1, 65_535));
    }

    #[test]
    fn threads_lose_nothing_that_is_not_counted() {
        let predictions = predictions(&rows! { p: [0.5] }, json!({}));
        let mut taken = 0;
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let predictions = &predictions;
                scope.spawn(move || {
                    (0..500).for_each(|i| {
                        asked(predictions, i, &format!("{thread}-{i}"), rows! { p: [0.5, 0.6] })
                    })
                });
            }
            (0..20).for_each(|_| {
                taken += predictions.inbox.drain().iter().map(|arrived| arrived.rows as u64).sum::<u64>()
            });
        });
        taken += predictions.inbox.drain().iter().map(|arrived| arrived.rows as u64).sum::<u64>();
        assert_eq!(taken + predictions.dropped(), 4000);
        assert!(taken > 0);
    }

    #[test]
    fn only_needed_columns_are_held_and_no_more_than_their_rows() {
        let texts: Vec<String> =
            (0..5000).map(|row| format!("a name that is long enough for a buffer {row}")).collect();
        let text: ArrayRef = Arc::new(StringArray::from(texts));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let numbers: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![0.5; 5000]));
        for data_type in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary] {
            let id = cast(&text, &data_type).unwrap();
            let batch = RecordBatch::try_from_iter([
                ("wide", Arc::clone(&text)),
                ("id", id),
                ("p", Arc::clone(&numbers)),
            ]);
            let batch = batch.unwrap();
            let predictions = predictions(&batch, json!({"id": "id"}));
            let shares = (0..2500).map(|_| share(None, 2)).collect();
            observe(&predictions, 1, shares, &Rows::whole(batch));
            let arrived = predictions.inbox.drain();
            assert_eq!((arrived.len(), arrived[7].columns.len()), (2500, 2));
            let held = |arrived: &Arrived| {
                arrived.columns.iter().map(|array| array.get_buffer_memory_size()).sum::<usize>()
            };
            assert!(arrived.iter().all(|arrived| held(arrived) < 1000), "{data_type} {}", held(&arrived[7]));
            let names = predictions.columns.names(&arrived[7]);
            assert_eq!(
                names[1].as_deref(),
                Some("a name that is long enough for a buffer 15"),
                "{data_type}"
            );
        }
        let whole: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![0.5; 5000]));
        assert!(Arc::ptr_eq(&own(&whole), &whole), "one that is all of its buffer is not copied");
    }

    #[test]
    fn rows_are_named_by_their_place_in_the_request() {
        let batch = |rows: usize| rows! { p: vec![0.5; rows] };
        let picked = |places: &[u32]| Rows::with_origin(batch(places.len()), Origin::Picked(places.into()));
        let two = || vec![share(Some("a"), 3), share(None, 1)];
        // Requests of a run, the rows of it that come over the edge, their names, and how many are dropped.
        for (shares, rows, names, dropped) in [
            (vec![share(Some("a"), 1)], Rows::whole(batch(1)), vec!["a"], 0),
            (vec![share(Some("a"), 2)], Rows::whole(batch(2)), vec!["a/0", "a/1"], 0),
            (vec![share(Some("a"), 3)], picked(&[2]), vec!["a/2"], 0),
            (vec![share(Some("a"), 3)], picked(&[2, 0]), vec!["a/2", "a/0"], 0),
            (two(), picked(&[3, 1]), vec!["0000000000000007", "a/1"], 0),
            (two(), Rows::whole(batch(4)), vec!["0000000000000007", "a/0", "a/1", "a/2"], 0),
            (vec![share(Some("a"), 3)], Rows::free(batch(2)), vec![], 2),
            (two(), Rows::free(batch(4)), vec![], 4),
        ] {
            let predictions = predictions(&batch(1), json!({}));
            observe(&predictions, 1, shares, &rows);
            let arrived = predictions.inbox.drain();
            let mut found: Vec<String> =
                arrived.iter().flat_map(|arrived| predictions.columns.names(arrived)).flatten().collect();
            let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            found.sort_unstable();
            names.sort_unstable();
            assert_eq!((found, predictions.dropped()), (names, dropped));
        }
        // An id needs no place.
        let rows = rows! { p: [0.5], id: ["x"] };
        let predictions = predictions(&rows, json!({"id": "id"}));
        observe(&predictions, 1, vec![share(None, 3)], &Rows::free(rows));
        assert_eq!((predictions.inbox.drain().len(), predictions.dropped()), (1, 0));
    }

    #[test]
    fn series_that_ended_long_ago_go_and_there_is_a_bound() {
        let point = |key: &str, at: i64| (key.to_owned(), Point { at, value: 1.0 });
        let mut series = Series::default();
        series.add(vec![point("old", 0), point("all", 0)], 0, MINUTE);
        series.add(vec![point("all", 999 * MINUTE)], 2000 * MINUTE, MINUTE);
        assert!(series.0.contains_key("old"));
        // A window that is yet to come does not make the others old.
        series.add(vec![point("next", i64::MAX)], 999 * MINUTE, MINUTE);
        assert!(series.0.contains_key("old"));
        series.0.swap_remove("next");
        series.add(vec![point("all", 1000 * MINUTE)], i64::MAX, MINUTE);
        assert_eq!(series.0.keys().collect::<Vec<_>>(), ["all"]);
        (0..3000).for_each(|at| series.add(vec![point("all", at)], i64::MAX, i64::MAX));
        assert_eq!((series.0["all"].len(), series.0["all"][0].at), (POINTS, 2000));
        for at in 0..3000 {
            series.add(vec![point(&format!("s{at}"), at), point("all", at)], i64::MAX, i64::MAX);
        }
        assert_eq!(series.0.len(), SERIES);
        assert!(
            series.0.contains_key("all") && series.0.contains_key("s2999") && !series.0.contains_key("s1000")
        );
    }

    #[test]
    fn segments_beyond_the_bound_are_shown_together() {
        for (first, beyond) in [("s", vec![0, 0]), ("others", vec![0])] {
            let row = |segment: &str| rows! { p: [0.9], s: [segment] };
            let predictions = predictions(&row("a"), json!({"segment": "s"}));
            let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
            asked(&predictions, 1, "first", row(first));
            (0..40).for_each(|at| asked(&predictions, 1, &format!("r{at}"), row(&format!("k{at:02}"))));
            asked(&predictions, 1, "none", row(""));
            judge.take(&predictions, 1);
            assert_eq!(times(&judge, &predictions, "accuracy", Some(OTHERS)), [] as [i64; 0], "no label yet");
            assert_eq!(label(&mut judge, "r39", None, 2), joined());
            assert_eq!(label(&mut judge, "first", None, 2), joined());
            assert_eq!(label(&mut judge, "r0", None, 2), joined());
            assert_eq!(times(&judge, &predictions, "accuracy", Some("k00")), [0]);
            assert_eq!(times(&judge, &predictions, "accuracy", Some("k39")), [] as [i64; 0]);
            assert_eq!(times(&judge, &predictions, "accuracy", Some(OTHERS)), beyond[..1], "{first}");
        }
    }

    #[test]
    fn a_judge_is_taken_up_by_one_of_the_same_task_window_and_lateness() {
        let row = |at: i64| rows! { p: [0.9], y: [2.0], at: [at] };
        let spec = |more: serde_json::Value| predictions(&row(0), more);
        let binary = || spec(json!({"time": "at"}));
        let regression = || spec(json!({"task": "regression", "prediction": "y", "time": "at"}));
        let mut saved = Vec::new();
        for predictions in [binary(), regression()] {
            let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
            for minute in [3, 20] {
                asked(&predictions, 9, &format!("r{minute}"), row(minute * MINUTE));
                judge.take(&predictions, 100 * MINUTE);
                assert_eq!(label(&mut judge, &format!("r{minute}"), None, 100 * MINUTE), joined());
            }
            let metric = judge.series(&predictions)[0].name.clone();
            assert_eq!(
                times(&judge, &predictions, &metric, None),
                [3 * MINUTE, 20 * MINUTE],
                "closed, and open"
            );
            let bytes = judge.save().unwrap();
            let mut again = Judge::new(&predictions, i64::MIN).unwrap();
            again.restore(&bytes).unwrap();
            assert_eq!(
                (again.save().unwrap(), again.series(&predictions)),
                (bytes.clone(), judge.series(&predictions))
            );
            assert_eq!((again.now(), again.counts()), (20 * MINUTE, judge.counts()));
            saved.push(bytes);
        }
        for (other, fits) in [
            (binary(), true),
            (spec(json!({"time": "at", "most": 7, "threshold": 0.9})), true),
            (regression(), false),
            (spec(json!({"time": "at", "window": "2m"})), false),
            (spec(json!({"time": "at", "lateness": "9m"})), false),
        ] {
            let mut judge = Judge::new(&binary(), i64::MIN).unwrap();
            assert_eq!(judge.fits(&other), fits);
            judge = Judge::new(&other, i64::MIN).unwrap();
            let restored = judge.restore(&saved[0]);
            assert!(
                if fits { restored.is_ok() } else { matches!(restored, Err(RestoreError::Changed)) },
                "{restored:?}"
            );
            assert_eq!((judge.fits(&other), judge.config().capacity), (true, other.config.capacity));
        }
        let mut judge = Judge::new(&binary(), 5).unwrap();
        assert!(matches!(judge.restore(&saved[0][..9]), Err(RestoreError::Bytes(_))));
        let mut other = saved[0].clone();
        other[0] = 9;
        assert!(matches!(judge.restore(&other), Err(RestoreError::Foreign)));
        assert_eq!(judge.now(), 5);
    }

    #[test]
    fn what_is_expected_is_of_the_window_of_its_rows() {
        let p: Vec<f64> = (0..200).map(|row| f64::from(row % 10) / 10.0 + 0.05).collect();
        let y: Vec<f64> = (0..200).map(|row| f64::from(u8::from(row % 7 + row % 10 > 8))).collect();
        let known = rows! { p: p, y: y };
        let spec = json!({"probability": "p", "label": "y", "time": "at", "id": "id", "window": "1m", "lateness": "10m"});
        let spec: PerformanceSpec = serde_json::from_value(spec).unwrap();
        let schema = dated("a", 0).schema();
        let predictions = Predictions::with_clock(&spec, &schema, Some(&[known]), || CLOCK.get()).unwrap();
        let mut judge = Judge::new(&predictions, i64::MIN).unwrap();
        let now = 5000 * MINUTE;
        for (name, at) in
            [("far past", 0), ("a", now - 50), ("b", now + 3), ("b", now + 4), ("far", i64::MAX), ("past", 7)]
        {
            asked(&predictions, 9, "r", dated(name, at));
        }
        judge.take(&predictions, now);
        let series = judge.series(&predictions);
        let accuracy = series.iter().find(|series| series.name == "accuracy").unwrap();
        let times: Vec<i64> = accuracy.estimated.iter().map(|point| point.at).collect();
        assert_eq!((times, accuracy.realised.len()), (vec![now - MINUTE, now], 0));
        assert!(accuracy.estimated.iter().all(|point| (0.5..=1.0).contains(&point.value)), "{accuracy:?}");
    }
}
