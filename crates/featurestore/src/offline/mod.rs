//! The offline side of the feature store: logs of sets, training sets, SQL.
//!
//! A `Log` keeps the rows of a set for ever. An `OfflineStore` of `OfflineSet`s adds the features of a `Vector` to a
//! `Spine`, each as it was known at the row's time (`OfflineStore::history`), and answers SQL (`OfflineStore::query`).
//! What "as it was known" means stands at [`AsOf`]. The join by itself, over Arrow arrays, is [`PointInTime`] and [`merge`];
//! everything else needs the feature `offline`, which brings DataFusion.

mod as_of;
#[cfg(feature = "ballista")]
mod cluster;
#[cfg(feature = "offline")]
mod defined;
#[cfg(feature = "offline")]
mod held;
#[cfg(feature = "offline")]
mod history;
mod join;
#[cfg(feature = "offline")]
mod log;
#[cfg(feature = "offline")]
mod materialize;
#[cfg(feature = "offline")]
mod numbered;
#[cfg(feature = "offline")]
mod operator;
#[cfg(feature = "offline")]
mod output;
#[cfg(feature = "offline")]
mod past;
#[cfg(feature = "offline")]
mod profiled;
#[cfg(feature = "offline")]
mod set;
#[cfg(feature = "offline")]
mod spine;
#[cfg(feature = "offline")]
mod store;
#[cfg(feature = "offline")]
mod sweep;
mod times;

pub use crate::vector::Vector;
pub use as_of::{AsOf, Knowledge};
#[cfg(feature = "ballista")]
pub use cluster::{Cluster, ClusterError, Executor, Scheduler, SchedulerAddress};
#[cfg(feature = "offline")]
pub use history::HistoryError;
pub use join::{JoinError, LogBatch, LogRows, Method, PointInTime, merge};
#[cfg(feature = "offline")]
pub use log::{
    Appended, CREATED, Compacted, EVENT, Erased, Log, LogError, LogSchema, LogTable, SEQUENCE, VALID_TO,
};
#[cfg(feature = "offline")]
pub use materialize::{Materialization, MaterializeError};
#[cfg(feature = "offline")]
pub use output::TrainingSet;
#[cfg(feature = "offline")]
pub use past::PastTable;
#[cfg(feature = "offline")]
pub use set::OfflineSet;
#[cfg(feature = "offline")]
pub use spine::Spine;
#[cfg(feature = "offline")]
pub use store::{OfflineLimits, OfflineStore};
pub use times::Times;
