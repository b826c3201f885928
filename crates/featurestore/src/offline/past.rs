//! A set's rows of all times as an online table: every lookup finds what was true and known at its time.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, UInt32Array},
    datatypes::Schema,
};
use datafusion::{
    common::{DataFusionError, Result as DataFusionResult},
    execution::memory_pool::{MemoryConsumer, MemoryReservation},
    physical_plan::execute_stream,
};
use futures_util::TryStreamExt;

use super::{
    HistoryError, JoinError, LogBatch, LogRows, OfflineSet, OfflineStore, PointInTime, Times,
    join::Swept,
    operator::{LookupEvents, cast, external},
};
use crate::{
    Column, FeatureSet, Found, LookupError, OnlineTable, Prepared, Profile, ProfileError, Read, Selection,
    Values,
    gather::gather,
    layout::Layout,
    online::local::reading::{Counters, Reading},
    packed::PackedRows,
    profile::Tally,
};

/// The rows of a set of all times, in memory, read by key and time. Answers what the online store answered at that time, to the
/// bit: rows are held and gathered in the same form, and events become windows by the same code.
///
/// In a set with windows every lookup passes over the events of its keys once, so many rows together cost less than each alone.
#[derive(Debug)]
pub struct PastTable {
    set: Arc<FeatureSet>,
    /// Their own features.
    rows: PackedRows,
    join: Join,
    /// What its memory takes of the store's, given back with it.
    _memory: MemoryReservation,
}

impl OfflineStore {
    /// The rows of a set, to be read by key and time; `None` when there is no such set. They are held in memory, on account of
    /// [`OfflineLimits::memory`](super::OfflineLimits::memory).
    ///
    /// # Errors
    /// When the rows cannot be read or take more memory than there is.
    pub async fn past(&self, set: &str) -> Result<Option<PastTable>, HistoryError> {
        let Some(set) = self.sets.get(set) else { return Ok(None) };
        let session = self.session(1)?;
        let name = format!("rows of feature set `{}`", set.name);
        let memory = MemoryConsumer::new(name).register(session.task_ctx().memory_pool());
        let schema = set.rows.schema();
        let columns = Columns::of(set, &schema)?;
        let plan = set.rows.scan(&session.state(), Some(&columns.read), &[], None).await?;
        let mut batches = execute_stream(plan, session.task_ctx())?;
        let mut building = Building::new(set)?;
        while let Some(batch) = batches.try_next().await? {
            building.push(set, &columns, &batch)?;
            memory.try_resize(building.bytes())?;
        }
        let Building { mut rows, log, events, .. } = building;
        rows.shrink();
        let join = Join::of(set, log, events)?;
        memory.try_resize(rows.bytes() + join.bytes())?;
        Ok(Some(PastTable { set: definition(set)?, rows, join, _memory: memory }))
    }
}

/// How rows are found.
#[derive(Debug)]
enum Join {
    Rows(Box<PointInTime>),
    /// Rows are events, which are read as windows too.
    Events(Box<Swept>, Prepared),
}

impl Join {
    fn of(set: &OfflineSet, log: LogRows, events: Prepared) -> Result<Self, HistoryError> {
        let failed = |error| HistoryError::from(external(error));
        Ok(match &set.events {
            None => Self::Rows(Box::new(PointInTime::new(log, set.as_of).map_err(failed)?)),
            Some(_) => Self::Events(Box::new(Swept::new(log, set.as_of).map_err(failed)?), events),
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Rows(join) => join.bytes(),
            Self::Events(swept, events) => swept.bytes() + events.bytes(),
        }
    }
}

/// The set as readers know it.
fn definition(set: &OfflineSet) -> Result<Arc<FeatureSet>, HistoryError> {
    if let Some(events) = &set.events {
        return Ok(Arc::clone(&events.set));
    }
    let mut builder = FeatureSet::builder(&set.name);
    for Column { name, data_type } in &set.keys {
        builder = builder.key(name, data_type.clone());
    }
    for Column { name, data_type } in &set.features {
        builder = builder.feature(name, data_type.clone());
    }
    let made = builder.build().map_err(|error| HistoryError::Vector { problems: error.problems })?;
    Ok(Arc::new(made))
}

/// Which columns of a table are read, and where the batches have what of a set.
struct Columns {
    read: Vec<usize>,
    keys: Vec<usize>,
    /// Of its own features.
    features: Vec<usize>,
    events: Option<LookupEvents>,
    event: Option<usize>,
    created: Option<usize>,
    sequence: Option<usize>,
    valid_to: Option<usize>,
}

impl Columns {
    fn of(set: &OfflineSet, schema: &Schema) -> DataFusionResult<Self> {
        let mut read: Vec<usize> = Vec::new();
        let mut place = |name: &String| {
            let column = schema.index_of(name)?;
            let known = read.iter().position(|read| *read == column);
            Ok(known.unwrap_or_else(|| {
                read.push(column);
                read.len() - 1
            }))
        };
        let mut all = |columns: &[Column]| -> DataFusionResult<Vec<usize>> {
            columns.iter().map(|column| place(&column.name)).collect()
        };
        let (keys, features) = (all(&set.keys)?, all(&set.features[..set.own])?);
        let events = set.events.as_ref().map(|events| events.lookup(&mut place));
        let events = events.transpose()?;
        let mut optional = |name: &Option<String>| name.as_ref().map(&mut place).transpose();
        let (event, created) = (optional(&set.event)?, optional(&set.created)?);
        let (sequence, valid_to) = (optional(&set.sequence)?, optional(&set.valid_to)?);
        Ok(Self { read, keys, features, events, event, created, sequence, valid_to })
    }
}

/// The rows read so far.
struct Building {
    layout: Layout,
    rows: PackedRows,
    log: LogRows,
    events: Prepared,
}

impl Building {
    fn new(set: &OfflineSet) -> DataFusionResult<Self> {
        let layout = Layout::of(&set.features[..set.own]);
        let keys: Vec<_> = set.keys.iter().map(|key| key.data_type.clone()).collect();
        let log = LogRows::new(&keys).map_err(external)?;
        Ok(Self { rows: PackedRows::new(&layout), layout, log, events: Prepared::default() })
    }

    fn push(&mut self, set: &OfflineSet, columns: &Columns, batch: &RecordBatch) -> DataFusionResult<()> {
        let kept = match &columns.events {
            None => batch.clone(),
            Some(events) => {
                let (kept, prepared) = events.prepare(batch)?;
                self.events.append(prepared);
                kept
            }
        };
        let batch = &kept;
        let fitted = |column: &Column, at: usize| cast(batch.column(at), &column.data_type, false);
        let keys = set.keys.iter().zip(&columns.keys).map(|(key, &at)| fitted(key, at));
        let keys = keys.collect::<DataFusionResult<Vec<_>>>()?;
        let column = |at: Option<usize>| at.map(|at| batch.column(at));
        // Rows of a set without event times were always there.
        let always: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN; batch.num_rows()]));
        let first = self.log.len() as u32;
        self.log
            .push(&LogBatch {
                keys: &keys,
                event: column(columns.event).unwrap_or(&always),
                created: column(columns.created),
                sequence: column(columns.sequence),
                valid_to: column(columns.valid_to),
            })
            .map_err(external)?;
        self.rows.grow(batch.num_rows());
        let slots: Vec<u32> = (first..self.log.len() as u32).collect();
        for (number, (feature, &at)) in set.features.iter().zip(&columns.features).enumerate() {
            let values = fitted(feature, at)?;
            self.rows.write(self.layout.place(number), &values, &slots).map_err(|_| {
                let problem = format!("feature `{}` has more text than a table holds", feature.name);
                DataFusionError::ResourcesExhausted(problem)
            })?;
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.log.bytes() + self.events.bytes()
    }
}

impl PastTable {
    fn find(
        &self,
        batch: &RecordBatch,
        selection: &Selection,
        times: &Int64Array,
    ) -> Result<Found, LookupError> {
        let failed = |error| match error {
            JoinError::Lookup(error) => error,
            other => LookupError::Unavailable(Box::new(other)),
        };
        let times: ArrayRef = Arc::new(times.clone());
        let times = Times::of(&times).map_err(failed)?;
        let keys = selection.key_columns(batch)?;
        let (swept, events) = match &self.join {
            Join::Rows(join) => {
                let found = join.find(&keys, &times).map_err(failed)?;
                return Ok(self.gathered(selection, &found));
            }
            Join::Events(swept, events) => (swept, events),
        };
        let (Some(of), Some(halves)) = (self.set.windows(), selection.halves()) else {
            return Err(LookupError::Unavailable("the selection is of another set".into()));
        };
        let wanted: Vec<usize> = (0..of.columns().len()).collect();
        let asked = [(keys.into_iter().cloned().collect(), times)];
        let found = swept.sweep(of, events, &asked, &wanted).map_err(failed)?;
        let own = self.gathered(&halves.own, &found.rows);
        if halves.windows.len() == 0 {
            return Ok(own);
        }
        let values = |row: usize| {
            let cells = found.cells.iter().map(|cells| cells[row].clone());
            Values { cells: cells.collect(), overflows: 0 }
        };
        let rows = found.known.iter().enumerate().map(|(row, known)| known.then(|| values(row)));
        let windows = Reading::of_values(of, rows.collect());
        Ok(halves.join(own, windows.found(&halves.windows, &Counters::default())))
    }

    /// The own features of some rows.
    fn gathered(&self, selection: &Selection, rows: &UInt32Array) -> Found {
        gather(selection, rows.iter().map(|row| row.map(|row| self.rows.row(row))))
    }
}

impl OnlineTable for PastTable {
    fn set(&self) -> &Arc<FeatureSet> {
        &self.set
    }

    /// Of the rows that count now: those of the greatest version.
    fn profile(&self, feature: usize) -> Result<Profile, ProfileError> {
        let mut tally = Tally::new(&self.set, feature)?;
        match &self.join {
            Join::Rows(join) => self.rows.tally(join.newest(), &mut tally),
            Join::Events(swept, _) => self.rows.tally(swept.newest(), &mut tally),
        }
        tally.finish()
    }

    fn is_local(&self) -> bool {
        true
    }

    /// Without a time there is no answer: the past has no present.
    fn read<'a>(&'a self, _: &RecordBatch, _: &'a Selection) -> Read<'a> {
        Read::Ready(Err(LookupError::Unavailable(
            "features of the past are read for a time; name the column that has it".into(),
        )))
    }

    fn read_at<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection, at: i64) -> Read<'a> {
        let times = Int64Array::from(vec![at; batch.num_rows()]);
        Read::Ready(self.find(batch, selection, &times))
    }

    fn read_each<'a>(
        &'a self,
        batch: &RecordBatch,
        selection: &'a Selection,
        times: &Int64Array,
    ) -> Read<'a> {
        Read::Ready(self.find(batch, selection, times))
    }
}
