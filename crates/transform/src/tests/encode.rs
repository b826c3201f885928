use expect_test::expect;
use serde_json::json;

use super::check_all;
use crate::testing::batch;

#[test]
fn one_hot_makes_a_column_per_category() {
    let batch = batch! {
        id: [1i64, 2, 3, 4],
        channel: [Some("web"), Some("in-store pos"), None, Some("fax")],
        grade: [1i32, 2, 3, 1],
        flag: [Some(true), Some(false), None, Some(true)],
    };
    check_all(
        "one_hot",
        &[
            json!({"columns": {"channel": ["web", "in-store pos"]}}),
            json!({"columns": {"grade": [1, 2], "flag": [true, false]}, "type": "float32"}),
            json!({"columns": {"channel": ["web"]}, "keep": true, "type": "int8"}),
            json!({"columns": {"channel": ["web", "in-store pos"], "grade": [1, 2]}, "unknown": "error"}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"channel":["web","in-store pos"]}}
            out: id Int64, channel_web Int64, channel_in_store_pos Int64, grade Int32, flag Boolean?
            +----+-------------+----------------------+-------+-------+
            | id | channel_web | channel_in_store_pos | grade | flag  |
            +----+-------------+----------------------+-------+-------+
            | 1  | 1           | 0                    | 1     | true  |
            | 2  | 0           | 1                    | 2     | false |
            | 3  | 0           | 0                    | 3     |       |
            | 4  | 0           | 0                    | 1     | true  |
            +----+-------------+----------------------+-------+-------+

            {"columns":{"grade":[1,2],"flag":[true,false]},"type":"float32"}
            out: id Int64, channel Utf8?, grade_1 Float32, grade_2 Float32, flag_true Float32, flag_false Float32
            +----+--------------+---------+---------+-----------+------------+
            | id | channel      | grade_1 | grade_2 | flag_true | flag_false |
            +----+--------------+---------+---------+-----------+------------+
            | 1  | web          | 1.0     | 0.0     | 1.0       | 0.0        |
            | 2  | in-store pos | 0.0     | 1.0     | 0.0       | 1.0        |
            | 3  |              | 0.0     | 0.0     | 0.0       | 0.0        |
            | 4  | fax          | 1.0     | 0.0     | 1.0       | 0.0        |
            +----+--------------+---------+---------+-----------+------------+

            {"columns":{"channel":["web"]},"keep":true,"type":"int8"}
            out: id Int64, channel Utf8?, channel_web Int8, grade Int32, flag Boolean?
            +----+--------------+-------------+-------+-------+
            | id | channel      | channel_web | grade | flag  |
            +----+--------------+-------------+-------+-------+
            | 1  | web          | 1           | 1     | true  |
            | 2  | in-store pos | 0           | 2     | false |
            | 3  |              | 0           | 3     |       |
            | 4  | fax          | 0           | 1     | true  |
            +----+--------------+-------------+-------+-------+

            {"columns":{"channel":["web","in-store pos"],"grade":[1,2]},"unknown":"error"}
            out: id Int64, channel_web Int64, channel_in_store_pos Int64, grade_1 Int64, grade_2 Int64, flag Boolean?
            +----+-------------+----------------------+---------+---------+-------+
            | id | channel_web | channel_in_store_pos | grade_1 | grade_2 | flag  |
            +----+-------------+----------------------+---------+---------+-------+
            | 1  | 1           | 0                    | 1       | 0       | true  |
            | 2  | 0           | 1                    | 0       | 1       | false |
            +----+-------------+----------------------+---------+---------+-------+
            failed: Picked([2, 3])
              column `grade`: 3 is not a listed value
              column `channel`: 'fax' is not a listed value

        "#]],
    );
}

#[test]
fn one_hot_refuses_what_cannot_be_encoded() {
    let batch = batch! { channel: ["web"], channel_web: [1i64], amount: [1.0], n: [1i64] };
    check_all(
        "one_hot",
        &[
            json!({"columns": {"channel": ["web"]}}),
            json!({"columns": {"channel": ["a b", "a-b"]}}),
            json!({"columns": {"channel": ["a", "a"], "chanel": ["x"], "amount": [1, 2], "n": ["one"]}}),
            json!({"columns": {"channel": []}}),
            json!({"columns": {}}),
            json!({"columns": {"channel": [null]}}),
            json!({"columns": {"channel": ["a"]}, "unknown": "zero"}),
            json!({"columns": {"channel": ["a"]}, "kep": true}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"channel":["web"]}}
            refused: two columns would be named `channel_web`

            {"columns":{"channel":["a b","a-b"]}}
            refused: two columns would be named `channel_a_b`

            {"columns":{"channel":["a","a"],"chanel":["x"],"amount":[1,2],"n":["one"]}}
            refused: column `channel`: 'a' is listed twice
                     no column `chanel`; did you mean `channel`?
                     column `amount`: listed values need text, whole numbers or true and false, not Float64
                     column `n`: 'one' is not a value of type Int64

            {"columns":{"channel":[]}}
            refused: column `channel`: it has no categories

            {"columns":{}}
            refused: it names no column

            {"columns":{"channel":[null]}}
            settings ["columns", "channel", "[0]"]: invalid type: null, expected text, a number, true or false

            {"columns":{"channel":["a"]},"unknown":"zero"}
            settings ["unknown"]: unknown variant `zero`, expected `zeros` or `error`

            {"columns":{"channel":["a"]},"kep":true}
            settings ["kep"]: unknown field `kep`, expected one of `columns`, `unknown`, `type`, `keep`

        "#]],
    );
}

#[test]
fn ordinal_answers_the_place_in_the_list() {
    let batch = batch! { risk: [Some("low"), Some("high"), None, Some("?")], n: [7u64, 8, 7, u64::MAX] };
    check_all(
        "ordinal",
        &[
            json!({"columns": {"risk": ["low", "medium", "high"]}}),
            json!({"columns": {"risk": ["low", "medium", "high"]}, "unknown": "null"}),
            json!({"columns": {"risk": ["low", "medium", "high"], "n": [7, 8]}, "unknown": {"value": -1}}),
            json!({"columns": {"n": [7, 8, 18446744073709551615u64]}}),
            json!({"columns": {"risk": []}}),
            json!({"columns": {"rsik": ["a"]}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"risk":["low","medium","high"]}}
            out: risk Int64?, n UInt64
            +------+---+
            | risk | n |
            +------+---+
            | 0    | 7 |
            | 2    | 8 |
            |      | 7 |
            +------+---+
            failed: Picked([3])
              column `risk`: '?' is not a listed value

            {"columns":{"risk":["low","medium","high"]},"unknown":"null"}
            out: risk Int64?, n UInt64
            +------+----------------------+
            | risk | n                    |
            +------+----------------------+
            | 0    | 7                    |
            | 2    | 8                    |
            |      | 7                    |
            |      | 18446744073709551615 |
            +------+----------------------+

            {"columns":{"risk":["low","medium","high"],"n":[7,8]},"unknown":{"value":-1}}
            out: risk Int64?, n Int64
            +------+----+
            | risk | n  |
            +------+----+
            | 0    | 0  |
            | 2    | 1  |
            |      | 0  |
            | -1   | -1 |
            +------+----+

            {"columns":{"n":[7,8,18446744073709551615]}}
            out: risk Utf8?, n Int64
            +------+---+
            | risk | n |
            +------+---+
            | low  | 0 |
            | high | 1 |
            |      | 0 |
            | ?    | 2 |
            +------+---+

            {"columns":{"risk":[]}}
            refused: column `risk`: it has no values

            {"columns":{"rsik":["a"]}}
            refused: no column `rsik`; did you mean `risk`?

        "#]],
    );
}
