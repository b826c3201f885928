use std::fs;

use expect_test::{Expect, expect};
use prost::Message;

use super::{
    onnx::{DataLocation, FunctionProto, StringStringEntryProto, ValueInfoProto},
    *,
};

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.to_owned(), version: Some(version) }
}

fn node(domain: &str, op_type: &str) -> NodeProto {
    NodeProto { op_type: op_type.to_owned(), domain: domain.to_owned(), ..NodeProto::default() }
}

/// A model whose graph holds `nodes`, which may be of all the runtime's own operators.
fn model(nodes: Vec<NodeProto>) -> ModelProto {
    let output = vec![ValueInfoProto { name: "y".to_owned(), r#type: None }];
    let graph = GraphProto { node: nodes, output, ..GraphProto::default() };
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: opsets(), ..ModelProto::default() }
}

fn opsets() -> Vec<OperatorSetIdProto> {
    vec![opset("", 15), opset("ai.onnx.ml", 3), opset("com.microsoft", 1)]
}

/// A model with one initializer.
fn with_tensor(tensor: TensorProto) -> ModelProto {
    let mut model = model(Vec::new());
    model.graph.as_mut().unwrap().initializer.push(tensor);
    model
}

fn floats(dims: &[i64], bytes: usize) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(1),
        name: "w".to_owned(),
        raw_data: Some(vec![0; bytes].into()),
        ..TensorProto::default()
    }
}

fn outside(dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    TensorProto {
        raw_data: None,
        external_data: entries.iter().map(entry).collect(),
        data_location: Some(DataLocation::External as i32),
        ..floats(dims, 0)
    }
}

fn check_in(folder: &Path, model: &ModelProto, wanted: &Expect) {
    let limits = Limits { bytes: 1 << 20, operators: 10_000, dense_bytes: 1 << 20, ..Limits::default() };
    match CheckedModel::of_bytes(model.encode_to_vec(), folder, &limits) {
        Ok(_) => wanted.assert_eq("accepted"),
        Err(error) => wanted.assert_eq(&error.to_string()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
fn check(model: ModelProto, wanted: Expect) {
    check_in(Path::new("."), &model, &wanted);
}

#[test]
fn what_every_model_has_must_be_there_and_known() {
    check(model(Vec::new()), expect!["accepted"]);
    check(ModelProto::default(), expect!["the file is not an ONNX model: it has no graph"]);
    let change = |change: fn(&mut ModelProto)| {
        let mut model = model(Vec::new());
        change(&mut model);
        model
    };
    check(change(|m| m.ir_version = None), expect!["the file is not an ONNX model: it has no ir_version"]);
    check(change(|m| m.ir_version = Some(2)), expect!["the model has ir_version 2; supported are 3 to 14"]);
    check(
        change(|m| m.ir_version = Some(999)),
        expect!["the model has ir_version 999; supported are 3 to 14"],
    );
    check(
        change(|m| m.opset_import.clear()),
        expect!["the file is not an ONNX model: it has no operator set"],
    );
    check(
        change(|m| m.opset_import[0].version = Some(6)),
        expect!["the model has opset 6 of `ai.onnx`; supported are 7 to 28"],
    );
    check(
        change(|m| m.opset_import.push(opset("ai.onnx.ml", 99))),
        expect!["the model has opset 99 of `ai.onnx.ml`; supported are 1 to 6"],
    );
    check(
        change(|m| m.training_info.push(onnx::TrainingInfoProto {})),
        expect!["the model carries a training graph; export it for inference"],
    );
}

#[test]
fn operators_come_from_the_runtime_or_from_the_model_itself() {
    for domain in ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"] {
        check(model(vec![node(domain, "Relu")]), expect!["accepted"]);
    }
    check(
        model(vec![node("evil.example", "Shell")]),
        expect!["the model uses `Shell` of `evil.example`; custom operators are refused"],
    );
    check(
        model(vec![node("com.microsoft", "EPContext")]),
        expect!["the model uses `EPContext` of `com.microsoft`; custom operators are refused"],
    );
    let own = |name: &str, calls: Vec<NodeProto>| FunctionProto {
        name: name.to_owned(),
        domain: "own".to_owned(),
        node: calls,
        opset_import: opsets(),
        ..FunctionProto::default()
    };
    let with = |functions: Vec<FunctionProto>| ModelProto { functions, ..model(vec![node("own", "f0")]) };
    check(with(vec![own("f0", vec![node("", "Relu")])]), expect!["accepted"]);
    check(
        with(vec![own("f0", vec![node("else", "x")])]),
        expect!["the model uses `x` of `else`; custom operators are refused"],
    );
    check(
        with(vec![own("f0", vec![node("own", "f1")]), own("f1", vec![node("own", "f0")])]),
        expect!["function `f0` calls itself, or unfolds into more than 10000 operators"],
    );
    // Each function calls the next one twice: 2^30 operators in 60 lines.
    let doubling = (0..30).map(|i| {
        let next = format!("f{}", i + 1);
        own(&format!("f{i}"), vec![node("own", &next), node("own", &next)])
    });
    check(
        with(doubling.chain([own("f30", vec![node("", "Relu")])]).collect()),
        expect!["function `f18` calls itself, or unfolds into more than 10000 operators"],
    );
    // A chain of calls longer than any stack should follow.
    let chain = (0..5_000).map(|i| own(&format!("f{i}"), vec![node("own", &format!("f{}", i + 1))]));
    check(
        with(chain.chain([own("f5000", Vec::new())]).collect()),
        expect!["function `f64` calls itself, or unfolds into more than 10000 operators"],
    );
}

#[test]
fn nesting_has_a_bottom() {
    let nest = |depth: usize| {
        (0..depth).fold(model(Vec::new()), |inner, _| {
            let attribute = AttributeProto { g: inner.graph, ..AttributeProto::default() };
            model(vec![NodeProto { attribute: vec![attribute], ..node("", "If") }])
        })
    };
    check(nest(16), expect!["accepted"]);
    check(nest(17), expect!["graphs are nested more than 16 deep"]);
    let deepest = CheckedModel::of_bytes(nest(200).encode_to_vec(), ".", &Limits::default()).unwrap_err();
    assert!(matches!(deepest, PrecheckError::Malformed { .. }), "{deepest}");
}

#[test]
fn shapes_agree_with_the_bytes_there_are() {
    check(with_tensor(floats(&[2, 3], 24)), expect!["accepted"]);
    check(with_tensor(floats(&[], 4)), expect!["accepted"]);
    check(with_tensor(floats(&[0, 3], 0)), expect!["accepted"]);
    check(with_tensor(floats(&[2, 3], 23)), expect!["tensor `w` of shape [2, 3] needs 24 bytes but has 23"]);
    check(with_tensor(floats(&[-1, 3], 24)), expect!["tensor `w` has an impossible shape [-1, 3]"]);
    check(
        with_tensor(floats(&[1 << 32, 1 << 32], 4)),
        expect!["tensor `w` has an impossible shape [4294967296, 4294967296]"],
    );
    check(
        with_tensor(floats(&[0, 1 << 32, 1 << 32], 0)),
        expect!["tensor `w` has an impossible shape [0, 4294967296, 4294967296]"],
    );
    let typed = |dims: &[i64]| TensorProto { raw_data: None, ..floats(dims, 0) };
    check(
        with_tensor(typed(&[1 << 40])),
        expect!["tensor `w` of shape [1099511627776] needs 4398046511104 bytes but has 63"],
    );
    // Four-bit values share bytes.
    check(with_tensor(TensorProto { data_type: Some(22), ..floats(&[3], 2) }), expect!["accepted"]);
    let sparse = |dims: &[i64]| {
        let mut model = model(Vec::new());
        model.graph.as_mut().unwrap().sparse_initializer.push(SparseTensorProto {
            values: Some(floats(&[1], 4)),
            indices: None,
            dims: dims.to_vec(),
        });
        model
    };
    check(sparse(&[1000, 100]), expect!["accepted"]);
    check(sparse(&[1 << 30, 100]), expect!["tensor `w` has an impossible shape [1073741824, 100]"]);
}

#[test]
fn tensors_in_attributes_and_functions_are_looked_at_too() {
    let attribute = || AttributeProto { t: Some(floats(&[-1], 0)), ..AttributeProto::default() };
    let constant = || NodeProto { attribute: vec![attribute()], ..node("", "Constant") };
    check(model(vec![constant()]), expect!["tensor `w` has an impossible shape [-1]"]);
    let inner = GraphProto { node: vec![constant()], ..GraphProto::default() };
    let branch = AttributeProto { graphs: vec![inner], ..AttributeProto::default() };
    let nested = NodeProto { attribute: vec![branch], ..node("", "If") };
    check(model(vec![nested]), expect!["tensor `w` has an impossible shape [-1]"]);
    let function = FunctionProto {
        name: "f".to_owned(),
        node: vec![constant()],
        opset_import: opsets(),
        ..FunctionProto::default()
    };
    check(
        ModelProto { functions: vec![function], ..model(Vec::new()) },
        expect!["tensor `w` has an impossible shape [-1]"],
    );
}

#[test]
fn data_in_other_files_stays_in_the_models_folder() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("models");
    fs::create_dir_all(folder.join("deep")).unwrap();
    fs::write(root.path().join("secret"), [0; 64]).unwrap();
    fs::write(folder.join("w.bin"), [0; 64]).unwrap();
    fs::write(folder.join("deep/w.bin"), [0; 64]).unwrap();
    let check = |entries: &[(&str, &str)], wanted: Expect| {
        check_in(&folder, &with_tensor(outside(&[4], entries)), &wanted);
    };
    check(&[("location", "w.bin")], expect!["accepted"]);
    check(&[("location", "./deep/w.bin"), ("offset", "48"), ("length", "16")], expect!["accepted"]);
    check(&[], expect!["tensor `w` has its data in ``: it names no file"]);
    check(
        &[("location", "../secret")],
        expect!["tensor `w` has its data in `../secret`: it leaves the model's folder"],
    );
    check(
        &[("location", "deep/../../secret")],
        expect!["tensor `w` has its data in `deep/../../secret`: it leaves the model's folder"],
    );
    check(
        &[("location", "/etc/passwd")],
        expect!["tensor `w` has its data in `/etc/passwd`: it leaves the model's folder"],
    );
    check(
        &[("location", "..\\secret")],
        expect![[r#"tensor `w` has its data in `..\\secret`: it is not a plain relative path"#]],
    );
    check(
        &[("location", "C:secret")],
        expect!["tensor `w` has its data in `C:secret`: it is not a plain relative path"],
    );
    check(
        &[("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "140737488355328")],
        expect!["tensor `w` has its data in `*/_ORT_MEM_ADDR_/*`: it is an address in memory"],
    );
    check(&[("location", "absent")], expect!["tensor `w` has its data in `absent`: entity not found"]);
    check(&[("location", "deep")], expect!["tensor `w` has its data in `deep`: it is not a regular file"]);
    check(
        &[("location", "w.bin"), ("offset", "49")],
        expect![
            "tensor `w` has its data in `w.bin`: it needs 16 bytes but the file ends 15 bytes after its offset"
        ],
    );
    check(
        &[("location", "w.bin"), ("offset", "18446744073709551615")],
        expect!["tensor `w` has its data in `w.bin`: its offset lies behind the end of the file"],
    );
    check(
        &[("location", "w.bin"), ("offset", "-1")],
        expect!["tensor `w` has its data in `w.bin`: its offset is no number"],
    );
    check(
        &[("location", "w.bin"), ("length", "64")],
        expect!["tensor `w` has its data in `w.bin`: its length is 64 bytes but its shape needs 16"],
    );
    check(
        &[("location", "w.bin"), ("location", "../secret")],
        expect!["tensor `w` has its data in `w.bin`: it names one entry twice"],
    );
    // A tensor that says its data is here, and also where else it is, is read as the latter.
    let both = TensorProto { data_location: None, ..outside(&[4], &[("location", "../secret")]) };
    check_in(
        &folder,
        &with_tensor(both),
        &expect!["tensor `w` has its data in `../secret`: it leaves the model's folder"],
    );
}

#[cfg(unix)]
#[test]
fn links_lead_nowhere() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("models");
    fs::create_dir(&folder).unwrap();
    fs::write(root.path().join("secret"), [0; 64]).unwrap();
    symlink(root.path().join("secret"), folder.join("w.bin")).unwrap();
    symlink(root.path(), folder.join("up")).unwrap();
    for location in ["w.bin", "up/secret"] {
        let error = CheckedModel::of_bytes(
            with_tensor(outside(&[4], &[("location", location)])).encode_to_vec(),
            &folder,
            &Limits::default(),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("tensor `w` has its data in `{location}`: links are refused")
        );
    }
    // The model itself may be linked inside its root, but not out of it.
    fs::write(folder.join("real.onnx"), model(Vec::new()).encode_to_vec()).unwrap();
    symlink(folder.join("real.onnx"), folder.join("alias.onnx")).unwrap();
    let read = |path: &str| CheckedModel::read(&folder, Path::new(path), &Limits::default());
    assert_eq!(read("alias.onnx").unwrap().folder(), folder.canonicalize().unwrap());
    for path in ["w.bin", "up/secret", "../secret", "/etc/passwd"] {
        assert!(matches!(read(path).unwrap_err(), PrecheckError::OutsideRoot { .. }), "{path}");
    }
    assert!(matches!(read("absent.onnx").unwrap_err(), PrecheckError::Unreadable { .. }));
    assert!(matches!(read(".").unwrap_err(), PrecheckError::NotAFile { .. }));
}

#[test]
fn large_files_are_not_read() {
    let limits = Limits { bytes: 10, ..Limits::default() };
    let error = CheckedModel::of_bytes(vec![0; 11], ".", &limits).unwrap_err();
    assert_eq!(error.to_string(), "the file has more than 10 bytes");
}

#[test]
fn the_classes_of_a_zip_map_are_known() {
    let attribute = |name: &str, ints: &[i64], strings: &[&str]| AttributeProto {
        name: name.to_owned(),
        ints: ints.to_vec(),
        strings: strings.iter().map(|text| text.as_bytes().to_vec()).collect(),
        ..AttributeProto::default()
    };
    let classes = |attribute: AttributeProto| {
        let zip = NodeProto {
            output: vec!["p".to_owned()],
            attribute: vec![attribute],
            ..node("ai.onnx.ml", "ZipMap")
        };
        let mut model = model(vec![zip]);
        model.graph.as_mut().unwrap().output.push(ValueInfoProto { name: "p".to_owned(), r#type: None });
        let checked = CheckedModel::of_bytes(model.encode_to_vec(), ".", &Limits::default()).unwrap();
        checked.classes("p").cloned()
    };
    assert_eq!(classes(attribute("classlabels_int64s", &[3, 7], &[])), Some(Classes::Ints(vec![3, 7])));
    assert_eq!(
        classes(attribute("classlabels_strings", &[], &["no", "yes"])),
        Some(Classes::Strings(vec!["no".to_owned(), "yes".to_owned()]))
    );
    assert_eq!(classes(attribute("other", &[1], &[])), None);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = CheckedModel::of_bytes(bytes, ".", &Limits::default());
    }

    /// Cut or changed anywhere, a real model is refused or stays a model; it never panics.
    #[test]
    fn no_mutation_panics(at in 0_usize..4096, value: u8, cut in 0_usize..4096) {
        for file in ["dtypes", "several", "outside", "zip_strings"] {
            let mut bytes = fs::read(format!("tests/data/{file}.onnx")).unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(at + 1));
            let _ = CheckedModel::of_bytes(bytes, "tests/data", &Limits::default());
        }
    }
}
