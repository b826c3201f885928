//! The part of a log that a join holds, and the features it adds to the rows of a spine.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, Scalar, UInt32Array, new_null_array},
    compute::{filter_record_batch, interleave, is_null, kernels::zip::zip},
    datatypes::SchemaRef,
};
use datafusion::common::{DataFusionError, Result};

use super::{
    join::{LogBatch, LogRows},
    operator::{Fill, Lookup, LookupEvents, LookupFeature, Origin, cast, external},
};
use crate::Prepared;

/// A partition of a log: what the join asks of it, and the features.
pub(super) struct Held {
    pub(super) rows: LogRows,
    /// By feature of the log's, the column of each batch; the last one is a null, for rows that are not there.
    columns: Vec<Vec<ArrayRef>>,
    /// The rows as events, if a feature is a window.
    pub(super) events: Prepared,
    /// The number of each batch's first row.
    starts: Vec<u32>,
}

impl Held {
    pub(super) fn new(lookup: &Lookup) -> Result<Self> {
        let types: Vec<_> = lookup.keys.iter().map(|key| key.data_type.clone()).collect();
        let columns = lookup.features.iter().map(|feature| vec![new_null_array(&feature.data_type, 1)]);
        Ok(Self {
            rows: LogRows::new(&types).map_err(external)?,
            columns: columns.collect(),
            events: Prepared::default(),
            starts: Vec::new(),
        })
    }

    /// Adds rows; the bytes they take.
    pub(super) fn push(&mut self, lookup: &Lookup, batch: &RecordBatch) -> Result<usize> {
        let Some(events) = &lookup.events else {
            self.add(lookup, batch)?;
            return Ok(batch.get_array_memory_size());
        };
        let (kept, prepared) = events.prepare(batch)?;
        let bytes = prepared.bytes() + self.add(lookup, &kept)?;
        self.events.append(prepared);
        Ok(bytes)
    }

    /// Adds the keys, times and features of rows; the bytes of the keys and features.
    fn add(&mut self, lookup: &Lookup, batch: &RecordBatch) -> Result<usize> {
        let keys = lookup.keys.iter().map(|key| cast(batch.column(key.log), &key.data_type, true));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let mut bytes = keys.iter().map(|key| key.get_array_memory_size()).sum();
        let column = |at: Option<usize>| at.map(|at| batch.column(at));
        // Rows of a set without event times were always there.
        let always: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN; batch.num_rows()]));
        self.starts.push(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        let part = LogBatch {
            keys: &keys,
            event: column(lookup.event).unwrap_or(&always),
            created: column(lookup.created),
            sequence: column(lookup.sequence),
            valid_to: column(lookup.valid_to),
        };
        self.rows.push(&part).map_err(external)?;
        for (feature, columns) in lookup.features.iter().zip(&mut self.columns) {
            let Origin::Log(at) = feature.origin else { continue };
            let column = cast(batch.column(at), &feature.data_type, false)?;
            bytes += column.get_array_memory_size();
            let nothing = columns.len() - 1;
            columns.insert(nothing, column);
        }
        Ok(bytes)
    }

    /// The spine's rows with their features.
    pub(super) fn answer(
        &self,
        lookup: &Lookup,
        schema: &SchemaRef,
        batch: &RecordBatch,
        answers: &Answers<'_>,
    ) -> Result<RecordBatch> {
        let place = |row: Option<u32>| match row {
            None => (self.starts.len(), 0),
            Some(row) => {
                let part = self.starts.partition_point(|&start| start <= row) - 1;
                (part, (row - self.starts[part]) as usize)
            }
        };
        let places: Vec<_> = answers.rows.iter().map(place).collect();
        let no_row = is_null(answers.rows)?;
        let mut windows = answers.windows.iter();
        let mut columns = batch.columns().to_vec();
        for (feature, parts) in lookup.features.iter().zip(&self.columns) {
            let (column, missing) = match (feature.origin, &answers.unknown) {
                (Origin::Window(_), Some(unknown)) => (windows.next().map(Arc::clone), unknown),
                _ => {
                    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                    (Some(interleave(&parts, &places)?), &no_row)
                }
            };
            let column = column.unwrap_or_else(|| new_null_array(&feature.data_type, batch.num_rows()));
            columns.push(lookup.with_gaps_filled(feature, batch, column, missing)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// What was found for the rows of a batch.
pub(super) struct Answers<'a> {
    /// The log's rows.
    rows: &'a UInt32Array,
    /// The features that are windows, in their order, and for which rows there are none.
    windows: Vec<ArrayRef>,
    unknown: Option<BooleanArray>,
}

impl<'a> Answers<'a> {
    /// Rows of the log, of which no feature is a window.
    pub(super) fn rows(rows: &'a UInt32Array) -> Self {
        Self { rows, windows: Vec::new(), unknown: None }
    }

    /// Rows of the log, and windows beside them.
    pub(super) fn events(rows: &'a UInt32Array, windows: Vec<ArrayRef>, unknown: BooleanArray) -> Self {
        Self { rows, windows, unknown: Some(unknown) }
    }
}

impl LookupEvents {
    /// Rows of the log as events, and those rows of which that could be said: one of which a `where` says nothing would not have
    /// been taken.
    pub(super) fn prepare(&self, batch: &RecordBatch) -> Result<(RecordBatch, Prepared)> {
        let mut refused = vec![false; batch.num_rows()];
        let prepare = |batch: &RecordBatch, refuse: &mut dyn FnMut(usize)| {
            let fields = self.schema.fields().iter().zip(&self.columns);
            let columns = fields.map(|(field, &at)| cast(batch.column(at), field.data_type(), false));
            let events = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?)?;
            self.windows.prepare_each(&events, |row, _| refuse(row)).map_err(external)
        };
        let prepared = prepare(batch, &mut |row| refused[row] = true)?;
        if !refused.contains(&true) {
            return Ok((batch.clone(), prepared));
        }
        let kept: Vec<bool> = refused.iter().map(|refused| !refused).collect();
        let kept = filter_record_batch(batch, &kept.into())?;
        let prepared = prepare(&kept, &mut |_| ())?;
        Ok((kept, prepared))
    }
}

impl Lookup {
    /// A feature's column, with what stands for rows that are missing and for nulls.
    fn with_gaps_filled(
        &self,
        feature: &LookupFeature,
        batch: &RecordBatch,
        column: ArrayRef,
        missing: &BooleanArray,
    ) -> Result<ArrayRef> {
        let absent = is_null(&column)?;
        let null = BooleanArray::new(absent.values() & &!missing.values(), None);
        let fault = |row, problem: &str| self.fault(batch, row, problem);
        let column = filled(column, missing, &feature.missing, |row| fault(row, "no row"))?;
        filled(column, &null, &feature.null, |row| {
            fault(row, &format!("feature `{}` is null", feature.column))
        })
    }
}

/// A column with `fill` where `gaps` says so.
fn filled(
    column: ArrayRef,
    gaps: &BooleanArray,
    fill: &Fill,
    fault: impl FnOnce(usize) -> DataFusionError,
) -> Result<ArrayRef> {
    match (fill, gaps.values().set_indices().next()) {
        (Fill::Null, _) | (_, None) => Ok(column),
        (Fill::Fail, Some(row)) => Err(fault(row)),
        (Fill::Value(value), Some(_)) => Ok(zip(gaps, &Scalar::new(Arc::clone(value)), &column)?),
    }
}
