//! `millstream explain-request`: one request of the log, edge by edge.

use std::path::PathBuf;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::DataType,
    util::display::array_value_to_string,
};
use clap::Args;
use millstream_monitor::record::Reader;
use serde_json::{Map, Value, json};

use super::{Failure, log_of, print, split};

#[derive(Args)]
pub(in crate::cli) struct ExplainRequestArgs {
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

pub(in crate::cli) fn explain_request(args: &ExplainRequestArgs) -> Result<(), Failure> {
    let (graph, folder) = log_of(&args.project, args.graph.as_deref(), args.log.as_deref())?;
    let rows = Reader::open(&folder)?.request(&args.id)?;
    let rows = rows.ok_or_else(|| format!("the log of graph `{graph}` has no request `{}`", args.id))?;
    let told = (0..rows.num_rows()).map(|row| told(&rows, row)).collect::<Result<Vec<_>, _>>()?;
    if args.json {
        return print(&serde_json::to_string_pretty(&told)?);
    }
    print(told.iter().map(lines).collect::<Vec<_>>().join("\n\n").trim_end())
}

/// One row: what is known of its request, and what it had on each edge.
fn told(rows: &RecordBatch, row: usize) -> Result<Value, Failure> {
    let schema = rows.schema_ref();
    let mut head = Map::new();
    let mut steps: Vec<(&str, bool, Map<String, Value>)> = Vec::new();
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        match split(schema, field.name()) {
            None => drop(head.insert(field.name().clone(), value(column, row)?)),
            Some((step, name)) => {
                let known = steps.iter().position(|(known, ..)| *known == step);
                let at = known.unwrap_or_else(|| {
                    steps.push((step, false, Map::new()));
                    steps.len() - 1
                });
                match name {
                    "seen" => steps[at].1 = is_true(column, row),
                    _ => drop(steps[at].2.insert(name.to_owned(), value(column, row)?)),
                }
            }
        }
    }
    let steps = steps.into_iter().map(|(step, seen, columns)| {
        // Where it did not come it had nothing, not even nulls.
        if seen {
            json!({ "step": step, "columns": columns })
        } else {
            json!({ "step": step, "columns": null })
        }
    });
    head.insert("steps".to_owned(), steps.collect());
    Ok(head.into())
}

fn is_true(column: &ArrayRef, row: usize) -> bool {
    column.as_boolean_opt().is_some_and(|column| column.is_valid(row) && column.value(row))
}

/// Numbers and booleans as JSON has them, everything else as text.
fn value(column: &ArrayRef, row: usize) -> Result<Value, Failure> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let text = array_value_to_string(column, row)?;
    let is_plain = column.data_type().is_numeric() || *column.data_type() == DataType::Boolean;
    let plain = is_plain.then(|| serde_json::from_str(&text).ok()).flatten();
    Ok(plain.unwrap_or_else(|| text.into()))
}

fn lines(row: &Value) -> String {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let head = row.as_object().into_iter().flatten().filter(|(name, _)| *name != "steps");
    let mut lines: Vec<String> = head.map(|(name, value)| format!("{name:<16} {}", shown(value))).collect();
    for step in row["steps"].as_array().into_iter().flatten() {
        match step["columns"].as_object() {
            None => lines.push(format!("\n  {}  did not come here", shown(&step["step"]))),
            Some(columns) => {
                lines.push(format!("\n  {}", shown(&step["step"])));
                lines.extend(columns.iter().map(|(name, value)| format!("    {name:<24} {}", shown(value))));
            }
        }
    }
    lines.join("\n")
}
