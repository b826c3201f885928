//! The offline side: logs, the point-in-time join, training sets.

mod as_of;
mod join;
mod times;

pub use as_of::{AsOf, Knowledge};
pub use join::{JoinError, LogBatch, LogRows, Method, PointInTime, merge};
pub use times::Times;
