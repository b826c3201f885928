use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    datatypes::Int64Type,
};
use expect_test::expect;
use serde_json::json;

use super::check_all;
use crate::{
    Split,
    testing::{batch, batch_of, run, sign},
};

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

#[test]
fn a_key_leaves_always_on_the_same_port_and_takes_its_name_along() {
    let batch = batch! {
        card: [Some(1i64), Some(2), Some(3), None, Some(1), Some(5)],
        country: ["US", "DE", "DE", "US", "US", "FR"],
    };
    check_all(
        "split",
        &[
            json!({"by": "card", "ports": {"champion": 50, "canary": 50}, "as": "arm"}),
            json!({"by": ["card", "country"], "ports": {"a": 0, "b": 1}}),
        ],
        &batch,
        &expect![[r#"
            {"by":"card","ports":{"champion":50,"canary":50},"as":"arm"}
            champion: card Int64?, country Utf8, arm Utf8
            +------+---------+----------+
            | card | country | arm      |
            +------+---------+----------+
            | 1    | US      | champion |
            | 3    | DE      | champion |
            | 1    | US      | champion |
            | 5    | FR      | champion |
            +------+---------+----------+
            canary: card Int64?, country Utf8, arm Utf8
            +------+---------+--------+
            | card | country | arm    |
            +------+---------+--------+
            | 2    | DE      | canary |
            |      | US      | canary |
            +------+---------+--------+

            {"by":["card","country"],"ports":{"a":0,"b":1}}
            b: card Int64?, country Utf8
            +------+---------+
            | card | country |
            +------+---------+
            | 1    | US      |
            | 2    | DE      |
            | 3    | DE      |
            |      | US      |
            | 1    | US      |
            | 5    | FR      |
            +------+---------+

        "#]],
    );
}

/// The port of each of many keys.
fn dealt(step: &Split, keys: i64) -> Vec<usize> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..keys));
    let batch = batch_of(vec![("key", column)]);
    let mut dealt = vec![usize::MAX; usize::try_from(keys).unwrap()];
    let (ports, _, _) = run(step, &batch).unwrap().into_parts();
    for (port, rows) in ports {
        let column = rows.batch().column(0).as_primitive::<Int64Type>().clone();
        column.values().iter().for_each(|key| dealt[usize::try_from(*key).unwrap()] = port);
    }
    dealt
}

#[test]
fn ports_take_what_their_weights_say_and_few_keys_move_when_weights_do() {
    let split = |canary: f64| Split::by(["key"]).port("champion", 100.0 - canary).port("canary", canary);
    const KEYS: i64 = 20_000;
    let of =
        |ports: &[usize], port: usize| ports.iter().filter(|one| **one == port).count() as f64 / KEYS as f64;
    let five = dealt(&split(5.0), KEYS);
    assert!((of(&five, 1) - 0.05).abs() < 0.006, "{}", of(&five, 1));
    let twenty = dealt(&split(20.0), KEYS);
    assert!((of(&twenty, 1) - 0.2).abs() < 0.01, "{}", of(&twenty, 1));
    assert!(
        five.iter().zip(&twenty).all(|(five, twenty)| five <= twenty),
        "who is on the canary stays there"
    );
    let salted = dealt(&split(20.0).salt("again"), KEYS);
    let both = twenty.iter().zip(&salted).filter(|(one, other)| **one == 1 && **other == 1).count() as f64;
    assert!((both / KEYS as f64 - 0.04).abs() < 0.006, "another salt deals anew: {both}");
    assert!(dealt(&Split::by(["key"]).port("none", 0.0).port("all", 3.0), 100).iter().all(|port| *port == 1));
    // As Python has it: int.from_bytes(sha256(b"s" + b"\x1f" + b"42").digest()[:8], "big") >> 11, over 2**53.
    let place = 0.32200088323468146;
    let around = |from: f64| Split::by(["key"]).salt("s").port("below", from).port("above", 1.0 - from);
    assert_eq!(dealt(&around(place - 1e-9), 43)[42], 1);
    assert_eq!(dealt(&around(place + 1e-9), 43)[42], 0);
}

#[test]
fn a_split_that_cannot_be_made_says_all_that_is_wrong() {
    let batch = batch! { a: [1.5f64], b: [1i64] };
    let step = Split::by(["a", "c"]).port("x", -1.0).port("x", f64::NAN).port("error", 1.0).named("b");
    let error = sign(&step, batch.schema()).unwrap_err().to_string();
    for part in [
        "column `a` is Float64",
        "no column `c`",
        "port `x`: a weight",
        "two ports are named `x`",
        "the port `error`",
        "two columns would be named `b`",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = |step: Split| sign(&step, batch.schema()).unwrap_err().to_string();
    assert!(error(Split::by(["b"]).port("x", 1.0)).contains("fewer than two ports"));
    assert!(error(Split::by(["b"]).port("x", 0.0).port("y", 0.0)).contains("the weights come to nothing"));
    assert!(
        error(Split::by(Vec::<String>::new()).port("x", 1.0).port("y", 1.0))
            .contains("no column to split by")
    );
}
