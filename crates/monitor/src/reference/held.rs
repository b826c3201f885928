//! The values of one column of a training set, held until it is known how they are counted.

use std::collections::HashMap;

use ahash::RandomState;
use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type},
    error::ArrowError,
};

use super::{
    BinRule, ReferenceColumn, ReferenceError,
    columns::{MLRUN_BINS, open_ended},
    rows::Batches,
};
use crate::{
    drift::{Bins, DriftError},
    layout::Kind,
    sketch::{KEPT, Sketch},
    values,
};

/// Numbers that are held at the same time, a gibibyte of them: of fewer columns than there are threads, if they are long.
const MOST_HELD: usize = 1 << 27;
/// Categories that are counted to find the most frequent ones; those that come later are not among them.
const MOST_COUNTED: usize = 1 << 20;
/// Bytes that their names take.
const MOST_BYTES: usize = 256 << 20;

/// How many columns of so many rows may be held at the same time.
pub(super) fn together(rows: usize) -> usize {
    (MOST_HELD / rows.max(1)).max(1)
}

/// The values of one column.
pub(super) enum Held {
    /// Of numbers: all of them.
    Numbers(HeldNumbers),
    /// Of categories: how often each occurs.
    Categories(HeldCategories),
    /// Nothing has to be known of others.
    Others,
}

#[derive(Default)]
pub(super) struct HeldNumbers {
    rows: u64,
    finite: Vec<f64>,
    /// Infinite, or not a number.
    strange: Vec<f64>,
    nulls: u64,
}

#[derive(Default)]
pub(super) struct HeldCategories {
    rows: u64,
    counts: HashMap<Box<str>, u64, RandomState>,
    /// How many are counted.
    most: usize,
    /// How many bytes their names may still take.
    room: usize,
    nulls: u64,
    /// Some rows are not in the counts.
    incomplete: bool,
}

impl Held {
    /// Reads a column that is to be counted as this kind. `told` is how many rows there may be.
    pub(super) fn read(kind: &Kind, told: usize, batches: Batches<'_>) -> Result<Self, ReferenceError> {
        match kind {
            Kind::Numeric { .. } => {
                let mut numbers = HeldNumbers::default();
                // If there is no room for what a file tells, it may not be so: then room is made as rows come.
                let _ = numbers.finite.try_reserve_exact(told);
                columns(batches, |array| numbers.add(array))?;
                Ok(Self::Numbers(numbers))
            }
            Kind::Categorical(_) => {
                let mut categories =
                    HeldCategories { most: MOST_COUNTED, room: MOST_BYTES, ..HeldCategories::default() };
                columns(batches, |array| {
                    categories.add(array);
                    Ok(())
                })?;
                Ok(Self::Categories(categories))
            }
            Kind::Time | Kind::Presence => Ok(Self::Others),
        }
    }

    /// How the values suggest that they be counted.
    pub(super) fn suggest(&mut self, rule: BinRule) -> Result<Option<ReferenceColumn>, DriftError> {
        match self {
            Self::Numbers(numbers) => {
                Ok(Some(ReferenceColumn::Numeric { edges: edges(&mut numbers.finite, rule)? }))
            }
            Self::Categories(categories) => Ok(Some(categories.frequent())),
            Self::Others => Ok(None),
        }
    }

    /// Rows and what they count as this kind, if it is all here.
    pub(super) fn count(self, kind: &Kind) -> Option<(u64, Sketch)> {
        let mut sketch = kind.sketch();
        let rows = match (self, &mut sketch) {
            (Self::Numbers(held), Sketch::Numbers(numbers)) => {
                numbers.add_all(kind.edges(), &held.finite);
                numbers.add_all(kind.edges(), &held.strange);
                numbers.add_nulls(held.nulls);
                held.rows
            }
            (Self::Categories(held), Sketch::Labels(labels)) if !held.incomplete => {
                held.counts.iter().for_each(|(label, rows)| labels.add_many(label, *rows));
                labels.add_nulls(held.nulls);
                held.rows
            }
            _ => return None,
        };
        // Of nothing that was read nothing is said.
        (rows > 0).then_some((rows, sketch))
    }
}

/// Every array of batches.
fn columns(
    batches: Batches<'_>,
    mut each: impl FnMut(&ArrayRef) -> Result<(), ArrowError>,
) -> Result<(), ReferenceError> {
    for batch in batches {
        batch?.columns().iter().try_for_each(&mut each)?;
    }
    Ok(())
}

impl HeldNumbers {
    fn add(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        let array = cast(array, &DataType::Float64)?;
        let array = array.as_primitive::<Float64Type>();
        match array.nulls() {
            None => self.add_all(array.values()),
            Some(nulls) => {
                self.nulls += nulls.null_count() as u64;
                nulls.valid_slices().for_each(|(from, to)| self.add_all(&array.values()[from..to]));
            }
        }
        self.rows += array.values().len() as u64;
        Ok(())
    }

    fn add_all(&mut self, values: &[f64]) {
        if values.iter().fold(true, |all, value| all & value.is_finite()) {
            self.finite.extend_from_slice(values);
        } else {
            for value in values {
                let own = if value.is_finite() { &mut self.finite } else { &mut self.strange };
                own.push(*value);
            }
        }
    }
}

impl HeldCategories {
    fn add(&mut self, array: &ArrayRef) {
        let Self { rows, counts, most, room, nulls, incomplete } = self;
        *rows += array.len() as u64;
        let are_labels = values::labels(array, &mut |_, label| match label {
            None => *nulls += 1,
            Some(label) => {
                let full = counts.len() >= *most || label.len() > *room;
                match counts.get_mut(label) {
                    Some(count) => *count += 1,
                    None if full => *incomplete = true,
                    None => {
                        *room -= label.len();
                        counts.insert(label.into(), 1);
                    }
                }
            }
        });
        *incomplete |= !are_labels;
    }

    /// The most frequent ones.
    fn frequent(&self) -> ReferenceColumn {
        let mut counts: Vec<(&str, u64)> =
            self.counts.iter().map(|(label, rows)| (&**label, *rows)).collect();
        counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        let known = counts.into_iter().take(KEPT).map(|(label, _)| label.to_owned());
        ReferenceColumn::Categorical { known: known.collect() }
    }
}

/// The edges that finite values suggest, whose order may be another afterwards.
fn edges(values: &mut [f64], rule: BinRule) -> Result<Vec<f64>, DriftError> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    Ok(match rule {
        BinRule::Quantiles(bins) => Bins::quantiles_in(values, bins)?.edges().to_vec(),
        BinRule::Mlrun => open_ended(&Bins::equal_width(values, MLRUN_BINS)?),
        BinRule::Doane => open_ended(&Bins::doane(values)?),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn of_more_categories_than_are_counted_the_first_are_known_and_rows_have_to_be_read_again() {
        let labels: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "b"]));
        let cases = [
            (2, 9, vec!["b", "a"], false),
            (3, 9, vec!["b", "a", "c"], true),
            (9, 2, vec!["b", "a"], false),
            (9, 3, vec!["b", "a", "c"], true),
        ];
        for (most, room, known, is_all) in cases {
            let mut categories = HeldCategories { most, room, ..HeldCategories::default() };
            categories.add(&labels);
            let mut held = Held::Categories(categories);
            let Ok(Some(ReferenceColumn::Categorical { known: told })) = held.suggest(BinRule::default())
            else {
                panic!("categories")
            };
            assert_eq!(told, known);
            let kind = Kind::Categorical(told.into());
            assert_eq!(held.count(&kind).map(|(rows, _)| rows), is_all.then_some(4));
        }
    }

    #[test]
    fn fewer_long_columns_are_held_at_the_same_time() {
        assert_eq!([0, 1 << 20, 1 << 26, 1 << 27, 1 << 30].map(together), [MOST_HELD, 128, 2, 1, 1]);
    }
}
