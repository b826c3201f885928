//! Mean and spread of a sample.

/// Values that are added one after the other; larger sums are made of two halves, so that rounding grows with the
/// logarithm of their number.
const BLOCK: usize = 128;

/// Sum by halves.
pub(super) fn sum(values: &[f64], of: impl Fn(f64) -> f64 + Copy) -> f64 {
    if values.len() <= BLOCK {
        return values.iter().map(|&value| of(value)).sum();
    }
    let (left, right) = values.split_at(values.len() / 2);
    sum(left, of) + sum(right, of)
}

/// Mean, 0 of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { sum(values, |value| value) / values.len() as f64 }
}

/// Population standard deviation (ddof 0), 0 of nothing.
pub(super) fn deviation(values: &[f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let mean = mean(values);
    (sum(values, |value| (value - mean) * (value - mean)) / values.len() as f64).sqrt()
}

/// Smallest and largest value.
pub(super) fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}
