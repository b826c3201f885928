//! Which columns are counted at which of the ports that a project watches.

use std::{collections::BTreeMap, fs};

use millstream_graph::rows;
use prometheus::proto::Metric;

use super::{
    keeper::Turned,
    served::{Served, gauges},
};

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

/// The pane of three rows when ports are watched so, and an alert looks at some.
async fn turned(monitor: &str, alert: Option<&str>) -> Turned {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = monitor.lines().map(|line| format!("      {line}\n")).collect();
    let alert = alert
        .map(|when| format!("monitoring: {{ alerts: {{ seen: {{ when: {when}, notify: [log] }} }} }}\n"));
    let project = format!("{PROJECT}{lines}{}", alert.unwrap_or_default());
    fs::write(folder.path().join("train.csv"), "a,b,s\n1,2,de\n2,3,fr\n3,4,de\n").unwrap();
    fs::write(folder.path().join("millstream.yaml"), project).unwrap();
    let mut served = Served::load(folder.path(), "ask", 0);
    served.engine.run(rows! { a: [1.0, 2.0, 3.0], b: [4.0, 5.0, 6.0], s: ["de", "fr", "de"] }).await.unwrap();
    served.turn(60_000_000)
}

/// A port, the columns that it counts with their rows, and those that it leaves to another.
type Port = (&'static str, &'static str, &'static str);

/// The columns that each port has counted, with their rows, and those that it leaves to another.
fn counted(turned: &Turned) -> BTreeMap<String, (String, String)> {
    let edges = turned.reports["ask"].edges.iter().map(|edge| {
        let here = edge.columns.iter().map(|column| format!("{} {}", column.column, column.rows));
        let there = edge.elsewhere.iter().map(|(column, port)| format!("{column} at {port}"));
        let joined = (here.collect::<Vec<_>>().join(", "), there.collect::<Vec<_>>().join(", "));
        (edge.edge.clone(), joined)
    });
    edges.collect()
}

#[tokio::test]
async fn a_column_is_counted_at_the_first_port_that_carries_its_rows_unless_a_later_one_asks_for_it() {
    let cases: &[(&str, &[Port])] = &[
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
            // A port that has a reference for some columns does not count the others.
            "input: { columns: [b], reference: train.csv }\nmore: {}",
            &[("input", "b 3", ""), ("more", "a 3, s 3, x 3", "b at input")],
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
        assert_eq!(counted(&turned(monitor, None).await), expected.collect(), "{monitor}");
    }
}

#[tokio::test]
async fn a_column_is_counted_at_a_later_port_where_an_alert_looks_at_it() {
    let monitor = "input: {}\nmore: {}\nknown: {}";
    let cases = [
        ("metric: nulls, edge: known, column: a, above: 0.5", "a 3", "b at input, s at input, x at more"),
        ("metric: mean, graph: ask, edge: known, column: '*', above: 50", "a 3, b 3, s 3, x 3", ""),
        // Another graph, whichever port, and what is measured only beside a reference.
        (
            "metric: mean, graph: asked, edge: known, above: 50",
            "",
            "a at input, b at input, s at input, x at more",
        ),
        ("metric: mean, column: a, above: 50", "", "a at input, b at input, s at input, x at more"),
        ("metric: drift, edge: known, above: 50", "", "a at input, b at input, s at input, x at more"),
    ];
    for (when, here, there) in cases {
        let turned = turned(monitor, Some(&format!("{{ {when} }}"))).await;
        assert_eq!(counted(&turned)["known"], (here.to_owned(), there.to_owned()), "{when}");
    }
}

#[tokio::test]
async fn a_port_that_leaves_all_columns_to_others_has_its_rows() {
    let turned = turned("input: {}\nknown: {}\nlast: {}", None).await;
    let rows = gauges(&turned, "millstream_monitor_rows");
    let of = |metric: &Metric| {
        let edge = metric.get_label().iter().find(|label| label.name() == "edge");
        (edge.map(|label| label.value().to_owned()), metric.get_gauge().get_value())
    };
    let of_edge = |edge: &str, rows: f64| (Some(edge.to_owned()), rows);
    let mut found: Vec<_> = rows.get_metric().iter().map(of).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, [of_edge("input", 3.0), of_edge("known", 3.0), of_edge("last", 2.0)]);
}
