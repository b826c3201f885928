//! `millstream batch`: a graph over the rows of a file.

use std::{io::IsTerminal, path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use millstream_graph::Plan;
use millstream_runtime::{Engine, Limits};
use tokio::runtime::{Handle, Runtime};

use super::{
    Failure,
    asked::{Asking, in_order},
    graph_name,
    output::Output,
    stores,
};
use crate::{Project, wire::UnknownFields};

#[derive(Args)]
pub(super) struct BatchArgs {
    /// The graph; may be left out when the project has one.
    graph: Option<String>,
    /// The project's folder or file.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// The folder for what feature sets keep; the project's by default.
    #[arg(long, env = "MILLSTREAM_STATE", value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// The rows: a `.json` array, `.jsonl`, `.csv` with a header, or `.parquet`.
    #[arg(long)]
    input: PathBuf,
    /// Where replies go: `.json`, `.jsonl`, `.csv`, `.parquet` or `.arrow`; `-` is JSON Lines on standard output.
    #[arg(long)]
    output: PathBuf,
    /// The input's column with the time for which a row's features are read; the present by default.
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// Where features are read: in the stores that serve, or among the rows of all times.
    #[arg(long, value_enum, default_value = "online")]
    features: Features,
    /// Rows per run.
    #[arg(long, default_value_t = 4096)]
    batch: usize,
}

/// Where features are read.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Features {
    Online,
    #[cfg(feature = "offline")]
    Offline,
}

pub(super) fn batch(args: &BatchArgs) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let engine = engine(args.plan(runtime.handle())?)?;
    let plan = Arc::clone(engine.plan());
    let asking = Asking::new(plan.input_schema(), args.time.as_deref(), &[]);
    let (total, asked) = asking.open(&args.input, args.batch.max(1), UnknownFields::Refuse)?;
    let mut output = Output::create(&args.output, plan.reply_schema())?;
    let progress = progress_bar(total, "rows");
    let (mut rows, mut replied) = (0, 0);
    let work = |asked: super::asked::Asked| {
        let engine = engine.clone();
        async move {
            let (first, count) = (asked.first, asked.rows.num_rows());
            let reply = engine.run_request(asked.request(), asked.rows).await;
            (first, count, reply)
        }
    };
    runtime.block_on(in_order(asked, work, |(first, count, reply)| {
        let last = (first + count).saturating_sub(1);
        let reply =
            reply.map_err(|error| format!("rows {first} to {last}: {}", crate::project::chain(&error)))?;
        rows += count;
        replied += reply.rows().num_rows();
        output.write(reply.rows())?;
        progress.inc(count as u64);
        Ok(())
    }))?;
    output.finish()?;
    runtime.block_on(engine.close());
    progress.finish_and_clear();
    super::note(&format!("{rows} rows in, {replied} rows out"));
    Ok(())
}

/// Runs a plan for nobody in particular: no deadline, and no request refused.
pub(super) fn engine(plan: Plan) -> Result<Engine, Failure> {
    Ok(Engine::new(plan, Limits { adaptive: false, ..Limits::default() })?)
}

impl BatchArgs {
    #[cfg_attr(
        not(feature = "offline"),
        expect(unused_variables, reason = "only rows of all times are read by a runtime")
    )]
    fn plan(&self, runtime: &Handle) -> Result<Plan, Failure> {
        match self.features {
            Features::Online => {
                let project = Project::load_among(&self.project, &stores(self.state.as_deref())?)?;
                Ok(project.plan(graph_name(&project, self.graph.as_deref())?)?)
            }
            #[cfg(feature = "offline")]
            Features::Offline => {
                let acts = crate::offline::Acts::Sends;
                let place = (self.project.as_path(), self.state.as_deref());
                Ok(crate::offline::plan(place, self.graph.as_deref(), acts, runtime)?.1)
            }
        }
    }
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
