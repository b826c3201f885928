//! `millstream run`: a graph over the rows of a file.

use std::{io::IsTerminal, path::PathBuf, sync::Arc};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use millstream_runtime::Limits;

use super::{Failure, graph_name, input::Input, output::Output};
use crate::Project;

#[derive(Args)]
pub(super) struct RunArgs {
    /// The graph; may be left out when the project has one.
    graph: Option<String>,
    /// The project's folder or file.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// The rows: a `.json` array, `.jsonl`, `.csv` with a header, or `.parquet`.
    #[arg(long)]
    input: PathBuf,
    /// Where replies go: `.json`, `.jsonl`, `.csv` or `.parquet`; `-` is JSON Lines on standard output.
    #[arg(long)]
    output: PathBuf,
    /// Rows per run.
    #[arg(long, default_value_t = 4096)]
    batch: usize,
}

pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let project = Project::load(&args.project)?;
    let engine = project.engine(graph_name(&project, args.graph.as_deref())?, Limits::default())?;
    let plan = Arc::clone(engine.plan());
    let input = Input::open(&args.input, plan.input_schema(), args.batch.max(1))?;
    let mut output = Output::create(&args.output, plan.reply_schema())?;
    let progress = progress_bar(input.total(), "rows");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut first, mut replied) = (0, 0);
    for batch in input {
        let batch = batch?;
        let last = first + batch.num_rows();
        let reply = runtime
            .block_on(engine.run(batch))
            .map_err(|error| format!("rows {first} to {}: {error}", last.saturating_sub(1)))?;
        replied += reply.rows().num_rows();
        output.write(reply.rows())?;
        progress.inc((last - first) as u64);
        first = last;
    }
    output.finish()?;
    runtime.block_on(engine.close());
    progress.finish_and_clear();
    super::note(&format!("{first} rows in, {replied} rows out"));
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
pub(super) fn progress_bar(total: Option<u64>, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), format!("{{bar:40}} {{pos}}/{{len}} {what}  {{per_sec}}  {{eta}} left"))
        }
        None => (ProgressBar::new_spinner(), format!("{{spinner}} {{pos}} {what}  {{per_sec}}")),
    };
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
