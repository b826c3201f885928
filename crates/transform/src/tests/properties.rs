use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::{Field, Float32Type, Float64Type, Int64Type, Schema},
    util::display::array_value_to_string,
};
use millstream_graph::{Origin, Rows, Step};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{Expr, OneHot, Ordinal, Pack, TensorNull, UnknownPlace, When, With, testing};

/// One row of the batches that generated expressions see.
#[derive(Clone, Debug)]
struct Row {
    x: Option<f64>,
    y: f64,
    n: Option<i64>,
    m: i64,
    s: Option<String>,
    b: Option<bool>,
}

fn any_float() -> impl Strategy<Value = f64> {
    let special =
        [0.0, -0.0, 1.0, -1.0, 0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE];
    prop_oneof![2 => select(special.to_vec()), 3 => -1e6f64..1e6]
}

fn any_int() -> impl Strategy<Value = i64> {
    prop_oneof![3 => -3i64..4, 1 => select(vec![i64::MAX, i64::MIN, 1 << 40]), 1 => -1000i64..1000]
}

fn any_row() -> impl Strategy<Value = Row> {
    (
        option::of(any_float()),
        any_float(),
        option::of(any_int()),
        any_int(),
        option::of("[a-c]{0,2}"),
        option::of(any::<bool>()),
    )
        .prop_map(|(x, y, n, m, s, b)| Row { x, y, n, m, s, b })
}

fn batch(rows: &[Row]) -> RecordBatch {
    let field =
        |name: &str, array: &ArrayRef, nullable| Field::new(name, array.data_type().clone(), nullable);
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("x", Arc::new(rows.iter().map(|row| row.x).collect::<Float64Array>()), true),
        ("y", Arc::new(rows.iter().map(|row| Some(row.y)).collect::<Float64Array>()), false),
        ("n", Arc::new(rows.iter().map(|row| row.n).collect::<Int64Array>()), true),
        ("m", Arc::new(rows.iter().map(|row| Some(row.m)).collect::<Int64Array>()), false),
        ("s", Arc::new(rows.iter().map(|row| row.s.as_deref()).collect::<StringArray>()), true),
        ("b", Arc::new(rows.iter().map(|row| row.b).collect::<BooleanArray>()), true),
    ];
    let schema = Schema::new(
        columns.iter().map(|(name, array, nullable)| field(name, array, *nullable)).collect::<Vec<_>>(),
    );
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array, _)| array).collect()).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Float,
    Int,
    Bool,
    Text,
}

/// Expressions of a kind, at most `depth` deep.
fn any_expr(kind: Kind, depth: u32) -> BoxedStrategy<String> {
    let leaf = match kind {
        Kind::Float => select(vec!["x", "y", "0.5", "-2.0", "1e300", "CAST(n AS DOUBLE)"]),
        Kind::Int => select(vec!["n", "m", "0", "1", "-7", "3600"]),
        Kind::Bool => select(vec!["b", "true", "x IS NULL", "s = 'a'", "n > m"]),
        Kind::Text => select(vec!["s", "'a'", "''"]),
    };
    let leaf = leaf.prop_map(str::to_owned).boxed();
    if depth == 0 {
        return leaf;
    }
    let of = move |kind| any_expr(kind, depth - 1);
    let call = |format: fn(String, String, String) -> String, a: Kind, b: Kind, c: Kind| {
        (of(a), of(b), of(c)).prop_map(move |(a, b, c)| format(a, b, c)).boxed()
    };
    use Kind::{Bool, Float, Int, Text};
    let case = call(|a, b, c| format!("CASE WHEN {a} THEN {b} ELSE {c} END"), Bool, kind, kind);
    let own = match kind {
        Float => prop_oneof![
            call(|a, b, _| format!("({a} + {b})"), Float, Float, Int),
            call(|a, b, _| format!("({a} * {b})"), Float, Int, Int),
            call(|a, b, _| format!("({a} / {b})"), Float, Float, Int),
            call(|a, b, _| format!("({a} - {b})"), Int, Float, Int),
            call(|a, _, _| format!("ln({a})"), Float, Int, Int),
            call(|a, _, _| format!("log1p({a})"), Float, Int, Int),
            call(|a, _, _| format!("expm1({a})"), Float, Int, Int),
            call(|a, _, _| format!("round({a}, 2)"), Float, Int, Int),
            call(|a, _, _| format!("sqrt({a})"), Float, Int, Int),
            call(|a, b, c| format!("clamp({a}, {b}, {c})"), Float, Float, Int),
            call(|a, b, _| format!("coalesce({a}, {b})"), Float, Float, Int),
            call(|a, b, _| format!("greatest({a}, {b})"), Float, Float, Int),
            call(|a, _, _| format!("(- {a})"), Float, Int, Int),
        ]
        .boxed(),
        Int => prop_oneof![
            call(|a, b, _| format!("({a} + {b})"), Int, Int, Int),
            call(|a, b, _| format!("({a} * {b})"), Int, Int, Int),
            call(|a, b, _| format!("({a} / {b})"), Int, Int, Int),
            call(|a, b, _| format!("({a} % {b})"), Int, Int, Int),
            call(|a, b, _| format!("nullif({a}, {b})"), Int, Int, Int),
            call(|a, b, c| format!("clamp({a}, {b}, {c})"), Int, Int, Int),
            call(|a, _, _| format!("abs({a})"), Int, Int, Int),
            call(|a, _, _| format!("CAST({a} AS BIGINT)"), Float, Int, Int),
            call(|a, _, _| format!("CAST(length({a}) AS BIGINT)"), Text, Int, Int),
        ]
        .boxed(),
        Bool => prop_oneof![
            call(|a, b, _| format!("({a} AND {b})"), Bool, Bool, Int),
            call(|a, b, _| format!("({a} OR {b})"), Bool, Bool, Int),
            call(|a, _, _| format!("(NOT {a})"), Bool, Bool, Int),
            call(|a, b, _| format!("({a} > {b})"), Float, Int, Int),
            call(|a, b, _| format!("({a} = {b})"), Int, Int, Int),
            call(|a, b, c| format!("({a} BETWEEN {b} AND {c})"), Float, Float, Float),
            call(|a, b, c| format!("({a} IN ({b}, {c}))"), Int, Int, Int),
            call(|a, _, _| format!("({a} LIKE 'a%')"), Text, Int, Int),
            call(|a, _, _| format!("({a} IS NOT NULL)"), Float, Int, Int),
            call(|a, _, _| format!("isnan({a})"), Float, Int, Int),
        ]
        .boxed(),
        Text => prop_oneof![
            call(|a, b, _| format!("({a} || {b})"), Text, Text, Int),
            call(|a, _, _| format!("upper({a})"), Text, Int, Int),
            call(|a, b, _| format!("coalesce({a}, {b})"), Text, Text, Int),
            call(|a, _, _| format!("substr({a}, 1, 1)"), Text, Int, Int),
            call(|a, _, _| format!("CAST({a} AS VARCHAR)"), Int, Int, Int),
        ]
        .boxed(),
    };
    prop_oneof![2 => leaf, 6 => own, 1 => case].boxed()
}

fn any_kind() -> impl Strategy<Value = Kind> {
    select(vec![Kind::Float, Kind::Int, Kind::Bool, Kind::Text])
}

/// What became of each row: its values as text, or why it failed.
fn by_row(step: &dyn Step, batch: &RecordBatch) -> Vec<Result<String, String>> {
    let output = match testing::call(step, Rows::whole(batch.clone())) {
        Ok(output) => output,
        Err(error) => {
            assert_eq!(error.kind(), millstream_graph::ErrorKind::Rows, "{error}");
            return vec![Err(error.message().to_owned()); batch.num_rows()];
        }
    };
    let at = |rows: &Rows, row: usize| match rows.origin() {
        Origin::Whole => row,
        Origin::Picked(at) => at[row] as usize,
        Origin::Lost => panic!("rows lost their origin"),
    };
    let mut told: Vec<Option<Result<String, String>>> = vec![None; batch.num_rows()];
    let (ports, failed, _) = output.into_parts();
    for (port, rows) in ports {
        for row in 0..rows.len() {
            let values: Vec<_> = rows.batch().columns().iter().map(|array| shown(array, row)).collect();
            let place = &mut told[at(&rows, row)];
            assert!(place.is_none(), "a row leaves twice");
            *place = Some(Ok(format!("{port}: {}", values.join(", "))));
        }
    }
    if let Some(failed) = failed {
        for (row, message) in failed.messages.into_iter().enumerate() {
            let place = &mut told[at(&failed.rows, row)];
            assert!(place.is_none(), "a row leaves twice");
            *place = Some(Err(message));
        }
    }
    told.into_iter().map(|row| row.unwrap_or_else(|| Ok("dropped".to_owned()))).collect()
}

fn shown(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) { "null".to_owned() } else { array_value_to_string(array, row).unwrap() }
}

/// A step answers for a batch what it answers for each row alone.
fn row_wise(step: &dyn Step, batch: &RecordBatch) -> Result<(), TestCaseError> {
    // A constant that cannot be computed is refused when the step is typed.
    prop_assume!(step.signature(&[batch.schema()]).is_ok());
    let whole = by_row(step, batch);
    for (row, together) in whole.into_iter().enumerate() {
        let alone = by_row(step, &batch.slice(row, 1)).remove(0);
        match (&together, &alone) {
            // A batch that fails as a whole tells the first message for all of its rows.
            (Err(_), Err(_)) => {}
            _ => prop_assert_eq!(together, alone, "row {}", row),
        }
    }
    Ok(())
}

/// Fewer cases than proptest's own default, unless `PROPTEST_CASES` says otherwise: each one compiles SQL.
fn few() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn an_expression_is_computed_row_by_row(
        (kind, text) in any_kind().prop_flat_map(|kind| (Just(kind), any_expr(kind, 3))),
        then in select(vec!["z", "CASE WHEN z IS NULL THEN 1 ELSE 2 END"]),
        rows in vec(any_row(), 1..9),
    ) {
        let _ = kind;
        let step = With::new().column("z", text).column("w", then);
        row_wise(&step, &batch(&rows))?;
    }

    #[test]
    fn routing_puts_every_row_on_one_port(
        first in any_expr(Kind::Bool, 3), second in any_expr(Kind::Bool, 2), rows in vec(any_row(), 1..9),
    ) {
        let batch = batch(&rows);
        let step = When::new().port("first", first).port("second", second);
        row_wise(&step, &batch)?;
        for row in by_row(&step, &batch) {
            prop_assert_ne!(row, Ok("dropped".to_owned()));
        }
    }

    #[test]
    fn simplifying_changes_no_answer(
        (kind, text) in any_kind().prop_flat_map(|kind| (Just(kind), any_expr(kind, 3))), rows in vec(any_row(), 1..9),
    ) {
        let _ = kind;
        // `coalesce` has no meaning before it is simplified.
        prop_assume!(!text.contains("coalesce"));
        let batch = batch(&rows);
        let expr = Expr::parse(&text).unwrap();
        let Ok(simple) = expr.compile(&batch.schema()) else {
            return Err(TestCaseError::reject("a constant that cannot be computed"));
        };
        let plain = expr.compile_without_simplifying(&batch.schema()).unwrap();
        for row in 0..batch.num_rows() {
            let row = batch.slice(row, 1);
            // Simplifying may take an error away, never bring one.
            if let Ok(plain) = plain.evaluate(&row) {
                let simple = simple.evaluate(&row).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(shown(&plain, 0), shown(&simple, 0));
            }
        }
    }

    #[test]
    fn values_one_by_one_equal_columns_to_the_bit(
        (kind, text) in any_kind().prop_flat_map(|kind| (Just(kind), any_expr(kind, 3))), rows in vec(any_row(), 1..9),
    ) {
        let _ = kind;
        let batch = batch(&rows);
        let Ok(compiled) = Expr::parse(&text).unwrap().compile(&batch.schema()) else {
            return Err(TestCaseError::reject("a constant that cannot be computed"));
        };
        for row in 0..batch.num_rows() {
            let row = batch.slice(row, 1);
            let told = |answer: Result<ArrayRef, millstream_graph::StepError>| {
                answer.map(|array| shown(&array, 0)).map_err(|error| error.message().to_owned())
            };
            prop_assert_eq!(told(compiled.evaluate(&row)), told(compiled.evaluate_columns(&row)));
        }
    }

    #[test]
    fn parts_in_common_change_no_answer(
        parts in (any_expr(Kind::Float, 2), any_expr(Kind::Int, 2), any_expr(Kind::Bool, 1)),
        picked in vec(0..PARTS.len(), 2..5),
        rows in vec(any_row(), 17..40),
    ) {
        // Single rows are computed one by one, and so each expression for itself.
        let (x, n, b) = parts;
        let text = |pick: usize| PARTS[pick].replace("{x}", &x).replace("{n}", &n).replace("{b}", &b);
        let columns = picked.iter().enumerate();
        let step = columns.clone().fold(With::new(), |with, (at, &pick)| with.column(format!("z{at}"), text(pick)));
        row_wise_in_words(&step, &batch(&rows))?;
        let numbers = picked.iter().map(|&pick| text(pick)).collect::<Vec<_>>();
        row_wise_in_words(&Pack::new("p", numbers).nulls(TensorNull::Nan), &batch(&rows))?;
    }

    #[test]
    fn no_text_is_too_strange_to_read(words in vec(select(WORDS.to_vec()), 0..24), noise in ".{0,40}") {
        let batch = batch(&[Row { x: None, y: 1.0, n: Some(2), m: 3, s: Some("a".into()), b: Some(true) }]);
        for text in [words.join(" "), words.concat(), noise] {
            if let Ok(compiled) = Expr::parse(&text).and_then(|expr| expr.compile(&batch.schema())) {
                let _ = compiled.evaluate(&batch);
            }
        }
    }

    #[test]
    fn one_hot_columns_of_a_value_sum_to_one_or_nothing(
        categories in proptest::collection::btree_set("[a-zé ]{0,4}", 1..9),
        values in vec(option::of("[a-zé ]{0,4}"), 1..20),
        picked in vec(0usize..9, 0..9),
    ) {
        let categories: Vec<String> = categories.into_iter().collect();
        let mut values = values;
        for pick in picked {
            values.push(categories.get(pick).cloned());
        }
        let names: std::collections::BTreeSet<_> = categories.iter().map(|name| name.replace(' ', "_")).collect();
        prop_assume!(names.len() == categories.len());
        let array: ArrayRef = Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>());
        let batch = testing::batch_of(vec![("c", array)]);
        let hot = testing::out(&OneHot::new().column("c", categories.clone()), &batch);
        let place = testing::out(&Ordinal::new().column("c", categories.clone()).unknown(UnknownPlace::Value(-1)), &batch);
        for (row, value) in values.iter().enumerate() {
            let cells: Vec<i64> =
                hot.columns().iter().map(|array| array.as_primitive::<Int64Type>().value(row)).collect();
            let expected = value.as_ref().and_then(|value| categories.iter().position(|known| known == value));
            prop_assert_eq!(cells.iter().sum::<i64>(), i64::from(expected.is_some()));
            prop_assert_eq!(cells.iter().position(|&cell| cell == 1), expected);
            let place = place.column(0).as_primitive::<Int64Type>();
            match (value, expected) {
                (None, _) => prop_assert!(place.is_null(row)),
                (_, expected) => prop_assert_eq!(place.value(row), expected.map_or(-1, |at| at as i64)),
            }
        }
    }

    #[test]
    fn functions_equal_those_of_rust_to_the_bit(values in vec((any_float(), any_float()), 1..20)) {
        let floats = |pick: fn(&(f64, f64)) -> f64| Arc::new(values.iter().map(|value| Some(pick(value))).collect::<Float64Array>());
        let batch = testing::batch_of(vec![("a", floats(|value| value.0)), ("b", floats(|value| value.1))]);
        let oracles: &[Oracle] = &[
            ("log1p(a)", |a, _| a.ln_1p()),
            ("expm1(a)", |a, _| a.exp_m1()),
            ("ln(a)", |a, _| a.ln()),
            ("exp(a)", |a, _| a.exp()),
            ("abs(a)", |a, _| a.abs()),
            ("floor(a)", |a, _| a.floor()),
            ("ceil(a)", |a, _| a.ceil()),
            ("a / (b + 1)", |a, b| a / (b + 1.0)),
            ("(a - b) / (b + 1)", |a, b| (a - b) / (b + 1.0)),
            ("a * 2 - b / 3", |a, b| a * 2.0 - b / 3.0),
        ];
        for (text, oracle) in oracles {
            let compiled = Expr::parse(text).unwrap().compile(&batch.schema()).unwrap();
            let answer = compiled.evaluate(&batch).unwrap();
            for (row, &(a, b)) in values.iter().enumerate() {
                let (got, wanted) = (answer.as_primitive::<Float64Type>().value(row), oracle(a, b));
                // The sign of a NaN has no meaning.
                prop_assert!(got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan()), "{} of {} and {}: {} is not {}", text, a, b, got, wanted);
            }
        }
        let single = Expr::parse("log1p(CAST(a AS FLOAT))").unwrap().compile(&batch.schema()).unwrap();
        let answer = single.evaluate(&batch).unwrap();
        for (row, &(a, _)) in values.iter().enumerate() {
            let (got, wanted) = (answer.as_primitive::<Float32Type>().value(row), (a as f32).ln_1p());
            prop_assert!(got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan()));
        }
    }
}

/// Ways to use parts, surely or only for some rows.
const PARTS: &[&str] = &[
    "{x}",
    "({x}) * 2.0",
    "{n}",
    "({n}) / 2 + ({n})",
    "CASE WHEN {b} THEN {n} ELSE -1 END",
    "CASE WHEN ({n}) > 0 THEN {x} ELSE CAST({n} AS DOUBLE) END",
    "({b}) AND ({n}) > 1",
    "({n}) > 1 OR ({b})",
    "coalesce({x}, CAST({n} AS DOUBLE))",
    "log1p({x}) + ({x})",
];

/// As [`row_wise`], and what a failed row says is the same as long as any row does not fail.
fn row_wise_in_words(step: &dyn Step, batch: &RecordBatch) -> Result<(), TestCaseError> {
    prop_assume!(step.signature(&[batch.schema()]).is_ok());
    let whole = by_row(step, batch);
    let any_good = whole.iter().any(Result::is_ok);
    for (row, together) in whole.into_iter().enumerate() {
        let alone = by_row(step, &batch.slice(row, 1)).remove(0);
        match (&together, &alone) {
            (Err(_), Err(_)) if !any_good => {}
            _ => prop_assert_eq!(together, alone, "row {}", row),
        }
    }
    Ok(())
}

/// An expression over `a` and `b`, and what it is in Rust.
type Oracle = (&'static str, fn(f64, f64) -> f64);

const WORDS: &[&str] = &[
    "x",
    "y",
    "n",
    "m",
    "s",
    "b",
    "1",
    "0",
    "2.5",
    "'a'",
    "\"x\"",
    "+",
    "-",
    "*",
    "/",
    "%",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "::",
    ":",
    ";",
    "=",
    "<>",
    "<",
    ">",
    "||",
    "->",
    "->>",
    "@>",
    "<@",
    "&",
    "|",
    "^",
    "~",
    "!",
    "#",
    "?",
    "$1",
    "@v",
    "AND",
    "OR",
    "NOT",
    "IS",
    "NULL",
    "TRUE",
    "IN",
    "LIKE",
    "BETWEEN",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "AS",
    "DOUBLE",
    "INT",
    "DATE",
    "TIMESTAMP",
    "INTERVAL",
    "'1 day'",
    "EXTRACT",
    "YEAR",
    "FROM",
    "SELECT",
    "EXISTS",
    "ARRAY",
    "STRUCT",
    "MAP",
    "ANY",
    "ALL",
    "SUBSTRING",
    "TRIM",
    "POSITION",
    "OVERLAY",
    "AT TIME ZONE",
    "COLLATE",
    "OVER",
    "DISTINCT",
    "abs",
    "ln",
    "clamp",
    "coalesce",
    "nullif",
    "concat",
    "to_timestamp",
    "date_part",
    "regexp_like",
    "make_array",
    "named_struct",
    "get_field",
    "array_element",
    "map",
    "make_map",
    "arrow_cast",
    "date_bin",
    "chr",
    "round",
    "power",
    "log",
    "split_part",
    "substr",
    "translate",
    "lpad",
    "to_char",
    "factorial",
    "gcd",
    "lcm",
    "nvl2",
];
