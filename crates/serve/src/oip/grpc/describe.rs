//! What models are, as messages.

use super::proto::{
    DataType, InferStatistics, ModelConfig, ModelInput, ModelMetadataResponse, ModelOutput, ModelParameter,
    ModelStatistics, ModelTransactionPolicy, ModelVersionPolicy, StatisticDuration,
    model_metadata_response::TensorMetadata,
    model_version_policy::{self, PolicyChoice},
};
use millstream_models::VersionPolicy;

use crate::oip::{
    datatype::Datatype,
    models::Model,
    outputs::Output,
    statistics::{Statistics, Total},
    tensor::{Tensor, shape},
};

/// Inputs and outputs, with their rows.
pub(super) fn metadata(model: &Model, versions: Vec<String>) -> ModelMetadataResponse {
    let tensor = |name: &str, datatype: Datatype, dims: &[Option<usize>]| TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.name().to_owned(),
        shape: shape(dims),
    };
    let input = |input: &Tensor| tensor(&input.name, input.datatype, &input.dims);
    let output = |output: &Output| tensor(output.name(), output.datatype(), output.dims());
    ModelMetadataResponse {
        name: model.name().to_owned(),
        versions,
        platform: model.platform.0.to_owned(),
        inputs: model.inputs.iter().map(input).collect(),
        outputs: model.outputs.iter().map(output).collect(),
    }
}

/// The same as Triton configures it.
pub(super) fn config(model: &Model) -> ModelConfig {
    let data_type =
        |datatype: Datatype| DataType::from_str_name(datatype.config_name()).unwrap_or_default().into();
    // Where there is a most number of rows, they are the batch, and no dimension.
    let dims = |dims: &[Option<usize>]| shape(dims).split_off(usize::from(model.max_rows() > 0));
    let input = |input: &Tensor| ModelInput {
        name: input.name.clone(),
        data_type: data_type(input.datatype),
        dims: dims(&input.dims),
        optional: input.optional,
    };
    let output = |output: &Output| ModelOutput {
        name: output.name().to_owned(),
        data_type: data_type(output.datatype()),
        dims: dims(output.dims()),
    };
    let policy = match &model.policy {
        VersionPolicy::Latest(count) => {
            let num_versions = u32::try_from(*count).unwrap_or(u32::MAX);
            PolicyChoice::Latest(model_version_policy::Latest { num_versions })
        }
        VersionPolicy::All => PolicyChoice::All(model_version_policy::All {}),
        VersionPolicy::Specific(versions) => {
            let versions =
                versions.iter().map(|version| i64::try_from(*version).unwrap_or(i64::MAX)).collect();
            PolicyChoice::Specific(model_version_policy::Specific { versions })
        }
    };
    let parameter =
        |(name, text): (&String, &String)| (name.clone(), ModelParameter { string_value: text.clone() });
    ModelConfig {
        parameters: model.about.iter().map(parameter).collect(),
        name: model.name().to_owned(),
        platform: model.platform.0.to_owned(),
        backend: model.platform.1.to_owned(),
        model_transaction_policy: model.streams.then_some(ModelTransactionPolicy { decoupled: true }),
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(policy) }),
        max_batch_size: model.max_rows(),
        input: model.inputs.iter().map(input).collect(),
        output: model.outputs.iter().map(output).collect(),
    }
}

/// What it has done so far.
pub(super) fn statistics(model: &Model) -> ModelStatistics {
    let told = Statistics::of(model);
    let total = |Total { count, nanos }: Total| Some(StatisticDuration { count, ns: nanos });
    ModelStatistics {
        inference_stats: Some(InferStatistics {
            success: total(told.success),
            fail: total(told.fail),
            queue: total(told.queue),
            compute_input: total(told.compute_input),
            compute_infer: total(told.compute_infer),
            compute_output: total(told.compute_output),
            cache_hit: total(Total::default()),
            cache_miss: total(Total::default()),
        }),
        name: told.name,
        version: told.version,
        last_inference: told.last_inference,
        inference_count: told.inference_count,
        execution_count: told.execution_count,
    }
}
