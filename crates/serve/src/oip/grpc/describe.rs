//! What models are, as messages.

use super::proto::{
    DataType, ModelConfig, ModelInput, ModelMetadataResponse, ModelOutput, ModelVersionPolicy,
    model_metadata_response::TensorMetadata, model_version_policy,
};
use crate::oip::{
    datatype::Datatype,
    models::{Model, VERSION},
    outputs::Output,
    tensor::{Tensor, shape},
};

/// Inputs and outputs, with their rows.
pub(super) fn metadata(model: &Model) -> ModelMetadataResponse {
    let tensor = |name: &str, datatype: Datatype, dims: &[Option<usize>]| TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.name().to_owned(),
        shape: shape(dims),
    };
    let input = |input: &Tensor| tensor(&input.name, input.datatype, &input.dims);
    let output = |output: &Output| tensor(output.name(), output.datatype(), output.dims());
    ModelMetadataResponse {
        name: model.name().to_owned(),
        versions: vec![VERSION.to_owned()],
        platform: model.platform.0.to_owned(),
        inputs: model.inputs.iter().map(input).collect(),
        outputs: model.outputs.iter().map(output).collect(),
    }
}

/// The same as Triton configures it.
pub(super) fn config(model: &Model) -> ModelConfig {
    let data_type =
        |datatype: Datatype| DataType::from_str_name(datatype.config_name()).unwrap_or_default().into();
    let input = |input: &Tensor| ModelInput {
        name: input.name.clone(),
        data_type: data_type(input.datatype),
        dims: shape(&input.dims),
        optional: input.optional,
    };
    let output = |output: &Output| ModelOutput {
        name: output.name().to_owned(),
        data_type: data_type(output.datatype()),
        dims: shape(output.dims()),
    };
    let latest = model_version_policy::Latest { num_versions: 1 };
    ModelConfig {
        name: model.name().to_owned(),
        platform: model.platform.0.to_owned(),
        backend: model.platform.1.to_owned(),
        version_policy: Some(ModelVersionPolicy {
            policy_choice: Some(model_version_policy::PolicyChoice::Latest(latest)),
        }),
        // Shapes have the rows themselves.
        max_batch_size: 0,
        input: model.inputs.iter().map(input).collect(),
        output: model.outputs.iter().map(output).collect(),
    }
}
