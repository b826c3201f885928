#![doc = include_str!("../../../../docs/windows.md")]

mod accumulator;
mod aggregates;
mod codec;
mod distinct;
mod draft;
mod exact;
mod layout;
mod ledger;
mod prepared;
mod quantiles;
mod spec;
mod timeline;
mod values;
mod word;

pub use aggregates::{AggregateError, Aggregates, Compile, Predicate};
pub use codec::DecodeError;
pub use ledger::{Added, Ledger, TooEarly};
pub use prepared::{PrepareError, Prepared};
pub use spec::{AggregateSpec, Function, WindowLength};
#[cfg(feature = "offline")]
pub(crate) use values::array;
pub use values::{Readings, Values};
