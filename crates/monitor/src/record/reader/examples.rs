//! Rows that show what values of a column are like.

use std::ops::Range;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::UInt32Type,
};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use serde_json::Value;

use super::{Opened, Reader, overlaps, within};
use crate::{
    record::{
        ReadError, Recorder,
        layout::{self, AT, REQUEST_ID},
    },
    values,
};

/// Files that are looked into, and bytes of their columns that are decoded, as they lie on disk: whoever looks for examples has other
/// things to do.
const FILES: usize = 8;
const BYTES: u64 = 8 << 20;
/// A request whose id has more bytes is no example.
const MAX_ID: usize = 256;
/// The column that says which row of its request a row is.
const ROW: &str = "row";

/// Values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Numbers from the first on that are less than the second.
    Between(f64, f64),
    /// A category.
    Category(String),
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The caller's name for the request.
    pub request_id: String,
    /// Which row of the request.
    pub row: u32,
    /// What the column has there, a number or a text.
    pub value: Value,
}

impl Recorder {
    /// Up to `most` rows of requests that came in `times` and have one of the `values` in a column of an edge: the first of them as
    /// far as there are rows, then the next, each in different requests.
    ///
    /// Only what is on disk is found, in the newest files, up to a bound. Of a column that is hashed or left out there is nothing,
    /// whether the settings say so or a file.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn examples(
        &self,
        (edge, column): (&str, &str),
        times: Range<i64>,
        values: &[Values],
        most: usize,
    ) -> Result<Vec<Example>, ReadError> {
        let column = format!("{edge}__{column}");
        let plain = self.schema().field_with_name(&column).is_ok_and(|field| !layout::is_hashed(field));
        if !plain || !self.folder().is_dir() {
            return Ok(Vec::new());
        }
        let asked = Asked { column: &column, times };
        let found = Found { values, most, of: vec![Vec::new(); values.len()] };
        Reader::open(self.folder())?.examples(&asked, found)
    }
}

impl Reader {
    fn examples(&self, asked: &Asked<'_>, mut found: Found<'_>) -> Result<Vec<Example>, ReadError> {
        let (mut files, mut bytes) = (FILES, BYTES);
        for hour in self.listed(asked.times.clone())?.into_iter().rev() {
            for opened in self.snapshot(hour)?.into_iter().rev() {
                if files == 0 || bytes == 0 || found.is_enough() {
                    return Ok(found.told());
                }
                files -= 1;
                let read = asked.read(&opened, &mut bytes, &mut found);
                read.map_err(|source| ReadError::Malformed { path: opened.path.clone(), source })?;
            }
        }
        Ok(found.told())
    }
}

/// What is asked of a file.
struct Asked<'a> {
    column: &'a str,
    times: Range<i64>,
}

impl Asked<'_> {
    /// Looks into a file, the newest rows first, as far as there is room for its bytes. No room remains when that was too little.
    fn read(&self, opened: &Opened, room: &mut u64, found: &mut Found<'_>) -> Result<(), ParquetError> {
        let (schema, metadata) = (opened.metadata.schema(), opened.metadata.metadata());
        if !schema.field_with_name(self.column).is_ok_and(|field| !layout::is_hashed(field)) {
            return Ok(());
        }
        let is_read = |name: &str| [REQUEST_ID, AT, ROW, self.column].contains(&name);
        let roots = schema.fields().iter().enumerate().filter(|(_, field)| is_read(field.name()));
        let roots: Vec<usize> = roots.map(|(at, _)| at).collect();
        let mask = ProjectionMask::roots(metadata.file_metadata().schema_descr(), roots);
        for (number, group) in metadata.row_groups().iter().enumerate().rev() {
            if found.is_enough() {
                return Ok(());
            }
            if !overlaps(group, &self.times) {
                continue;
            }
            let of_root = |parts: &[String]| parts.first().is_some_and(|root| is_read(root));
            let read = group.columns().iter().filter(|column| of_root(column.column_path().parts()));
            let bytes: u64 = read.map(|column| column.compressed_size().unsigned_abs()).sum();
            let left = room.checked_sub(bytes);
            *room = left.unwrap_or(0);
            if left.is_none() {
                return Ok(());
            }
            let file = opened.file.try_clone()?;
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, opened.metadata.clone());
            for batch in builder.with_projection(mask.clone()).with_row_groups(vec![number]).build()? {
                found.look(&within(&batch?, &self.times)?, self.column);
                if found.is_enough() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The examples so far.
struct Found<'v> {
    values: &'v [Values],
    most: usize,
    /// Of each of the values.
    of: Vec<Vec<Example>>,
}

impl Found<'_> {
    fn look(&mut self, rows: &RecordBatch, column: &str) {
        let ids = rows.column_by_name(REQUEST_ID).and_then(|ids| ids.as_string_opt::<i32>());
        let places = rows.column_by_name(ROW).and_then(|places| places.as_primitive_opt::<UInt32Type>());
        let (Some(ids), Some(places), Some(array)) = (ids, places, rows.column_by_name(column)) else {
            return;
        };
        let wanted = self.values;
        let mut add = |row: usize, of: usize, value: Value| {
            if !ids.is_valid(row) || ids.value(row).len() > MAX_ID {
                return;
            }
            let (id, Some(known)) = (ids.value(row), self.of.get_mut(of)) else { return };
            if known.len() < self.most && known.iter().all(|known| known.request_id != id) {
                known.push(Example { request_id: id.to_owned(), row: places.value(row), value });
            }
        };
        // Read as they are counted. Only columns of one of the two kinds have any of the values.
        if wanted.iter().any(|wanted| matches!(wanted, Values::Between(..))) {
            values::numbers(array, &mut |row, value| {
                let is_between = |from: f64, to: f64| value.is_finite() && from <= value && value < to;
                let has =
                    |wanted: &Values| matches!(wanted, Values::Between(from, to) if is_between(*from, *to));
                if let Some(of) = wanted.iter().position(has) {
                    add(row, of, value.into());
                }
            });
        }
        if wanted.iter().any(|wanted| matches!(wanted, Values::Category(_))) {
            values::labels(array, &mut |row, value| {
                let Some(value) = value else { return };
                let has = |wanted: &Values| matches!(wanted, Values::Category(name) if name == value);
                if let Some(of) = wanted.iter().position(has) {
                    add(row, of, value.into());
                }
            });
        }
    }

    /// Whether there are as many of the first values as are told.
    fn is_enough(&self) -> bool {
        self.of.first().is_none_or(|first| first.len() >= self.most)
    }

    fn told(self) -> Vec<Example> {
        self.of.into_iter().flatten().take(self.most).collect()
    }
}
