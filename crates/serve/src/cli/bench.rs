//! `millstream bench`: load for a server, and what came back.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;
use http::Uri;
use serde_json::to_string_pretty;

use super::{Failure, Listing, batch::progress_bar, print};
use crate::load::Load;

#[derive(Args)]
pub(super) struct BenchArgs {
    /// Where requests go, such as http://127.0.0.1:8080/v1/graphs/fraud.
    url: Uri,
    /// Requests per second. They are sent at that rate whether or not the server keeps up.
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// How long to send, in seconds.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    seconds: f64,
    /// Connections; each carries one request at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// A file with one JSON body per line, posted in turn; without it, requests are GET.
    #[arg(long)]
    bodies: Option<PathBuf>,
    /// What a request may take, in milliseconds, from the moment at which it should be sent.
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
    /// Draws latency by percentile into this SVG file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    output: Listing,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e7 => Ok(number),
        _ => Err("a number above zero, up to ten million".to_owned()),
    }
}

pub(super) fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let bodies = match &args.bodies {
        None => Vec::new(),
        Some(file) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| Bytes::from(line.to_owned())).collect()
        }
    };
    let load = Load {
        url: args.url.clone(),
        bodies,
        rate: args.rate,
        duration: Duration::from_secs_f64(args.seconds),
        connections: args.connections,
        timeout: Duration::from_millis(args.timeout_ms),
    };
    let progress = progress_bar(Some((args.rate * args.seconds) as u64), "requests");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(load.run(|sent| progress.set_position(sent)))?;
    progress.finish_and_clear();
    if let Some(file) = &args.svg {
        std::fs::write(file, report.svg()).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    match args.output {
        Listing::Text => print(&report.to_string()),
        Listing::Json => print(&to_string_pretty(&report.json())?),
    }
}
