//! `millstream replay` and `explain-request`: what the request log has, asked again and shown.

mod explain;
mod found;
mod recorded;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray},
    compute::{CastOptions, cast, cast_with_options, concat_batches, sort_to_indices, take_record_batch},
    datatypes::{DataType, Int64Type, Schema, SchemaRef},
    error::ArrowError,
};
use clap::Args;
use millstream_graph::{ErrorKind, Request};
use millstream_monitor::record::Reader;
use millstream_runtime::Engine;
use tokio::runtime::Runtime;

use self::{
    found::Found,
    recorded::{RecordedFeatures, engine},
};
use super::{Failure, print, stores};
use crate::{Project, monitoring::time};

pub(super) use explain::{ExplainRequestArgs, explain_request};

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
    /// The folder for what feature sets keep; the project's by default. Read with --features-now.
    #[arg(long, env = "MILLSTREAM_STATE", value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Write how the replies differ as a page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One request, as the log has it: its rows in their order.
struct Recorded {
    id: String,
    outcome: String,
    took: i64,
    /// Whether the log has all of its rows.
    whole: bool,
    rows: RecordBatch,
}

pub(super) fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let (graph, folder) = log_of(&args.project, args.graph.as_deref(), args.log.as_deref())?;
    let now = time::now();
    let at =
        |text: &Option<String>, otherwise| text.as_ref().map_or(Ok(otherwise), |text| time::read(text, now));
    let log = Reader::open(&folder)?.rows(at(&args.from, i64::MIN)?, at(&args.to, i64::MAX)?)?;
    let nothing = || format!("{}: the log has no request of graph `{graph}` of that time", folder.display());
    if log.schema().fields().is_empty() {
        return Err(nothing().into());
    }
    let features = Arc::new(RecordedFeatures::default());
    let engine = engine(args, &graph, &log, &features)?;
    let mut found = Found::new(&log, engine.plan().reply_schema());
    let runtime = Runtime::new()?;
    let mut requests = Requests::default();
    for batch in log {
        for request in requests.take(&batch?)? {
            runtime.block_on(ask(&engine, &features, &request, &mut found))?;
        }
    }
    if let Some(request) = requests.rest()? {
        runtime.block_on(ask(&engine, &features, &request, &mut found))?;
    }
    runtime.block_on(engine.close());
    if found.requests == 0 {
        return Err(nothing().into());
    }
    found.show(args, &graph)
}

/// The graph that is meant, and the folder of its log.
fn log_of(project: &Path, graph: Option<&str>, log: Option<&Path>) -> Result<(String, PathBuf), Failure> {
    let (graph, record) = Project::record_of(project, graph)?;
    match (log, record) {
        (Some(log), _) => Ok((graph, log.to_path_buf())),
        (None, Some(folder)) => Ok((graph, folder)),
        (None, None) => {
            Err(format!("graph `{graph}` has no `record` in the project's file; name the folder by --log")
                .into())
        }
    }
}

/// The edge and its column that a column of the log is of; none for the columns of every request.
///
/// Edges and columns may have `__` in their names: the longest name is taken that an edge of the log has.
fn split<'c>(schema: &Schema, column: &'c str) -> Option<(&'c str, &'c str)> {
    let parts = |at: usize| Some((column.get(..at)?, column.get(at..)?.strip_prefix("__")?));
    let is_edge = |edge: &str| schema.index_of(&format!("{edge}__seen")).is_ok();
    (0..column.len()).rev().filter_map(parts).find(|(edge, _)| is_edge(edge))
}

/// A column as another type. A value that does not fit is an error, no null.
fn as_type(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    cast_with_options(column, data_type, &CastOptions { safe: false, ..CastOptions::default() })
}

/// What makes a request one: runs are counted anew by every process.
type Key = (String, i64, String);

/// Puts rows of the log together into requests. Those of one request follow one another.
#[derive(Default)]
struct Requests {
    key: Option<Key>,
    parts: Vec<RecordBatch>,
}

impl Requests {
    /// The requests that are whole after these rows.
    fn take(&mut self, batch: &RecordBatch) -> Result<Vec<Recorded>, Failure> {
        let mut whole = Vec::new();
        let (runs, at, ids) = (texts(batch, "run")?, numbers(batch, "at")?, texts(batch, "request_id")?);
        let key = |row: usize| (text(&runs, row), at.value(row), text(&ids, row));
        let mut start = 0;
        for row in 1..=batch.num_rows() {
            if row < batch.num_rows() && key(row) == key(start) {
                continue;
            }
            let key = Some(key(start));
            if self.key != key {
                whole.extend(self.rest()?);
                self.key = key;
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
        let rows = take_record_batch(&rows, &sort_to_indices(column(&rows, "row")?, None, None)?)?;
        // A log of an older version does not say how many rows a request had.
        let asked = rows.column_by_name("rows").map(|_| numbers(&rows, "rows")).transpose()?;
        let asked = asked.filter(|asked| asked.is_valid(0)).map(|asked| asked.value(0));
        let count = rows.num_rows() as i64;
        let in_order = numbers(&rows, "row")?.values().iter().copied().eq(0..count);
        Ok(Some(Recorded {
            id: text(&texts(&rows, "request_id")?, 0),
            outcome: text(&texts(&rows, "outcome")?, 0),
            took: numbers(&rows, "took_us")?.value(0),
            whole: in_order && asked.is_none_or(|asked| asked == count),
            rows,
        }))
    }
}

fn column<'r>(rows: &'r RecordBatch, name: &str) -> Result<&'r ArrayRef, Failure> {
    Ok(rows.column_by_name(name).ok_or_else(|| format!("the log has no column `{name}`"))?)
}

fn texts(rows: &RecordBatch, name: &str) -> Result<StringArray, Failure> {
    Ok(cast(column(rows, name)?, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn numbers(rows: &RecordBatch, name: &str) -> Result<Int64Array, Failure> {
    Ok(cast(column(rows, name)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn text(texts: &StringArray, row: usize) -> String {
    if texts.is_null(row) { String::new() } else { texts.value(row).to_owned() }
}

/// Whether it says more of its moment than of the request: the same request may come to another end a moment later.
fn is_transient(outcome: &str) -> bool {
    use ErrorKind::{DeadlineExceeded, Overloaded, Unavailable};
    outcome == "cancelled"
        || ErrorKind::named(outcome)
            .is_some_and(|kind| matches!(kind, DeadlineExceeded | Overloaded | Unavailable))
}

async fn ask(
    engine: &Engine,
    features: &RecordedFeatures,
    request: &Recorded,
    found: &mut Found,
) -> Result<(), Failure> {
    found.requests += 1;
    if is_transient(&request.outcome) {
        found.not_comparable += 1;
        return Ok(());
    }
    let rows = asked(request, engine.plan().carried_schema())?;
    let Some(rows) = rows.filter(|_| request.whole) else {
        found.partial += 1;
        return Ok(());
    };
    features.are_of(request.rows.clone());
    let asked = Request { id: Some(request.id.as_str().into()), ..Request::default() };
    let start = Instant::now();
    let answered = engine.try_run(asked, rows).await;
    found.took(request.took as f64 / 1e6, start.elapsed().as_secs_f64());
    match answered {
        Ok(reply) if request.outcome == "ok" => found.compare(request, &reply)?,
        Err(error) if request.outcome == error.kind().name() => found.equal += 1,
        // The graph looks features up for rows for which it did not when they were logged: nobody knows what it would have said.
        _ if features.were_missed() => found.not_comparable += 1,
        _ => found.outcome_changed += 1,
    }
    Ok(())
}

/// What a request asked: the columns that the graph reads, since only those are sure to be in the log. None when a value that must
/// be there is not.
fn asked(request: &Recorded, schema: &SchemaRef) -> Result<Option<RecordBatch>, Failure> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let logged = column(&request.rows, &format!("input__{}", field.name()))?;
        if logged.null_count() > 0 && !field.is_nullable() {
            return Ok(None);
        }
        let problem = |error| format!("request `{}`: column `{}`: {error}", request.id, field.name());
        columns.push(as_type(logged, field.data_type()).map_err(problem)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(request.rows.num_rows()));
    Ok(Some(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_column_is_of_the_longest_edge_that_its_name_begins_with() {
        let names =
            ["run", "my__version", "a__seen", "a__x", "a__b__seen", "a__b__x", "a___y", "ä__seen", "ä__ö__ü"];
        let schema = Schema::new(names.map(|name| Field::new(name, DataType::Boolean, true)).to_vec());
        for (column, want) in [
            ("run", None),
            ("my__version", None),
            ("a__seen", Some(("a", "seen"))),
            ("a__x", Some(("a", "x"))),
            ("a__b__seen", Some(("a__b", "seen"))),
            ("a__b__x", Some(("a__b", "x"))),
            ("a___y", Some(("a", "_y"))),
            ("ä__ö__ü", Some(("ä", "ö__ü"))),
        ] {
            assert_eq!(split(&schema, column), want, "{column}");
        }
    }

    #[test]
    fn outcomes_of_the_moment_are_told_from_those_of_the_request() {
        for (outcome, transient) in [
            ("ok", false),
            ("rows", false),
            ("internal", false),
            ("panicked", false),
            ("overloaded", true),
            ("deadline_exceeded", true),
            ("unavailable", true),
            ("cancelled", true),
        ] {
            assert_eq!(is_transient(outcome), transient, "{outcome}");
        }
    }
}
