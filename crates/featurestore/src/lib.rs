//! Feature sets, the in-memory online store, and the enrich step.
//!
//! A [`FeatureSet`] says which features are written together and by which keys they are read. [`load`] fills a
//! [`MemoryTable`] from a file of the project, a [`MemoryStore`] holds the tables, and [`Enrich`] puts their features
//! beside the columns of a request.
//!
//! ```
//! use std::sync::Arc;
//! use millstream_featurestore::{Enrich, FeatureSetSpec, LoadOptions, MemoryStore, Policy};
//!
//! # let dir = tempfile::tempdir()?;
//! # let project = dir.path();
//! std::fs::write(project.join("cards.csv"), "card_id,avg_amount,tier\n7,12.5,gold\n8,,basic\n")?;
//! let cards: FeatureSetSpec = serde_json::from_str(r#"{"keys": ["card_id"], "source": "cards.csv"}"#)?;
//!
//! let mut store = MemoryStore::new();
//! store.insert(cards.load("cards", project, &LoadOptions::default())?);
//! let step = Enrich::new(Arc::new(store), "cards").missing(Policy::Fail).nulls_of("avg_amount", Policy::Mean);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! How a lookup runs: the hash index turns keys into row numbers, the packed rows' cells are moved into one buffer per
//! width, and the buffers are cut into columns. Nothing is looked up by name and no lock is taken.

mod cell;
mod conditions;
mod distinct;
mod each;
mod enrich;
mod fit;
mod gather;
mod index;
mod ingest;
mod inside;
mod key;
mod layout;
pub mod load;
pub mod offline;
mod online;
mod packed;
mod policy;
mod profile;
mod set;
mod sets;
mod spec;
mod statistics;
mod store;
pub mod stream;
mod table;
mod vector;
mod version;
mod wait;
mod window;

pub use cell::Cell;
pub use conditions::{Condition, Conditions};
pub use enrich::{Enrich, kinds};
pub use gather::{Fault, Found, Gap, Pick, Selection, Status};
pub use ingest::Ingest;
pub use inside::inside;
pub use load::{LoadError, LoadOptions};
pub use online::{
    Answer, AsideSpec, Changes, Clock, Counted, Counts, DurabilitySpec, Heard, LocalSpec, OnlineSpec,
    Otherwise, Outcome, Passage, Passed, Passing, Positions, Receipt, RuleSpec, Stores, TimeColumns,
    WritableSet, WritableTable, WriteError, Written,
    local::{Durability, LocalOptions, LocalTable, OpenError, Recovery, WhenFull},
};
#[cfg(feature = "offline")]
pub use online::{Archived, OfflineSpec, local::Archive};
#[cfg(feature = "redb")]
pub use online::{
    RedbSpec,
    redb::{RedbOptions, RedbTable},
};
#[cfg(feature = "redis")]
pub use online::{
    RedisSpec,
    redis::{RedisError, RedisOptions, RedisServer, RedisTable},
};
pub use policy::Policy;
pub use profile::{Distinct, Histogram, Numbers, Profile, ProfileError};
pub use set::{Column, DefinitionError, FeatureSet, FeatureSetBuilder};
pub use sets::{FeatureSets, StoredSet};
pub use spec::{FeatureSetSpec, TypeName};
pub use statistics::Statistics;
pub use store::{LookupError, MemoryStore, OnlineStore, OnlineTable, Read};
pub use table::{AppendError, MemoryTable, RowProblem, TableBuilder};
pub use vector::{
    Expressions, LabelSpec, OnlineVector, Vector, VectorError, VectorProblem, VectorRows, VectorSpec,
};
pub use version::Version;
pub use wait::wait;
#[cfg(feature = "offline")]
pub(crate) use window::array;
pub use window::{
    Added, AggregateError, AggregateSpec, Aggregates, Compile, DecodeError, Function, Ledger, Predicate,
    PrepareError, Prepared, Readings, TooEarly, Values, WindowLength,
};
