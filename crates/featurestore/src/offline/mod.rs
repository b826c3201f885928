//! The offline side of the feature store: logs of sets, training sets, SQL.
//!
//! A [`Log`] keeps the rows of a set for ever. An [`OfflineStore`] of [`OfflineSet`]s adds the features of a [`Vector`] to a
//! [`Spine`], each as it was known at the row's time ([`OfflineStore::history`]), and answers SQL ([`OfflineStore::query`]).
//! What "as it was known" means stands at [`AsOf`]; the join by itself, over Arrow arrays, is [`PointInTime`].

mod as_of;
mod history;
mod join;
mod log;
mod operator;
mod output;
mod resolve;
mod set;
mod spine;
mod store;
mod times;
mod vector;

pub use as_of::{AsOf, Knowledge};
pub use history::HistoryError;
pub use join::{JoinError, LogBatch, LogRows, Method, PointInTime, merge};
pub use log::{
    Appended, CREATED, Compacted, EVENT, Erased, Log, LogError, LogSchema, LogTable, SEQUENCE, VALID_TO,
};
pub use output::TrainingSet;
pub use set::OfflineSet;
pub use spine::Spine;
pub use store::{OfflineLimits, OfflineStore};
pub use times::Times;
pub use vector::Vector;
