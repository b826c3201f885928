//! Real models through the real runtime.

mod answers;
mod harness;
mod loading;
mod steps;
