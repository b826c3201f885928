//! Feature sets from files: Parquet, CSV and JSON Lines, in folders or, with the feature `cloud`, in S3 and the like; with the
//! feature `delta`, from Delta tables in folders.
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

#[cfg(any(feature = "cloud", feature = "delta"))]
mod apart;
#[cfg(feature = "cloud")]
mod cloud;
mod columnar;
mod define;
#[cfg(feature = "delta")]
mod delta;
mod infer;
mod lines;
mod places;
mod separated;
mod source;
#[cfg(test)]
mod source_tests;
mod text;

use std::{collections::HashSet, path::Path};

use arrow::array::RecordBatch;

use crate::{
    AppendError, Conditions, DefinitionError, FeatureSet, FeatureSetSpec, LookupError, MemoryTable,
    OpenError, RowProblem, TableBuilder, WriteError, set::Column,
};
#[cfg(feature = "cloud")]
pub use cloud::object_at;
pub(crate) use define::{Defined, define};
pub use places::{DELTA_LOG, FileAt, files, is_many, is_url};
pub(crate) use source::{Source, Step};

/// How files and definitions become feature sets.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How much memory the rows of one set may take; more is refused. 4 GiB by default.
    pub max_bytes: usize,
    /// How many rows of a CSV or JSON Lines file are looked at to tell the types of its columns; a million by default.
    pub infer_rows: u64,
    /// What reads the expressions of definitions; by default nothing does.
    pub conditions: Conditions,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { max_bytes: 4 << 30, infer_rows: 1_000_000, conditions: Conditions::default() }
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
    /// Files came in the place of others that were to be read. Their rows may be in those.
    #[error("`{file}`: its files were replaced by others while they were read; read it again")]
    Replaced {
        /// The folder or pattern as given.
        file: String,
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
    /// A data file of a table has rows that have been taken in other files, which a set with windows would count twice.
    #[error(
        "`{file}` was written anew from files that have been taken, and not by `OPTIMIZE` alone: windows would count rows twice; purge \
         the set, and ingest the table anew"
    )]
    Rewritten {
        /// The data file.
        file: String,
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
    /// A row, counted from 1: of a file without lines, or of one that is not taken line by line.
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
    again(|| {
        let Defined { set, source, .. } = define(name, spec, root, options)?;
        match source {
            Some(source) => table(set, &source, options),
            None => {
                let problem = "neither a `source` to load nor an `online` store that takes rows; name one";
                Err(DefinitionError { set: name.to_owned(), problems: vec![problem.to_owned()] }.into())
            }
        }
    })
}

/// Reads into memory what somebody else may write meanwhile, such as the request log: once more where files were replaced.
pub(crate) fn again<T>(read: impl Fn() -> Result<T, LoadError>) -> Result<T, LoadError> {
    const TRIES: usize = 4;
    for _ in 1..TRIES {
        match read() {
            Err(LoadError::Replaced { .. }) => {}
            done => return done,
        }
    }
    read()
}

fn table(set: FeatureSet, source: &Source, options: &LoadOptions) -> Result<MemoryTable, LoadError> {
    let wanted = wanted(&set);
    let mut builder = TableBuilder::new(set).max_bytes(options.max_bytes);
    let mut appended = 0;
    source.each(|part| {
        part.read(&wanted, &mut |batch, place| {
            builder.append(batch).map_err(|error| match error {
                AppendError::Row { row, problem } => {
                    LoadError::Row { place: part.place(place((row - appended) as usize)), problem }
                }
                AppendError::Columns { problems } => {
                    LoadError::Columns { file: part.name().to_owned(), problems }
                }
                AppendError::TooLarge { limit } => {
                    LoadError::TooLarge { file: source.name().to_owned(), limit }
                }
                AppendError::Lookup(error) => LoadError::Lookup(error),
            })?;
            appended += batch.num_rows() as u64;
            Ok(())
        })
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
