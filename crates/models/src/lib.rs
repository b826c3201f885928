//! ONNX models and ensembles as steps.
//!
//! An [`OnnxModel`] is a file that was checked ([`CheckedModel`]) before ONNX Runtime saw it, loaded into a fixed
//! number of instances. A [`ModelStep`] runs any [`Model`] over its rows; an [`Ensemble`] makes one column of
//! several models' columns. [`kinds`] offers both to project files, with the models of a [`ModelSet`].
//!
//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use millstream_models::{LoadOptions, ModelStep, OnnxModel};
//!
//! let lgbm = OnnxModel::load("lgbm", Path::new("project"), Path::new("models/lgbm.onnx"), &LoadOptions::default())?;
//! let step = ModelStep::new(Arc::new(lgbm))
//!     .input("X", ["amount", "ratio", "hour"])
//!     .output("score", "probabilities[1]");
//! # let _ = step;
//! # Ok::<(), millstream_models::LoadError>(())
//! ```

mod columns;
mod convert;
mod ensemble;
mod inputs;
mod instance;
mod isolated;
mod library;
mod model;
mod outputs;
mod pick;
mod pool;
mod precheck;
mod repository;
mod sequence;
mod session;
mod set;
mod step;
mod tensor;
mod url;

pub use columns::{Columns, Keep};
pub use ensemble::{Ensemble, EnsembleSettings, Members, Method, Missing};
pub use inputs::Nulls;
pub use isolated::{Isolated, run_isolated};
pub use library::{LibraryError, environment};
pub use model::{InputInfo, Keys, Maps, Model, ModelError, ModelInfo, OutputInfo, OutputKind, Read, Value};
pub use pick::{Pick, PickError, Place};
pub use precheck::{CheckedModel, Limits, PrecheckError, Structure, StructureValue};
pub use repository::{
    CONFIG_FILE, ConfigError, Given, Indexed, Load, LoadedVersion, ModelConfig, Outcomes, Repository,
    RepositoryError, RepositorySpec, Served, VersionPolicy,
};
pub use sequence::{Constant, SequenceSettings};
pub use session::{LoadError, LoadOptions, OnnxModel, load};
pub use set::{FetchedModel, ModelSet, ModelSetError, ModelSettings, ModelSource, ModelSpec, kinds};
pub use step::ModelStep;
pub use tensor::{DType, Data, Tensor};
pub use url::{HeaderText, ModelUrl};
