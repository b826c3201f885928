//! The flags for logs and, of `millstream serve`, traces.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use http::Uri;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, filter::Directive};

use super::Failure;
use crate::{
    Observe, Traces,
    observe::{ACCESS, log},
};

#[derive(Args)]
pub(super) struct ObserveArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Logs every request to a graph.
    #[arg(long, env = "MILLSTREAM_ACCESS_LOG")]
    access_log: bool,
    /// Where traces go: an OTLP receiver over HTTP, such as http://127.0.0.1:4318.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<Uri>,
    /// The part of requests without a trace context that are traced, 0 to 1; those with one are traced when it says so.
    #[arg(long, env = "MILLSTREAM_TRACE_SAMPLE", default_value_t = 0.0, value_parser = part)]
    trace_sample: f64,
}

#[derive(Args)]
pub(super) struct LogArgs {
    /// How log lines look.
    #[arg(long, env = "MILLSTREAM_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("a number from 0 to 1".to_owned()),
    }
}

impl LogArgs {
    /// Log lines go to standard error from here on.
    #[cfg(feature = "ballista")]
    pub(super) fn log(&self) {
        self.start(None);
    }

    /// The same, with those that `asked` names.
    fn start(&self, asked: Option<Directive>) {
        let filter = EnvFilter::try_from_env("MILLSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        let with_asked = move |filter: EnvFilter| match &asked {
            Some(asked) => filter.add_directive(asked.clone()),
            None => filter,
        };
        let level = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
        let lines =
            tracing_subscriber::fmt().with_env_filter(with_asked(filter)).with_writer(std::io::stderr);
        let lines = lines.with_target(false);
        macro_rules! start {
            ($lines:expr) => {{
                let lines = $lines.with_filter_reloading();
                let filter = lines.reload_handle();
                lines.init();
                log::started(level, move |level| {
                    // The subscriber is the process's, and goes with it.
                    let _ = filter.reload(with_asked(EnvFilter::default().add_directive(level.into())));
                });
            }};
        }
        match self.log_format {
            LogFormat::Text => start!(lines.with_ansi(std::io::stderr().is_terminal())),
            LogFormat::Json => start!(lines.json().flatten_event(true)),
        }
    }
}

impl ObserveArgs {
    /// Log lines go to standard error from here on.
    pub(super) fn log(&self) {
        // Whoever asks for access logs gets them, whatever else is filtered out.
        let asked = self.access_log.then(|| format!("{ACCESS}=info").parse().ok()).flatten();
        self.log.start(asked);
    }

    /// What the server tells of requests, under the name of its project.
    pub(super) fn observe(&self, project: &str) -> Result<Observe, Failure> {
        let traces = match &self.otlp_endpoint {
            None => None,
            Some(base) => Some(Traces {
                endpoint: traces_of(base)?,
                sample: self.trace_sample,
                service: std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| project.to_owned()),
            }),
        };
        Ok(Observe { traces, access_log: self.access_log })
    }
}

/// Where a receiver takes traces: at `/v1/traces` below its address.
fn traces_of(base: &Uri) -> Result<Uri, Failure> {
    let base = base.to_string();
    let base = base.trim_end_matches('/');
    Ok(format!("{base}/v1/traces").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_below_the_address_that_was_given() {
        for (base, traces) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("http://collector/otlp", "http://collector/otlp/v1/traces"),
        ] {
            assert_eq!(traces_of(&Uri::from_static(base)).unwrap().to_string(), traces);
        }
    }

    #[test]
    fn a_part_is_between_none_and_all() {
        assert_eq!([part("0"), part("0.25"), part("1")], [Ok(0.0), Ok(0.25), Ok(1.0)]);
        assert!(["-0.1", "1.1", "NaN", "x"].iter().all(|text| part(text).is_err()));
    }
}
