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
/// Kept are the names that were known before and, of all others, the `most` whose digests are least. Such a name was kept from its
/// first occurrence on, so what is counted under it is whole, and which names they are does not depend on order: merging is addition.
/// What belongs to no name that is kept is counted together.
#[derive(Clone, Debug)]
pub struct Kept<V> {
    entries: HashMap<Box<str>, Entry<V>, RandomState>,
    most: usize,
    /// Kept names that were not known before.
    others: usize,
    /// No name from this digest on is kept, unless it was known before.
    bound: Option<u64>,
    rest: Option<V>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry<V> {
    value: V,
    digest: u64,
    known: bool,
}

impl<V: Merge + Clone> Kept<V> {
    /// Nothing yet, under the `known` names and at most `most` others.
    pub fn new<'k>(known: impl IntoIterator<Item = &'k str>, most: usize, new: impl Fn() -> V) -> Self {
        let entry = |name: &str| (name.into(), Entry { value: new(), digest: digest(name), known: true });
        let entries = known.into_iter().map(|name| entry(&shortened(name))).collect();
        Self { entries, most, others: 0, bound: None, rest: None }
    }

    /// Changes what is counted under a name, or under none that is kept; `new` makes what has counted nothing.
    #[inline]
    pub fn count(&mut self, name: &str, new: impl Fn() -> V, change: impl FnOnce(&mut V)) {
        match self.entries.get_mut(name) {
            Some(entry) => change(&mut entry.value),
            None => change(self.add(&shortened(name), new)),
        }
    }

    #[cold]
    fn add(&mut self, name: &str, new: impl Fn() -> V) -> &mut V {
        let digest = digest(name);
        let known = self.entries.contains_key(name);
        if !known && self.bound.is_none_or(|bound| digest < bound) {
            self.entries.insert(name.into(), Entry { value: new(), digest, known: false });
            self.others += 1;
            self.trim();
        }
        match self.entries.get_mut(name) {
            Some(entry) => &mut entry.value,
            None => self.rest.get_or_insert_with(new),
        }
    }

    /// Lets go of the names with the greatest digests.
    fn trim(&mut self) {
        if self.others <= self.most && self.bound.is_none() {
            return;
        }
        let others = self.entries.values().filter(|entry| !entry.known);
        let mut digests: Vec<u64> = others.map(|entry| entry.digest).collect();
        digests.sort_unstable();
        // Names of one digest go together: which of them came first must not matter.
        let Some(bound) = digests.get(self.most).copied().into_iter().chain(self.bound).min() else { return };
        let rest = &mut self.rest;
        self.entries.retain(|_, entry| {
            let stays = entry.known || entry.digest < bound;
            if !stays {
                match rest {
                    Some(rest) => rest.merge(&entry.value),
                    None => *rest = Some(entry.value.clone()),
                }
            }
            stays
        });
        self.others = digests.iter().filter(|digest| **digest < bound).count();
        self.bound = Some(bound);
    }

    /// What is kept, by name, in no particular order, and whether the name was known before.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V, bool)> {
        self.entries.iter().map(|(name, entry)| (&**name, &entry.value, entry.known))
    }

    /// What is counted under a name that is kept.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.entries.get(name).map(|entry| &entry.value)
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
            (name, Entry { value: change(value), digest, known })
        });
        let entries = entries.collect();
        Kept { entries, most: self.most, others: self.others, bound: self.bound, rest: self.rest.map(change) }
    }
}

impl<V: Merge + Clone> Merge for Kept<V> {
    fn merge(&mut self, other: &Self) {
        self.bound = self.bound.into_iter().chain(other.bound).min();
        for (name, theirs) in &other.entries {
            match self.entries.get_mut(name) {
                Some(mine) => {
                    mine.value.merge(&theirs.value);
                    mine.known |= theirs.known;
                }
                None => drop(self.entries.insert(name.clone(), theirs.clone())),
            }
        }
        match (&mut self.rest, &other.rest) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => mine.clone_from(theirs),
            (Some(_), None) => {}
        }
        self.others = self.entries.values().filter(|entry| !entry.known).count();
        self.trim();
    }
}

impl<V: PartialEq> PartialEq for Kept<V> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries && self.bound == other.bound && self.rest == other.rest
    }
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
    entries: Vec<(String, V, bool)>,
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
        Ok(Self { entries: entries.collect(), most, others, bound, rest })
    }
}
