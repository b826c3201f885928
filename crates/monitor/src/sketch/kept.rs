//! Named values, as many of them as are kept.

use std::collections::HashMap;

use ahash::RandomState;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a name that are kept; a longer one ends with a digest of the whole.
pub const NAME_BYTES: usize = 96;

/// What is counted of something, and adds up.
pub trait Merge {
    /// Adds what another has counted.
    fn merge(&mut self, other: &Self);
}

impl Merge for u64 {
    fn merge(&mut self, other: &Self) {
        *self += other;
    }
}

/// Counts under names, of which there may be more than are kept.
///
/// Kept are the names that were known before, which have no counts until they occur, and, of all others, the `most` whose digests
/// are least. Such a name was kept from its
/// first occurrence on, so what is counted under it is whole, and which names they are does not depend on order: merging is addition.
/// What belongs to no name that is kept is counted together. Where names were known to some only of those that are merged, order can
/// matter for which are kept, and never for whether what is kept is whole.
#[derive(Clone, Debug)]
pub struct Kept<V> {
    entries: HashMap<Box<str>, Entry<V>, RandomState>,
    most: usize,
    /// Kept names that were not known before.
    others: usize,
    /// No name from this digest on is kept, unless it was known before.
    bound: Option<u64>,
    rest: Option<V>,
    /// Tells most digests from those of known names without a look at the names.
    sieve: Sieve,
}

/// A bit for each digest that is in it. Another digest may share the bit.
#[derive(Clone, Copy, Debug, Default)]
struct Sieve([u64; 16]);

#[derive(Clone, Debug, PartialEq)]
struct Entry<V> {
    /// Nothing as long as a known name has not occurred.
    value: Option<V>,
    digest: u64,
    known: bool,
}

impl<V: Merge + Clone> Kept<V> {
    /// Nothing yet, under the `known` names and at most `most` others.
    pub fn new<'k>(known: impl IntoIterator<Item = &'k str>, most: usize) -> Self {
        let entry = |name: &str| (name.into(), Entry { value: None, digest: digest(name), known: true });
        let entries = known.into_iter().map(|name| entry(&shortened(name))).collect();
        let sieve = Sieve::of(&entries);
        Self { entries, most, others: 0, bound: None, rest: None, sieve }
    }

    /// Changes what is counted under no name that is kept, if that is seen from the digest of this one alone. Most names are so when a
    /// column has very many, and looking for each among those that are kept would take longer than all else.
    #[inline]
    pub(crate) fn count_rest(
        &mut self,
        name: &str,
        new: impl Fn() -> V,
        change: impl FnOnce(&mut V),
    ) -> bool {
        let Some(bound) = self.bound.filter(|_| name.len() <= NAME_BYTES) else { return false };
        let digest = digest(name);
        let is_rest = digest >= bound && !self.sieve.has(digest);
        if is_rest {
            change(self.rest.get_or_insert_with(new));
        }
        is_rest
    }

    /// Changes what is counted under a name, or under none that is kept; `new` makes what has counted nothing.
    #[inline]
    pub fn count(&mut self, name: &str, new: impl Fn() -> V, change: impl FnOnce(&mut V)) {
        match self.entries.get_mut(name) {
            Some(entry) => change(entry.value.get_or_insert_with(new)),
            None => change(self.add(&shortened(name), new)),
        }
    }

    #[cold]
    fn add(&mut self, name: &str, new: impl Fn() -> V) -> &mut V {
        let digest = digest(name);
        let known = self.entries.contains_key(name);
        if !known && self.bound.is_none_or(|bound| digest < bound) {
            self.entries.insert(name.into(), Entry { value: Some(new()), digest, known: false });
            self.others += 1;
            if self.others > self.most {
                self.trim();
            }
        }
        match self.entries.get_mut(name) {
            Some(entry) => entry.value.get_or_insert_with(new),
            None => self.rest.get_or_insert_with(new),
        }
    }

    /// Lets go of the names with the greatest digests.
    fn trim(&mut self) {
        let others = self.entries.values().filter(|entry| !entry.known).map(|entry| entry.digest);
        let beyond = match self.others.saturating_sub(self.most) {
            0 => None,
            // As after each new name.
            1 => others.max(),
            _ => {
                let mut digests: Vec<u64> = others.collect();
                Some(*digests.select_nth_unstable(self.most).1)
            }
        };
        // Names of one digest go together: which of them came first must not matter.
        let Some(bound) = beyond.into_iter().chain(self.bound).min() else { return };
        let Self { entries, rest, others, .. } = self;
        entries.retain(|_, entry| {
            let stays = entry.known || entry.digest < bound;
            if !stays {
                merge_some(rest, entry.value.as_ref());
                *others -= 1;
            }
            stays
        });
        self.bound = Some(bound);
    }

    /// What is counted under names that are kept, in no particular order, and whether the name was known before.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V, bool)> {
        self.entries.iter().filter_map(|(name, entry)| Some((&**name, entry.value.as_ref()?, entry.known)))
    }

    /// The names that were known before and have not occurred, in no particular order.
    pub fn absent(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, entry)| entry.value.is_none()).map(|(name, _)| &**name)
    }

    /// What is counted under a name that is kept; nothing if it has not occurred.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.entries.get(&*shortened(name))?.value.as_ref()
    }

    /// Whether it is known how often a name has occurred: it is kept, or would be.
    pub fn tells(&self, name: &str) -> bool {
        let name = shortened(name);
        self.entries.contains_key(&*name) || is_below(digest(&name), self.bound)
    }

    /// Changes everything that is counted.
    pub(crate) fn change_all(&mut self, change: impl FnMut(&mut V)) {
        let kept = self.entries.values_mut().filter_map(|entry| entry.value.as_mut());
        kept.chain(self.rest.as_mut()).for_each(change);
    }

    /// What belongs to no name that is kept.
    pub fn rest(&self) -> Option<&V> {
        self.rest.as_ref()
    }

    /// How many names occurred that were not known before, of which `kept` are kept: estimated from the digests once there were more.
    pub fn distinct_others(&self, kept: usize) -> u64 {
        match self.bound {
            // The share of all digests that lies below the bound holds the names that are kept.
            Some(bound) if bound > 0 => (kept as f64 / (bound as f64 / u64::MAX as f64)).round() as u64,
            _ => kept as u64,
        }
    }
}

impl<V> Kept<V> {
    /// The same names over other values.
    pub fn map<W>(self, change: impl Fn(V) -> W) -> Kept<W> {
        let entries = self.entries.into_iter().map(|(name, Entry { value, digest, known })| {
            (name, Entry { value: value.map(&change), digest, known })
        });
        let entries = entries.collect();
        let Self { most, others, bound, rest, sieve, .. } = self;
        Kept { entries, most, others, bound, rest: rest.map(change), sieve }
    }
}

impl<V: Merge + Clone> Merge for Kept<V> {
    /// A name that only one of them knew before, and that the other may have counted among those that it does not keep, is not kept
    /// afterwards: what one has counted under it is not whole.
    fn merge(&mut self, other: &Self) {
        let Self { entries, rest, bound, .. } = self;
        entries.retain(|name, entry| {
            let whole = is_below(entry.digest, other.bound) || other.entries.contains_key(name);
            if !whole {
                merge_some(rest, entry.value.as_ref());
            }
            whole
        });
        for (name, theirs) in &other.entries {
            match entries.get_mut(name) {
                Some(mine) => {
                    merge_some(&mut mine.value, theirs.value.as_ref());
                    mine.known |= theirs.known;
                }
                None if is_below(theirs.digest, *bound) => {
                    entries.insert(name.clone(), theirs.clone());
                }
                None => merge_some(rest, theirs.value.as_ref()),
            }
        }
        self.bound = self.bound.into_iter().chain(other.bound).min();
        merge_some(&mut self.rest, other.rest.as_ref());
        self.others = self.entries.values().filter(|entry| !entry.known).count();
        self.sieve = Sieve::of(&self.entries);
        self.trim();
    }
}

impl Sieve {
    fn of<V>(entries: &HashMap<Box<str>, Entry<V>, RandomState>) -> Self {
        let mut sieve = Self::default();
        for entry in entries.values().filter(|entry| entry.known) {
            let (word, bit) = Self::place(entry.digest);
            sieve.0[word] |= bit;
        }
        sieve
    }

    #[inline]
    fn has(&self, digest: u64) -> bool {
        let (word, bit) = Self::place(digest);
        self.0[word] & bit != 0
    }

    #[inline]
    fn place(digest: u64) -> (usize, u64) {
        ((digest & 15) as usize, 1 << (digest >> 4 & 63))
    }
}

impl<V: PartialEq> PartialEq for Kept<V> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries && self.bound == other.bound && self.rest == other.rest
    }
}

fn merge_some<V: Merge + Clone>(mine: &mut Option<V>, theirs: Option<&V>) {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => mine.merge(theirs),
        (mine @ None, theirs) => *mine = theirs.cloned(),
        (Some(_), None) => {}
    }
}

/// Whether a name of this digest is kept, whether or not it was known before.
fn is_below(digest: u64, bound: Option<u64>) -> bool {
    bound.is_none_or(|bound| digest < bound)
}

fn digest(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// A name, or if it is too long its beginning and a digest of the whole.
fn shortened(name: &str) -> std::borrow::Cow<'_, str> {
    if name.len() <= NAME_BYTES {
        return name.into();
    }
    let mut end = NAME_BYTES - 19;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}..{:016x}", &name[..end], digest(name)).into()
}

/// As it is written down: in the order of names, so that equal ones have equal bytes.
#[derive(Serialize, Deserialize)]
struct Written<V> {
    entries: Vec<(String, Option<V>, bool)>,
    most: usize,
    bound: Option<u64>,
    rest: Option<V>,
}

impl<V: Serialize + Clone> Serialize for Kept<V> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.entries.iter();
        let mut entries: Vec<_> =
            entries.map(|(name, entry)| (name.to_string(), entry.value.clone(), entry.known)).collect();
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Written { entries, most: self.most, bound: self.bound, rest: self.rest.clone() }.serialize(serializer)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Kept<V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { entries, most, bound, rest } = Written::deserialize(deserializer)?;
        let others = entries.iter().filter(|(_, _, known)| !known).count();
        let entries = entries.into_iter().map(|(name, value, known)| {
            let digest = digest(&name);
            (name.into_boxed_str(), Entry { value, digest, known })
        });
        let entries = entries.collect();
        let sieve = Sieve::of(&entries);
        Ok(Self { entries, most, others, bound, rest, sieve })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_has_no_counts_before_it_occurs_and_is_known_all_the_same() {
        let mut kept: Kept<u64> = Kept::new(["a", "b"], 1);
        let made = std::cell::Cell::new(0);
        let new = || {
            made.set(made.get() + 1);
            0
        };
        for name in ["b", "b", "c"] {
            kept.count(name, new, |count| *count += 1);
        }
        assert_eq!(made.get(), 2);
        let mut counted: Vec<_> = kept.iter().map(|(name, count, known)| (name, *count, known)).collect();
        counted.sort_unstable();
        assert_eq!(counted, [("b", 2, true), ("c", 1, false)]);
        assert_eq!((kept.absent().collect::<Vec<_>>(), kept.get("a")), (vec!["a"], None));
        let mut other = Kept::new(["a", "b"], 1);
        other.count("a", || 0, |count: &mut u64| *count += 5);
        let mut turned = other.clone();
        turned.merge(&kept);
        kept.merge(&other);
        assert_eq!((kept.get("a"), kept.get("b"), &turned), (Some(&5), Some(&2), &kept));
    }

    #[test]
    fn a_name_that_only_one_side_knew_is_kept_where_the_other_has_not_counted_it_among_the_rest() {
        let names: Vec<String> = (0..60).map(|i| format!("n{i}")).collect();
        let of = |known: &[&str], most: usize, of: &[String]| {
            let mut kept: Kept<u64> = Kept::new(known.iter().copied(), most);
            of.iter().for_each(|name| kept.count(name, || 0, |count| *count += 1));
            kept
        };
        for (most, names) in [(100, &names[..]), (4, &names[..]), (4, &names[..3]), (0, &names[..0])] {
            let knowing = of(&["n1", "n2", "n59", "never"], most, names);
            let without = of(&[], most, names);
            let (mut merged, mut turned) = (knowing.clone(), without.clone());
            merged.merge(&without);
            turned.merge(&knowing);
            assert_eq!(merged, turned);
            let kept: u64 = merged.iter().map(|(_, count, _)| *count).sum();
            assert_eq!(kept + merged.rest().copied().unwrap_or(0), 2 * names.len() as u64);
            for name in ["n1", "n2", "n59", "never", "n7"] {
                assert_eq!(merged.tells(name), knowing.tells(name) && without.tells(name), "{most} {name}");
                let occurred = 2 * u64::from(names.iter().any(|known| known == name));
                let count = merged.get(name).copied().unwrap_or(0);
                assert!(!merged.tells(name) || count == occurred, "{most} {name}: {count} of {occurred}");
            }
        }
    }

    #[test]
    fn a_long_name_is_found_by_the_whole_of_it() {
        let long = "x".repeat(500);
        let mut kept: Kept<u64> = Kept::new([&*long], 1);
        kept.count(&long, || 0, |count| *count += 1);
        assert_eq!((kept.get(&long), kept.iter().count()), (Some(&1), 1));
    }
}
