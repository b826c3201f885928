//! What a model is: typed inputs and outputs, and a way to run.

use std::fmt;

use crate::{DType, Tensor};

/// A loaded model, shared by all runs.
///
/// [`OnnxModel`](crate::OnnxModel) is one; another backend implements the two methods and is used by the same steps.
pub trait Model: Send + Sync + 'static {
    /// What the model takes and answers.
    fn info(&self) -> &ModelInfo;

    /// Runs over `inputs` (one per [`ModelInfo::inputs`], in that order), and hands the outputs that are `wanted`
    /// (indices into [`ModelInfo::outputs`]) to `read`, in the order of `wanted`.
    ///
    /// # Errors
    /// When the model fails, or `read` does.
    fn run(&self, inputs: &[Tensor<'_>], wanted: &[usize], read: &mut Read<'_>) -> Result<(), ModelError>;
}

/// Takes the outputs of one run of a model, which last only as long as the call.
pub type Read<'r> = dyn FnMut(&[Value<'_>]) -> Result<(), ModelError> + 'r;

/// One output of one run of a model.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A tensor.
    Tensor(Tensor<'a>),
    /// One map per row, as `ZipMap` puts them out, all with the same keys.
    Maps(&'a Maps),
}

/// Maps with the same keys, one per row.
#[derive(Clone, Debug, PartialEq)]
pub struct Maps {
    /// The keys, in the order of the values.
    pub keys: Keys,
    /// The values, one row after the other.
    pub values: Vec<f32>,
}

/// The keys of maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Classes that are numbers.
    Ints(Vec<i64>),
    /// Classes that are names.
    Strings(Vec<String>),
}

impl Keys {
    /// The number of keys.
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(keys) => keys.len(),
            Self::Strings(keys) => keys.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a model takes and answers. Its `Display` is one line for people.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The model's name.
    pub name: String,
    /// What it takes.
    pub inputs: Vec<InputInfo>,
    /// What it answers.
    pub outputs: Vec<OutputInfo>,
}

/// One input of a model: a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct InputInfo {
    /// The input's name.
    pub name: String,
    /// The type of its values.
    pub dtype: DType,
    /// Its shape; `None` is a dimension of any size. The first dimension counts rows.
    pub shape: Vec<Option<usize>>,
}

/// One output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputInfo {
    /// The output's name.
    pub name: String,
    /// What it puts out.
    pub kind: OutputKind,
}

/// What an output of a model puts out.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputKind {
    /// A tensor.
    Tensor {
        /// The type of its values.
        dtype: DType,
        /// Its shape; `None` is a dimension that differs from run to run. The first dimension counts rows.
        shape: Vec<Option<usize>>,
    },
    /// A map from class to `Float32` per row.
    Maps {
        /// The classes.
        keys: Keys,
    },
}

impl fmt::Display for ModelInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        for (i, input) in self.inputs.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{} {} {}", input.name, input.dtype, Shape(&input.shape))?;
        }
        f.write_str(" -> ")?;
        for (i, output) in self.outputs.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{} {}", output.name, output.kind)?;
        }
        Ok(())
    }
}

impl fmt::Display for OutputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { dtype, shape } => write!(f, "{dtype} {}", Shape(shape)),
            Self::Maps { keys: Keys::Ints(keys) } => write!(f, "{{{}: Float32}}", listed(keys)),
            Self::Maps { keys: Keys::Strings(keys) } => write!(f, "{{{}: Float32}}", listed(keys)),
        }
    }
}

fn listed<T: fmt::Debug>(keys: &[T]) -> String {
    keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join("|")
}

/// A shape for people: `[N, 28]`, with `?` for a dimension of any size.
pub(crate) struct Shape<'a>(pub(crate) &'a [Option<usize>]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            match dim {
                Some(size) if i > 0 => write!(f, ", {size}")?,
                Some(size) => write!(f, "{size}")?,
                None if i > 0 => f.write_str(", ?")?,
                None => f.write_str("N")?,
            }
        }
        f.write_str("]")
    }
}

/// Why one run of a model failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The runtime refused the inputs or failed in the middle.
    #[error("the runtime failed: {0}")]
    Runtime(String),
    /// The model answered something else than its metadata says.
    #[error("output `{output}` is {got}, not {wanted}")]
    Answer {
        /// The output.
        output: String,
        /// What the metadata says.
        wanted: String,
        /// What came.
        got: String,
    },
    /// It was given something else than it takes.
    #[error("input `{input}` got {got}, not {wanted}")]
    Argument {
        /// The input.
        input: String,
        /// What it takes.
        wanted: String,
        /// What it was given.
        got: String,
    },
    /// The answer could not be put into columns.
    #[error(transparent)]
    Columns(#[from] arrow::error::ArrowError),
}

/// What a tensor is, for errors.
pub(crate) fn described(tensor: &Tensor<'_>) -> String {
    let shape: Vec<_> = tensor.shape.iter().map(|&size| Some(size)).collect();
    format!("{} {}", tensor.data.dtype(), Shape(&shape))
}
