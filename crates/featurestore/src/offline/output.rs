//! A training set as a stream or a file.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, new_empty_array},
    csv,
    datatypes::{Schema, SchemaRef},
    ipc::writer::FileWriter,
};
use datafusion::{
    common::DataFusionError, execution::SendableRecordBatchStream,
    physical_plan::stream::RecordBatchStreamAdapter,
};
use futures_util::{StreamExt, TryStreamExt};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{
    HistoryError,
    history::project,
    operator::{Fault, external},
};
use crate::vector::{derived::Derived, resolve::Resolved};

/// The rows of a training set, in the order of its spine.
pub struct TrainingSet {
    rows: SendableRecordBatchStream,
    spine: usize,
}

impl TrainingSet {
    /// Takes the columns that were asked for out of those a plan answers, of which those of the spine are the first, and adds those
    /// that are expressions.
    pub(super) fn new(joined: SendableRecordBatchStream, resolved: &Resolved) -> Result<Self, HistoryError> {
        let have = joined.schema();
        let place = |name: &String| have.index_of(name).map_err(DataFusionError::from);
        let mut places: Vec<usize> = (0..resolved.input.fields().len()).collect();
        for name in &resolved.columns {
            places.push(place(name)?);
        }
        let label = resolved.label.as_ref().map(place).transpose()?;
        let features = Arc::new(have.project(&places).map_err(DataFusionError::from)?);
        let derived = resolved.derived.clone();
        let added = derived.iter().flat_map(|derived| &derived.added);
        let label_field = label.map(|label| Arc::clone(&have.fields()[label]));
        let fields = features.fields().iter().chain(added).chain(&label_field).cloned();
        let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), have.metadata().clone());
        let schema = Arc::new(schema);
        let answered = Arc::clone(&schema);
        let mut rows = 0;
        let rows = joined.map(move |batch| {
            let batch = batch?;
            let first = rows;
            rows += batch.num_rows();
            let mut columns = project(&batch, &features, &places)?.columns().to_vec();
            if let Some(derived) = &derived {
                columns.extend(add(derived, columns.clone(), first)?);
            }
            columns.extend(label.map(|label| Arc::clone(batch.column(label))));
            Ok(RecordBatch::try_new(Arc::clone(&answered), columns)?)
        });
        let spine = resolved.input.fields().len();
        Ok(Self { rows: Box::pin(RecordBatchStreamAdapter::new(schema, rows)), spine })
    }

    /// The columns of the spine, then those of the vector.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// How many of the columns are those of the spine.
    pub fn spine_columns(&self) -> usize {
        self.spine
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// When the spine or a log cannot be read further, memory runs out, or a row lacks a value that it must have.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, HistoryError> {
        Ok(self.rows.try_next().await?)
    }

    /// Writes all rows to a file: `.parquet`, `.csv` or `.arrow` (Arrow IPC), by its ending. The file is there whole or not at all.
    /// `progress` hears how many rows are done, batch by batch.
    ///
    /// # Errors
    /// As [`TrainingSet::next`], and when the file cannot be written.
    pub async fn write(
        mut self,
        path: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<u64, HistoryError> {
        let mut output = Output::create(path, &self.schema())?;
        let mut rows = 0;
        while let Some(batch) = self.next().await? {
            output.write(&batch)?;
            rows += batch.num_rows() as u64;
            progress(rows);
        }
        output.finish()?;
        Ok(rows)
    }
}

impl std::fmt::Debug for TrainingSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingSet").field("schema", &self.schema()).finish_non_exhaustive()
    }
}

/// The columns that are expressions over others; `first` is the number of the batch's first row.
fn add(derived: &Derived, columns: Vec<ArrayRef>, first: usize) -> Result<Vec<ArrayRef>, DataFusionError> {
    let width = columns.len();
    let batch = RecordBatch::try_new(Arc::clone(&derived.input), columns)?;
    let (mut rows, failed, _) = derived.run(batch).map_err(external)?.into_parts();
    if let Some(failed) = failed {
        let row = failed.rows.origin().place(0).map_or(first, |row| first + row as usize);
        let message = failed.messages.first().map_or("", String::as_str);
        return Err(external(Fault(format!("spine row {row}: {message}"))));
    }
    let columns = rows.pop().map(|(_, rows)| rows.batch().columns()[width..].to_vec());
    // No rows have no columns.
    Ok(columns
        .unwrap_or_else(|| derived.added.iter().map(|field| new_empty_array(field.data_type())).collect()))
}

/// A file that is written beside its name, and gets it when it is whole.
struct Output {
    format: Option<Format>,
    path: PathBuf,
    beside: PathBuf,
}

enum Format {
    Parquet(Box<ArrowWriter<BufWriter<File>>>),
    Csv(Box<csv::Writer<BufWriter<File>>>),
    Arrow(Box<FileWriter<BufWriter<File>>>),
}

impl Output {
    fn create(path: &Path, schema: &SchemaRef) -> Result<Self, HistoryError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let beside = path.with_file_name(format!(".{name}.partial"));
        let unwritable = |problem: &dyn std::fmt::Display| HistoryError::Encode {
            path: path.display().to_string(),
            problem: problem.to_string(),
        };
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        let file = || {
            let opened = File::create(&beside);
            let failed = |source| HistoryError::File { path: path.display().to_string(), source };
            opened.map(BufWriter::new).map_err(failed)
        };
        let format = match ending.as_deref() {
            Some("parquet") => {
                let compression = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(compression).build();
                let writer = ArrowWriter::try_new(file()?, Arc::clone(schema), Some(properties));
                Format::Parquet(Box::new(writer.map_err(|error| unwritable(&error))?))
            }
            Some("csv") => Format::Csv(Box::new(csv::Writer::new(file()?))),
            Some("arrow" | "ipc") => {
                let writer = FileWriter::try_new(file()?, schema);
                Format::Arrow(Box::new(writer.map_err(|error| unwritable(&error))?))
            }
            _ => {
                let path = path.display().to_string();
                return Err(HistoryError::Format { path, known: ".parquet, .csv, .arrow" });
            }
        };
        Ok(Self { format: Some(format), path: path.to_owned(), beside })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), HistoryError> {
        let result = match &mut self.format {
            Some(Format::Parquet(writer)) => writer.write(batch).map_err(|error| error.to_string()),
            Some(Format::Csv(writer)) => writer.write(batch).map_err(|error| error.to_string()),
            Some(Format::Arrow(writer)) => writer.write(batch).map_err(|error| error.to_string()),
            None => Ok(()),
        };
        result.map_err(|problem| self.unwritable(problem))
    }

    fn finish(mut self) -> Result<(), HistoryError> {
        let inner = match self.format.take() {
            Some(Format::Parquet(writer)) => writer.into_inner().map_err(|error| error.to_string()),
            Some(Format::Csv(writer)) => Ok(writer.into_inner()),
            Some(Format::Arrow(writer)) => writer.into_inner().map_err(|error| error.to_string()),
            None => return Ok(()),
        };
        let buffer = inner.map_err(|problem| self.unwritable(problem))?;
        let file = buffer.into_inner().map_err(|error| self.unwritable(error.to_string()))?;
        let failed = |source| HistoryError::File { path: self.path.display().to_string(), source };
        file.sync_all().map_err(failed)?;
        std::fs::rename(&self.beside, &self.path).map_err(failed)
    }

    fn unwritable(&self, problem: String) -> HistoryError {
        HistoryError::Encode { path: self.path.display().to_string(), problem }
    }
}

impl Drop for Output {
    /// What was not finished leaves nothing behind.
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.beside);
    }
}
