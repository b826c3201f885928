//! Reads a log, whoever wrote its files and whatever columns it had then.

mod examples;

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
        new_null_array,
    },
    compute::{CastOptions, and, cast_with_options, concat_batches, filter_record_batch, kernels::cmp},
    datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType},
    error::ArrowError,
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
            ParquetRecordBatchReaderBuilder, RowFilter,
        },
    },
    errors::ParquetError,
    file::metadata::RowGroupMetaData,
};

use super::{
    encode,
    error::ReadError,
    files::{list, parse_name},
    hour::{self, HOUR, hour_of},
    layout::{self, AT, REQUEST_ID},
};

pub use examples::{Example, Values};

/// A graph's log on disk. It may be read while it is written: every row is found once.
#[derive(Clone, Debug)]
pub struct Reader {
    root: PathBuf,
}

/// The files of an hour, all replicas together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// When it starts, in microseconds since 1970 UTC.
    pub start: i64,
    /// How many files there are.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
}

/// Rows of a log, batch by batch, the hours in their order and each file of an hour in the order of times. Made by
/// [`Reader::rows`].
pub struct LogRows {
    reader: Reader,
    times: Range<i64>,
    schema: SchemaRef,
    /// What remains, the next one last.
    hours: Vec<i64>,
    files: Vec<Opened>,
    open: Option<(PathBuf, ParquetRecordBatchReader)>,
}

/// A file that is read; it stays readable when it is removed.
struct Opened {
    path: PathBuf,
    sequence: u64,
    file: File,
    metadata: ArrowReaderMetadata,
}

/// How often an hour is listed until its files stand still.
const TRIES: usize = 32;

impl Reader {
    /// Reads the log in `path`: the folder of one graph, below the `path` of the settings.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        if !path.is_dir() {
            return Err(ReadError::NoFolder(path.to_owned()));
        }
        Ok(Self { root: path.to_owned() })
    }

    /// The hours that have rows, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn hours(&self) -> Result<Vec<Hour>, ReadError> {
        let mut hours = Vec::new();
        for hour in self.listed(i64::MIN..i64::MAX)? {
            let path = self.root.join(hour::folder(hour));
            let files = list(&path).map_err(disk(&path))?;
            let bytes: Vec<u64> =
                files.iter().filter(|file| parse_name(&file.name).is_some()).map(|file| file.bytes).collect();
            if !bytes.is_empty() {
                let start = hour.saturating_mul(HOUR);
                hours.push(Hour { start, files: bytes.len(), bytes: bytes.iter().sum() });
            }
        }
        Ok(hours)
    }

    /// The rows of requests that came at `from` or later and before `to`, in microseconds since 1970 UTC. Every batch has all the
    /// columns that any of the files has, with nulls where a file has none; where a type has changed, the newest holds.
    ///
    /// # Errors
    /// When a file cannot be read. One that cannot be read later is an error among the batches, which go on behind it.
    pub fn rows(&self, from: i64, to: i64) -> Result<LogRows, ReadError> {
        let mut hours = if from < to { self.listed(from..to)? } else { Vec::new() };
        hours.reverse();
        let mut fields: Vec<Field> = Vec::new();
        for &hour in &hours {
            let mut files = self.snapshot(hour)?;
            files.sort_by_key(|opened| std::cmp::Reverse(opened.sequence));
            files.iter().for_each(|opened| add_fields(&mut fields, opened));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(LogRows { reader: self.clone(), times: from..to, schema, hours, files: Vec::new(), open: None })
    }

    /// All rows of a request, those of its repetitions too; none when the log has no such request.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn request(&self, id: &str) -> Result<Option<RecordBatch>, ReadError> {
        let (mut fields, mut found) = (Vec::new(), Vec::new());
        for hour in self.listed(i64::MIN..i64::MAX)?.into_iter().rev() {
            for opened in self.snapshot(hour)?.into_iter().rev() {
                let path = opened.path.clone();
                let malformed = |source| ReadError::Malformed { path: path.clone(), source };
                let candidate = Candidate::new(&opened, id).map_err(malformed)?;
                let Some(candidate) = candidate else { continue };
                let mut batches = candidate.read(&opened).map_err(malformed)?;
                batches.retain(|batch| batch.num_rows() > 0);
                if !batches.is_empty() {
                    add_fields(&mut fields, &opened);
                    found.push((path, batches));
                }
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let schema = Arc::new(Schema::new(fields));
        let mut rows = Vec::new();
        for (path, batches) in found.iter().rev() {
            for batch in batches {
                rows.push(conform(batch, &schema, path)?);
            }
        }
        let build = |source| ReadError::Build { path: self.root.clone(), source };
        concat_batches(&schema, &rows).map(Some).map_err(build)
    }

    /// The hours with a folder that have a part of these times, oldest first.
    fn listed(&self, times: Range<i64>) -> Result<Vec<i64>, ReadError> {
        let listed = list(&self.root).map_err(disk(&self.root))?;
        let first = hour_of(times.start).unwrap_or(i64::MIN);
        let last = hour_of(times.end.saturating_sub(1)).unwrap_or(i64::MAX);
        let hours = listed.iter().filter_map(|listed| hour::parse(&listed.name));
        let mut hours: Vec<i64> = hours.filter(|hour| (first..=last).contains(hour)).collect();
        hours.sort_unstable();
        Ok(hours)
    }

    /// The files of an hour at one moment, without those that others replace, in the order of their numbers.
    ///
    /// A folder that changes while it is listed may show neither a replaced file nor its successor. So it is listed again once
    /// all are open: a change in between shows there, and what is open stays readable.
    fn snapshot(&self, hour: i64) -> Result<Vec<Opened>, ReadError> {
        let path = self.root.join(hour::folder(hour));
        let names = || -> Result<Vec<String>, ReadError> {
            let listed = list(&path).map_err(disk(&path))?.into_iter().map(|listed| listed.name);
            Ok(listed.filter(|name| parse_name(name).is_some()).collect())
        };
        let mut before = names()?;
        for _ in 0..TRIES {
            let files: Result<Vec<_>, io::Error> = before
                .iter()
                .map(|name| File::open(path.join(name)).map(|file| (name.clone(), file)))
                .collect();
            let after = names()?;
            match files {
                Ok(files) if before == after => return current(&path, files),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(&path)(error)),
                _ => before = after,
            }
        }
        Err(ReadError::Changing(path))
    }
}

/// Reads what files say of themselves, and leaves out those that others replace.
fn current(path: &Path, files: Vec<(String, File)>) -> Result<Vec<Opened>, ReadError> {
    let (mut opened, mut replaced) = (Vec::with_capacity(files.len()), Vec::new());
    for (name, file) in files {
        let path = path.join(&name);
        let malformed = |source| ReadError::Malformed { path: path.clone(), source };
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(malformed)?;
        replaced.extend(encode::replaces(metadata.metadata()).map_err(malformed)?);
        let sequence = parse_name(&name).map_or(0, |(_, sequence)| sequence);
        opened.push((name, Opened { path, sequence, file, metadata }));
    }
    let kept = opened.into_iter().filter(|(name, _)| !replaced.contains(name));
    let mut kept: Vec<Opened> = kept.map(|(_, opened)| opened).collect();
    kept.sort_by_key(|opened| opened.sequence);
    Ok(kept)
}

impl LogRows {
    /// The columns of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether a column has digests in the place of values, in any of the files.
    pub fn is_hashed(&self, column: &str) -> bool {
        self.schema.field_with_name(column).is_ok_and(layout::is_hashed)
    }

    /// The columns of an edge that are left out because the setting `drop` names them, in any of the files.
    pub fn dropped(&self, edge: &str) -> BTreeSet<String> {
        let seen = self.schema.field_with_name(&layout::seen_name(edge));
        seen.map(layout::dropped).unwrap_or_default()
    }

    /// Opens the next file; false when there is none.
    fn advance(&mut self) -> Result<bool, ReadError> {
        while self.files.is_empty() {
            let Some(hour) = self.hours.pop() else { return Ok(false) };
            self.files = self.reader.snapshot(hour)?;
            self.files.reverse();
        }
        let Some(opened) = self.files.pop() else { return Ok(false) };
        let Opened { path, file, metadata, .. } = opened;
        let groups = metadata.metadata().row_groups().iter().enumerate();
        let groups = groups.filter(|(_, group)| overlaps(group, &self.times)).map(|(i, _)| i).collect();
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata).with_row_groups(groups);
        let reader = builder.build();
        self.open = Some((path.clone(), reader.map_err(|source| ReadError::Malformed { path, source })?));
        Ok(true)
    }

    /// The rows of a batch that are asked for, in the columns of all.
    fn picked(&self, path: &Path, batch: &RecordBatch) -> Result<RecordBatch, ReadError> {
        let build = |source| ReadError::Build { path: path.to_owned(), source };
        let rows = within(batch, &self.times).map_err(build)?;
        conform(&rows, &self.schema, path)
    }
}

impl Iterator for LogRows {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((path, reader)) = &mut self.open {
                let path = path.clone();
                match reader.next() {
                    None => self.open = None,
                    Some(Err(error)) => {
                        self.open = None;
                        return Some(Err(ReadError::Malformed { path, source: error.into() }));
                    }
                    Some(Ok(batch)) => match self.picked(&path, &batch) {
                        Ok(rows) if rows.num_rows() == 0 => {}
                        picked => return Some(picked),
                    },
                }
                continue;
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Where in a file a request may be.
struct Candidate<'a> {
    id: &'a str,
    /// The leaf with the ids.
    leaf: usize,
    groups: Vec<usize>,
}

impl<'a> Candidate<'a> {
    /// None when the statistics or the filters of the file say that the request is not there.
    fn new(opened: &Opened, id: &'a str) -> Result<Option<Self>, ParquetError> {
        let metadata = opened.metadata.metadata();
        let leaves = metadata.file_metadata().schema_descr().columns();
        let Some(leaf) = leaves.iter().position(|leaf| leaf.path().string() == REQUEST_ID) else {
            return Ok(None);
        };
        let file = opened.file.try_clone()?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, opened.metadata.clone());
        let mut groups = Vec::new();
        for (number, group) in metadata.row_groups().iter().enumerate() {
            // Bounds may be cut off, but then they are lower and higher than the ids.
            let bounds = group.column(leaf).statistics();
            let lowest = bounds.and_then(|bounds| bounds.min_bytes_opt());
            let highest = bounds.and_then(|bounds| bounds.max_bytes_opt());
            let outside = lowest.is_some_and(|lowest| id.as_bytes() < lowest)
                || highest.is_some_and(|highest| id.as_bytes() > highest);
            if !outside {
                let filter = builder.get_row_group_column_bloom_filter(number, leaf)?;
                if filter.is_none_or(|filter| filter.check(id)) {
                    groups.push(number);
                }
            }
        }
        Ok((!groups.is_empty()).then_some(Self { id, leaf, groups }))
    }

    fn read(self, opened: &Opened) -> Result<Vec<RecordBatch>, ParquetError> {
        let file = opened.file.try_clone()?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, opened.metadata.clone());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), [self.leaf]);
        let wanted = StringArray::new_scalar(self.id);
        let is_wanted = ArrowPredicateFn::new(mask, move |batch| cmp::eq(batch.column(0), &wanted));
        let filter = RowFilter::new(vec![Box::new(is_wanted)]);
        let reader = builder.with_row_groups(self.groups).with_row_filter(filter).build()?;
        Ok(reader.collect::<Result<_, ArrowError>>()?)
    }
}

/// Whether a row group may have rows of these times.
fn overlaps(group: &RowGroupMetaData, times: &Range<i64>) -> bool {
    let column = group.columns().iter().find(|column| column.column_path().string() == AT);
    let Some(parquet::file::statistics::Statistics::Int64(bounds)) = column.and_then(|at| at.statistics())
    else {
        return true;
    };
    let too_early = bounds.max_opt().is_some_and(|last| *last < times.start);
    let too_late = bounds.min_opt().is_some_and(|first| *first >= times.end);
    !(too_early || too_late)
}

/// The rows of these times.
fn within(batch: &RecordBatch, times: &Range<i64>) -> Result<RecordBatch, ArrowError> {
    let column =
        batch.column_by_name(AT).filter(|at| at.as_primitive_opt::<TimestampMicrosecondType>().is_some());
    let Some(at) = column else {
        return Err(ArrowError::SchemaError(format!("column `{AT}` is no time in microseconds")));
    };
    let values = at.as_primitive::<TimestampMicrosecondType>();
    if values.null_count() == 0 && values.values().iter().all(|at| times.contains(at)) {
        return Ok(batch.clone());
    }
    let scalar = |time| {
        let zone = match at.data_type() {
            arrow::datatypes::DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        arrow::array::Scalar::new(TimestampMicrosecondArray::from_value(time, 1).with_timezone_opt(zone))
    };
    let keep: BooleanArray = and(&cmp::gt_eq(at, &scalar(times.start))?, &cmp::lt(at, &scalar(times.end))?)?;
    filter_record_batch(batch, &keep)
}

/// Adds the columns of a file that newer ones do not have, and what it says of those that they have too.
fn add_fields(fields: &mut Vec<Field>, opened: &Opened) {
    for field in opened.metadata.schema().fields() {
        match fields.iter_mut().find(|known| known.name() == field.name()) {
            Some(known) => layout::add_marks(known, field),
            None => fields.push(Field::clone(field).with_nullable(true)),
        }
    }
}

/// The same rows with the columns of `schema`.
fn conform(batch: &RecordBatch, schema: &SchemaRef, path: &Path) -> Result<RecordBatch, ReadError> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef, ReadError> {
        let Some(values) = batch.column_by_name(field.name()) else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        if values.data_type() == field.data_type() {
            return Ok(Arc::clone(values));
        }
        // A value that does not fit is an error, no null.
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(values, field.data_type(), &strict).map_err(|_| ReadError::TypeChanged {
            path: path.to_owned(),
            column: field.name().clone(),
            was: values.data_type().clone(),
            is: field.data_type().clone(),
        })
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let build = |source| ReadError::Build { path: path.to_owned(), source };
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(build)
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> ReadError + use<> {
    let path = path.to_owned();
    move |source| ReadError::Disk { path, source }
}
