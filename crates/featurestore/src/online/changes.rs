//! A write, as its caller gives it.

use arrow::array::{Int64Array, RecordBatch};

use crate::RowProblem;

/// Rows for a [`WritableTable`](crate::WritableTable), and where they come from.
///
/// ```
/// use millstream_featurestore::{Changes, Positions};
/// use millstream_graph::rows;
///
/// let changes = Changes::new(rows! { card_id: [7_i64, 8], avg_amount: [12.5, 3.0] }, vec![1_000_000, 2_000_000])
///     .at(Positions::new("transactions", 0, vec![41, 42]));
/// ```
#[derive(Clone, Debug)]
pub struct Changes {
    pub(crate) rows: RecordBatch,
    pub(crate) event: Int64Array,
    pub(crate) created: Option<Int64Array>,
    pub(crate) valid_to: Option<Int64Array>,
    pub(crate) positions: Option<Positions>,
    pub(crate) ids: Option<Vec<Option<String>>>,
    /// Rows that are refused already, and why.
    pub(crate) refused: Vec<(usize, RowProblem)>,
    /// The sequence that each row had when it was first taken, for rows that a log gives back.
    pub(crate) restored: Option<Vec<u64>>,
}

/// Where the rows of a write stand in their source: `(source, partition, offset)`, one offset per row.
///
/// A partition is written in the order of its offsets. Those up to the greatest that was taken are not taken again, so writing
/// the same events twice, in the same parts or in others, changes nothing. Rows of one write may share an offset: then one event
/// has several rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    pub(crate) source: String,
    pub(crate) partition: u32,
    pub(crate) offsets: Vec<u64>,
    /// Up to where the partition has been read, if that is beyond the rows.
    pub(crate) reached: Option<u64>,
}

impl Positions {
    /// Rows at these offsets of a partition.
    pub fn new(source: impl Into<String>, partition: u32, offsets: Vec<u64>) -> Self {
        Self { source: source.into(), partition, offsets, reached: None }
    }

    /// Says that the partition has been read up to `offset`, though the last events may have no rows.
    #[must_use]
    pub fn reaching(mut self, offset: u64) -> Self {
        self.reached = self.reached.max(Some(offset));
        self
    }

    /// The offset that has been read up to.
    pub(crate) fn top(&self) -> Option<u64> {
        self.offsets.iter().copied().max().max(self.reached)
    }
}

impl Changes {
    /// Rows with the keys and features of a set, by name, and when each happened: microseconds since 1970 UTC.
    pub fn new(rows: RecordBatch, event: impl Into<Int64Array>) -> Self {
        Self {
            rows,
            event: event.into(),
            created: None,
            valid_to: None,
            positions: None,
            ids: None,
            refused: Vec::new(),
            restored: None,
        }
    }

    /// When each row became known: microseconds since 1970 UTC, null where nobody says.
    #[must_use]
    pub fn created(mut self, created: impl Into<Int64Array>) -> Self {
        self.created = Some(created.into());
        self
    }

    /// Until when each row may be used, inclusive: microseconds since 1970 UTC, null where it has no end of its own.
    #[must_use]
    pub fn valid_to(mut self, valid_to: impl Into<Int64Array>) -> Self {
        self.valid_to = Some(valid_to.into());
        self
    }

    /// Where the rows stand in their source.
    #[must_use]
    pub fn at(mut self, positions: Positions) -> Self {
        self.positions = Some(positions);
        self
    }

    /// The id of each row's event. An id that the store remembers is not taken again.
    #[must_use]
    pub fn ids(mut self, ids: impl IntoIterator<Item = Option<String>>) -> Self {
        self.ids = Some(ids.into_iter().collect());
        self
    }

    /// Says that a log gives these rows back, and which sequence each had there, ascending. They count as they did then, and go into
    /// no log again that knows these numbers. Redis has no sequences: there the order of writing takes their place.
    ///
    /// A set with windows takes them while all its rows come from the same log, of which `at` says how far it has come.
    #[cfg(feature = "offline")]
    pub(crate) fn restored(self, sequences: Vec<u64>) -> Self {
        Self { restored: Some(sequences), ..self }
    }
}
