//! The editable description of a graph, and the verbs that write it.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch},
    datatypes::{FieldRef, SchemaRef},
};
use serde_json::Value;

use crate::{
    CompileErrors, Plan, Step, StepError, Stream, Tap,
    policy::{OnError, Policies},
    steps::{self, JoinOn},
};

/// The name of the port that every step has for rows and runs that failed.
pub const ERROR_PORT: &str = "error";
/// The name under which a graph's own input can be read.
pub const INPUT: &str = "input";
/// The name under which rows of failed runs can be read, where a graph handles its errors itself.
pub const ON_ERROR: &str = "on_error";

/// What the user writes: named steps and edges, editable, maybe wrong.
///
/// Verbs return a [`PortRef`], the place where their rows come out; mistakes are collected by [`Graph::compile`].
///
/// ```
/// use millstream_graph::{fields, rows, Graph};
///
/// let mut graph = Graph::new("double", fields! { x: Int64 });
/// let input = graph.input();
/// let doubled = graph.map("doubled", &input, fields! { y: Int64 }, |batch| {
///     use arrow::{array::{AsArray, Int64Array}, datatypes::Int64Type};
///     let x = batch.column(0).as_primitive::<Int64Type>();
///     Ok(rows! { y: x.values().iter().map(|x| x * 2).collect::<Vec<i64>>() })
/// });
/// graph.respond(&doubled);
/// let plan = graph.compile()?;
/// assert_eq!(plan.reply_schema().field(0).name(), "y");
/// # Ok::<(), millstream_graph::CompileErrors>(())
/// ```
#[derive(Clone)]
pub struct Graph {
    pub(crate) name: String,
    pub(crate) input: SchemaRef,
    pub(crate) nodes: Vec<Node>,
    pub(crate) taps: Vec<Tapped>,
    /// The replies of graphs that were put here, by the names that they go by.
    replies: Vec<(String, PortRef)>,
    pub(crate) stream: Option<Stream>,
    pub(crate) early: Vec<crate::CompileError>,
}

/// Who observes a port: every edge of it, or once these columns.
#[derive(Clone)]
pub(crate) struct Tapped {
    pub(crate) port: PortRef,
    pub(crate) tap: Arc<dyn Tap>,
    /// The columns that it reads, by name; all where nothing is said.
    pub(crate) columns: Option<Arc<[String]>>,
}

/// A step of a graph that is not compiled yet.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) inputs: Vec<PortRef>,
    pub(crate) step: Arc<dyn Step>,
    pub(crate) policies: Policies,
    pub(crate) respond: bool,
    /// The kind and settings that a file would hold; `None` for a step made in Rust.
    pub(crate) written: Option<Value>,
    pub(crate) description: Option<String>,
    /// Whether it is there because of another step, which is written in its place.
    pub(crate) embedded: bool,
    /// Whether it reads an error port because a policy says so.
    pub(crate) substitutes: bool,
    /// The layers around the step as a file would hold them, innermost first.
    pub(crate) layers: Vec<(&'static str, Value)>,
}

/// Where rows come out: a step's out-port, by name.
///
/// Made by the verbs of [`Graph`]. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortRef {
    pub(crate) step: Arc<str>,
    pub(crate) port: Option<Arc<str>>,
}

impl PortRef {
    pub(crate) fn of(step: &str) -> Self {
        Self { step: step.into(), port: None }
    }

    /// Another out-port of the same step.
    #[must_use]
    pub fn port(&self, name: &str) -> Self {
        Self { step: Arc::clone(&self.step), port: Some(name.into()) }
    }

    /// The same step's error port: rows that failed, with a column `error` that says why.
    #[must_use]
    pub fn error(&self) -> Self {
        self.port(ERROR_PORT)
    }

    /// The step's name.
    pub fn step_name(&self) -> &str {
        &self.step
    }
}

impl std::fmt::Display for PortRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.port {
            Some(port) => write!(f, "{}.{port}", self.step),
            None => f.write_str(&self.step),
        }
    }
}

/// The ports that a step reads, in order: one port, or several.
pub struct Ports(Vec<PortRef>);

impl From<PortRef> for Ports {
    fn from(port: PortRef) -> Self {
        Self(vec![port])
    }
}
impl From<&PortRef> for Ports {
    fn from(port: &PortRef) -> Self {
        Self(vec![port.clone()])
    }
}
impl<const N: usize> From<[&PortRef; N]> for Ports {
    fn from(ports: [&PortRef; N]) -> Self {
        Self(ports.into_iter().cloned().collect())
    }
}
impl From<&[PortRef]> for Ports {
    fn from(ports: &[PortRef]) -> Self {
        Self(ports.to_vec())
    }
}
impl From<Vec<PortRef>> for Ports {
    fn from(ports: Vec<PortRef>) -> Self {
        Self(ports)
    }
}

impl Graph {
    /// An empty graph whose requests have the columns of `input`.
    pub fn new(name: &str, input: SchemaRef) -> Self {
        Self {
            name: name.to_owned(),
            input,
            nodes: Vec::new(),
            taps: Vec::new(),
            replies: Vec::new(),
            stream: None,
            early: Vec::new(),
        }
    }

    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns of a request.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The rows of the request.
    pub fn input(&self) -> PortRef {
        PortRef::of(INPUT)
    }

    /// The rows of requests whose run failed, with a column `error`.
    ///
    /// Reading this port makes the steps behind it the graph's error handler: they run only when a step has failed whose
    /// own error port is not read, and then instead of every step that has not run.
    pub fn on_error(&self) -> PortRef {
        PortRef::of(ON_ERROR)
    }

    /// Adds a step.
    pub fn step(&mut self, name: &str, inputs: impl Into<Ports>, step: impl Step) -> PortRef {
        self.add(name, "step", inputs.into(), Arc::new(step))
    }

    /// Adds a step that is shared or was made elsewhere; `kind` is the word that `explain` shows for it.
    pub fn add(&mut self, name: &str, kind: &'static str, inputs: Ports, step: Arc<dyn Step>) -> PortRef {
        self.nodes.push(Node {
            name: name.to_owned(),
            kind,
            inputs: inputs.0,
            step,
            policies: Policies::default(),
            respond: false,
            written: None,
            description: None,
            embedded: false,
            substitutes: false,
            layers: Vec::new(),
        });
        PortRef::of(name)
    }

    /// Adds a step from a closure over batches that keeps its rows: as many rows out as in, in the same order.
    pub fn map<F>(&mut self, name: &str, input: impl Into<Ports>, output: SchemaRef, f: F) -> PortRef
    where
        F: Fn(&RecordBatch) -> Result<RecordBatch, StepError> + Send + Sync + 'static,
    {
        self.add(name, "map", input.into(), Arc::new(steps::Map::new(output, f)))
    }

    /// Adds a step from a closure over batches whose answer has no fixed relation to the rows that went in.
    pub fn transform<F>(&mut self, name: &str, input: impl Into<Ports>, output: SchemaRef, f: F) -> PortRef
    where
        F: Fn(&RecordBatch) -> Result<RecordBatch, StepError> + Send + Sync + 'static,
    {
        self.add(name, "transform", input.into(), Arc::new(steps::Map::free(output, f)))
    }

    /// Adds a step from a closure over typed rows; `I` and `O` are structs whose fields are columns.
    ///
    /// A row for which the closure answers an error leaves on the error port. The columns of `O` are `output`.
    pub fn map_rows<I, O, F>(
        &mut self,
        name: &str,
        input: impl Into<Ports>,
        output: SchemaRef,
        f: F,
    ) -> PortRef
    where
        I: serde::de::DeserializeOwned + 'static,
        O: serde::Serialize + 'static,
        F: Fn(I) -> Result<O, String> + Send + Sync + 'static,
    {
        self.add(name, "map_rows", input.into(), Arc::new(steps::MapRows::new(output, f)))
    }

    /// Adds a step that hands on the rows for which `keep` is true; null counts as false.
    pub fn filter<F>(&mut self, name: &str, input: impl Into<Ports>, keep: F) -> PortRef
    where
        F: Fn(&RecordBatch) -> Result<BooleanArray, StepError> + Send + Sync + 'static,
    {
        self.add(name, "filter", input.into(), Arc::new(steps::Filter::new(keep)))
    }

    /// Adds a step that sends each row out of one of `ports`: the closure answers one index into `ports` per row.
    pub fn choose<const N: usize, F>(
        &mut self,
        name: &str,
        input: impl Into<Ports>,
        ports: [&str; N],
        route: F,
    ) -> [PortRef; N]
    where
        F: Fn(&RecordBatch) -> Result<Vec<usize>, StepError> + Send + Sync + 'static,
    {
        let step = self.add(name, "choose", input.into(), Arc::new(steps::Choose::new(&ports, route)));
        ports.map(|port| step.port(port))
    }

    /// Adds a step that brings the rows of several ports of one schema back together, in the order of the request.
    pub fn merge(&mut self, name: &str, inputs: impl Into<Ports>) -> PortRef {
        self.add(name, "merge", inputs.into(), Arc::new(steps::Merge::default()))
    }

    /// Adds a step that puts the columns of several ports side by side; see [`JoinOn`] for which rows meet.
    pub fn join(&mut self, name: &str, inputs: impl Into<Ports>, on: JoinOn) -> PortRef {
        self.add(name, "join", inputs.into(), Arc::new(steps::Join::new(on)))
    }

    /// Adds a join that leaves out the rows of in-port 0 that meet no row of another in-port.
    pub fn inner_join(&mut self, name: &str, inputs: impl Into<Ports>, on: JoinOn) -> PortRef {
        self.add(name, "join", inputs.into(), Arc::new(steps::Join::new(on).how(steps::JoinHow::Inner)))
    }

    /// Puts the steps of `graph` here, under names that begin with `name/`, and answers the port of its reply.
    pub fn embed(&mut self, name: &str, input: &PortRef, graph: &Graph) -> PortRef {
        let reads_errors = |port: &PortRef| &*port.step == ON_ERROR;
        if graph.nodes.iter().flat_map(|node| &node.inputs).any(reads_errors) {
            self.early.push(crate::CompileError::EmbeddedHandler {
                step: name.to_owned(),
                graph: graph.name.clone(),
            });
        }
        let replies = graph.nodes.iter().filter(|node| node.respond).count();
        if replies != 1 {
            let problem = format!("graph `{}` has {replies} replies where a step needs one", graph.name);
            self.early.push(crate::CompileError::Schema { step: name.to_owned(), problem });
        }
        // The graph's own input becomes a step that checks its columns, so that a mismatch names this place.
        let entry = format!("{name}/{INPUT}");
        self.add(&entry, "graph", input.into(), Arc::new(steps::Entry::new(Arc::clone(&graph.input))));
        let moved = |port: &PortRef| match &*port.step {
            // Refused above; whatever reads it has no more to say.
            ON_ERROR => port.clone(),
            step => PortRef { step: format!("{name}/{step}").into(), port: port.port.clone() },
        };
        let mut reply = PortRef::of(&entry);
        for node in &graph.nodes {
            let renamed = format!("{name}/{}", node.name);
            if node.respond {
                reply = PortRef::of(&renamed);
            }
            self.nodes.push(Node {
                name: renamed,
                inputs: node.inputs.iter().map(moved).collect(),
                kind: if node.respond { "graph" } else { node.kind },
                respond: false,
                ..node.clone()
            });
        }
        self.early.extend(graph.early.iter().cloned());
        let taps = graph.taps.iter().map(|tapped| Tapped { port: moved(&tapped.port), ..tapped.clone() });
        self.taps.extend(taps);
        self.replies.push((name.to_owned(), reply.clone()));
        reply
    }

    /// The reply of the graph that was put here under a name.
    pub(crate) fn reply_of(&self, name: &str) -> Option<PortRef> {
        self.replies.iter().find(|(known, _)| known == name).map(|(_, reply)| reply.clone())
    }

    /// Puts another step in the place of the one of this name, which keeps its inputs. Answers whether there is one.
    pub fn substitute(&mut self, name: &str, step: Arc<dyn Step>) -> bool {
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.map(|node| node.step = step).is_some()
    }

    /// Makes `input` the reply. What the reply does not depend on runs after it, as the tail.
    pub fn respond(&mut self, input: &PortRef) -> PortRef {
        self.respond_as("respond", input)
    }

    /// Makes `input` the reply, by a respond step of another name.
    pub fn respond_as(&mut self, name: &str, input: &PortRef) -> PortRef {
        let port = self.add(name, "respond", input.into(), Arc::new(steps::Respond));
        if let Some(node) = self.nodes.last_mut() {
            node.respond = true;
        }
        port
    }

    /// Declares that replies may come in parts, to those who ask for a stream. A request that does not is one run.
    pub fn stream(&mut self, stream: Stream) {
        self.stream = Some(stream);
    }

    /// Declares what happens when the step behind `port` fails, and also when it is late or refuses a call, unless that is
    /// declared by [`when_late`](Self::when_late) and [`when_overloaded`](Self::when_overloaded).
    pub fn when_failed(&mut self, port: &PortRef, policy: OnError) {
        self.declare(port, |policies| policies.error = policy);
    }

    /// Declares what happens when the step behind `port` does not answer in the time that a timeout around it allows
    /// ([`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded)). When the deadline of the run itself has passed, the run ends in any case.
    pub fn when_late(&mut self, port: &PortRef, policy: OnError) {
        self.declare(port, |policies| policies.timeout = Some(policy));
    }

    /// Declares what happens when the step behind `port` refuses a call because a bound is reached
    /// ([`Overloaded`](crate::ErrorKind::Overloaded)).
    pub fn when_overloaded(&mut self, port: &PortRef, policy: OnError) {
        self.declare(port, |policies| policies.overload = Some(policy));
    }

    fn declare(&mut self, port: &PortRef, change: impl FnOnce(&mut Policies)) {
        let step = port.step.as_ref();
        // It was most likely written last.
        match self.nodes.iter_mut().rev().find(|node| node.name == step) {
            Some(node) => change(&mut node.policies),
            None => self.early.push(crate::CompileError::UnknownInput {
                step: step.to_owned(),
                wanted: step.to_owned(),
                message: crate::suggest::unknown(
                    "step",
                    step,
                    self.nodes.iter().map(|node| node.name.as_str()),
                ),
            }),
        }
    }

    /// Lets `tap` observe every edge that leaves `port`.
    pub fn tap(&mut self, port: &PortRef, tap: Arc<dyn Tap>) {
        self.taps.push(Tapped { port: port.clone(), tap, columns: None });
    }

    /// Lets `tap` observe what leaves `port`, once however many steps read it, and of it these columns. Others may be left out of what it
    /// sees, as they are of what travels where nothing reads them.
    pub fn tap_columns(
        &mut self,
        port: &PortRef,
        columns: impl IntoIterator<Item = String>,
        tap: Arc<dyn Tap>,
    ) {
        self.taps.push(Tapped { port: port.clone(), tap, columns: Some(columns.into_iter().collect()) });
    }

    /// Checks and types the graph.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn compile(&self) -> Result<Plan, CompileErrors> {
        crate::compile::compile(self)
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let steps: Vec<_> = self.nodes.iter().map(|node| &node.name).collect();
        f.debug_struct("Graph").field("name", &self.name).field("steps", &steps).finish_non_exhaustive()
    }
}

/// The columns of `fields`, each only once, as a schema.
pub(crate) fn schema_of(fields: impl IntoIterator<Item = FieldRef>) -> SchemaRef {
    Arc::new(arrow::datatypes::Schema::new(fields.into_iter().collect::<Vec<_>>()))
}
