//! Whether two steps answered a row alike.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type},
};
use millstream_graph::{Rows, StepError};

/// How many of the rows that `new` and `old` were both given they answered in another way, one of the two with nothing included.
pub(super) fn differing(new: &Rows, old: &Rows, tolerance: f64) -> Result<usize, StepError> {
    let places = |rows: &Rows| -> BTreeMap<Option<u32>, usize> {
        (0..rows.len()).map(|row| (rows.origin().place(row), row)).collect()
    };
    let (of_new, of_old) = (places(new), places(old));
    let columns: Vec<Pair> = new
        .batch()
        .columns()
        .iter()
        .zip(old.batch().columns())
        .map(|(new, old)| Pair::new(new, old))
        .collect::<Result<_, _>>()?;
    let only_old = of_old.keys().filter(|place| !of_new.contains_key(*place)).count();
    let differs = |(place, row): (&Option<u32>, &usize)| {
        of_old
            .get(place)
            .is_none_or(|other| !columns.iter().all(|pair| pair.is_same(*row, *other, tolerance)))
    };
    Ok(only_old + of_new.iter().filter(|entry| differs(*entry)).count())
}

/// One column of both.
enum Pair {
    Numbers(ArrayRef, ArrayRef),
    Others(ArrayRef, ArrayRef),
}

impl Pair {
    fn new(new: &ArrayRef, old: &ArrayRef) -> Result<Self, StepError> {
        if !new.data_type().is_floating() {
            return Ok(Self::Others(Arc::clone(new), Arc::clone(old)));
        }
        Ok(Self::Numbers(cast(new, &DataType::Float64)?, cast(old, &DataType::Float64)?))
    }

    fn is_same(&self, row: usize, other: usize, tolerance: f64) -> bool {
        match self {
            Self::Others(new, old) => new.slice(row, 1) == old.slice(other, 1),
            Self::Numbers(new, old) => match (new.is_valid(row), old.is_valid(other)) {
                (true, true) => {
                    let new = new.as_primitive::<Float64Type>().value(row);
                    let old = old.as_primitive::<Float64Type>().value(other);
                    new.to_bits() == old.to_bits()
                        || (new.is_nan() && old.is_nan())
                        || new == old
                        || (new.is_finite()
                            && old.is_finite()
                            && (new - old).abs() <= tolerance * old.abs().max(1.0))
                }
                (new, old) => new == old,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, RecordBatch, StringArray};
    use millstream_graph::Origin;

    use super::*;

    fn rows(places: &[u32], scores: &[Option<f32>], names: &[&str]) -> Rows {
        let scores: ArrayRef = Arc::new(Float32Array::from(scores.to_vec()));
        let names: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        let batch =
            RecordBatch::try_from_iter_with_nullable([("score", scores, true), ("name", names, false)]);
        Rows::with_origin(batch.unwrap(), Origin::Picked(places.into()))
    }

    #[test]
    fn rows_are_compared_with_those_of_their_place() {
        let old = || rows(&[0, 2, 5], &[Some(0.5), None, Some(f32::NAN)], &["a", "b", "c"]);
        for (new, expected) in [
            (old(), 0),
            (rows(&[5, 0, 2], &[Some(f32::NAN), Some(0.5), None], &["c", "a", "b"]), 0),
            (rows(&[0, 2, 5], &[Some(0.505), None, Some(f32::NAN)], &["a", "b", "c"]), 0),
            (rows(&[0, 2, 5], &[Some(0.52), None, Some(f32::NAN)], &["a", "b", "c"]), 1),
            (rows(&[0, 2, 5], &[Some(0.5), Some(0.0), Some(1.0)], &["a", "b", "c"]), 2),
            (rows(&[0, 2, 5], &[Some(0.5), None, Some(f32::NAN)], &["a", "b", "d"]), 1),
            (rows(&[0, 2], &[Some(0.5), None], &["a", "b"]), 1),
            (rows(&[0, 1, 2], &[Some(0.5), Some(0.5), None], &["a", "a", "b"]), 2),
        ] {
            assert_eq!(differing(&new, &old(), 0.01).unwrap(), expected, "{new:?}");
        }
    }
}
