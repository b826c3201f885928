//! HTTP, the command line, project files and the wiring of every crate.

pub mod wire;
