//! Graphs as YAML.

mod kind;

pub use kind::{Kinds, SettingsError, StepKind};
