//! Each key of a batch once: for stores outside the process, where a key costs more than telling it from others.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array},
    compute::{TakeOptions, take},
    datatypes::Int64Type,
    error::ArrowError,
};
use smallvec::SmallVec;

use crate::{
    Fault, Found, Selection,
    key::{Given, KeyBytes, KeyKind, encode},
    store::{LookupError, OnlineTable, Read},
};

/// The distinct keys of a batch, and which of them each row carries.
pub(crate) struct Distinct {
    first: UInt32Array,
    of: UInt32Array,
}

impl Distinct {
    /// `None` when no two rows carry the same key.
    pub(crate) fn of(columns: &[ArrayRef], kinds: &[KeyKind]) -> Result<Option<Self>, LookupError> {
        let rows = columns.first().map_or(0, |column| column.len());
        if rows < 2 {
            return Ok(None);
        }
        let mut numbers: HashMap<Given<KeyBytes>, u32> = HashMap::with_capacity(rows);
        let (mut first, mut of) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let columns: SmallVec<[&ArrayRef; 2]> = columns.iter().collect();
        encode(&columns, kinds, |row, given| {
            let key = match given {
                Given::Key(bytes) => Given::Key(KeyBytes::from_slice(bytes)),
                Given::Null => Given::Null,
                Given::Never => Given::Never,
            };
            of.push(match numbers.entry(key) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    first.push(row as u32);
                    *new.insert(first.len() as u32 - 1)
                }
            });
        })?;
        let distinct = first.len() < rows;
        Ok(distinct.then(|| Self { first: first.into(), of: of.into() }))
    }

    /// Of columns of the batch, the first row of each distinct key.
    pub(crate) fn keys(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ArrowError> {
        columns.iter().map(|column| take(column, &self.first, None)).collect()
    }

    /// What was found for the distinct keys, as the answer for every row of the batch.
    pub(crate) fn spread(&self, found: &Found) -> Result<Found, ArrowError> {
        // A store may have answered for too few keys.
        let checked = || Some(TakeOptions { check_bounds: true });
        let columns = found.columns.iter().map(|column| take(column, &self.of, checked()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let rows = || (0..).zip(self.of.values());
        let of = |keys: &[u32]| {
            let rows = rows().filter(|(_, key)| keys.binary_search(key).is_ok());
            rows.map(|(row, _)| row).collect::<Vec<u32>>()
        };
        let fault = |key: &u32| found.faults.binary_search_by_key(key, |fault| fault.row).ok();
        let faults = rows().filter_map(|(row, key)| Some(Fault { row, ..found.faults[fault(key)?] }));
        let (missing, stale) = (of(&found.missing).into(), of(&found.stale).into());
        let events = found.events.as_ref().map(|events| take(events, &self.of, checked())).transpose()?;
        let events = events.map(|events| events.as_primitive::<Int64Type>().clone());
        Ok(Found { columns, missing, stale, faults: faults.collect(), events })
    }
}

/// The time for which a table is asked.
pub(crate) enum When {
    /// As the table's clock has it.
    Now,
    At(i64),
    /// Each row for its own.
    Each(Int64Array),
}

/// Reads a table outside the process, each key at each time once; `keys` are the key columns alone, of these kinds.
pub(crate) async fn fetch(
    table: &dyn OnlineTable,
    keys: RecordBatch,
    kinds: &[KeyKind],
    selection: &Selection,
    when: When,
) -> Result<Found, LookupError> {
    let broken = |error: ArrowError| LookupError::Unavailable(Box::new(error));
    let (mut columns, mut kinds) = (keys.columns().to_vec(), kinds.to_vec());
    if let When::Each(times) = &when {
        columns.push(Arc::new(times.clone()));
        kinds.push(KeyKind::Signed);
    }
    let distinct = Distinct::of(&columns, &kinds)?;
    if let Some(distinct) = &distinct {
        columns = distinct.keys(&columns).map_err(broken)?;
    }
    let times = if matches!(when, When::Each(_)) { columns.pop() } else { None };
    let asked = RecordBatch::try_new(keys.schema(), columns).map_err(broken)?;
    let read = match (&times, when) {
        (Some(times), _) => table.read_each(&asked, selection, times.as_primitive()),
        (None, When::At(at)) => table.read_at(&asked, selection, at),
        (None, _) => table.read(&asked, selection),
    };
    let found = match read {
        Read::Ready(found) => found?,
        Read::Waits(found) => found.await?,
    };
    match distinct {
        None => Ok(found),
        Some(distinct) => distinct.spread(&found).map_err(broken),
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn a_key_that_is_stale_is_stale_in_every_row_that_carries_it() {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![5, 6, 5, 7, 6]));
        let distinct = Distinct::of(&[keys], &[KeyKind::Signed]).unwrap().unwrap();
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(50), None, None]));
        let found = Found {
            columns: vec![values],
            missing: smallvec![1, 2],
            stale: smallvec![1],
            faults: smallvec![],
            events: Some(Int64Array::from(vec![Some(1), Some(2), None])),
        };
        let spread = distinct.spread(&found).unwrap();
        assert_eq!(spread.stale.as_slice(), [1, 4]);
        assert_eq!(spread.missing.as_slice(), [1, 3, 4]);
        assert_eq!(spread.events, Some(Int64Array::from(vec![Some(1), Some(2), Some(1), None, Some(2)])));
        let column = spread.columns[0].as_primitive::<Int64Type>();
        assert_eq!(column.iter().collect::<Vec<_>>(), [Some(50), None, Some(50), None, None]);
    }
}
