use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Float64Type},
};
use expect_test::expect;
use serde_json::json;

use super::check_all;
use crate::{
    Pack, TensorNull, TensorType,
    testing::{batch, batch_of, out},
};

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

#[test]
fn expressions_are_packed_without_becoming_columns() {
    let batch = batch! { a: [1.5, 2.0, -4.0], n: [Some(2i64), None, Some(0)], text: ["x", "y", "x"] };
    check_all(
        "pack",
        &[
            json!({"columns": ["a", "a * 2 + 1", "text = 'x'"], "as": "t", "drop": true}),
            json!({"columns": ["a / n"], "as": "t", "nulls": "nan", "type": "float64"}),
            json!({"columns": ["6 / n", "a"], "as": "t"}),
            json!({"columns": ["upper(text)", "amuont + 1", "a AS b"], "as": "t"}),
        ],
        &batch,
        &expect![[r#"
            {"columns":["a","a * 2 + 1","text = 'x'"],"as":"t","drop":true}
            out: n Int64?, t FixedSizeList(3 x non-null Float32)
            +---+-------------------+
            | n | t                 |
            +---+-------------------+
            | 2 | [1.5, 4.0, 1.0]   |
            |   | [2.0, 5.0, 0.0]   |
            | 0 | [-4.0, -7.0, 1.0] |
            +---+-------------------+

            {"columns":["a / n"],"as":"t","nulls":"nan","type":"float64"}
            out: a Float64, n Int64?, text Utf8, t FixedSizeList(1 x non-null Float64)
            +------+---+------+--------+
            | a    | n | text | t      |
            +------+---+------+--------+
            | 1.5  | 2 | x    | [0.75] |
            | 2.0  |   | y    | [NaN]  |
            | -4.0 | 0 | x    | [-inf] |
            +------+---+------+--------+

            {"columns":["6 / n","a"],"as":"t"}
            out: a Float64, n Int64?, text Utf8, t FixedSizeList(2 x non-null Float32)
            +-----+---+------+------------+
            | a   | n | text | t          |
            +-----+---+------+------------+
            | 1.5 | 2 | x    | [3.0, 1.5] |
            +-----+---+------+------------+
            failed: Picked([1, 2])
              `6 / n`: null
              `6 / n`: a whole number is divided by zero

            {"columns":["upper(text)","amuont + 1","a AS b"],"as":"t"}
            refused: column `upper(text)`: a tensor holds numbers, not Utf8
                     in `amuont + 1`: no column `amuont`; there is `a`, `n`, `text`
                     in `a AS b`: a name (`AS b`) has no meaning here

        "#]],
    );
}

#[test]
fn a_few_rows_are_packed_to_the_same_bits_as_many() {
    let value = |row: usize| match row % 7 {
        0 => None,
        1 => Some(f64::NAN),
        2 => Some(-0.0),
        3 => Some(1e300),
        row => Some(row as f64 * 0.1 - 3.0),
    };
    let rows = 300;
    let a: ArrayRef = Arc::new(Float64Array::from_iter((0..rows).map(value)));
    let f: ArrayRef =
        Arc::new(Float32Array::from_iter((0..rows).map(|row| value(row + 3).map(|value| value as f32))));
    let n: ArrayRef = Arc::new(Int64Array::from_iter((0..rows as i64).map(|row| Some(row * 1_000_003 - 7))));
    let s: ArrayRef = Arc::new(StringArray::from_iter((0..rows).map(|row| Some(["x", "y"][row % 2]))));
    let batch = batch_of(vec![("a", a), ("f", f), ("n", n), ("s", s)]);
    for number in [TensorType::Float32, TensorType::Float64] {
        let items =
            ["a", "f", "n", "log1p(abs(a))", "a / (f + 1.0)", "(n / 3600 % 24) / 24.0", "s = 'x'", "a > f"];
        let step = Pack::new("t", items).number(number).nulls(TensorNull::Nan);
        let pack = |batch: &RecordBatch| {
            let packed = out(&step, batch);
            cast(packed.column(4).as_fixed_size_list().values(), &DataType::Float64).unwrap()
        };
        let bits = |array: &ArrayRef| {
            array
                .as_primitive::<Float64Type>()
                .values()
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        let many = bits(&pack(&batch));
        let few: Vec<u64> = (0..rows).flat_map(|row| bits(&pack(&batch.slice(row, 1)))).collect();
        assert_eq!(many, few);
    }
}
