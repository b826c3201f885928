//! Metrics of a project's own, from its file and from closures: to the report, an alert and gauges.

use std::{fs, path::Path};

use millstream_graph::rows;
use millstream_monitor::{
    custom::Custom,
    predictions::{LabelCounts, Outcome, OutcomeCounts},
    report::Report,
};

use super::served::{Served, gauges, told};
use crate::Project;

const MINUTE: i64 = 60_000_000;

/// A project whose port `said` has these metrics.
fn project(folder: &Path, metrics: &str) -> Result<Project, Vec<String>> {
    let text = format!(
        "\
name: p
monitoring:
  alerts:
    many:
      when: {{ metric: rows_twice, graph: ask, edge: said, above: 3 }}
      notify: [log]
graphs:
  ask:
    input: {{ id: int64, amount: float64, p: float64, kind: string }}
    steps:
      said: {{ select: [id, amount, p, kind] }}
    respond: said
    monitor:
      said:
        performance: {{ probability: p, id: id, outcomes: [revenue] }}
        metrics: {metrics}
"
    );
    fs::write(folder.join("millstream.yaml"), text).unwrap();
    Project::load(folder).map_err(|error| error.mistakes())
}

#[tokio::test]
async fn expressions_and_closures_over_the_window_are_reported_told_to_alerts_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let project = project(
        folder.path(),
        r#"{ rows_twice: rows * 2, margin: amount_mean - 2 * amount_std, kinds: '"kind_distinct" + kind_nulls',
             per_row: revenue_sum / rows, failing: errors / requests, judged: roc_auc }"#,
    );
    let project = project.unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    let mut served = Served::new(project, "ask", 0);
    let closure = Custom::new("widest", |window| {
        Some(window.rows() as f64 + window.performance("revenue_count").unwrap_or(0.5))
    });
    served.keeper.register(("ask", "said"), closure, served.project.watches()).unwrap();
    for (place, name, mistake) in [
        (("ask", "said"), "widest", "`widest` of edge `said` is a metric already"),
        (("ask", "said"), "margin", "`margin` of edge `said` is a metric already"),
        (("ask", "said"), "roc_auc", "`roc_auc` is a metric already; give it another name"),
        (("ask", "sad"), "x", "no watched edge `sad`; did you mean `said`?"),
        (("asks", "said"), "x", "no watched graph `asks`; did you mean `ask`?"),
    ] {
        let refused = served.keeper.register(place, Custom::new(name, |_| None), served.project.watches());
        assert_eq!(refused.unwrap_err().to_string(), mistake);
    }

    let batch = rows! { id: [1_i64, 2], amount: [1.0, 3.0], p: [0.9, 0.2], kind: ["a", "b"] };
    served.engine.run(batch).await.unwrap();
    let outcome =
        Outcome { id: "2".to_owned(), measures: vec![("revenue".to_owned(), 12.5)], ..Outcome::default() };
    let counts = served.keeper.label(&served.project.watches()[0], None, &[outcome], 5).unwrap();
    let joined = LabelCounts { joined: 1, ..LabelCounts::default() };
    assert_eq!(counts, OutcomeCounts { measures: Some(joined), ..OutcomeCounts::default() });

    let turned = served.turn(MINUTE);
    let report: &Report = &turned.reports["ask"];
    let values: Vec<(&str, &str, Option<f64>)> =
        report.metrics.iter().map(|metric| (&*metric.edge, &*metric.name, metric.value)).collect();
    let expected = [
        ("said", "failing", None),
        ("said", "judged", None),
        ("said", "kinds", Some(2.0)),
        ("said", "margin", Some(0.0)),
        ("said", "per_row", Some(6.25)),
        ("said", "rows_twice", Some(4.0)),
        ("said", "widest", Some(3.0)),
    ];
    assert_eq!(values, expected);
    assert_eq!(report.metrics[5].series.len(), 1);
    assert!(report.to_html().contains("rows_twice"));
    assert_eq!(told(&turned), ["many"]);
    let own = gauges(&turned, "millstream_monitor_custom");
    assert_eq!(own.get_metric().len(), 5, "those that have a value");
    let again = served.turn(2 * MINUTE);
    assert_eq!(again.reports["ask"].metrics[5].series.len(), 2);
}

#[test]
fn what_is_wrong_with_metrics_is_said_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (metrics, mistake) in [
        (
            "{ a: amuont_mean }",
            "metrics: `a`: in `amuont_mean`: no number `amuont_mean`; did you mean `amount_mean`?",
        ),
        ("{ a: kind_mean }", "no number `kind_mean`"),
        ("{ drift: rows }", "metrics: `drift` is a metric already; give it another name"),
        ("{ estimated_f1: rows }", "`estimated_f1` is a metric already"),
        ("{ revenue_sum: rows }", "`revenue_sum` is a metric already"),
        ("{ 'a b': rows }", "`a b` is no name of a metric"),
        ("{ a: rows AS b }", "leave out `AS`"),
        ("{ a: rows > 1 }", "a metric is a number, and this is Boolean"),
        ("{ a: sum(rows) }", "`sum` sees many rows"),
        ("{ a: 'rows +' }", "metrics: `a`: in `rows +`"),
    ] {
        let mistakes = project(folder.path(), metrics).err().unwrap_or_default();
        assert!(mistakes.len() == 1 && mistakes[0].contains(mistake), "{metrics}: {mistakes:#?}");
    }
}
