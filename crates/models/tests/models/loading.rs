//! What is loaded, and what is refused.

use std::{fs, path::Path, sync::Arc};

use expect_test::expect;
use indexmap::IndexMap;
use millstream_models::{LoadError, LoadOptions, Model, ModelSet, ModelSpec, OnnxModel, kinds};
use serde_json::json;

use crate::harness::{DATA, model};

#[test]
fn a_model_says_what_it_takes_and_answers() {
    let shown: Vec<String> =
        ["lgbm", "several", "image", "sequence", "labels", "fixed3", "zip_ints", "zip_strings"]
            .iter()
            .map(|name| model(name).info().to_string())
            .collect();
    expect![[r#"
        lgbm: X Float32 [N, 28] -> probabilities Float32 [N, 2]
        several: a Float32 [N, 3], b Float32 [N, 1] -> sum Float32 [N, 3], top Float32 [N, 1], best Int64 [N]
        image: pixels Float32 [N, 3, 4, 4] -> maps Float32 [N, 2, 4, 4], embedding Float32 [N, 2]
        sequence: tokens Int64 [N, ?] -> running Int64 [N, ?], total Int64 [N]
        labels: country Utf8 [N] -> code Int64 [N], name Utf8 [N]
        fixed3: x Float32 [3, 2] -> y Float32 [3, 2]
        zip_ints: features Float32 [N, 4] -> output_label Int64 [N], output_probability {10|20|30: Float32}
        zip_strings: features Float32 [N, 4] -> output_label Utf8 [N], output_probability {"maybe"|"no"|"yes": Float32}"#]].assert_eq(&shown.join("\n"));
}

fn specs(specs: &[(&str, serde_json::Value)]) -> IndexMap<String, ModelSpec> {
    specs
        .iter()
        .map(|(name, spec)| ((*name).to_owned(), serde_json::from_value(spec.clone()).unwrap()))
        .collect()
}

#[test]
fn a_set_loads_or_says_all_that_is_wrong() {
    let good = specs(&[
        ("a", json!({"path": "rank3.onnx", "instances": 1})),
        ("b", json!({"path": "picky.onnx", "warm_up": false, "instances": 1})),
    ]);
    let set = ModelSet::load(Path::new(DATA), &good).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(
        set.iter().map(|(name, model)| (name, model.info().inputs.len())).collect::<Vec<_>>(),
        [("a", 1), ("b", 1)]
    );

    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("garbage.onnx"), b"not a model at all").unwrap();
    let whole = fs::read(format!("{DATA}/several.onnx")).unwrap();
    fs::write(root.path().join("cut.onnx"), &whole[..whole.len() - 9]).unwrap();
    fs::copy(format!("{DATA}/outside.onnx"), root.path().join("orphan.onnx")).unwrap();
    fs::copy(format!("{DATA}/rank3.onnx"), root.path().join("pinned.onnx")).unwrap();
    let bad = specs(&[
        ("garbage", json!({"path": "garbage.onnx"})),
        ("cut", json!({"path": "cut.onnx"})),
        ("orphan", json!({"path": "orphan.onnx"})),
        ("away", json!({"path": "../away.onnx"})),
        ("absent", json!({"path": "absent.onnx"})),
        ("pinned", json!({"path": "pinned.onnx", "sha256": "00ff"})),
    ]);
    let errors = ModelSet::load(root.path(), &bad).unwrap_err();
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    expect![[r#"
        model `garbage` (garbage.onnx): the file is not an ONNX model: failed to decode Protobuf message: invalid wire type value: 6
        model `cut` (cut.onnx): the file is not an ONNX model: failed to decode Protobuf message: ModelProto.graph: buffer underflow
        model `orphan` (orphan.onnx): tensor `w` has its data in `weights.bin`: entity not found
        model `away` (../away.onnx): `../away.onnx` leaves the project's folder
        model `absent` (absent.onnx): cannot read `absent.onnx`: entity not found
        model `pinned` (pinned.onnx): the file's sha256 is b63f2fde3733cb8d9ec03709eb18f39c8f7591d9fc8e52200d8cc777a14f86b8, not 00ff"#]].assert_eq(&lines.join("\n"));

    let error = serde_json::from_value::<ModelSpec>(json!({"path": "a.onnx", "instnaces": 2})).unwrap_err();
    assert!(error.to_string().starts_with("unknown field `instnaces`"), "{error}");
}

#[test]
fn a_pinned_file_is_loaded_when_it_is_the_one() {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(fs::read(format!("{DATA}/rank3.onnx")).unwrap());
    let sha256 = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    let options = LoadOptions {
        sha256: Some(sha256),
        instances: std::num::NonZeroUsize::new(1),
        ..LoadOptions::default()
    };
    assert!(OnnxModel::load("pinned", Path::new(DATA), Path::new("rank3.onnx"), &options).is_ok());
}

#[test]
fn a_model_that_the_runtime_refuses_is_an_error() {
    // Well-formed, but its only operator does not exist.
    let root = tempfile::tempdir().unwrap();
    let bytes = fs::read(format!("{DATA}/fixed1.onnx")).unwrap();
    let at = bytes.windows(3).position(|part| part == b"Mul").unwrap();
    let mut changed = bytes.clone();
    changed[at..at + 3].copy_from_slice(b"Nul");
    fs::write(root.path().join("odd.onnx"), changed).unwrap();
    let options = LoadOptions::default();
    let error = OnnxModel::load("odd", root.path(), Path::new("odd.onnx"), &options).unwrap_err();
    assert!(matches!(error, LoadError::Runtime(_)), "{error}");
}

#[test]
fn project_files_name_models_and_ensembles() {
    let set = ModelSet::default().with("rank3", Arc::new(model("rank3")));
    let kinds = kinds(Arc::new(set));
    let build = |kind: &str, settings: serde_json::Value| {
        let kind = kinds.iter().find(|known| known.name() == kind).unwrap();
        kind.build(&settings)
            .map(|_| ())
            .map_err(|error| format!("{}: {}", error.path.join("."), error.problems.join("; ")))
    };
    let full = json!({"use": "rank3", "inputs": {"x": "image"}, "outputs": {"mean": "mean[1]"}, "keep": ["id"], "nulls": "nan"});
    assert_eq!(build("model", full), Ok(()));
    let ensemble = json!({"method": "weighted_mean", "members": {"a": 0.5, "b": 0.5}, "as": "score", "missing": {"replace": 0.5}});
    assert_eq!(build("ensemble", ensemble), Ok(()));
    let errors = [
        build("model", json!({"use": "rnak3"})),
        build("model", json!({"use": "rank3", "output": {}})),
        build("model", json!({"use": "rank3", "outputs": {"score": "p[one]"}})),
        build("model", json!({"use": "rank3", "inputs": {"x": {"from": "a"}}})),
        build("ensemble", json!({"method": "mean", "members": ["a"], "as": "score"})),
        build("ensemble", json!({"method": "weighted_mean", "members": {"a": -1, "b": 2}, "as": "score"})),
        build("ensemble", json!({"method": "max", "members": {"a": 1}, "as": "score"})),
        build("ensemble", json!({"method": "max", "members": ["a"], "as": "score", "missing": "ignore"})),
    ];
    let lines: Vec<_> = errors.into_iter().map(|error| error.unwrap_err()).collect();
    expect![[r#"
        : no model `rnak3`; did you mean `rank3`?
        output: unknown field `output`, expected one of `use`, `inputs`, `outputs`, `keep`, `nulls`
        outputs.score: `p[one]` picks no part of an output: a whole number or a quoted class is missing, at character 3; write `name`, `name[0]` or `name['class']`
        inputs.x: invalid type: map, expected a column or a list of columns
        method: unknown variant `mean`, expected one of `weighted_mean`, `majority_vote`, `max`
        : the weight of member `a` is -1; it must be finite and not negative
        : `max` takes no weights: list its members, as in `members: [a, b]`
        missing: unknown variant `ignore`, expected one of `fail`, `renormalise`, `replace`"#]].assert_eq(&lines.join("\n"));
    for kind in &kinds {
        let schema = kind.schema(&mut schemars::SchemaGenerator::default());
        assert!(
            schema.as_value().to_string().contains("$ref")
                || schema.as_value()["additionalProperties"] == json!(false)
        );
    }
}
