//! `millstream features`: the feature sets of a project, where nobody serves them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{Field, Schema},
    util::display::array_value_to_string,
};
use clap::{Args, Subcommand};
use millstream_featurestore::{FeatureSet, Receipt, StoredSet, Stores, WritableSet, wait};
use millstream_graph::suggest;
use serde_json::{Map, Value, json};

use super::{Failure, batch::progress_bar, note, print, stores};
use crate::{
    DecodeLimits, Project,
    features::{FeatureService, receipt_text},
    project::Definitions,
    wire::{Form, json::Encoder},
};

/// Refused rows that are told one by one.
const TOLD: usize = 10;

#[derive(Args)]
pub(super) struct FeaturesArgs {
    #[command(subcommand)]
    command: Command,
    /// The project's folder or file.
    #[arg(long, global = true, default_value = ".")]
    project: PathBuf,
    /// The folder for what feature sets keep; the project's by default.
    #[arg(long, global = true, env = "MILLSTREAM_STATE", value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List the feature sets, and where their rows lie.
    List,
    /// Show the columns of a set.
    Show { set: String },
    /// Read the features of a key.
    Get {
        set: String,
        /// The keys, such as `card_id=7`.
        #[arg(required = true, value_name = "KEY=VALUE")]
        keys: Vec<String>,
    },
    /// Write the rows of a file: .parquet, .csv with a header, or .jsonl. Rows that were taken before are not taken again.
    Ingest { set: String, file: PathBuf },
    /// Remove all rows of a set, and what it remembers of their sources.
    Purge {
        set: String,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Remove a key from every file of the set.
    Erase {
        set: String,
        /// The keys, such as `card_id=7`.
        #[arg(required = true, value_name = "KEY=VALUE")]
        keys: Vec<String>,
    },
}

pub(super) fn features(args: &FeaturesArgs) -> Result<(), Failure> {
    match &args.command {
        Command::List => list(args),
        Command::Show { set } => show(args, set),
        Command::Get { set, keys } => get(args, set, keys),
        Command::Ingest { set, file } => ingest(args, set, file),
        Command::Purge { set, yes } => {
            if !yes {
                return Err(
                    format!("this removes all rows of feature set `{set}`; say --yes to do it").into()
                );
            }
            receipt(args, &wait(writable(args, set)?.table().purge().get())?)
        }
        Command::Erase { set, keys } => {
            let set = writable(args, set)?;
            receipt(args, &wait(set.table().erase(key_columns(set.set(), keys)?).get())?)
        }
    }
}

/// Definitions alone: what a running server has open stays with it.
fn defined(args: &FeaturesArgs, set: Option<&str>) -> Result<(Vec<StoredSet>, Definitions), Failure> {
    let wanted = |name: &str| set.is_none_or(|set| set == name);
    let (sets, definitions) = Project::feature_sets(&args.project, &Stores::aside(), wanted)?;
    Ok((sets.iter().cloned().collect(), definitions))
}

fn list(args: &FeaturesArgs) -> Result<(), Failure> {
    let (sets, definitions) = defined(args, None)?;
    let place = |set: &StoredSet| match definitions.get(set.set().name()) {
        Some(spec) => match (&spec.online, &spec.source) {
            (Some(online), _) => online.place(),
            (None, Some(source)) => format!("file {source}"),
            (None, None) => String::new(),
        },
        None => String::new(),
    };
    if args.json {
        let sets = sets.iter().map(|set| {
            let name = set.set().name();
            json!({ "name": name, "takes_rows": set.writable().is_some(), "lies_in": place(set) })
        });
        return print(&Value::from_iter(sets).to_string());
    }
    let lines = sets.iter().map(|set| format!("{}  {}", set.set().name(), place(set)));
    print(&lines.collect::<Vec<_>>().join("\n"))
}

fn show(args: &FeaturesArgs, name: &str) -> Result<(), Failure> {
    let (sets, definitions) = defined(args, Some(name))?;
    let Some(set) = sets.first() else { return Err(unknown(name, &definitions)) };
    let description = FeatureService::new(set, DecodeLimits::default())?.description();
    if args.json {
        return print(&description.to_string());
    }
    let mut text = name.to_owned();
    for kind in ["keys", "features", "row"] {
        for column in description[kind].as_array().into_iter().flatten() {
            let of = |what: &str| column[what].as_str().unwrap_or_default().to_owned();
            text += &format!("\n  {kind:<8}  {}: {}", of("name"), of("type"));
        }
    }
    print(&text)
}

fn get(args: &FeaturesArgs, name: &str, keys: &[String]) -> Result<(), Failure> {
    let set = opened(args, name)?;
    let service = FeatureService::new(&set, DecodeLimits::default())?;
    let found = wait(service.lookup(&key_columns(set.set(), keys)?))?;
    if args.json {
        let mut text = Vec::new();
        Encoder::new(found.schema())?.encode(&found, Form::Object, &mut text)?;
        return print(&String::from_utf8_lossy(&text));
    }
    let shown = |(field, column): (&Arc<Field>, &ArrayRef)| {
        let value = if column.is_null(0) { "null".to_owned() } else { array_value_to_string(column, 0)? };
        Ok(format!("{}  {value}", field.name()))
    };
    let lines: Result<Vec<String>, Failure> =
        found.schema_ref().fields().iter().zip(found.columns()).map(shown).collect();
    print(&lines?.join("\n"))
}

fn ingest(args: &FeaturesArgs, name: &str, file: &Path) -> Result<(), Failure> {
    let set = writable(args, name)?;
    let progress = progress_bar(None, "rows");
    let (mut totals, mut first, mut told) = (Map::new(), 0_u64, 0);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = file.file_name().and_then(|name| name.to_str()).ok_or("the file has no name")?;
    set.ingest(folder, file, &mut |written| {
        for (outcome, rows) in written.counts() {
            let total = totals.get(outcome).and_then(Value::as_u64).unwrap_or(0) + rows;
            totals.insert(outcome.to_owned(), total.into());
        }
        for (row, problem) in written.refused().take(TOLD.saturating_sub(told)) {
            told += 1;
            note(&format!("row {}: {problem}", first + row as u64 + 1));
        }
        first += written.rows.len() as u64;
        progress.inc(written.rows.len() as u64);
    })?;
    progress.finish_and_clear();
    if args.json {
        print(&Value::from(totals.clone()).to_string())?;
    } else {
        let counts = totals.iter().map(|(outcome, rows)| format!("{rows} {outcome}"));
        print(&counts.collect::<Vec<_>>().join(", "))?;
    }
    match totals.get("refused").and_then(Value::as_u64) {
        None | Some(0) => Ok(()),
        Some(refused) => Err(format!("{refused} rows were refused").into()),
    }
}

fn receipt(args: &FeaturesArgs, receipt: &Receipt) -> Result<(), Failure> {
    if args.json {
        return print(&receipt_text(receipt).to_string());
    }
    let mut text = format!("{} removed, {} unknown", receipt.removed, receipt.unknown);
    if let Some(rows) = receipt.log_rows {
        text += &format!(", {rows} rows of the offline log");
    }
    for (what, files) in [("deleted", &receipt.files_deleted), ("written", &receipt.files_written)] {
        files.iter().for_each(|file| text += &format!("\n  {what}  {file}"));
    }
    receipt.beyond.iter().for_each(|left| text += &format!("\n  left to do: {left}"));
    print(&text)
}

fn unknown(name: &str, definitions: &Definitions) -> Failure {
    suggest::unknown("feature set", name, definitions.keys().map(String::as_str)).into()
}

/// One set, with its rows.
fn opened(args: &FeaturesArgs, name: &str) -> Result<StoredSet, Failure> {
    let stores = stores(args.state.as_deref())?;
    let (sets, definitions) = Project::feature_sets(&args.project, &stores, |set| set == name)?;
    let Some(set) = sets.get(name) else { return Err(unknown(name, &definitions)) };
    let online = definitions.get(name).and_then(|spec| spec.online.as_ref());
    if online.is_some_and(|online| online.path().is_none()) {
        let problem = format!(
            "the rows of feature set `{name}` lie in the memory of the process that serves them; ask it at /v1/features/{name}"
        );
        return Err(problem.into());
    }
    Ok(set.clone())
}

fn writable(args: &FeaturesArgs, name: &str) -> Result<Arc<WritableSet>, Failure> {
    let set = opened(args, name)?;
    let problem = || format!("feature set `{name}` is its file and takes no rows; give it `online`");
    Ok(Arc::clone(set.writable().ok_or_else(problem)?))
}

/// One row of keys, from `key=value` each.
fn key_columns(set: &FeatureSet, given: &[String]) -> Result<RecordBatch, Failure> {
    let names = || set.keys().iter().map(|key| key.name.as_str());
    let mut problems = Vec::new();
    let mut values: Vec<Option<&str>> = vec![None; set.keys().len()];
    for pair in given {
        match pair.split_once('=') {
            None => {
                problems.push(format!("`{pair}` is no key and value, such as `{}=7`", set.keys()[0].name))
            }
            Some((name, value)) => match names().position(|key| key == name) {
                Some(key) => values[key] = Some(value),
                None => problems.push(suggest::unknown("key", name, names())),
            },
        }
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (key, value) in set.keys().iter().zip(values) {
        let Some(value) = value else {
            problems.push(format!("no value for key `{}`", key.name));
            continue;
        };
        let text: ArrayRef = Arc::new(StringArray::from(vec![value]));
        match cast_with_options(&text, &key.data_type, &options) {
            Ok(column) => {
                fields.push(Field::new(&key.name, key.data_type.clone(), true));
                columns.push(column);
            }
            Err(_) => problems.push(format!("key `{}`: `{value}` is no {}", key.name, key.data_type)),
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; ").into());
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
