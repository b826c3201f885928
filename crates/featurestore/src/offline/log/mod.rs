//! The log of a set on disk or in an object store: Parquet by date, appended, compacted, erased.
//!
//! ```text
//! cards/
//!   _log/00000000000000000007.json     the seventh commit: which files count, the next sequence number
//!   date=2026-11-24/part-….parquet     rows whose events fall on that day (UTC), in the order of their versions
//! ```
//!
//! A change writes its files first and counts from the moment its commit is there. One process writes to a log at a time; a
//! second one notices ([`LogError::Conflict`]). Any number may read.

mod change;
mod files;
mod manifest;
mod schema;
mod table;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::array::RecordBatch;
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};

pub use change::{Appended, Compacted, Erased};
use files::Files;
use manifest::Manifest;
pub(crate) use schema::time;
pub use schema::{CREATED, EVENT, LogSchema, SEQUENCE, VALID_TO};
pub use table::LogTable;

/// The log of a set: the rows that a store took, in the order in which it took them, for ever.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use arrow::datatypes::DataType;
/// use millstream_featurestore::{FeatureSet, offline::{Log, LogSchema}};
/// use millstream_graph::rows;
///
/// # let folder = tempfile::tempdir()?;
/// let cards = FeatureSet::builder("cards").key("card", DataType::Int64).feature("avg", DataType::Float64).build()?;
/// let log = Log::local(folder.path().join("cards"), LogSchema::of(&cards)?).await?;
/// let rows = rows! { card: [7_i64, 8], avg: [12.5, 1.0], _event: [1_764_000_000_000_000_i64, 1_764_000_000_000_001] };
/// assert_eq!(log.append(0, &rows).await?.rows, 2);
/// assert_eq!(log.append(0, &rows).await?.rows, 0, "the same rows again change nothing");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Log {
    schema: LogSchema,
    files: Files,
    /// Held by whoever changes the log.
    writer: tokio::sync::Mutex<()>,
    newest: Mutex<Arc<Manifest>>,
}

impl Log {
    /// Opens the log below `prefix` of an object store; one that is not there has no rows.
    ///
    /// # Errors
    /// When the store does not answer, or the newest commit cannot be read.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        schema: LogSchema,
    ) -> Result<Self, LogError> {
        Self::at(Files::new(store, prefix, None), schema).await
    }

    /// Opens the log in a folder of this machine, which is made if it is not there. What is acknowledged is on the disk.
    ///
    /// # Errors
    /// As [`Log::open`], and when the folder cannot be made.
    pub async fn local(folder: impl Into<PathBuf>, schema: LogSchema) -> Result<Self, LogError> {
        let folder = folder.into();
        let unusable = |source| LogError::Folder { folder: folder.display().to_string(), source };
        std::fs::create_dir_all(&folder).map_err(unusable)?;
        let folder = folder.canonicalize().map_err(unusable)?;
        let failed = |source| LogError::Store { path: folder.display().to_string(), source };
        let store = Arc::new(LocalFileSystem::new_with_prefix(&folder).map_err(failed)?);
        Self::at(Files::new(store, Path::default(), Some(folder)), schema).await
    }

    async fn at(files: Files, schema: LogSchema) -> Result<Self, LogError> {
        let newest = Arc::new(Manifest::newest(&files).await?);
        Ok(Self { schema, files, writer: tokio::sync::Mutex::default(), newest: Mutex::new(newest) })
    }

    /// What the log holds.
    pub fn schema(&self) -> &LogSchema {
        &self.schema
    }

    /// The sequence number of the next row.
    pub fn next(&self) -> u64 {
        self.newest().next
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.newest().files.iter().map(|file| file.rows).sum()
    }

    /// Whether it is the same log, maybe opened twice.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.files.is(&other.files)
    }

    /// Where it lies, for people.
    pub(crate) fn place(&self) -> String {
        self.files.place()
    }

    /// Sees what other processes have written.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub async fn refresh(&self) -> Result<(), LogError> {
        let _writer = self.writer.lock().await;
        let newest = Manifest::newest(&self.files).await?;
        self.publish(newest);
        Ok(())
    }

    /// The rows of a moment as a table: what is written later is not in it.
    pub fn table(&self) -> LogTable {
        LogTable::new(self.schema.clone(), self.files.clone(), self.newest())
    }

    /// All rows, file by file: for logs that fit into memory.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn read(&self) -> Result<Vec<RecordBatch>, LogError> {
        let mut batches = Vec::new();
        for entry in &self.newest().files {
            batches.push(self.files.rows(entry, &self.schema).await?);
        }
        Ok(batches)
    }

    fn newest(&self) -> Arc<Manifest> {
        Arc::clone(&self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, manifest: Manifest) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(manifest);
    }
}

/// Why a log cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The folder cannot be made or entered.
    #[error("folder `{folder}` cannot be used")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store did not do what was asked.
    #[error("`{path}` cannot be read or written")]
    Store {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A file is not what it should be.
    #[error("`{path}` is no file of a log: {problem}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Rows cannot be written as Parquet.
    #[error("rows cannot be written: {problem}")]
    Encode {
        /// Why.
        problem: String,
    },
    /// Columns are missing or have the wrong type; every problem at once.
    #[error("{}", problems.join("; "))]
    Columns {
        /// The problems, one sentence each.
        problems: Vec<String>,
    },
    /// A row is at fault; nothing was written.
    #[error("row {row}: {problem}")]
    Row {
        /// The row of the batch, counted from 0.
        row: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process has changed the log since it was opened here; nothing was written.
    #[error("another process has written to the log; open it again")]
    Conflict,
    /// Rows could not be put together.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// Keys could not be read.
    #[error(transparent)]
    Lookup(#[from] crate::LookupError),
}
