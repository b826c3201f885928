//! Rows into a file.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{array::RecordBatch, csv, datatypes::SchemaRef, ipc::writer::FileWriter};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::Failure;
use crate::wire::json::Encoder;

/// Where rows go. A file appears under its name only once it is whole.
pub(super) struct Output {
    sink: Sink,
    place: Option<Partial>,
}

/// A file while it is written, under another name. Dropped before it is whole, it is removed.
struct Partial {
    path: PathBuf,
    name: PathBuf,
    whole: bool,
}

impl Partial {
    fn publish(mut self) -> Result<(), Failure> {
        std::fs::rename(&self.path, &self.name)
            .map_err(|error| format!("{}: {error}", self.name.display()))?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole {
            // What went wrong before is what the user needs to hear.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

enum Sink {
    Lines(Encoder, Box<dyn Write>),
    /// One array over all batches; whether a row was written before.
    Array(Encoder, Box<dyn Write>, bool),
    Csv(Box<csv::Writer<Box<dyn Write>>>),
    Parquet(Box<ArrowWriter<File>>),
    Arrow(Box<FileWriter<Box<dyn Write>>>),
}

impl Output {
    pub(super) fn create(path: &Path, schema: &SchemaRef) -> Result<Self, Failure> {
        let encoder = || Encoder::new(Arc::clone(schema));
        if path == Path::new("-") {
            let out = Box::new(BufWriter::new(std::io::stdout()));
            return Ok(Self { sink: Sink::Lines(encoder()?, out), place: None });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let create = || File::create(&partial).map_err(|error| format!("{}: {error}", partial.display()));
        let buffered = || Ok::<_, Failure>(Box::new(BufWriter::new(create()?)) as Box<dyn Write>);
        let sink = match path.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl" | "ndjson") => Sink::Lines(encoder()?, buffered()?),
            Some("json") => {
                let mut out = buffered()?;
                out.write_all(b"[")?;
                Sink::Array(encoder()?, out, false)
            }
            Some("csv") => {
                if let Some(nested) = schema.fields().iter().find(|field| field.data_type().is_nested()) {
                    let name = nested.name();
                    return Err(format!(
                        "column `{name}` is nested, which CSV cannot hold; use .jsonl or .parquet"
                    )
                    .into());
                }
                Sink::Csv(Box::new(csv::WriterBuilder::new().with_header(true).build(buffered()?)))
            }
            Some("parquet") => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                Sink::Parquet(Box::new(ArrowWriter::try_new(
                    create()?,
                    Arc::clone(schema),
                    Some(properties),
                )?))
            }
            Some("arrow" | "ipc") => Sink::Arrow(Box::new(FileWriter::try_new(buffered()?, schema)?)),
            _ => {
                let problem =
                    format!("{}: rows go to .json, .jsonl, .csv, .parquet or .arrow", path.display());
                return Err(problem.into());
            }
        };
        let place = Partial { path: partial, name: path.to_path_buf(), whole: false };
        Ok(Self { sink, place: Some(place) })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let mut text = Vec::new();
        match &mut self.sink {
            Sink::Lines(encoder, out) => {
                encoder.encode_lines(batch, &mut text)?;
                out.write_all(&text)?;
            }
            Sink::Array(encoder, out, any) => {
                encoder.encode(batch, crate::wire::Form::Array, &mut text)?;
                // The rows without their brackets, behind those that are there.
                let rows = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
                if !rows.is_empty() {
                    out.write_all(if *any { b",\n" } else { b"\n" })?;
                    out.write_all(rows)?;
                    *any = true;
                }
            }
            Sink::Csv(writer) => writer.write(batch)?,
            Sink::Parquet(writer) => writer.write(batch)?,
            Sink::Arrow(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.sink {
            Sink::Lines(_, mut out) => out.flush()?,
            Sink::Array(_, mut out, _) => {
                out.write_all(b"\n]\n")?;
                out.flush()?;
            }
            Sink::Csv(writer) => writer.into_inner().flush()?,
            Sink::Parquet(writer) => drop(writer.close()?),
            Sink::Arrow(writer) => writer.into_inner()?.flush()?,
        }
        if let Some(place) = self.place {
            place.publish()?;
        }
        Ok(())
    }
}
