//! The loan example over data whose drift is known: NannyML's car loans, of which the second half of the analysis has dearer cars.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    csv::ReaderBuilder,
    datatypes::{DataType, Field, Schema},
};
use millstream_monitor::{
    alert::Notification,
    predictions::{Outcome, Truth},
    report::Report,
};
use millstream_runtime::{Engine, Limits};

use super::{Plan, keeper::Keeper};
use crate::Project;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/nannyml/nannyml/datasets/data");
const LOAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/loan");
const HOUR: i64 = 3_600_000_000;
/// What drifts from the middle of the analysis on.
const DRIFTED: [&str; 4] = ["car_value", "loan_length", "repaid_loan_on_prev_car", "salary_range"];
/// Applications in an hour.
const CHUNK: usize = 5000;

struct Loan {
    project: Project,
    engine: Engine,
    keeper: Keeper,
    plan: Arc<Plan>,
    now: i64,
}

impl Loan {
    fn new(folder: Option<PathBuf>) -> Self {
        let project = Project::load(LOAN).unwrap();
        let engine = project.engine("loan", Limits::default()).unwrap();
        let plan = Arc::new(Plan { folder, ..project.monitoring().clone() });
        let mut keeper = Keeper::new("loan", Arc::clone(&plan));
        keeper.drain(project.watches(), 0);
        Self { project, engine, keeper, plan, now: 0 }
    }

    /// Serves the applications of an hour.
    async fn hour(&mut self, rows: &RecordBatch) -> (Report, Vec<Notification>) {
        for start in (0..rows.num_rows()).step_by(500) {
            let rows = rows.slice(start, 500.min(rows.num_rows() - start));
            self.engine.run(rows).await.unwrap();
        }
        self.now += HOUR;
        let mut turned = self.keeper.turn(&self.plan, self.project.watches(), self.now);
        (turned.reports.remove("loan").unwrap(), turned.notifications)
    }

    fn label(&mut self, labels: &[(i64, f64)]) -> u64 {
        let outcome = |(id, label): &(i64, f64)| Outcome {
            id: id.to_string(),
            label: Some(Truth::Number(*label)),
            ..Outcome::default()
        };
        let labels: Vec<_> = labels.iter().map(outcome).collect();
        let watch = Arc::clone(&self.project.watches()[0]);
        self.keeper.label(&watch, None, &labels, self.now).unwrap().labels.joined
    }
}

/// A half of the data, as the graph takes it.
fn half(engine: &Engine, name: &str) -> RecordBatch {
    let input = engine.plan().input_schema();
    let mut fields: Vec<Field> = input.fields().iter().map(|field| field.as_ref().clone()).collect();
    let columns = fields.len();
    let header =
        std::io::BufRead::lines(std::io::BufReader::new(File::open(Path::new(DATA).join(name)).unwrap()));
    let header = header.into_iter().next().unwrap().unwrap();
    fields.extend(header.split(',').skip(columns).map(|name| Field::new(name, DataType::Utf8, true)));
    let reader = ReaderBuilder::new(Arc::new(Schema::new(fields))).with_header(true).with_batch_size(50_000);
    let mut reader = reader.build(File::open(Path::new(DATA).join(name)).unwrap()).unwrap();
    let rows = reader.next().unwrap().unwrap().project(&(0..columns).collect::<Vec<_>>()).unwrap();
    RecordBatch::try_new(Arc::clone(input), rows.columns().to_vec()).unwrap()
}

fn labels() -> Vec<(i64, f64)> {
    let text =
        std::fs::read_to_string(Path::new(DATA).join("synthetic_car_loan_analysis_target.csv")).unwrap();
    let label = |line: &str| {
        let (id, label) = line.split_once(',')?;
        Some((id.parse().ok()?, label.parse().ok()?))
    };
    text.lines().skip(1).filter_map(label).collect()
}

fn drifted(report: &Report) -> Vec<&str> {
    let edge = report.edges.iter().find(|edge| edge.edge == "input").unwrap();
    edge.columns
        .iter()
        .filter(|column| column.drifted == Some(true))
        .map(|column| column.column.as_str())
        .collect()
}

#[tokio::test]
async fn loans_drift_from_where_their_data_do_one_alert_is_raised_and_labels_that_come_late_are_joined() {
    if !Path::new(DATA).exists() {
        eprintln!("skipped: there are no car loans of NannyML; `make test` brings them");
        return;
    }
    let kept = tempfile::tempdir().unwrap();
    let mut loan = Loan::new(Some(kept.path().to_path_buf()));
    let (reference, analysis) = (
        half(&loan.engine, "synthetic_car_loan_reference.csv"),
        half(&loan.engine, "synthetic_car_loan_analysis.csv"),
    );
    for start in (0..reference.num_rows()).step_by(CHUNK) {
        let (report, notifications) = loan.hour(&reference.slice(start, CHUNK)).await;
        assert_eq!(
            (drifted(&report), notifications.len()),
            (vec![], 0),
            "of the reference, from row {start}"
        );
    }
    let (labels, mut raised) = (labels(), Vec::new());
    let mut last = None;
    for (chunk, start) in (0..analysis.num_rows()).step_by(CHUNK).enumerate() {
        let (report, notifications) = loan.hour(&analysis.slice(start, CHUNK)).await;
        let expected: &[&str] = if chunk < 5 { &[] } else { &DRIFTED };
        assert_eq!(drifted(&report), expected, "of the analysis, chunk {chunk}");
        raised.extend(
            notifications
                .iter()
                .map(|notification| (chunk, notification.alert.name().to_owned(), notification.events.len())),
        );
        // Labels of the hour before.
        if let Some(before) = start.checked_sub(CHUNK) {
            // Applications that break a rule have no score: few at first, more once cars are dearer.
            let joined = loan.label(&labels[before..start]);
            assert!(joined > 4000 && joined < 5000, "{joined}");
        }
        last = Some(report);
    }
    assert_eq!(raised, [(5, "applications_drift".to_owned(), DRIFTED.len())]);
    let last = last.unwrap();
    let auc =
        last.performance.iter().find(|series| series.name == "roc_auc" && series.segment.is_none()).unwrap();
    // The labels of the last two hours have not been told of when the last report is made.
    assert_eq!((auc.realised.len(), auc.estimated.len()), (8, 20));
    assert!(auc.realised.iter().all(|point| point.value > 0.9), "{auc:?}");
    for realised in &auc.realised {
        let estimated = auc.estimated.iter().find(|point| point.at == realised.at).unwrap();
        assert!((estimated.value - realised.value).abs() < 0.03, "{auc:?}");
    }
}

#[tokio::test]
async fn what_was_kept_is_there_again_and_an_alert_that_was_told_is_not_told_again() {
    if !Path::new(DATA).exists() {
        eprintln!("skipped: there are no car loans of NannyML; `make test` brings them");
        return;
    }
    let kept = tempfile::tempdir().unwrap();
    let mut loan = Loan::new(Some(kept.path().to_path_buf()));
    let drifted = half(&loan.engine, "synthetic_car_loan_analysis.csv").slice(30_000, CHUNK);
    assert_eq!(loan.hour(&drifted).await.1.len(), 1);
    let joined = loan.label(&labels()[30_000..30_100]);
    loan.keeper.end(loan.project.watches(), loan.now + 1);
    let now = loan.now + 1;
    drop(loan);

    let mut again = Loan::new(Some(kept.path().to_path_buf()));
    again.now = now;
    let (report, notifications) = again.hour(&drifted).await;
    assert_eq!((report.requests, notifications.len()), (0, 0));
    assert_eq!(report.alerts.iter().filter(|alert| alert.since.is_some()).count(), 1);
    // Labels that came before are known, and the other predictions still wait for theirs.
    assert_eq!(again.label(&labels()[30_000..30_100]), 0);
    assert!(joined > 90 && again.label(&labels()[30_100..30_200]) > 90);
}
