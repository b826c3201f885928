//! What accumulators and their sums promise: no order of rows, and no number of replicas, changes a bit of them.

use std::fmt::Debug;

use millstream_monitor::performance::{
    Accumulator, BinaryMetrics, BinaryPrediction, ExactSum, MeasureMetrics, MulticlassMetrics,
    MulticlassPrediction, Number, RegressionMetrics, UnitSum,
};
use proptest::prelude::*;

use super::{any_probability, join::join, observed};

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

#[test]
fn accumulators_can_be_sent_and_shown() {
    fn check<T: Send + Sync + Debug>(_: &T) {}
    check(&BinaryMetrics::default());
    check(&MulticlassMetrics::new(3));
    check(&MeasureMetrics::default());
    check(&RegressionMetrics::default());
    check(&join(|_| {}));
}
