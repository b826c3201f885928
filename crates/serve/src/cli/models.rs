//! `millstream models`: the models of a project, model files, and the models of a server.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Method, Uri};
use millstream_featurestore::Stores;
use millstream_models::{
    CheckedModel, Given, Load, LoadOptions, LoadedVersion, ModelSpec, ModelUrl, OnnxModel, Repository,
    Structure,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Failure, print};
use crate::{
    Project,
    ask::Ask,
    fetch::{CacheSpec, Fetched, fetch_all},
    monitoring::statistics,
};

/// What a server has to load a model.
const PATIENCE: Duration = Duration::from_secs(600);
const ANSWER_BYTES: usize = 1 << 20;
/// How long a model is run to see what that costs, for each number of rows.
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    command: Command,
    /// The project's folder or file.
    #[arg(long, global = true, default_value = ".")]
    project: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List the models of a project, those of its repository among them.
    List,
    /// Show what a model takes and answers.
    Show { model: String },
    /// Check model files: what they are made of, and what a run costs on this machine.
    Check {
        /// Files, or URLs as a project names them, whose files are kept where those of the project are.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Load a model of a running server's repository, in the place of what is served of it.
    Load(ServerArgs),
    /// Take a model of a running server's repository out of service.
    Unload(ServerArgs),
    /// Time runs of a model file by their rows, on one thread.
    Bench {
        /// A file, or a URL as a project names it.
        file: PathBuf,
        /// Rows of a run.
        #[arg(long, value_delimiter = ',', default_value = "1,8,32,128")]
        rows: Vec<NonZeroUsize>,
    },
}

#[derive(Args)]
struct ServerArgs {
    model: String,
    /// The server, such as http://127.0.0.1:8080. It must run with --model-control explicit, or ask for keys; MILLSTREAM_KEY has one.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: Uri,
}

pub(super) fn models(args: &ModelsArgs) -> Result<(), Failure> {
    match &args.command {
        Command::List => list(args),
        Command::Show { model } => show(args, model),
        Command::Check { files } => check(args, files),
        Command::Load(server) => tell(server, "load"),
        Command::Unload(server) => tell(server, "unload"),
        Command::Bench { file, rows } => bench(args, file, rows),
    }
}

/// The project, and its repository with nothing in it loaded.
fn opened(args: &ModelsArgs) -> Result<(Project, Option<Repository<LoadedVersion>>), Failure> {
    // Beside a server that has the stores open.
    let project = Project::load_among(&args.project, &Stores::aside())?;
    let Some(spec) = project.repository() else { return Ok((project, None)) };
    let spec = millstream_models::RepositorySpec { load: Load::Asked, ..spec.clone() };
    let repository = Repository::open(project.root(), spec, BTreeSet::new(), Ok)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok((project, Some(repository)))
}

fn list(args: &ModelsArgs) -> Result<(), Failure> {
    let (project, repository) = opened(args)?;
    let own = project.models().iter().map(|(name, model)| {
        let mut listed = json!({ "name": name, "versions": ["1"], "signature": model.info().to_string() });
        if let Some(spec) = project.models().spec(name) {
            let statistics = statistics::of_model(project.root(), spec);
            let said = [
                ("url", json!(spec.url.as_ref().map(ToString::to_string))),
                ("sha256", json!(project.files().fetched().get(name).map(|fetched| fetched.sha256()))),
                ("description", json!(spec.description)),
                ("labels", json!(spec.labels)),
                ("explain", json!(spec.explain)),
                ("statistics", json!(statistics.map(|file| file.display().to_string()))),
            ];
            for (name, value) in said {
                if !value.is_null() && value.as_object().is_none_or(|labels| !labels.is_empty()) {
                    listed[name] = value;
                }
            }
        }
        listed
    });
    let mut listed: Vec<Value> = own.collect();
    for line in repository.iter().flat_map(Repository::index).flatten() {
        let name = line.name;
        listed.push(match repository.as_ref().map(|repository| repository.offered(&name)) {
            Some(Ok(versions)) => {
                let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
                json!({ "name": name, "versions": versions })
            }
            Some(Err(error)) => json!({ "name": name, "versions": [], "problem": error.to_string() }),
            None => continue,
        });
    }
    if args.json {
        return print(&serde_json::to_string_pretty(&listed)?);
    }
    let lines = listed.iter().map(|model| {
        let text = |key: &str| model[key].as_str().unwrap_or_default();
        let versions = model["versions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        match (text("signature"), text("problem")) {
            ("", "") => format!("{}  versions {}", text("name"), versions.collect::<Vec<_>>().join(", ")),
            ("", problem) => problem.to_owned(),
            (signature, _) if model["url"].is_string() => format!("{signature}  from {}", text("url")),
            (signature, _) => signature.to_owned(),
        }
    });
    print(&lines.collect::<Vec<_>>().join("\n"))
}

fn show(args: &ModelsArgs, name: &str) -> Result<(), Failure> {
    let (project, repository) = opened(args)?;
    if let Some(model) = project.models().get(name) {
        let from = project.files().fetched().get(name).map(|fetched| &**fetched);
        return shown(args, &[(1, model.info().to_string(), None)], from);
    }
    let known = || project.models().iter().map(|(name, _)| name);
    let Some(repository) = repository else {
        return Err(millstream_graph::suggest::unknown("model", name, known()).into());
    };
    repository.load(name, &Given::default())?;
    let served = repository.get(name).ok_or("it went away")?;
    let versions = served.iter().map(|(number, version)| {
        (number, version.model.info().to_string(), version.config.max_rows.map(NonZeroUsize::get))
    });
    shown(args, &versions.collect::<Vec<_>>(), None)
}

/// Versions with what they take and answer, the most rows of a request, and where they came from.
fn shown(
    args: &ModelsArgs,
    versions: &[(u64, String, Option<usize>)],
    from: Option<&Fetched>,
) -> Result<(), Failure> {
    if args.json {
        let versions = versions.iter().map(|(version, signature, rows)| {
            let mut shown =
                json!({ "version": version.to_string(), "signature": signature, "max_rows": rows });
            if let Some(fetched) = from {
                shown["url"] = fetched.from.as_str().into();
                shown["sha256"] = fetched.sha256().into();
            }
            shown
        });
        return print(&serde_json::to_string_pretty(&Value::from_iter(versions))?);
    }
    let lines = versions.iter().map(|(version, signature, rows)| {
        let rows = rows.map_or(String::new(), |rows| format!(" (at most {rows} rows)"));
        let from =
            from.map_or(String::new(), |from| format!("\n  from {}, sha256 {}", from.from, from.sha256()));
        format!("version {version}{rows}  {signature}{from}")
    });
    print(&lines.collect::<Vec<_>>().join("\n"))
}

/// A model file that was named by its path or its URL.
struct Named {
    /// The file as it may be shown.
    shown: String,
    path: PathBuf,
    /// It stays in the cache while it is read.
    _fetched: Option<Arc<Fetched>>,
}

impl Named {
    fn find(args: &ModelsArgs, file: &Path) -> Result<Self, Failure> {
        let Some(url) = file.to_str().filter(|text| text.contains("://")) else {
            return Ok(Self { shown: file.display().to_string(), path: file.to_owned(), _fetched: None });
        };
        let cache = Project::document_at(&args.project)
            .ok()
            .and_then(|(document, _)| document.typed::<CacheSpec>(&["model_cache"]).ok());
        let spec = ModelSpec { path: None, url: Some(ModelUrl::new(url)), ..ModelSpec::new("") };
        let (root, one) = (Project::folder(&args.project), std::iter::once(("model", &spec)));
        let (fetched, failed) = fetch_all(&root, &cache.unwrap_or_default(), one);
        let shown = ModelUrl::new(url).to_string();
        if let Some((_, error)) = failed.first() {
            return Err(format!("{shown}: {error}").into());
        }
        let fetched = fetched.into_values().next().ok_or_else(|| format!("{shown}: nothing was fetched"))?;
        Ok(Self { shown, path: fetched.model().file, _fetched: Some(fetched) })
    }

    fn read(&self) -> Result<CheckedModel, Failure> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = self.path.file_name().ok_or_else(|| format!("{} is no file", self.shown))?;
        let limits = LoadOptions::default().limits;
        let checked = CheckedModel::read(folder.unwrap_or(Path::new(".")), Path::new(name), &limits);
        Ok(checked.map_err(|error| format!("{}: {error}", self.shown))?)
    }

    /// The model with one instance, which runs on one thread.
    fn load(&self, checked: &CheckedModel) -> Result<OnnxModel, Failure> {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let options = LoadOptions { instances: NonZeroUsize::new(1), ..LoadOptions::default() };
        let model = OnnxModel::from_checked(&name, checked, &options);
        Ok(model.map_err(|error| format!("{}: {error}", self.shown))?)
    }
}

/// The middle time of runs over so many rows, in microseconds.
fn timed(model: &OnnxModel, rows: usize, long: Duration) -> Result<f64, Failure> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || start.elapsed() < long {
        let before = Instant::now();
        model.run_on_zeros(rows)?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

fn check(args: &ModelsArgs, files: &[PathBuf]) -> Result<(), Failure> {
    let (mut told, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        match Named::find(args, file).and_then(|file| Ok((checked(&file)?, file.shown))) {
            Ok((one, file)) => told.push((file, one)),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    if args.json {
        let all = told.iter().map(|(file, (structure, cost))| json(file, structure, *cost));
        print(&serde_json::to_string_pretty(&Value::from_iter(all))?)?;
    } else {
        let all: Vec<_> = told.iter().map(|(file, (structure, cost))| text(file, structure, *cost)).collect();
        if !all.is_empty() {
            print(&all.join("\n"))?;
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n").into()) }
}

/// What a file is made of, and the microseconds of a run over one row and over 32.
fn checked(file: &Named) -> Result<(Structure, [f64; 2]), Failure> {
    let checked = file.read()?;
    let model = file.load(&checked)?;
    Ok((checked.structure()?, [timed(&model, 1, SHORT)?, timed(&model, 32, SHORT)?]))
}

fn json(file: &str, structure: &Structure, [one, many]: [f64; 2]) -> Value {
    let values = |values: &[millstream_models::StructureValue]| -> Value {
        values.iter().map(|value| json!({ "name": value.name, "type": value.kind })).collect()
    };
    json!({
        "file": file,
        "producer": structure.producer,
        "ir_version": structure.ir_version,
        "opsets": structure.opsets.iter().map(|(name, version)| (name.clone(), json!(version))).collect::<Value>(),
        "inputs": values(&structure.inputs),
        "outputs": values(&structure.outputs),
        "operators": structure.operators,
        "parameters": structure.parameters,
        "bytes": structure.bytes,
        "cost_us": { "rows_1": one, "rows_32": many },
    })
}

fn text(file: &str, structure: &Structure, [one, many]: [f64; 2]) -> String {
    let mut text = file.to_owned();
    let mut line = |name: &str, value: &str| text += &format!("\n  {name:<10}  {value}");
    for (name, values) in [("input", &structure.inputs), ("output", &structure.outputs)] {
        for value in values {
            line(name, &format!("{}: {}", value.name, value.kind));
        }
    }
    let opsets: Vec<_> = structure.opsets.iter().map(|(name, version)| format!("{name} {version}")).collect();
    line("opset", &opsets.join(", "));
    let mut operators: Vec<_> = structure.operators.iter().collect();
    operators.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), name.as_str()));
    let operators: Vec<_> = operators.iter().map(|(name, count)| format!("{name} x {count}")).collect();
    line("operators", &operators.join(", "));
    line("parameters", &structure.parameters.to_string());
    line("size", &format!("{} bytes", structure.bytes));
    if !structure.producer.is_empty() {
        line("producer", &structure.producer);
    }
    line("cost", &format!("{one:.1} us for one row, {:.2} us a row for 32, on one thread", many / 32.0));
    text
}

fn bench(args: &ModelsArgs, file: &Path, rows: &[NonZeroUsize]) -> Result<(), Failure> {
    let file = Named::find(args, file)?;
    let model = file.load(&file.read()?)?;
    let mut timings = Vec::new();
    for rows in rows.iter().map(|rows| rows.get()) {
        timings.push((rows, timed(&model, rows, LONG)?));
    }
    if args.json {
        let all = timings.iter().map(|(rows, us)| json!({ "rows": rows, "us": us }));
        return print(&serde_json::to_string_pretty(&Value::from_iter(all))?);
    }
    let lines = timings.iter().map(|(rows, us)| {
        format!("{rows:>7}  {us:>12.1}  {:>12.2}  {:>14.0}", us / *rows as f64, *rows as f64 / us * 1e6)
    });
    let head = format!("{:>7}  {:>12}  {:>12}  {:>14}", "rows", "us a run", "us a row", "rows a second");
    print(&std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n"))
}

fn tell(ServerArgs { model, url }: &ServerArgs, what: &str) -> Result<(), Failure> {
    let name = utf8_percent_encode(model, NON_ALPHANUMERIC);
    let url = url.to_string();
    let ask = Ask {
        method: Method::POST,
        url: format!("{}/v2/repository/models/{name}/{what}", url.trim_end_matches('/')).parse()?,
        media: "application/json",
        body: Bytes::new(),
        key: super::key()?,
        within: PATIENCE,
        most: ANSWER_BYTES,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, body) = runtime.block_on(ask.send())?;
    if status.is_success() {
        return print(&format!("{model}: {what}ed"));
    }
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    Err(answer["error"].as_str().map_or_else(|| status.to_string(), str::to_owned).into())
}
