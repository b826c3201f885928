//! Metrics of predictions whose labels are known.

use millstream_monitor::performance::{
    Accumulator, Average, BinaryMetrics, BinaryPrediction, MulticlassMetrics, MulticlassPrediction, Number,
    RegressionMetrics, ScoreHistogram, average_precision, roc_auc,
};
use serde_json::Value;

use super::{close, numbers, observed, oracle, whole};

#[test]
fn binary_metrics_are_those_of_scikit_learn() {
    let cases = realised_oracle("binary");
    assert_eq!(cases.len(), 9);
    for case in &cases {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expected"]);
        let pairs = binary_pairs(case);
        let metrics = observed(&BinaryMetrics::default(), &pairs);
        let confusion = metrics.confusion();
        let counts = [
            confusion.true_positives,
            confusion.false_positives,
            confusion.true_negatives,
            confusion.false_negatives,
        ];
        assert_eq!(counts.to_vec(), whole(&expected["confusion"]), "{name}");
        let rates = confusion.rates();
        let rows: Vec<_> = pairs.iter().map(|(prediction, label)| (prediction.probability, *label)).collect();
        for (metric, actual, tolerance) in [
            ("accuracy", rates.accuracy, 1e-12),
            ("precision", rates.precision, 1e-12),
            ("recall", rates.recall, 1e-12),
            ("f1", rates.f1, 1e-12),
            ("specificity", rates.specificity, 1e-12),
            ("log_loss", metrics.log_loss(), 1e-9),
            ("brier", metrics.brier(), 1e-9),
            ("ece", metrics.expected_calibration_error(), 1e-9),
            ("roc_auc", roc_auc(&rows), 1e-9),
            ("average_precision", average_precision(&rows), 1e-9),
            ("roc_auc", metrics.roc_auc(), 1e-3),
            ("average_precision", metrics.average_precision(), 1e-3),
        ] {
            close(actual, &expected[metric], tolerance, &format!("{name}, {metric}"));
        }
        let curve = metrics.calibration_curve();
        let (observed, predicted) = (numbers(&expected["observed"]), numbers(&expected["predicted"]));
        assert_eq!(curve.len(), observed.len(), "{name}");
        for ((point, observed), predicted) in curve.iter().zip(observed).zip(predicted) {
            assert!(
                (point.observed - observed).abs() < 1e-9 && (point.predicted - predicted).abs() < 1e-9,
                "{name}"
            );
        }
    }
}

#[test]
fn the_binned_area_is_off_by_no_more_than_it_says() {
    for case in &realised_oracle("binary") {
        let pairs = binary_pairs(case);
        let rows: Vec<_> = pairs.iter().map(|(prediction, label)| (prediction.probability, *label)).collect();
        let metrics = observed(&BinaryMetrics::default(), &pairs);
        let Some(exact) = roc_auc(&rows) else { continue };
        let (binned, error) = (metrics.roc_auc().unwrap(), metrics.scores().roc_auc_error().unwrap());
        assert!((binned - exact).abs() <= error + 1e-15, "{binned} {exact} {error}");
    }
    // All pairs in one bin: the exact area is 1, the binned one a half, and the bound says so.
    let mut scores = ScoreHistogram::default();
    scores.add(0.10001, false);
    scores.add(0.10002, true);
    assert_eq!((scores.roc_auc(), scores.roc_auc_error()), (Some(0.5), Some(0.5)));
}

#[test]
fn multiclass_metrics_are_those_of_scikit_learn() {
    let cases = realised_oracle("multiclass");
    assert_eq!(cases.len(), 4);
    for case in &cases {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expected"]);
        let classes = case["classes"].as_u64().unwrap() as u32;
        let rows = case["probabilities"].as_array().unwrap();
        let (predicted, labels) = (whole(&case["predicted"]), whole(&case["label"]));
        let pair = |row: usize| {
            let probabilities = rows.get(row).map(numbers).unwrap_or_default();
            (MulticlassPrediction { class: predicted[row] as u32, probabilities }, labels[row] as u32)
        };
        let pairs: Vec<_> = (0..labels.len()).map(pair).collect();
        let metrics = observed(&MulticlassMetrics::new(classes), &pairs);
        for (label, row) in expected["confusion"].as_array().unwrap().iter().enumerate() {
            for (class, &count) in whole(row).iter().enumerate() {
                assert_eq!(metrics.pairs(label as u32, class as u32), count, "{name}");
            }
        }
        for (metric, actual, tolerance) in [
            ("accuracy", metrics.accuracy(), 1e-12),
            ("precision_macro", metrics.precision(Average::Macro), 1e-12),
            ("recall_macro", metrics.recall(Average::Macro), 1e-12),
            ("f1_macro", metrics.f1(Average::Macro), 1e-12),
            ("precision_weighted", metrics.precision(Average::Weighted), 1e-12),
            ("recall_weighted", metrics.recall(Average::Weighted), 1e-12),
            ("f1_weighted", metrics.f1(Average::Weighted), 1e-12),
            ("log_loss", metrics.log_loss(), 1e-9),
            ("roc_auc", metrics.roc_auc(), 1e-3),
        ] {
            close(actual, &expected[metric], tolerance, &format!("{name}, {metric}"));
        }
    }
}

#[test]
fn regression_metrics_are_those_of_scikit_learn() {
    let cases = realised_oracle("regression");
    assert_eq!(cases.len(), 7);
    for case in &cases {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expected"]);
        let pairs: Vec<_> = numbers(&case["prediction"])
            .into_iter()
            .zip(numbers(&case["label"]))
            .map(|(prediction, label)| (Number(prediction), Number(label)))
            .collect();
        let metrics = observed(&RegressionMetrics::default(), &pairs);
        for (metric, actual) in [
            ("mae", metrics.mae()),
            ("mse", metrics.mse()),
            ("rmse", metrics.rmse()),
            ("mape", metrics.mape()),
            ("rmsle", metrics.rmsle()),
            ("r2", metrics.r2()),
        ] {
            close(actual, &expected[metric], 1e-9, &format!("{name}, {metric}"));
        }
    }
}

#[test]
fn values_that_are_no_numbers_are_counted_and_left_out() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5, 1.5];
    let mut binary = BinaryMetrics::default();
    let mut multiclass = MulticlassMetrics::new(2);
    let mut regression = RegressionMetrics::default();
    for probability in odd {
        binary.observe(&BinaryPrediction { positive: true, probability }, true);
        multiclass.observe(&MulticlassPrediction { class: 0, probabilities: vec![probability, 0.5] }, 0);
        regression.observe(&Number(probability), Number(f64::NAN));
    }
    multiclass.observe(&MulticlassPrediction { class: 2, probabilities: Vec::new() }, 0);
    assert_eq!((binary.unscored(), binary.confusion().true_positives, binary.log_loss()), (5, 5, None));
    assert_eq!((multiclass.unscored(), multiclass.invalid(), multiclass.accuracy()), (5, 1, Some(1.0)));
    assert_eq!((regression.invalid(), regression.pairs(), regression.r2()), (5, 0, None));

    regression.observe(&Number(f64::MAX), Number(f64::MIN));
    regression.observe(&Number(1.0), Number(f64::MIN));
    assert_eq!(regression.invalid(), 6, "the difference is beyond f64");
    assert_eq!(
        (regression.pairs(), regression.mse(), regression.r2()),
        (1, None, None),
        "its square is, too"
    );
}

#[test]
fn labels_of_zero_have_no_relative_error() {
    let pairs = [(Number(1.0), Number(0.0)), (Number(3.0), Number(2.0))];
    let metrics = observed(&RegressionMetrics::default(), &pairs);
    assert_eq!((metrics.mape(), metrics.zero_labels()), (Some(0.5), 1));
    let zero = observed(&RegressionMetrics::default(), &pairs[..1]);
    assert_eq!(zero.mape(), None);
}

#[test]
fn labels_without_spread_have_no_variance_to_explain() {
    // A tenth is no binary fraction: means and squares of it round.
    let check = |prediction: f64, expected| {
        let pairs: Vec<_> = (0..7).map(|_| (Number(prediction), Number(0.1))).collect();
        assert_eq!(observed(&RegressionMetrics::default(), &pairs).r2(), Some(expected));
    };
    check(0.1, 1.0);
    check(0.2, 0.0);
}

fn realised_oracle(kind: &str) -> Vec<Value> {
    oracle(include_str!("../oracles/performance_metrics.json"))[kind].as_array().unwrap().clone()
}

fn binary_pairs(case: &Value) -> Vec<(BinaryPrediction, bool)> {
    let labels = whole(&case["label"]);
    let pair =
        |(probability, label)| (BinaryPrediction { positive: probability >= 0.5, probability }, label == 1);
    numbers(&case["probability"]).into_iter().zip(labels).map(pair).collect()
}
