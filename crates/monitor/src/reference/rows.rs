//! Rows of files and of memory, read in parts.

use std::{borrow::Cow, fs::File, io, path::Path, sync::Arc, time::SystemTime};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
};

use super::ReferenceError;

/// A CSV file of more bytes is refused: it is held in memory while it is read.
pub const MOST_CSV_BYTES: u64 = 2 << 30;
/// Rows that are read at a time.
const BATCH_ROWS: usize = 8192;

/// Rows as they are read.
pub(super) type Batches<'r> = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + 'r>;

/// Rows of one schema, which can be read more than once and by several threads, each of which reads columns or parts of its own.
pub(super) enum Rows<'r> {
    /// In memory. Each batch is a part.
    Memory(Cow<'r, [RecordBatch]>),
    /// In a Parquet file.
    Parquet(Parquet<'r>),
}

impl<'r> Rows<'r> {
    /// Those of a file: of CSV if its name says so, else of Parquet.
    pub(super) fn of_file(file: &'r Path) -> Result<Self, ReferenceError> {
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            return Ok(Self::Memory(read_csv(file)?.into()));
        }
        Parquet::open(file).map(Self::Parquet)
    }

    /// Their columns.
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::Memory(batches) => {
                batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema)
            }
            Self::Parquet(parquet) => Arc::clone(parquet.known.schema()),
        }
    }

    /// How many there are, as far as that is known without reading them: a file may say what is not so.
    pub(super) fn told(&self) -> usize {
        match self {
            Self::Memory(batches) => batches.iter().map(RecordBatch::num_rows).sum(),
            Self::Parquet(parquet) => {
                usize::try_from(parquet.known.metadata().file_metadata().num_rows()).unwrap_or(0)
            }
        }
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> usize {
        match self {
            Self::Memory(batches) => batches.len(),
            Self::Parquet(parquet) => parquet.known.metadata().num_row_groups(),
        }
    }

    /// One column or all, of some parts.
    pub(super) fn read(
        &self,
        column: Option<&str>,
        parts: impl IntoIterator<Item = usize>,
    ) -> Result<Batches<'_>, ReferenceError> {
        let column = column.map(|name| self.schema().index_of(name)).transpose()?;
        match self {
            Self::Memory(batches) => {
                // Few of them, beside what they hold.
                let chosen: Vec<_> = parts.into_iter().filter_map(|part| batches.get(part)).collect();
                Ok(Box::new(chosen.into_iter().map(move |batch| match column {
                    Some(column) => batch.project(&[column]),
                    None => Ok(batch.clone()),
                })))
            }
            Self::Parquet(parquet) => parquet.read(column, parts.into_iter().collect()),
        }
    }
}

/// A Parquet file. What it says of itself is read once; a part is a row group.
pub(super) struct Parquet<'p> {
    file: &'p Path,
    known: ArrowReaderMetadata,
    stamp: Stamp,
}

/// Tells a file from one that was written in its place.
#[derive(PartialEq)]
struct Stamp(u64, Option<SystemTime>);

impl<'p> Parquet<'p> {
    fn open(file: &'p Path) -> Result<Self, ReferenceError> {
        let (opened, stamp) = opened(file)?;
        let known = ArrowReaderMetadata::load(&opened, ArrowReaderOptions::default());
        let known = known.map_err(|source| malformed(file, source))?;
        Ok(Self { file, known, stamp })
    }

    fn read(&self, column: Option<usize>, groups: Vec<usize>) -> Result<Batches<'static>, ReferenceError> {
        // Opened anew: those who share an open file would share their place in it.
        let (opened, stamp) = opened(self.file)?;
        if stamp != self.stamp {
            let source = io::Error::other("it was changed while it was read");
            return Err(ReferenceError::Unreadable { file: self.file.to_path_buf(), source });
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(opened, self.known.clone());
        let mut builder = builder.with_batch_size(BATCH_ROWS).with_row_groups(groups);
        if let Some(column) = column {
            let mask = ProjectionMask::roots(builder.parquet_schema(), [column]);
            builder = builder.with_projection(mask);
        }
        Ok(Box::new(builder.build().map_err(|source| malformed(self.file, source))?))
    }
}

fn opened(file: &Path) -> Result<(File, Stamp), ReferenceError> {
    let opened = || -> io::Result<(File, Stamp)> {
        let opened = File::open(file)?;
        let known = opened.metadata()?;
        Ok((opened, Stamp(known.len(), known.modified().ok())))
    };
    opened().map_err(|source| ReferenceError::Unreadable { file: file.to_path_buf(), source })
}

fn malformed(file: &Path, source: ParquetError) -> ReferenceError {
    ReferenceError::Malformed { file: file.to_path_buf(), wanted: "Parquet file", source: source.into() }
}

fn read_csv(file: &Path) -> Result<Vec<RecordBatch>, ReferenceError> {
    let unreadable = |source| ReferenceError::Unreadable { file: file.to_path_buf(), source };
    let malformed = |source: ArrowError| ReferenceError::Malformed {
        file: file.to_path_buf(),
        wanted: "CSV file",
        source: source.into(),
    };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > MOST_CSV_BYTES {
        return Err(ReferenceError::TooLarge { file: file.to_path_buf() });
    }
    let format = arrow::csv::reader::Format::default().with_header(true);
    let opened = || File::open(file).map_err(unreadable);
    let (schema, _) = format.infer_schema(opened()?, None).map_err(malformed)?;
    let reader =
        arrow::csv::ReaderBuilder::new(Arc::new(schema)).with_format(format).with_batch_size(BATCH_ROWS);
    reader.build(opened()?).map_err(malformed)?.collect::<Result<_, _>>().map_err(malformed)
}
