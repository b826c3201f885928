//! `millstream features`: the feature sets of a project, where nobody serves them.

use std::{io::ErrorKind, path::PathBuf, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{Field, Schema},
    util::display::array_value_to_string,
};
use clap::{Args, Subcommand};
use millstream_featurestore::{
    FeatureSet, LoadError, OnlineSpec, Profile, Receipt, StoredSet, Stores, WritableSet, load, wait,
};
use millstream_graph::suggest;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::{Failure, batch::progress_bar, note, print, stores};
use crate::{
    DecodeLimits, Project,
    features::{
        FeatureService, receipt_text,
        statistics::{profiles, table, told},
    },
    project::{Definitions, chain},
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
    Show {
        set: String,
        /// And what its features look like in the rows that are there, which shows their most frequent values.
        #[arg(long)]
        statistics: bool,
    },
    /// Read the features of a key.
    Get {
        set: String,
        /// The keys, such as `card_id=7`.
        #[arg(required = true, value_name = "KEY=VALUE")]
        keys: Vec<String>,
    },
    /// Write the rows of files: .parquet, .csv with a header, or .jsonl. Rows that were taken before are not taken again.
    Ingest {
        set: String,
        /// A file, a folder, or `folder/*.csv`; or such a place at s3://, gs:// or az://, where a folder ends with `/`.
        place: String,
        /// Say in the end what the features look like in the rows that are there then.
        #[arg(long)]
        statistics: bool,
    },
    /// Fill a set from its offline log: after the loss of its store, for a replica, or because it lies elsewhere now.
    #[cfg(feature = "offline")]
    Materialize(super::materialize::MaterializeArgs),
    /// Make a training set: rows of yours, each with the features of a vector as they were known at its time.
    #[cfg(feature = "offline")]
    History(super::history::HistoryArgs),
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
        Command::Show { set, statistics } => show(args, set, *statistics),
        Command::Get { set, keys } => get(args, set, keys),
        Command::Ingest { set, place, statistics } => ingest(args, set, place, *statistics),
        #[cfg(feature = "offline")]
        Command::Materialize(materialize) => {
            let set = writable(args, &materialize.set)?;
            super::materialize::materialize(materialize, &set, args.json)
        }
        #[cfg(feature = "offline")]
        Command::History(history) => {
            super::history::history(history, (&args.project, args.state.as_deref()), args.json)
        }
        Command::Purge { set, yes } => {
            if !yes {
                return Err(
                    format!("this removes all rows of feature set `{set}`; say --yes to do it").into()
                );
            }
            receipt(args, &wait(writable(args, set)?.purge())?)
        }
        Command::Erase { set, keys } => {
            let set = writable(args, set)?;
            receipt(args, &wait(set.erase(key_columns(set.set(), keys)?))?)
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
            json!({ "name": name, "version": set.version(), "takes_rows": set.writable().is_some(), "lies_in": place(set) })
        });
        return print(&Value::from_iter(sets).to_string());
    }
    let lines = sets.iter().map(|set| format!("{}  {}", set.set().name(), place(set)));
    print(&lines.collect::<Vec<_>>().join("\n"))
}

fn show(args: &FeaturesArgs, name: &str, statistics: bool) -> Result<(), Failure> {
    let (sets, definitions) = defined(args, Some(name))?;
    let Some(set) = sets.first() else { return Err(unknown(name, &definitions)) };
    let mut description = FeatureService::new(set, DecodeLimits::default())?.description();
    if let Some(aside) = definitions.get(name).and_then(|spec| spec.aside.as_ref()) {
        let folder = args.state.clone().unwrap_or_else(|| Project::folder(&args.project));
        description["set_aside"] = aside.rows(&folder)?.into();
    }
    let profiles = if statistics { Some(found(&opened(args, name)?)?) } else { None };
    if args.json {
        if let Some(profiles) = &profiles {
            description["statistics"] = told(profiles);
        }
        return print(&description.to_string());
    }
    let mut text = format!("{name}\n  version   {}", description["version"].as_str().unwrap_or_default());
    for kind in ["keys", "features", "row"] {
        for column in description[kind].as_array().into_iter().flatten() {
            let of = |what: &str| column[what].as_str().unwrap_or_default().to_owned();
            text += &format!("\n  {kind:<8}  {}: {}", of("name"), of("type"));
        }
    }
    if let Some(graph) = description["through"].as_str() {
        text += &format!("\n  rows pass graph {graph}");
    }
    if let Some(rows) = description["set_aside"].as_u64() {
        text += &format!("\n  set aside  {rows} rows");
    }
    if let Some(profiles) = &profiles {
        text += &format!("\n\n{}", table(profiles));
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

/// What the features of a set look like.
fn found(set: &StoredSet) -> Result<Vec<Profile>, Failure> {
    Ok(profiles(set).map_err(|error| {
        format!("feature set `{}` has no statistics: {}", set.set().name(), chain(&error))
    })?)
}

fn ingest(args: &FeaturesArgs, name: &str, place: &str, statistics: bool) -> Result<(), Failure> {
    let files = load::files(place)?;
    // A graph that the rows pass runs there.
    let runtime = Runtime::new()?;
    let _entered = runtime.enter();
    let (set, _project) = passable(args, name)?;
    let several = files.len() > 1;
    let progress =
        if several { progress_bar(Some(files.len() as u64), "files") } else { progress_bar(None, "rows") };
    let (mut totals, mut rules, mut noted) = (Map::new(), Map::new(), 0);
    let mut gone = 0;
    for file in &files {
        let taken = set.ingest(&file.folder, &file.name, &mut |written, place| {
            written.counts().iter().for_each(|(outcome, rows)| add(&mut totals, outcome, *rows));
            written.broken.iter().for_each(|(rule, rows)| add(&mut rules, rule, *rows));
            for (row, problem) in written.refused().take(TOLD.saturating_sub(noted)) {
                noted += 1;
                note(&format!("{}: {problem}", place(row)));
            }
            progress.inc(if several { 0 } else { written.rows.len() as u64 });
        });
        match taken {
            Err(error) if several && is_gone(&error) => {
                gone += 1;
                note(&format!("{}: was deleted before it was read", file.name));
            }
            taken => taken?,
        }
        progress.inc(u64::from(several));
    }
    progress.finish_and_clear();
    let profiles = if statistics { Some(found(&StoredSet::Writable(set))?) } else { None };
    if args.json {
        let mut answer = Value::from(totals.clone());
        if !rules.is_empty() {
            answer["rules"] = rules.into();
        }
        if let Some(profiles) = &profiles {
            answer["statistics"] = told(profiles);
        }
        print(&answer.to_string())?;
    } else {
        let counts = totals.iter().map(|(outcome, rows)| format!("{rows} {outcome}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        let rules = rules.iter().map(|(rule, rows)| format!("\n  rule {rule}: {rows} rows"));
        let statistics = profiles.map(|profiles| format!("\n\n{}", table(&profiles)));
        print(&(counts + &rules.collect::<String>() + &statistics.unwrap_or_default()))?;
    }
    if gone > 0 && load::files(place).is_ok_and(|now| now.iter().any(|file| !files.contains(file))) {
        let problem = "others came since; rows may be in those: ingest the place again";
        return Err(format!("{gone} files were deleted before they were read, and {problem}").into());
    }
    match totals.get("refused").and_then(Value::as_u64) {
        None | Some(0) => Ok(()),
        Some(refused) => Err(format!("{refused} rows were refused").into()),
    }
}

/// Whether a file is not there any more that was listed.
fn is_gone(error: &LoadError) -> bool {
    matches!(error, LoadError::Open { source, .. } if source.kind() == ErrorKind::NotFound)
}

pub(super) fn add(totals: &mut Map<String, Value>, name: &str, rows: u64) {
    let total = totals.get(name).and_then(Value::as_u64).unwrap_or(0) + rows;
    totals.insert(name.to_owned(), total.into());
}

fn receipt(args: &FeaturesArgs, receipt: &Receipt) -> Result<(), Failure> {
    if args.json {
        return print(&receipt_text(receipt).to_string());
    }
    let mut text = format!("{} removed, {} unknown", receipt.removed, receipt.unknown);
    if receipt.set_aside > 0 {
        text += &format!(", {} of those set aside", receipt.set_aside);
    }
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
    if online.is_some_and(|online| matches!(online, OnlineSpec::Memory)) {
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

/// A set that takes rows, and what runs the graph that they pass, if they do.
fn passable(args: &FeaturesArgs, name: &str) -> Result<(Arc<WritableSet>, Option<Project>), Failure> {
    let set = writable(args, name)?;
    if set.passes().is_none() {
        return Ok((set, None));
    }
    // The stores of a process are open once.
    drop(set);
    let project = Project::load_among(&args.project, &stores(args.state.as_deref())?)?;
    let set = project.features().get(name).and_then(StoredSet::writable).cloned();
    Ok((set.ok_or_else(|| format!("feature set `{name}` takes no rows"))?, Some(project)))
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
