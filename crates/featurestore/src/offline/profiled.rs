//! Sets as vectors see them, with what their values look like where a policy asks for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use indexmap::IndexMap;

use super::{HistoryError, OfflineSet, OfflineStore, PastTable};
use crate::{
    OnlineTable, Profile, ProfileError,
    vector::resolve::{Shape, Shapes},
};

/// The sets of a store. What their values look like is told of the rows that count now, once these were [read](Profiled::read); that
/// takes reading all rows of a set, so it is done for those alone of which somebody has asked.
pub(super) struct Profiled<'a> {
    sets: &'a IndexMap<String, OfflineSet>,
    /// The sets that were asked about, and their rows once they were read.
    asked: Mutex<BTreeMap<String, Option<PastTable>>>,
}

impl<'a> Profiled<'a> {
    pub(super) fn new(sets: &'a IndexMap<String, OfflineSet>) -> Self {
        Self { sets, asked: Mutex::default() }
    }

    /// Reads the rows of sets that were asked about; whether there were any that had not been read.
    pub(super) async fn read(&self, store: &OfflineStore) -> Result<bool, HistoryError> {
        let unread = |(set, rows): (&String, &Option<PastTable>)| rows.is_none().then(|| set.clone());
        let unread: Vec<String> = self.asked().iter().filter_map(unread).collect();
        for set in &unread {
            let rows = store.past(set).await?;
            self.asked().insert(set.clone(), rows);
        }
        Ok(!unread.is_empty())
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Option<PastTable>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shapes for Profiled<'_> {
    fn names(&self) -> Vec<&str> {
        self.sets.keys().map(String::as_str).collect()
    }

    fn shape(&self, set: &str) -> Option<Shape<'_>> {
        let set = self.sets.get(set)?;
        let timed = set.event.is_some();
        Some(Shape { name: &set.name, keys: &set.keys, features: &set.features, timed })
    }

    fn profile(&self, set: &str, feature: usize) -> Result<Profile, ProfileError> {
        match self.asked().entry(set.to_owned()).or_default() {
            Some(rows) => rows.profile(feature),
            None => Err(ProfileError::Unavailable("they were not read yet".into())),
        }
    }
}
