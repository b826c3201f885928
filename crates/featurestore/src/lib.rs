//! Feature sets, the in-memory online store, and the enrich step.

mod cell;
mod gather;
mod index;
mod key;
mod layout;
mod set;
mod statistics;
mod store;
mod table;

pub use cell::Cell;
pub use gather::{Fault, Found, Gap, Pick, Selection, Status};
pub use set::{Column, DefinitionError, FeatureSet, FeatureSetBuilder};
pub use statistics::Statistics;
pub use store::{LookupError, MemoryStore, OnlineStore, OnlineTable, Read};
pub use table::{AppendError, MemoryTable, RowProblem, TableBuilder};
