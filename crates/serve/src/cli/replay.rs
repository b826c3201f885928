//! `millstream replay` and `explain-request`: what the request log has, asked again and shown.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array},
    compute::{cast, concat_batches, sort_to_indices, take_record_batch},
    datatypes::{DataType, Float64Type, Int64Type, SchemaRef, UInt32Type},
    util::display::array_value_to_string,
};
use clap::Args;
use millstream_featurestore::Stores;
use millstream_graph::{Input, Output, Request, RunCx, SchemaError, Signature, Step, StepError, Work};
use millstream_monitor::{
    Reference, ReferenceOptions,
    compare::{Criterion, compare},
    record::Reader,
    report::Report,
};
use millstream_runtime::{Engine, Limits, Reply};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Failure, print};
use crate::{Project, monitoring::time, offline::Acts};

#[derive(Args)]
pub(super) struct ReplayArgs {
    /// The graph whose requests were logged; may be left out when the project has one.
    graph: Option<String>,
    /// The project's folder or file.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// Another project, whose graph of the same name is asked instead: what it would have said.
    #[arg(long = "with", value_name = "PROJECT")]
    other: Option<PathBuf>,
    /// The folder of the graph's log; that of `record` in the project's file by default.
    #[arg(long, value_name = "FOLDER")]
    log: Option<PathBuf>,
    /// From this time on: `2026-12-01T05:00:00Z`, or so long before now: `24h`.
    #[arg(long)]
    from: Option<String>,
    /// Before this time.
    #[arg(long)]
    to: Option<String>,
    /// Look features up as they are now, instead of taking those that were logged.
    #[arg(long)]
    features_now: bool,
    /// Write how the replies differ as a page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ExplainRequestArgs {
    /// The request's id.
    id: String,
    /// The graph that answered it; may be left out when the project has one.
    #[arg(long)]
    graph: Option<String>,
    /// The project's folder or file.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// The folder of the graph's log; that of `record` in the project's file by default.
    #[arg(long, value_name = "FOLDER")]
    log: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One request, as the log has it.
struct Recorded {
    id: String,
    outcome: String,
    took: i64,
    rows: RecordBatch,
}

/// What was found.
#[derive(Default)]
struct Found {
    requests: u64,
    equal: u64,
    different: u64,
    /// Requests that failed then or now, but not both.
    outcome_changed: u64,
    /// Requests that are not whole in the log.
    partial: u64,
    columns: BTreeMap<String, Differences>,
    then: Vec<f64>,
    now: Vec<f64>,
    replies: (Vec<RecordBatch>, Vec<RecordBatch>),
}

#[derive(Default)]
struct Differences {
    rows: u64,
    most: f64,
}

/// Replies that are kept to compare how they are distributed.
const KEPT_ROWS: usize = 1 << 20;

pub(super) fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let (graph, folder) = log_of(&args.project, args.graph.as_deref(), args.log.as_deref())?;
    let recorded = Arc::new(RecordedFeatures::default());
    let asked = args.other.as_deref().unwrap_or(&args.project);
    let engine = engine(asked, &graph, (!args.features_now).then_some(&recorded), &folder)?;
    let now = time::now();
    let at = |text: &Option<String>, otherwise| text.as_ref().map_or(Ok(otherwise), |text| time::read(text, now));
    let log = Reader::open(&folder)?.rows(at(&args.from, i64::MIN)?, at(&args.to, i64::MAX)?)?;
    let runtime = Runtime::new()?;
    let mut found = Found::default();
    let mut requests = Requests::default();
    for batch in log {
        for request in requests.take(&batch?)? {
            runtime.block_on(ask(&engine, &recorded, &request, &mut found))?;
        }
    }
    for request in requests.rest()? {
        runtime.block_on(ask(&engine, &recorded, &request, &mut found))?;
    }
    runtime.block_on(engine.close());
    found.show(args, &graph)
}

pub(super) fn explain_request(args: &ExplainRequestArgs) -> Result<(), Failure> {
    let (graph, folder) = log_of(&args.project, args.graph.as_deref(), args.log.as_deref())?;
    let rows = Reader::open(&folder)?.request(&args.id)?;
    let rows = rows.ok_or_else(|| format!("the log of graph `{graph}` has no request `{}`", args.id))?;
    let mut told: Vec<Value> = Vec::new();
    for row in 0..rows.num_rows() {
        let mut steps: Vec<(String, Value)> = Vec::new();
        let mut head = serde_json::Map::new();
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let value = || -> Result<Value, Failure> {
                Ok(if column.is_null(row) { Value::Null } else { array_value_to_string(column, row)?.into() })
            };
            match field.name().split_once("__") {
                None => drop(head.insert(field.name().clone(), value()?)),
                Some((_, "seen")) => {}
                Some((step, name)) => {
                    let value = value()?;
                    match steps.iter_mut().find(|(known, _)| known == step) {
                        Some((_, Value::Object(columns))) => drop(columns.insert(name.to_owned(), value)),
                        _ => steps.push((step.to_owned(), json!({ name: value }))),
                    }
                }
            }
        }
        let steps: Vec<Value> = steps.into_iter().map(|(step, columns)| json!({ "step": step, "columns": columns })).collect();
        head.insert("steps".to_owned(), steps.into());
        told.push(head.into());
    }
    if args.json {
        return print(&serde_json::to_string_pretty(&told)?);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| "null".to_owned(), str::to_owned);
    let mut lines = Vec::new();
    for row in &told {
        let head = row.as_object().into_iter().flatten().filter(|(name, _)| *name != "steps");
        lines.extend(head.map(|(name, value)| format!("{name:<16} {}", text(value))));
        for step in row["steps"].as_array().into_iter().flatten() {
            lines.push(format!("\n  {}", text(&step["step"])));
            let columns = step["columns"].as_object().into_iter().flatten();
            lines.extend(columns.map(|(name, value)| format!("    {name:<24} {}", text(value))));
        }
        lines.push(String::new());
    }
    print(lines.join("\n").trim_end())
}

/// The graph that is meant, and the folder of its log.
fn log_of(project: &Path, graph: Option<&str>, log: Option<&Path>) -> Result<(String, PathBuf), Failure> {
    let (graph, record) = Project::record_of(project, graph)?;
    match (log, record) {
        (Some(log), _) => Ok((graph, log.to_path_buf())),
        (None, Some(folder)) => Ok((graph, folder)),
        (None, None) => Err(format!("graph `{graph}` has no `record` in the project's file; name the folder by --log").into()),
    }
}

/// The graph as it is now, which acts on nothing. With `recorded`, its features are those of the log.
fn engine(project: &Path, graph: &str, recorded: Option<&Arc<RecordedFeatures>>, folder: &Path) -> Result<Engine, Failure> {
    let (sets, _) = Project::feature_sets(project, &Stores::aside(), |_| true)?;
    let store = Arc::new(sets) as Arc<dyn millstream_featurestore::OnlineStore>;
    let plan = |change: &dyn Fn(&mut millstream_graph::Graph)| {
        Project::plan_changed(project, Some(graph), &store, Acts::Not, |graph| change(graph))
    };
    let (_, original) = plan(&|_| {})?;
    let logged = Reader::open(folder)?.rows(i64::MIN, i64::MAX)?;
    let logged = logged.schema();
    let enriched = original.steps().iter().filter(|step| step.kind() == "enrich");
    let given: Vec<(String, SchemaRef)> = enriched
        .filter_map(|step| Some((step.name().to_string(), Arc::clone(step.outputs().first()?.schema()))))
        .filter(|(name, schema)| {
            schema.fields().iter().all(|field| logged.index_of(&format!("{name}__{}", field.name())).is_ok())
        })
        .collect();
    let (_, plan) = plan(&|graph| {
        for (name, schema) in given.iter().filter(|_| recorded.is_some()) {
            let features = recorded.map(Arc::clone).unwrap_or_default();
            let step = RecordedStep { name: name.clone(), schema: Arc::clone(schema), features };
            graph.substitute(name, Arc::new(step));
        }
    })?;
    // Each request by itself, so that its features are found by its name.
    let limits = Limits { shared_rows: 1, adaptive: false, deadline: None, ..Limits::default() };
    Ok(Engine::new(plan, limits)?)
}

/// The rows of the request that is being asked again.
#[derive(Default)]
struct RecordedFeatures {
    rows: Mutex<Option<RecordBatch>>,
}

/// Answers what a step answered when the request was logged.
struct RecordedStep {
    name: String,
    schema: SchemaRef,
    features: Arc<RecordedFeatures>,
}

impl Step for RecordedStep {
    fn signature(&self, _: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&self.schema)))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let mut answer = || {
            let rows = input.rows(0)?;
            let recorded = self.features.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let recorded = recorded.ok_or_else(|| StepError::internal("no request is being asked again".to_owned()))?;
            let places: Option<Vec<u32>> = (0..rows.len()).map(|row| rows.origin().place(row)).collect();
            let places = places.ok_or_else(|| StepError::internal("rows lost their place".to_owned()))?;
            let picked = take_record_batch(&recorded, &UInt32Array::from(places))?;
            Ok(Output::one(rows.replace(columns_of(&picked, &self.name, &self.schema)?)?))
        };
        Work::Done(answer())
    }
}

/// The columns of a step in rows of the log.
fn columns_of(rows: &RecordBatch, step: &str, schema: &SchemaRef) -> Result<RecordBatch, StepError> {
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let name = format!("{step}__{}", field.name());
        let found = rows.column_by_name(&name);
        let found = found.ok_or_else(|| StepError::internal(format!("the log has no column `{name}`: it is not logged, or dropped")))?;
        if found.data_type() == field.data_type() { Ok(Arc::clone(found)) } else { Ok(cast(found, field.data_type())?) }
    };
    let columns: Vec<ArrayRef> = schema.fields().iter().map(column).collect::<Result<_, StepError>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Puts rows of the log together into requests. Those of one request follow one another.
#[derive(Default)]
struct Requests {
    run: Option<String>,
    parts: Vec<RecordBatch>,
}

impl Requests {
    /// The requests that are whole after these rows.
    fn take(&mut self, batch: &RecordBatch) -> Result<Vec<Recorded>, Failure> {
        let mut whole = Vec::new();
        let runs = texts(batch, "run")?;
        let mut start = 0;
        for row in 0..=batch.num_rows() {
            let ends = row == batch.num_rows() || runs[row] != runs[start];
            if !ends || row == start {
                continue;
            }
            if self.run.as_ref() != Some(&runs[start]) {
                whole.extend(self.rest()?);
                self.run = Some(runs[start].clone());
            }
            self.parts.push(batch.slice(start, row - start));
            start = row;
        }
        Ok(whole)
    }

    /// The request whose rows have come last.
    fn rest(&mut self) -> Result<Option<Recorded>, Failure> {
        let parts = std::mem::take(&mut self.parts);
        let Some(first) = parts.first() else { return Ok(None) };
        let rows = concat_batches(&first.schema(), &parts)?;
        let order = rows.column_by_name("row").ok_or("the log has no column `row`")?;
        let rows = take_record_batch(&rows, &sort_to_indices(order, None, None)?)?;
        let first = |name: &str| -> Result<String, Failure> { Ok(texts(&rows, name)?.swap_remove(0)) };
        let took = rows.column_by_name("took_us").ok_or("the log has no column `took_us`")?;
        Ok(Some(Recorded {
            id: first("request_id").unwrap_or_default(),
            outcome: first("outcome")?,
            took: took.as_primitive::<Int64Type>().value(0),
            rows,
        }))
    }
}

fn texts(rows: &RecordBatch, name: &str) -> Result<Vec<String>, Failure> {
    let column = rows.column_by_name(name).ok_or_else(|| format!("the log has no column `{name}`"))?;
    let column = cast(column, &DataType::Utf8)?;
    Ok(column.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect())
}

async fn ask(
    engine: &Engine,
    features: &RecordedFeatures,
    request: &Recorded,
    found: &mut Found,
) -> Result<(), Failure> {
    let places = request.rows.column_by_name("row").ok_or("the log has no column `row`")?;
    let places = places.as_primitive::<UInt32Type>();
    found.requests += 1;
    if places.values().iter().enumerate().any(|(at, place)| at as u32 != *place) {
        found.partial += 1;
        return Ok(());
    }
    let rows = columns_of(&request.rows, "input", engine.plan().input_schema())?;
    *features.rows.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.rows.clone());
    let asked = Request { id: Some(request.id.as_str().into()), ..Request::default() };
    let start = Instant::now();
    let answered = engine.try_run(asked, rows).await;
    found.now.push(start.elapsed().as_secs_f64());
    found.then.push(request.took as f64 / 1e6);
    match answered {
        Ok(reply) if request.outcome == "ok" => found.compare(request, &reply)?,
        Err(error) if request.outcome == error.kind().name() => found.equal += 1,
        _ => found.outcome_changed += 1,
    }
    Ok(())
}

impl Found {
    /// Holds a reply against the one that was logged, column by column, to the bit.
    fn compare(&mut self, request: &Recorded, reply: &Reply) -> Result<(), Failure> {
        let rows = reply.rows();
        let places: Option<Vec<u32>> = (0..rows.num_rows()).map(|row| reply.place(row)).collect();
        let Some(places) = places else {
            self.partial += 1;
            return Ok(());
        };
        let then = take_record_batch(&request.rows, &UInt32Array::from(places))?;
        let mut different = false;
        let mut kept = HashMap::new();
        for (field, now) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let Some(then) = then.column_by_name(&format!("reply__{}", field.name())) else { continue };
            let then = if then.data_type() == now.data_type() { Arc::clone(then) } else { cast(then, now.data_type())? };
            let apart = differing(&then, now);
            if apart.rows > 0 {
                different = true;
                let column = self.columns.entry(field.name().clone()).or_default();
                column.rows += apart.rows;
                column.most = column.most.max(apart.most);
            }
            kept.insert(field.name(), then);
        }
        *(if different { &mut self.different } else { &mut self.equal }) += 1;
        if self.replies.1.iter().map(RecordBatch::num_rows).sum::<usize>() < KEPT_ROWS && kept.len() == rows.num_columns() {
            let columns = rows.schema_ref().fields().iter().filter_map(|field| kept.remove(field.name())).collect();
            // What was null then need not be allowed to be now.
            let fields: Vec<_> = rows.schema_ref().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
            let schema = Arc::new(arrow::datatypes::Schema::new(fields));
            self.replies.0.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
            self.replies.1.push(RecordBatch::try_new(schema, rows.columns().to_vec())?);
        }
        Ok(())
    }

    fn show(self, args: &ReplayArgs, graph: &str) -> Result<(), Failure> {
        let drift = self.drift(graph)?;
        if let (Some(file), Some(report)) = (&args.html, &drift) {
            std::fs::write(file, report.to_html()).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let latency = |times: &[f64]| json!({ "p50": quantile(times, 0.5), "p99": quantile(times, 0.99) });
        let columns: BTreeMap<&String, Value> = self
            .columns
            .iter()
            .map(|(name, column)| (name, json!({ "rows": column.rows, "most": column.most })))
            .collect();
        let told = json!({
            "graph": graph,
            "requests": self.requests,
            "equal": self.equal,
            "different": self.different,
            "outcome_changed": self.outcome_changed,
            "partial": self.partial,
            "columns": columns,
            "seconds_then": latency(&self.then),
            "seconds_now": latency(&self.now),
            "drift": drift.as_ref().map(Report::summary),
        });
        if args.json {
            print(&serde_json::to_string_pretty(&told)?)?;
        } else {
            let mut text = format!(
                "{} requests: {} equal to the bit, {} different, {} with another outcome, {} not whole in the log",
                self.requests, self.equal, self.different, self.outcome_changed, self.partial
            );
            for (name, column) in &self.columns {
                text += &format!("\n  {name}: {} rows differ, by {} at most", column.rows, column.most);
            }
            if let Some(drift) = drift.filter(|_| self.different > 0) {
                text += &format!("\n  {}", drift.summary());
            }
            print(&text)?;
        }
        let same = args.other.is_none() && !args.features_now;
        match self.different + self.outcome_changed {
            0 => Ok(()),
            _ if !same => Ok(()),
            differing => Err(format!("{differing} requests are answered otherwise than they were").into()),
        }
    }

    /// How the replies of now are distributed beside those of then.
    fn drift(&self, graph: &str) -> Result<Option<Report>, Failure> {
        let (then, now) = &self.replies;
        if then.is_empty() {
            return Ok(None);
        }
        let reference = Reference::of(then, &ReferenceOptions::default())?;
        let live = reference.count_rows(now)?;
        let edges = compare(&[("reply", &live, Some(&reference), Criterion::default())]);
        let report = Report {
            graph: graph.to_owned(),
            reference: Some("the replies that were logged".to_owned()),
            made: time::now(),
            requests: self.requests,
            edges,
            ..Report::default()
        };
        Ok(Some(report.counted()))
    }
}

/// How many rows of two columns differ, and by how much where they are numbers.
fn differing(then: &ArrayRef, now: &ArrayRef) -> Differences {
    let mut apart = Differences::default();
    if then.to_data() == now.to_data() {
        return apart;
    }
    let number = |array: &ArrayRef| cast(array, &DataType::Float64).ok().filter(|_| array.data_type().is_numeric());
    let numbers = number(then).zip(number(now));
    for row in 0..now.len() {
        if then.slice(row, 1).to_data() == now.slice(row, 1).to_data() {
            continue;
        }
        apart.rows += 1;
        if let Some((then, now)) = &numbers {
            let value = |array: &ArrayRef| array.as_primitive::<Float64Type>().value(row);
            apart.most = apart.most.max((value(then) - value(now)).abs());
        }
    }
    apart
}

fn quantile(times: &[f64], q: f64) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(((times.len() as f64 - 1.0) * q).round() as usize).copied()
}
