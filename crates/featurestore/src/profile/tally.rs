//! One pass over the values of a feature.

use std::collections::HashMap;

use ahash::RandomState;
use serde_json::Value;

use super::{Distinct, Numbers, Profile, ProfileError};
use crate::{
    Column, FeatureSet,
    cell::{Width, json_of_bits, number, sort_bits},
    layout::{Layout, Place, TextAt},
};

/// Collects the values of one feature, row by row.
pub(crate) struct Tally {
    feature: Column,
    place: Place,
    count: u64,
    nulls: u64,
    values: Values,
}

enum Values {
    /// The bits of cells; beyond [`Profile::VALUES`] none.
    Bits(Vec<u64>),
    /// How many are false, and how many true.
    Truths([u64; 2]),
    Texts(Texts),
}

/// Different texts, and how many rows have each.
#[derive(Default)]
struct Texts {
    counts: HashMap<Box<str>, u64, RandomState>,
    bytes: usize,
    /// How many there were when there was no room for one more; from then on none is held.
    more_than: Option<u64>,
}

impl Tally {
    /// Of feature number `feature` of a set.
    pub(crate) fn new(set: &FeatureSet, feature: usize) -> Result<Self, ProfileError> {
        let Some(column) = set.own_features().get(feature) else {
            let features = set.features().len();
            return Err(match feature < features {
                true => ProfileError::Window,
                false => ProfileError::Feature { number: feature, features },
            });
        };
        let place = Layout::of(set.own_features()).place(feature);
        let values = match place.width {
            Width::Text => Values::Texts(Texts::default()),
            Width::Bit => Values::Truths([0; 2]),
            _ => Values::Bits(Vec::new()),
        };
        Ok(Self { feature: column.clone(), place, count: 0, nulls: 0, values })
    }

    /// Makes room for the values of so many rows, so that a lock is not held while it is made.
    pub(crate) fn reserve(&mut self, rows: usize) {
        if let Values::Bits(bits) = &mut self.values {
            bits.reserve(rows.min(Profile::VALUES));
        }
    }

    /// Adds a row, by its cells and the arena that its texts lie in.
    #[inline]
    pub(crate) fn add(&mut self, cells: &[u8], arena: &str) {
        if self.place.is_null(cells) {
            self.nulls += 1;
            return;
        }
        self.count += 1;
        let bits = self.place.get(cells);
        match &mut self.values {
            Values::Bits(values) if values.len() == Profile::VALUES => {}
            // The two zeros are one value.
            Values::Bits(values) => {
                let zero = number(bits, &self.feature.data_type) == Some(0.0);
                values.push(if zero { 0 } else { bits });
            }
            Values::Truths(truths) => truths[usize::from(bits != 0)] += 1,
            Values::Texts(texts) => texts.add(TextAt::unpack(bits).of(arena)),
        }
    }

    /// What was found, unless there were more values than are held.
    pub(crate) fn finish(self) -> Result<Profile, ProfileError> {
        let Self { feature, count, nulls, values, .. } = self;
        let (mut frequent, mut numbers) = (Frequent::default(), None);
        match values {
            Values::Bits(bits) if bits.len() as u64 != count => {
                return Err(ProfileError::TooMany { limit: Profile::VALUES });
            }
            Values::Bits(mut bits) => {
                let data_type = &feature.data_type;
                bits.retain(|&bits| number(bits, data_type).is_none_or(f64::is_finite));
                sort_bits(&mut bits, data_type);
                bits.chunk_by(|a, b| a == b).for_each(|run| frequent.add(run[0], run.len() as u64));
                if data_type.is_numeric() {
                    let not_finite = count - bits.len() as u64;
                    let sorted: Vec<f64> =
                        bits.into_iter().filter_map(|bits| number(bits, data_type)).collect();
                    numbers = Some(Numbers::of(&sorted, nulls, not_finite));
                }
            }
            Values::Truths(truths) => {
                let there = (0..2).zip(truths).filter(|(_, count)| *count > 0);
                there.for_each(|(bits, count)| frequent.add(bits, count));
            }
            Values::Texts(texts) => {
                let (distinct, frequent) = texts.finish();
                return Ok(Profile { feature, count, nulls, distinct, frequent, numbers });
            }
        }
        let distinct = Distinct::Exactly(frequent.different);
        let frequent = frequent.told(|bits| json_of_bits(bits, &feature.data_type));
        Ok(Profile { feature, count, nulls, distinct, frequent, numbers })
    }
}

impl Texts {
    fn add(&mut self, text: &str) {
        if self.more_than.is_some() {
            return;
        }
        if let Some(count) = self.counts.get_mut(text) {
            *count += 1;
            return;
        }
        self.bytes += text.len();
        let (most, most_bytes) = Profile::TEXTS;
        if self.counts.len() == most || self.bytes > most_bytes {
            self.more_than = Some(self.counts.len() as u64);
            self.counts = HashMap::default();
        } else {
            self.counts.insert(text.into(), 1);
        }
    }

    fn finish(self) -> (Distinct, Vec<(Value, u64)>) {
        if let Some(counted) = self.more_than {
            return (Distinct::MoreThan(counted), Vec::new());
        }
        let mut sorted: Vec<_> = self.counts.into_iter().collect();
        sorted.sort_unstable();
        let mut frequent = Frequent::default();
        sorted.into_iter().for_each(|(text, count)| frequent.add(text, count));
        (Distinct::Exactly(frequent.different), frequent.told(|text| Value::String(text.into())))
    }
}

/// The most frequent of different values that come in ascending order.
struct Frequent<T> {
    /// How many values have come.
    different: u64,
    /// The most frequent first.
    most: Vec<(T, u64)>,
}

impl<T> Default for Frequent<T> {
    fn default() -> Self {
        Self { different: 0, most: Vec::new() }
    }
}

impl<T> Frequent<T> {
    fn add(&mut self, value: T, count: u64) {
        self.different += 1;
        let at = self.most.partition_point(|(_, known)| *known >= count);
        if at < Profile::FREQUENT {
            self.most.truncate(Profile::FREQUENT - 1);
            self.most.insert(at, (value, count));
        }
    }

    fn told(self, json: impl Fn(T) -> Value) -> Vec<(Value, u64)> {
        self.most.into_iter().map(|(value, count)| (json(value), count)).collect()
    }
}
