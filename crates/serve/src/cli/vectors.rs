//! `millstream vectors`: the feature vectors of a project, where nobody serves them.

use std::{path::PathBuf, sync::Arc};

use arrow::{array::Array, datatypes::DataType, util::display::array_value_to_string};
use clap::{Args, Subcommand};
use millstream_featurestore::{FeatureSets, Stores, wait};
use millstream_graph::suggest;
use serde_json::{Map, Value, json};

use super::{Failure, print, stores};
use crate::{
    DecodeLimits, Project,
    vectors::{self, VectorService},
    wire::{Form, json::Encoder},
};

#[derive(Args)]
pub(super) struct VectorsArgs {
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
    /// List the feature vectors.
    List,
    /// Show what a vector asks for, and its features.
    Show { vector: String },
    /// Read a vector. Sets whose rows lie in the memory of a serving process are empty here.
    Get {
        vector: String,
        /// What the vector asks for, such as `card_id=7`.
        #[arg(required = true, value_name = "COLUMN=VALUE")]
        columns: Vec<String>,
    },
}

pub(super) fn vectors(args: &VectorsArgs) -> Result<(), Failure> {
    // Definitions alone: what a running server has open stays with it.
    let defined = || services(&Project::feature_vectors(&args.project, &Stores::aside())?);
    match &args.command {
        Command::List => list(args, &defined()?),
        Command::Show { vector } => show(args, named(&defined()?, vector)?),
        Command::Get { vector, columns } => {
            let stores = stores(args.state.as_deref())?;
            let sets = Project::feature_vectors(&args.project, &stores)?;
            get(args, named(&services(&sets)?, vector)?, columns)
        }
    }
}

fn services(sets: &FeatureSets) -> Result<Vec<Arc<VectorService>>, Failure> {
    let wrong = |(vector, error)| format!("feature vector `{vector}`: {error}");
    Ok(vectors::services(sets, DecodeLimits::default()).map_err(wrong)?)
}

fn named<'a>(vectors: &'a [Arc<VectorService>], name: &str) -> Result<&'a VectorService, Failure> {
    let known = || vectors.iter().map(|vector| vector.name());
    let found = vectors.iter().find(|vector| vector.name() == name);
    Ok(found.ok_or_else(|| suggest::unknown("feature vector", name, known()))?)
}

fn list(args: &VectorsArgs, vectors: &[Arc<VectorService>]) -> Result<(), Failure> {
    if args.json {
        let vectors = vectors.iter().map(|vector| vector.description());
        return print(&Value::from_iter(vectors).to_string());
    }
    let lines = vectors.iter().map(|vector| {
        let description = vector.description();
        match description["description"].as_str() {
            Some(text) => format!("{}  {text}", vector.name()),
            None => vector.name().to_owned(),
        }
    });
    print(&lines.collect::<Vec<_>>().join("\n"))
}

fn show(args: &VectorsArgs, vector: &VectorService) -> Result<(), Failure> {
    let description = vector.description();
    if args.json {
        return print(&description.to_string());
    }
    let mut text = vector.name().to_owned();
    for kind in ["input", "features"] {
        for column in description[kind].as_array().into_iter().flatten() {
            let of = |what: &str| column[what].as_str().unwrap_or_default();
            text += &format!("\n  {kind:<8}  {}: {}", of("name"), of("type"));
        }
    }
    print(&text)
}

fn get(args: &VectorsArgs, vector: &VectorService, given: &[String]) -> Result<(), Failure> {
    let (rows, _) = vector.decode(body(vector, given)?.into())?;
    let found = wait(vector.look_up(&rows))?;
    let found = found.rows();
    if args.json {
        let mut text = Vec::new();
        Encoder::new(found.schema())?.encode(found, Form::Object, &mut text)?;
        return print(&String::from_utf8_lossy(&text));
    }
    let lines = found.schema_ref().fields().iter().zip(found.columns()).map(|(field, column)| {
        let value = if column.is_null(0) { "null".to_owned() } else { array_value_to_string(column, 0)? };
        Ok(format!("{}  {value}", field.name()))
    });
    print(&lines.collect::<Result<Vec<String>, Failure>>()?.join("\n"))
}

/// One row as a body, from `column=value` each.
fn body(vector: &VectorService, given: &[String]) -> Result<String, Failure> {
    let mut row: Map<String, Value> = Map::new();
    let mut problems = Vec::new();
    for pair in given {
        let Some((name, value)) = pair.split_once('=') else {
            problems.push(format!("`{pair}` is no column and value, such as `card_id=7`"));
            continue;
        };
        match vector.input().field_with_name(name).map(|field| field.data_type()) {
            Err(_) => {
                let known = vector.input().fields().iter().map(|field| field.name().as_str());
                problems.push(suggest::unknown("column", name, known));
            }
            Ok(kind) if kind.is_numeric() || *kind == DataType::Boolean => {
                row.insert(name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value)));
            }
            Ok(_) => drop(row.insert(name.to_owned(), json!(value))),
        }
    }
    if problems.is_empty() { Ok(Value::from(row).to_string()) } else { Err(problems.join("; ").into()) }
}
