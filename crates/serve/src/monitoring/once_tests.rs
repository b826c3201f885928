//! Which columns are counted at which of the ports that a project watches.

use std::{collections::BTreeMap, fs};

use millstream_graph::rows;

use super::served::Served;

const PROJECT: &str = "\
name: p
graphs:
  ask:
    input: { a: float64, b: float64, s: string }
    steps:
      more: { with: { x: a + b } }
      known: { validate: { columns: { s: [{ set: [de, fr] }] } } }
      some: { filter: a > 1.5 }
      last: { select: ['*', 'x * 2.0 AS y', 'upper(s) AS t'] }
    respond: last
    monitor:
";

/// The columns that each port has counted when it is watched so, with their rows, and those that it leaves to another.
async fn counted(monitor: &str) -> BTreeMap<String, (String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = monitor.lines().map(|line| format!("      {line}\n")).collect();
    fs::write(folder.path().join("train.csv"), "a,b,s\n1,2,de\n2,3,fr\n3,4,de\n").unwrap();
    fs::write(folder.path().join("millstream.yaml"), format!("{PROJECT}{lines}")).unwrap();
    let mut served = Served::load(folder.path(), "ask", 0);
    served.engine.run(rows! { a: [1.0, 2.0, 3.0], b: [4.0, 5.0, 6.0], s: ["de", "fr", "de"] }).await.unwrap();
    let mut turned = served.turn(60_000_000);
    let report = turned.reports.remove("ask").unwrap();
    let edges = report.edges.into_iter().map(|edge| {
        let here = edge.columns.iter().map(|column| format!("{} {}", column.column, column.rows));
        let there = edge.elsewhere.iter().map(|(column, port)| format!("{column} at {port}"));
        let joined = (here.collect::<Vec<_>>().join(", "), there.collect::<Vec<_>>().join(", "));
        (edge.edge, joined)
    });
    edges.collect()
}

#[tokio::test]
async fn a_column_is_counted_at_the_first_port_that_carries_its_rows_unless_a_later_one_asks_for_it() {
    let cases: &[(&str, &[(&str, &str, &str)])] = &[
        (
            "input: {}\nmore: {}\nknown: {}\nsome: {}\nlast: {}",
            &[
                ("input", "a 3, b 3, s 3", ""),
                ("more", "x 3", "a at input, b at input, s at input"),
                ("known", "", "a at input, b at input, s at input, x at more"),
                // Others than the rows before.
                ("some", "a 2, b 2, s 2, x 2", ""),
                ("last", "t 2, y 2", "a at some, b at some, s at some, x at some"),
            ],
        ),
        (
            "known: {}\nlast: {}",
            &[("known", "a 3, b 3, s 3, x 3", ""), ("last", "a 2, b 2, s 2, t 2, x 2, y 2", "")],
        ),
        (
            "input: { columns: [a] }\nmore: {}",
            &[("input", "a 3", ""), ("more", "b 3, s 3, x 3", "a at input")],
        ),
        (
            "input: {}\nmore: { rules: { a: { min: 0 } } }\nknown: { columns: [b, x] }\nlast: {}",
            &[
                ("input", "a 3, b 3, s 3", ""),
                ("more", "a 3, x 3", "b at input, s at input"),
                ("known", "b 3, x 3", ""),
                ("last", "a 2, b 2, s 2, t 2, x 2, y 2", ""),
            ],
        ),
        (
            "input: {}\nknown: { reference: train.csv }\nlast: { segments: [s], columns: [y] }",
            &[("input", "a 3, b 3, s 3", ""), ("known", "a 3, b 3, s 3, x 3", ""), ("last", "y 2", "")],
        ),
    ];
    for (monitor, expected) in cases {
        let expected = expected
            .iter()
            .map(|(port, here, there)| ((*port).to_owned(), ((*here).to_owned(), (*there).to_owned())));
        assert_eq!(counted(monitor).await, expected.collect(), "{monitor}");
    }
}
