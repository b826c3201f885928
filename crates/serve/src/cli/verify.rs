//! `millstream verify`: requests that were served, asked again of the past; every value must come out the same, to the bit.

use std::path::{Path, PathBuf};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::concat_batches,
    datatypes::Field,
    util::display::array_value_to_string,
};
use clap::Args;
use millstream_graph::{Plan, suggest};
use millstream_runtime::Engine;
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};

use super::{
    Failure,
    asked::{Asked, Asking, in_order},
    batch::{engine, progress_bar},
    input::Input,
    note, print,
};
use crate::{
    offline::{Acts, plan},
    wire::UnknownFields,
};

/// Rows per run.
const ROWS: usize = 4096;

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// The graph; may be left out when the project has one.
    graph: Option<String>,
    /// The project's folder or file.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// The folder for what feature sets keep; the project's by default.
    #[arg(long, env = "MILLSTREAM_STATE", value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// What was served, one row for each row of a request: its columns, its time, and columns of the reply. Files end in `.jsonl`,
    /// `.csv` or `.parquet`.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    log: Vec<PathBuf>,
    /// The column with the time of each request.
    #[arg(long, default_value = "_at", value_name = "COLUMN")]
    time: String,
    /// Differences that are shown for each column.
    #[arg(long, default_value_t = 3)]
    examples: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let engine = engine(args.plan(runtime.handle())?)?;
    let fields = engine.plan().reply_schema().fields();
    let mut tallies: Vec<Tally> = fields.iter().map(|field| Tally::new(field)).collect();
    for file in &args.log {
        runtime.block_on(compare(args, &engine, file, &mut tallies))?;
    }
    runtime.block_on(engine.close());
    report(args, &tallies)
}

impl VerifyArgs {
    fn plan(&self, runtime: &Handle) -> Result<Plan, Failure> {
        let place = (self.project.as_path(), self.state.as_deref());
        Ok(plan(place, self.graph.as_deref(), Acts::Not, runtime)?.1)
    }
}

/// Asks again what one file says was asked.
async fn compare(
    args: &VerifyArgs,
    engine: &Engine,
    file: &Path,
    tallies: &mut [Tally],
) -> Result<(), Failure> {
    let (input, reply) = (engine.plan().input_schema(), engine.plan().reply_schema());
    let columns = Input::columns(file)?;
    if !columns.contains(&args.time) {
        let unknown = suggest::unknown("field", &args.time, columns.iter().map(String::as_str));
        return Err(format!("{}: {unknown}", file.display()).into());
    }
    // Of two columns of one name the log has one. If their types are the same, it is taken for both.
    let is_served = |field: &Field| {
        let asked = input.field_with_name(field.name()).ok();
        columns.contains(field.name()) && asked.is_none_or(|asked| asked.data_type() == field.data_type())
    };
    let (mut compared, mut beside) = (Vec::new(), Vec::new());
    for (at, field) in reply.fields().iter().enumerate() {
        if is_served(field) {
            compared.push(at);
            beside.push(field.as_ref().clone());
        } else {
            note(&format!("{}: `{}` is not in the log, so it is not compared", file.display(), field.name()));
        }
    }
    let asking = Asking::new(input, Some(&args.time), &beside);
    let (total, asked) = asking.open(file, ROWS, UnknownFields::Ignore)?;
    let is_text = file.extension().is_none_or(|ending| ending != "parquet");
    let progress = progress_bar(total, "rows");
    let work = |asked: Asked| {
        let engine = engine.clone();
        async move { (replay(&engine, &asked).await, asked) }
    };
    in_order(asked, work, |(replayed, asked)| {
        let replayed = replayed?;
        for (&at, served) in compared.iter().zip(&asked.beside) {
            let place = |row: usize| format!("{} row {}", file.display(), asked.first + row);
            let served = Served { column: served, is_text };
            tallies[at].compare(&served, replayed.rows.column(at), &replayed.of, args.examples, &place);
        }
        progress.inc(asked.rows.num_rows() as u64);
        Ok(())
    })
    .await?;
    progress.finish_and_clear();
    Ok(())
}

fn report(args: &VerifyArgs, tallies: &[Tally]) -> Result<(), Failure> {
    if args.json {
        print(&Value::from_iter(tallies.iter().filter(|tally| tally.rows > 0).map(Tally::json)).to_string())?;
    } else {
        print(&table(tallies))?;
    }
    let count = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    match (count(|tally| tally.rows), count(|tally| tally.different + tally.missing)) {
        (0, _) => Err("nothing was compared: the log has no rows, or no column of the reply".into()),
        (_, 0) => Ok(()),
        (all, wrong) => Err(format!("{wrong} of {all} values are not what was served").into()),
    }
}

fn table(tallies: &[Tally]) -> String {
    let shown = || tallies.iter().filter(|tally| tally.rows > 0);
    let wide = shown().map(|tally| tally.column.chars().count()).max().unwrap_or(0).max(6);
    let mut text =
        format!("{:wide$}  {:>9}  {:>9}  {:>9}  {:>9}", "column", "rows", "equal", "different", "missing");
    for Tally { column, rows, different, missing, .. } in shown() {
        let equal = rows - different - missing;
        text += &format!("\n{column:wide$}  {rows:>9}  {equal:>9}  {different:>9}  {missing:>9}");
    }
    for tally in shown() {
        for Example { place, served, now } in &tally.examples {
            text += &format!("\n{}, {place}: served {served}, now {now}", tally.column);
        }
    }
    text
}

/// What came of some requests that were asked again: for each row, where its answer stands.
struct Replayed {
    rows: RecordBatch,
    of: Vec<Result<usize, String>>,
}

/// Asks again. If that fails, each row by itself: one that fails says so, and leaves the others alone.
async fn replay(engine: &Engine, asked: &Asked) -> Result<Replayed, String> {
    let none = || "no row".to_owned();
    if let Ok(reply) = engine.run_request(asked.request(), asked.rows.clone()).await {
        let mut of = vec![Err(none()); asked.rows.num_rows()];
        let placed: Option<Vec<u32>> = (0..reply.rows().num_rows()).map(|row| reply.place(row)).collect();
        let placed =
            placed.ok_or("the graph mixes rows, so it cannot be told which answers which request")?;
        placed.into_iter().enumerate().for_each(|(row, place)| of[place as usize] = Ok(row));
        return Ok(Replayed { rows: reply.into_rows(), of });
    }
    let schema = engine.plan().reply_schema();
    let (mut rows, mut of, mut count) = (Vec::new(), Vec::new(), 0);
    for row in 0..asked.rows.num_rows() {
        let alone = asked.row(row);
        of.push(match engine.run_request(alone.request(), alone.rows).await {
            Ok(reply) if reply.rows().num_rows() == 1 => {
                rows.push(reply.into_rows());
                count += 1;
                Ok(count - 1)
            }
            Ok(_) => Err(none()),
            Err(error) => Err(crate::project::chain(&error)),
        });
    }
    let rows = concat_batches(schema, &rows).map_err(|error| error.to_string())?;
    Ok(Replayed { rows, of })
}

/// How a column compares.
struct Tally {
    column: String,
    rows: u64,
    different: u64,
    missing: u64,
    examples: Vec<Example>,
}

struct Example {
    place: String,
    served: String,
    now: String,
}

impl Tally {
    fn new(field: &Field) -> Self {
        Self { column: field.name().clone(), rows: 0, different: 0, missing: 0, examples: Vec::new() }
    }

    /// Compares what was served with `now`, of which `of` says which row answers which.
    fn compare(
        &mut self,
        served: &Served<'_>,
        now: &ArrayRef,
        of: &[Result<usize, String>],
        examples: usize,
        place: &dyn Fn(usize) -> String,
    ) {
        self.rows += of.len() as u64;
        for (row, of) in of.iter().enumerate() {
            let told = match of {
                Ok(of) if served.is_the_same(row, &now.slice(*of, 1)) => continue,
                Ok(of) => {
                    self.different += 1;
                    shown(now, *of)
                }
                Err(problem) => {
                    self.missing += 1;
                    problem.clone()
                }
            };
            if self.examples.len() < examples {
                let served = shown(served.column, row);
                self.examples.push(Example { place: place(row), served, now: told });
            }
        }
    }

    fn json(&self) -> Value {
        let Self { column, rows, different, missing, examples } = self;
        let examples = examples
            .iter()
            .map(|Example { place, served, now }| json!({ "place": place, "served": served, "now": now }));
        json!({
            "column": column, "rows": rows, "equal": rows - different - missing, "different": different,
            "missing": missing, "examples": examples.collect::<Vec<_>>(),
        })
    }
}

/// A column of a log.
struct Served<'a> {
    column: &'a ArrayRef,
    is_text: bool,
}

impl Served<'_> {
    /// Whether a value is the same bits as `now`, an array of one. Text has no words for numbers that are not finite.
    fn is_the_same(&self, row: usize, now: &ArrayRef) -> bool {
        let served = self.column.slice(row, 1);
        served.to_data() == now.to_data() || (self.is_text && is_unsaid(&served) && is_unsaid(now))
    }
}

fn is_unsaid(value: &ArrayRef) -> bool {
    value.is_null(0)
        || (value.data_type().is_floating() && matches!(&*shown(value, 0), "NaN" | "inf" | "-inf"))
}

fn shown(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    array_value_to_string(column, row).unwrap_or_else(|_| "?".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Float64Array;

    use super::*;

    #[test]
    fn values_are_the_same_if_their_bits_are() {
        let other_nan = f64::from_bits(f64::NAN.to_bits() ^ 1);
        let cases = [
            (Some(0.5), Some(0.5), true, true),
            (Some(0.5), Some(0.5_f64.next_up()), false, false),
            (Some(0.0), Some(-0.0), false, false),
            (Some(f64::NAN), Some(f64::NAN), true, true),
            (Some(f64::NAN), Some(other_nan), false, true),
            (None, Some(f64::INFINITY), false, true),
            (None, Some(0.0), false, false),
            (None, None, true, true),
        ];
        for (served, now, in_parquet, in_text) in cases {
            let column = |value| Arc::new(Float64Array::from(vec![Some(7.0), value])) as ArrayRef;
            let (served, now) = (column(served), column(now).slice(1, 1));
            for (is_text, expected) in [(false, in_parquet), (true, in_text)] {
                let same = Served { column: &served, is_text }.is_the_same(1, &now);
                assert_eq!(same, expected, "{served:?} {now:?} text {is_text}");
            }
        }
    }
}
