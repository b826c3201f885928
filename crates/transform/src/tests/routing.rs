use expect_test::expect;
use serde_json::json;

use super::check_all;
use crate::testing::batch;

#[test]
fn each_row_leaves_on_the_port_of_the_first_condition_that_holds() {
    let batch = batch! {
        amount: [Some(5i64), Some(5000), None, Some(2000), Some(7)],
        country: [Some("US"), Some("DE"), Some("DE"), Some("US"), None],
    };
    check_all(
        "when",
        &[
            json!({"ports": {"big": "amount > 1000", "foreign": "country <> 'US'"}, "otherwise": "rest"}),
            json!({"ports": {"all": "true"}}),
            json!({"ports": {"none": "amount < 0"}}),
        ],
        &batch,
        &expect![[r#"
            {"ports":{"big":"amount > 1000","foreign":"country <> 'US'"},"otherwise":"rest"}
            big: amount Int64?, country Utf8?
            +--------+---------+
            | amount | country |
            +--------+---------+
            | 5000   | DE      |
            | 2000   | US      |
            +--------+---------+
            foreign: amount Int64?, country Utf8?
            +--------+---------+
            | amount | country |
            +--------+---------+
            |        | DE      |
            +--------+---------+
            rest: amount Int64?, country Utf8?
            +--------+---------+
            | amount | country |
            +--------+---------+
            | 5      | US      |
            | 7      |         |
            +--------+---------+

            {"ports":{"all":"true"}}
            all: amount Int64?, country Utf8?
            +--------+---------+
            | amount | country |
            +--------+---------+
            | 5      | US      |
            | 5000   | DE      |
            |        | DE      |
            | 2000   | US      |
            | 7      |         |
            +--------+---------+

            {"ports":{"none":"amount < 0"}}
            otherwise: amount Int64?, country Utf8?
            +--------+---------+
            | amount | country |
            +--------+---------+
            | 5      | US      |
            | 5000   | DE      |
            |        | DE      |
            | 2000   | US      |
            | 7      |         |
            +--------+---------+

        "#]],
    );
}

#[test]
fn a_condition_is_only_asked_for_rows_that_no_earlier_one_took() {
    let batch = batch! { a: [0i64, 1, 2, 0], b: [10i64, 20, 30, 40] };
    check_all(
        "when",
        &[
            json!({"ports": {"none": "a = 0", "high": "b / a > 16"}}),
            json!({"ports": {"high": "b / a > 16", "none": "a = 0"}}),
        ],
        &batch,
        &expect![[r#"
            {"ports":{"none":"a = 0","high":"b / a > 16"}}
            none: a Int64, b Int64
            +---+----+
            | a | b  |
            +---+----+
            | 0 | 10 |
            | 0 | 40 |
            +---+----+
            high: a Int64, b Int64
            +---+----+
            | a | b  |
            +---+----+
            | 1 | 20 |
            +---+----+
            otherwise: a Int64, b Int64
            +---+----+
            | a | b  |
            +---+----+
            | 2 | 30 |
            +---+----+

            {"ports":{"high":"b / a > 16","none":"a = 0"}}
            high: a Int64, b Int64
            +---+----+
            | a | b  |
            +---+----+
            | 1 | 20 |
            +---+----+
            otherwise: a Int64, b Int64
            +---+----+
            | a | b  |
            +---+----+
            | 2 | 30 |
            +---+----+
            failed: Picked([0, 3])
              `b / a > 16`: a whole number is divided by zero
              `b / a > 16`: a whole number is divided by zero

        "#]],
    );
}

#[test]
fn wrong_ports_and_conditions_are_told_at_once() {
    let batch = batch! { a: [0i64, 1] };
    check_all(
        "when",
        &[
            json!({"ports": {"error": "a > 0", "rest": "b > 0", "x": "a + 1"}, "otherwise": "rest"}),
            json!({"ports": {}}),
            json!({"port": {}}),
            json!({"ports": {"x": "a AS b"}}),
        ],
        &batch,
        &expect![[r#"
            {"ports":{"error":"a > 0","rest":"b > 0","x":"a + 1"},"otherwise":"rest"}
            refused: the port `error` is for rows that fail; choose another name
                     two ports are named `rest`
                     in `b > 0`: no column `b`; did you mean `a`?
                     in `a + 1`: a condition must be true or false, but this is Int64

            {"ports":{}}
            refused: it names no port with a condition

            {"port":{}}
            settings ["port"]: unknown field `port`, expected `ports` or `otherwise`

            {"ports":{"x":"a AS b"}}
            refused: in `a AS b`: a name (`AS b`) has no meaning here

        "#]],
    );
}
