//! Predictions held against their labels, and against what was expected of them.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Serialize;

use super::{
    Predictions, Task,
    saved::goes_on,
    series::{POINTS, SEPARATOR, Series, binary, points_of, regression, windows},
};
use crate::{
    performance::{
        BinaryEstimator, BinaryMetrics, BinaryPrediction, ExpectedMetrics, JoinConfig, JoinCounts, JoinError,
        LabelJoin, LabelReply, Number, PredictReply, RegressionMetrics,
    },
    report::{MetricSeries, Point},
};

/// How the predictions of one edge are judged, over the versions of a project. It is driven by whoever turns panes.
///
/// Its clock is the present, or the time of the last prediction where predictions say themselves when they were made: a replay has no
/// other. It never goes beyond the present, and labels do not move it.
#[derive(Debug)]
pub struct Judge {
    pub(super) judged: Judged,
    /// Whether predictions say themselves when they were made.
    timed: bool,
    pub(super) closed: Series,
    pub(super) estimates: BTreeMap<i64, ExpectedMetrics>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each edge that has predictions")]
pub(super) enum Judged {
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

    pub(super) fn now(&self) -> i64 {
        either!(&self.judged, join => join.now())
    }

    pub(super) fn config(&self) -> &JoinConfig {
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
}
