//! The graph that is asked again: it acts on nothing, and what its `enrich` steps answer is what they answered when requests were
//! logged.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array},
    compute::take,
    datatypes::{FieldRef, Schema, SchemaRef},
};
use millstream_featurestore::{FeatureSets, OnlineSpec, OnlineStore, OnlineTable, Stores, WritableSet};
use millstream_graph::{
    FailedRows, Graph, Input, Narrow, Output, Plan, PlanStep, RunCx, SchemaError, Seen, Signature, Step,
    StepError, StepResult, Tap, Work, spec::GraphSpec,
};
use millstream_monitor::record::LogRows;
use millstream_runtime::{Engine, Limits};

use super::{Failure, ReplayArgs, as_type, stores};
use crate::{Project, offline::Acts};

/// The graph as it is now, of the project that is to be asked.
pub(super) fn engine(
    args: &ReplayArgs,
    graph: &str,
    log: &LogRows,
    features: &Arc<RecordedFeatures>,
) -> Result<Engine, Failure> {
    let project = args.other.as_deref().unwrap_or(&args.project);
    let plan = match args.features_now {
        true => with_features_now(project, args.state.as_deref(), graph)?,
        false => with_recorded_features(project, graph, features)?,
    };
    let mut problems: Vec<String> = Vec::new();
    for field in plan.carried_schema().fields() {
        let problem = unlogged(log, "input", field.name());
        problems.extend(problem.map(|problem| format!("{problem}: it cannot be asked again")));
    }
    for step in enriching(&plan).filter(|_| !args.features_now) {
        let lost: Vec<String> =
            added(&plan, step).filter_map(|field| unlogged(log, step.name(), field.name())).collect();
        if !lost.is_empty() {
            let (step, lost) = (step.name(), lost.join(", "));
            problems.push(format!(
                "step `{step}`: {lost}: what it answered is not known; ask for --features-now"
            ));
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("\n").into());
    }
    let limits = Limits { shared_rows: 1, adaptive: false, deadline: None, ..Limits::default() };
    Ok(Engine::new(plan, limits)?)
}

/// Why the log cannot say what a column of an edge had; none if it can.
fn unlogged(log: &LogRows, edge: &str, column: &str) -> Option<String> {
    let name = format!("{edge}__{column}");
    if log.dropped(edge).contains(column) {
        Some(format!("column `{column}` was dropped from the log"))
    } else if log.is_hashed(&name) {
        Some(format!("column `{column}` was logged as a digest only"))
    } else if log.schema().index_of(&name).is_err() {
        Some(format!("column `{column}` is not in the log"))
    } else {
        None
    }
}

fn enriching(plan: &Plan) -> impl Iterator<Item = &PlanStep> {
    plan.steps().iter().filter(|step| step.kind() == "enrich")
}

/// The features that an `enrich` step adds to the columns that come in, as far as something reads them.
fn added<'p>(plan: &'p Plan, step: &'p PlanStep) -> impl Iterator<Item = &'p FieldRef> {
    let came_in = step.in_edges().first().map_or(0, |edge| plan.edge_schema(*edge).fields().len());
    step.outputs().first().into_iter().flat_map(move |port| port.schema().fields().iter().skip(came_in))
}

fn with_recorded_features(
    project: &Path,
    graph: &str,
    features: &Arc<RecordedFeatures>,
) -> Result<Plan, Failure> {
    // What sets define is enough: none of their rows is read.
    let (sets, _) = Project::feature_sets(project, &Stores::aside(), |_| true)?;
    let store = Arc::new(sets) as Arc<dyn OnlineStore>;
    let plan = |change: &dyn Fn(&mut Graph)| {
        Project::plan_changed(project, Some(graph), &store, Acts::Not, |graph| change(graph))
            .map(|(_, plan)| plan)
    };
    let whole = plan(&watch_features)?;
    let answer = |step: &PlanStep| {
        let added = added(&whole, step).map(Arc::clone).collect();
        RecordedStep::new(step.name(), added, Arc::clone(features))
    };
    let steps: Vec<RecordedStep> = enriching(&whole).map(answer).collect();
    if steps.is_empty() {
        return Ok(whole);
    }
    Ok(plan(&|graph| {
        for step in &steps {
            graph.substitute(&step.name, Arc::new(step.untyped()));
        }
    })?)
}

/// Lets every feature travel, those that nothing reads too: steps are typed before it is known what is read.
fn watch_features(graph: &mut Graph) {
    // A graph with mistakes has no plan; it says so when it is compiled again.
    let (Ok(plan), Ok(spec)) = (graph.clone().compile(), GraphSpec::try_from(&*graph)) else { return };
    for step in enriching(&plan) {
        graph.tap(&spec.port(graph, step.name()), Arc::new(Watched));
    }
}

struct Watched;

impl Tap for Watched {
    fn observe(&self, _: &Seen<'_>) {}
}

/// The graph over the stores of its sets, of which those are opened that it reads.
fn with_features_now(project: &Path, state: Option<&Path>, graph: &str) -> Result<Plan, Failure> {
    let (sets, definitions) = Project::feature_sets(project, &Stores::aside(), |_| true)?;
    let plan = |store: Arc<dyn OnlineStore>| {
        Project::plan_changed(project, Some(graph), &store, Acts::Not, |_| {}).map(|(_, plan)| plan)
    };
    let asked = Arc::new(Asked { sets, names: Mutex::default() });
    plan(Arc::clone(&asked) as _)?;
    let read = asked.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let online = |set: &str| definitions.get(set).and_then(|set| set.online.as_ref());
    if let Some(set) =
        read.iter().find(|set| online(set).is_some_and(|online| matches!(online, OnlineSpec::Memory)))
    {
        let problem = format!(
            "the rows of feature set `{set}` lie in the memory of the process that serves them, so what they are now cannot be read here"
        );
        return Err(problem.into());
    }
    let (sets, _) = Project::feature_sets(project, &*stores(state)?, |set| read.contains(set))?;
    Ok(plan(Arc::new(sets))?)
}

/// Feature sets that remember which of them were asked for.
struct Asked {
    sets: FeatureSets,
    names: Mutex<BTreeSet<String>>,
}

impl OnlineStore for Asked {
    fn names(&self) -> Vec<String> {
        self.sets.names()
    }

    fn table(&self, set: &str) -> Option<Arc<dyn OnlineTable>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(set.to_owned());
        self.sets.table(set)
    }

    fn writable(&self, set: &str) -> Option<Arc<WritableSet>> {
        OnlineStore::writable(&self.sets, set)
    }
}

/// The rows of the request that is being asked again. Requests are asked one after another, so there is never more than one.
#[derive(Default)]
pub(super) struct RecordedFeatures {
    rows: Mutex<Option<RecordBatch>>,
    missed: AtomicBool,
}

impl RecordedFeatures {
    /// Takes the rows of the log of the next request, in their order.
    pub(super) fn are_of(&self, rows: RecordBatch) {
        self.missed.store(false, Ordering::Relaxed);
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
    }

    /// Whether features were asked for that were not when the request was logged.
    pub(super) fn were_missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed)
    }
}

/// Answers what an `enrich` step answered when the request was logged: the columns that come in, and its features.
struct RecordedStep {
    name: String,
    added: Vec<FieldRef>,
    features: Arc<RecordedFeatures>,
    schema: OnceLock<SchemaRef>,
}

impl RecordedStep {
    fn new(name: &str, added: Vec<FieldRef>, features: Arc<RecordedFeatures>) -> Self {
        Self { name: name.to_owned(), added, features, schema: OnceLock::new() }
    }

    /// The same step, not typed yet.
    fn untyped(&self) -> Self {
        Self::new(&self.name, self.added.clone(), Arc::clone(&self.features))
    }

    fn answer(&self, mut input: Input) -> StepResult {
        let rows = input.rows(0)?;
        let recorded = self.features.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(recorded), Some(schema)) = (recorded, self.schema.get()) else {
            return Err(StepError::internal("called without a request or before it was typed"));
        };
        let places: Option<Vec<u32>> = (0..rows.len()).map(|row| rows.origin().place(row)).collect();
        let places = places.ok_or_else(|| StepError::internal("rows lost their place"))?;
        let seen =
            recorded.column_by_name(&format!("{}__seen", self.name)).and_then(|seen| seen.as_boolean_opt());
        let was_seen = |place: &u32| {
            let place = *place as usize;
            seen.is_some_and(|seen| place < seen.len() && seen.is_valid(place) && seen.value(place))
        };
        let good: BooleanArray = places.iter().map(|place| Some(was_seen(place))).collect();
        // Rows that did not leave the step then had failed there, or never came.
        let lost: Vec<u32> = places.iter().copied().filter(|place| !was_seen(place)).collect();
        let (there, failed) = if lost.is_empty() {
            (rows, None)
        } else {
            self.features.missed.store(true, Ordering::Relaxed);
            let messages =
                lost.iter().map(|place| format!("the log has no features of row {place}")).collect();
            let failed = FailedRows { rows: rows.filter(&arrow::compute::not(&good)?)?, messages };
            (rows.filter(&good)?, Some(failed))
        };
        let places = UInt32Array::from_iter_values(places.into_iter().filter(was_seen));
        let mut columns = there.batch().columns().to_vec();
        for field in &self.added {
            let name = format!("{}__{}", self.name, field.name());
            let logged = recorded.column_by_name(&name);
            let logged =
                logged.ok_or_else(|| StepError::internal(format!("the log has no column `{name}`")))?;
            columns.push(take(&as_type(logged, field.data_type())?, &places, None)?);
        }
        let answer = Output::one(there.replace(RecordBatch::try_new(Arc::clone(schema), columns)?)?);
        Ok(match failed {
            Some(failed) => answer.with_failed(failed),
            None => answer,
        })
    }
}

impl Step for RecordedStep {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let [schema] = inputs else {
            return Err(SchemaError::new(format!("it takes one input, not {}", inputs.len())));
        };
        let fields: Vec<FieldRef> = schema.fields().iter().chain(&self.added).map(Arc::clone).collect();
        let typed = || Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let typed = Arc::clone(self.schema.get_or_init(typed));
        let step = self.untyped();
        // It reads none of the columns that come in, not even the keys.
        let narrow = Narrow::new([Vec::new()], move |carried| {
            let added = step.added.iter().filter(|field| carried.is_read(field.name()));
            Self::new(&step.name, added.map(Arc::clone).collect(), Arc::clone(&step.features))
        });
        Ok(Signature::row_wise(typed).narrowing(narrow))
    }

    fn call<'a>(&'a self, input: Input, _: &'a RunCx) -> Work<'a> {
        Work::Done(self.answer(input))
    }
}
