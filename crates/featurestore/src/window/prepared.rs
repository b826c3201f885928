//! Events of a batch, as the words that ledgers keep.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch},
    compute::cast,
    datatypes::DataType,
};
use millstream_graph::suggest;

use super::{
    aggregates::{Aggregates, Lane, Source},
    distinct::hash_text,
    layout::{Layout, Row},
    word::{Kind, Word},
};
use crate::{
    Version,
    cell::{held_as, with_primitive},
};

/// The events of a batch, ready to be added to ledgers. Made by [`Aggregates::prepare`].
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    rows: usize,
    /// For each row the bits of its lanes, then its cells.
    words: Vec<u64>,
    texts: Vec<Option<Arc<str>>>,
    not_a_number: usize,
}

impl Prepared {
    /// Events of the batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many values are NaN. They are treated as nulls.
    pub fn not_a_number(&self) -> usize {
        self.not_a_number
    }

    /// Bytes that the events take, about.
    pub(crate) fn bytes(&self) -> usize {
        let texts: usize = self.texts.iter().flatten().map(|text| text.len()).sum();
        self.words.len() * 8 + self.texts.len() * size_of::<Option<Arc<str>>>() + texts
    }

    /// Adds the events of another batch.
    pub(crate) fn append(&mut self, other: Self) {
        self.rows += other.rows;
        self.words.extend(other.words);
        self.texts.extend(other.texts);
        self.not_a_number += other.not_a_number;
    }

    /// Adds an event, by its words without the version, and its texts.
    pub(super) fn push(&mut self, words: &[u64], texts: &[Option<Arc<str>>]) {
        self.rows += 1;
        self.words.extend_from_slice(words);
        self.texts.extend_from_slice(texts);
    }

    /// Calls `each` with the row number `row` as it is kept under `version`.
    pub(super) fn with_row(&self, layout: &Layout, row: usize, version: Version, each: impl FnOnce(Row<'_>)) {
        let mut words: smallvec::SmallVec<[u64; 12]> = smallvec::SmallVec::new();
        words.extend_from_slice(&Layout::version_words(version)[..layout.time()]);
        words.extend_from_slice(&self.words[row * layout.body()..(row + 1) * layout.body()]);
        let texts = &self.texts[row * layout.texts..(row + 1) * layout.texts];
        each(Row { words: &words, texts });
    }
}

/// Why a batch of events cannot be aggregated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The batch lacks a column.
    #[error("{problem}")]
    Column {
        /// Which, and what is closest.
        problem: String,
    },
    /// A column has another type than the events that the aggregates are declared over.
    #[error("column `{column}` is {have}; the aggregates read {wanted}")]
    Type {
        /// The column's name.
        column: String,
        /// Its type in the batch.
        have: DataType,
        /// Its type in the declaration.
        wanted: DataType,
    },
    /// A predicate could not say which events count.
    #[error("`where: {filter}`")]
    Filter {
        /// The predicate as it is written.
        filter: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A predicate answered for another number of events than it was asked about.
    #[error("`where: {filter}` answers for {got} of {wanted} events")]
    FilterLength {
        /// The predicate as it is written.
        filter: String,
        /// Events of the batch.
        wanted: usize,
        /// Answers.
        got: usize,
    },
}

impl Aggregates {
    /// Reads the columns that are aggregated and evaluates the predicates, once for all keys in the batch.
    ///
    /// # Errors
    /// When a column is not there or of another type, or a predicate cannot be evaluated.
    pub fn prepare(&self, events: &RecordBatch) -> Result<Prepared, PrepareError> {
        let layout = self.layout();
        let rows = events.num_rows();
        let kept = self.predicates.iter().map(|(filter, predicate)| {
            let kept = predicate
                .keep(events)
                .map_err(|source| PrepareError::Filter { filter: filter.clone(), source })?;
            if kept.len() == rows {
                Ok(kept)
            } else {
                let (filter, got) = (filter.clone(), kept.len());
                Err(PrepareError::FilterLength { filter, wanted: rows, got })
            }
        });
        let kept = kept.collect::<Result<Vec<BooleanArray>, _>>()?;
        let mut prepared = Prepared {
            rows,
            words: vec![0; rows * layout.body()],
            texts: vec![None; rows * layout.texts],
            not_a_number: 0,
        };
        for (cell, source) in self.sources.iter().enumerate() {
            let column = column(events, source)?;
            let lanes = |lane: &Lane| lane.source == Some(cell);
            self.fill(&mut prepared, cell, &column, &kept, lanes);
        }
        self.mark(&mut prepared, &kept, |lane| lane.source.is_none(), |_| true);
        Ok(prepared)
    }

    /// Reads as [`Aggregates::prepare`], but an event of which a predicate cannot say whether it counts keeps no other from being
    /// read: `refuse` is told its row, and why.
    pub(crate) fn prepare_each(
        &self,
        events: &RecordBatch,
        mut refuse: impl FnMut(usize, String),
    ) -> Result<Prepared, PrepareError> {
        match self.prepare(events) {
            Err(PrepareError::Filter { .. }) => {}
            other => return other,
        }
        let mut all = Prepared::default();
        for row in 0..events.num_rows() {
            match self.prepare(&events.slice(row, 1)) {
                Ok(one) => all.append(one),
                Err(PrepareError::Filter { filter, source }) => {
                    refuse(row, format!("`where: {filter}`: {source}"));
                    all.push(&vec![0; self.layout().body()], &vec![None; self.layout().texts]);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(all)
    }

    /// Writes a column's values as cells, and marks the lanes in which they count.
    fn fill(
        &self,
        prepared: &mut Prepared,
        cell: usize,
        column: &ArrayRef,
        kept: &[BooleanArray],
        lanes: impl Fn(&Lane) -> bool,
    ) {
        let layout = *self.layout();
        let place = |row: usize| row * layout.body() + layout.lane_words() + cell;
        let (words, mut there) = (&mut prepared.words, vec![false; prepared.rows]);
        let mut put = |row: usize, word: Option<u64>| {
            if let Some(word) = word {
                words[place(row)] = word;
                there[row] = true;
            }
        };
        let valid = |row: &usize| column.is_valid(*row);
        let rows = (0..column.len()).filter(valid);
        match self.sources[cell].kind {
            Kind::Truth => {
                let column = column.as_boolean();
                rows.for_each(|row| put(row, Some(u64::from(column.value(row)))));
            }
            Kind::Text => {
                let column = column.as_string::<i32>();
                for row in rows {
                    put(row, Some(hash_text(column.value(row))));
                    if let Some(text) = self.sources[cell].text {
                        prepared.texts[row * layout.texts + text] = Some(column.value(row).into());
                    }
                }
            }
            _ => with_primitive!(column.data_type(), T => {
                let column = column.as_primitive::<T>();
                rows.for_each(|row| put(row, column.value(row).word()));
            }, _ => ()),
        }
        let values = column.len() - column.null_count();
        prepared.not_a_number += values - there.iter().filter(|there| **there).count();
        self.mark(prepared, kept, lanes, |row| there[row]);
    }

    /// Sets the bits of the lanes that `lanes` chooses, in rows that are `there` and that their predicate keeps.
    fn mark(
        &self,
        prepared: &mut Prepared,
        kept: &[BooleanArray],
        lanes: impl Fn(&Lane) -> bool,
        there: impl Fn(usize) -> bool,
    ) {
        let body = self.layout().body();
        for (lane, declared) in self.lanes.iter().enumerate().filter(|(_, lane)| lanes(lane)) {
            let kept = declared.predicate.and_then(|predicate| kept.get(predicate));
            for row in (0..prepared.rows).filter(|&row| there(row)) {
                if kept.is_none_or(|kept| kept.is_valid(row) && kept.value(row)) {
                    prepared.words[row * body + lane / 64] |= 1 << (lane % 64);
                }
            }
        }
    }
}

/// A column of the batch, in the type in which it is held.
fn column(events: &RecordBatch, source: &Source) -> Result<ArrayRef, PrepareError> {
    let schema = events.schema_ref();
    let found = events.column_by_name(&source.name).ok_or_else(|| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        PrepareError::Column { problem: suggest::unknown("column", &source.name, names) }
    })?;
    let (have, wanted) = (found.data_type(), &source.data_type);
    if have == wanted {
        return Ok(Arc::clone(found));
    }
    let held = (held_as(have) == *wanted).then(|| cast(found, wanted)).and_then(Result::ok);
    held.ok_or_else(|| PrepareError::Type {
        column: source.name.clone(),
        have: have.clone(),
        wanted: wanted.clone(),
    })
}
