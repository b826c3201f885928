//! What stands before the store of a set: rules that rows must keep, and a place for those that are not taken as they are.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, Int64Array, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use serde_json::Value;

use super::{
    Changes, Clock, Counted, Outcome, Receipt, TimeColumns, Written,
    aside::{self, Aside, Remove, Told},
    rules::{Broken, Rules},
};
use crate::{FeatureSet, RowProblem, WriteError, fit::fit_rows, set::Column};

#[derive(Default)]
pub(crate) struct Guard {
    pub(crate) rules: Rules,
    pub(crate) aside: Option<Arc<Aside>>,
    pub(crate) told: Told,
    clock: Clock,
}

/// Rows while they are written, as whoever wrote them numbers them.
pub(crate) struct Held {
    /// As they came.
    rows: RecordBatch,
    /// In the types of the set.
    fitted: RecordBatch,
    broken: Vec<Broken>,
    /// Of rows that passed a graph: what it gave, and for each of those which row it is of, in order.
    given: Option<(RecordBatch, Vec<usize>)>,
}

impl Held {
    /// Says that the rows are of others that came in their place: each of the row that `of` tells.
    pub(super) fn came_as(&mut self, came: RecordBatch, of: &[usize]) {
        self.broken.retain_mut(|broken| match of.get(broken.row) {
            Some(&row) => {
                broken.row = row;
                true
            }
            None => false,
        });
        let given = std::mem::replace(&mut self.fitted, came.clone());
        (self.rows, self.given) = (came, Some((given, of.to_vec())));
    }

    /// The keys of what a row became, if rows pass a graph.
    fn keys(&self, keys: &[Column], row: usize) -> Option<Vec<Value>> {
        let (given, of) = self.given.as_ref()?;
        let from = of.partition_point(|&other| other < row);
        let became = (from..of.len()).take_while(|&at| of[at] == row);
        let value = |at: usize, key: &Column| {
            let value = given.column_by_name(&key.name).map_or(Value::Null, |column| aside::json(column, at));
            (key.name.clone(), value)
        };
        Some(became.map(|at| keys.iter().map(|key| value(at, key)).collect()).collect())
    }
}

impl Guard {
    pub(crate) fn new(rules: Rules, aside: Option<Arc<Aside>>) -> Self {
        Self { rules, aside, ..Self::default() }
    }

    pub(crate) fn tell(&self, what: Counted<'_>, rows: u64) {
        if let Some(told) = self.told.get() {
            told(what, rows);
        }
    }

    /// Checks rows against the rules, and marks those that must be refused. `None` where there is nothing to hold, or the store
    /// will refuse the whole.
    pub(crate) fn hold(
        &self,
        changes: &mut Changes,
        schema: &SchemaRef,
        times: &TimeColumns,
    ) -> Option<Held> {
        if self.rules.is_empty() && self.aside.is_none() {
            return None;
        }
        let fitted = fitted(changes, schema, times)?;
        let broken = self.rules.broken(&fitted);
        let refused = broken.iter().filter(|broken| broken.refuses);
        changes.refused.extend(refused.map(|broken| (broken.row, broken.problem())));
        Some(Held { rows: changes.rows.clone(), fitted, broken, given: None })
    }

    /// Counts what became of rows, and sets aside those that were not taken as they are.
    pub(crate) fn settle(&self, set: &FeatureSet, mut written: Written, held: Option<Held>) -> Written {
        for (name, rows) in written.counts() {
            self.tell(Counted::Rows(name), rows);
        }
        let Some(held) = held else { return written };
        let mut reasons: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for broken in &held.broken {
            if matches!(written.rows.get(broken.row), None | Some(Outcome::Repeated)) {
                continue;
            }
            match written.broken.iter_mut().find(|(rule, _)| *rule == broken.rule) {
                Some((_, rows)) => *rows += 1,
                None => written.broken.push((Arc::clone(&broken.rule), 1)),
            }
            reasons.entry(broken.row).or_default().push(broken.problem().to_string());
        }
        for (rule, rows) in &written.broken {
            self.tell(Counted::Rule(rule), *rows);
        }
        for (row, outcome) in written.rows.iter().enumerate() {
            let reason = match outcome {
                Outcome::Refused(RowProblem::Rule { .. }) => continue,
                Outcome::Refused(problem) => problem.to_string(),
                Outcome::TooLate => {
                    format!("older than the newest event of its key by more than {:?}", set.lateness())
                }
                _ => continue,
            };
            reasons.entry(row).or_default().insert(0, reason);
        }
        if let (Some(aside), false) = (&self.aside, reasons.is_empty()) {
            let at = self.clock.now();
            let line = |(row, reasons): (&usize, &Vec<String>)| {
                let what = (set.name(), written.rows[*row].name(), reasons.join("; "));
                aside::row(what, at, (&held.fitted, &held.rows), held.keys(set.keys(), *row), *row)
            };
            aside.put(reasons.iter().map(line).collect(), &self.told);
        }
        written
    }

    /// Sets a message aside of which no row could be made.
    pub(crate) fn set_aside(&self, set: &FeatureSet, message: &[u8], reason: &str) {
        if let Some(aside) = &self.aside {
            let line = aside::message(set.name(), reason, self.clock.now(), message);
            aside.put(vec![line], &self.told);
        }
    }

    /// Removes rows that were set aside, of some keys or of the whole set, and says so.
    pub(crate) async fn remove(
        &self,
        set: &FeatureSet,
        keys: Option<&RecordBatch>,
        receipt: &mut Receipt,
    ) -> Result<(), WriteError> {
        let Some(aside) = &self.aside else { return Ok(()) };
        let names = set.keys().iter().map(|key| key.name.clone()).collect();
        let keys = keys.map(|keys| (names, values(set.keys(), keys)));
        let removed = aside.remove(Remove { set: set.name().to_owned(), keys }).await;
        let removed = removed.map_err(WriteError::unavailable)?;
        receipt.set_aside += removed.rows;
        receipt.files_written.extend(removed.files);
        if removed.messages > 0 {
            receipt.beyond.push(format!(
                "{} events that could not be read or did not pass the graph are set aside, and may be about these keys: look into them",
                removed.messages
            ));
        }
        Ok(())
    }
}

/// The rows with all columns of the set, in its types; `None` when one cannot be had.
fn fitted(changes: &Changes, schema: &SchemaRef, times: &TimeColumns) -> Option<RecordBatch> {
    let rows = changes.rows.num_rows();
    let given = [
        (Some(&times.event), Some(&changes.event)),
        (times.created.as_ref(), changes.created.as_ref()),
        (times.valid_to.as_ref(), changes.valid_to.as_ref()),
    ];
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let data_type = field.data_type();
        let none = || new_null_array(data_type, rows);
        if let Some((_, micros)) =
            given.iter().find(|(column, _)| column.is_some_and(|column| column.name == *field.name()))
        {
            let time = micros.and_then(|micros| time(micros, data_type));
            return Some(time.filter(|time| time.len() == rows).unwrap_or_else(none));
        }
        let column = Column { name: field.name().clone(), data_type: data_type.clone() };
        let found = changes.rows.column_by_name(&column.name)?;
        let (fitted, unfit) = fit_rows(&column, found).ok()?;
        if unfit.is_empty() {
            return Some(fitted);
        }
        let mut fits = vec![true; rows];
        unfit.iter().for_each(|(row, _)| fits[*row] = false);
        let unfit = arrow::array::BooleanArray::from(fits.iter().map(|fits| !fits).collect::<Vec<_>>());
        arrow::compute::nullif(&fitted, &unfit).ok()
    };
    let columns: Option<Vec<ArrayRef>> = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(schema), columns?).ok()
}

/// Microseconds as a time of another type.
fn time(micros: &Int64Array, data_type: &DataType) -> Option<ArrayRef> {
    if data_type.is_integer() {
        return cast(micros, data_type).ok();
    }
    let micros = micros.reinterpret_cast::<TimestampMicrosecondType>();
    cast(&micros, &DataType::Timestamp(TimeUnit::Microsecond, None))
        .and_then(|time| cast(&time, data_type))
        .ok()
}

/// The keys of a batch as lines have them; those that no row can have are left out.
fn values(keys: &[Column], batch: &RecordBatch) -> Vec<Vec<Value>> {
    let columns: Option<Vec<ArrayRef>> =
        keys.iter().map(|key| Some(fit_rows(key, batch.column_by_name(&key.name)?).ok()?.0)).collect();
    let Some(columns) = columns else { return Vec::new() };
    let known = (0..batch.num_rows()).filter(|&row| columns.iter().all(|column| column.is_valid(row)));
    known.map(|row| columns.iter().map(|column| aside::json(column, row)).collect()).collect()
}
