//! Feature sets, the in-memory online store, and the enrich step.

mod cell;
mod enrich;
mod gather;
mod index;
mod key;
mod layout;
pub mod load;
mod set;
mod spec;
mod statistics;
mod store;
mod table;

pub use cell::Cell;
pub use enrich::{Enrich, Policy, kinds};
pub use gather::{Fault, Found, Gap, Pick, Selection, Status};
pub use load::{LoadError, LoadOptions};
pub use set::{Column, DefinitionError, FeatureSet, FeatureSetBuilder};
pub use spec::{FeatureSetSpec, TypeName};
pub use statistics::Statistics;
pub use store::{LookupError, MemoryStore, OnlineStore, OnlineTable, Read};
pub use table::{AppendError, MemoryTable, RowProblem, TableBuilder};
