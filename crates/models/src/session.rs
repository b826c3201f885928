//! ONNX models through ONNX Runtime: one thread per session, several sessions per model.

use std::{num::NonZeroUsize, path::Path, sync::Arc, thread::available_parallelism};

use ort::{
    session::{Session, builder::GraphOptimizationLevel},
    value::{TensorElementType, ValueType},
};
use sha2::{Digest, Sha256};

use crate::{
    CheckedModel, DType, InputInfo, Isolated, Keys, LibraryError, Limits, Model, ModelError, ModelInfo,
    OutputInfo, OutputKind, PrecheckError, Tensor, instance::Instance, library, model::Read, pool::Pool,
    precheck::Classes,
};

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no ONNX Runtime on this machine.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The file was refused before the runtime saw it.
    #[error(transparent)]
    Refused(#[from] PrecheckError),
    /// The settings do not say where the file is, or say it twice.
    #[error("{problem}")]
    Source {
        /// What is wrong with them.
        problem: &'static str,
    },
    /// The file is not the one that was pinned.
    #[error("the file's sha256 is {got}, not {wanted}")]
    Digest {
        /// What was pinned.
        wanted: String,
        /// What the file has.
        got: String,
    },
    /// The runtime does not take the model.
    #[error("the runtime refuses it: {0}")]
    Runtime(String),
    /// An input or output has a type that rows cannot be turned into.
    #[error("`{name}` is {found}, which is not supported")]
    Unsupported {
        /// The input or output.
        name: String,
        /// Its type.
        found: String,
    },
    /// The first run failed.
    #[error("its warm-up run failed (`warm_up: false` skips it): {0}")]
    WarmUp(ModelError),
}

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How many runs may be inside the model at once; each costs the model's memory. Default: one per core.
    pub instances: Option<NonZeroUsize>,
    /// Whether to run the model once while loading, on zeros (default). It makes the first request as fast as any
    /// other, proves that the model runs, and shows the sizes of outputs that the file leaves open.
    pub warm_up: bool,
    /// The file's SHA-256 in hexadecimal, if it is pinned.
    pub sha256: Option<String>,
    /// What the file may be.
    pub limits: Limits,
    /// Whether each instance is a process of its own, for models of people whom you do not trust: [`Isolated`].
    pub isolated: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { instances: None, warm_up: true, sha256: None, limits: Limits::default(), isolated: false }
    }
}

/// Loads a model that has been checked, in this process or in others, as the options say.
///
/// # Errors
/// As [`OnnxModel::from_checked`] and [`Isolated::from_checked`].
pub fn load(name: &str, model: &CheckedModel, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
    Ok(if options.isolated {
        Arc::new(Isolated::from_checked(name, model, options)?)
    } else {
        Arc::new(OnnxModel::from_checked(name, model, options)?)
    })
}

/// Refuses a file that is not the one that is pinned.
pub(crate) fn pinned(model: &CheckedModel, options: &LoadOptions) -> Result<(), LoadError> {
    if let Some(wanted) = &options.sha256 {
        let got = hex(&Sha256::digest(model.bytes()));
        if !got.eq_ignore_ascii_case(wanted.trim()) {
            return Err(LoadError::Digest { wanted: wanted.clone(), got });
        }
    }
    Ok(())
}

/// An ONNX model, run by ONNX Runtime on the thread that asks.
///
/// Each instance computes on one thread; runs that come at the same time use different instances, and wait for one
/// when all are busy.
pub struct OnnxModel {
    info: ModelInfo,
    pool: Pool<Instance>,
}

impl OnnxModel {
    /// Loads the file at `path`, relative to the folder `root` and inside it.
    ///
    /// # Errors
    /// When there is no runtime, the file is refused, or the model does not run.
    pub fn load(name: &str, root: &Path, path: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        Self::from_checked(name, &CheckedModel::read(root, path, &options.limits)?, options)
    }

    /// Loads a model that has been checked.
    ///
    /// # Errors
    /// When there is no runtime, the digest is another, or the model does not run.
    pub fn from_checked(name: &str, model: &CheckedModel, options: &LoadOptions) -> Result<Self, LoadError> {
        pinned(model, options)?;
        let first = session(model)?;
        let mut info =
            ModelInfo { name: name.to_owned(), inputs: inputs(&first)?, outputs: outputs(&first, model)? };
        let mut first = Instance::new(first);
        if options.warm_up {
            let seen = first.run_on_zeros(&info, 1).map_err(LoadError::WarmUp)?;
            observe(&mut info, &seen);
        }
        first.keep_tensors(&info);
        let count = options.instances.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let mut instances = vec![first];
        while instances.len() < count {
            let mut instance = Instance::new(session(model)?);
            if options.warm_up {
                instance.run_on_zeros(&info, 1).map_err(LoadError::WarmUp)?;
            }
            instance.keep_tensors(&info);
            instances.push(instance);
        }
        Ok(Self { info, pool: Pool::new(instances) })
    }

    /// Runs once over so many rows of zeros, where the model takes any number: to see what that costs.
    ///
    /// # Errors
    /// When the model fails on them.
    pub fn run_on_zeros(&self, rows: usize) -> Result<(), ModelError> {
        self.pool.take().run_on_zeros(&self.info, rows).map(drop)
    }
}

impl Model for OnnxModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, inputs: &[Tensor<'_>], wanted: &[usize], read: &mut Read<'_>) -> Result<(), ModelError> {
        self.pool.take().run(&self.info, inputs, wanted, read)
    }
}

impl std::fmt::Debug for OnnxModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxModel").field("info", &self.info).finish_non_exhaustive()
    }
}

pub(crate) fn session(model: &CheckedModel) -> Result<Session, LoadError> {
    let environment = library::environment()?;
    // The checked bytes are handed over, not the path: nobody can swap the file in between.
    build_session(&environment, model).map_err(LoadError::Runtime)
}

fn build_session(
    environment: &ort::environment::Environment,
    model: &CheckedModel,
) -> Result<Session, String> {
    let folder = model.folder().to_str().ok_or("the model's folder has a name that is not UTF-8")?;
    Session::builder(environment)
        .map_err(said)?
        .with_intra_threads(1)
        .map_err(said)?
        .with_inter_threads(1)
        .map_err(said)?
        .with_parallel_execution(false)
        .map_err(said)?
        .with_intra_op_spinning(false)
        .map_err(said)?
        .with_inter_op_spinning(false)
        .map_err(said)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(said)?
        .with_config_entry("session.model_external_initializers_file_folder_path", folder)
        .map_err(said)?
        // What was checked is an ONNX model. The runtime would rather look for its own format first.
        .with_config_entry("session.load_model_format", "ONNX")
        .map_err(said)?
        .commit_from_memory(model.bytes())
        // Where models lie on this machine is nobody's business.
        .map_err(|error| said(error).replace(folder, "the model's folder"))
}

/// What the runtime says about a failure.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(crate) fn said<R>(error: ort::Error<R>) -> String {
    error.message().to_owned()
}

pub(crate) fn inputs(session: &Session) -> Result<Vec<InputInfo>, LoadError> {
    let each = session.inputs().iter().map(|input| match input.dtype() {
        ValueType::Tensor { ty, shape, .. } if dtype(*ty).is_some() => {
            let dtype = dtype(*ty).unwrap_or(DType::F32);
            Ok(InputInfo { name: input.name().to_owned(), dtype, shape: sizes(shape) })
        }
        other => Err(LoadError::Unsupported { name: input.name().to_owned(), found: other.to_string() }),
    });
    each.collect()
}

pub(crate) fn outputs(session: &Session, model: &CheckedModel) -> Result<Vec<OutputInfo>, LoadError> {
    let each = session.outputs().iter().map(|output| {
        let name = output.name().to_owned();
        let unsupported = || LoadError::Unsupported { name: name.clone(), found: output.dtype().to_string() };
        let kind = match output.dtype() {
            ValueType::Tensor { ty, shape, .. } => {
                OutputKind::Tensor { dtype: dtype(*ty).ok_or_else(unsupported)?, shape: sizes(shape) }
            }
            ValueType::Sequence(element) => match (&**element, model.classes(&name)) {
                (ValueType::Map { value: TensorElementType::Float32, .. }, Some(Classes::Ints(keys))) => {
                    OutputKind::Maps { keys: Keys::Ints(keys.clone()) }
                }
                (ValueType::Map { value: TensorElementType::Float32, .. }, Some(Classes::Strings(keys))) => {
                    OutputKind::Maps { keys: Keys::Strings(keys.clone()) }
                }
                _ => return Err(unsupported()),
            },
            _ => return Err(unsupported()),
        };
        Ok(OutputInfo { name: name.clone(), kind })
    });
    each.collect()
}

fn sizes(shape: &[i64]) -> Vec<Option<usize>> {
    shape.iter().map(|&size| usize::try_from(size).ok()).collect()
}

fn dtype(ty: TensorElementType) -> Option<DType> {
    Some(match ty {
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Float64 => DType::F64,
        TensorElementType::Int8 => DType::I8,
        TensorElementType::Int16 => DType::I16,
        TensorElementType::Int32 => DType::I32,
        TensorElementType::Int64 => DType::I64,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Uint16 => DType::U16,
        TensorElementType::Uint32 => DType::U32,
        TensorElementType::Uint64 => DType::U64,
        TensorElementType::Bool => DType::Bool,
        TensorElementType::String => DType::Str,
        _ => return None,
    })
}

/// Fills in what the file leaves open about the outputs with what the warm-up run `seen`.
fn observe(info: &mut ModelInfo, seen: &[Option<Vec<usize>>]) {
    // When an input has more than its rows open, the outputs' sizes may follow it, and one run says nothing.
    let fixed = info.inputs.iter().all(|input| input.shape.iter().skip(1).all(Option::is_some));
    for (output, seen) in info.outputs.iter_mut().zip(seen) {
        let (OutputKind::Tensor { shape, .. }, Some(seen)) = (&mut output.kind, seen) else { continue };
        let declared = std::mem::take(shape);
        *shape = seen
            .iter()
            .enumerate()
            .map(|(i, &size)| match declared.get(i) {
                Some(declared) if i == 0 && declared.is_some() => *declared,
                _ if i == 0 => None,
                Some(None) | None if !fixed => None,
                _ => Some(size),
            })
            .collect();
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
