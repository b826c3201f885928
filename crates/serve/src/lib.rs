//! HTTP, the command line, project files and the wiring of every crate.
//!
//! [`Project`] loads a project file; [`Server`] serves its graphs; [`GraphService`] serves one graph inside an
//! application's own server.

pub mod cli;
mod describe;
mod http;
pub mod load;
mod outside;
mod project;
pub mod remote;
mod service;
pub mod sink;
mod units;
pub mod wire;

pub use crate::http::{ServeError, Server};
pub use outside::Outside;
pub use project::{PROJECT_FILE, Project, ProjectError, ProjectGraph, kinds, project_schema};
pub use service::{ARROW_STREAM, Answer, GraphService};
pub use wire::DecodeLimits;
