//! ONNX models and ensembles as steps.

mod instance;
mod library;
mod model;
mod pool;
mod precheck;
mod session;
mod tensor;

pub use library::{LibraryError, Place, candidates};
pub use model::{InputInfo, Keys, Maps, Model, ModelError, ModelInfo, OutputInfo, OutputKind, Read, Value};
pub use precheck::{CheckedModel, Limits, PrecheckError};
pub use session::{LoadError, LoadOptions, OnnxModel};
pub use tensor::{DType, Data, Tensor};
