//! Metrics of a project's own: arithmetic over what was counted in the window, and closures of who embeds the server.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{DataType, Field, Float64Type, Schema, SchemaRef},
};
use millstream_graph::suggest;
use millstream_monitor::{
    Layout, Pane,
    custom::{Custom, MOST, WindowNumber, WindowView, check_name},
    report::{MetricSeries, OwnMetric},
};
use millstream_transform::{CompiledExpr, Expr};

use super::watched::GraphWatch;

/// A metric that somebody has registered with the server, of an edge of a graph in whichever version.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) graph: String,
    pub(crate) edge: String,
    pub(crate) metric: Custom,
}

/// Why a metric cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MetricError(String);

impl Registered {
    /// A metric of an edge that one of the graphs has.
    pub(super) fn new(
        (graph, edge): (&str, &str),
        metric: Custom,
        watches: &[Arc<GraphWatch>],
        before: &[Self],
    ) -> Result<Self, MetricError> {
        let graphs = || watches.iter().map(|watch| watch.graph.as_str());
        let watch = watches.iter().find(|watch| watch.graph == graph);
        let watch = watch.ok_or_else(|| MetricError(suggest::unknown("watched graph", graph, graphs())))?;
        let edges = || watch.edges.iter().map(|edge| edge.edge.as_str());
        let found = watch.edges.iter().find(|known| known.edge == edge);
        let found = found.ok_or_else(|| MetricError(suggest::unknown("watched edge", edge, edges())))?;
        let performance = found.predictions.as_ref().map(|predictions| predictions.metrics());
        check_name(metric.name(), &performance.unwrap_or_default()).map_err(MetricError)?;
        let here = before.iter().filter(|other| other.graph == graph && other.edge == edge);
        let others: Vec<&Custom> = here.map(|other| &other.metric).chain(&found.metrics).collect();
        if others.iter().any(|other| other.name() == metric.name()) {
            return Err(MetricError(format!("`{}` of edge `{edge}` is a metric already", metric.name())));
        }
        if others.len() >= MOST {
            return Err(MetricError(format!(
                "edge `{edge}` has {MOST} metrics already, and may have no more"
            )));
        }
        Ok(Self { graph: graph.to_owned(), edge: edge.to_owned(), metric })
    }
}

/// The metrics that a file has of an edge, and what is wrong with them.
pub(super) fn compile(
    metrics: &BTreeMap<String, String>,
    layout: &Layout,
    performance: &[String],
    mistakes: &mut Vec<String>,
) -> Vec<Custom> {
    if metrics.is_empty() {
        return Vec::new();
    }
    if metrics.len() > MOST {
        mistakes.push(format!("there are at most {MOST} `metrics`, not {}", metrics.len()));
    }
    let numbers: Arc<[WindowNumber]> = WindowNumber::all(layout, performance).into();
    let field = |number: &WindowNumber| Field::new(&number.name, DataType::Float64, true);
    let schema = Arc::new(Schema::new(numbers.iter().map(field).collect::<Vec<_>>()));
    let mut compiled = Vec::new();
    for (name, text) in metrics {
        if let Err(mistake) = check_name(name, performance) {
            mistakes.push(format!("metrics: {mistake}"));
        }
        match Expression::new(text, &schema, &numbers) {
            Ok(expression) => {
                compiled.push(Custom::new(name.as_str(), move |window| expression.value(window)));
            }
            Err(problems) => {
                mistakes.extend(problems.into_iter().map(|problem| format!("metrics: `{name}`: {problem}")));
            }
        }
    }
    compiled
}

/// An expression over the numbers of a window.
struct Expression {
    compiled: CompiledExpr,
    schema: SchemaRef,
    numbers: Arc<[WindowNumber]>,
    /// The places of those that it reads: others are not worked out.
    reads: Vec<usize>,
}

impl Expression {
    fn new(text: &str, schema: &SchemaRef, numbers: &Arc<[WindowNumber]>) -> Result<Self, Vec<String>> {
        let expr = Expr::parse(text).map_err(|error| error.problems().to_vec())?;
        if expr.alias().is_some() {
            return Err(vec!["leave out `AS`: the name stands before the expression".to_owned()]);
        }
        let compiled = expr.compile(schema).map_err(|error| {
            // What it reads are no columns of a table.
            error
                .problems()
                .iter()
                .map(|problem| problem.replace("no column `", "no number `"))
                .collect::<Vec<_>>()
        })?;
        let data_type = compiled.data_type();
        if !data_type.is_numeric() {
            return Err(vec![format!("a metric is a number, and this is {data_type}")]);
        }
        let reads = compiled.columns();
        Ok(Self { compiled, schema: Arc::clone(schema), numbers: Arc::clone(numbers), reads })
    }

    /// Its value in a window; none where something that it reads has none, and it does not say what then.
    fn value(&self, window: &WindowView<'_>) -> Option<f64> {
        let none = new_null_array(&DataType::Float64, 1);
        let mut columns: Vec<ArrayRef> = vec![none; self.numbers.len()];
        for at in &self.reads {
            let value = self.numbers.get(*at)?.value(window);
            *columns.get_mut(*at)? = Arc::new(Float64Array::from(vec![value]));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).ok()?;
        let made = self.compiled.evaluate(&batch).ok()?;
        let made = cast(&made, &DataType::Float64).ok()?;
        let made = made.as_primitive_opt::<Float64Type>()?;
        (made.len() == 1 && made.is_valid(0)).then(|| made.value(0))
    }
}

/// How the predictions of edges did, by edge.
pub(super) type Performance = [(String, Vec<MetricSeries>)];

/// The metrics of a graph's edges in a window: those of its file, and those that were registered.
pub(super) fn measured(
    watch: &GraphWatch,
    over: &Pane,
    performance: &Performance,
    registered: &[Registered],
) -> Vec<OwnMetric> {
    let mut measured = Vec::new();
    for edge in &watch.edges {
        let of_edge = performance.iter().find(|(name, _)| *name == edge.edge);
        let performed = of_edge.map_or(&[][..], |(_, series)| series.as_slice());
        let window = WindowView::new(over, &edge.edge, performed).with_elsewhere(&edge.elsewhere);
        let here = registered.iter().filter(|one| one.graph == watch.graph && one.edge == edge.edge);
        // A later version of the file may have taken a name: the file's counts then.
        let free = here
            .map(|one| &one.metric)
            .filter(|one| !edge.metrics.iter().any(|other| other.name() == one.name()));
        measured.extend(edge.metrics.iter().chain(free).map(|metric| OwnMetric {
            edge: edge.edge.clone(),
            name: metric.name().to_owned(),
            value: metric.value(&window),
            series: Vec::new(),
        }));
    }
    measured
}
