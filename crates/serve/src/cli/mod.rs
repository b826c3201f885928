//! The command line.

mod asked;
mod batch;
mod bench;
#[cfg(feature = "ballista")]
mod cluster;
#[cfg(feature = "offline")]
mod engine;
mod features;
#[cfg(feature = "offline")]
mod history;
mod input;
#[cfg(feature = "offline")]
mod materialize;
mod models;
mod monitor;
mod observe;
mod output;
#[cfg(feature = "offline")]
mod replay;
mod serve;
#[cfg(feature = "offline")]
mod sql;
mod top;
mod vectors;
#[cfg(feature = "offline")]
mod verify;

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use http::HeaderValue;
use millstream_featurestore::{StoredSet, Stores};
use millstream_runtime::Limits;
use serde_json::json;

use crate::{
    DecodeLimits, Ending, Project, Server,
    project::{chain, one_of},
    project_schema,
};

type Failure = Box<dyn std::error::Error>;

/// Serving graphs for machine learning: features, expressions and ONNX models in one process.
#[derive(Parser)]
#[command(name = "millstream", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve every graph of a project over HTTP.
    Serve(Box<ServeArgs>),
    /// Check a project: its file, its feature sets, its models, and every graph.
    Validate(ProjectArgs),
    /// Show what a graph compiles to.
    Explain(ExplainArgs),
    /// Run a graph over the rows of a file.
    Batch(batch::BatchArgs),
    /// Compare what was served with what the past says.
    #[cfg(feature = "offline")]
    Verify(verify::VerifyArgs),
    /// List, read and write the feature sets of a project that nobody serves.
    Features(features::FeaturesArgs),
    /// Ask a project's feature sets, as they were at all times.
    #[cfg(feature = "offline")]
    Sql(sql::SqlArgs),
    /// Run the processes of a cluster for training sets and queries.
    #[cfg(feature = "ballista")]
    Cluster(cluster::ClusterArgs),
    /// List, show and read the feature vectors of a project that nobody serves.
    Vectors(vectors::VectorsArgs),
    /// List, show, check, load and time models.
    Models(models::ModelsArgs),
    /// Report what was watched of graphs, and how files of rows differ.
    Monitor(monitor::MonitorArgs),
    /// Ask a graph again what its request log has, and compare the replies.
    #[cfg(feature = "offline")]
    Replay(replay::ReplayArgs),
    /// Show one request of a graph's request log, step by step.
    #[cfg(feature = "offline")]
    ExplainRequest(replay::ExplainRequestArgs),
    /// Send requests to a server at a fixed rate, and report latencies.
    Bench(bench::BenchArgs),
    /// Show how the graphs of a server do, second by second.
    Top(top::TopArgs),
    /// Make keys for callers of a server.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Run one model for a server, over standard input and output.
    #[command(hide = true)]
    Isolated,
    /// Print the JSON Schema of project files.
    Schema,
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make a key. It is printed once, and what a file of keys has of it.
    New,
}

#[derive(Args)]
struct ServeArgs {
    /// The project's folder or file.
    #[arg(default_value = ".")]
    project: PathBuf,
    /// The folder for what feature sets keep; the project's by default.
    #[arg(long, env = "MILLSTREAM_STATE", value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, env = "MILLSTREAM_BIND", default_value = "127.0.0.1:8080")]
    bind: SocketAddr,
    /// Threads that serve; by default one per core.
    #[arg(long, env = "MILLSTREAM_THREADS")]
    threads: Option<usize>,
    /// Runs under way at once, per graph; more are refused with 429.
    #[arg(long, env = "MILLSTREAM_MAX_RUNS", default_value_t = 1024)]
    max_runs: usize,
    /// Let in as many runs as --max-runs says however long they take, instead of fewer while they wait for each other.
    #[arg(long, env = "MILLSTREAM_FIXED_RUNS")]
    fixed_runs: bool,
    /// Bytes of request bodies under way, per graph.
    #[arg(long, env = "MILLSTREAM_MAX_BYTES", default_value_t = 256 << 20)]
    max_bytes: usize,
    /// The time a run has when its request says nothing, in milliseconds.
    #[arg(long, env = "MILLSTREAM_DEADLINE_MS", default_value_t = 30_000)]
    deadline_ms: u64,
    /// Rows of requests that come together and share a run; 1 gives every request a run of its own.
    #[arg(long, env = "MILLSTREAM_SHARED_ROWS", default_value_t = 64)]
    shared_rows: usize,
    /// The time in which the process ends after a signal to stop, in seconds.
    #[arg(long, env = "MILLSTREAM_GRACE_S", default_value_t = 25)]
    grace_s: u64,
    /// Whether clients may load and unload models of the repository, and change what is traced and logged.
    #[arg(long, env = "MILLSTREAM_MODEL_CONTROL", default_value = "none", value_name = "WHO")]
    model_control: serve::ModelControl,
    /// Write metrics under the names of another server too, which dashboards may chart already.
    #[arg(long, env = "MILLSTREAM_COMPAT_METRICS", value_name = "SERVER")]
    compat_metrics: Option<serve::Compat>,
    #[command(flatten)]
    access: serve::AccessArgs,
    #[command(flatten)]
    connections: serve::ConnectionArgs,
    #[command(flatten)]
    reload: serve::ReloadArgs,
    #[command(flatten)]
    observe: observe::ObserveArgs,
}

#[derive(Args)]
struct ProjectArgs {
    /// The project's folder or file.
    #[arg(default_value = ".")]
    project: PathBuf,
    /// How to print what is listed.
    #[arg(long, default_value = "text")]
    output: Listing,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Listing {
    Text,
    Json,
}

#[derive(Args)]
struct ExplainArgs {
    /// The graph; may be left out when the project has one.
    graph: Option<String>,
    /// The project's folder or file.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// As a Mermaid diagram.
    #[arg(long, conflicts_with = "svg")]
    mermaid: bool,
    /// As an SVG picture.
    #[arg(long)]
    svg: bool,
    /// How to print the steps.
    #[arg(long, default_value = "text", conflicts_with_all = ["mermaid", "svg"])]
    output: Listing,
}

/// Runs the command line. Data goes to standard output, everything else to standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Serve(args) => serve(&args),
        Command::Validate(args) => validate(&args),
        Command::Explain(args) => explain(&args),
        Command::Batch(args) => batch::batch(&args),
        #[cfg(feature = "offline")]
        Command::Verify(args) => verify::verify(&args),
        Command::Features(args) => features::features(&args),
        #[cfg(feature = "offline")]
        Command::Sql(args) => sql::sql(&args),
        #[cfg(feature = "ballista")]
        Command::Cluster(args) => cluster::cluster(args),
        Command::Vectors(args) => vectors::vectors(&args),
        Command::Models(args) => models::models(&args),
        Command::Monitor(args) => monitor::monitor(&args),
        #[cfg(feature = "offline")]
        Command::Replay(args) => replay::replay(&args),
        #[cfg(feature = "offline")]
        Command::ExplainRequest(args) => replay::explain_request(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Top(args) => top::top(&args),
        Command::Keys { command: KeysCommand::New } => new_key(),
        Command::Isolated => isolated(),
        Command::Schema => print(&serde_json::to_string_pretty(&project_schema()).unwrap_or_default()),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "millstream", &mut text);
            print(String::from_utf8_lossy(&text).trim_end())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has gone away, as `head` does, is no failure.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &ServeArgs) -> Result<(), Failure> {
    args.observe.log();
    let token = args.reload.token()?;
    let project = Project::load_among(&args.project, &stores(args.state.as_deref())?)?;
    let limits = Limits {
        runs: args.max_runs,
        adaptive: !args.fixed_runs,
        bytes: args.max_bytes,
        deadline: Some(Duration::from_millis(args.deadline_ms)),
        shared_rows: args.shared_rows,
        ..Limits::default()
    };
    let connections = args.connections.limits();
    let server = Server::with_connections(&project, &limits, DecodeLimits::default(), connections)?;
    let server = server.observe(args.observe.observe(project.name())?)?;
    let server = server.model_control(args.model_control == serve::ModelControl::Explicit);
    let server = match args.compat_metrics {
        Some(names) => server.compat_metrics(names.into()),
        None => server,
    };
    let server = args.access.secure(server, args.bind)?;
    let graphs = project.graph_names().collect::<Vec<_>>().join(", ");
    let (name, version) = (project.name().to_owned(), project.version().to_owned());
    // What it holds is the server's from here on, and goes with the version that is served.
    drop(project);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.bind)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", args.bind))?;
        let address = listener.local_addr()?;
        let (server, watched) = args.reload.attach(server, args, token).await?;
        let (mut first, mut second) = (serve::StopSignals::new()?, serve::StopSignals::new()?);
        let stop = async { args.ending(first.next().await) };
        let again = async {
            second.next().await;
            second.next().await;
        };
        let scheme = args.access.scheme();
        tracing::info!(project = name, version, graphs, "serving on {scheme}://{address}");
        tokio::select! {
            served = server.serve_until(listener, stop) => served?,
            () = again => tracing::warn!("asked to stop again: requests under way are cut off"),
            () = serve::watching(watched) => {}
        }
        Ok(())
    });
    // A reload under way has a thread of its own, and is not waited for.
    runtime.shutdown_background();
    served
}

/// The key for a server that asks for one. No flag has it: arguments can be seen by others.
fn key() -> Result<Option<HeaderValue>, Failure> {
    let Some(text) = std::env::var_os("MILLSTREAM_KEY") else { return Ok(None) };
    let key = text.to_str().and_then(|text| HeaderValue::from_str(text).ok());
    let mut key = key.ok_or("MILLSTREAM_KEY is not a key")?;
    key.set_sensitive(true);
    Ok(Some(key))
}

/// Runs a model for the server that has started this process, until that closes the pipe.
fn isolated() -> Result<(), Failure> {
    #[cfg(unix)]
    outlive_signals()?;
    Ok(millstream_models::run_isolated(std::io::stdin().lock(), std::io::stdout().lock())?)
}

/// Whoever stops a service may signal all of its processes at once. The server still answers what it has taken then, and needs its
/// models for it.
#[cfg(unix)]
fn outlive_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _within = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        // What has been listened to once does not end the process any more, whether anybody listens or not.
        drop(signal(kind)?);
    }
    Ok(())
}

fn new_key() -> Result<(), Failure> {
    let (key, digest) = crate::security::new_key()?;
    print(&format!("key     {key}\nsha256  {digest}"))
}

impl ServeArgs {
    /// How to stop when asked in this way.
    fn ending(&self, stop: serve::Stop) -> Ending {
        let drain_delay = match stop {
            serve::Stop::Terminate => Duration::from_secs(self.connections.drain_delay_s),
            serve::Stop::Interrupt => Duration::ZERO,
        };
        Ending { drain_delay, grace: Duration::from_secs(self.grace_s) }
    }
}

fn validate(args: &ProjectArgs) -> Result<(), Failure> {
    // Beside a server that has the stores open.
    let project = Project::load_among(&args.project, &Stores::aside())?;
    if args.output == Listing::Json {
        let graphs = project.graph_names().map(|name| {
            let plan = project.plan(name)?;
            Ok(json!({ "name": name, "steps": plan.steps().len(), "row_wise": plan.row_wise() }))
        });
        let sets = project
            .features()
            .iter()
            .map(|set| json!({ "name": set.set().name(), "rows": rows_of(set), "takes_rows": set.writable().is_some() }));
        let models = project
            .models()
            .iter()
            .map(|(name, model)| json!({ "name": name, "signature": model.info().to_string() }));
        let listing = json!({
            "project": project.name(),
            "graphs": graphs.collect::<Result<Vec<_>, Failure>>()?,
            "feature_sets": sets.collect::<Vec<_>>(),
            "models": models.collect::<Vec<_>>(),
        });
        return print(&serde_json::to_string_pretty(&listing)?);
    }
    let mut text = format!("project `{}` is valid", project.name());
    for set in project.features().iter() {
        let holds = rows_of(set).map_or("takes rows".to_owned(), |rows| format!("{rows} rows"));
        text += &format!("\n  feature set {}: {holds}", set.set().name());
    }
    for (_, model) in project.models().iter() {
        text += &format!("\n  model {}", model.info());
    }
    for name in project.graph_names() {
        text += &format!("\n  graph {name}: {} steps", project.plan(name)?.steps().len());
    }
    print(&text)
}

/// The rows of a set that does not change.
fn rows_of(set: &StoredSet) -> Option<usize> {
    match set {
        StoredSet::Loaded(table) => Some(table.len()),
        _ => None,
    }
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    // Beside a server that has the stores open.
    let project = Project::load_among(&args.project, &Stores::aside())?;
    let graph = graph_name(&project, args.graph.as_deref())?;
    let plan = project.plan(graph)?;
    match (args.mermaid, args.svg, args.output) {
        (true, ..) => print(plan.mermaid().trim_end()),
        (_, true, _) => print(plan.svg().trim_end()),
        (.., Listing::Json) => print(&serde_json::to_string_pretty(&crate::describe::graph(&plan))?),
        (.., Listing::Text) => print(&plan.to_string()),
    }
}

/// The graph that was named, or the only one.
fn graph_name<'p>(project: &'p Project, named: Option<&'p str>) -> Result<&'p str, Failure> {
    Ok(one_of(named, project.graph_names())?)
}

/// Where the stores of feature sets lie.
fn stores(state: Option<&Path>) -> Result<Arc<Stores>, Failure> {
    let Some(state) = state else { return Ok(Stores::new()) };
    std::fs::create_dir_all(state).map_err(|error| format!("{} cannot be made: {error}", state.display()))?;
    Ok(Stores::in_folder(state))
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints data.
fn print(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Says what went wrong, on standard error; nobody is left to tell when that is closed too.
fn complain(error: &dyn std::error::Error) {
    let _ = writeln!(std::io::stderr(), "error: {}", chain(error));
}

/// Says something beside the data.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
