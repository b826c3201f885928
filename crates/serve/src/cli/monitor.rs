//! What was watched, as a report; and two files beside each other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use millstream_featurestore::Stores;
use millstream_monitor::{
    BinRule, HistoryError, Reference, ReferenceOptions,
    compare::{Criterion, Profile, compare},
    history::read_panes,
    pane::Pane,
    report::Report,
    sketch::Merge,
};

use super::{Failure, print};
use crate::{
    Project,
    monitoring::{PastReferences, of_window, statistics, time},
};

#[derive(Args)]
pub(super) struct MonitorArgs {
    #[command(subcommand)]
    command: MonitorCommand,
}

#[derive(Subcommand)]
enum MonitorCommand {
    /// Report what was watched of a graph, from the counts that servers have kept.
    Report(ReportArgs),
    /// Report how a file of rows differs from another.
    Compare(CompareArgs),
    /// Write the statistics of a training set, which a graph's `reference` may name in its place.
    Profile(ProfileArgs),
}

#[derive(Args)]
struct ReportArgs {
    /// The graph.
    graph: String,
    /// The project's folder or file.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// Files of counts, those of each replica; that of the project's `monitoring.path` by default.
    #[arg(long, value_name = "FILE")]
    panes: Vec<PathBuf>,
    /// From this time on: `2026-12-01T05:00:00Z`, or so long before now: `24h`.
    #[arg(long)]
    from: Option<String>,
    /// Before this time.
    #[arg(long)]
    to: Option<String>,
    #[command(flatten)]
    output: ReportOutput,
}

#[derive(Args)]
struct ReportOutput {
    /// Write one page that needs nothing beside it.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the same as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct CompareArgs {
    /// What is compared with: a training set as Parquet or CSV, or its statistics.
    reference: PathBuf,
    /// The rows, as Parquet or CSV.
    live: PathBuf,
    /// Whose measures and thresholds decide.
    #[arg(long, default_value = "millstream")]
    profile: ProfileName,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    output: ReportOutput,
}

#[derive(Args)]
struct ColumnArgs {
    /// Whole numbers that are categories.
    #[arg(long, value_delimiter = ',')]
    categorical: Vec<String>,
    /// Columns whose values divide the rows.
    #[arg(long, value_delimiter = ',')]
    segments: Vec<String>,
}

#[derive(Args)]
struct ProfileArgs {
    /// The training set, as Parquet or CSV.
    data: PathBuf,
    /// Where to.
    #[arg(long, short, value_name = "FILE", required_unless_present = "model")]
    out: Option<PathBuf>,
    /// The model that was trained on it: its statistics are written beside it, where `reference: {model: ...}` looks for them.
    #[arg(long, conflicts_with = "out")]
    model: Option<String>,
    /// The folder or file of the model's project.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// The `profile` of the `drift` that they are for: each has bins of its own.
    #[arg(long, default_value = "millstream")]
    profile: ProfileName,
    /// The `bins` of that `drift`, where it says how many.
    #[arg(long, value_parser = bins)]
    bins: Option<usize>,
    #[command(flatten)]
    columns: ColumnArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileName {
    Millstream,
    Mlrun,
    Evidently,
    Nannyml,
}

/// A number of bins, as settings allow it.
fn bins(text: &str) -> Result<usize, String> {
    let bins = text.parse().ok().filter(|bins| (2..=100).contains(bins));
    bins.ok_or_else(|| "from 2 to 100".to_owned())
}

impl ProfileName {
    /// Whose measures decide, and in which bins.
    fn rule(self) -> (Profile, BinRule) {
        match self {
            Self::Millstream => (Profile::Millstream, BinRule::default()),
            Self::Mlrun => (Profile::Mlrun, BinRule::Mlrun),
            Self::Evidently => (Profile::Evidently, BinRule::default()),
            Self::Nannyml => (Profile::Nannyml, BinRule::Doane),
        }
    }
}

/// Values of a segment's column that are shown by themselves.
const SEGMENTS: usize = 50;

pub(super) fn monitor(args: &MonitorArgs) -> Result<(), Failure> {
    match &args.command {
        MonitorCommand::Report(args) => report(args),
        MonitorCommand::Compare(args) => compared(args),
        MonitorCommand::Profile(args) => profile(args),
    }
}

fn report(args: &ReportArgs) -> Result<(), Failure> {
    let project = Project::load_among(&args.project, &Stores::aside())?;
    project.graph_spec(&args.graph)?;
    let watch = project.watches().iter().find(|watch| watch.graph == args.graph);
    let watch = watch
        .ok_or_else(|| format!("graph `{}` is not watched; its `monitor` says what is to be", args.graph))?;
    let files = match &args.panes[..] {
        [] => vec![
            project
                .monitoring()
                .panes(&args.graph)
                .ok_or("name files of counts by --panes, or a folder by `monitoring.path`")?,
        ],
        files => files.to_vec(),
    };
    let now = time::now();
    let at =
        |text: &Option<String>, otherwise| text.as_ref().map_or(Ok(otherwise), |text| time::read(text, now));
    let (from, to) = (at(&args.from, i64::MIN)?, at(&args.to, i64::MAX)?);
    let counted = |from, to| {
        let mut over = Pane::default();
        for file in &files {
            for pane in read_panes(file)?.iter().filter(|pane| pane.is_within(from, to)) {
                over.merge(pane);
            }
        }
        Ok::<_, HistoryError>(over)
    };
    let over = counted(from, to)?;
    // The pane of an hour ends with its hour, which may not be over.
    let over = Pane { to: over.to.min(now), ..over };
    // What is of the past is as long as what is compared with it, or as the server's window.
    let window = match &args.from {
        Some(_) => over.to.saturating_sub(over.from),
        None => project.monitoring().window(),
    };
    let mut past = PastReferences::default();
    past.look(watch, (over.to, window), counted);
    let report = Report { project: project.name().to_owned(), made: now, ..of_window(watch, &over, &past) };
    args.output.write(&report)
}

fn compared(args: &CompareArgs) -> Result<(), Failure> {
    let (profile, bins) = args.profile.rule();
    let options = args.columns.options(bins);
    let reference = Reference::read(&args.reference, &options)?;
    let live = reference.count(&args.live, &options)?;
    let criterion = Criterion::of(profile);
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let edges = compare(&[("rows", &live, Some(&reference), criterion)]);
    let report = Report {
        graph: name(&args.live),
        reference: Some(name(&args.reference)),
        made: time::now(),
        requests: live.rows,
        edges,
        ..Report::default()
    };
    args.output.write(&report.counted())
}

fn profile(args: &ProfileArgs) -> Result<(), Failure> {
    let (_, bins) = args.profile.rule();
    let bins = args.bins.map_or(bins, BinRule::Quantiles);
    let reference = Reference::read(&args.data, &args.columns.options(bins))?;
    let out = args.target()?;
    fs::write(&out, reference.to_json()?).map_err(|error| format!("{}: {error}", out.display()))?;
    let rows = reference.rows();
    print(&match &args.model {
        Some(_) => format!("{}: {rows} rows", out.display()),
        None => format!("{rows} rows"),
    })
}

impl ProfileArgs {
    /// The file to write. That the model's project cannot be served without it does not matter.
    fn target(&self) -> Result<PathBuf, Failure> {
        let model = match (&self.out, &self.model) {
            (Some(out), _) => return Ok(out.clone()),
            (None, Some(model)) => model,
            (None, None) => return Err("name a file by --out, or a model by --model".into()),
        };
        let (document, root) = Project::document_at(&self.project)?;
        let file = statistics::place(&document, &root, model)?;
        if file.extension().is_none_or(|extension| extension != "json") {
            let file = file.display();
            return Err(
                format!("model `{model}` names `{file}` as its statistics: it is no .json file").into()
            );
        }
        Ok(millstream_featurestore::inside(&root, &file.to_string_lossy())?)
    }
}

impl ColumnArgs {
    fn options(&self, bins: BinRule) -> ReferenceOptions<'_> {
        ReferenceOptions {
            bins,
            categorical: &self.categorical,
            segments: &self.segments,
            most_segments: SEGMENTS,
            threads: None,
        }
    }
}

impl ReportOutput {
    fn write(&self, report: &Report) -> Result<(), Failure> {
        let put = |file: &PathBuf, text: &str| {
            fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
        };
        if let Some(file) = &self.html {
            put(file, &report.to_html())?;
        }
        if let Some(file) = &self.json {
            put(file, &report.to_json()?)?;
        }
        print(&report.summary())
    }
}
