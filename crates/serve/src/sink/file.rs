//! The files of one path, one after the other.

use std::{
    fs::File,
    io::{BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow::{
    array::RecordBatch,
    csv,
    datatypes::{FieldRef, SchemaRef},
};
use millstream_graph::SchemaError;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use crate::{outside::Outside, wire::json::Encoder};

/// Bytes of a Parquet file that are kept in memory until they make a row group.
const ROW_GROUP: usize = 8 << 20;
/// Files that may be begun within one second.
const NAMES: usize = 1000;

/// What is written into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    JsonLines,
    Csv,
    Parquet,
}

impl Format {
    /// The format that a name's ending says, if it can hold the columns.
    pub(super) fn of(file: &str, schema: &SchemaRef) -> Result<Self, SchemaError> {
        match Path::new(file).extension().and_then(|ending| ending.to_str()) {
            Some("jsonl") => Encoder::new(Arc::clone(schema)).map(|_| Self::JsonLines),
            Some("csv") => {
                let held = |field: &&FieldRef| field.data_type().is_nested() || field.data_type().is_binary();
                SchemaError::collect(schema.fields().iter().filter(held).map(|field| {
                    let problem =
                        format!("column `{}` is {}, which CSV cannot hold", field.name(), field.data_type());
                    SchemaError::new(problem)
                }))?;
                Ok(Self::Csv)
            }
            Some("parquet") => {
                let tried = ArrowWriter::try_new(std::io::sink(), Arc::clone(schema), None);
                tried.map(|_| Self::Parquet).map_err(|error| SchemaError::new(error.to_string()))
            }
            _ => Err(SchemaError::new(format!("`{file}`: a file ends in .jsonl, .csv or .parquet"))),
        }
    }
}

/// Writes into one file after another.
pub(super) struct Files {
    outside: Arc<Outside>,
    file: String,
    format: Format,
    schema: SchemaRef,
    /// For JSON Lines.
    encoder: Option<Encoder>,
    open: Option<Open>,
}

/// A file that is being written.
struct Open {
    out: Out,
    begun: Instant,
    path: PathBuf,
    /// Bytes written so far.
    bytes: usize,
}

enum Out {
    Text(BufWriter<File>),
    Parquet(Box<ArrowWriter<File>>),
}

/// The name of a file that cannot be read yet ends so.
const PARTIAL: &str = ".partial";

impl Files {
    pub(super) fn new(
        outside: Arc<Outside>,
        file: &str,
        format: Format,
        schema: &SchemaRef,
    ) -> Result<Self, SchemaError> {
        let encoder = match format {
            Format::JsonLines => Some(Encoder::new(Arc::clone(schema))?),
            Format::Csv | Format::Parquet => None,
        };
        Ok(Self { outside, file: file.to_owned(), format, schema: Arc::clone(schema), encoder, open: None })
    }

    /// When the file that is being written was begun.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.begun)
    }

    /// Appends rows, and closes the file when it has `size` bytes. `more` rows wait already, so that nobody needs to see these yet.
    ///
    /// # Errors
    /// When the rows could not be written; then the file is given up, and the next rows begin another.
    pub(super) fn write(&mut self, batch: &RecordBatch, size: usize, more: bool) -> Result<(), String> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin().map_err(|error| format!("{}: {error}", self.file))?,
        };
        if let Err(error) = self.append(&mut open, batch, more) {
            let error = format!("{}: {error}", open.path.display());
            open.give_up();
            return Err(error);
        }
        let full = open.bytes >= size;
        self.open = Some(open);
        if full { self.close() } else { Ok(()) }
    }

    /// Closes the file, if there is one.
    pub(super) fn close(&mut self) -> Result<(), String> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let path = open.path.clone();
        open.close().map_err(|error| format!("{}: {error}", path.display()))
    }

    fn begin(&self) -> Result<Open, Failure> {
        let wanted = self.outside.inside(&self.file).map_err(|error| error.to_string())?;
        let folder = wanted.parent().ok_or("it has no folder")?;
        std::fs::create_dir_all(folder)?;
        // What was not there before could have been put there as a link since.
        self.outside.inside(&self.file).map_err(|error| error.to_string())?;
        let stem = wanted.file_stem().and_then(|stem| stem.to_str()).ok_or("it has no name")?;
        let time = chrono::Utc::now().format("%Y%m%dT%H%M%SZ");
        let (ending, partial) = match self.format {
            Format::JsonLines => ("jsonl", ""),
            Format::Csv => ("csv", ""),
            Format::Parquet => ("parquet", PARTIAL),
        };
        for number in 0..NAMES {
            let name = format!("{stem}-{time}-{number}.{ending}");
            let path = folder.join(format!("{name}{partial}"));
            if !partial.is_empty() && folder.join(name).exists() {
                continue;
            }
            let file = match File::create_new(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            let out = match self.format {
                Format::Parquet => {
                    let zstd = Compression::ZSTD(ZstdLevel::default());
                    let properties = WriterProperties::builder().set_compression(zstd).build();
                    Out::Parquet(Box::new(ArrowWriter::try_new(
                        file,
                        Arc::clone(&self.schema),
                        Some(properties),
                    )?))
                }
                Format::JsonLines | Format::Csv => Out::Text(BufWriter::new(file)),
            };
            return Ok(Open { out, begun: Instant::now(), path, bytes: 0 });
        }
        Err("too many files were begun in this second".into())
    }

    fn append(&self, open: &mut Open, batch: &RecordBatch, more: bool) -> Result<(), Failure> {
        match &mut open.out {
            Out::Text(out) => {
                let mut text = Vec::new();
                match &self.encoder {
                    Some(encoder) => encoder.encode_lines(batch, &mut text)?,
                    None => csv::WriterBuilder::new()
                        .with_header(open.bytes == 0)
                        .build(&mut text)
                        .write(batch)?,
                }
                out.write_all(&text)?;
                open.bytes += text.len();
                if !more {
                    out.flush()?;
                }
            }
            Out::Parquet(out) => {
                out.write(batch)?;
                if out.in_progress_size() >= ROW_GROUP {
                    out.flush()?;
                }
                open.bytes = out.bytes_written() + out.in_progress_size();
            }
        }
        Ok(())
    }
}

type Failure = Box<dyn std::error::Error>;

impl Open {
    fn close(self) -> Result<(), Failure> {
        match self.out {
            Out::Text(mut out) => out.flush()?,
            Out::Parquet(out) => {
                out.close()?;
                // The name without its last ending.
                std::fs::rename(&self.path, self.path.with_extension(""))?;
            }
        }
        Ok(())
    }

    /// Text can be read as far as it goes; half a Parquet file cannot.
    fn give_up(self) {
        if let Out::Parquet(_) = self.out {
            // Why it could not be written has been said.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
