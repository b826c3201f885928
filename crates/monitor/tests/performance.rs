//! Realised and estimated performance against scikit-learn and NannyML, and the join of delayed labels.
//! `oracles/performance.py` makes the expected values.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::fmt::Debug;

use millstream_monitor::performance::{
    Accumulator, Average, BinaryEstimator, BinaryMetrics, BinaryPrediction, Bounds, Calibrator,
    ChunkEstimate, EstimateError, ExactSum, ExpectedLoss, ExpectedMetrics, ExpectedMulticlass, Isotonic,
    JoinConfig, JoinError, LabelJoin, LabelReply, LabelledScore, MeasureMetrics, MulticlassEstimator,
    MulticlassMetrics, MulticlassPrediction, MulticlassReference, MulticlassRow, Number, PerMetric,
    PredictReply, RegressionMetrics, ScoreHistogram, ScoredRow, UnitSum, average_precision,
    needs_calibration, roc_auc,
};
use proptest::prelude::*;
use serde_json::Value;

fn oracle(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn realised_oracle(kind: &str) -> Vec<Value> {
    oracle(include_str!("oracles/performance_metrics.json"))[kind].as_array().unwrap().clone()
}

fn estimate_oracle() -> Value {
    oracle(include_str!("oracles/performance_cbpe.json"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn whole(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
}

/// Compares relative to the size of the expected value, where that is above 1.
#[track_caller]
fn close(actual: Option<f64>, expected: &Value, tolerance: f64, what: &str) {
    match (actual, expected.as_f64()) {
        (None, None) => assert!(expected.is_null(), "{what}: no such value"),
        (Some(actual), Some(expected)) => {
            let off = (actual - expected).abs() / expected.abs().max(1.0);
            assert!(off <= tolerance, "{what}: {actual} is not {expected}");
        }
        (actual, expected) => panic!("{what}: {actual:?} is not {expected:?}"),
    }
}

fn observed<A: Accumulator>(empty: &A, pairs: &[(A::Prediction, A::Label)]) -> A {
    let mut metrics = empty.clone();
    for (prediction, label) in pairs {
        metrics.observe(prediction, *label);
    }
    metrics
}

fn binary_pairs(case: &Value) -> Vec<(BinaryPrediction, bool)> {
    let labels = whole(&case["label"]);
    let pair =
        |(probability, label)| (BinaryPrediction { positive: probability >= 0.5, probability }, label == 1);
    numbers(&case["probability"]).into_iter().zip(labels).map(pair).collect()
}

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

/// What every accumulator promises, of any pairs.
fn check_accumulator<A: Accumulator + PartialEq>(
    empty: &A,
    pairs: &[(A::Prediction, A::Label)],
    split: usize,
    extra: &[(A::Prediction, A::Label)],
) {
    let whole = observed(empty, pairs);
    let reversed: Vec<_> = pairs.iter().rev().cloned().collect();
    assert_eq!(observed(empty, &reversed), whole, "the order does not matter");

    let (left, right) = pairs.split_at(split.min(pairs.len()));
    let mut merged = observed(empty, left);
    merged.merge(&observed(empty, right));
    assert_eq!(merged, whole, "two replicas are one");

    let mut changed = whole.clone();
    for (prediction, label) in extra {
        changed.observe(prediction, *label);
    }
    for (prediction, label) in extra {
        changed.forget(prediction, *label);
    }
    assert_eq!(changed, whole, "what is forgotten has never been");
}

fn any_probability() -> impl Strategy<Value = f64> {
    prop_oneof![8 => 0.0..=1.0, 1 => Just(0.0), 1 => Just(1.0), 1 => any::<f64>()]
}

fn any_binary() -> impl Strategy<Value = Vec<(BinaryPrediction, bool)>> {
    let prediction = (any::<bool>(), any_probability());
    let prediction =
        prediction.prop_map(|(positive, probability)| BinaryPrediction { positive, probability });
    prop::collection::vec((prediction, any::<bool>()), 0..40)
}

fn any_multiclass() -> impl Strategy<Value = Vec<(MulticlassPrediction, u32)>> {
    let prediction = (0_u32..5, prop::collection::vec(any_probability(), 0..=4));
    let prediction =
        prediction.prop_map(|(class, probabilities)| MulticlassPrediction { class, probabilities });
    prop::collection::vec((prediction, 0_u32..5), 0..40)
}

fn any_regression() -> impl Strategy<Value = Vec<(Number, Number)>> {
    let value = || prop_oneof![3 => -1e3..1e3, 1 => any::<f64>(), 1 => Just(0.0)].prop_map(Number);
    prop::collection::vec((value(), value()), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn binary_accumulators_are_exact(pairs in any_binary(), split in 0_usize..40, extra in any_binary()) {
        check_accumulator(&BinaryMetrics::default(), &pairs, split, &extra);
    }

    #[test]
    fn multiclass_accumulators_are_exact(pairs in any_multiclass(), split in 0_usize..40, extra in any_multiclass()) {
        check_accumulator(&MulticlassMetrics::new(4), &pairs, split, &extra);
    }

    #[test]
    fn regression_accumulators_are_exact(pairs in any_regression(), split in 0_usize..40, extra in any_regression()) {
        check_accumulator(&RegressionMetrics::default(), &pairs, split, &extra);
    }

    #[test]
    fn measures_are_exact(pairs in any_regression(), split in 0_usize..40, extra in any_regression()) {
        let values = |pairs: Vec<(Number, Number)>| -> Vec<((), Number)> {
            pairs.into_iter().map(|(_, value)| ((), value)).collect()
        };
        check_accumulator(&MeasureMetrics::default(), &values(pairs), split, &values(extra));
    }

    /// Integers of 128 bits times a power of two are a sum that needs no rounding.
    #[test]
    fn an_exact_sum_rounds_once(terms in prop::collection::vec((any::<i32>(), 0_u32..60), 0..50)) {
        let mut sum = ExactSum::default();
        let mut exact = 0_i128;
        for (mantissa, power) in terms {
            sum.add(f64::from(mantissa) * 2.0_f64.powi(power as i32 - 30));
            exact += i128::from(mantissa) << power;
        }
        let expected = exact as f64 / 2.0_f64.powi(30);
        prop_assert!((sum.value() - expected).abs() <= expected.abs() * f64::EPSILON);
    }

    #[test]
    fn a_sum_of_any_terms_survives_a_file(terms in prop::collection::vec(any::<f64>(), 0..20)) {
        let mut sum = ExactSum::default();
        for term in terms {
            sum.add(term);
        }
        let read: ExactSum = serde_json::from_str(&serde_json::to_string(&sum).unwrap()).unwrap();
        prop_assert_eq!(read, sum);
    }
}

#[test]
fn an_exact_sum_holds_the_whole_range() {
    let check = |terms: &[f64], expected: f64| {
        let mut sum = ExactSum::default();
        for &term in terms {
            sum.add(term);
        }
        assert_eq!(sum.value(), expected, "{terms:?}");
    };
    check(&[], 0.0);
    check(&[-0.0], 0.0);
    check(&[f64::MIN_POSITIVE / 4.0], f64::MIN_POSITIVE / 4.0);
    check(&[5e-324, 5e-324], 1e-323);
    check(&[f64::MAX, 1.0, -f64::MAX], 1.0);
    check(&[f64::MAX, f64::MAX], f64::INFINITY);
    check(&[1.0, 1e-20, -1.0], 1e-20);
    check(&[1e300, 1e-300, -1e300], 1e-300);

    let mut sum = ExactSum::default();
    sum.add(f64::INFINITY);
    assert!(sum.value().is_nan());
    sum.subtract(f64::INFINITY);
    assert_eq!(sum, ExactSum::default());
}

#[test]
fn a_unit_sum_cuts_each_term_once() {
    let mut sum = UnitSum::default();
    for term in [0.1, 0.2, f64::NAN, 2.0, -1.0] {
        sum.add(term);
    }
    assert!((sum.value() - 1.3).abs() < 1e-15);
    sum.subtract(2.0);
    sum.subtract(0.2);
    sum.subtract(0.1);
    assert_eq!(sum, UnitSum::default());
}

const MINUTE: i64 = 60_000_000;

fn join(change: impl FnOnce(&mut JoinConfig)) -> LabelJoin<BinaryMetrics> {
    let mut config = JoinConfig::new(MINUTE, 10 * MINUTE);
    change(&mut config);
    LabelJoin::new(BinaryMetrics::default(), config, 0).unwrap()
}

fn sure() -> BinaryPrediction {
    BinaryPrediction { positive: true, probability: 0.9 }
}

/// (Predictions, labelled, true positives, false positives, version) of the open window that starts at `start`.
fn window_at(join: &LabelJoin<BinaryMetrics>, start: i64) -> (u64, u64, u64, u64, u64) {
    let window = join.open_windows().find(|window| window.start() == start).unwrap();
    let total = window.total();
    let confusion = total.metrics.confusion();
    (total.predictions, total.labelled, confusion.true_positives, confusion.false_positives, window.version())
}

#[test]
fn labels_find_their_predictions() {
    use LabelReply::*;
    let mut join = join(|_| {});
    assert_eq!(join.predict("a", MINUTE + 1, "s", sure()), PredictReply::Added);
    // (id, date, label, reply), one after the other.
    for (id, at, label, reply) in [
        ("a", 2 * MINUTE, true, Joined),
        ("a", 2 * MINUTE, true, Repeated),
        ("a", MINUTE, false, Repeated),
        ("a", 3 * MINUTE, false, Corrected),
        ("a", 3 * MINUTE, true, Corrected),
        ("a", 3 * MINUTE, false, Repeated),
        ("a", 4 * MINUTE, true, Repeated),
        ("b", 2 * MINUTE, false, Waiting),
        ("b", 2 * MINUTE, false, Repeated),
        ("c", 11 * MINUTE, true, TooEarly),
    ] {
        assert_eq!(join.label(id, at, label), reply, "{id} {at} {label}");
    }
    assert_eq!(window_at(&join, MINUTE), (1, 1, 1, 0, 2));
    assert_eq!(join.predict("b", MINUTE, "s", sure()), PredictReply::Joined);
    assert_eq!(window_at(&join, MINUTE), (2, 2, 1, 1, 2));
    assert_eq!(join.predict("a", MINUTE, "s", sure()), PredictReply::Repeated);

    let counts = join.counts();
    assert_eq!((counts.predictions, counts.predictions_repeated), (2, 1));
    assert_eq!((counts.joined, counts.corrected, counts.labels_repeated), (2, 2, 5));
    assert_eq!((counts.labels_too_early, counts.unknown, join.waiting_labels()), (1, 0, 0));
    // `a` after three minutes less a microsecond, `b` after exactly one.
    assert_eq!(join.delays().counts(), [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn lateness_is_judged_by_dates_and_by_the_closing_of_windows() {
    use LabelReply::*;
    let mut join = join(|_| {});
    join.predict("a", 0, "s", sure());
    join.predict("b", 0, "s", sure());
    join.predict("c", 0, "s", sure());
    join.advance(MINUTE);
    assert_eq!(join.label("a", 10 * MINUTE + 1, true), TooLate);
    assert_eq!(join.label("a", 10 * MINUTE, true), Joined);
    // The window ends after one minute and closes ten minutes later.
    join.advance(11 * MINUTE);
    assert_eq!(join.label("b", MINUTE, true), Joined);
    join.advance(11 * MINUTE + 1);
    assert_eq!(join.label("c", MINUTE, true), TooLate);
    assert_eq!(join.open_windows().len(), 0);
    assert_eq!(join.label("a", -20 * MINUTE, true), TooEarly);

    let closed = join.take_closed();
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].start(), closed[0].total().predictions, closed[0].total().labelled), (0, 3, 2));
    assert!(join.take_closed().is_empty());

    // Predictions are remembered for 22 minutes.
    join.advance(22 * MINUTE);
    assert_eq!(join.label("c", 12 * MINUTE, true), TooLate);
    join.advance(22 * MINUTE + 1);
    assert_eq!(join.held_predictions(), 0);
    assert_eq!(join.label("c", MINUTE, true), Unknown);
    assert_eq!((join.counts().unlabelled, join.counts().labels_too_late, join.counts().unknown), (1, 3, 1));

    assert_eq!(join.predict("d", 12 * MINUTE, "s", sure()), PredictReply::TooLate);
    assert_eq!(join.predict("d", 33 * MINUTE, "s", sure()), PredictReply::TooEarly);
    assert_eq!(join.predict(&"x".repeat(257), 20 * MINUTE, "s", sure()), PredictReply::Refused);
    assert_eq!(join.open_windows().len(), 0);
}

#[test]
fn the_clock_never_goes_back() {
    let mut join = join(|_| {});
    join.advance(100 * MINUTE);
    join.advance(0);
    assert_eq!(join.predict("a", 0, "s", sure()), PredictReply::TooLate);
    join.advance(i64::MAX);
    assert_eq!(join.predict("a", i64::MIN, "s", sure()), PredictReply::TooLate);
    assert_eq!(join.predict("a", i64::MAX, "s", sure()), PredictReply::Added);
    assert_eq!(join.label("a", i64::MAX, true), LabelReply::Joined);
    assert_eq!(join.label("b", i64::MIN, true), LabelReply::Unknown);
}

#[test]
fn a_label_whose_prediction_never_comes_is_unknown() {
    let mut join = join(|_| {});
    assert_eq!(join.label("a", 5, true), LabelReply::Waiting);
    join.advance(20 * MINUTE + 5);
    assert_eq!((join.waiting_labels(), join.counts().unknown), (1, 0));
    join.advance(20 * MINUTE + 6);
    assert_eq!((join.waiting_labels(), join.counts().unknown), (0, 1));
}

#[test]
fn full_tables_give_up_the_oldest() {
    let mut join = join(|config| {
        config.capacity = 2;
        config.waiting = 2;
    });
    for (id, at) in [("b", 2), ("a", 1), ("c", 3)] {
        assert_eq!(join.predict(id, at, "s", sure()), PredictReply::Added);
    }
    assert_eq!((join.held_predictions(), join.counts().evicted), (2, 1));
    assert_eq!(join.label("b", 9, true), LabelReply::Joined);
    join.predict("d", 4, "s", sure());
    assert_eq!((join.counts().evicted, join.counts().evicted_labelled), (1, 1));
    assert_eq!(window_at(&join, 0), (4, 1, 1, 0, 0), "what is evicted still counts");

    assert_eq!(join.label("x", 7, true), LabelReply::Waiting);
    assert_eq!(join.label("y", 6, true), LabelReply::Waiting);
    assert_eq!(join.label("z", 5, true), LabelReply::Unknown, "it is the oldest itself");
    assert_eq!(join.label("z", 8, true), LabelReply::Waiting);
    assert_eq!((join.waiting_labels(), join.counts().waiting_evicted, join.counts().unknown), (2, 1, 1));
}

#[test]
fn windows_that_nobody_takes_are_dropped() {
    let mut join = join(|config| config.closed_windows = 2);
    for minute in 0..5 {
        join.predict(&minute.to_string(), minute * MINUTE, "s", sure());
    }
    join.advance(60 * MINUTE);
    assert_eq!(join.counts().windows_dropped, 3);
    let starts: Vec<_> = join.take_closed().iter().map(|window| window.start()).collect();
    assert_eq!(starts, [3 * MINUTE, 4 * MINUTE]);
}

#[test]
fn segments_beyond_the_cap_are_counted_together() {
    let fed = |names: &[&str]| {
        let mut join = join(|config| config.segments = 2);
        for (index, name) in names.iter().enumerate() {
            let id = format!("{name}{}", names[..index].iter().filter(|n| *n == name).count());
            join.predict(&id, 5, name, sure());
            join.label(&id, 6, *name < "c");
        }
        join.open_windows().next().unwrap().clone()
    };
    let window = fed(&["d", "c", "a", "d", "b", "a"]);
    let kept: Vec<_> = window.segments().map(|(name, segment)| (name, segment.predictions)).collect();
    assert_eq!(kept, [("a", 2), ("b", 1)]);
    assert_eq!((window.other().predictions, window.other().metrics.confusion().false_positives), (3, 3));
    assert_eq!(window.total().labelled, 6);
    assert_eq!(fed(&["a", "a", "b", "c", "d", "d"]), window);

    let none = LabelJoin::new(
        BinaryMetrics::default(),
        JoinConfig { segments: 0, ..JoinConfig::new(MINUTE, MINUTE) },
        0,
    );
    let mut none = none.unwrap();
    none.predict("a", 0, "s", sure());
    assert_eq!(none.open_windows().next().unwrap().other().predictions, 1);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let good = JoinConfig::new(MINUTE, MINUTE);
    for (config, message) in [
        (JoinConfig { window: 0, ..good.clone() }, "`window` is 0 us: give a length of time above 0"),
        (JoinConfig { lateness: -1, ..good.clone() }, "`lateness` is -1 us: give a length of time above 0"),
        (
            JoinConfig { memory: 0, ..good.clone() },
            "`memory` is 0 us: give at least `window + lateness`, 120000000 us",
        ),
        (
            JoinConfig::new(1, MINUTE),
            "`lateness` of 60000000 us spans more than 10000 windows of 1 us: give longer windows",
        ),
    ] {
        let error: JoinError = LabelJoin::new(BinaryMetrics::default(), config, 0).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Predict { id: u8, at: i64, segment: u8, prediction: BinaryPrediction },
    Label { id: u8, at: i64, label: bool },
}

/// Predictions with unique ids, and up to three labels for each, dated so that every order has them in time.
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let label = (-3 * MINUTE..12 * MINUTE, any::<bool>());
    let one = (0..5 * MINUTE, 0_u8..5, any::<bool>(), any_probability(), prop::collection::vec(label, 0..4));
    prop::collection::vec(one, 0..20).prop_map(|rows| {
        let mut events = Vec::new();
        for (id, (at, segment, positive, probability, labels)) in (0..).zip(rows) {
            events.push(Event::Predict {
                id,
                at,
                segment,
                prediction: BinaryPrediction { positive, probability },
            });
            events.extend(labels.into_iter().map(|(delay, label)| Event::Label {
                id,
                at: at + delay,
                label,
            }));
        }
        events
    })
}

fn feed(join: &mut LabelJoin<BinaryMetrics>, event: &Event) {
    match event {
        Event::Predict { id, at, segment, prediction } => {
            join.predict(&id.to_string(), *at, &segment.to_string(), *prediction);
        }
        Event::Label { id, at, label } => {
            join.label(&id.to_string(), *at, *label);
        }
    }
}

/// Windows as the order of events must not change them: all but the version.
fn contents(join: &LabelJoin<BinaryMetrics>) -> Vec<String> {
    let window = |window: &millstream_monitor::performance::Window<BinaryMetrics>| {
        let mut json = serde_json::to_value(window).unwrap();
        assert!(json.as_object_mut().unwrap().remove("version").is_some());
        json.to_string()
    };
    join.open_windows().map(window).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_predictions_and_labels_gives_equal_windows(
        (events, shuffled) in any_events().prop_flat_map(|events| {
            (Just(events.clone()), Just(events).prop_shuffle())
        }),
        restart in 0_usize..80,
    ) {
        let cap = |config: &mut JoinConfig| config.segments = 3;
        let (mut straight, mut other) = (join(cap), join(cap));
        straight.advance(7 * MINUTE);
        for event in &events {
            feed(&mut straight, event);
        }
        other.advance(7 * MINUTE);
        for (index, event) in shuffled.iter().enumerate() {
            if index == restart {
                let file = serde_json::to_string(&other.state()).unwrap();
                other = LabelJoin::restore(serde_json::from_str(&file).unwrap()).unwrap();
            }
            feed(&mut other, event);
        }
        prop_assert_eq!(contents(&straight), contents(&other));
        prop_assert_eq!(straight.delays(), other.delays());
        prop_assert_eq!(straight.counts().joined, other.counts().joined);

        // And equal to what is true of each prediction in the end, without any table.
        let mut total = BinaryMetrics::default();
        for event in &events {
            let Event::Predict { id, at, prediction, .. } = event else { continue };
            let labels = events.iter().filter_map(|event| match event {
                Event::Label { id: of, at: dated, label }
                    if of == id && (dated - at).abs() <= 10 * MINUTE && *dated <= 17 * MINUTE =>
                {
                    Some((*dated, *label))
                }
                _ => None,
            });
            if let Some((_, label)) = labels.max() {
                total.observe(prediction, label);
            }
        }
        let mut joined = BinaryMetrics::default();
        for window in straight.open_windows() {
            joined.merge(&window.total().metrics);
        }
        prop_assert_eq!(joined, total);
    }

    #[test]
    fn no_input_breaks_a_join(
        events in prop::collection::vec((any::<bool>(), 0_u8..6, any::<i64>(), any::<bool>(), any::<i64>()), 0..40),
    ) {
        let mut join = join(|config| {
            config.capacity = 3;
            config.waiting = 2;
            config.segments = 1;
        });
        for (predict, id, at, label, now) in events {
            let at = if label { at } else { at % (20 * MINUTE) };
            if predict {
                join.predict(&id.to_string(), at, "s", BinaryPrediction { positive: label, probability: 0.5 });
            } else {
                join.label(&id.to_string(), at, label);
            }
            join.advance(now % (30 * MINUTE));
            prop_assert!(join.held_predictions() <= 3 && join.waiting_labels() <= 2);
            prop_assert!(join.open_windows().len() <= 33);
        }
    }
}

#[test]
fn other_kinds_of_metrics_survive_a_restart_too() {
    fn check<A>(empty: A, rows: &[(A::Prediction, A::Label)])
    where
        A: Accumulator + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
        A::Prediction: serde::Serialize + serde::de::DeserializeOwned,
        A::Label: serde::Serialize + serde::de::DeserializeOwned,
    {
        let mut join = LabelJoin::new(empty, JoinConfig::new(MINUTE, MINUTE), 0).unwrap();
        for (index, (prediction, label)) in rows.iter().enumerate() {
            join.predict(&index.to_string(), 1, "s", prediction.clone());
            join.label(&index.to_string(), 2, *label);
            join.label(&format!("waiting {index}"), 2, *label);
        }
        let file = serde_json::to_string(&join.state()).unwrap();
        let read = LabelJoin::<A>::restore(serde_json::from_str(&file).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&read.state()).unwrap(), file);
        assert_eq!(read.waiting_labels(), rows.len());
    }
    check(
        RegressionMetrics::default(),
        &[(Number(1.0), Number(2.0)), (Number(f64::NAN), Number(f64::INFINITY))],
    );
    let of = |class, probabilities| MulticlassPrediction { class, probabilities };
    check(
        MulticlassMetrics::new(2),
        &[(of(0, vec![0.6, 0.4]), 1), (of(1, vec![f64::NAN, 0.4]), 1), (of(0, vec![]), 0)],
    );
}

#[test]
fn windows_of_two_replicas_are_one() {
    let fed = |ids: std::ops::Range<u32>| {
        let mut join = join(|config| config.segments = 2);
        for id in ids {
            let segment = ["c", "a", "b"][id as usize % 3];
            join.predict(&id.to_string(), 1, segment, sure());
            join.label(&id.to_string(), 2, id % 4 == 0);
        }
        join.open_windows().next().unwrap().clone()
    };
    let mut merged = fed(0..1);
    merged.merge(&fed(1..20), 2, &BinaryMetrics::default());
    assert_eq!(merged, fed(0..20));
}

/// The greatest distance that a metric may have from NannyML's, which rounds its sums of ranks to 5 digits.
const ESTIMATE: f64 = 1e-6;

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

#[test]
fn only_scores_that_are_off_need_calibration() {
    let rows = |truth: fn(f64) -> f64| -> Vec<(f64, bool)> {
        // Of each hundred rows with one score, the share that is due is positive.
        let of = |i: u32, j: u32| (f64::from(i) / 50.0, f64::from(j) < truth(f64::from(i) / 50.0) * 100.0);
        (1..50).flat_map(|i| (0..100).map(move |j| of(i, j))).collect()
    };
    assert!(!needs_calibration(&[]));
    assert!(!needs_calibration(&[(0.5, true); 30]), "one class");
    assert!(!needs_calibration(&rows(|score| f64::from(u8::from(score > 0.5)))), "perfect ranks");
    assert!(needs_calibration(&rows(|score| score * score)), "too high");
    assert!(needs_calibration(&rows(|score| score.sqrt())), "too low");
}

#[test]
fn isotonic_regression_pools_what_falls() {
    let check = |rows: &[(f64, bool)], points: &[(f64, f64)]| {
        let isotonic = Isotonic::fit(rows).unwrap();
        for &(score, expected) in points {
            let actual = isotonic.calibrate(score);
            assert!((actual - expected).abs() < 1e-12, "{score}: {actual} is not {expected}");
        }
    };
    let (no, yes) = (false, true);
    check(&[(0.5, yes)], &[(0.0, 1.0), (0.5, 1.0), (1.0, 1.0)]);
    check(&[(0.2, yes), (0.8, no)], &[(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]);
    check(&[(0.2, no), (0.8, yes)], &[(0.1, 0.0), (0.35, 0.25), (0.5, 0.5), (0.9, 1.0)]);
    check(
        &[(0.5, yes), (0.5, no), (0.5, no), (0.5, no), (0.9, yes)],
        &[(0.5, 0.25), (0.7, 0.625), (0.9, 1.0)],
    );
    check(
        &[(f64::NEG_INFINITY, yes), (0.5, no), (f64::NAN, yes)],
        &[(f64::NEG_INFINITY, 0.0), (f64::INFINITY, 0.0)],
    );
    assert_eq!(Isotonic::fit(&[]), None);
    assert_eq!(Isotonic::fit(&[(f64::NAN, yes)]), None);
    assert!(Isotonic::fit(&[(0.5, yes)]).unwrap().calibrate(f64::NAN).is_nan());
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

#[test]
fn accumulators_can_be_sent_and_shown() {
    fn check<T: Send + Sync + Debug>(_: &T) {}
    check(&BinaryMetrics::default());
    check(&MulticlassMetrics::new(3));
    check(&MeasureMetrics::default());
    check(&RegressionMetrics::default());
    check(&join(|_| {}));
}
