//! Performance that is estimated without labels.

use millstream_monitor::performance::{
    BinaryEstimator, Bounds, Calibrator, ChunkEstimate, EstimateError, ExpectedLoss, ExpectedMetrics,
    ExpectedMulticlass, LabelledScore, MulticlassEstimator, MulticlassReference, MulticlassRow, PerMetric,
    ScoredRow,
};
use serde_json::Value;

use super::{close, numbers, oracle, whole};

#[test]
fn estimates_for_car_loans_are_those_of_nannyml() {
    let (expected, reference, analysis) = car_loan();
    let estimator = BinaryEstimator::fit(&reference, 5000).unwrap();
    assert_eq!(
        matches!(estimator.calibrator(), Calibrator::Isotonic(_)),
        expected["needs_calibration"].as_bool().unwrap()
    );
    check_estimate(estimator.bounds(), &estimator.estimate(&analysis), &expected, ESTIMATE, "car loan");
    let read: BinaryEstimator = serde_json::from_str(&serde_json::to_string(&estimator).unwrap()).unwrap();
    assert_eq!(read, estimator);
    let alerts = estimator.estimate(&analysis).iter().filter(|chunk| chunk.alerts.roc_auc).count();
    assert!(0 < alerts && alerts < 10, "the data drift halfway: {alerts}");
}

#[test]
fn estimates_row_by_row_are_those_of_chunks() {
    let (expected, reference, analysis) = car_loan();
    let estimator = BinaryEstimator::fit(&reference, 5000).unwrap();
    for (index, chunk) in analysis.chunks(5000).enumerate() {
        let (mut left, mut right, mut whole) =
            (ExpectedMetrics::default(), ExpectedMetrics::default(), ExpectedMetrics::default());
        for (at, row) in chunk.iter().enumerate() {
            let calibrated = estimator.calibrator().calibrate(row.score);
            let replica = if at % 3 == 0 { &mut left } else { &mut right };
            replica.add(row.score, row.predicted, calibrated);
            whole.add(row.score, row.predicted, calibrated);
        }
        left.merge(&right);
        assert_eq!(left, whole);
        // These scores are percents, so no two of them share a bin.
        check_metrics(whole.metrics(), &expected["chunks"][index], ESTIMATE, &format!("chunk {index}"));
        let read: ExpectedMetrics = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        assert_eq!(read, whole);
    }
}

#[test]
fn estimates_for_the_example_are_those_of_nannyml() {
    for column in ["score", "y_pred_proba"] {
        let expected = estimate_oracle()["example"][column].clone();
        let rows = example_rows(column);
        let (reference, analysis) = rows.split_at(expected["reference_rows"].as_u64().unwrap() as usize);
        let analysis: Vec<_> = analysis.iter().map(|labelled| labelled.row).collect();
        let estimator = BinaryEstimator::fit(reference, 500).unwrap();
        assert_eq!(
            matches!(estimator.calibrator(), Calibrator::Isotonic(_)),
            expected["needs_calibration"].as_bool().unwrap(),
            "{column}"
        );
        let chunks = estimator.estimate(&analysis);
        check_estimate(estimator.bounds(), &chunks, &expected, ESTIMATE, column);
        for chunk in &chunks {
            let mut live = ExpectedMetrics::default();
            for row in &analysis[chunk.rows.clone()] {
                live.add(row.score, row.predicted, estimator.calibrator().calibrate(row.score));
            }
            for ((metric, live), (_, batch)) in live.metrics().named().into_iter().zip(chunk.metrics.named())
            {
                assert!((live.unwrap() - batch.unwrap()).abs() < 1e-3, "{column}, {metric}");
            }
        }
    }
}

#[test]
fn estimates_for_several_classes_are_those_of_nannyml() {
    let expected = estimate_oracle()["multiclass"].clone();
    let row = |row: &[u64]| MulticlassRow {
        scores: row[..3].iter().copied().map(percent).collect(),
        predicted: row[3] as u32,
    };
    let reference: Vec<_> = counted(&expected["reference"])
        .iter()
        .map(|fields| MulticlassReference { row: row(fields), label: fields[4] as u32 })
        .collect();
    let analysis: Vec<_> = counted(&expected["analysis"]).iter().map(|fields| row(fields)).collect();
    let estimator = MulticlassEstimator::fit(&reference, 3000).unwrap();
    let fitted: Vec<_> = estimator
        .calibrators()
        .iter()
        .map(|calibrator| matches!(calibrator, Calibrator::Isotonic(_)))
        .collect();
    assert_eq!(serde_json::to_value(fitted).unwrap(), expected["needs_calibration"]);
    // Ties of a class's score may differ in probability once rows add up to 1; NannyML ranks them as they come.
    let chunks = estimator.estimate(&analysis);
    check_estimate(estimator.bounds(), &chunks, &expected, 1e-4, "multiclass");
    for chunk in &chunks {
        let mut live = ExpectedMulticlass::default();
        for row in &analysis[chunk.rows.clone()] {
            live.add(row, &estimator.probabilities(row).unwrap());
        }
        for ((metric, live), (_, batch)) in live.metrics().named().into_iter().zip(chunk.metrics.named()) {
            assert!((live.unwrap() - batch.unwrap()).abs() < 1e-3, "{metric}");
        }
    }
}

/// The greatest distance that a metric may have from NannyML's, which rounds its sums of ranks to 5 digits.
const ESTIMATE: f64 = 1e-6;

fn estimate_oracle() -> Value {
    oracle(include_str!("../oracles/performance_cbpe.json"))
}

#[track_caller]
fn check_metrics(actual: PerMetric<Option<f64>>, expected: &Value, tolerance: f64, what: &str) {
    for (metric, value) in actual.named() {
        close(value, &expected[metric], tolerance, &format!("{what}, {metric}"));
    }
}

#[track_caller]
fn check_estimate(
    bounds: &PerMetric<Option<Bounds>>,
    chunks: &[ChunkEstimate],
    expected: &Value,
    tolerance: f64,
    what: &str,
) {
    for (metric, bounds) in bounds.named() {
        let (bounds, expected) = (bounds.unwrap(), numbers(&expected["bounds"][metric]));
        close(Some(bounds.lower), &expected[0].into(), 1e-9, &format!("{what}, lower bound of {metric}"));
        close(Some(bounds.upper), &expected[1].into(), 1e-9, &format!("{what}, upper bound of {metric}"));
    }
    let values = expected["chunks"].as_array().unwrap();
    assert!(!chunks.is_empty() && chunks.len() == values.len(), "{what}");
    for (index, chunk) in chunks.iter().enumerate() {
        check_metrics(chunk.metrics, &values[index], tolerance, &format!("{what}, chunk {index}"));
        for (metric, alert) in chunk.alerts.named() {
            assert_eq!(
                alert,
                expected["alerts"][index][metric].as_bool().unwrap(),
                "{what}, {index}, {metric}"
            );
        }
    }
}

/// Rows that are stored as distinct rows with a count at the end.
fn counted(chunks: &Value) -> Vec<Vec<u64>> {
    let mut rows = Vec::new();
    for row in chunks.as_array().unwrap().iter().flat_map(|chunk| chunk.as_array().unwrap()) {
        let mut row = whole(row);
        let count = row.pop().unwrap();
        rows.extend((0..count).map(|_| row.clone()));
    }
    rows
}

fn percent(value: u64) -> f64 {
    value as f64 / 100.0
}

fn scored(row: &[u64]) -> ScoredRow {
    ScoredRow { score: percent(row[0]), predicted: row[1] == 1 }
}

fn car_loan() -> (Value, Vec<LabelledScore>, Vec<ScoredRow>) {
    let expected = estimate_oracle()["car_loan"].clone();
    let reference: Vec<_> = counted(&expected["reference"])
        .iter()
        .map(|row| LabelledScore { row: scored(row), label: row[2] == 1 })
        .collect();
    let analysis: Vec<_> = counted(&expected["analysis"]).iter().map(|row| scored(row)).collect();
    assert_eq!((reference.len(), analysis.len()), (50_000, 50_000));
    (expected, reference, analysis)
}

/// (Row of the reference sample of the example, its label), by the column that holds the score.
fn example_rows(column: &str) -> Vec<LabelledScore> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/loan/data/reference_sample.csv");
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header: Vec<_> = lines.next().unwrap().split(',').collect();
    let at = |name: &str| header.iter().position(|field| *field == name).unwrap();
    let (chosen, score, label) = (at(column), at("score"), at("repaid"));
    let rows = lines.filter_map(|line| {
        let fields: Vec<_> = line.split(',').collect();
        let stacked: f64 = fields[score].parse().ok()?;
        let row = ScoredRow { score: fields[chosen].parse().unwrap(), predicted: stacked >= 0.5 };
        Some(LabelledScore { row, label: fields[label] == "1" })
    });
    rows.collect()
}

#[test]
fn a_reference_that_says_nothing_is_refused() {
    let row = |score| LabelledScore { row: ScoredRow { score, predicted: true }, label: true };
    let class = |scores: &[f64], label| MulticlassReference {
        row: MulticlassRow { scores: scores.to_vec(), predicted: 0 },
        label,
    };
    let check = |result: Option<EstimateError>, message: &str| {
        assert_eq!(result.map(|error| error.to_string()).as_deref(), Some(message));
    };
    let binary = |rows: &[LabelledScore], size| BinaryEstimator::fit(rows, size).err();
    check(binary(&[], 10), "the reference has no rows: give rows whose labels are known");
    check(binary(&[row(0.5)], 0), "`chunk_size` is 0: give the number of rows in a chunk");
    check(
        binary(&[row(0.5), row(f64::NAN)], 1),
        "row 1 of the reference has a score that is not finite: leave it out",
    );
    let several = |rows: &[MulticlassReference], size| MulticlassEstimator::fit(rows, size).err();
    check(several(&[], 10), "the reference has no rows: give rows whose labels are known");
    for bad in [class(&[0.5, 0.5], 2), class(&[1.0], 0)] {
        check(
            several(&[class(&[0.5, 0.5], 0), bad], 10),
            "row 1 of the reference does not fit its 2 classes: give one score per class, and classes below 2",
        );
    }

    let estimator = BinaryEstimator::fit(&[row(0.5), row(0.6)], 10).unwrap();
    assert_eq!(estimator.bounds().roc_auc, None, "one class has no area");
    assert!(estimator.estimate(&[]).is_empty());
    let odd = [f64::NAN, f64::INFINITY, -1.0].map(|score| ScoredRow { score, predicted: true });
    assert_eq!(estimator.estimate(&odd)[0].metrics, PerMetric::default(), "these are no probabilities");
}

#[test]
fn an_error_model_gives_the_expected_loss() {
    let mut loss = ExpectedLoss::default();
    assert_eq!((loss.mae(), loss.rmse()), (None, None));
    for error in [1.0, 2.0, 2.0, f64::NAN, -1.0, f64::INFINITY] {
        loss.add(error);
    }
    assert_eq!((loss.rows(), loss.invalid()), (3, 3));
    assert_eq!((loss.mae(), loss.rmse()), (Some(5.0 / 3.0), Some(3.0_f64.sqrt())));
    let mut twice = loss.clone();
    twice.merge(&loss);
    assert_eq!((twice.rows(), twice.mae()), (6, loss.mae()));
}

#[test]
fn usual_values_are_within_three_deviations() {
    let check = |values: &[f64], expected: Option<(f64, f64)>| {
        let bounds = Bounds::of(values.iter().copied()).map(|bounds| (bounds.lower, bounds.upper));
        assert_eq!(bounds, expected, "{values:?}");
    };
    check(&[], None);
    check(&[f64::NAN], None);
    check(&[0.5, f64::NAN, 0.5], Some((0.5, 0.5)));
    check(&[0.25, 0.75], Some((0.0, 1.0)));
    check(&[0.4375, 0.5625], Some((0.3125, 0.6875)));
}
