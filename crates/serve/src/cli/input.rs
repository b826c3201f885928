//! Rows of a file, as batches of a graph's input schema.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    csv,
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_graph::suggest;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Failure;
use crate::wire::{DecodeError, DecodeLimits, UnknownFields, json::Decoder};

/// The largest `.json` file, which is read whole; longer ones are for `.jsonl`.
const MAX_JSON: u64 = 256 << 20;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, Failure>>>;

/// Batches of rows from a file.
pub(super) struct Input {
    batches: Batches,
    total: Option<u64>,
}

impl Input {
    /// Rows of these columns. What happens to other fields of JSON is told; other columns of other files are left out.
    pub(super) fn open(
        path: &Path,
        schema: &SchemaRef,
        rows: usize,
        unknown_fields: UnknownFields,
    ) -> Result<Self, Failure> {
        let limits = DecodeLimits {
            body_bytes: usize::MAX,
            rows: usize::MAX,
            unknown_fields,
            ..DecodeLimits::default()
        };
        let open = || File::open(path).map_err(|error| format!("{}: {error}", path.display()));
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl" | "ndjson") => {
                Ok(Self { batches: lines(open()?, schema, rows, limits)?, total: None })
            }
            Some("json") => whole(open()?, schema, rows, limits),
            Some("csv") => Ok(Self { batches: csv_rows(open()?, schema, rows)?, total: None }),
            Some("parquet") => parquet_rows(open()?, schema, rows),
            _ => Err(format!("{}: rows come from .json, .jsonl, .csv or .parquet", path.display()).into()),
        }
    }

    /// The names of the columns of a file, of JSON those of its first row.
    #[cfg(feature = "offline")]
    pub(super) fn columns(path: &Path) -> Result<Vec<String>, Failure> {
        let open = || File::open(path).map_err(|error| format!("{}: {error}", path.display()));
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl" | "ndjson") => {
                let mut line = String::new();
                BufReader::new(open()?).read_line(&mut line)?;
                let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line.trim())
                    .map_err(|error| format!("{}: row 0: {error}", path.display()))?;
                Ok(row.into_iter().map(|(name, _)| name).collect())
            }
            Some("csv") => Ok(header(&mut BufReader::new(open()?))?),
            Some("parquet") => {
                let builder = ParquetRecordBatchReaderBuilder::try_new(open()?)?;
                Ok(builder.schema().fields().iter().map(|field| field.name().clone()).collect())
            }
            _ => Err(format!("{}: a log is .jsonl, .csv or .parquet", path.display()).into()),
        }
    }

    /// The rows in the file, where it says so beforehand.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }
}

impl Iterator for Input {
    type Item = Result<RecordBatch, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.next()
    }
}

/// A body of rows `first` and on; its errors count rows from the start of the file.
fn decode(decoder: &Decoder, body: &[u8], first: usize) -> Result<RecordBatch, Failure> {
    let from_file = |error: DecodeError| DecodeError { row: error.row.map(|row| row + first), ..error };
    Ok(decoder.decode(body).map_err(from_file)?.batch)
}

/// JSON Lines are read as the array that they would be with commas, by the decoder that requests go through.
fn lines(file: File, schema: &SchemaRef, rows: usize, limits: DecodeLimits) -> Result<Batches, Failure> {
    let decoder = Decoder::new(Arc::clone(schema), limits)?;
    let mut lines = BufReader::new(file).split(b'\n');
    let (mut first, mut body) = (0, Vec::new());
    Ok(Box::new(std::iter::from_fn(move || {
        body.clear();
        body.push(b'[');
        let mut count = 0;
        while count < rows {
            match lines.next() {
                None => break,
                Some(Err(error)) => return Some(Err(error.into())),
                Some(Ok(line)) if line.trim_ascii().is_empty() => {}
                Some(Ok(line)) => {
                    if count > 0 {
                        body.push(b',');
                    }
                    body.extend_from_slice(line.trim_ascii());
                    count += 1;
                }
            }
        }
        body.push(b']');
        let batch = (count > 0).then(|| decode(&decoder, &body, first));
        first += count;
        batch
    })))
}

fn whole(file: File, schema: &SchemaRef, rows: usize, limits: DecodeLimits) -> Result<Input, Failure> {
    let mut body = Vec::new();
    file.take(MAX_JSON + 1).read_to_end(&mut body)?;
    if body.len() as u64 > MAX_JSON {
        return Err(format!("a .json file has at most {MAX_JSON} bytes; use .jsonl").into());
    }
    let decoder = Decoder::new(Arc::clone(schema), limits)?;
    let batch = decode(&decoder, &body, 0)?;
    let total = batch.num_rows();
    let slices = (0..total).step_by(rows).map(move |at| Ok(batch.slice(at, rows.min(total - at))));
    Ok(Input { batches: Box::new(slices), total: Some(total as u64) })
}

/// The names in the first line of a CSV file.
fn header(reader: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut head = String::new();
    reader.read_line(&mut head)?;
    let names = head.trim_end().trim_start_matches('\u{feff}').split(',');
    Ok(names.map(|name| name.trim_matches('"').to_owned()).collect())
}

fn csv_rows(file: File, schema: &SchemaRef, rows: usize) -> Result<Batches, Failure> {
    let mut reader = BufReader::new(file);
    let names = header(&mut reader)?;
    let places = columns(schema, &names)?;
    // The CSV reader knows columns by their place, so it is given the schema in the order of the file.
    let mut in_file: Vec<Field> =
        names.iter().map(|name| Field::new(name, arrow::datatypes::DataType::Utf8, true)).collect();
    for (field, place) in schema.fields().iter().zip(&places) {
        in_file[*place] = Field::clone(field);
    }
    let reader =
        csv::ReaderBuilder::new(Arc::new(Schema::new(in_file))).with_batch_size(rows).build(reader)?;
    let schema = Arc::clone(schema);
    Ok(Box::new(reader.map(move |batch| pick(&batch?, &places, &schema))))
}

fn parquet_rows(file: File, schema: &SchemaRef, rows: usize) -> Result<Input, Failure> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(rows);
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let places = columns(schema, &names)?;
    let total = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
    let (reader, schema) = (builder.build()?, Arc::clone(schema));
    Ok(Input { batches: Box::new(reader.map(move |batch| pick(&batch?, &places, &schema))), total })
}

/// Where each column of the schema stands among the columns of a file.
fn columns(schema: &SchemaRef, names: &[String]) -> Result<Vec<usize>, Failure> {
    let place = |field: &Arc<Field>| {
        let found = names.iter().position(|name| name == field.name());
        found.ok_or_else(|| suggest::unknown("column", field.name(), names.iter().map(String::as_str)))
    };
    let (found, missing): (Vec<_>, Vec<_>) = schema.fields().iter().map(place).partition(Result::is_ok);
    if missing.is_empty() {
        return Ok(found.into_iter().flatten().collect());
    }
    let problems: Vec<_> = missing.into_iter().filter_map(Result::err).collect();
    Err(format!("the file has {}", problems.join("; ")).into())
}

/// The graph's columns out of the file's, cast where the file's type is another and no value is lost.
fn pick(batch: &RecordBatch, places: &[usize], schema: &SchemaRef) -> Result<RecordBatch, Failure> {
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    let columns = schema.fields().iter().zip(places).map(|(field, place)| {
        let column = batch.column(*place);
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        let cast = arrow::compute::cast_with_options(column, field.data_type(), &options);
        cast.map_err(|error| format!("column `{}`: {error}", field.name()))
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>, String>>()?)?)
}
