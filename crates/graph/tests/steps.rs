//! The steps that need nothing but Arrow, each run alone: what goes in, what comes out, what is refused.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{sync::Arc, time::Instant};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
    util::pretty::pretty_format_batches,
};
use expect_test::{Expect, expect};
use millstream_graph::{
    ErrorKind, Fallback, Graph, Input, JoinOn, OnError, Output, PortRef, Request, Rows, RunCx, RunId, Token,
    Work, fields, rows,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Writes a graph whose step `sut` reads one input column set per batch, calls that step with the batches, and shows what
/// it answers. Each batch reaches it as rows of the request at the places given.
fn run(
    batches: &[Option<(RecordBatch, &[u32])>],
    schemas: &[SchemaRef],
    build: impl FnOnce(&mut Graph, &[PortRef]) -> PortRef,
) -> String {
    let widest = (0..8i64).collect::<Vec<_>>();
    let request = Rows::whole(rows! { at: widest });
    let mut graph = Graph::new("g", fields! { at: Int64 });
    let ports: Vec<_> = schemas
        .iter()
        .enumerate()
        .map(|(at, schema)| {
            let input = graph.input();
            graph.map(&format!("in{at}"), &input, Arc::clone(schema), |_| {
                Err(millstream_graph::StepError::internal("never called"))
            })
        })
        .collect();
    let port = build(&mut graph, &ports);
    graph.respond(&port);
    let plan = match graph.compile() {
        Ok(plan) => plan,
        Err(errors) => return errors.to_string(),
    };
    let sut = &plan.steps()[plan.step_named("sut").unwrap().index()];
    let token = |batch: &Option<(RecordBatch, &[u32])>, schema: &SchemaRef| match batch {
        None => Token::Skip,
        Some((batch, places)) => {
            let batch = RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec()).unwrap();
            Token::Rows(request.take(places).unwrap().replace(batch).unwrap())
        }
    };
    let input = Input::new(batches.iter().zip(schemas).map(|(batch, schema)| token(batch, schema)).collect());
    let cx = RunCx::new(RunId(0), Request::default(), 8, Instant::now);
    let Work::Done(result) = sut.step().call(input, &cx) else { panic!("these steps answer at once") };
    result.map_or_else(|error| format!("{}: {error}", error.kind().name()), shown)
}

/// The rows per out-port with their places, and the rows that failed with their messages.
fn shown(output: Output) -> String {
    let (ports, failed, _) = output.into_parts();
    let show = |rows: &Rows| {
        let places: Vec<_> =
            (0..rows.len()).map(|row| rows.origin().place(row)).collect::<Option<_>>().unwrap_or_default();
        format!("{}\nplaces {places:?}", pretty_format_batches(std::slice::from_ref(rows.batch())).unwrap())
    };
    let mut text: Vec<_> = ports.iter().map(|(port, rows)| format!("port {port}\n{}", show(rows))).collect();
    text.extend(failed.map(|failed| format!("failed {:?}\n{}", failed.messages, show(&failed.rows))));
    if text.is_empty() { "nothing".to_owned() } else { text.join("\n") }
}

fn check(got: &str, wanted: &Expect) {
    wanted.assert_eq(got);
}

#[derive(Deserialize)]
struct Payment {
    amount: f64,
    name: Option<String>,
}

#[derive(Serialize)]
struct Scored {
    score: f64,
}

fn scored(input: &SchemaRef, batch: RecordBatch, places: &[u32]) -> String {
    run(&[Some((batch, places))], std::slice::from_ref(input), |graph, ports| {
        graph.map_rows("sut", &ports[0], fields! { score: Float64 }, |row: Payment| match row.name {
            Some(name) if row.amount < 0.0 => Err(format!("{name} pays {}", row.amount)),
            _ => Ok(Scored { score: row.amount / 2.0 }),
        })
    })
}

#[test]
fn rows_a_closure_refuses_leave_as_failed_rows() {
    let input = fields! { id: Int64, amount: Float64, name: Utf8? };
    let batch = rows! { id: [1i64, 2, 3, 4], amount: [1.0, -2.0, -3.0, 4.0], name: [Some("a"), Some("b"), None, Some("d")] };
    check(
        &scored(&input, batch, &[1, 3, 5, 7]),
        &expect![[r#"
        port 0
        +-------+
        | score |
        +-------+
        | 0.5   |
        | -1.5  |
        | 2.0   |
        +-------+
        places [1, 5, 7]
        failed ["b pays -2"]
        +----+--------+------+
        | id | amount | name |
        +----+--------+------+
        | 2  | -2.0   | b    |
        +----+--------+------+
        places [3]"#]],
    );
    let batch = rows! { id: [1i64], amount: [-1.0], name: [Some("a")] };
    check(
        &scored(&input, batch, &[2]),
        &expect![[r#"
        failed ["a pays -1"]
        +----+--------+------+
        | id | amount | name |
        +----+--------+------+
        | 1  | -1.0   | a    |
        +----+--------+------+
        places [2]"#]],
    );
}

#[test]
fn a_closure_whose_type_does_not_fit_is_refused_by_compile() {
    let batch = || rows! { amount: [1.0], name: ["a"] };
    for (input, wanted) in [
        (
            fields! { amount: Utf8, name: Utf8 },
            expect!["step `sut`: column `amount` is Utf8, which the closure's type cannot hold"],
        ),
        (fields! { name: Utf8 }, expect!["step `sut`: no column `amount`; there is `name`"]),
        (
            fields! { amount: Float64?, name: Utf8 },
            expect![
                "step `sut`: column `amount` is Float64 and may be null, which the closure's type cannot hold"
            ],
        ),
        (
            fields! { amount: Float64, name: Int64 },
            expect!["step `sut`: column `name` is Int64, which the closure's type cannot hold"],
        ),
    ] {
        check(&scored(&input, batch(), &[0]), &wanted);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Country {
    De,
    Fr,
}

#[derive(Deserialize)]
struct Place {
    country: Country,
}

#[test]
fn a_type_that_checks_values_is_not_refused_by_compile() {
    let input = fields! { country: Utf8 };
    let run = |country: &'static str| {
        run(&[Some((rows! { country: [country] }, &[0]))], std::slice::from_ref(&input), |graph, ports| {
            graph.map_rows("sut", &ports[0], fields! { score: Float64 }, |row: Place| {
                Ok(Scored {
                    score: match row.country {
                        Country::De => 1.0,
                        Country::Fr => 2.0,
                    },
                })
            })
        })
    };
    check(
        &run("fr"),
        &expect![[r#"
        port 0
        +-------+
        | score |
        +-------+
        | 2.0   |
        +-------+
        places [0]"#]],
    );
    check(
        &run("xx"),
        &expect![
            "rows: rows do not fit the closure's type: deserialization failed: unknown variant `xx`, expected `de` or `fr`"
        ],
    );
}

#[test]
fn null_keeps_no_row_in_a_filter() {
    let keep = |given: [Option<i64>; 3]| {
        run(&[Some((rows! { x: given }, &[0, 2, 4]))], &[fields! { x: Int64? }], |graph, ports| {
            graph.filter("sut", &ports[0], |batch| {
                let x = batch.column(0).as_primitive::<Int64Type>();
                Ok(x.iter().map(|x| x.map(|x| x > 1)).collect::<BooleanArray>())
            })
        })
    };
    check(
        &keep([Some(1), None, Some(2)]),
        &expect![[r#"
        port 0
        +---+
        | x |
        +---+
        | 2 |
        +---+
        places [4]"#]],
    );
    check(&keep([None, None, None]), &expect!["nothing"]);
}

/// Joins in-port 0 and others on keys; in-port 0 has columns `k, j?, x`, in-port 1 `k?, j, y`.
fn joined(keys: &[&str], inner: bool, left: RecordBatch, right: Option<RecordBatch>) -> String {
    let on = JoinOn::Keys(keys.iter().map(ToString::to_string).collect());
    let right = right.map(|right| (right, &[0, 1, 2, 3][..]));
    let right = right.map(|(batch, places)| {
        let rows = batch.num_rows();
        (batch, &places[..rows])
    });
    let left_places = &[1, 3, 5, 7][..left.num_rows()];
    let right_schema = if keys.len() == 1 {
        fields! { k: Int64?, y: Utf8 }
    } else {
        fields! { k: Int64?, j: Utf8, y: Utf8 }
    };
    run(
        &[Some((left, left_places)), right],
        &[fields! { k: Int64, j: Utf8?, x: Int64 }, right_schema],
        |graph, ports| {
            if inner { graph.inner_join("sut", ports, on) } else { graph.join("sut", ports, on) }
        },
    )
}

#[test]
fn keys_meet_left_and_inner_and_null_meets_nothing() {
    let left =
        || rows! { k: [7i64, 8, 7, 9], j: [Some("a"), None, Some("b"), Some("a")], x: [1i64, 2, 3, 4] };
    let right = || rows! { k: [Some(9i64), Some(7), None], y: ["nine", "seven", "null"] };
    check(
        &joined(&["k"], false, left(), Some(right())),
        &expect![[r#"
        port 0
        +---+---+---+-------+
        | k | j | x | y     |
        +---+---+---+-------+
        | 7 | a | 1 | seven |
        | 8 |   | 2 |       |
        | 7 | b | 3 | seven |
        | 9 | a | 4 | nine  |
        +---+---+---+-------+
        places [1, 3, 5, 7]"#]],
    );
    check(
        &joined(&["k"], true, left(), Some(right())),
        &expect![[r#"
        port 0
        +---+---+---+-------+
        | k | j | x | y     |
        +---+---+---+-------+
        | 7 | a | 1 | seven |
        | 7 | b | 3 | seven |
        | 9 | a | 4 | nine  |
        +---+---+---+-------+
        places [1, 5, 7]"#]],
    );
    check(
        &joined(&["k"], false, left(), None),
        &expect![[r#"
        port 0
        +---+---+---+---+
        | k | j | x | y |
        +---+---+---+---+
        | 7 | a | 1 |   |
        | 8 |   | 2 |   |
        | 7 | b | 3 |   |
        | 9 | a | 4 |   |
        +---+---+---+---+
        places [1, 3, 5, 7]"#]],
    );
    check(&joined(&["k"], true, left(), None), &expect!["nothing"]);
    let several = rows! { k: [Some(7i64), Some(7), Some(8)], j: ["b", "a", "a"], y: ["7b", "7a", "8a"] };
    check(
        &joined(&["k", "j"], false, left(), Some(several)),
        &expect![[r#"
        port 0
        +---+---+---+----+
        | k | j | x | y  |
        +---+---+---+----+
        | 7 | a | 1 | 7a |
        | 8 |   | 2 |    |
        | 7 | b | 3 | 7b |
        | 9 | a | 4 |    |
        +---+---+---+----+
        places [1, 3, 5, 7]"#]],
    );
}

#[test]
fn a_key_stands_once_on_the_other_side() {
    let left = || rows! { k: [7i64], j: [Some("a")], x: [1i64] };
    let twice = rows! { k: [Some(7i64), Some(8), Some(7)], y: ["a", "b", "c"] };
    check(
        &joined(&["k"], false, left(), Some(twice)),
        &expect!["rows: input 1 has rows 0 and 2 with the same key"],
    );
    let nulls = rows! { k: [None::<i64>, None], y: ["a", "b"] };
    check(
        &joined(&["k"], false, left(), Some(nulls)),
        &expect![[r#"
        port 0
        +---+---+---+---+
        | k | j | x | y |
        +---+---+---+---+
        | 7 | a | 1 |   |
        +---+---+---+---+
        places [1]"#]],
    );
}

#[test]
fn a_merge_takes_columns_in_any_order_and_null_from_any_side() {
    let schemas = [fields! { id: Int64, x: Float64 }, fields! { x: Float64?, id: Int64 }];
    let merge = |a: Option<RecordBatch>, b: Option<RecordBatch>| {
        run(&[a.map(|a| (a, &[2, 5][..])), b.map(|b| (b, &[0, 3][..]))], &schemas, |graph, ports| {
            graph.merge("sut", ports)
        })
    };
    let a = || Some(rows! { id: [1i64, 2], x: [0.1, 0.2] });
    let b = || Some(rows! { x: [None, Some(0.4)], id: [3i64, 4] });
    check(
        &merge(a(), b()),
        &expect![[r#"
        port 0
        +----+-----+
        | id | x   |
        +----+-----+
        | 3  |     |
        | 1  | 0.1 |
        | 4  | 0.4 |
        | 2  | 0.2 |
        +----+-----+
        places [0, 2, 3, 5]"#]],
    );
    check(
        &merge(a(), None),
        &expect![[r#"
        port 0
        +----+-----+
        | id | x   |
        +----+-----+
        | 1  | 0.1 |
        | 2  | 0.2 |
        +----+-----+
        places [2, 5]"#]],
    );
    check(
        &merge(None, b()),
        &expect![[r#"
        port 0
        +----+-----+
        | id | x   |
        +----+-----+
        | 3  |     |
        | 4  | 0.4 |
        +----+-----+
        places [0, 3]"#]],
    );
}

#[test]
fn default_values_fill_the_columns_a_failed_step_would_have_written() {
    let mut graph = Graph::new("g", fields! { id: Int64, amount: Float64 });
    let output = fields! { id: Int64, amount: Utf8, score: Float64, label: Utf8?, note: Utf8? };
    let input = graph.input();
    let step =
        graph.map("sut", &input, output, |_| Err(millstream_graph::StepError::internal("never called")));
    let values = [("score", json!(0.5)), ("amount", json!("unknown")), ("label", json!("none"))];
    graph.when_failed(&step, OnError::Default(values.map(|(name, value)| (name.to_owned(), value)).into()));
    graph.respond(&step);
    let plan = graph.compile().unwrap();
    let Fallback::Fill(fill) = plan.steps()[0].fallback(ErrorKind::Internal) else {
        panic!("default values were declared")
    };
    let rows = Rows::whole(rows! { id: [1i64, 2, 3], amount: [1.0, 2.0, 3.0] }).take(&[2, 0]).unwrap();
    check(
        &shown(Output::one(fill.apply(&rows).unwrap())),
        &expect![[r#"
        port 0
        +----+---------+-------+-------+------+
        | id | amount  | score | label | note |
        +----+---------+-------+-------+------+
        | 3  | unknown | 0.5   | none  |      |
        | 1  | unknown | 0.5   | none  |      |
        +----+---------+-------+-------+------+
        places [2, 0]"#]],
    );
}
