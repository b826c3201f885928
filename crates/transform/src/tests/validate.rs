use expect_test::expect;
use serde_json::json;

use super::check_all;
use crate::testing::batch;

#[test]
fn rows_that_break_a_rule_leave_with_all_that_is_wrong() {
    let batch = batch! {
        amount: [Some(5.0), Some(-5.0), None, Some(f64::NAN), Some(1e9)],
        country: [Some("US"), Some("usa"), None, Some("DE"), Some("U")],
        code: [Some("12"), Some("x"), Some("300"), Some("-1"), None],
        n: [1i64, 2, 3, 4, 5],
    };
    check_all(
        "validate",
        &[
            json!({"columns": {"amount": ["not_null", {"range": {"min": 0, "max": 1000}}]}}),
            json!({"columns": {"country": [{"regex": "[A-Z]{2}"}, {"length": {"min": 2, "max": 2}}], "n": [{"range": {"max": 2}}]}}),
            json!({"columns": {"country": [{"set": ["US", "DE"]}], "n": [{"set": [1, 2, 3, 4, 5]}]}}),
            json!({"columns": {"code": [{"type": "int8"}], "amount": [{"type": "int64"}]}}),
            json!({"columns": {"n": [{"range": {"min": 1, "max": 5}}]}}),
            json!({"columns": {"n": [{"range": {"min": 6}}]}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"amount":["not_null",{"range":{"min":0,"max":1000}}]}}
            out: amount Float64, country Utf8?, code Utf8?, n Int64
            +--------+---------+------+---+
            | amount | country | code | n |
            +--------+---------+------+---+
            | 5.0    | US      | 12   | 1 |
            +--------+---------+------+---+
            failed: Picked([1, 2, 3, 4])
              column `amount`: -5.0 is below the minimum 0
              column `amount`: null
              column `amount`: NaN is in no range
              column `amount`: 1000000000.0 is above the maximum 1000

            {"columns":{"country":[{"regex":"[A-Z]{2}"},{"length":{"min":2,"max":2}}],"n":[{"range":{"max":2}}]}}
            out: amount Float64?, country Utf8?, code Utf8?, n Int64
            +--------+---------+------+---+
            | amount | country | code | n |
            +--------+---------+------+---+
            | 5.0    | US      | 12   | 1 |
            +--------+---------+------+---+
            failed: Picked([1, 2, 3, 4])
              column `country`: 'usa' does not match `[A-Z]{2}`; column `country`: 'usa' has length 3, more than 2
              column `n`: 3 is above the maximum 2
              column `n`: 4 is above the maximum 2
              column `country`: 'U' does not match `[A-Z]{2}`; column `country`: 'U' has length 1, less than 2; column `n`: 5 is above the maximum 2

            {"columns":{"country":[{"set":["US","DE"]}],"n":[{"set":[1,2,3,4,5]}]}}
            out: amount Float64?, country Utf8?, code Utf8?, n Int64
            +--------+---------+------+---+
            | amount | country | code | n |
            +--------+---------+------+---+
            | 5.0    | US      | 12   | 1 |
            |        |         | 300  | 3 |
            | NaN    | DE      | -1   | 4 |
            +--------+---------+------+---+
            failed: Picked([1, 4])
              column `country`: 'usa' is none of 'US', 'DE'
              column `country`: 'U' is none of 'US', 'DE'

            {"columns":{"code":[{"type":"int8"}],"amount":[{"type":"int64"}]}}
            out: amount Float64?, country Utf8?, code Utf8?, n Int64
            +--------------+---------+------+---+
            | amount       | country | code | n |
            +--------------+---------+------+---+
            | 5.0          | US      | 12   | 1 |
            | 1000000000.0 | U       |      | 5 |
            +--------------+---------+------+---+
            failed: Picked([1, 2, 3])
              column `code`: 'x' does not fit Int8
              column `code`: '300' does not fit Int8
              column `amount`: NaN does not fit Int64

            {"columns":{"n":[{"range":{"min":1,"max":5}}]}}
            out: amount Float64?, country Utf8?, code Utf8?, n Int64
            +--------------+---------+------+---+
            | amount       | country | code | n |
            +--------------+---------+------+---+
            | 5.0          | US      | 12   | 1 |
            | -5.0         | usa     | x    | 2 |
            |              |         | 300  | 3 |
            | NaN          | DE      | -1   | 4 |
            | 1000000000.0 | U       |      | 5 |
            +--------------+---------+------+---+

            {"columns":{"n":[{"range":{"min":6}}]}}
            failed: Picked([0, 1, 2, 3, 4])
              column `n`: 1 is below the minimum 6
              column `n`: 2 is below the minimum 6
              column `n`: 3 is below the minimum 6
              column `n`: 4 is below the minimum 6
              column `n`: 5 is below the minimum 6

        "#]],
    );
}

#[test]
fn a_long_value_is_shown_in_part() {
    let long = "é".repeat(500);
    let batch = batch! { text: [long.as_str(), "ok"] };
    check_all(
        "validate",
        &[json!({"columns": {"text": [{"length": {"max": 10}}]}})],
        &batch,
        &expect![[r#"
        {"columns":{"text":[{"length":{"max":10}}]}}
        out: text Utf8
        +------+
        | text |
        +------+
        | ok   |
        +------+
        failed: Picked([0])
          column `text`: 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé...' has length 500, more than 10

    "#]],
    );
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let batch = batch! { amount: [5.0], country: ["US"], ok: [true] };
    check_all(
        "validate",
        &[
            json!({"columns": {"amount": [{"regex": "x"}, {"length": {"min": 1}}, {"set": [1]}], "country": [{"range": {"min": 1}}, {"regex": "(["}, {"length": {"min": 3, "max": 2}}], "contry": ["not_null"]}}),
            json!({"columns": {"amount": [{"range": {"min": 3, "max": 2}}], "ok": [{"type": "date"}]}}),
            json!({"columns": {"amount": []}}),
            json!({"columns": {"amount": ["notnull"]}}),
            json!({"columns": {"amount": [{"range": {"minimum": 3}}]}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"amount":[{"regex":"x"},{"length":{"min":1}},{"set":[1]}],"country":[{"range":{"min":1}},{"regex":"(["},{"length":{"min":3,"max":2}}],"contry":["not_null"]}}
            refused: column `amount`: a pattern needs text, not Float64
                     column `amount`: text, bytes and lists have a length, Float64 has none
                     column `amount`: listed values need text, whole numbers or true and false, not Float64
                     column `country`: a range needs numbers, not Utf8
                     column `country`: `([` is not a pattern: unclosed character class
                     column `country`: no length is in 3 to 2
                     no column `contry`; did you mean `country`?

            {"columns":{"amount":[{"range":{"min":3,"max":2}}],"ok":[{"type":"date"}]}}
            refused: column `amount`: no number is in the range 3 to 2
                     column `ok`: Boolean never fits Date32

            {"columns":{"amount":[]}}
            refused: it has no rules

            {"columns":{"amount":["notnull"]}}
            settings ["columns", "amount", "[0]"]: unknown variant `notnull`, expected one of `not_null`, `range`, `set`, `regex`, `length`, `type`

            {"columns":{"amount":[{"range":{"minimum":3}}]}}
            settings ["columns", "amount", "[0]", "range", "minimum"]: unknown field `minimum`, expected `min` or `max`

        "#]],
    );
}
