//! `millstream features materialize`: an online store filled from an offline log.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::compute::kernels::cast_utils::string_to_datetime;
use chrono::Utc;
use clap::Args;
use millstream_featurestore::{
    FeatureSet, WritableSet,
    offline::{Log, LogSchema},
};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::{Failure, batch::progress_bar, features::add, print};

#[derive(Args)]
pub(super) struct MaterializeArgs {
    /// The feature set.
    pub(super) set: String,
    /// The folder of the log, for a set that has none of its own.
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// Leave out events that are later, such as `2026-01-31T12:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
}

pub(super) fn materialize(args: &MaterializeArgs, set: &WritableSet, as_json: bool) -> Result<(), Failure> {
    Runtime::new()?.block_on(async {
        let log = match (&args.from, set.log()) {
            (Some(folder), _) => Arc::new(log(folder, set.set()).await?),
            (None, Some(own)) => Arc::clone(own),
            (None, None) => {
                let problem = format!(
                    "feature set `{}` has no offline log; name the folder of one: --from FOLDER",
                    args.set
                );
                return Err(problem.into());
            }
        };
        let mut filled = set.materialize(&log, args.until).await?;
        let progress = progress_bar(Some(log.rows()), "rows");
        let (mut rows, mut totals) = (0, Map::new());
        while let Some(written) = filled.next().await? {
            written.counts().iter().for_each(|(outcome, rows)| add(&mut totals, outcome, *rows));
            rows += written.rows.len() as u64;
            progress.set_position(rows);
        }
        progress.finish_and_clear();
        if as_json {
            return print(&json!({ "rows": rows, "outcomes": totals }).to_string());
        }
        let came = |(outcome, rows): (&String, &Value)| {
            (rows.as_u64() > Some(0)).then(|| format!("{rows} {outcome}"))
        };
        let outcomes = totals.iter().filter_map(came).collect::<Vec<_>>().join(", ");
        let outcomes = if outcomes.is_empty() { outcomes } else { format!(": {outcomes}") };
        print(&format!("{rows} rows of the log{outcomes}"))
    })
}

/// The log in a folder, which must be one: opening would make it.
async fn log(folder: &Path, set: &FeatureSet) -> Result<Log, Failure> {
    if !folder.join("_log").is_dir() {
        return Err(format!("{} is no log: it has no folder `_log`", folder.display()).into());
    }
    Ok(Log::local(folder, LogSchema::of(set)?).await?)
}

/// Microseconds since 1970 UTC of a time as it is written; one without a zone is UTC.
fn time(text: &str) -> Result<i64, String> {
    let time = string_to_datetime(&Utc, text).map_err(|_| "it is no time, such as `2026-01-31T12:00:00Z`")?;
    Ok(time.timestamp_micros())
}
