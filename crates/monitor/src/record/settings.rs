//! What a project file says of a request log.

use std::path::PathBuf;

use millstream_graph::spec::{Size, Time};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{error::Mistake, personal::Hmac};

/// Which requests are logged, what of them, where, and for how long.
///
/// ```
/// # use millstream_monitor::record::RecordSettings;
/// let settings: RecordSettings = serde_json::from_str(
///     r#"{"path": "log", "sample": 0.1, "key": "customer_id", "drop": ["note"], "hash": ["customer_id"],
///         "secret": "env:RECORD_SECRET", "max_bytes": "1GiB", "max_age": "14d"}"#,
/// )?;
/// assert_eq!(settings.replica, "0");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordSettings {
    /// The folder of the logs; each graph has a folder below it.
    pub path: PathBuf,
    /// The share of requests that is logged, above 0 and at most 1; all by default. A request is chosen by a hash of its id, so
    /// every replica chooses the same ones. A request without an id is chosen by its run, which differs between replicas.
    #[serde(default = "all")]
    pub sample: f64,
    /// A column whose values choose instead: with `customer_id`, all requests of the chosen customers are logged. A row without
    /// a value is chosen by its request.
    #[serde(default)]
    pub key: Option<String>,
    /// Columns that are not logged: `column` on every edge, or `edge__column` on one.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Columns of which only the HMAC-SHA-256 under `secret` is logged, as 64 hex digits: `column` or `edge__column`.
    #[serde(default)]
    pub hash: Vec<String>,
    /// The secret of `hash`, by reference: `env:NAME`.
    #[serde(default)]
    pub secret: Option<String>,
    /// Bytes of the graph's log on disk, all replicas together; `10GiB` by default. The oldest hours go first.
    #[serde(default = "max_bytes")]
    pub max_bytes: Size,
    /// How old an hour becomes before it is deleted; `30d` by default.
    #[serde(default = "max_age")]
    pub max_age: Time,
    /// Rows of ended requests that wait for the disk at most, and rows of running ones that are held per watched edge; 100 000 by
    /// default. What comes when there are as many is dropped and counted.
    #[serde(default = "buffer_rows")]
    pub buffer_rows: usize,
    /// How long rows wait in memory before they are written; `10s` by default. A crash loses as much.
    #[serde(default = "flush")]
    pub flush: Time,
    /// How long a request may run before what was seen of it is given up; `5m` by default.
    #[serde(default = "open_for")]
    pub open_for: Time,
    /// This process's name in the names of its files, another one for each that writes to the same folder; `0` by default.
    #[serde(default = "replica")]
    pub replica: String,
    /// Columns for versions besides `graph_version`, such as `model_version`.
    #[serde(default)]
    pub versions: Vec<String>,
}

fn all() -> f64 {
    1.0
}

fn max_bytes() -> Size {
    Size(10 << 30)
}

fn max_age() -> Time {
    Time(std::time::Duration::from_secs(30 * 24 * 3600))
}

fn buffer_rows() -> usize {
    100_000
}

fn flush() -> Time {
    Time(std::time::Duration::from_secs(10))
}

fn open_for() -> Time {
    Time(std::time::Duration::from_secs(300))
}

fn replica() -> String {
    "0".to_owned()
}

/// Settings that were checked, times in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// The folder of the graph.
    pub(super) root: PathBuf,
    pub(super) replica: String,
    pub(super) max_bytes: u64,
    pub(super) max_age: i64,
    pub(super) buffer_rows: usize,
    pub(super) flush: i64,
    pub(super) open_for: i64,
}

impl RecordSettings {
    /// Checks what needs no schema.
    pub(super) fn check(&self, graph: &str, mistakes: &mut Vec<Mistake>) -> Checked {
        // NaN is no share either.
        if !(self.sample > 0.0 && self.sample <= 1.0) {
            mistakes.push(Mistake::Sample(self.sample));
        }
        for (setting, name) in [("replica", self.replica.as_str()), ("graph", graph)] {
            if !names_files(name) {
                mistakes.push(Mistake::Name { setting, name: name.to_owned() });
            }
        }
        if self.buffer_rows == 0 {
            mistakes.push(Mistake::NoBuffer);
        }
        Checked {
            root: self.path.join(graph),
            replica: self.replica.clone(),
            max_bytes: self.max_bytes.0 as u64,
            max_age: micros(self.max_age),
            buffer_rows: self.buffer_rows,
            flush: micros(self.flush),
            open_for: micros(self.open_for),
        }
    }

    /// The secret that `hash` needs. It is looked up even where nothing is hashed, so that a wrong reference is found.
    pub(super) fn secret(
        &self,
        env: impl Fn(&str) -> Option<String>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Hmac> {
        const SHORTEST: usize = 16;
        let found = match &self.secret {
            None if self.hash.is_empty() => return None,
            None => Err(Mistake::NoSecret),
            Some(reference) => match reference.strip_prefix("env:").filter(|name| !name.is_empty()) {
                None => Err(Mistake::SecretForm),
                Some(name) => match env(name) {
                    None => Err(Mistake::SecretUnset(name.to_owned())),
                    Some(text) if text.len() < SHORTEST => {
                        Err(Mistake::SecretShort { name: name.to_owned(), bytes: text.len() })
                    }
                    Some(text) => Ok(Hmac::new(text.as_bytes())),
                },
            },
        };
        found.map_err(|mistake| mistakes.push(mistake)).ok()
    }
}

/// Whether a name can be part of a file's name, wherever the folder lies.
fn names_files(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

fn micros(time: Time) -> i64 {
    i64::try_from(time.0.as_micros()).unwrap_or(i64::MAX)
}
