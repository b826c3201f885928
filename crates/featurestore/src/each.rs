//! A lookup in which every row has a time of its own, of a table that is asked for one time at once.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray, Int64Array, RecordBatch, UInt32Array, new_null_array},
    compute::{concat, take, take_record_batch},
    datatypes::{Field, Schema},
    error::ArrowError,
};
use smallvec::SmallVec;

use crate::{Fault, Found, LookupError, OnlineTable, Read, Selection};

/// Asks once for each time there is. A row without a time finds nothing, as a null key does.
pub(crate) async fn read_each<T: OnlineTable + ?Sized>(
    table: &T,
    batch: RecordBatch,
    selection: &Selection,
    times: &Int64Array,
) -> Result<Found, LookupError> {
    let mut groups: BTreeMap<Option<i64>, Vec<u32>> = BTreeMap::new();
    for (row, time) in times.iter().enumerate() {
        groups.entry(time).or_default().push(row as u32);
    }
    if groups.len() < 2 {
        let at = groups.into_keys().next().unwrap_or(Some(0));
        return read_one(table, &batch, selection, at).await;
    }
    let mut parts = Vec::with_capacity(groups.len());
    for (at, rows) in groups {
        let rows = UInt32Array::from(rows);
        let asked = take_record_batch(&batch, &rows).map_err(broken)?;
        parts.push((read_one(table, &asked, selection, at).await?, rows));
    }
    together(&parts, batch.num_rows()).map_err(broken)
}

async fn read_one<T: OnlineTable + ?Sized>(
    table: &T,
    batch: &RecordBatch,
    selection: &Selection,
    at: Option<i64>,
) -> Result<Found, LookupError> {
    let read = match at {
        Some(at) => table.read_at(batch, selection, at),
        None => table.read_at(&without_keys(batch, selection).map_err(broken)?, selection, 0),
    };
    match read {
        Read::Ready(found) => found,
        Read::Waits(found) => found.await,
    }
}

/// The same rows with null keys.
fn without_keys(batch: &RecordBatch, selection: &Selection) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<Field> =
        batch.schema_ref().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns = batch.columns().to_vec();
    for &key in selection.key_places() {
        fields[key] = fields[key].clone().with_nullable(true);
        columns[key] = new_null_array(fields[key].data_type(), batch.num_rows());
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// The answers of parts of a batch, each with the rows it is for, as the answer for the whole.
fn together(parts: &[(Found, UInt32Array)], rows: usize) -> Result<Found, ArrowError> {
    let mut places = vec![0; rows];
    let order = parts.iter().flat_map(|(_, rows)| rows.values());
    order.zip(0_u32..).for_each(|(&row, place)| places[row as usize] = place);
    let places = UInt32Array::from(places);
    let picks = parts.first().map_or(0, |(found, _)| found.columns.len());
    let column = |pick: usize| {
        let columns: Vec<&dyn Array> = parts.iter().map(|(found, _)| found.columns[pick].as_ref()).collect();
        take(&concat(&columns)?, &places, None)
    };
    let columns = (0..picks).map(column).collect::<Result<_, _>>()?;
    let mut missing: SmallVec<[u32; 8]> = SmallVec::new();
    let mut stale: SmallVec<[u32; 4]> = SmallVec::new();
    let mut faults: SmallVec<[Fault; 1]> = SmallVec::new();
    for (found, rows) in parts {
        let row = |row: u32| rows.value(row as usize);
        missing.extend(found.missing.iter().map(|&at| row(at)));
        stale.extend(found.stale.iter().map(|&at| row(at)));
        faults.extend(found.faults.iter().map(|fault| Fault { row: row(fault.row), ..*fault }));
    }
    missing.sort_unstable();
    stale.sort_unstable();
    faults.sort_by_key(|fault| fault.row);
    let events: Option<Vec<&dyn Array>> =
        parts.iter().map(|(found, _)| found.events.as_ref().map(|events| events as &dyn Array)).collect();
    let events = events.filter(|events| !events.is_empty());
    let events = events.map(|events| take(&concat(&events)?, &places, None)).transpose()?;
    let events = events.map(|events| events.as_primitive().clone());
    Ok(Found { columns, missing, stale, faults, events })
}

fn broken(error: ArrowError) -> LookupError {
    LookupError::Unavailable(Box::new(error))
}
