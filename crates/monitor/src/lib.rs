//! Monitoring of what graphs carry: taps that count, drift, data quality, performance, alerts, and the request log.
//!
//! A [`Monitor`] counts what its taps see, in [`Pane`]s of time whose addition is exact: parts of a stream, in whatever order and on
//! however many replicas, give the counts of the whole to the bit. A [`History`] keeps panes, [`compare()`](compare::compare) sets
//! them beside a [`Reference`], and [`alert`]s are raised on what comes out.

pub mod alert;
pub mod compare;
pub mod concept;
mod counting;
pub mod custom;
pub mod drift;
pub mod history;
pub mod layout;
mod monitor;
pub mod multivariate;
pub mod pane;
pub mod performance;
pub mod predictions;
pub mod quality;
pub mod record;
pub mod reference;
pub mod report;
pub mod sketch;
mod spec;
mod values;

pub use history::{History, HistoryError, Keep};
pub use layout::{Layout, Watching};
pub use monitor::{Answered, Monitor};
pub use pane::Pane;
pub use reference::{BinRule, Past, Reference, ReferenceError, ReferenceOptions, ReferenceSpec};
pub use spec::{
    DiscoverySpec, DriftSpec, KeepSpec, MOST_PANES, MonitoringSpec, PaneTime, ProfileSpec, SmtpSpec, SmtpTls,
    WatchSpec,
};
