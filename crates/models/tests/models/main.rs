//! Real models through the real runtime.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod answers;
mod harness;
mod hostile;
mod loading;
mod repository;
mod sequence;
mod steps;
