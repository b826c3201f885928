//! What is served under the protocol: graphs, and models by themselves.

use std::{
    num::NonZeroUsize,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use arrow::datatypes::{DataType, Field, Fields, Schema};
use millstream_graph::{Graph, Plan, SchemaError};
use millstream_models::{
    self as models, InputInfo, Keep, Keys, LoadedVersion, ModelConfig, ModelInfo, ModelStep, OutputInfo,
    OutputKind, VersionPolicy,
};
use millstream_runtime::{Engine, Limits, Metrics, Totals};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{
    about::{self, About},
    outputs::Output,
    statistics::Counts,
    tensor::Tensor,
};
use crate::{
    body::BodyLimits,
    project::{Project, chain},
    service::GraphService,
    snapshot::Terms,
    wire::DecodeLimits,
};

/// The only version of graphs, and of models that a project names by itself.
pub(super) const VERSION: &str = "1";

/// A graph, or a model of the project by itself, as clients of the protocol see it.
pub(crate) struct Model {
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Output>,
    pub(super) config: Value,
    pub(super) counts: Counts,
    metadata: Value,
    /// What it runs on, as clients of Triton know it: platform and backend.
    pub(super) platform: (&'static str, &'static str),
    /// Whether its replies come in parts, to those who ask for a stream.
    pub(super) streams: bool,
    /// Which versions beside it are served.
    pub(super) policy: VersionPolicy,
    /// What the project says of it, as texts by name.
    pub(super) about: About,
    /// The graph that explains its answers.
    explainer: Option<GraphService>,
    name: String,
    version: String,
    runs: Runs,
}

/// What a model's requests run on.
enum Runs {
    Graph(GraphService),
    Alone(Later<Alone>),
}

/// On what terms models by themselves are served.
#[derive(Clone)]
pub(crate) struct AloneTerms {
    limits: Limits,
    decode: DecodeLimits,
    body: BodyLimits,
    metrics: Metrics,
}

impl From<&Terms> for AloneTerms {
    fn from(terms: &Terms) -> Self {
        // A project may have hundreds, most of which rest: they share their threads.
        let limits = Limits { compute_pool: Some(terms.models_pool.clone()), ..terms.limits.clone() };
        Self { limits, decode: terms.decode, body: terms.body, metrics: terms.metrics.clone() }
    }
}

/// A model in a graph of one step. Its engine is made when somebody asks for it.
struct Alone {
    graph: Graph,
    terms: AloneTerms,
    service: OnceLock<GraphService>,
}

/// What takes a while to be given back, which no thread of requests waits for.
struct Later<T: Send + 'static>(Option<Box<T>>);

impl<T: Send + 'static> Deref for Later<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("it goes only when this is dropped"),
        }
    }
}

impl<T: Send + 'static> Drop for Later<T> {
    #[expect(clippy::disallowed_methods, reason = "one per model that goes, and nobody waits for it")]
    fn drop(&mut self) {
        let value = self.0.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(value));
        }
    }
}

/// Every graph, and every model whose name no graph has. What cannot be served this way is told in the log.
pub(crate) fn models(project: &Project, graphs: &[(String, GraphService)], terms: &Terms) -> Vec<Arc<Model>> {
    let mut served = Vec::new();
    let mut add = |name: &str, model: Result<Model, String>| match model {
        Ok(model) => served.push(Arc::new(model)),
        Err(reason) => {
            tracing::warn!(model = name, reason, "not served by the Open Inference Protocol");
        }
    };
    let named = |name: &String| graphs.iter().find(|(graph, _)| graph == name);
    let explainer = |name: Option<&String>| name.and_then(named).map(|(_, service)| service.clone());
    for (name, service) in graphs {
        let explainer = explainer(project.graph_spec(name).ok().and_then(|spec| spec.explain.as_ref()));
        let model = Model::of_graph(name, service).map_err(|error| error.to_string());
        add(name, model.map(|model| model.told(about::of_graph(project, name), explainer)));
    }
    let terms = AloneTerms::from(terms);
    for (name, model) in project.models().iter() {
        if !graphs.iter().any(|(graph, _)| graph == name) {
            let explainer = explainer(project.models().spec(name).and_then(|spec| spec.explain.as_ref()));
            let model = Model::alone((name, VERSION), name, model, &terms);
            add(name, model.map(|model| model.told(about::of_model(project, name), explainer)));
        }
    }
    served
}

impl Model {
    fn of_graph(name: &str, service: &GraphService) -> Result<Self, SchemaError> {
        let plan = service.engine().plan();
        let outputs = Output::all(plan.reply_schema())?;
        let runs = Runs::Graph(service.clone());
        let inputs = Tensor::all(plan.input_schema())?;
        let mut model =
            Self::new((name, VERSION), ("millstream_graph", "millstream"), (inputs, outputs), runs);
        model.streams = plan.stream().is_some();
        if model.streams {
            model.config["model_transaction_policy"] = json!({ "decoupled": true });
        }
        Ok(model)
    }

    /// A version of a model of the repository.
    pub(super) fn of_version(version: LoadedVersion, terms: &AloneTerms) -> Result<Self, String> {
        let LoadedVersion { name, version, model, config, labels } = version;
        let mut terms = terms.clone();
        if let Some(most) = config.max_rows {
            terms.limits.shared_rows = terms.limits.shared_rows.min(most.get());
            terms.decode.rows = terms.decode.rows.min(most.get());
        }
        let version = version.to_string();
        // Of two versions that are served at once, each is counted by itself.
        let mut served = Self::alone((&name, &version), &format!("{name}:{version}"), &model, &terms)?;
        served.outputs = served
            .outputs
            .into_iter()
            .map(|output| match labels.get(output.name()) {
                Some(labels) => output.labelled(labels.clone()),
                None => output,
            })
            .collect();
        served.configured(&config);
        Ok(served)
    }

    /// The same, of which clients are told this, and which a graph explains.
    fn told(mut self, about: About, explainer: Option<GraphService>) -> Self {
        if !about.is_empty() {
            self.metadata["parameters"] = json!(about);
            let parameter =
                |(name, text): (&String, &String)| (name.clone(), json!({ "string_value": text }));
            self.config["parameters"] = about.iter().map(parameter).collect();
        }
        Self { about, explainer, ..self }
    }

    /// Tells of itself as its configuration does.
    fn configured(&mut self, config: &ModelConfig) {
        let rows = config.max_rows.map_or(0, NonZeroUsize::get);
        self.config["max_batch_size"] = rows.into();
        self.policy = config.versions.clone();
        self.config["version_policy"] = match &self.policy {
            VersionPolicy::Latest(count) => json!({ "latest": { "num_versions": count } }),
            VersionPolicy::All => json!({ "all": {} }),
            VersionPolicy::Specific(versions) => json!({ "specific": { "versions": versions } }),
        };
        if rows == 0 {
            return;
        }
        // The rows are the batch then, and no dimension.
        for tensors in ["input", "output"] {
            for tensor in self.config[tensors].as_array_mut().into_iter().flatten() {
                if let Some(dims) = tensor["dims"].as_array_mut() {
                    dims.remove(0);
                }
            }
        }
    }

    /// A model by itself, counted under the name of `graph`: its tensors are those that it declares.
    fn alone(
        name: (&str, &str),
        graph: &str,
        model: &Arc<dyn models::Model>,
        terms: &AloneTerms,
    ) -> Result<Self, String> {
        let info = model.info();
        let fields =
            columns(info).ok_or("an input has no dimension for rows, or a size that no column has")?;
        let mut graph = Graph::new(graph, Arc::new(Schema::new(fields)));
        let step = ModelStep::new(Arc::clone(model)).keep(Keep::None);
        let answered = graph.add("model", "model", (&graph.input()).into(), Arc::new(step));
        graph.respond(&answered);
        let plan: Plan = graph.compile().map_err(|problems| problems.to_string())?;
        let outputs = Output::all(plan.reply_schema()).map_err(|error| error.to_string())?;
        // The values of a model are never null, whatever their lists could hold.
        let outputs = outputs.into_iter().filter(|output| !output.tells_nulls());
        let outputs = outputs.zip(&info.outputs).map(|(output, declared)| as_declared(output, declared));
        let inputs = Tensor::all(plan.input_schema()).map_err(|error| error.to_string())?;
        let alone = Alone { terms: terms.clone(), service: OnceLock::new(), graph };
        let runs = Runs::Alone(Later(Some(Box::new(alone))));
        Ok(Self::new(name, ("onnx_onnxv1", "onnxruntime"), (inputs, outputs.collect()), runs))
    }

    fn new(
        (name, version): (&str, &str),
        (platform, backend): (&'static str, &'static str),
        (inputs, outputs): (Vec<Tensor>, Vec<Output>),
        runs: Runs,
    ) -> Self {
        let tensors = inputs.iter().map(|input| (&input.name, input.datatype, &input.dims));
        let metadata = json!({
            "name": name,
            "versions": [version],
            "platform": platform,
            "inputs": tensors.clone().map(|(name, datatype, dims)| Tensor::metadata(name, datatype, dims)).collect::<Value>(),
            "outputs": outputs.iter().map(Output::metadata).collect::<Value>(),
        });
        let config = json!({
            "name": name,
            "platform": platform,
            "backend": backend,
            "version_policy": { "latest": { "num_versions": 1 } },
            // Shapes have the rows themselves.
            "max_batch_size": 0,
            "input": tensors.zip(&inputs).map(|((name, datatype, dims), input)| {
                let mut config = Tensor::config(name, datatype, dims);
                config["format"] = "FORMAT_NONE".into();
                config["optional"] = input.optional.into();
                config
            }).collect::<Value>(),
            "output": outputs.iter().map(Output::config).collect::<Value>(),
        });
        Self {
            inputs,
            outputs,
            config,
            counts: Counts::default(),
            metadata,
            platform: (platform, backend),
            streams: false,
            policy: VersionPolicy::Latest(1),
            about: About::new(),
            explainer: None,
            name: name.to_owned(),
            version: version.to_owned(),
            runs,
        }
    }

    /// Inputs and outputs, where these versions are served.
    pub(super) fn metadata(&self, versions: &[String]) -> Value {
        let mut metadata = self.metadata.clone();
        metadata["versions"] = versions.into();
        metadata
    }

    /// The most rows of a request, as its configuration says; 0 where it does not.
    pub(super) fn max_rows(&self) -> i32 {
        self.config["max_batch_size"].as_i64().and_then(|rows| rows.try_into().ok()).unwrap_or(0)
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What its requests run on.
    ///
    /// # Errors
    /// What its caller may know, when it could not be made.
    pub(super) fn service(&self) -> Result<&GraphService, String> {
        match &self.runs {
            Runs::Graph(service) => Ok(service),
            Runs::Alone(alone) => alone.service().map_err(|reason| {
                tracing::error!(model = self.name, reason, "a model cannot be run by itself");
                format!("model `{}` cannot be run at present; the log says why", self.name)
            }),
        }
    }

    /// The graph that explains its answers.
    pub(super) fn explainer(&self) -> Option<&GraphService> {
        self.explainer.as_ref()
    }

    /// What its engine has counted, once it has one.
    pub(super) fn totals(&self) -> Option<Totals> {
        match &self.runs {
            Runs::Graph(service) => Some(service.engine().totals()),
            Runs::Alone(alone) => alone.service.get().map(|service| service.engine().totals()),
        }
    }

    /// The engine that it has beside those of graphs, once it has been asked.
    pub(crate) fn own_engine(&self) -> Option<&Engine> {
        match &self.runs {
            Runs::Graph(_) => None,
            Runs::Alone(alone) => alone.service.get().map(GraphService::engine),
        }
    }
}

impl Alone {
    fn service(&self) -> Result<&GraphService, String> {
        if let Some(service) = self.service.get() {
            return Ok(service);
        }
        let made = self.make()?;
        // Of two that were made at the same time, one counts.
        Ok(self.service.get_or_init(|| made))
    }

    fn make(&self) -> Result<GraphService, String> {
        let plan = self.graph.compile().map_err(|problems| problems.to_string())?;
        let AloneTerms { limits, decode, body, metrics } = &self.terms;
        let engine = Engine::with_metrics(plan, limits.clone(), metrics).map_err(|error| chain(&error))?;
        let service = GraphService::new(engine, *decode).map_err(|error| error.to_string())?;
        Ok(service.body_limits(*body))
    }
}

/// The columns of a model that is served by itself, if there can be such.
pub(crate) fn columns(info: &ModelInfo) -> Option<Fields> {
    info.inputs.iter().map(field).collect()
}

/// The column that holds the rows of an input.
fn field(input: &InputInfo) -> Option<Field> {
    let (_, sizes) = input.shape.split_first()?;
    let data_type = sizes.iter().rev().try_fold(input.dtype.arrow(), |item, size| {
        let item = Arc::new(Field::new_list_field(item, false));
        Some(match size {
            Some(size) => DataType::FixedSizeList(item, i32::try_from(*size).ok().filter(|size| *size > 0)?),
            None => DataType::List(item),
        })
    })?;
    Some(Field::new(&input.name, data_type, false))
}

/// An output of the shape that the model declares, with the names of its classes.
fn as_declared(output: Output, declared: &OutputInfo) -> Output {
    match &declared.kind {
        OutputKind::Tensor { shape, .. } => {
            output.declared(shape.get(1..).unwrap_or_default().to_vec(), Vec::new())
        }
        OutputKind::Maps { keys } => {
            let labels = match keys {
                Keys::Ints(keys) => keys.iter().map(i64::to_string).collect(),
                Keys::Strings(keys) => keys.clone(),
            };
            output.declared(vec![Some(keys.len())], labels)
        }
    }
}
