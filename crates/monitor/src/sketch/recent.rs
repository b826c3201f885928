//! Short names that occurred lately.

use super::Labels;

/// Names that have a place at a time.
const PLACES: usize = 64;
/// Bytes of a name that are compared as numbers. A longer one is counted where all are kept.
const SHORT: usize = 16;

/// Rows of short names, held until another name needs the place or all are [gathered](Self::gather).
///
/// A column has few categories most of the time, and finding one here takes neither a hash of its bytes nor a comparison of texts.
#[derive(Default)]
pub(crate) struct Recent(Vec<Place>);

#[derive(Clone, Copy, Default)]
struct Place {
    /// The bytes of the name, and how many there are, which together are the name.
    name: (u64, u64, u8),
    rows: u32,
}

impl Recent {
    /// Adds a row of this category. `labels` are those of the column.
    #[inline]
    pub(crate) fn add(&mut self, label: &str, labels: &mut Labels) {
        // First, because most names of a column that has very many occur once and would only take places.
        if labels.add_rest(label) {
            return;
        }
        let Some(name) = whole(label.as_bytes()) else {
            labels.add(label);
            return;
        };
        if self.0.is_empty() {
            self.0.resize(PLACES, Place::default());
        }
        // The digits of a golden ratio spread what differs in few bits.
        let mixed = (name.0 ^ name.1.rotate_left(23) ^ u64::from(name.2)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = &mut self.0[(mixed >> 58) as usize];
        if place.name == name && place.rows < u32::MAX {
            place.rows += 1;
            return;
        }
        place.give(labels);
        *place = Place { name, rows: 1 };
    }

    /// Adds the rows that are held to their column, and holds none afterwards.
    pub(crate) fn gather(&mut self, labels: &mut Labels) {
        self.0.iter_mut().for_each(|place| place.give(labels));
    }
}

impl Place {
    fn give(&mut self, labels: &mut Labels) {
        let rows = std::mem::take(&mut self.rows);
        let mut bytes = [0; SHORT];
        let name = bytes_of(self.name, &mut bytes);
        if rows > 0
            && let Ok(name) = std::str::from_utf8(name)
        {
            labels.add_many(name, u64::from(rows));
        }
    }
}

/// A short name as two numbers and its length: its first bytes and its last, which overlap unless all are needed.
#[inline]
fn whole(name: &[u8]) -> Option<(u64, u64, u8)> {
    let (first, last) = match name.len() {
        8..=SHORT => (u64::from_le_bytes(*name.first_chunk()?), u64::from_le_bytes(*name.last_chunk()?)),
        4..8 => (
            u64::from(u32::from_le_bytes(*name.first_chunk()?)),
            u64::from(u32::from_le_bytes(*name.last_chunk()?)),
        ),
        0 => (0, 0),
        // One, two or three bytes: the first, the one in the middle and the last are all of them.
        1..4 => (u64::from(name[0]) | u64::from(name[name.len() / 2]) << 8, u64::from(name[name.len() - 1])),
        _ => return None,
    };
    Some((first, last, name.len() as u8))
}

/// The bytes of which [`whole`] made this.
fn bytes_of((first, last, len): (u64, u64, u8), bytes: &mut [u8; SHORT]) -> &[u8] {
    let len = usize::from(len);
    let (first, last) = (first.to_le_bytes(), last.to_le_bytes());
    let half = match len {
        8.. => 8,
        4..8 => 4,
        _ => len.min(2),
    };
    bytes[..half].copy_from_slice(&first[..half]);
    let end = if len >= 4 { half } else { len.min(1) };
    bytes[len - end..len].copy_from_slice(&last[..end]);
    &bytes[..len]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_short_name_is_what_its_numbers_say(name in prop::collection::vec(any::<u8>(), 0..20)) {
            let Some(numbers) = whole(&name) else {
                prop_assert!(name.len() > SHORT);
                return Ok(());
            };
            let mut bytes = [0; SHORT];
            prop_assert_eq!(bytes_of(numbers, &mut bytes), name);
        }

        #[test]
        fn names_are_counted_as_without_it(names in prop::collection::vec("[a-c]{0,4}|[a-z0-9]{0,20}|é{0,9}", 0..300)) {
            let (mut recent, mut labels, mut alone) = (Recent::default(), Labels::new(["a"]), Labels::new(["a"]));
            for name in &names {
                recent.add(name, &mut labels);
                alone.add(name);
            }
            recent.gather(&mut labels);
            recent.gather(&mut labels);
            prop_assert_eq!(labels, alone);
        }
    }
}
