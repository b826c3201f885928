//! Metrics over time: a point for each window that has labels, of all its rows and of each segment.

use std::collections::{BTreeSet, VecDeque};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{
    performance::{
        Accumulator, Average, BinaryMetrics, MeasureMetrics, MulticlassMetrics, RegressionMetrics, Segment,
        Window,
    },
    report::Point,
};

/// Points of a series that are kept, and how many windows a series goes without one until it is dropped.
pub(super) const POINTS: usize = 1000;
/// Series that are kept. Those go first whose last point is the oldest.
pub(super) const SERIES: usize = 2000;
/// The segment of all those for which a window had no place.
pub(super) const OTHERS: &str = "others";

/// The points of metrics, and of metrics of segments: those stand behind a separator that no name of a metric has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub(super) struct Series(pub(super) IndexMap<String, VecDeque<Point>>);

pub(super) const SEPARATOR: char = '\u{1f}';

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
    pub(super) fn add(&mut self, points: Vec<(String, Point)>, now: i64, window: i64) {
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
pub(super) fn windows(window: i64) -> i64 {
    window.saturating_mul(POINTS as i64 - 1)
}

/// The metrics of windows and their segments, where there are labels.
pub(super) fn points_of<'w, A: Accumulator + 'w, N: AsRef<str>>(
    windows: impl Iterator<Item = &'w Window<A>>,
    metrics: impl Fn(&A) -> Vec<(N, Option<f64>)>,
) -> Vec<(String, Point)> {
    let mut points = Vec::new();
    for window in windows {
        let at = window.start();
        let mut add = |name: Option<&str>, segment: &Segment<A>| {
            for (metric, value) in metrics(&segment.metrics).into_iter().filter(|_| segment.labelled > 0) {
                let metric = metric.as_ref();
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

pub(super) fn binary(metrics: &BinaryMetrics) -> Vec<(&'static str, Option<f64>)> {
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

pub(super) fn regression(metrics: &RegressionMetrics) -> Vec<(&'static str, Option<f64>)> {
    vec![
        ("mae", metrics.mae()),
        ("mse", metrics.mse()),
        ("rmse", metrics.rmse()),
        ("mape", metrics.mape()),
        ("r2", metrics.r2()),
    ]
}

/// Averages are over the classes that occur, each as much as the others.
pub(super) fn multiclass(metrics: &MulticlassMetrics) -> Vec<(&'static str, Option<f64>)> {
    vec![
        ("roc_auc", metrics.roc_auc()),
        ("f1", metrics.f1(Average::Macro)),
        ("precision", metrics.precision(Average::Macro)),
        ("recall", metrics.recall(Average::Macro)),
        ("specificity", metrics.specificity(Average::Macro)),
        ("accuracy", metrics.accuracy()),
        ("log_loss", metrics.log_loss()),
    ]
}

/// What outcomes add up to in the measure of this name.
pub(super) fn measured(name: &str, metrics: &MeasureMetrics) -> Vec<(String, Option<f64>)> {
    vec![
        (format!("{name}_sum"), metrics.sum()),
        (format!("{name}_mean"), metrics.mean()),
        (format!("{name}_count"), Some(metrics.count() as f64)),
    ]
}
