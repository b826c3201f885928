use std::sync::Arc;

use arrow::array::{Date32Array, TimestampMillisecondArray};
use expect_test::expect;
use serde_json::json;

use super::{check, check_all};
use crate::testing::batch;

#[test]
fn values_and_ranges_become_others() {
    let batch = batch! {
        country: [Some("US"), Some("CA"), None, Some("FR")],
        n: [1i64, 2, 3, 2],
        age: [17.999, 18.0, f64::NAN, f64::INFINITY],
        ok: [true, false, true, false],
    };
    check_all(
        "map",
        &[
            json!({"columns": {"country": {"values": {"US": "home", "CA": "near"}, "unmapped": {"default": "far"}}}}),
            json!({"columns": {"country": {"values": {"US": "home"}, "unmapped": "keep"}, "n": {"values": {"2": 20}, "unmapped": "keep"}}}),
            json!({"columns": {"n": {"values": {"1": 0.5, "2": 1}, "unmapped": "null"}, "ok": {"values": {"true": "yes", "false": "no"}, "as": "said"}}}),
            json!({"columns": {"age": {"ranges": [{"from": 18, "value": "adult"}, {"to": 18, "value": "minor"}], "as": "group"}}}),
            json!({"columns": {"age": {"ranges": [{"from": 18, "to": 30, "value": 1}], "unmapped": "null"}, "country": {"values": {"US": true, "CA": false}, "unmapped": "null"}}}),
            json!({"columns": {"country": {"values": {"US": "x"}}, "n": {"values": {"1": 1, "3": 3}}}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"country":{"values":{"US":"home","CA":"near"},"unmapped":{"default":"far"}}}}
            out: country Utf8?, n Int64, age Float64, ok Boolean
            +---------+---+--------+-------+
            | country | n | age    | ok    |
            +---------+---+--------+-------+
            | home    | 1 | 17.999 | true  |
            | near    | 2 | 18.0   | false |
            |         | 3 | NaN    | true  |
            | far     | 2 | inf    | false |
            +---------+---+--------+-------+

            {"columns":{"country":{"values":{"US":"home"},"unmapped":"keep"},"n":{"values":{"2":20},"unmapped":"keep"}}}
            out: country Utf8?, n Int64, age Float64, ok Boolean
            +---------+----+--------+-------+
            | country | n  | age    | ok    |
            +---------+----+--------+-------+
            | home    | 1  | 17.999 | true  |
            | CA      | 20 | 18.0   | false |
            |         | 3  | NaN    | true  |
            | FR      | 20 | inf    | false |
            +---------+----+--------+-------+

            {"columns":{"n":{"values":{"1":0.5,"2":1},"unmapped":"null"},"ok":{"values":{"true":"yes","false":"no"},"as":"said"}}}
            out: country Utf8?, n Float64?, age Float64, ok Boolean, said Utf8
            +---------+-----+--------+-------+------+
            | country | n   | age    | ok    | said |
            +---------+-----+--------+-------+------+
            | US      | 0.5 | 17.999 | true  | yes  |
            | CA      | 1.0 | 18.0   | false | no   |
            |         |     | NaN    | true  | yes  |
            | FR      | 1.0 | inf    | false | no   |
            +---------+-----+--------+-------+------+

            {"columns":{"age":{"ranges":[{"from":18,"value":"adult"},{"to":18,"value":"minor"}],"as":"group"}}}
            out: country Utf8?, n Int64, age Float64, ok Boolean, group Utf8
            +---------+---+--------+-------+-------+
            | country | n | age    | ok    | group |
            +---------+---+--------+-------+-------+
            | US      | 1 | 17.999 | true  | minor |
            | CA      | 2 | 18.0   | false | adult |
            | FR      | 2 | inf    | false | adult |
            +---------+---+--------+-------+-------+
            failed: Picked([2])
              column `age`: nothing maps NaN

            {"columns":{"age":{"ranges":[{"from":18,"to":30,"value":1}],"unmapped":"null"},"country":{"values":{"US":true,"CA":false},"unmapped":"null"}}}
            out: country Boolean?, n Int64, age Int64?, ok Boolean
            +---------+---+-----+-------+
            | country | n | age | ok    |
            +---------+---+-----+-------+
            | true    | 1 |     | true  |
            | false   | 2 | 1   | false |
            |         | 3 |     | true  |
            |         | 2 |     | false |
            +---------+---+-----+-------+

            {"columns":{"country":{"values":{"US":"x"}},"n":{"values":{"1":1,"3":3}}}}
            out: country Utf8?, n Int64, age Float64, ok Boolean
            +---------+---+--------+------+
            | country | n | age    | ok   |
            +---------+---+--------+------+
            | x       | 1 | 17.999 | true |
            |         | 3 | NaN    | true |
            +---------+---+--------+------+
            failed: Picked([1, 3])
              column `country`: nothing maps 'CA'; column `n`: nothing maps 2
              column `country`: nothing maps 'FR'; column `n`: nothing maps 2

        "#]],
    );
}

#[test]
fn maps_that_make_no_sense_are_refused() {
    let batch = batch! { country: ["US"], n: [1i64], age: [1.0], ok: [true] };
    check_all(
        "map",
        &[
            json!({"columns": {"country": {"values": {"US": "home", "CA": 1}}, "n": {"values": {"one": 1}}, "age": {"values": {"1.5": 1}}, "ok": {"values": {"yes": 1}}}}),
            json!({"columns": {"age": {"ranges": [{"from": 1, "to": 3, "value": "a"}, {"from": 2, "value": "b"}]}, "n": {"ranges": [{"from": 3, "to": 3, "value": "a"}]}, "country": {"ranges": [{"value": 1}]}}}),
            json!({"columns": {"age": {}, "n": {"values": {"1": 1}, "ranges": [{"value": 1}]}, "country": {"values": {"US": 1}, "unmapped": "keep"}}}),
            json!({"columns": {"contry": {"values": {"US": 1}}, "country": {"values": {"US": 1}, "as": "n"}}}),
            json!({"columns": {"country": {"values": {"US": "x"}, "as": "n"}}}),
            json!({"columns": {"country": {"values": {"US": 1}, "unmapped": "drop"}}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"country":{"values":{"US":"home","CA":1}},"n":{"values":{"one":1}},"age":{"values":{"1.5":1}},"ok":{"values":{"yes":1}}}}
            refused: column `country`: its values must be of one type, but 'home' is text and 1 is a whole number
                     column `n`: 'one' is not a whole number
                     column `age`: numbers with a fraction are mapped by `ranges`
                     column `ok`: 'yes' is neither true nor false

            {"columns":{"age":{"ranges":[{"from":1,"to":3,"value":"a"},{"from":2,"value":"b"}]},"n":{"ranges":[{"from":3,"to":3,"value":"a"}]},"country":{"ranges":[{"value":1}]}}}
            refused: column `age`: the ranges from 1 to 3 and from 2 to inf overlap
                     column `n`: the range from 3 to 3 is empty
                     column `country`: `ranges` need numbers, not Utf8

            {"columns":{"age":{},"n":{"values":{"1":1},"ranges":[{"value":1}]},"country":{"values":{"US":1},"unmapped":"keep"}}}
            refused: column `age`: it maps nothing: give `values` or `ranges`
                     column `n`: it maps either `values` or `ranges`, not both
                     column `country`: Utf8 cannot hold 1, and unmapped values are kept

            {"columns":{"contry":{"values":{"US":1}},"country":{"values":{"US":1},"as":"n"}}}
            refused: no column `contry`; did you mean `country`?

            {"columns":{"country":{"values":{"US":"x"},"as":"n"}}}
            refused: two columns would be named `n`

            {"columns":{"country":{"values":{"US":1},"unmapped":"drop"}}}
            settings ["columns", "country", "unmapped"]: unknown variant `drop`, expected one of `error`, `null`, `keep`, `default`

        "#]],
    );
}

#[test]
fn numbers_fall_into_half_open_buckets() {
    let batch = batch! { amount: [Some(-1.0), Some(0.0), Some(9.99), Some(10.0), Some(f64::NAN), None], n: [0i32, 1, 2, 3, 4, 5] };
    check_all(
        "bucketize",
        &[
            json!({"columns": {"amount": {"edges": [0, 10]}, "n": {"edges": [2, 4], "as": "bucket"}}}),
            json!({"columns": {"amount": {"edges": [0, 10], "labels": ["debt", "small", "large"], "as": "size"}}}),
            json!({"columns": {"amount": {"edges": [10, 0]}, "n": {"edges": []}}}),
            json!({"columns": {"amount": {"edges": [1], "labels": ["a"]}}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"amount":{"edges":[0,10]},"n":{"edges":[2,4],"as":"bucket"}}}
            out: amount Int64?, n Int32, bucket Int64
            +--------+---+--------+
            | amount | n | bucket |
            +--------+---+--------+
            | 0      | 0 | 0      |
            | 1      | 1 | 0      |
            | 1      | 2 | 1      |
            | 2      | 3 | 1      |
            |        | 4 | 2      |
            |        | 5 | 2      |
            +--------+---+--------+

            {"columns":{"amount":{"edges":[0,10],"labels":["debt","small","large"],"as":"size"}}}
            out: amount Float64?, n Int32, size Utf8?
            +--------+---+-------+
            | amount | n | size  |
            +--------+---+-------+
            | -1.0   | 0 | debt  |
            | 0.0    | 1 | small |
            | 9.99   | 2 | small |
            | 10.0   | 3 | large |
            | NaN    | 4 |       |
            |        | 5 |       |
            +--------+---+-------+

            {"columns":{"amount":{"edges":[10,0]},"n":{"edges":[]}}}
            refused: column `amount`: its edges are not ascending
                     column `n`: it has no edges

            {"columns":{"amount":{"edges":[1],"labels":["a"]}}}
            refused: column `amount`: 1 edges make 2 buckets, but there are 1 labels

        "#]],
    );
}

#[test]
fn points_in_time_have_parts_in_utc() {
    let times = TimestampMillisecondArray::from(vec![Some(1_709_164_799_000), None, Some(-1)])
        .with_timezone("+05:00");
    let days = Date32Array::from(vec![0, 19_782, -1]);
    let batch = batch! {
        ts: [1_760_770_293i64, 0, 951_827_696],
        at: Arc::new(times) as arrow::array::ArrayRef,
        day: Arc::new(days) as arrow::array::ArrayRef,
    };
    check_all(
        "date_parts",
        &[
            json!({"columns": {"ts": ["year", "quarter", "month", "week", "day", "day_of_week", "day_of_year", "hour", "minute", "second"]}}),
            json!({"columns": {"at": ["month", "day", "hour", "is_month_end", "is_leap_year"], "day": ["day_of_week", "is_weekend", "is_month_start", "week"]}}),
            json!({"columns": {"ts": ["hour"]}, "epoch": "milliseconds"}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"ts":["year","quarter","month","week","day","day_of_week","day_of_year","hour","minute","second"]}}
            out: ts Int64, at Timestamp(ms, "+05:00")?, day Date32, ts_year Int64, ts_quarter Int64, ts_month Int64, ts_week Int64, ts_day Int64, ts_day_of_week Int64, ts_day_of_year Int64, ts_hour Int64, ts_minute Int64, ts_second Int64
            +------------+-------------------------------+------------+---------+------------+----------+---------+--------+----------------+----------------+---------+-----------+-----------+
            | ts         | at                            | day        | ts_year | ts_quarter | ts_month | ts_week | ts_day | ts_day_of_week | ts_day_of_year | ts_hour | ts_minute | ts_second |
            +------------+-------------------------------+------------+---------+------------+----------+---------+--------+----------------+----------------+---------+-----------+-----------+
            | 1760770293 | 2024-02-29T04:59:59+05:00     | 1970-01-01 | 2025    | 4          | 10       | 42      | 18     | 5              | 291            | 6       | 51        | 33        |
            | 0          |                               | 2024-02-29 | 1970    | 1          | 1        | 1       | 1      | 3              | 1              | 0       | 0         | 0         |
            | 951827696  | 1970-01-01T04:59:59.999+05:00 | 1969-12-31 | 2000    | 1          | 2        | 9       | 29     | 1              | 60             | 12      | 34        | 56        |
            +------------+-------------------------------+------------+---------+------------+----------+---------+--------+----------------+----------------+---------+-----------+-----------+

            {"columns":{"at":["month","day","hour","is_month_end","is_leap_year"],"day":["day_of_week","is_weekend","is_month_start","week"]}}
            out: ts Int64, at Timestamp(ms, "+05:00")?, day Date32, at_month Int64?, at_day Int64?, at_hour Int64?, at_is_month_end Boolean?, at_is_leap_year Boolean?, day_day_of_week Int64, day_is_weekend Boolean, day_is_month_start Boolean, day_week Int64
            +------------+-------------------------------+------------+----------+--------+---------+-----------------+-----------------+-----------------+----------------+--------------------+----------+
            | ts         | at                            | day        | at_month | at_day | at_hour | at_is_month_end | at_is_leap_year | day_day_of_week | day_is_weekend | day_is_month_start | day_week |
            +------------+-------------------------------+------------+----------+--------+---------+-----------------+-----------------+-----------------+----------------+--------------------+----------+
            | 1760770293 | 2024-02-29T04:59:59+05:00     | 1970-01-01 | 2        | 28     | 23      | false           | true            | 3               | false          | true               | 1        |
            | 0          |                               | 2024-02-29 |          |        |         |                 |                 | 3               | false          | false              | 9        |
            | 951827696  | 1970-01-01T04:59:59.999+05:00 | 1969-12-31 | 12       | 31     | 23      | true            | false           | 2               | false          | false              | 1        |
            +------------+-------------------------------+------------+----------+--------+---------+-----------------+-----------------+-----------------+----------------+--------------------+----------+

            {"columns":{"ts":["hour"]},"epoch":"milliseconds"}
            out: ts Int64, at Timestamp(ms, "+05:00")?, day Date32, ts_hour Int64
            +------------+-------------------------------+------------+---------+
            | ts         | at                            | day        | ts_hour |
            +------------+-------------------------------+------------+---------+
            | 1760770293 | 2024-02-29T04:59:59+05:00     | 1970-01-01 | 9       |
            | 0          |                               | 2024-02-29 | 0       |
            | 951827696  | 1970-01-01T04:59:59.999+05:00 | 1969-12-31 | 0       |
            +------------+-------------------------------+------------+---------+

        "#]],
    );
}

#[test]
fn what_is_no_point_in_time_is_refused() {
    let batch = batch! { ts: [1i64, i64::MAX, i64::MIN], amount: [1.0, 2.0, 3.0], big: [1u64, u64::MAX, 2] };
    check(
        "date_parts",
        &json!({"columns": {"ts": ["hour"], "big": ["day"]}}),
        &batch,
        &expect![[r#"
        out: ts Int64, amount Float64, big UInt64, ts_hour Int64, big_day Int64
        +----+--------+-----+---------+---------+
        | ts | amount | big | ts_hour | big_day |
        +----+--------+-----+---------+---------+
        | 1  | 1.0    | 1   | 0       | 1       |
        +----+--------+-----+---------+---------+
        failed: Picked([1, 2])
          column `ts`: 9223372036854775807 is not a point in time; column `big`: 18446744073709551615 is not a point in time
          column `ts`: -9223372036854775808 is not a point in time
    "#]],
    );
    check_all(
        "date_parts",
        &[
            json!({"columns": {"amount": ["hour"], "tss": ["hour"]}}),
            json!({"columns": {"ts": ["hours"]}}),
            json!({"columns": {"ts": []}}),
            json!({"columns": {"ts": ["hour", "hour"]}}),
        ],
        &batch,
        &expect![[r#"
            {"columns":{"amount":["hour"],"tss":["hour"]}}
            refused: column `amount`: timestamps, dates and whole numbers have date parts, not Float64
                     no column `tss`; did you mean `ts`?

            {"columns":{"ts":["hours"]}}
            settings ["columns", "ts", "[0]"]: unknown variant `hours`, expected one of `year`, `quarter`, `month`, `week`, `day`, `day_of_week`, `day_of_year`, `hour`, `minute`, `second`, `is_weekend`, `is_leap_year`, `is_month_start`, `is_month_end`

            {"columns":{"ts":[]}}
            refused: column `ts`: it lists no parts

            {"columns":{"ts":["hour","hour"]}}
            refused: two columns would be named `ts_hour`

        "#]],
    );
}
