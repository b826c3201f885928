//! `millstream features history`: training sets.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow::array::Array;
use clap::Args;
use millstream_featurestore::offline::Spine;
use millstream_graph::suggest;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::{Failure, batch::progress_bar, engine::EngineArgs, output::Output, print};
use crate::offline::Offline;

#[derive(Args)]
pub(super) struct HistoryArgs {
    /// The feature vector.
    vector: String,
    /// The rows that features are added to: `.parquet`, `.csv` with a header, or `.jsonl`.
    #[arg(long, value_name = "FILE", required_unless_present = "spine_sql", conflicts_with = "spine_sql")]
    spine: Option<PathBuf>,
    /// The same as a query over the project's feature sets.
    #[arg(long, value_name = "QUERY")]
    spine_sql: Option<String>,
    /// The spine's column with the time of each row: its features are those that were known then.
    #[arg(long, value_name = "COLUMN")]
    time: String,
    /// Where the rows go: `.parquet`, `.csv`, `.json`, `.jsonl` or `.arrow`.
    #[arg(long)]
    output: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(super) fn history(
    args: &HistoryArgs,
    (project, state): (&Path, Option<&Path>),
    as_json: bool,
) -> Result<(), Failure> {
    let Offline { store, vectors } = args.engine.open(project, state)?;
    let unknown = || suggest::unknown("feature vector", &args.vector, vectors.keys().map(String::as_str));
    let vector = vectors.get(&args.vector).ok_or_else(unknown)?;
    let spine = match (&args.spine, &args.spine_sql) {
        (Some(file), _) => Spine::file(file, &args.time),
        (None, Some(query)) => Spine::sql(query, &args.time),
        (None, None) => return Err("name a spine".into()),
    };
    Runtime::new()?.block_on(async {
        let mut set = store.history(vector, &spine).await?;
        let schema = set.schema();
        let mut output = Output::create(&args.output, &schema)?;
        let progress = progress_bar(args.spine.as_deref().and_then(rows_in), "rows");
        let (mut rows, mut nulls) = (0_u64, vec![0_u64; schema.fields().len()]);
        while let Some(batch) = set.next().await? {
            output.write(&batch)?;
            rows += batch.num_rows() as u64;
            nulls.iter_mut().zip(batch.columns()).for_each(|(nulls, column)| {
                *nulls += column.logical_null_count() as u64;
            });
            progress.set_position(rows);
        }
        output.finish()?;
        progress.finish_and_clear();
        let names = schema.fields().iter().map(|field| field.name());
        let added = names.zip(nulls).skip(set.spine_columns());
        if as_json {
            let nulls: Map<String, Value> = added.map(|(name, nulls)| (name.clone(), nulls.into())).collect();
            return print(&json!({ "rows": rows, "nulls": nulls }).to_string());
        }
        let lines = added.map(|(name, nulls)| format!("\n  {name}: {nulls} null"));
        print(&format!("{rows} rows{}", lines.collect::<String>()))
    })
}

/// The rows in a file that says so.
fn rows_in(file: &Path) -> Option<u64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).ok()?).ok()?;
    u64::try_from(reader.metadata().file_metadata().num_rows()).ok()
}
