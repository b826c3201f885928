//! What live values are compared with.

mod by_magnitude;
mod columns;
mod counted;
mod error;
mod held;
mod read;
mod rows;
mod spec;
mod statistics;
#[cfg(test)]
mod tests;
mod threads;

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc, thread::available_parallelism};

use arrow::{array::RecordBatch, datatypes::Schema};
use serde::{Deserialize, Serialize};

use self::{counted::count, held::Held, rows::Rows};
use crate::{
    layout::{Column, Layout, Watching, kind},
    pane::{Columns, EdgePane},
    sketch::Sketch,
};

pub(crate) use self::by_magnitude::between_buckets;
pub use self::{
    columns::{BinRule, ReferenceColumn},
    error::ReferenceError,
    rows::MOST_CSV_BYTES,
    spec::{Past, ReferenceSpec},
};

/// The values of a training set, a model's statistics or a past stretch of time, as counts, and the bins that they suggest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// What it was made of, for people.
    pub source: String,
    /// Which bins numeric columns are counted in.
    rule: BinRule,
    /// How each column is counted.
    bins: BTreeMap<String, ReferenceColumn>,
    /// The counts.
    pub pane: EdgePane,
}

/// How a reference is made.
#[derive(Clone, Debug, Default)]
pub struct ReferenceOptions<'o> {
    /// The bins of numeric columns.
    pub bins: BinRule,
    /// Whole numbers that are categories.
    pub categorical: &'o [String],
    /// Columns whose values divide the rows.
    pub segments: &'o [String],
    /// Segments of a column.
    pub most_segments: usize,
    /// Threads that read and count, on whose number nothing depends but the time; one for each core if it is not said.
    pub threads: Option<NonZeroUsize>,
}

/// Fewer rows are read before another thread has begun.
const ROWS_OF_A_THREAD: usize = 8192;

impl ReferenceOptions<'_> {
    /// The threads for so many rows.
    fn threads_for(&self, rows: usize) -> usize {
        let cores = || available_parallelism().map_or(1, usize::from).min(rows.div_ceil(ROWS_OF_A_THREAD));
        self.threads.map_or_else(cores, usize::from).max(1)
    }
}

impl Reference {
    /// Of rows in memory, which have one schema.
    ///
    /// # Errors
    /// When columns cannot be watched as `options` ask.
    pub fn of(batches: &[RecordBatch], options: &ReferenceOptions<'_>) -> Result<Self, ReferenceError> {
        Self::made(&Rows::Memory(batches.into()), options)
    }

    /// Of what was counted of an edge, in bins that its counts by magnitude suggest. Those of equal parts lie on borders of what is
    /// counted by magnitude, so that panes which were counted without this reference have exact counts in them.
    pub fn of_pane(source: &str, pane: EdgePane, rule: BinRule) -> Self {
        let column = |(name, sketch): (&String, &Sketch)| {
            let column = match sketch {
                Sketch::Numbers(numbers) => {
                    ReferenceColumn::Numeric { edges: by_magnitude::edges(numbers, rule) }
                }
                Sketch::Labels(labels) => ReferenceColumn::of(labels),
                Sketch::Presence(_) | Sketch::Times(_) => return None,
            };
            Some((name.clone(), column))
        };
        let bins = pane.columns.iter().filter_map(column).collect();
        Self { source: source.to_owned(), rule, bins, pane }
    }

    /// Counts rows in memory as live rows beside this reference are counted.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn count_rows(&self, batches: &[RecordBatch]) -> Result<EdgePane, ReferenceError> {
        let Some(first) = batches.first() else { return Ok(EdgePane::new()) };
        let layout = self.layout("live", first.schema_ref(), &ReferenceOptions::default())?;
        count(&layout, batches.iter().cloned().map(Ok))
    }

    /// How many values of a column are of categories that the reference does not have. None where that cannot be known: the column has no
    /// categories, or had more of them than are kept, so that one outside may have been there.
    pub fn unseen(&self, column: &str, live: &Sketch) -> Option<u64> {
        let (bins, before) = self.column(column).zip(self.pane.columns.get(column))?;
        match (bins, before, live) {
            (ReferenceColumn::Categorical { known }, Sketch::Labels(before), Sketch::Labels(live)) => {
                // A category that is not told of would be taken for one that the reference lacks.
                let told = known.iter().all(|name| live.tells(name));
                (before.beyond(known) == 0 && told).then(|| live.beyond(known))
            }
            _ => None,
        }
    }

    /// How a column is counted.
    pub fn column(&self, name: &str) -> Option<&ReferenceColumn> {
        self.bins.get(name)
    }

    /// Its rows.
    pub fn rows(&self) -> u64 {
        self.pane.rows
    }

    /// Reads each column by itself, for its bins and for its counts in them. Rows that are divided into segments are then read whole.
    fn made(rows: &Rows<'_>, options: &ReferenceOptions<'_>) -> Result<Self, ReferenceError> {
        let (schema, told) = (rows.schema(), rows.told());
        let source = "rows".to_owned();
        let mut reference =
            Self { source, rule: options.bins, bins: BTreeMap::new(), pane: EdgePane::default() };
        // What cannot be as the options say is known before a row is read.
        let layout = reference.layout("reference", &schema, options)?;
        let is_whole = layout.segments.is_empty();
        let threads = options.threads_for(told);
        let columns = threads::each(layout.columns.len(), threads.min(held::together(told)), |at| {
            reference.read_column(rows, &layout, &layout.columns[at], is_whole)
        })?;
        let (bins, panes): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let names = layout.columns.iter().map(|column| column.name.to_string());
        reference.bins = names.zip(bins).filter_map(|(name, bins)| Some((name, bins?))).collect();
        reference.pane = if is_whole {
            counted::side_by_side(panes, told)?
        } else {
            counted::counted(&reference.layout("reference", &schema, options)?, rows, threads)?
        };
        Ok(reference)
    }

    /// How a column is counted, and if that is asked, what it counts. One that could not be held is read once more.
    fn read_column(
        &self,
        rows: &Rows<'_>,
        layout: &Layout,
        column: &Column,
        counts: bool,
    ) -> Result<(Option<ReferenceColumn>, EdgePane), ReferenceError> {
        let read = || rows.read(Some(&column.name), 0..rows.parts());
        let mut held = Held::read(&column.kind, rows.told(), read()?)?;
        let bins = held.suggest(self.rule);
        let bins = bins.map_err(|source| ReferenceError::Bins { column: column.name.to_string(), source })?;
        if !counts {
            return Ok((bins, EdgePane::new()));
        }
        let kind = kind(rows.schema().field_with_name(&column.name)?.data_type(), false, bins.as_ref());
        let column = Column { kind, ..column.clone() };
        let pane = match held.count(&column.kind) {
            Some((rows, sketch)) => {
                let columns = Columns::from([(column.name.to_string(), sketch)]);
                EdgePane { rows, columns, ..EdgePane::new() }
            }
            None => count(&counted::alone(layout, column), read()?)?,
        };
        Ok((bins, pane))
    }

    /// How the columns of an edge are counted beside this reference.
    fn layout(
        &self,
        edge: &str,
        schema: &Schema,
        options: &ReferenceOptions<'_>,
    ) -> Result<Arc<Layout>, ReferenceError> {
        let watching = Watching {
            categorical: options.categorical,
            segments: options.segments,
            most_segments: options.most_segments,
            reference: Some(self),
            ..Watching::default()
        };
        let layout = Layout::new(edge, schema, &watching);
        layout.map(Arc::new).map_err(|problems| ReferenceError::Columns { problems })
    }
}
