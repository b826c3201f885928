//! Files whose rows say where they stood in a stream, so that the stream goes on behind them.
//!
//! Such a row counts as the event of the stream that it was: a file of what a stream has sent, and then the stream from its
//! beginning, take each event once. The boundary between them is offsets, not times.

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray, UInt32Array, UInt64Array},
    compute::{cast, concat_batches, take_record_batch},
    datatypes::{DataType, Schema, UInt32Type, UInt64Type},
};

use crate::{
    LoadError, LoadOptions, Positions,
    load::{At, Place, Source},
    set::Column,
};

/// The columns that say it: the source, the partition and the offset of a row.
pub(crate) const PLACE: [&str; 3] = ["_source", "_partition", "_offset"];
const TYPES: [DataType; 3] = [DataType::Utf8, DataType::UInt32, DataType::UInt64];

/// Rows of a file that look whether it has the columns.
const LOOKED_AT: u64 = 1000;

/// Takes the rows of one partition, where they stand in the stream, and in the file.
pub(super) type Put<'a> = dyn FnMut(RecordBatch, Positions, &[At]) -> Result<(), LoadError> + 'a;

/// Rows of a file on their way, partition by partition.
pub(super) struct Backfill<'a> {
    source: &'a Source,
    partitions: BTreeMap<(String, u32), Held>,
}

/// Rows of the last offset of a partition. More of the same event may follow, which must be in the same write.
#[derive(Default)]
struct Held {
    rows: Vec<RecordBatch>,
    places: Vec<At>,
    offset: u64,
}

impl<'a> Backfill<'a> {
    /// The columns to read beside `wanted`, if the file has them; those of a set are its own.
    ///
    /// # Errors
    /// When the file cannot be read, or has but one of `_source` and `_offset`.
    pub(super) fn columns(source: &Source, schema: &Schema) -> Result<Option<Vec<Column>>, LoadError> {
        let found = source.columns(&LoadOptions { infer_rows: LOOKED_AT, ..LoadOptions::default() })?;
        let has = |name: &str| {
            schema.column_with_name(name).is_none() && found.iter().any(|(column, _)| column == name)
        };
        match (has("_source"), has("_offset")) {
            (false, false) => Ok(None),
            (true, true) => {
                let there = PLACE.into_iter().zip(TYPES).filter(|(name, _)| has(name));
                Ok(Some(there.map(|(name, data_type)| Column { name: name.to_owned(), data_type }).collect()))
            }
            _ => {
                let problem = "`_source` and `_offset` come together, `_partition` with them".to_owned();
                Err(LoadError::Columns { file: source.name().to_owned(), problems: vec![problem] })
            }
        }
    }

    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, partitions: BTreeMap::new() }
    }

    /// Hands on what a batch completes.
    pub(super) fn add(
        &mut self,
        batch: &RecordBatch,
        place: &dyn Fn(usize) -> At,
        put: &mut Put<'_>,
    ) -> Result<(), LoadError> {
        let rows = self.rows(batch, place)?;
        for (partition, rows) in rows {
            let held = self.partitions.entry(partition.clone()).or_default();
            let Some(&(_, last)) = rows.last() else { continue };
            let cut = rows.partition_point(|&(_, offset)| offset < last);
            let take = |rows: &[(u32, u64)]| {
                let indices: UInt32Array = rows.iter().map(|&(row, _)| row).collect();
                take_record_batch(batch, &indices).map_err(|error| self.source.malformed(At::File, error))
            };
            let places =
                |rows: &[(u32, u64)]| rows.iter().map(|&(row, _)| place(row as usize)).collect::<Vec<_>>();
            let (done, tail) = rows.split_at(cut);
            if last > held.offset || held.rows.is_empty() {
                let mut offsets = vec![held.offset; held.places.len()];
                offsets.extend(done.iter().map(|&(_, offset)| offset));
                held.rows.push(take(done)?);
                held.places.extend(places(done));
                flush(self.source, &partition, held, offsets, put)?;
                held.offset = last;
            }
            held.rows.push(take(tail)?);
            held.places.extend(places(tail));
        }
        Ok(())
    }

    /// Hands on the rest.
    pub(super) fn finish(mut self, put: &mut Put<'_>) -> Result<(), LoadError> {
        for (partition, held) in &mut self.partitions {
            let offsets = vec![held.offset; held.places.len()];
            flush(self.source, partition, held, offsets, put)?;
        }
        Ok(())
    }

    /// The rows of each partition, with their offsets.
    fn rows(
        &self,
        batch: &RecordBatch,
        place: &dyn Fn(usize) -> At,
    ) -> Result<BTreeMap<(String, u32), Vec<(u32, u64)>>, LoadError> {
        let column = |at: usize| {
            let (name, data_type) = (PLACE[at], TYPES[at].clone());
            batch.column_by_name(name).map(|found| {
                cast(found, &data_type).map_err(|_| {
                    self.source.malformed(At::File, format!("column `{name}` is {}", found.data_type()))
                })
            })
        };
        let (sources, partitions, offsets) =
            (column(0).transpose()?, column(1).transpose()?, column(2).transpose()?);
        let (Some(sources), Some(offsets)) = (sources, offsets) else { return Ok(BTreeMap::new()) };
        let (sources, offsets): (&StringArray, &UInt64Array) =
            (sources.as_string(), offsets.as_primitive::<UInt64Type>());
        let partitions = partitions.as_ref().map(|partitions| partitions.as_primitive::<UInt32Type>());
        let mut rows: BTreeMap<(String, u32), Vec<(u32, u64)>> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let wrong = |problem: String| LoadError::Malformed {
                place: Place { file: self.source.name().to_owned(), at: place(row) },
                problem,
            };
            let partition = partitions.map_or(Some(0), |of| of.is_valid(row).then(|| of.value(row)));
            let (Some(partition), true, true) = (partition, sources.is_valid(row), offsets.is_valid(row))
            else {
                return Err(wrong("`_source`, `_partition` or `_offset` is null or out of range".to_owned()));
            };
            let (source, offset) = (sources.value(row), offsets.value(row));
            let key = (source.to_owned(), partition);
            let before = rows.get(&key).and_then(|rows| rows.last()).map(|&(_, offset)| offset);
            let before = before.or_else(|| self.partitions.get(&key).map(|held| held.offset));
            if before.is_some_and(|before| offset < before) {
                return Err(wrong(format!(
                    "offset {offset} of partition {partition} of {source} stands behind {}; sort the file by `_offset`",
                    before.unwrap_or_default()
                )));
            }
            rows.entry(key).or_default().push((row as u32, offset));
        }
        Ok(rows)
    }
}

fn flush(
    source: &Source,
    (name, partition): &(String, u32),
    held: &mut Held,
    offsets: Vec<u64>,
    put: &mut Put<'_>,
) -> Result<(), LoadError> {
    let (rows, places) = (std::mem::take(&mut held.rows), std::mem::take(&mut held.places));
    let Some(first) = rows.first().filter(|_| !places.is_empty()) else { return Ok(()) };
    let rows = concat_batches(&first.schema(), &rows).map_err(|error| source.malformed(At::File, error))?;
    put(rows, Positions::new(name, *partition, offsets), &places)
}
