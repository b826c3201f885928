//! HTTP, the command line, project files and the wiring of every crate.
//!
//! [`Project`] loads a project file; [`Server`] serves its graphs; [`GraphService`] serves one graph inside an
//! application's own server.

mod admin;
mod ask;
mod body;
pub mod cli;
mod connections;
mod deadline;
mod describe;
mod features;
mod fetch;
mod http;
pub mod load;
mod monitoring;
mod observe;
#[cfg(feature = "offline")]
mod offline;
mod oip;
mod outside;
mod project;
mod refusals;
mod reload;
pub mod remote;
#[cfg(feature = "offline")]
mod replay;
mod security;
mod service;
pub mod sink;
mod snapshot;
mod stats;
mod streams;
mod through;
mod units;
mod vectors;
mod watch;
pub mod wire;

pub use crate::http::{Ending, ServeError, Server};
pub use admin::{AdminToken, TokenError, admin_router};
pub use body::BodyLimits;
pub use connections::ConnectionLimits;
pub use monitoring::MetricError;
pub use observe::{Observe, ObserveError, Traces};
pub use oip::CompatMetrics;
pub use outside::Outside;
pub use project::{PROJECT_FILE, Project, ProjectError, ProjectGraph, kinds, project_schema};
pub use reload::{Outcome, Reload, Reloader};
pub use security::{
    Access, AccessError, Role,
    tls::{TlsError, TlsFiles},
};
pub use service::{ARROW_STREAM, Answer, GraphService};
pub use watch::watch;
pub use wire::DecodeLimits;
