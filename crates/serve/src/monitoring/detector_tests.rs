//! Detectors of a project: from labels to the report, an alert and gauges, and over a restart.

use std::{fs, sync::Arc};

use millstream_graph::rows;
use millstream_monitor::{
    predictions::{Outcome, Truth},
    report::{DetectorReport, DetectorState, Report},
};

use super::{
    keeper::Turned,
    served::{Served, gauges, told},
};

const MINUTE: i64 = 60_000_000;
const PROJECT: &str = "\
name: p
monitoring:
  path: kept
  alerts:
    wrong:
      when: { metric: concept_drift, graph: ask, detector: ddm, above: 0.5 }
      notify: [log]
graphs:
  ask:
    input: { id: int64, p: float64 }
    steps:
      said: { select: [id, p] }
    respond: said
    monitor:
      said:
        performance: { probability: p, id: id, detectors: [{ ddm: {} }, { adwin: { delta: 0.01 } }] }
";

/// Serves these rows, tells which of them were wrong, and ends the pane.
async fn minute(served: &mut Served, ids: std::ops::Range<i64>, wrong: fn(i64) -> bool, now: i64) -> Turned {
    let count = ids.clone().count();
    let rows = rows! { id: ids.clone().collect::<Vec<i64>>(), p: vec![0.9; count] };
    served.engine.run(rows).await.unwrap();
    let label =
        |id: i64| Outcome { id: id.to_string(), label: Some(Truth::Flag(!wrong(id))), ..Outcome::default() };
    let labels: Vec<_> = ids.map(label).collect();
    let watch = Arc::clone(&served.project.watches()[0]);
    let counts = served.keeper.label(&watch, None, &labels, now).unwrap();
    assert_eq!(counts.labels.joined, count as u64);
    served.turn(now)
}

fn detector<'r>(turned: &'r Turned, name: &str) -> &'r DetectorReport {
    let report: &Report = &turned.reports["ask"];
    report.detectors.iter().find(|detector| detector.detector == name).unwrap()
}

#[tokio::test]
async fn a_model_that_begins_to_err_is_noticed_told_of_once_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("millstream.yaml"), PROJECT).unwrap();
    let mut served = Served::load(folder.path(), "ask", 0);
    let calm = minute(&mut served, 0..200, |id| id % 10 == 3, MINUTE).await;
    let ddm = detector(&calm, "ddm");
    assert_eq!((ddm.edge.as_str(), ddm.errors, ddm.drifts, calm.notifications.len()), ("said", 200, 0, 0));

    let broken = minute(&mut served, 200..400, |_| true, 2 * MINUTE).await;
    let ddm = detector(&broken, "ddm");
    assert_eq!((ddm.state, ddm.drifts, ddm.last_drift), (DetectorState::Drift, 1, Some(2 * MINUTE)));
    assert_eq!(detector(&broken, "adwin").state, DetectorState::Drift);
    assert_eq!(told(&broken), ["wrong"]);
    assert!(broken.reports["ask"].to_html().contains("Detectors of changed errors"));

    for (name, series) in [("concept_drift", 2), ("concept_warning", 1), ("concept_drifts", 2)] {
        let family = gauges(&broken, &format!("millstream_monitor_{name}"));
        assert_eq!(family.get_metric().len(), series, "{name}");
    }

    served.keeper.end(served.project.watches(), 2 * MINUTE + 1);
    drop(served);
    let mut again = Served::load(folder.path(), "ask", 2 * MINUTE + 1);
    let after = again.turn(3 * MINUTE);
    let ddm = detector(&after, "ddm");
    assert_eq!((ddm.errors, ddm.drifts, ddm.last_drift), (400, 1, Some(2 * MINUTE)));
    assert_ne!(ddm.state, DetectorState::Drift);
}
