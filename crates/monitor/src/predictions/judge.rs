//! Predictions held against their labels, and against what was expected of them.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;

use super::{
    Predictions, Task,
    classes::{Said, class_of},
    detect::Detectors,
    estimator::{Estimate, Estimator},
    outcome::{LabelCounts, Truth},
    saved::goes_on,
    series::{POINTS, SEPARATOR, Series, binary, measured, multiclass, points_of, regression, windows},
};
use crate::{
    performance::{
        BinaryMetrics, BinaryPrediction, JoinConfig, JoinCounts, JoinError, LabelJoin, LabelReply,
        MeasureMetrics, MulticlassMetrics, Number, PredictReply, RegressionMetrics,
    },
    report::{DetectorReport, MetricSeries, Point},
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
    /// The classes that predictions and labels are of, by their places; none for other tasks.
    pub(super) classes: Arc<[String]>,
    /// What predictions led to, by measure. Each holds the predictions once more: its values come and are corrected by themselves.
    pub(super) measured: BTreeMap<String, LabelJoin<MeasureMetrics>>,
    pub(super) closed: Series,
    pub(super) estimates: BTreeMap<i64, Estimate>,
    pub(super) detectors: Detectors,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each edge that has predictions")]
pub(super) enum Judged {
    Binary(LabelJoin<BinaryMetrics>),
    Regression(LabelJoin<RegressionMetrics>),
    Multiclass(LabelJoin<MulticlassMetrics>),
}

/// The same for all kinds.
macro_rules! either {
    ($judged:expr, $join:ident => $do:expr) => {
        match $judged {
            Judged::Binary($join) => $do,
            Judged::Regression($join) => $do,
            Judged::Multiclass($join) => $do,
        }
    };
}

/// What is known of one row.
struct Row<'r> {
    name: &'r str,
    at: i64,
    segment: &'r str,
    said: &'r Said,
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
            Task::Multiclass => {
                let classes = predictions.columns.classes.len() as u32;
                Judged::Multiclass(LabelJoin::new(MulticlassMetrics::new(classes), config, now)?)
            }
        };
        let mut judge = Self {
            judged,
            timed: predictions.columns.time.is_some(),
            classes: Arc::clone(&predictions.columns.classes),
            measured: BTreeMap::new(),
            closed: Series::default(),
            estimates: BTreeMap::new(),
            detectors: Detectors::new(&predictions.detectors),
        };
        judge.follow_measures(predictions);
        judge.hold(predictions);
        Ok(judge)
    }

    /// Whether it was made for the same task, classes, window and lateness. One that does not fit cannot go on with these predictions.
    pub fn fits(&self, predictions: &Predictions) -> bool {
        let task = match &self.judged {
            Judged::Binary(_) => Task::Binary,
            Judged::Regression(_) => Task::Regression,
            Judged::Multiclass(_) => Task::Multiclass,
        };
        task == predictions.columns.task
            && self.classes == predictions.columns.classes
            && goes_on(self.config(), &predictions.config)
    }

    /// Goes on with the detectors and the measures that `predictions` have. Those that are there with the same parameters go on, too.
    pub fn follow(&mut self, predictions: &Predictions) {
        self.detectors.follow(&predictions.detectors);
        self.follow_measures(predictions);
        self.forget_measures();
        self.hold(predictions);
    }

    /// Holds as many predictions as these say, and takes the time from where they do. Not when they arrive: an older version's may come
    /// after a newer one's.
    fn hold(&mut self, predictions: &Predictions) {
        self.timed = predictions.columns.time.is_some();
        let JoinConfig { capacity, waiting, .. } = predictions.config;
        either!(&mut self.judged, join => join.bound(capacity, waiting));
        self.measured.values_mut().for_each(|join| join.bound(capacity, waiting));
    }

    /// Forgets points of measures that there are no more: alerts would look at the last for ever.
    pub(super) fn forget_measures(&mut self) {
        let measured = &self.measured;
        self.closed.0.retain(|key, _| {
            let name = key.split(SEPARATOR).next().unwrap_or(key);
            let of = |end| name.strip_suffix(end).is_some_and(|of| measured.contains_key(of));
            super::metrics_of_tasks().any(|known| known == name)
                || ["_sum", "_mean", "_count"].into_iter().any(of)
        });
    }

    fn follow_measures(&mut self, predictions: &Predictions) {
        self.measured.retain(|name, _| predictions.outcomes.contains(name));
        let (config, now) = (self.config().clone(), self.now());
        for name in &predictions.outcomes {
            if !self.measured.contains_key(name)
                && let Ok(join) = LabelJoin::new(MeasureMetrics::default(), config.clone(), now)
            {
                self.measured.insert(name.clone(), join);
            }
        }
    }

    /// Ends a pane at `now`: detectors are told of the labels that have come in it.
    pub fn turn(&mut self, now: i64) {
        self.detectors.turn(now);
    }

    /// What the detectors have said up to the last pane. The edge is left empty.
    pub fn detectors(&self) -> Vec<DetectorReport> {
        self.detectors.reports()
    }

    /// Takes what has arrived up to `now`.
    pub fn take(&mut self, predictions: &Predictions, now: i64) {
        let columns = &predictions.columns;
        for arrived in predictions.inbox.drain() {
            let (names, times) = (columns.names(&arrived), columns.times(&arrived, now));
            let segments = columns.segments(&arrived);
            for (row, said) in columns.said(&arrived.columns, arrived.rows).iter().enumerate() {
                let (Some(said), Some(name), Some(at)) = (said, &names[row], times[row]) else { continue };
                let row = Row { name, at, segment: &segments[row], said };
                self.predict(&row, predictions.estimator.as_ref(), now);
            }
        }
        if !self.timed {
            self.advance(now);
        }
        self.close();
    }

    fn advance(&mut self, now: i64) {
        either!(&mut self.judged, join => join.advance(now));
        self.measured.values_mut().for_each(|join| join.advance(now));
    }

    fn predict(&mut self, row: &Row<'_>, estimator: Option<&Estimator>, now: i64) {
        let Row { name, at, segment, said } = *row;
        // The clock goes with the rows, or those of a replay would be of the future. What is too far in the future to be taken says
        // nothing of the time.
        if at <= now.saturating_add(self.config().lateness) {
            self.advance(at.min(now));
        }
        let reply = match (&mut self.judged, said) {
            (Judged::Binary(join), Said::Number { said, probability }) => {
                let prediction = BinaryPrediction { positive: *said > 0.5, probability: *probability };
                join.predict(name, at, segment, prediction)
            }
            (Judged::Regression(join), Said::Number { said, .. }) => {
                join.predict(name, at, segment, Number(*said))
            }
            (Judged::Multiclass(join), Said::Class(said)) => join.predict(name, at, segment, said.clone()),
            // Another task has another judge.
            (Judged::Binary(_) | Judged::Regression(_), Said::Class(_))
            | (Judged::Multiclass(_), Said::Number { .. }) => return,
        };
        for join in self.measured.values_mut() {
            join.predict(name, at, segment, ());
        }
        if reply == PredictReply::Joined {
            self.note_error(name, now);
        }
        let taken = matches!(reply, PredictReply::Added | PredictReply::Joined);
        if let Some(estimator) = estimator.filter(|_| taken) {
            let start = self.config().window_of(at);
            let estimate = self.estimates.entry(start).or_insert_with(|| estimator.nothing());
            estimator.add(said, estimate);
            while self.estimates.len() > POINTS {
                self.estimates.pop_first();
            }
        }
    }

    /// Takes a label of the prediction of this name, which became true at `at`. Without it, it is dated `now`, or at the last
    /// prediction where predictions say themselves when they were made. One that is none of the classes, or no number, is unknown.
    pub fn label(
        &mut self,
        name: &str,
        at: Option<i64>,
        truth: impl Into<Truth>,
        now: i64,
        counts: &mut LabelCounts,
    ) {
        let (at, truth) = (self.dated(at, now), truth.into());
        let reply = match &mut self.judged {
            Judged::Binary(join) => truth.number().map(|value| join.label(name, at, value > 0.5)),
            Judged::Regression(join) => truth.number().map(|value| join.label(name, at, Number(value))),
            Judged::Multiclass(join) => {
                class_of(&self.classes, &truth).map(|class| join.label(name, at, class))
            }
        };
        let reply = reply.unwrap_or(LabelReply::Unknown);
        if reply == LabelReply::Joined {
            self.note_error(name, now);
        }
        counts.count(reply);
    }

    /// Takes what the prediction of this name led to in a measure, dated as a label is. Of two, the one with the later date counts, and
    /// of two with one date the greater one.
    pub fn measure(
        &mut self,
        name: &str,
        at: Option<i64>,
        (measure, value): (&str, f64),
        now: i64,
        counts: &mut LabelCounts,
    ) {
        let at = self.dated(at, now);
        let join = self.measured.get_mut(measure).filter(|_| value.is_finite());
        let reply = join.map(|join| join.label(name, at, Number(value)));
        counts.count(reply.unwrap_or(LabelReply::Unknown));
    }

    /// When something became true that is told `now`.
    fn dated(&self, at: Option<i64>, now: i64) -> i64 {
        let last = Some(self.now()).filter(|last| self.timed && *last > i64::MIN);
        at.or(last).unwrap_or(now)
    }

    /// Puts down for the detectors how wrong a prediction was whose label has come. A label that is corrected later is not taken back.
    fn note_error(&mut self, name: &str, now: i64) {
        if self.detectors.is_empty() {
            return;
        }
        let noted = match &self.judged {
            Judged::Binary(join) => {
                join.labelled(name).map(|(at, said, label)| (at, f64::from(u8::from(said.positive != label))))
            }
            Judged::Regression(join) => {
                join.labelled(name).map(|(at, said, label)| (at, (said.0 - label.0).abs()))
            }
            Judged::Multiclass(join) => {
                join.labelled(name).map(|(at, said, label)| (at, f64::from(u8::from(said.class != label))))
            }
        };
        if let Some((at, error)) = noted {
            self.detectors.add(name, at, error, now);
        }
    }

    pub(super) fn now(&self) -> i64 {
        either!(&self.judged, join => join.now())
    }

    pub(super) fn config(&self) -> &JoinConfig {
        either!(&self.judged, join => join.config())
    }

    /// Notes what is final, and forgets what is long ago.
    fn close(&mut self) {
        let (now, &JoinConfig { window, lateness, .. }) = (self.now(), self.config());
        let mut closed = match &mut self.judged {
            Judged::Binary(join) => points_of(join.take_closed().iter(), binary),
            Judged::Regression(join) => points_of(join.take_closed().iter(), regression),
            Judged::Multiclass(join) => points_of(join.take_closed().iter(), multiclass),
        };
        for (name, join) in &mut self.measured {
            closed.extend(points_of(join.take_closed().iter(), |metrics| measured(name, metrics)));
        }
        if !closed.is_empty() {
            self.closed.add(closed, now, window);
        }
        let oldest = now.saturating_sub(windows(window));
        self.estimates.retain(|start, _| *start >= oldest);
        let ended = now.saturating_sub(window).saturating_sub(lateness);
        self.estimates.range_mut(..ended).for_each(|(_, estimate)| estimate.close());
    }

    /// What became of predictions and labels.
    pub fn counts(&self) -> &JoinCounts {
        either!(&self.judged, join => join.counts())
    }

    /// Every metric over time: as labels say, and as is expected where they have not come.
    pub fn series(&self, predictions: &Predictions) -> Vec<MetricSeries> {
        let mut realised = self.closed.clone();
        let mut open = match &self.judged {
            Judged::Binary(join) => points_of(join.open_windows(), binary),
            Judged::Regression(join) => points_of(join.open_windows(), regression),
            Judged::Multiclass(join) => points_of(join.open_windows(), multiclass),
        };
        for (name, join) in &self.measured {
            open.extend(points_of(join.open_windows(), |metrics| measured(name, metrics)));
        }
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
