//! The feature sets of a project, whether they change or not, and the vectors over them.

use std::sync::Arc;

use indexmap::IndexMap;
use sha2::{Digest, Sha256};

use crate::{FeatureSet, MemoryTable, OnlineStore, OnlineTable, Vector, VectorProblem, WritableSet};

/// Feature sets by name: some loaded once, some that take rows while they are read; and the vectors over them.
#[derive(Debug, Default)]
pub struct FeatureSets {
    sets: IndexMap<String, StoredSet>,
    vectors: IndexMap<String, Arc<Vector>>,
}

/// A feature set of a [`FeatureSets`].
#[derive(Clone, Debug)]
pub enum StoredSet {
    /// It was loaded from a file, and does not change.
    Loaded(Arc<MemoryTable>),
    /// It takes rows.
    Writable(Arc<WritableSet>),
}

impl FeatureSets {
    /// No sets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a set under its own name; one of the same name is replaced.
    pub fn insert(&mut self, set: StoredSet) {
        self.sets.insert(set.set().name().to_owned(), set);
    }

    /// The sets, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &StoredSet> {
        self.sets.values()
    }

    /// Adds a vector under its own name; one of the same name is replaced.
    ///
    /// # Errors
    /// With every mistake in the vector, or when a set has its name.
    pub fn insert_vector(&mut self, vector: Vector) -> Result<(), Vec<VectorProblem>> {
        if self.sets.contains_key(vector.name()) {
            let text = format!("a feature set is named `{}` already", vector.name());
            return Err(vec![VectorProblem { place: Vec::new(), text }]);
        }
        vector.check(self)?;
        self.vectors.insert(vector.name().to_owned(), Arc::new(vector));
        Ok(())
    }

    /// The vectors, in the order in which they were added.
    pub fn vectors(&self) -> impl Iterator<Item = &Arc<Vector>> {
        self.vectors.values()
    }

    /// The set named so.
    pub fn get(&self, set: &str) -> Option<&StoredSet> {
        self.sets.get(set)
    }
}

impl StoredSet {
    /// What its rows are.
    pub fn set(&self) -> &Arc<FeatureSet> {
        match self {
            Self::Loaded(table) => table.set(),
            Self::Writable(set) => set.set(),
        }
    }

    /// Its rows, to be read.
    pub fn table(&self) -> Arc<dyn OnlineTable> {
        match self {
            Self::Loaded(table) => Arc::clone(table) as _,
            Self::Writable(set) => Arc::clone(set.table()) as _,
        }
    }

    /// The version of its definition: a digest of what rows are and what is done to them, 16 hexadecimal digits. Where rows lie,
    /// and what is said to people, is no part of it.
    pub fn version(&self) -> String {
        let mut text = self.set().described();
        if let Self::Writable(set) = self {
            text += &set.described();
        }
        let digest = Sha256::digest(text.as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The set, if it takes rows.
    pub fn writable(&self) -> Option<&Arc<WritableSet>> {
        match self {
            Self::Loaded(_) => None,
            Self::Writable(set) => Some(set),
        }
    }
}

impl OnlineStore for FeatureSets {
    fn names(&self) -> Vec<String> {
        self.sets.keys().cloned().collect()
    }

    fn table(&self, set: &str) -> Option<Arc<dyn OnlineTable>> {
        Some(self.get(set)?.table())
    }

    fn writable(&self, set: &str) -> Option<Arc<WritableSet>> {
        self.get(set)?.writable().cloned()
    }
}
