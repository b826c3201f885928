//! `millstream sql`: a query over the feature sets of a project, as they were at all times.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use arrow::{
    array::RecordBatch, datatypes::SchemaRef, util::display::FormatOptions,
    util::pretty::pretty_format_batches_with_options,
};
use clap::Args;
use futures_util::{Stream, TryStreamExt};

use super::{Failure, batch::progress_bar, engine::EngineArgs, note, output::Output, print};

#[derive(Args)]
pub(super) struct SqlArgs {
    /// The query, such as `SELECT count(*) FROM cards`. Every feature set is a table of its rows of all times, every
    /// feature vector one of the newest.
    query: String,
    /// The project's folder or file.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// The folder for what feature sets keep; the project's by default.
    #[arg(long, env = "MILLSTREAM_STATE", value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Write the rows to a file: `.parquet`, `.csv`, `.json`, `.jsonl` or `.arrow`.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Print JSON Lines on a terminal too, and all of them.
    #[arg(long)]
    json: bool,
    /// How many rows are printed as a table.
    #[arg(long, default_value_t = 100)]
    rows: usize,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(super) fn sql(args: &SqlArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = args.engine.open(&args.project, args.state.as_deref())?.store;
        let rows = store.query(&args.query).await?;
        let schema = rows.schema();
        match &args.output {
            Some(file) => {
                let count = write(file, &schema, rows).await?;
                note(&format!("{count} rows"));
                Ok(())
            }
            None if args.json || !std::io::stdout().is_terminal() => {
                write(Path::new("-"), &schema, rows).await.map(drop)
            }
            None => print(&table(&schema, rows, args.rows).await?),
        }
    })
}

async fn write<E: Into<Failure>>(
    file: &Path,
    schema: &SchemaRef,
    mut rows: impl Stream<Item = Result<RecordBatch, E>> + Unpin,
) -> Result<u64, Failure> {
    let mut output = Output::create(file, schema)?;
    let progress = progress_bar(None, "rows");
    let mut count = 0;
    while let Some(batch) = rows.try_next().await.map_err(Into::into)? {
        output.write(&batch)?;
        count += batch.num_rows() as u64;
        progress.set_position(count);
    }
    output.finish()?;
    progress.finish_and_clear();
    Ok(count)
}

/// The first rows as a table for people; what comes after them is not computed.
async fn table<E: Into<Failure>>(
    schema: &SchemaRef,
    mut rows: impl Stream<Item = Result<RecordBatch, E>> + Unpin,
    most: usize,
) -> Result<String, Failure> {
    let (mut shown, mut count, mut more) = (Vec::new(), 0, false);
    while let Some(batch) = rows.try_next().await.map_err(Into::into)? {
        let room = most - count;
        more = batch.num_rows() > room;
        shown.push(batch.slice(0, batch.num_rows().min(room)));
        count += batch.num_rows().min(room);
        if more {
            break;
        }
    }
    let options = FormatOptions::new().with_null("null");
    let empty = [RecordBatch::new_empty(SchemaRef::clone(schema))];
    let shown = if shown.is_empty() { &empty[..] } else { &shown };
    let table = pretty_format_batches_with_options(shown, &options)?;
    Ok(match (more, count) {
        (true, _) => format!("{table}\nthe first {most} rows; --rows shows more, --output writes all"),
        (false, 1) => format!("{table}\n1 row"),
        (false, count) => format!("{table}\n{count} rows"),
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use futures_util::stream;
    use millstream_graph::rows;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
    fn check(batches: Vec<RecordBatch>, most: usize, expected: Expect) {
        let schema = batches[0].schema();
        let rows = stream::iter(batches.into_iter().map(Ok::<_, Failure>));
        expected
            .assert_eq(&futures_util::FutureExt::now_or_never(table(&schema, rows, most)).unwrap().unwrap());
    }

    #[test]
    fn a_table_is_bounded_and_says_so() {
        let rows = rows! { id: [7_i64, 8], tier: [Some("gold"), None] };
        check(
            vec![rows.clone()],
            2,
            expect![[r#"
                +----+------+
                | id | tier |
                +----+------+
                | 7  | gold |
                | 8  | null |
                +----+------+
                2 rows"#]],
        );
        check(
            vec![rows.clone(), rows.slice(0, 1)],
            2,
            expect![[r#"
                +----+------+
                | id | tier |
                +----+------+
                | 7  | gold |
                | 8  | null |
                +----+------+
                the first 2 rows; --rows shows more, --output writes all"#]],
        );
        check(
            vec![rows.slice(0, 1)],
            2,
            expect![[r#"
                +----+------+
                | id | tier |
                +----+------+
                | 7  | gold |
                +----+------+
                1 row"#]],
        );
        check(
            vec![rows.slice(0, 0)],
            2,
            expect![[r#"
                +----+------+
                | id | tier |
                +----+------+
                +----+------+
                0 rows"#]],
        );
    }
}
