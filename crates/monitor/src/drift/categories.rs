//! Counts by category, brought side by side.

use std::collections::BTreeMap;

/// The counts of two sides for the same categories, in the order of the categories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aligned<K> {
    /// Every category that either side has.
    pub keys: Vec<K>,
    /// Counts of the reference, 0 where it lacks the category.
    pub reference: Vec<u64>,
    /// Counts of the live side, 0 where it lacks the category.
    pub live: Vec<u64>,
}

/// Brings counts by category side by side. A category that comes twice counts for both times, up to the largest number.
///
/// ```
/// use millstream_monitor::drift::align;
///
/// let aligned = align([("basic", 70), ("gold", 30)], [("gold", 5), ("silver", 1)]);
/// assert_eq!(aligned.keys, ["basic", "gold", "silver"]);
/// assert_eq!((aligned.reference, aligned.live), (vec![70, 30, 0], vec![0, 5, 1]));
/// ```
pub fn align<K: Ord>(
    reference: impl IntoIterator<Item = (K, u64)>,
    live: impl IntoIterator<Item = (K, u64)>,
) -> Aligned<K> {
    let mut counts: BTreeMap<K, (u64, u64)> = BTreeMap::new();
    for (key, count) in reference {
        let cell = &mut counts.entry(key).or_default().0;
        *cell = cell.saturating_add(count);
    }
    for (key, count) in live {
        let cell = &mut counts.entry(key).or_default().1;
        *cell = cell.saturating_add(count);
    }
    let mut aligned = Aligned { keys: Vec::new(), reference: Vec::new(), live: Vec::new() };
    for (key, (of_reference, of_live)) in counts {
        aligned.keys.push(key);
        aligned.reference.push(of_reference);
        aligned.live.push(of_live);
    }
    aligned
}
