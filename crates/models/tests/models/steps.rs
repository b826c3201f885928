//! Columns into models and back.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeListArray,
        Float32Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
        StringViewArray,
    },
    datatypes::{DataType, Field, Float32Type, Int32Type, Int64Type, Schema},
    util::pretty::pretty_format_batches,
};
use expect_test::{Expect, expect};
use millstream_models::{Keep, Model, ModelStep, Nulls};

use crate::harness::{EXPECTED, Owned, answer, model, parts, problems, run, share, typed};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

fn step(name: &str) -> ModelStep {
    ModelStep::new(share(model(name)))
}

fn f32s(values: impl IntoIterator<Item = f32>) -> ArrayRef {
    Arc::new(Float32Array::from_iter_values(values))
}

fn f64s(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn fixed(width: i32, values: ArrayRef) -> ArrayRef {
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Arc::new(FixedSizeListArray::new(item, width, values, None))
}

fn show(batch: &RecordBatch, wanted: &Expect) {
    wanted.assert_eq(&pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string());
}

/// The features of the fraud models as 28 columns of `Float64`, and the expected probability of class 1.
fn fraud(name: &str) -> (RecordBatch, Vec<f32>) {
    let x = Owned::of(&EXPECTED[name]["inputs"]["X"]);
    let millstream_models::Data::F32(values) = x.tensor().data else { panic!("floats") };
    let column = |k: usize| f64s(values.iter().skip(k).step_by(28).map(|&value| value.into()));
    let names: Vec<String> = (0..28).map(|k| format!("f{k}")).collect();
    let columns = names.iter().enumerate().map(|(k, name)| (name.as_str(), column(k))).collect();
    let answers = EXPECTED[name]["outputs"]["probabilities"]["values"].as_array().unwrap();
    let wanted = answers.iter().skip(1).step_by(2).map(|value| value.as_f64().unwrap() as f32).collect();
    (batch(columns), wanted)
}

fn features() -> Vec<String> {
    (0..28).map(|k| format!("f{k}")).collect()
}

#[test]
fn declared_columns_stand_side_by_side() {
    for name in ["lgbm", "lr", "mlp"] {
        let (rows, wanted) = fraud(name);
        let score = |rows: &RecordBatch| {
            let step = step(name).input("X", features()).output("score", "probabilities[1]").keep(Keep::None);
            let scored = answer(step, rows);
            assert_eq!(scored.num_columns(), 1);
            scored["score"].as_primitive::<Float32Type>().values().to_vec()
        };
        let all = score(&rows);
        for (row, (got, wanted)) in all.iter().zip(&wanted).enumerate() {
            assert!((got - wanted).abs() < 1e-6, "{name}: {got} is not {wanted}");
            let alone = score(&rows.slice(row, 1));
            assert!((alone[0] - wanted).abs() < 1e-6, "{name} alone: {} is not {wanted}", alone[0]);
        }
    }
}

#[test]
fn a_stack_is_a_model_over_models() {
    // The scores of three models are the input of a fourth.
    let (rows, _) = fraud("lgbm");
    let score = |name: &str, rows: &RecordBatch| {
        answer(step(name).input("X", features()).output(name, "probabilities[1]"), rows)
    };
    let scored = score("mlp", &score("lr", &score("lgbm", &rows)));
    let flat = fixed(2, f32s((0..16).map(|value| value as f32)));
    let with_more = RecordBatch::try_new(
        Arc::new(Schema::new(
            scored
                .schema()
                .fields()
                .iter()
                .cloned()
                .chain([Arc::new(Field::new("pair", flat.data_type().clone(), true))])
                .collect::<Vec<_>>(),
        )),
        scored.columns().iter().cloned().chain([flat]).collect(),
    )
    .unwrap();
    let stacked = answer(
        step("several")
            .input("a", ["lgbm", "lr", "mlp"])
            .input("b", "lgbm")
            .output("stack", "top")
            .keep(Keep::None),
        &scored,
    );
    assert_eq!(stacked["stack"].len(), 8);
    // Scalars and lists stand side by side, too.
    let mixed =
        answer(step("several").input("a", ["lr", "pair"]).input("b", "lr").output("top", "top"), &with_more);
    assert_eq!(mixed.num_columns(), with_more.num_columns() + 1);
}

#[test]
fn inputs_are_found_by_name_and_every_output_becomes_a_column() {
    let a = fixed(3, f32s([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]));
    let rows = batch(vec![("id", Arc::new(Int64Array::from(vec![7, 8]))), ("a", a), ("b", f32s([0.0, 0.0]))]);
    let answered = answer(step("several").keep(Keep::Columns(vec!["id".to_owned()])), &rows);
    show(
        &answered,
        &expect![[r#"
        +----+-----------------------------------------+------------+------+
        | id | sum                                     | top        | best |
        +----+-----------------------------------------+------------+------+
        | 7  | [0.0012301534, 0.29874554, -0.27413785] | 0.29874554 | 1    |
        | 8  | [-0.89059186, -0.4546708, -0.9916465]   | -0.4546708 | 1    |
        +----+-----------------------------------------+------------+------+"#]],
    );
    let types: Vec<_> =
        answered.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Int64", "FixedSizeList(3 x Float32)", "Float32", "Int64"]);
}

#[test]
fn rows_of_higher_rank_come_nested_or_as_tensors() {
    let values = || f32s((0..12).map(|value| value as f32));
    let nested = fixed(2, fixed(3, values()));
    let flat = fixed(6, values());
    let metadata = |shape: &str| {
        HashMap::from([
            ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned()),
            ("ARROW:extension:metadata".to_owned(), shape.to_owned()),
        ])
    };
    let tensor = |shape: &str| {
        let field = Field::new("x", flat.data_type().clone(), false).with_metadata(metadata(shape));
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::clone(&flat)]).unwrap()
    };
    let from_nested = answer(step("rank3").keep(Keep::None), &batch(vec![("x", nested)]));
    show(
        &from_nested,
        &expect![[r#"
        +----------------------------------------+-----------------+
        | swapped                                | mean            |
        +----------------------------------------+-----------------+
        | [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]   | [1.5, 2.5, 3.5] |
        | [[6.0, 9.0], [7.0, 10.0], [8.0, 11.0]] | [7.5, 8.5, 9.5] |
        +----------------------------------------+-----------------+"#]],
    );
    let from_tensor = answer(step("rank3").keep(Keep::None), &tensor(r#"{"shape": [2, 3]}"#));
    assert_eq!(from_nested, from_tensor);
    // A flat list folds into the only shape that the model takes.
    let from_flat = answer(step("rank3").keep(Keep::None), &batch(vec![("x", Arc::clone(&flat))]));
    assert_eq!(from_nested, from_flat);
    // A slice of a batch is a batch.
    let second =
        answer(step("rank3").keep(Keep::None), &batch(vec![("x", fixed(2, fixed(3, values())))]).slice(1, 1));
    assert_eq!(from_nested.slice(1, 1), second);
    let picked = step("rank3").output("corner", "swapped[2][1]").output("row", "swapped[0]").keep(Keep::None);
    show(
        &answer(picked, &tensor(r#"{"shape": [2, 3], "permutation": [0, 1]}"#)),
        &expect![[r#"
        +--------+------------+
        | corner | row        |
        +--------+------------+
        | 5.0    | [0.0, 3.0] |
        | 11.0   | [6.0, 9.0] |
        +--------+------------+"#]],
    );

    let wrong = |shape: &str| problems(step("rank3"), &tensor(shape));
    expect!["column `x` has rows of shape [3, 2], which does not fit input `x` (Float32 [N, 2, 3]) of model `rank3`"]
        .assert_eq(&wrong(r#"{"shape": [3, 2]}"#));
    expect!["column `x` is a tensor column with metadata that does not fit its values"]
        .assert_eq(&wrong(r#"{"shape": [3, 3]}"#));
    expect![
        "column `x` is a tensor column with metadata that permutes its dimensions, which is not supported"
    ]
    .assert_eq(&wrong(r#"{"shape": [2, 3], "permutation": [1, 0]}"#));
    expect!["column `x` is a tensor column with metadata that is not JSON"].assert_eq(&wrong("shape"));

    let pixels = fixed(3, fixed(4, fixed(4, f32s((0..48).map(|value| value as f32)))));
    let embedded = answer(step("image").keep(Keep::None), &batch(vec![("pixels", pixels)]));
    let types: Vec<_> =
        embedded.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types[1], "FixedSizeList(2 x Float32)");
    assert!(types[0].starts_with("FixedSizeList(2 x FixedSizeList(4 x"), "{}", types[0]);
}

#[test]
fn lists_of_any_length_go_together_by_length() {
    let lists = |rows: Vec<Option<Vec<Option<i64>>>>| -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows))
    };
    let of = |values: &[i64]| Some(values.iter().copied().map(Some).collect());
    let rows =
        batch(vec![("tokens", lists(vec![of(&[1, 2]), of(&[3, 4]), of(&[5]), of(&[6, 7, 8]), of(&[1, 2])]))]);
    show(
        &answer(step("sequence"), &rows),
        &expect![[r#"
        +-----------+-------------+-------+
        | tokens    | running     | total |
        +-----------+-------------+-------+
        | [1, 2]    | [1, 3]      | 3     |
        | [3, 4]    | [3, 7]      | 7     |
        | [5]       | [5]         | 5     |
        | [6, 7, 8] | [6, 13, 21] | 21    |
        | [1, 2]    | [1, 3]      | 3     |
        +-----------+-------------+-------+"#]],
    );
    // The second half of a batch, as a slice.
    show(
        &answer(step("sequence").keep(Keep::None), &rows.slice(2, 3)),
        &expect![[r#"
        +-------------+-------+
        | running     | total |
        +-------------+-------+
        | [5]         | 5     |
        | [6, 13, 21] | 21    |
        | [1, 3]      | 3     |
        +-------------+-------+"#]],
    );
    let some_bad =
        batch(vec![("tokens", lists(vec![of(&[1]), None, of(&[]), Some(vec![Some(1), None]), of(&[2])]))]);
    let (good, failed) = parts(run(&typed(step("sequence"), &some_bad), &some_bad).unwrap());
    show(
        &good.unwrap(),
        &expect![[r#"
        +--------+---------+-------+
        | tokens | running | total |
        +--------+---------+-------+
        | [1]    | [1]     | 1     |
        | [2]    | [2]     | 2     |
        +--------+---------+-------+"#]],
    );
    expect![[r#"
        column `tokens` is null, which input `tokens` does not take
        column `tokens` has shape [0], but input `tokens` takes [N, ?]
        column `tokens` is null, which input `tokens` does not take"#]]
    .assert_eq(&failed.join("\n"));
}

#[test]
fn texts_go_in_and_come_out() {
    let texts = ["FR", "??", "DE"];
    let plain: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let view: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
    let dictionary: ArrayRef = Arc::new(texts.into_iter().collect::<DictionaryArray<Int32Type>>());
    let name = |column| answer(step("labels").keep(Keep::None), &batch(vec![("country", column)]));
    let named = name(plain);
    show(
        &named,
        &expect![[r#"
        +------+---------+
        | code | name    |
        +------+---------+
        | 2    | France  |
        | -1   | ?       |
        | 1    | Germany |
        +------+---------+"#]],
    );
    assert_eq!(name(view), named);
    assert_eq!(name(dictionary), named);
    let nul = batch(vec![("country", Arc::new(StringArray::from(vec![Some("F\0R"), None, Some("US")])))]);
    let (good, failed) = parts(run(&typed(step("labels"), &nul), &nul).unwrap());
    assert_eq!(good.unwrap().num_rows(), 1);
    expect![[r#"
        column `country` holds a NUL, which input `country` does not take
        column `country` is null, which input `country` does not take"#]]
    .assert_eq(&failed.join("\n"));
}

#[test]
fn maps_are_picked_by_class_or_taken_whole() {
    let features = fixed(4, f32s((0..8).map(|value| value as f32 / 4.0)));
    let rows = batch(vec![("features", features)]);
    for (name, third) in
        [("zip_ints", "output_probability[30]"), ("zip_strings", "output_probability['yes']")]
    {
        let step = step(name)
            .output("all", "output_probability")
            .output("third", third)
            .output("label", "output_label");
        let picked = answer(step.keep(Keep::None), &rows);
        let all = picked["all"].as_fixed_size_list();
        for row in 0..2 {
            let row_of_all = all.value(row);
            let values = row_of_all.as_primitive::<Float32Type>();
            assert_eq!(values.value(2), picked["third"].as_primitive::<Float32Type>().value(row));
            assert!((values.values().iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
    let wrong = |name: &str, pick: &str| problems(step(name).output("p", pick), &rows);
    let lines = [
        wrong("zip_ints", "output_probability[1]"),
        wrong("zip_ints", "output_probability['yes']"),
        wrong("zip_strings", "output_probability[0]"),
        wrong("zip_strings", "output_probability['yse']"),
        wrong("zip_strings", "output_probability['yes'][0]"),
        wrong("zip_strings", "output_probabilty"),
        wrong("zip_strings", "output_label[0]"),
        wrong("zip_strings", "output_label["),
    ];
    expect![[r#"
        `output_probability[1]` of model `zip_ints`: it has no class [1] ({10|20|30: Float32})
        `output_probability['yes']` of model `zip_ints`: its classes are numbers ({10|20|30: Float32}): pick one, as in `[1]`
        `output_probability[0]` of model `zip_strings`: its classes have names ({"maybe"|"no"|"yes": Float32}): pick one, as in `['name']`
        `output_probability['yse']` of model `zip_strings`: no class `yse`; did you mean `yes`?
        `output_probability['yes'][0]` of model `zip_strings`: a row of it is a map: pick one class
        model `zip_strings`: no output `output_probabilty`; did you mean `output_probability`?
        `output_label[0]` of model `zip_strings`: each row of it is one value already
        `output_label[` picks no part of an output: a whole number or a quoted class is missing, at character 14; write `name`, `name[0]` or `name['class']`"#]].assert_eq(&lines.join("\n"));
}

#[test]
fn numbers_of_any_type_become_the_models_type() {
    let rows = batch(vec![
        ("id", Arc::new(Int32Array::from(vec![1]))),
        ("flag", Arc::new(BooleanArray::from(vec![true]))),
        ("price", Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(9, 2).unwrap())),
    ]);
    let step = step("several").input("a", ["id", "flag", "price"]).input("b", "flag").output("best", "best");
    assert_eq!(answer(step, &rows)["best"].len(), 1);
}

#[test]
fn a_value_that_does_not_fit_fails_its_row_alone() {
    let rows = batch(vec![
        ("a0", f64s([1.0, 1e39, 3.0, 4.0])),
        ("a1", Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), None, Some(f64::NAN)]))),
        ("b", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(i64::MAX)]))),
    ]);
    let build = || step("several").input("a", ["a0", "a1", "b"]).input("b", "b").output("top", "top");
    let (good, failed) = parts(run(&typed(build(), &rows), &rows).unwrap());
    assert_eq!(good.unwrap().num_rows(), 2);
    expect![[r#"
        column `a0` is 1e39, which input `a` cannot take as Float32
        column `a1` is null, which input `a` does not take"#]]
    .assert_eq(&failed.join("\n"));
    let (good, failed) = parts(run(&typed(build().nulls(Nulls::Nan), &rows), &rows).unwrap());
    assert_eq!(
        good.unwrap()["top"].as_primitive::<Float32Type>().values().iter().filter(|v| v.is_nan()).count(),
        2
    );
    assert_eq!(failed, ["column `a0` is 1e39, which input `a` cannot take as Float32"]);

    let at = |values: Vec<f64>| batch(vec![("at", f64s(values))]);
    let (good, failed) =
        parts(run(&typed(step("picky"), &at(vec![])), &at(vec![0.0, 0.5, f64::NAN, 1.0])).unwrap());
    assert_eq!(good.unwrap().num_rows(), 2);
    expect![[r#"
        column `at` is 0.5, which input `at` cannot take as Int64
        column `at` is NaN, which input `at` cannot take as Int64"#]]
    .assert_eq(&failed.join("\n"));
    // Nothing is left: only failed rows come out.
    let (good, failed) = parts(run(&typed(step("picky"), &at(vec![])), &at(vec![0.5])).unwrap());
    assert_eq!((good, failed.len()), (None, 1));
}

#[test]
fn a_model_that_fails_names_itself_and_keeps_the_cause() {
    let rows = batch(vec![("at", Arc::new(Int64Array::from(vec![9])))]);
    let error = run(&typed(step("picky"), &rows), &rows).unwrap_err();
    assert_eq!(error.to_string(), "model `picky` failed");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("the runtime failed: "), "{cause}");
}

#[test]
fn a_fixed_number_of_rows_per_call_is_kept_to() {
    let x = fixed(2, f32s((0..10).map(|value| value as f32)));
    let rows = batch(vec![("x", x)]);
    for name in ["fixed1", "fixed3"] {
        let squared = answer(step(name).keep(Keep::None), &rows);
        let values = Arc::clone(squared["y"].as_fixed_size_list().values());
        let wanted: Vec<f32> = (0..10).map(|value| (value * value) as f32).collect();
        assert_eq!(values.as_primitive::<Float32Type>().values().to_vec(), wanted, "{name}");
    }
}

#[test]
fn everything_that_does_not_fit_is_said_at_once() {
    let rows = batch(vec![
        ("amount", f64s([1.0])),
        ("country", Arc::new(StringArray::from(vec!["DE"]))),
        ("seen", Arc::new(arrow::array::Date32Array::from(vec![1]))),
        ("a", fixed(2, f32s([1.0, 2.0]))),
        ("top", f32s([1.0])),
    ]);
    let check = |step: ModelStep, wanted: Expect| wanted.assert_eq(&problems(step, &rows));
    check(
        step("lgbm"),
        expect![
            "no column is named like input `X` (Float32 [N, 28]) of model `lgbm`; say which columns it takes, as in `inputs: {X: [amount, country, ..]}`"
        ],
    );
    check(
        step("lgbm").input("x", ["amount"]),
        expect![[r#"
        model `lgbm`: no input `x`; did you mean `X`?
        no column is named like input `X` (Float32 [N, 28]) of model `lgbm`; say which columns it takes, as in `inputs: {X: [amount, country, ..]}`"#]],
    );
    check(
        step("lgbm").input("X", ["amuont", "country", "seen"]).output("s", "probabilities[2]"),
        expect![[r#"
        no column `amuont`; did you mean `amount`?
        column `country` is Utf8, but input `X` (Float32 [N, 28]) of model `lgbm` takes numbers: encode it first
        column `seen` is Date32, but input `X` (Float32 [N, 28]) of model `lgbm` takes numbers, booleans or texts
        `probabilities[2]` of model `lgbm`: it ends at [1]"#]],
    );
    check(
        step("lgbm").input("X", ["amount", "amount"]),
        expect![
            "the 2 columns give rows of shape [2], which does not fit input `X` (Float32 [N, 28]) of model `lgbm`"
        ],
    );
    check(
        step("lgbm").input("X", Vec::<String>::new()),
        expect!["`inputs` names no column for input `X` (Float32 [N, 28]) of model `lgbm`"],
    );
    check(
        step("several").input("b", "country"),
        expect![[r#"
        column `a` has rows of shape [2], which does not fit input `a` (Float32 [N, 3]) of model `several`
        column `country` is Utf8, but input `b` (Float32 [N, 1]) of model `several` takes numbers: encode it first"#]],
    );
    check(
        step("labels").input("country", "amount"),
        expect![
            "column `amount` is Float64, but input `country` (Utf8 [N]) of model `labels` takes texts: cast it first"
        ],
    );
    check(
        step("picky").input("at", "amount").nulls(Nulls::Nan),
        expect!["`nulls: nan` does not suit input `at` (Int64 [N]) of model `picky`: only floats have a NaN"],
    );
    check(
        step("picky").input("at", "amount").output("country", "found"),
        expect![
            "output column `country` is there already; name it otherwise in `outputs`, or leave `country` out with `keep`"
        ],
    );
    check(
        step("picky").input("at", "amount").keep(Keep::Columns(vec![
            "amonut".into(),
            "a".into(),
            "a".into(),
        ])),
        expect![[r#"
        no column `amonut`; did you mean `amount`?
        `keep` names column `a` twice"#]],
    );
    check(
        step("picky").input("at", "amount").output("f", "found[0]").output("g", "lost"),
        expect![[r#"
        `found[0]` of model `picky`: each row of it is one value already
        model `picky`: no output `lost`; there is `found`"#]],
    );
    let two = step("picky").input("at", "amount").signature_of_two(&rows);
    assert_eq!(two, "a model takes one input, not 2");
}

/// The error for a step with two in-ports.
trait SignatureOfTwo {
    fn signature_of_two(&self, rows: &RecordBatch) -> String;
}

impl SignatureOfTwo for ModelStep {
    fn signature_of_two(&self, rows: &RecordBatch) -> String {
        millstream_graph::Step::signature(self, &[rows.schema(), rows.schema()]).unwrap_err().to_string()
    }
}

#[test]
fn other_backends_are_used_by_the_same_step() {
    use millstream_models::{
        DType, Data, InputInfo, ModelError, ModelInfo, OutputInfo, OutputKind, Read, Tensor, Value,
    };
    /// Answers the sum of each row, and lies about its shape when it is asked for three rows.
    struct Sum(ModelInfo);
    impl Model for Sum {
        fn info(&self) -> &ModelInfo {
            &self.0
        }
        fn run(&self, inputs: &[Tensor<'_>], _: &[usize], read: &mut Read<'_>) -> Result<(), ModelError> {
            let Data::F64(values) = inputs[0].data else { panic!("not the type that was planned") };
            let sums: Vec<f64> = values.chunks(inputs[0].shape[1]).map(|row| row.iter().sum()).collect();
            let rows = if sums.len() == 3 { 2 } else { sums.len() };
            read(&[Value::Tensor(Tensor { shape: &[rows], data: Data::F64(&sums[..rows]) })])
        }
    }
    let info = ModelInfo {
        name: "sum".to_owned(),
        inputs: vec![InputInfo { name: "x".to_owned(), dtype: DType::F64, shape: vec![None, None] }],
        outputs: vec![OutputInfo {
            name: "total".to_owned(),
            kind: OutputKind::Tensor { dtype: DType::F64, shape: vec![None] },
        }],
    };
    assert_eq!(info.to_string(), "sum: x Float64 [N, ?] -> total Float64 [N]");
    let rows = |n: usize| {
        batch(vec![
            ("x", fixed(2, f64s((0..2 * n).map(|value| value as f64)))),
            ("y", f64s((0..n).map(|v| v as f64))),
        ])
    };
    let step = ModelStep::new(share(Sum(info.clone()))).input("x", ["x", "y"]).keep(Keep::None);
    let step = typed(step, &rows(1));
    show(
        &parts(run(&step, &rows(2)).unwrap()).0.unwrap(),
        &expect![[r#"
        +-------+
        | total |
        +-------+
        | 1.0   |
        | 6.0   |
        +-------+"#]],
    );
    let error = run(&step, &rows(3)).unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "output `total` is Float64 [2], not Float64 [3]"
    );
    assert_eq!(DataType::Float64, DType::F64.arrow());
}
