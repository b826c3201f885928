//! Feature sets from files: Parquet, CSV and JSON Lines.
//!
//! ```
//! use arrow::datatypes::DataType;
//! use millstream_featurestore::{FeatureSet, LoadOptions, load};
//!
//! # let dir = tempfile::tempdir()?;
//! # let project = dir.path();
//! std::fs::write(project.join("cards.csv"), "card_id,avg_amount\n7,12.5\n")?;
//! let cards = FeatureSet::builder("cards")
//!     .key("card_id", DataType::Int64)
//!     .feature("avg_amount", DataType::Float32)
//!     .build()?;
//! let table = load::file(cards, project, "cards.csv", &LoadOptions::default())?;
//! assert_eq!(table.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod columnar;
mod infer;
mod lines;
mod separated;
mod source;
mod text;

use std::{collections::HashSet, path::Path};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, TimeUnit},
};
use millstream_graph::suggest;

use crate::{
    AppendError, DefinitionError, FeatureSet, FeatureSetSpec, LookupError, MemoryTable, OpenError,
    RowProblem, TableBuilder, TimeColumns, WriteError,
    cell::held_as,
    set::{Column, is_time},
};
pub(crate) use source::Source;

/// Bounds on loading a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// How much memory the rows of one set may take; more is refused. 4 GiB by default.
    pub max_bytes: usize,
    /// How many rows of a CSV or JSON Lines file are looked at to tell the types of its columns; a million by default.
    pub infer_rows: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { max_bytes: 4 << 30, infer_rows: 1_000_000 }
    }
}

/// Why a file does not become a feature set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The path leads out of the project's folder.
    #[error("`{file}` lies outside the project's folder")]
    Outside {
        /// The path as given.
        file: String,
    },
    /// The file cannot be read.
    #[error("`{file}` cannot be read")]
    Open {
        /// The path as given.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file's name does not say what is in it.
    #[error("`{file}` has none of the endings .parquet, .csv, .jsonl, .ndjson")]
    Format {
        /// The path as given.
        file: String,
    },
    /// The file is not what its name says.
    #[error("{place}: {problem}")]
    Malformed {
        /// Where.
        place: Place,
        /// What is wrong there.
        problem: String,
    },
    /// The file's columns are not those of the set; every problem at once.
    #[error("`{file}`: {}", problems.join("; "))]
    Columns {
        /// The path as given.
        file: String,
        /// The problems, one sentence each.
        problems: Vec<String>,
    },
    /// The definition is not sound with the columns of the file.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// A row is at fault.
    #[error("{place}: {problem}")]
    Row {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// The rows take more memory than allowed.
    #[error("`{file}`: the rows take more than {limit}")]
    TooLarge {
        /// The path as given.
        file: String,
        /// What was allowed.
        limit: String,
    },
    /// The keys could not be read.
    #[error(transparent)]
    Lookup(LookupError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The set's offline log cannot be opened.
    #[cfg(feature = "offline")]
    #[error("the offline log of feature set `{set}` cannot be opened")]
    Log {
        /// The set.
        set: String,
        /// Why.
        #[source]
        source: crate::offline::LogError,
    },
    /// The store does not take the file's rows.
    #[error("`{file}`: its rows are not taken")]
    Write {
        /// The path as given.
        file: String,
        /// Why.
        #[source]
        source: WriteError,
    },
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path as given.
    pub file: String,
    /// Where in it.
    pub at: At,
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Anywhere.
    File,
    /// A line of a text file, counted from 1.
    Line(u64),
    /// A row of a file without lines, counted from 1.
    Row(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at {
            At::File => write!(f, "`{}`", self.file),
            At::Line(line) => write!(f, "{}:{line}", self.file),
            At::Row(row) => write!(f, "{}: row {row}", self.file),
        }
    }
}

/// Loads a file into memory. `root` is the folder that `file` must lie in, symbolic links followed.
///
/// # Errors
/// When the file lies outside `root`, cannot be read, or does not hold what the definition says.
pub fn file(
    set: FeatureSet,
    root: &Path,
    file: &str,
    options: &LoadOptions,
) -> Result<MemoryTable, LoadError> {
    table(set, &Source::open(root, file)?, options)
}

/// Completes a definition by what is found in its file, and loads it.
pub(crate) fn spec(
    name: &str,
    spec: &FeatureSetSpec,
    root: &Path,
    options: &LoadOptions,
) -> Result<MemoryTable, LoadError> {
    let Defined { set, source, .. } = define(name, spec, root, options)?;
    match source {
        Some(source) => table(set, &source, options),
        None => {
            let problem = "neither a `source` to load nor an `online` store that takes rows; name one";
            Err(DefinitionError { set: name.to_owned(), problems: vec![problem.to_owned()] }.into())
        }
    }
}

/// A definition that is complete.
pub(crate) struct Defined {
    pub(crate) set: FeatureSet,
    pub(crate) source: Option<Source>,
    /// Where there is an event time.
    pub(crate) times: Option<TimeColumns>,
}

/// Completes a definition by what is found in its file, if it has one.
pub(crate) fn define(
    name: &str,
    spec: &FeatureSetSpec,
    root: &Path,
    options: &LoadOptions,
) -> Result<Defined, LoadError> {
    let source = spec.source.as_ref().map(|file| Source::open(root, file)).transpose()?;
    let times = || spec.timestamp.iter().chain(&spec.created).chain(&spec.valid_to).map(String::as_str);
    let named: HashSet<&str> = spec.keys.iter().map(String::as_str).chain(times()).collect();
    let typed = spec.features.is_some() && named.iter().all(|name| spec.types.contains_key(*name));
    let found = match &source {
        Some(source) if !typed => source.columns(options)?,
        _ => Vec::new(),
    };
    let mut types = Types { spec, found: &found, sourced: source.is_some(), problems: misplaced(spec) };
    let mut set = FeatureSet::builder(name).tags(spec.tags.iter().cloned());
    for key in &spec.keys {
        set = set.key(key, types.of(key));
    }
    let mut time = |name: &String| Column { name: name.clone(), data_type: types.of_time(name) };
    let event = spec.timestamp.as_ref().map(&mut time);
    let (created, valid_to) = (spec.created.as_ref().map(&mut time), spec.valid_to.as_ref().map(&mut time));
    if let Some(event) = &event {
        set = set.timestamp(&event.name, event.data_type.clone());
    }
    for column in created.iter().chain(&valid_to).filter(|column| !is_time(&column.data_type)) {
        let Column { name, data_type } = column;
        types.problems.push(format!("column `{name}` is {data_type}, which is no time"));
    }
    match &spec.features {
        Some(features) => {
            for (feature, data_type) in features {
                set = set.feature(feature, data_type.data_type());
            }
        }
        None => {
            for (feature, _) in found.iter().filter(|(column, _)| !named.contains(column.as_str())) {
                set = set.feature(feature, types.of(feature));
            }
        }
    }
    if let Some(text) = &spec.description {
        set = set.description(text);
    }
    types.check(name, source.as_ref())?;
    let times = event.map(|event| TimeColumns { event, created, valid_to });
    Ok(Defined { set: set.build()?, source, times })
}

/// What a set that does not change cannot have.
fn misplaced(spec: &FeatureSetSpec) -> Vec<String> {
    let given = [
        ("created", spec.created.is_some()),
        ("valid_to", spec.valid_to.is_some()),
        ("ttl", spec.ttl.is_some()),
    ];
    let given = given.iter().filter(|(_, given)| *given && spec.online.is_none());
    given.map(|(name, _)| format!("`{name}` is for sets with `online`")).collect()
}

/// The types of columns: as declared, else as found in the file.
struct Types<'a> {
    spec: &'a FeatureSetSpec,
    found: &'a source::Columns,
    sourced: bool,
    problems: Vec<String>,
}

impl Types<'_> {
    /// Null where it cannot be told, which is a problem.
    fn of(&mut self, column: &str) -> DataType {
        let declared = self.spec.types.get(column).map(|name| name.data_type());
        let as_found =
            || self.found.iter().find(|(found, _)| found == column).map(|(_, found)| found.clone());
        match declared.map(Some).or_else(as_found) {
            Some(Some(data_type)) => held_as(&data_type),
            Some(None) => {
                self.problems.push(format!(
                    "column `{column}` has no value that tells its type; name it under `types`"
                ));
                DataType::Null
            }
            None if self.sourced => {
                self.problems.push(suggest::unknown("column", column, self.names()));
                DataType::Null
            }
            None => {
                self.problems.push(format!("column `{column}` has no type; name it under `types`"));
                DataType::Null
            }
        }
    }

    /// Where nothing tells it, a time is a timestamp.
    fn of_time(&mut self, column: &str) -> DataType {
        if !self.sourced && !self.spec.types.contains_key(column) {
            return DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        }
        self.of(column)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|(name, _)| name.as_str())
    }

    /// Every problem at once.
    fn check(mut self, set: &str, source: Option<&Source>) -> Result<(), LoadError> {
        let spec = self.spec;
        let extra = spec.created.iter().chain(&spec.valid_to);
        let known = || spec.keys.iter().chain(&spec.timestamp).chain(extra.clone()).map(String::as_str);
        let names: Vec<&str> = if source.is_none() {
            known().collect()
        } else {
            self.found.iter().map(|(name, _)| name.as_str()).collect()
        };
        if !names.is_empty() {
            for column in spec.types.keys().filter(|column| !names.contains(&column.as_str())) {
                self.problems.push(suggest::unknown("column", column, names.iter().copied()));
            }
        }
        if source.is_none() && spec.features.is_none() {
            self.problems
                .push("without a `source`, `features` names the features and their types".to_owned());
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.dedup();
        Err(match source {
            Some(source) => LoadError::Columns { file: source.name().to_owned(), problems: self.problems },
            None => DefinitionError { set: set.to_owned(), problems: self.problems }.into(),
        })
    }
}

fn table(set: FeatureSet, source: &Source, options: &LoadOptions) -> Result<MemoryTable, LoadError> {
    let wanted = wanted(&set);
    let mut builder = TableBuilder::new(set).max_bytes(options.max_bytes);
    let mut appended = 0;
    source.read(&wanted, &mut |batch, place| {
        builder.append(batch).map_err(|error| match error {
            AppendError::Row { row, problem } => {
                LoadError::Row { place: source.place(place((row - appended) as usize)), problem }
            }
            AppendError::Columns { problems } => {
                LoadError::Columns { file: source.name().to_owned(), problems }
            }
            AppendError::TooLarge { limit } => LoadError::TooLarge { file: source.name().to_owned(), limit },
            AppendError::Lookup(error) => LoadError::Lookup(error),
        })?;
        appended += batch.num_rows() as u64;
        Ok(())
    })?;
    Ok(builder.finish())
}

/// The columns to read: each once, though the timestamp may be a feature too.
fn wanted(set: &FeatureSet) -> Vec<Column> {
    let mut seen = HashSet::new();
    let columns = set.keys().iter().chain(set.features()).chain(set.timestamp());
    columns.filter(|column| seen.insert(column.name.clone())).cloned().collect()
}

/// Takes one batch of rows, and what tells where each of them stands in the file.
type Sink<'a> = dyn FnMut(&RecordBatch, &dyn Fn(usize) -> At) -> Result<(), LoadError> + 'a;

/// Rows per batch: enough to make the work per batch small, few enough to bound the memory of a batch.
const BATCH: usize = 8192;
