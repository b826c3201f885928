//! Steps made of SQL expressions, encoders, imputers and validators.
//!
//! Every step here is a pure function of its rows. It is typed once, when the graph is compiled, and finds every
//! mistake of its settings then: an unknown column with the closest name, an expression whose types do not fit, two
//! columns of one name. A row that a step cannot answer leaves on the step's error port with a message, beside the
//! rows that it can.
//!
//! | step | kind in spec files | what it does |
//! |---|---|---|
//! | [`Select`] | `select` | answers the listed columns and expressions |
//! | [`With`] | `with` | adds or replaces columns by expression |
//! | [`Filter`] | `filter` | lets rows through for which a condition holds |
//! | [`When`] | `when` | sends each row out on the port of the first condition that holds |
//! | [`Split`] | `split` | sends each row out on a port by weights and a sticky hash of its key |
//! | [`Canary`] | layer `canary` | lets a new step take a part of the rows of another, until it is worse |
//! | [`Quorum`] | `quorum` | asks several steps, and answers when enough of them have |
//! | [`OneHot`], [`Ordinal`] | `one_hot`, `ordinal` | categories as numbers |
//! | [`Impute`] | `impute` | fills in what is missing |
//! | [`Map`], [`Bucketize`] | `map`, `bucketize` | values, ranges and buckets become other values |
//! | [`DateParts`] | `date_parts` | the hour, the day of the week and other parts of points in time |
//! | [`Cast`], [`Drop`], [`Rename`] | `cast`, `drop`, `rename` | other types, fewer columns, other names |
//! | [`Pack`] | `pack` | numeric columns as one tensor column |
//! | [`Validate`] | `validate` | rows that break a rule leave on the error port |

mod buckets;
mod canary;
mod check;
mod codes;
mod columns;
mod dates;
mod deal;
mod deep;
mod encode;
mod expr;
mod fast;
mod functions;
mod impute;
mod kinds;
mod literal;
mod map;
mod message;
mod nested;
mod number;
mod ordinal;
mod pack;
mod prepared;
mod quorum;
mod select;
mod shared;
mod split;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod udf;
mod validate;
mod when;

pub use buckets::{Bucketize, Buckets};
pub use canary::{Canary, Rollback, canary_layer};
pub use columns::{Cast, ColumnType, Drop, Invalid, Rename};
pub use dates::{DatePart, DateParts, Epoch};
pub use encode::{NumberType, OneHot, UnknownCategory};
pub use expr::{CompiledExpr, Expr, MAX_LENGTH};
pub use impute::{Fill, Impute};
pub use kinds::kinds;
pub use literal::Literal;
pub use map::{Map, MapColumn, MapRange, Unmapped};
pub use ordinal::{Ordinal, UnknownPlace};
pub use pack::{Pack, TensorNull, TensorType};
pub use quorum::{Quorum, quorum_kind};
pub use select::{Filter, Select, With, condition};
pub use split::Split;
pub use validate::{Rule, Validate};
pub use when::When;

/// At most `longest` characters of a text; what is cut is marked.
pub(crate) fn shorten(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
