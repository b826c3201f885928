//! Spines: the rows of a training set to be, each with the keys it is about and the time from which it looks back.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::DataFusionError,
    datasource::memory::MemorySourceConfig,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{ExecutionPlan, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::{CsvReadOptions, DataFrame, JsonReadOptions, ParquetReadOptions, SessionContext},
};
use futures_util::stream;

use super::{HistoryError, store::read_only};

/// The rows that features are added to, and the column of their times.
#[derive(Clone, Debug)]
pub struct Spine {
    source: Source,
    pub(super) time: String,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Sql(String),
    Batches(SchemaRef, Vec<RecordBatch>),
}

impl Spine {
    /// The rows of a file: `.parquet`, `.csv` (with a header), `.jsonl` or `.ndjson`.
    pub fn file(path: impl Into<PathBuf>, time: impl Into<String>) -> Self {
        Self { source: Source::File(path.into()), time: time.into() }
    }

    /// The rows of a query over the sets of the store, in its order.
    pub fn sql(text: impl Into<String>, time: impl Into<String>) -> Self {
        Self { source: Source::Sql(text.into()), time: time.into() }
    }

    /// Rows in memory.
    pub fn batches(schema: SchemaRef, batches: Vec<RecordBatch>, time: impl Into<String>) -> Self {
        Self { source: Source::Batches(schema, batches), time: time.into() }
    }

    /// What answers the rows; `session` runs on one partition.
    pub(super) async fn plan(
        &self,
        session: &SessionContext,
    ) -> Result<Arc<dyn ExecutionPlan>, HistoryError> {
        let frame = match &self.source {
            Source::Batches(schema, batches) => {
                let rows = MemorySourceConfig::try_new_exec(
                    std::slice::from_ref(batches),
                    Arc::clone(schema),
                    None,
                )?;
                return Ok(rows);
            }
            Source::Sql(text) => session.sql_with_options(text, read_only()).await?,
            Source::File(path) => file(session, path).await?,
        };
        Ok(frame.create_physical_plan().await?)
    }
}

/// Rows of a CSV or JSON Lines file that are looked at to tell the types of its columns.
const INFERRED: usize = 100_000;

async fn file(session: &SessionContext, path: &Path) -> Result<DataFrame, HistoryError> {
    let open = |source| HistoryError::File { path: path.display().to_string(), source };
    let full = path.canonicalize().map_err(open)?;
    let unreadable = || HistoryError::Format {
        path: path.display().to_string(),
        known: ".parquet, .csv, .jsonl, .ndjson",
    };
    // The reader takes these for patterns.
    let text = full.to_str().filter(|text| !text.contains(['*', '?', '['])).ok_or_else(unreadable)?;
    let ending = full.extension().and_then(|ending| ending.to_str()).ok_or_else(unreadable)?;
    let dotted = format!(".{ending}");
    Ok(match ending.to_ascii_lowercase().as_str() {
        "parquet" => {
            session
                .read_parquet(
                    text,
                    ParquetReadOptions { file_extension: &dotted, ..ParquetReadOptions::default() },
                )
                .await?
        }
        "csv" => {
            let options = CsvReadOptions::new().file_extension(&dotted).schema_infer_max_records(INFERRED);
            session.read_csv(text, options).await?
        }
        "jsonl" | "ndjson" => {
            let options =
                JsonReadOptions::default().file_extension(&dotted).schema_infer_max_records(INFERRED);
            session.read_json(text, options).await?
        }
        _ => return Err(unreadable()),
    })
}

/// A stream as the one partition of a plan; it runs once.
pub(super) struct Once {
    schema: SchemaRef,
    stream: Mutex<Option<SendableRecordBatchStream>>,
}

impl Once {
    pub(super) fn new(stream: SendableRecordBatchStream) -> Self {
        Self { schema: stream.schema(), stream: Mutex::new(Some(stream)) }
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.unwrap_or_else(|| {
            let spent = stream::iter([Err(DataFusionError::Internal("a spine was read twice".into()))]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), spent))
        })
    }
}
