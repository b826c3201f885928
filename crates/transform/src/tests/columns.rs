use expect_test::expect;
use serde_json::json;

use super::check_all;
use crate::testing::batch;

#[test]
fn columns_are_cast() {
    let batch = batch! {
        amount: [Some(1.9), Some(-300.0), None, Some(f64::NAN)],
        text: [Some("12"), Some("x"), None, Some("2024-02-29")],
        n: [1i64, 0, 1, 300],
    };
    check_all(
        "cast",
        &[
            json!({"columns": {"amount": "float32", "n": "string"}}),
            json!({"columns": {"amount": "int8", "n": "uint8"}}),
            json!({"columns": {"amount": "int64", "text": "float64", "n": "bool"}, "invalid": "null"}),
            json!({"columns": {"text": "date"}, "invalid": "null"}),
            json!({"columns": {"text": "timestamp"}, "invalid": "null"}),
            json!({"columns": {"amount": "double"}}),
            json!({"columns": {"amont": "int8", "n": "int64"}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"amount":"float32","n":"string"}}
            out: amount Float32?, text Utf8?, n Utf8
            +--------+------------+-----+
            | amount | text       | n   |
            +--------+------------+-----+
            | 1.9    | 12         | 1   |
            | -300.0 | x          | 0   |
            |        |            | 1   |
            | NaN    | 2024-02-29 | 300 |
            +--------+------------+-----+

            {"columns":{"amount":"int8","n":"uint8"}}
            out: amount Int8?, text Utf8?, n UInt8
            +--------+------+---+
            | amount | text | n |
            +--------+------+---+
            | 1      | 12   | 1 |
            |        |      | 1 |
            +--------+------+---+
            failed: Picked([1, 3])
              column `amount`: -300.0 does not fit Int8
              column `amount`: NaN does not fit Int8; column `n`: 300 does not fit UInt8

            {"columns":{"amount":"int64","text":"float64","n":"bool"},"invalid":"null"}
            out: amount Int64?, text Float64?, n Boolean?
            +--------+------+-------+
            | amount | text | n     |
            +--------+------+-------+
            | 1      | 12.0 | true  |
            | -300   |      | false |
            |        |      | true  |
            |        |      | true  |
            +--------+------+-------+

            {"columns":{"text":"date"},"invalid":"null"}
            out: amount Float64?, text Date32?, n Int64
            +--------+------------+-----+
            | amount | text       | n   |
            +--------+------------+-----+
            | 1.9    |            | 1   |
            | -300.0 |            | 0   |
            |        |            | 1   |
            | NaN    | 2024-02-29 | 300 |
            +--------+------------+-----+

            {"columns":{"text":"timestamp"},"invalid":"null"}
            out: amount Float64?, text Timestamp(µs, "UTC")?, n Int64
            +--------+----------------------+-----+
            | amount | text                 | n   |
            +--------+----------------------+-----+
            | 1.9    |                      | 1   |
            | -300.0 |                      | 0   |
            |        |                      | 1   |
            | NaN    | 2024-02-29T00:00:00Z | 300 |
            +--------+----------------------+-----+

            {"columns":{"amount":"double"}}
            settings ["columns", "amount"]: unknown variant `double`, expected one of `bool`, `int8`, `int16`, `int32`, `int64`, `uint8`, `uint16`, `uint32`, `uint64`, `float32`, `float64`, `string`, `date`, `timestamp`

            {"columns":{"amont":"int8","n":"int64"}}
            refused: no column `amont`; did you mean `amount`?

        "#]],
    );
}

#[test]
fn columns_are_dropped_and_renamed() {
    let batch = batch! { a: [1i64], b: ["x"], c: [true] };
    check_all(
        "drop",
        &[json!(["a", "c"]), json!(["a", "d"]), json!(["a", "b", "c"]), json!({"columns": ["a"]})],
        &batch,
        &expect![[r#"
            ["a","c"]
            out: b Utf8
            +---+
            | b |
            +---+
            | x |
            +---+

            ["a","d"]
            refused: no column `d`; did you mean `a`?

            ["a","b","c"]
            refused: no column is left

            {"columns":["a"]}
            settings []: invalid type: map, expected a sequence

        "#]],
    );
    check_all(
        "rename",
        &[json!({"a": "b", "b": "a"}), json!({"a": "c"}), json!({"z": "y"}), json!({})],
        &batch,
        &expect![[r#"
            {"a":"b","b":"a"}
            out: b Int64, a Utf8, c Boolean
            +---+---+------+
            | b | a | c    |
            +---+---+------+
            | 1 | x | true |
            +---+---+------+

            {"a":"c"}
            refused: two columns would be named `c`

            {"z":"y"}
            refused: no column `z`; did you mean `a`?

            {}
            refused: it names no column

        "#]],
    );
}

#[test]
fn numbers_are_packed_into_a_tensor() {
    let batch =
        batch! { a: [1.5, 2.5], n: [Some(1i64), None], ok: [true, false], b: [7i8, -8], text: ["x", "y"] };
    check_all(
        "pack",
        &[
            json!({"columns": ["b", "a", "ok"], "as": "x"}),
            json!({"columns": ["a", "n"], "as": "x", "nulls": "nan", "type": "float64", "drop": true}),
            json!({"columns": ["a", "n"], "as": "x"}),
            json!({"columns": ["a", "a"], "as": "a", "drop": true}),
            json!({"columns": ["a", "text", "bb"], "as": "x"}),
            json!({"columns": ["a"], "as": "b"}),
            json!({"columns": [], "as": "x"}),
        ],
        &batch,
        &expect![[r#"
            {"columns":["b","a","ok"],"as":"x"}
            out: a Float64, n Int64?, ok Boolean, b Int8, text Utf8, x FixedSizeList(3 x non-null Float32)
            +-----+---+-------+----+------+------------------+
            | a   | n | ok    | b  | text | x                |
            +-----+---+-------+----+------+------------------+
            | 1.5 | 1 | true  | 7  | x    | [7.0, 1.5, 1.0]  |
            | 2.5 |   | false | -8 | y    | [-8.0, 2.5, 0.0] |
            +-----+---+-------+----+------+------------------+

            {"columns":["a","n"],"as":"x","nulls":"nan","type":"float64","drop":true}
            out: ok Boolean, b Int8, text Utf8, x FixedSizeList(2 x non-null Float64)
            +-------+----+------+------------+
            | ok    | b  | text | x          |
            +-------+----+------+------------+
            | true  | 7  | x    | [1.5, 1.0] |
            | false | -8 | y    | [2.5, NaN] |
            +-------+----+------+------------+

            {"columns":["a","n"],"as":"x"}
            out: a Float64, n Int64?, ok Boolean, b Int8, text Utf8, x FixedSizeList(2 x non-null Float32)
            +-----+---+------+---+------+------------+
            | a   | n | ok   | b | text | x          |
            +-----+---+------+---+------+------------+
            | 1.5 | 1 | true | 7 | x    | [1.5, 1.0] |
            +-----+---+------+---+------+------------+
            failed: Picked([1])
              column `n`: null

            {"columns":["a","a"],"as":"a","drop":true}
            out: n Int64?, ok Boolean, b Int8, text Utf8, a FixedSizeList(2 x non-null Float32)
            +---+-------+----+------+------------+
            | n | ok    | b  | text | a          |
            +---+-------+----+------+------------+
            | 1 | true  | 7  | x    | [1.5, 1.5] |
            |   | false | -8 | y    | [2.5, 2.5] |
            +---+-------+----+------+------------+

            {"columns":["a","text","bb"],"as":"x"}
            refused: column `text`: a tensor holds numbers, not Utf8
                     no column `bb`; did you mean `b`?

            {"columns":["a"],"as":"b"}
            refused: two columns would be named `b`

            {"columns":[],"as":"x"}
            refused: it packs no column

        "#]],
    );
}
