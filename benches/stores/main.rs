//! The feature store on the data of a folder, one measurement per process: `scripts/store_peers.py` makes the folder, runs this and
//! the same work in Feast, storey, DuckDB and pandas, and prints them beside each other.
//!
//! `cargo bench --bench stores -- reads FOLDER`; one line of JSON comes out.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench is no interface, and fails loudly"
)]

/// The allocator of the `millstream` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod join;
mod rows;
mod windows;

use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [what, folder] = arguments.as_slice() else {
        // `cargo bench` runs every bench.
        println!("stores: run by scripts/store_peers.py");
        return;
    };
    let folder = Path::new(folder);
    let measured = match what.as_str() {
        "reads" => rows::reads(folder),
        "writes" => rows::writes(folder),
        "windows" => windows::events(folder),
        "join" => join::history(folder),
        "in_memory" => join::in_memory(folder),
        other => panic!("no measurement `{other}`: reads, writes, windows, join, in_memory"),
    };
    println!("{measured}");
}

/// The middle and the 99th percentile of durations in nanoseconds, as microseconds.
fn percentiles(mut nanoseconds: Vec<u64>) -> [f64; 2] {
    nanoseconds.sort_unstable();
    [50, 99].map(|percent| nanoseconds[nanoseconds.len() * percent / 100] as f64 / 1e3)
}
