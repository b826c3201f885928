//! Step kinds: what a spec file may name, how its settings are read, and the step they make.

use std::{collections::BTreeMap, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{SchemaError, Step};

type Build = dyn Fn(&Value) -> Result<Arc<dyn Step>, SettingsError> + Send + Sync;

/// A kind of step that a spec file may name, such as `filter` or `model`.
///
/// Each crate that has steps offers its kinds; whoever reads project files puts them together into [`Kinds`].
///
/// ```
/// use std::sync::Arc;
/// use millstream_graph::{spec::StepKind, Step, SchemaError};
/// # use millstream_graph::{Input, Output, RunCx, Signature, Work};
/// # struct Drop { columns: Vec<String> }
/// # impl Step for Drop {
/// #     fn signature(&self, inputs: &[arrow::datatypes::SchemaRef]) -> Result<Signature, SchemaError> {
/// #         Ok(Signature::row_wise(inputs[0].clone()))
/// #     }
/// #     fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> { Work::Done(input.rows(0).map(Output::one)) }
/// # }
/// /// Leaves columns out.
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct DropSettings {
///     /// The columns to leave out.
///     columns: Vec<String>,
/// }
///
/// let kind = StepKind::new("drop", |settings: DropSettings| {
///     Ok(Arc::new(Drop { columns: settings.columns }) as Arc<dyn Step>)
/// });
/// assert_eq!(kind.name(), "drop");
/// ```
#[derive(Clone)]
pub struct StepKind {
    name: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    build: Arc<Build>,
}

impl StepKind {
    /// A kind whose settings are `S` (unknown keys refused, documented for the JSON Schema), and which makes the step
    /// that `build` answers.
    pub fn new<S, F>(name: &'static str, build: F) -> Self
    where
        S: DeserializeOwned + JsonSchema,
        F: Fn(S) -> Result<Arc<dyn Step>, SchemaError> + Send + Sync + 'static,
    {
        let build = move |value: &Value| build(read(value)?).map_err(SettingsError::from);
        Self { name, schema: |generator| generator.subschema_for::<S>(), build: Arc::new(build) }
    }

    /// The word a spec file uses.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The JSON Schema of the settings.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Reads settings and makes the step.
    ///
    /// # Errors
    /// When a key is unknown or missing, a value has the wrong type, or the step cannot be made of them.
    pub fn build(&self, settings: &Value) -> Result<Arc<dyn Step>, SettingsError> {
        (self.build)(settings)
    }
}

type BuildLayer = dyn Fn(&Value, Arc<dyn Step>) -> Result<Arc<dyn Step>, SettingsError> + Send + Sync;

/// A layer that a spec file may put around any step, such as `timeout`: a key beside the step's kind.
#[derive(Clone)]
pub struct LayerKind {
    name: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    build: Arc<BuildLayer>,
}

impl LayerKind {
    /// A layer whose settings are `S`, put around a step by `build`.
    pub fn new<S, F>(name: &'static str, build: F) -> Self
    where
        S: DeserializeOwned + JsonSchema,
        F: Fn(S, Arc<dyn Step>) -> Result<Arc<dyn Step>, SchemaError> + Send + Sync + 'static,
    {
        let build = move |value: &Value, step| build(read(value)?, step).map_err(SettingsError::from);
        Self { name, schema: |generator| generator.subschema_for::<S>(), build: Arc::new(build) }
    }

    /// The word a spec file uses.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The JSON Schema of the settings.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Reads settings and puts the layer around a step.
    ///
    /// # Errors
    /// When a key is unknown or missing, or a value has the wrong type or makes no sense.
    pub fn build(&self, settings: &Value, step: Arc<dyn Step>) -> Result<Arc<dyn Step>, SettingsError> {
        (self.build)(settings, step)
    }
}

fn read<S: DeserializeOwned>(value: &Value) -> Result<S, SettingsError> {
    serde_path_to_error::deserialize(value).map_err(|error| SettingsError {
        path: error.path().iter().map(ToString::to_string).collect(),
        problems: vec![error.into_inner().to_string()],
    })
}

impl From<SchemaError> for SettingsError {
    fn from(error: SchemaError) -> Self {
        Self { path: Vec::new(), problems: error.problems().to_vec() }
    }
}

/// What is wrong with a step's settings, and where inside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// Keys and indices from the settings down to the place.
    pub path: Vec<String>,
    /// The problems, one sentence each.
    pub problems: Vec<String>,
}

/// The kinds that spec files of one application may name.
#[derive(Clone, Default)]
pub struct Kinds {
    by_name: BTreeMap<&'static str, StepKind>,
    layers: Vec<LayerKind>,
}

impl Kinds {
    /// Adds kinds; a later one replaces an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, kinds: impl IntoIterator<Item = StepKind>) -> Self {
        self.by_name.extend(kinds.into_iter().map(|kind| (kind.name, kind)));
        self
    }

    /// Adds layers that may stand around any step, innermost first.
    #[must_use]
    pub fn with_layers(mut self, layers: impl IntoIterator<Item = LayerKind>) -> Self {
        self.layers.extend(layers);
        self
    }

    /// The layers that may stand around a step, innermost first.
    pub fn layers(&self) -> &[LayerKind] {
        &self.layers
    }

    /// The layer named `name`.
    pub fn layer(&self, name: &str) -> Option<&LayerKind> {
        self.layers.iter().find(|layer| layer.name == name)
    }

    /// The kind named `name`.
    pub fn get(&self, name: &str) -> Option<&StepKind> {
        self.by_name.get(name)
    }

    /// Every kind, by name.
    pub fn iter(&self) -> impl Iterator<Item = &StepKind> {
        self.by_name.values()
    }
}
