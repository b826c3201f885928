//! Metrics of one's own: a number made of what was counted in a window.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    layout::{Kind, Layout},
    pane::{EdgePane, Pane},
    predictions::{self, NAMING, is_name},
    report::MetricSeries,
    sketch::Sketch,
};

/// What was counted of one edge in a window, for who makes a number of it.
#[derive(Clone, Copy, Debug)]
pub struct WindowView<'w> {
    over: &'w Pane,
    edge: Option<&'w EdgePane>,
    performance: &'w [MetricSeries],
    /// Columns that are counted at other edges in the place of this one.
    elsewhere: Option<&'w BTreeMap<String, String>>,
}

impl<'w> WindowView<'w> {
    /// What `over` has of an edge, and how its predictions did.
    pub fn new(over: &'w Pane, edge: &str, performance: &'w [MetricSeries]) -> Self {
        Self { over, edge: over.edges.get(edge), performance, elsewhere: None }
    }

    /// The same, with columns that come unchanged from other edges: by name, and the edges at which they are counted.
    #[must_use]
    pub fn with_elsewhere(self, elsewhere: &'w BTreeMap<String, String>) -> Self {
        Self { elsewhere: Some(elsewhere), ..self }
    }

    /// Rows that travelled the edge.
    pub fn rows(&self) -> u64 {
        self.edge.map_or(0, |edge| edge.rows)
    }

    /// Requests of the graph that were answered.
    pub fn requests(&self) -> u64 {
        self.over.answered()
    }

    /// Requests of the graph that failed.
    pub fn errors(&self) -> u64 {
        self.over.failed()
    }

    /// What was counted of a column, if it is watched and had rows.
    pub fn column(&self, name: &str) -> Option<&'w Sketch> {
        let elsewhere = self.elsewhere.and_then(|columns| columns.get(name));
        let edge = elsewhere.map_or(self.edge, |edge| self.over.edges.get(edge));
        edge?.columns.get(name)
    }

    /// A metric of the edge's predictions, in the last window of theirs that has it.
    pub fn performance(&self, metric: &str) -> Option<f64> {
        let of_all = |series: &&MetricSeries| series.name == metric && series.segment.is_none();
        Some(self.performance.iter().find(of_all)?.realised.last()?.value)
    }
}

/// A metric of one's own. It is asked after every pane, and what it answers is in reports and told to alerts under its name.
///
/// ```
/// use millstream_monitor::{Pane, custom::{Custom, WindowView}};
///
/// let per_request = Custom::new("rows_per_request", |window: &WindowView| {
///     Some(window.rows() as f64 / window.requests() as f64)
/// });
/// let nothing = Pane::default();
/// assert_eq!(per_request.value(&WindowView::new(&nothing, "input", &[])), None);
/// ```
#[derive(Clone)]
pub struct Custom {
    name: Arc<str>,
    measure: Arc<Measure>,
}

type Measure = dyn Fn(&WindowView<'_>) -> Option<f64> + Send + Sync;

impl Custom {
    /// A metric that `measure` makes of a window. [`check_name`] says whether it may be called that.
    pub fn new(
        name: impl Into<Arc<str>>,
        measure: impl Fn(&WindowView<'_>) -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), measure: Arc::new(measure) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value; none where there is none, it is not finite, or what makes it panics.
    pub fn value(&self, window: &WindowView<'_>) -> Option<f64> {
        // The thread that turns panes is everybody's.
        let value = catch_unwind(AssertUnwindSafe(|| (self.measure)(window)));
        value.ok().flatten().filter(|value| value.is_finite())
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Metrics of one's own of an edge.
pub const MOST: usize = 50;

/// The metrics that alerts are told of in any case, beside those of performance.
const BUILT_IN: [&str; 17] = [
    "broken_rules",
    "concept_drift",
    "concept_warning",
    "drift",
    "drifted",
    "drifted_columns",
    "error_rate",
    "latency_p50",
    "latency_p99",
    "lost",
    "mean",
    "multivariate_drift",
    "nulls",
    "reconstruction_error",
    "requests",
    "segment_drift",
    "unseen",
];

/// Whether a metric of one's own may have this name; `performance` are the names of those of the edge's predictions.
///
/// # Errors
/// When it is no name, or that of another metric.
pub fn check_name(name: &str, performance: &[String]) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!("`{name}` {NAMING}"));
    }
    let of_performance = name.strip_prefix("estimated_").unwrap_or(name);
    let taken = BUILT_IN.contains(&name)
        || predictions::metrics_of_tasks().any(|known| known == of_performance)
        || performance.iter().any(|known| known == of_performance);
    if taken {
        return Err(format!("`{name}` is a metric already; give it another name"));
    }
    Ok(())
}

/// A number of a window that has a name: what expressions are made of.
#[derive(Clone, Debug)]
pub struct WindowNumber {
    /// Its name.
    pub name: String,
    of: Of,
}

#[derive(Clone, Debug)]
enum Of {
    Rows,
    Requests,
    Errors,
    Column(Arc<str>, Part),
    Performance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Mean,
    Std,
    Min,
    Max,
    Median,
    P99,
    Values,
    Nulls,
    Distinct,
}

impl WindowNumber {
    /// The numbers of an edge: `rows`, `requests`, `errors`, those of its columns, and the metrics of its predictions. Of two that have one
    /// name, the first.
    pub fn all(layout: &Layout, performance: &[String]) -> Vec<Self> {
        let plain = [("rows", Of::Rows), ("requests", Of::Requests), ("errors", Of::Errors)];
        let mut all: Vec<Self> =
            plain.into_iter().map(|(name, of)| Self { name: name.to_owned(), of }).collect();
        for column in &layout.columns {
            all.extend(parts(&column.kind).iter().map(|part| Self {
                name: format!("{}_{}", column.name, part.suffix()),
                of: Of::Column(Arc::clone(&column.name), *part),
            }));
        }
        all.extend(performance.iter().map(|name| Self { name: name.clone(), of: Of::Performance }));
        let mut seen = BTreeSet::new();
        all.retain(|number| seen.insert(number.name.clone()));
        all
    }

    /// What it is in a window, if there is anything that it is of.
    pub fn value(&self, window: &WindowView<'_>) -> Option<f64> {
        match &self.of {
            Of::Rows => Some(window.rows() as f64),
            Of::Requests => Some(window.requests() as f64),
            Of::Errors => Some(window.errors() as f64),
            Of::Column(column, part) => part.of(window.column(column)?),
            Of::Performance => window.performance(&self.name),
        }
    }
}

/// What is known of columns of a kind.
fn parts(kind: &Kind) -> &'static [Part] {
    const NUMERIC: [Part; 8] =
        [Part::Mean, Part::Std, Part::Min, Part::Max, Part::Median, Part::P99, Part::Values, Part::Nulls];
    match kind {
        Kind::Numeric { .. } => &NUMERIC,
        Kind::Categorical(_) => &[Part::Distinct, Part::Nulls],
        Kind::Time | Kind::Presence => &[Part::Nulls],
    }
}

impl Part {
    fn suffix(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Std => "std",
            Self::Min => "min",
            Self::Max => "max",
            Self::Median => "p50",
            Self::P99 => "p99",
            Self::Values => "values",
            Self::Nulls => "nulls",
            Self::Distinct => "distinct",
        }
    }

    fn of(self, sketch: &Sketch) -> Option<f64> {
        match (sketch, self) {
            (Sketch::Numbers(numbers), Self::Mean) => numbers.spectrum().mean(),
            (Sketch::Numbers(numbers), Self::Std) => numbers.spectrum().std(),
            (Sketch::Numbers(numbers), Self::Min) => Some(numbers.range()?.0),
            (Sketch::Numbers(numbers), Self::Max) => Some(numbers.range()?.1),
            (Sketch::Numbers(numbers), Self::Median) => numbers.spectrum().quantile(0.5),
            (Sketch::Numbers(numbers), Self::P99) => numbers.spectrum().quantile(0.99),
            (Sketch::Numbers(numbers), Self::Values) => Some(numbers.values() as f64),
            // NaN is no value either, as for alerts and rules.
            (Sketch::Numbers(numbers), Self::Nulls) => Some((numbers.nulls() + numbers.nans()) as f64),
            (Sketch::Labels(labels), Self::Distinct) => Some(labels.distinct() as f64),
            (sketch, Self::Nulls) => Some(sketch.nulls() as f64),
            // Counted as something else, under another schema.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use millstream_graph::{EdgeId, Request, Rows, RunCx, RunId, Seen, rows};

    use super::*;
    use crate::{Answered, Monitor, Watching, report::Point};

    fn counted() -> (Layout, Pane) {
        let batch = rows! {
            amount: [Some(1.0), Some(3.0), None, Some(8.0), Some(f64::NAN)],
            country: [Some("de"), Some("fr"), None, Some("de"), Some("it")],
        };
        let layout = || Layout::new("input", &batch.schema(), &Watching::default()).unwrap();
        let monitor = Monitor::new(vec![layout()]);
        for outcome in ["ok", "ok", "failed"] {
            monitor.answered(Answered { outcome, seconds: 0.1, degraded: false });
        }
        let cx = RunCx::new(RunId(1), Request::default(), 5, Instant::now);
        let rows = Rows::whole(batch.clone());
        Arc::clone(&monitor).tap(0).observe(&Seen::new(&rows, EdgeId(0), &cx));
        (layout(), monitor.turn(1))
    }

    fn performance() -> Vec<MetricSeries> {
        let series = |segment: Option<&str>, values: &[f64]| MetricSeries {
            name: "f1".to_owned(),
            segment: segment.map(str::to_owned),
            realised: values.iter().map(|value| Point { at: 0, value: *value }).collect(),
            ..MetricSeries::default()
        };
        vec![series(Some("de"), &[0.1]), series(None, &[0.5, 0.75])]
    }

    #[test]
    fn the_numbers_of_a_window_have_the_names_of_its_columns() {
        let (layout, pane) = counted();
        let performance = performance();
        let view = WindowView::new(&pane, "input", &performance);
        let numbers = WindowNumber::all(&layout, &["f1".to_owned(), "rows".to_owned()]);
        let names: Vec<&str> = numbers.iter().map(|number| number.name.as_str()).collect();
        assert_eq!(names.len(), 3 + 8 + 2 + 1, "a name that is taken is not there twice: {names:?}");
        for (name, expected) in [
            ("rows", 5.0),
            ("requests", 3.0),
            ("errors", 1.0),
            ("amount_mean", 4.0),
            // The root of ((1 - 4)^2 + (3 - 4)^2 + (8 - 4)^2) / 3.
            ("amount_std", (26.0_f64 / 3.0).sqrt()),
            ("amount_min", 1.0),
            ("amount_max", 8.0),
            ("amount_values", 3.0),
            ("amount_nulls", 2.0),
            ("country_distinct", 3.0),
            ("country_nulls", 1.0),
            ("f1", 0.75),
        ] {
            let number = numbers.iter().find(|number| number.name == name).unwrap();
            let value = number.value(&view).unwrap();
            assert!((value - expected).abs() < 1e-9, "{name}: {value}, not {expected}");
        }
        let other = WindowView::new(&pane, "other", &[]);
        let values = numbers.iter().map(|number| number.value(&other)).collect::<Vec<_>>();
        assert_eq!(values[..4], [Some(0.0), Some(3.0), Some(1.0), None]);
        assert_eq!(values.last(), Some(&None));
    }

    #[test]
    fn a_column_that_is_counted_at_another_edge_is_found_there() {
        let (_, pane) = counted();
        let elsewhere = BTreeMap::from([("amount".to_owned(), "input".to_owned())]);
        let view = WindowView::new(&pane, "other", &[]);
        assert_eq!(view.column("amount"), None);
        let view = view.with_elsewhere(&elsewhere);
        assert!(view.column("amount").is_some() && view.column("country").is_none());
        assert_eq!(view.rows(), 0);
    }

    #[test]
    fn what_has_no_finite_value_has_none() {
        let (_, pane) = counted();
        let view = WindowView::new(&pane, "input", &[]);
        for (metric, expected) in [
            (Custom::new("a", |window| Some(window.rows() as f64 * 2.0)), Some(10.0)),
            (Custom::new("b", |_| None), None),
            (Custom::new("c", |_| Some(f64::NAN)), None),
            (Custom::new("d", |_| Some(f64::INFINITY)), None),
            (Custom::new("e", |window| window.performance("f1")), None),
        ] {
            assert_eq!(metric.value(&view), expected, "{}", metric.name());
        }
    }

    #[test]
    fn names_of_other_metrics_and_what_is_no_name_are_refused() {
        let performance = ["revenue_sum".to_owned()];
        for (name, ok) in [
            ("decline_rate", true),
            ("_x9", true),
            ("drift", false),
            ("mean", false),
            ("roc_auc", false),
            ("estimated_f1", false),
            ("rmse", false),
            ("revenue_sum", false),
            ("", false),
            ("9x", false),
            ("a b", false),
            ("a\u{1f}b", false),
        ] {
            assert_eq!(check_name(name, &performance).is_ok(), ok, "{name}");
        }
        assert!(check_name(&"a".repeat(65), &[]).is_err());
    }
}
