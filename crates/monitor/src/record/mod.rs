//! The request log of a graph: what was asked, what each watched step answered, and what was replied, as Parquet files by hour.
//!
//! A [`Recorder`] sits on the serving path. It holds the batches of running requests by reference count, and hands those of ended
//! ones to a [`Writer`], which somebody drains in the background. A [`Reader`] finds the rows of a time or of a request. All that is
//! held in memory has a bound; what has no room is dropped and counted in [`Counts`], and a request is logged whole or not at all.
//!
//! There is a row of the log for each row of a request that was seen on a watched edge:
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `request_id` | text | the caller's name for the request |
//! | `run` | text | the run, as 16 hex digits |
//! | `row` | `u32` | which row of the request |
//! | `rows` | `u32` | how many rows the request had; null where the edge `input` is not watched or saw nothing of it |
//! | `at` | timestamp, µs, UTC | when the request came |
//! | `took_us` | `i64` | how long it took, in microseconds |
//! | `outcome` | text | `ok`, or the kind of the error |
//! | `degraded` | list of text | the steps that were replaced by something lesser |
//! | `graph_version` and others | text | what answered |
//! | `{edge}__seen` | bool | whether the row came over the edge |
//! | `{edge}__{column}` | as on the edge | what it had there, null where it did not come |
//!
//! Values are kept bit for bit. Only dictionaries and runs are logged as their values, since those of two batches differ.
//!
//! Files are `<path>/<graph>/hour=2026-12-01T05/<replica>-<number>.parquet`, each sorted by `at` and in the hour of its rows' `at`.
//! They appear whole or not at all. A crash loses what was not written yet, which is at most what came within the setting `flush`
//! and the time between two calls of [`Writer::drain`].
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow::{
//!     array::{Float64Array, RecordBatch},
//!     datatypes::{DataType, Field, Schema},
//! };
//! use millstream_graph::RunId;
//! use millstream_monitor::record::{Finished, Reader, RecordSettings, Recorder, Watched, Writer};
//!
//! # let folder = tempfile::tempdir()?;
//! # let settings = format!(r#"{{"path": {:?}}}"#, folder.path());
//! let settings: RecordSettings = serde_json::from_str(&settings)?;
//! let schema = Arc::new(Schema::new(vec![Field::new("amount", DataType::Float64, false)]));
//! let edges = [Watched { name: "input".to_owned(), schema: Arc::clone(&schema) }];
//! let recorder = Arc::new(Recorder::new("fraud", &settings, &edges, |name| std::env::var(name).ok())?);
//! let mut writer = Writer::open(Arc::clone(&recorder))?;
//!
//! let rows = RecordBatch::try_new(schema, vec![Arc::new(Float64Array::from(vec![12.5, 99.0]))])?;
//! recorder.observe(RunId(7), 0, &rows, |row| Some(row as u32));
//! recorder.finish(Finished {
//!     run: RunId(7),
//!     request_id: Some("a-1"),
//!     at: 1_796_101_200_000_000,
//!     took: 850,
//!     outcome: "ok",
//!     degraded: &[],
//!     versions: Arc::from(["3".to_owned()]),
//! });
//! assert_eq!(writer.flush(1_796_101_201_000_000)?.rows, 2);
//!
//! let log = Reader::open(recorder.folder())?;
//! let found = log.request("a-1")?.ok_or("no such request")?;
//! assert_eq!(found.column_by_name("input__amount"), Some(rows.column(0)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod build;
mod compact;
mod encode;
mod error;
mod files;
mod folder;
mod hour;
mod layout;
mod open;
mod personal;
mod reader;
mod recorder;
mod sample;
mod settings;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{Mistake, Mistakes, ReadError, RecordError};
pub use layout::Watched;
pub use reader::{Example, Hour, LogRows, Reader, Values};
pub use recorder::{Counts, Finished, Recorder};
pub use settings::RecordSettings;
pub use writer::{Drained, Writer};
