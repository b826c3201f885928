use expect_test::expect;
use serde_json::json;

use super::check_all;
use crate::testing::batch;

#[test]
fn missing_values_are_filled_by_the_declared_method() {
    let batch = batch! {
        age: [Some(f64::NAN), None, Some(30.0), None],
        n: [None, Some(2i64), None, Some(4)],
        country: [None, Some("DE"), None, None],
        whole: [1.0, 2.0, 3.0, 4.0],
    };
    check_all(
        "impute",
        &[
            json!({"columns": {"age": {"method": "mean", "value": 41.5}, "n": {"method": "median", "value": 3.0}}}),
            json!({"columns": {"age": {"method": "median"}}, "statistics": {"age": {"mean": 1, "median": 2}}}),
            json!({"columns": {"age": {"method": "last", "value": 0}, "country": {"method": "last", "value": "?"}, "n": {"method": "last", "value": -1}}}),
            json!({"columns": {"age": {"method": "constant", "value": -1}, "country": {"method": "constant", "value": "US"}}, "nan": false}),
            json!({"columns": {"whole": {"method": "constant", "value": 0}}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"age":{"method":"mean","value":41.5},"n":{"method":"median","value":3.0}}}
            out: age Float64, n Int64, country Utf8?, whole Float64
            +------+---+---------+-------+
            | age  | n | country | whole |
            +------+---+---------+-------+
            | 41.5 | 3 |         | 1.0   |
            | 41.5 | 2 | DE      | 2.0   |
            | 30.0 | 3 |         | 3.0   |
            | 41.5 | 4 |         | 4.0   |
            +------+---+---------+-------+

            {"columns":{"age":{"method":"median"}},"statistics":{"age":{"mean":1,"median":2}}}
            out: age Float64, n Int64?, country Utf8?, whole Float64
            +------+---+---------+-------+
            | age  | n | country | whole |
            +------+---+---------+-------+
            | 2.0  |   |         | 1.0   |
            | 2.0  | 2 | DE      | 2.0   |
            | 30.0 |   |         | 3.0   |
            | 2.0  | 4 |         | 4.0   |
            +------+---+---------+-------+

            {"columns":{"age":{"method":"last","value":0},"country":{"method":"last","value":"?"},"n":{"method":"last","value":-1}}}
            out: age Float64, n Int64, country Utf8, whole Float64
            +------+----+---------+-------+
            | age  | n  | country | whole |
            +------+----+---------+-------+
            | 0.0  | -1 | ?       | 1.0   |
            | 0.0  | 2  | DE      | 2.0   |
            | 30.0 | 2  | DE      | 3.0   |
            | 30.0 | 4  | DE      | 4.0   |
            +------+----+---------+-------+

            {"columns":{"age":{"method":"constant","value":-1},"country":{"method":"constant","value":"US"}},"nan":false}
            out: age Float64, n Int64?, country Utf8, whole Float64
            +------+---+---------+-------+
            | age  | n | country | whole |
            +------+---+---------+-------+
            | NaN  |   | US      | 1.0   |
            | -1.0 | 2 | DE      | 2.0   |
            | 30.0 |   | US      | 3.0   |
            | -1.0 | 4 | US      | 4.0   |
            +------+---+---------+-------+

            {"columns":{"whole":{"method":"constant","value":0}}}
            out: age Float64?, n Int64?, country Utf8?, whole Float64
            +------+---+---------+-------+
            | age  | n | country | whole |
            +------+---+---------+-------+
            | NaN  |   |         | 1.0   |
            |      | 2 | DE      | 2.0   |
            | 30.0 |   |         | 3.0   |
            |      | 4 |         | 4.0   |
            +------+---+---------+-------+

        "#]],
    );
}

#[test]
fn values_that_cannot_fill_a_column_are_refused() {
    let batch = batch! { n: [None, Some(2i64)], small: [Some(1i8), None], country: [None, Some("DE")], flag: [None, Some(true)] };
    check_all(
        "impute",
        &[
            json!({"columns": {"n": {"method": "mean", "value": 41.5}, "small": {"method": "constant", "value": 300}, "country": {"method": "constant", "value": 1}, "flag": {"method": "constant", "value": 1}}}),
            json!({"columns": {"n": {"method": "mean"}, "country": {"method": "last"}, "flag": {"method": "median", "value": "x"}, "m": {"method": "mean", "value": 1}}}),
            json!({"columns": {"n": {"method": "avg", "value": 1}}}),
            json!({"columns": {}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"n":{"method":"mean","value":41.5},"small":{"method":"constant","value":300},"country":{"method":"constant","value":1},"flag":{"method":"constant","value":1}}}
            refused: column `n`: Int64 cannot hold 41.5; cast the column to float64 first
                     column `small`: Int8 cannot hold 300
                     column `country`: Utf8 cannot hold 1
                     column `flag`: Boolean cannot hold 1

            {"columns":{"n":{"method":"mean"},"country":{"method":"last"},"flag":{"method":"median","value":"x"},"m":{"method":"mean","value":1}}}
            refused: column `n`: its mean is missing: give `value`, or `mean` in `statistics`
                     column `country`: `last` needs a `value`
                     column `flag`: a median is a number, not 'x'
                     no column `m`; did you mean `n`?

            {"columns":{"n":{"method":"avg","value":1}}}
            settings ["columns", "n", "method"]: unknown variant `avg`, expected one of `mean`, `median`, `constant`, `last`

            {"columns":{}}
            refused: it names no column

        "#]],
    );
}
