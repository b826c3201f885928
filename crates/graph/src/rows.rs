//! Rows on an edge: a record batch that remembers which rows of the request it holds.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, BooleanArray, RecordBatch, UInt32Array},
    compute::{filter_record_batch, interleave_record_batch, take_record_batch},
    datatypes::SchemaRef,
};

use smallvec::SmallVec;

use crate::StepError;

/// A batch, and where each of its rows stood in the run's input.
///
/// Steps that keep, drop or reorder rows go through [`Rows::replace`], [`Rows::filter`] and [`Rows::take`], so that
/// a merge can restore the order and a reply can be cut back per request.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Shared, so that fan-out to many readers copies one pointer each, whatever the number of columns.
    batch: Arc<RecordBatch>,
    origin: Origin,
}

/// Where the rows of a batch stood in the run's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Row `i` is row `i` of the run's input.
    Whole,
    /// Row `i` is row `.0[i]` of the run's input.
    Picked(Arc<[u32]>),
    /// The rows are no longer rows of the run's input.
    Lost,
}

impl Origin {
    /// Where row `row` of the batch stood in the run's input; `None` when that is lost.
    pub fn place(&self, row: usize) -> Option<u32> {
        match self {
            Self::Whole => Some(row as u32),
            Self::Picked(at) => at.get(row).copied(),
            Self::Lost => None,
        }
    }
}

impl Rows {
    /// The run's whole input.
    #[inline]
    pub fn whole(batch: RecordBatch) -> Self {
        Self::with_origin(batch, Origin::Whole)
    }

    /// Rows that have no relation to the run's input: a join of other sources, an aggregate.
    pub fn free(batch: RecordBatch) -> Self {
        Self::with_origin(batch, Origin::Lost)
    }

    /// A batch whose rows stood at `origin` in the run's input.
    pub fn with_origin(batch: RecordBatch, origin: Origin) -> Self {
        Self { batch: Arc::new(batch), origin }
    }

    /// The columns.
    #[inline]
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// The columns, and where the rows stood in the run's input.
    #[inline]
    pub fn into_parts(self) -> (RecordBatch, Origin) {
        (Arc::unwrap_or_clone(self.batch), self.origin)
    }

    /// Takes the columns, forgetting where the rows came from.
    pub fn into_batch(self) -> RecordBatch {
        Arc::unwrap_or_clone(self.batch)
    }

    /// The schema of the columns.
    #[inline]
    pub fn schema(&self) -> &SchemaRef {
        self.batch.schema_ref()
    }

    /// Where the rows stood in the run's input.
    #[inline]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The number of rows.
    #[expect(clippy::len_without_is_empty, reason = "rows on an edge are never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Other columns for the same rows, in the same order.
    ///
    /// # Errors
    /// When `batch` has another number of rows.
    #[inline]
    pub fn replace(&self, batch: RecordBatch) -> Result<Rows, StepError> {
        if batch.num_rows() != self.len() {
            return Err(StepError::internal(format!(
                "{} rows came in but {} went out of a step that keeps its rows",
                self.len(),
                batch.num_rows()
            )));
        }
        Ok(Self::with_origin(batch, self.origin.clone()))
    }

    /// The rows where `keep` is true; null counts as false.
    ///
    /// # Errors
    /// When `keep` has another length.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Rows, StepError> {
        if keep.len() != self.len() {
            return Err(StepError::internal(format!(
                "a condition of {} rows for {} rows",
                keep.len(),
                self.len()
            )));
        }
        let kept = (0..keep.len()).filter(|&i| keep.is_valid(i) && keep.value(i));
        let origin = match &self.origin {
            Origin::Whole => Origin::Picked(kept.map(|i| i as u32).collect()),
            Origin::Picked(at) => Origin::Picked(kept.map(|i| at[i]).collect()),
            Origin::Lost => Origin::Lost,
        };
        Ok(Self::with_origin(filter_record_batch(&self.batch, keep)?, origin))
    }

    /// The rows at `indices`, in that order.
    ///
    /// # Errors
    /// When an index is out of bounds.
    pub fn take(&self, indices: &[u32]) -> Result<Rows, StepError> {
        if let Some(bad) = indices.iter().find(|&&i| i as usize >= self.len()) {
            return Err(StepError::internal(format!("row {bad} of a batch of {} rows", self.len())));
        }
        let origin = match &self.origin {
            Origin::Whole => Origin::Picked(indices.into()),
            Origin::Picked(at) => Origin::Picked(indices.iter().map(|&i| at[i as usize]).collect()),
            Origin::Lost => Origin::Lost,
        };
        let batch = take_record_batch(&self.batch, &UInt32Array::from(indices.to_vec()))?;
        Ok(Self::with_origin(batch, origin))
    }

    /// The rows that stood in `range` of the run's input, as if that had been the whole input; `None` when there are none.
    ///
    /// # Errors
    /// When the rows no longer know their place.
    pub fn cut(&self, range: &Range<usize>) -> Result<Option<Rows>, StepError> {
        let at = match &self.origin {
            Origin::Whole => {
                let end = range.end.min(self.len());
                let rows = end.saturating_sub(range.start);
                return Ok((rows > 0).then(|| Self::whole(self.batch.slice(range.start, rows))));
            }
            Origin::Picked(at) => at,
            Origin::Lost => return Err(StepError::internal("rows lost their place")),
        };
        let inside = |place: &u32| range.contains(&(*place as usize));
        let picked: Vec<u32> = (0..at.len() as u32).filter(|&row| inside(&at[row as usize])).collect();
        let (Some(&first), Some(&last)) = (picked.first(), picked.last()) else { return Ok(None) };
        let batch = if (last - first) as usize + 1 == picked.len() {
            self.batch.slice(first as usize, picked.len())
        } else {
            take_record_batch(&self.batch, &UInt32Array::from(picked.clone()))?
        };
        let places = picked.iter().map(|&row| at[row as usize] - range.start as u32).collect();
        Ok(Some(Self::with_origin(batch, Origin::Picked(places))))
    }

    /// The rows of several batches of `schema`, in the order of the run's input.
    ///
    /// # Errors
    /// When there is no part, or rows no longer know their place.
    pub fn merge(mut parts: SmallVec<[Rows; 2]>, schema: &SchemaRef) -> Result<Rows, StepError> {
        if parts.len() == 1 {
            let Some(Rows { batch, origin }) = parts.pop() else {
                return Err(StepError::internal("no rows to merge"));
            };
            // The schemas are equal; sharing this one lets later steps see that by its address.
            let batch = if Arc::ptr_eq(batch.schema_ref(), schema) {
                batch
            } else {
                Arc::new(Arc::unwrap_or_clone(batch).with_schema(Arc::clone(schema))?)
            };
            return Ok(Rows { batch, origin });
        }
        let mut order: Vec<(u32, usize, usize)> = Vec::new();
        for (part, rows) in parts.iter().enumerate() {
            for row in 0..rows.len() {
                let place =
                    rows.origin.place(row).ok_or_else(|| StepError::internal("rows lost their place"))?;
                order.push((place, part, row));
            }
        }
        order.sort_unstable();
        let batches: Vec<&RecordBatch> = parts.iter().map(Rows::batch).collect();
        let indices: Vec<_> = order.iter().map(|&(_, part, row)| (part, row)).collect();
        let batch = interleave_record_batch(&batches, &indices)?.with_schema(Arc::clone(schema))?;
        let places = order.iter().map(|&(place, ..)| place).collect();
        Ok(Self::with_origin(batch, Origin::Picked(places)))
    }
}
