//! What the values of a feature look like, over stored rows.

use arrow::datatypes::DataType;

use super::{incoming::Packer, row::Head};
use crate::{Statistics, cell::number, layout::Place, statistics::Sums};

/// Collects one feature's values. The answer is the same for the same rows, in whichever order they come.
pub(crate) struct Tally {
    place: Place,
    data_type: DataType,
    values: Vec<f64>,
    sums: Sums,
}

impl Tally {
    /// `None` when the set has no such feature of its own; what windows hold depends on when they are read.
    pub(crate) fn new(packer: &Packer, feature: usize) -> Option<Self> {
        let data_type = packer.set.own_features().get(feature)?.data_type.clone();
        Some(Self { place: packer.layout().place(feature), data_type, values: Vec::new(), sums: Sums::new() })
    }

    /// Adds a row, by its fixed part.
    pub(crate) fn add(&mut self, fixed: &[u8]) {
        let cells = &fixed[Head::BYTES..];
        if self.place.is_null(cells) {
            self.sums.null();
        } else {
            self.values.extend(number(self.place.get(cells), &self.data_type));
        }
    }

    pub(crate) fn finish(mut self) -> Statistics {
        self.values.sort_unstable_by(f64::total_cmp);
        self.values.iter().for_each(|&value| self.sums.add(value));
        let mut deviations = self.sums.deviations();
        self.values.iter().for_each(|&value| deviations.add(value));
        deviations.finish()
    }
}
