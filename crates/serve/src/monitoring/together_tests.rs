//! Columns of a project that are watched together: from its file to the report, an alert and gauges.

use std::{fmt::Write, fs, path::Path};

use arrow::array::RecordBatch;
use millstream_graph::rows;

use super::served::{Served, gauges, told};
use crate::Project;

const MINUTE: i64 = 60_000_000;
const PROJECT: &str = "\
name: p
monitoring:
  path: kept
  window: 1m
  alerts:
    apart:
      when: { metric: multivariate_drift, graph: ask, edge: input, above: 0.5 }
      notify: [log]
graphs:
  ask:
    input: { income: float64, limit: float64 }
    steps:
      said: { select: [income, limit] }
    respond: said
    monitor:
      input: { reference: REFERENCE, multivariate: { keep: { components: 1 } } }
";

/// Two columns that move together, or against each other: each alone looks the same.
fn row(i: u32, together: bool) -> (f64, f64) {
    let (income, noise) = (f64::from(i % 10), f64::from(i % 7) / 10.0);
    (income, if together { income } else { 9.0 - income } + noise)
}

fn batch(together: bool) -> RecordBatch {
    let both: Vec<(f64, f64)> = (0..350).map(|i| row(i, together)).collect();
    let (income, limit): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
    rows! { income: income, limit: limit }
}

fn write(folder: &Path, reference: &str) {
    let mut text = "income,limit\n".to_owned();
    for i in 0..1000 {
        let (income, limit) = row(i, true);
        writeln!(text, "{income},{limit}").unwrap();
    }
    fs::write(folder.join("train.csv"), text).unwrap();
    fs::write(folder.join("millstream.yaml"), PROJECT.replace("REFERENCE", reference)).unwrap();
}

#[tokio::test]
async fn columns_that_drift_only_together_are_found_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "train.csv");
    let mut served = Served::load(folder.path(), "ask", 0);
    for (minute, together) in [(1, true), (2, false)] {
        served.engine.run(batch(together)).await.unwrap();
        let turned = served.turn(minute * MINUTE);
        let report = &turned.reports["ask"];
        assert_eq!(report.drifted_columns, 0, "each alone is as it was");
        let of = &report.multivariate[0];
        assert_eq!((of.edge.as_str(), of.rows, of.drifted), ("input", 350, Some(!together)), "{of:?}");
        assert_eq!(of.series.len() as i64, minute);
        assert_eq!(told(&turned), if together { &[][..] } else { &["apart"][..] });
        assert!(report.to_html().contains("Columns together"));

        let family = gauges(&turned, "millstream_monitor_multivariate_drift");
        let value = family.get_metric()[0].get_gauge().get_value();
        assert_eq!(value, f64::from(u8::from(!together)));
    }
}

#[test]
fn what_cannot_be_learned_from_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("gone.csv", "gone.csv"),
        ("null", "multivariate: it is learned from the rows of a training set; name one as `reference`"),
    ];
    for (reference, expected) in cases {
        write(folder.path(), reference);
        let error = Project::load(folder.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
