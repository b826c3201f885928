//! Steps made of SQL expressions, encoders, imputers and validators.
//!
//! Every step here is a pure function of its rows. It is typed once, when the graph is compiled, and finds every
//! mistake of its settings then: an unknown column with the closest name, an expression whose types do not fit, two
//! columns of one name. A row that a step cannot answer leaves on the step's error port with a message, beside the
//! rows that it can.

mod check;
mod expr;
mod functions;
mod literal;
mod prepared;
mod select;

pub use expr::{CompiledExpr, Expr, MAX_LENGTH};
pub use literal::Literal;
pub use select::{Filter, Select, With};

/// At most `longest` characters of a text; what is cut is marked.
pub(crate) fn shorten(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
