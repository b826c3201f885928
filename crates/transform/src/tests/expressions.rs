use expect_test::expect;
use serde_json::json;

use super::{check, check_all};
use crate::testing::batch;

#[test]
fn select_answers_the_listed_columns_in_order() {
    let batch = batch! { amount: [10.0, 3.0], mean: [Some(4.0), None], card: ["a", "b"] };
    check_all(
        "select",
        &[json!(["card", "amount / mean AS ratio", "amount AS sum"]), json!(["*", "upper(card) AS upper"])],
        &batch,
        &expect![[r#"
            ["card","amount / mean AS ratio","amount AS sum"]
            out: card Utf8, ratio Float64?, sum Float64
            +------+-------+------+
            | card | ratio | sum  |
            +------+-------+------+
            | a    | 2.5   | 10.0 |
            | b    |       | 3.0  |
            +------+-------+------+

            ["*","upper(card) AS upper"]
            out: amount Float64, mean Float64?, card Utf8, upper Utf8
            +--------+------+------+-------+
            | amount | mean | card | upper |
            +--------+------+------+-------+
            | 10.0   | 4.0  | a    | A     |
            | 3.0    |      | b    | B     |
            +--------+------+------+-------+

        "#]],
    );
}

#[test]
fn select_tells_every_mistake() {
    let batch = batch! { amount: [10.0, 3.0], mean: [Some(4.0), None], card: ["a", "b"] };
    check_all(
        "select",
        &[
            json!(["amount + 1", "amuont", "card", "mean AS card", "ln(card) AS x", "amount amount"]),
            json!(["card", "mean AS card"]),
            json!([]),
            json!("amount"),
            json!(["*", "amount"]),
        ],
        &batch,
        &expect![[r#"
            ["amount + 1","amuont","card","mean AS card","ln(card) AS x","amount amount"]
            refused: `amount + 1` needs a name: `amount + 1 AS name`
                     in `amuont`: no column `amuont`; did you mean `amount`?
                     in `ln(card) AS x`: failed to coerce arguments to satisfy a call to 'ln' function: coercion from Utf8 to the signature Uniform(1, [Float64, Float32]) failed
                     in `amount amount`: expected: EOF, found: amount at Line: 1, Column: 8

            ["card","mean AS card"]
            refused: two columns would be named `card`

            []
            refused: no column is left

            "amount"
            settings []: invalid type: string "amount", expected a sequence

            ["*","amount"]
            refused: two columns would be named `amount`

        "#]],
    );
}

#[test]
fn with_assigns_in_order() {
    let batch = batch! { a: [1i64, 2], b: [10i64, 20] };
    check_all(
        "with",
        &[
            json!({"a": "a + 1", "c": "a * 100", "d": "c + b", "b": "b", "e": "b + d"}),
            json!({"c": "a", "a": "b", "b": "c"}),
            json!({"x": "1", "y": "x + 1", "z": "y + x", "x2": "z"}),
        ],
        &batch,
        &expect![[r#"
            {"a":"a + 1","c":"a * 100","d":"c + b","b":"b","e":"b + d"}
            out: a Int64, b Int64, c Int64, d Int64, e Int64
            +---+----+-----+-----+-----+
            | a | b  | c   | d   | e   |
            +---+----+-----+-----+-----+
            | 2 | 10 | 200 | 210 | 220 |
            | 3 | 20 | 300 | 320 | 340 |
            +---+----+-----+-----+-----+

            {"c":"a","a":"b","b":"c"}
            out: a Int64, b Int64, c Int64
            +----+---+---+
            | a  | b | c |
            +----+---+---+
            | 10 | 1 | 1 |
            | 20 | 2 | 2 |
            +----+---+---+

            {"x":"1","y":"x + 1","z":"y + x","x2":"z"}
            out: a Int64, b Int64, x Int64, y Int64, z Int64, x2 Int64
            +---+----+---+---+---+----+
            | a | b  | x | y | z | x2 |
            +---+----+---+---+---+----+
            | 1 | 10 | 1 | 2 | 3 | 3  |
            | 2 | 20 | 1 | 2 | 3 | 3  |
            +---+----+---+---+---+----+

        "#]],
    );
}

#[test]
fn with_tells_every_mistake_once() {
    let batch = batch! { a: [1i64, 2], b: [10i64, 20] };
    check_all(
        "with",
        &[
            json!({"x": "aa + 1", "y": "x + 1", "z": "y + bb", "w": "b + cc", "a": "a AS c"}),
            json!({}),
            json!({"x": 1}),
            json!({"x": "y", "y": "1"}),
        ],
        &batch,
        &expect![[r#"
            {"x":"aa + 1","y":"x + 1","z":"y + bb","w":"b + cc","a":"a AS c"}
            refused: in `aa + 1`: no column `aa`; did you mean `a`?
                     in `b + cc`: no column `cc`; there is `a`, `b`
                     in `a AS c`: a name (`AS c`) has no meaning here

            {}
            refused: it names no column

            {"x":1}
            settings ["x"]: invalid type: integer `1`, expected a string

            {"x":"y","y":"1"}
            refused: in `y`: no column `y`; did you mean `a`?

        "#]],
    );
}

#[test]
fn filter_keeps_the_rows_for_which_the_condition_holds() {
    let batch = batch! { a: [Some(1i64), None, Some(3), Some(4)] };
    check_all(
        "filter",
        &[
            json!("a > 2"),
            json!("a > 0 OR a IS NULL"),
            json!("a > 100"),
            json!("a"),
            json!("a > 1 AS b"),
            json!("b > 1"),
        ],
        &batch,
        &expect![[r#"
            "a > 2"
            out: a Int64?
            +---+
            | a |
            +---+
            | 3 |
            | 4 |
            +---+

            "a > 0 OR a IS NULL"
            out: a Int64?
            +---+
            | a |
            +---+
            | 1 |
            |   |
            | 3 |
            | 4 |
            +---+

            "a > 100"

            "a"
            refused: in `a`: a condition must be true or false, but this is Int64

            "a > 1 AS b"
            refused: in `a > 1 AS b`: a name (`AS b`) has no meaning here

            "b > 1"
            refused: in `b > 1`: no column `b`; did you mean `a`?

        "#]],
    );
}

#[test]
fn rows_at_fault_leave_beside_the_others() {
    let batch = batch! { a: [1i64, 0, 3, 0, 5, 0, 0, 2], b: [10i64, 20, 30, 40, 50, 60, 70, 80] };
    check(
        "with",
        &json!({"q": "b / a", "r": "q + 1"}),
        &batch,
        &expect![[r#"
        out: a Int64, b Int64, q Int64, r Int64
        +---+----+----+----+
        | a | b  | q  | r  |
        +---+----+----+----+
        | 1 | 10 | 10 | 11 |
        | 3 | 30 | 10 | 11 |
        | 5 | 50 | 10 | 11 |
        | 2 | 80 | 40 | 41 |
        +---+----+----+----+
        failed: Picked([1, 3, 5, 6])
          `b / a`: a whole number is divided by zero
          `b / a`: a whole number is divided by zero
          `b / a`: a whole number is divided by zero
          `b / a`: a whole number is divided by zero
    "#]],
    );
    check(
        "filter",
        &json!("b / a > 12"),
        &batch,
        &expect![[r#"
        out: a Int64, b Int64
        +---+----+
        | a | b  |
        +---+----+
        | 2 | 80 |
        +---+----+
        failed: Picked([1, 3, 5, 6])
          `b / a > 12`: a whole number is divided by zero
          `b / a > 12`: a whole number is divided by zero
          `b / a > 12`: a whole number is divided by zero
          `b / a > 12`: a whole number is divided by zero
    "#]],
    );
    check(
        "select",
        &json!(["CASE WHEN a = 0 THEN 0 ELSE b / a END AS q"]),
        &batch,
        &expect![[r#"
        out: q Int64
        +----+
        | q  |
        +----+
        | 10 |
        | 0  |
        | 10 |
        | 0  |
        | 10 |
        | 0  |
        | 0  |
        | 40 |
        +----+
    "#]],
    );
}

#[test]
fn the_answer_for_a_row_does_not_depend_on_the_rows_beside_it() {
    // `AND` is evaluated for all rows of a batch together; a row that its left side excludes is never at fault.
    let batch = batch! { a: [0i64, 1, 2, 5], b: [10i64, 20, 30, 40] };
    check(
        "filter",
        &json!("a <> 0 AND b / a > 10"),
        &batch,
        &expect![[r#"
        out: a Int64, b Int64
        +---+----+
        | a | b  |
        +---+----+
        | 1 | 20 |
        | 2 | 30 |
        +---+----+
    "#]],
    );
    check(
        "with",
        &json!({"high": "a <> 0 AND b / a > 10"}),
        &batch,
        &expect![[r#"
        out: a Int64, b Int64, high Boolean
        +---+----+-------+
        | a | b  | high  |
        +---+----+-------+
        | 0 | 10 | false |
        | 1 | 20 | true  |
        | 2 | 30 | true  |
        | 5 | 40 | false |
        +---+----+-------+
    "#]],
    );
}

#[test]
fn a_batch_of_which_no_row_can_be_answered_is_an_error() {
    check(
        "with",
        &json!({"q": "1 / a"}),
        &batch! { a: [0i64] },
        &expect![[r#"
        rows error: `1 / a`: a whole number is divided by zero
    "#]],
    );
    check(
        "with",
        &json!({"q": "1 / a"}),
        &batch! { a: [0i64, 0, 0] },
        &expect![[r#"
        rows error: `1 / a`: a whole number is divided by zero
    "#]],
    );
    let many: Vec<i64> = (0..5000).map(|row| i64::from(row % 2 == 0)).collect();
    let many =
        crate::testing::batch_of(vec![("a", std::sync::Arc::new(arrow::array::Int64Array::from(many)))]);
    check(
        "with",
        &json!({"q": "1 / a"}),
        &many,
        &expect![[r#"
        rows error: more than 1024 of 5000 rows fail; the first: `1 / a`: a whole number is divided by zero
    "#]],
    );
}
