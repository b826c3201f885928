//! From a log back into an online store: after its loss, for a replica, or because it lies elsewhere now.

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::UInt64Type,
};
use datafusion::{
    common::ScalarValue,
    execution::SendableRecordBatchStream,
    prelude::{col, lit},
};
use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};

use super::{CREATED, EVENT, HistoryError, Log, OfflineLimits, OfflineStore, SEQUENCE, VALID_TO};
use crate::{Changes, Positions, RowProblem, WritableSet, WriteError, Written, online::set::micros};

impl WritableSet {
    /// Fills the set from a log: rows are written in the order in which they were first taken, each with the version that it had, so
    /// that doing it again changes nothing. Rows whose event is after `until`, in microseconds since 1970 UTC, are left out.
    ///
    /// Rows are not judged again by the set's rules. What a log lacks, such as erased keys, event ids and positions of sources, does not
    /// come back. Nobody erases meanwhile: rows that have been read would come back.
    ///
    /// A set that has a log of its own takes rows from that one alone, which does not get them again. A set with windows takes them
    /// into an empty store; if that ends half-way, it goes on where it was.
    ///
    /// # Errors
    /// When the set has another log, or the log cannot be read.
    pub async fn materialize(
        &self,
        log: &Log,
        until: Option<i64>,
    ) -> Result<Materialization<'_>, MaterializeError> {
        if let Some(own) = self.log().filter(|own| !own.is(log)) {
            return Err(MaterializeError::OtherLog {
                set: self.set().name().to_owned(),
                own: own.place(),
                other: log.place(),
            });
        }
        let session = OfflineStore::new(&OfflineLimits::default())?.session(1)?;
        let mut rows = session.read_table(Arc::new(log.table())).map_err(HistoryError::from)?;
        if let Some(until) = until {
            let until = ScalarValue::TimestampMicrosecond(Some(until), Some("UTC".into()));
            rows = rows.filter(col(EVENT).lt_eq(lit(until))).map_err(HistoryError::from)?;
        }
        let rows = rows.sort(vec![col(SEQUENCE).sort(true, false)]).map_err(HistoryError::from)?;
        let rows = rows.execute_stream().await.map_err(HistoryError::from)?;
        // Rows without windows need no position: versions tell what is there already, whatever else the store has taken.
        let source = self.set().windows().map(|_| source(log, self.log().is_some(), until));
        Ok(Materialization { set: self, rows, source })
    }
}

/// A set that is being filled from a log. Made by [`WritableSet::materialize`].
pub struct Materialization<'a> {
    set: &'a WritableSet,
    rows: SendableRecordBatchStream,
    /// Under which name a set with windows remembers how far it has come.
    source: Option<String>,
}

impl Materialization<'_> {
    /// Writes the next rows, and says what became of them; `None` when there are no more.
    ///
    /// # Errors
    /// When the log cannot be read, the store does not take rows, or a row does not fit the set.
    pub async fn next(&mut self) -> Result<Option<Written>, MaterializeError> {
        let Some(rows) = self.rows.try_next().await.map_err(HistoryError::from)? else { return Ok(None) };
        let (changes, sequences) = self.changes(rows)?;
        let table = self.set.table();
        let written = match table.write(changes.clone()).get().await {
            // The log has these rows: it has but to be told, and the store's own log may go.
            Err(WriteError::Behind { .. }) => {
                table.archive().get().await?;
                table.write(changes).get().await?
            }
            written => written?,
        };
        if let Some((row, problem)) = written.refused().next() {
            return Err(MaterializeError::Row { sequence: sequences[row], problem: problem.clone() });
        }
        Ok(Some(written))
    }

    fn changes(&self, rows: RecordBatch) -> Result<(Changes, Vec<u64>), MaterializeError> {
        let time = |name: &str| rows.column_by_name(name).and_then(micros);
        let numbers =
            rows.column_by_name(SEQUENCE).and_then(|column| column.as_primitive_opt::<UInt64Type>());
        let (Some(event), Some(created), Some(valid_to), Some(numbers)) =
            (time(EVENT), time(CREATED), time(VALID_TO), numbers)
        else {
            return Err(MaterializeError::NoLog);
        };
        let sequences = numbers.values().to_vec();
        let changes =
            Changes::new(rows, event).created(created).valid_to(valid_to).restored(sequences.clone());
        let changes = match &self.source {
            Some(source) => changes.at(Positions::new(source, 0, sequences.clone())),
            None => changes,
        };
        Ok((changes, sequences))
    }
}

/// What a log is called by a set that is filled from it; its own log wherever it lies. With another bound it is another one: rows that
/// were left out are not to be taken for such as were read.
fn source(log: &Log, is_own: bool, until: Option<i64>) -> String {
    let place = if is_own { String::new() } else { log.place() };
    let digest = Sha256::digest(format!("{place} {until:?}"));
    let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("log:{digest}")
}

/// Why a set is not filled from a log. What was written until then is there, and doing it again goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaterializeError {
    /// The set has a log, and it is another one.
    #[error(
        "feature set `{set}` has its own log at `{own}`, which would lack rows of `{other}`; copy the files of that log there, and fill \
         the set from its own"
    )]
    OtherLog {
        /// The set.
        set: String,
        /// Where its own log lies.
        own: String,
        /// Where the other one does.
        other: String,
    },
    /// What was read has no times or numbers.
    #[error("it is no log: it lacks times or numbers")]
    NoLog,
    /// A row does not fit the set.
    #[error("row {sequence} of the log does not fit the set: {problem}")]
    Row {
        /// The row's number in the log.
        sequence: u64,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Read(#[from] HistoryError),
    /// The store does not take rows.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl std::fmt::Debug for Materialization<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Materialization").field("set", &self.set.set().name()).finish_non_exhaustive()
    }
}
