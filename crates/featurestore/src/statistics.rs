//! What the values of a numeric feature look like.

/// Count, extremes, mean and spread of a numeric feature over all rows of a set.
///
/// Values that are not finite count as `not_finite` and are left out of everything else: one NaN must not turn the mean
/// that replaces missing values into NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Finite values.
    pub count: u64,
    /// Rows where the feature is null.
    pub nulls: u64,
    /// NaN and infinite values.
    pub not_finite: u64,
    /// The smallest value; `None` without values.
    pub min: Option<f64>,
    /// The largest value; `None` without values.
    pub max: Option<f64>,
    /// The mean; `None` without values.
    pub mean: Option<f64>,
    /// The sample standard deviation; `None` with fewer than two values.
    pub std: Option<f64>,
}

/// First pass: counts, extremes, and a sum whose rounding errors are carried along (Neumaier).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    nulls: u64,
    not_finite: u64,
    count: u64,
    min: f64,
    max: f64,
    sum: f64,
    lost: f64,
    /// The mean by itself, kept for sums that overflow.
    running: f64,
}

/// Second pass: deviations from the mean. Squares of deviations, not of values, so that a small spread around a large
/// mean is not lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deviations {
    sums: Sums,
    mean: f64,
    squares: f64,
    rest: f64,
}

impl Sums {
    pub(crate) fn new() -> Self {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { nulls: 0, not_finite: 0, count: 0, min, max, sum: 0.0, lost: 0.0, running: 0.0 }
    }

    pub(crate) fn null(&mut self) {
        self.nulls += 1;
    }

    pub(crate) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let count = self.count as f64;
        self.running += value / count - self.running / count;
        let sum = self.sum + value;
        self.lost +=
            if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
    }

    pub(crate) fn deviations(self) -> Deviations {
        let total = self.sum + self.lost;
        let mean = if total.is_finite() { total / self.count.max(1) as f64 } else { self.running };
        Deviations { sums: self, mean, squares: 0.0, rest: 0.0 }
    }
}

impl Deviations {
    pub(crate) fn add(&mut self, value: f64) {
        if value.is_finite() {
            let deviation = value - self.mean;
            self.squares += deviation * deviation;
            self.rest += deviation;
        }
    }

    pub(crate) fn finish(self) -> Statistics {
        let Sums { nulls, not_finite, count, min, max, .. } = self.sums;
        let some = count > 0;
        let n = count as f64;
        // What the deviations sum to is the error of the mean; it is taken out of the squares (corrected two-pass).
        let variance = (self.squares - self.rest * self.rest / n.max(1.0)) / (n - 1.0);
        Statistics {
            count,
            nulls,
            not_finite,
            min: some.then_some(min),
            max: some.then_some(max),
            mean: some.then_some(self.mean.clamp(min, max.max(min))),
            std: (count > 1).then(|| variance.max(0.0).sqrt()),
        }
    }
}

/// The statistics of values in memory, null where `None`.
pub(crate) fn of(values: impl Iterator<Item = Option<f64>> + Clone) -> Statistics {
    let mut sums = Sums::new();
    values.clone().for_each(|value| match value {
        Some(value) => sums.add(value),
        None => sums.null(),
    });
    let mut deviations = sums.deviations();
    values.flatten().for_each(|value| deviations.add(value));
    deviations.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statistics(values: &[f64]) -> Statistics {
        of(values.iter().map(|&value| Some(value)))
    }

    #[test]
    fn a_small_spread_around_a_large_mean_is_kept() {
        let found = statistics(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
        assert_eq!((found.mean, found.std), (Some(1e9 + 10.0), Some(30.0_f64.sqrt())));
    }

    #[test]
    fn what_is_not_finite_or_null_is_counted_and_left_out() {
        let values = [Some(1.0), None, Some(f64::NAN), Some(3.0), Some(f64::INFINITY)];
        let found = of(values.into_iter());
        assert_eq!((found.count, found.nulls, found.not_finite), (2, 1, 2));
        assert_eq!((found.min, found.max, found.mean), (Some(1.0), Some(3.0), Some(2.0)));
    }

    #[test]
    fn without_values_there_is_no_mean_and_with_one_no_spread() {
        assert_eq!(of([None].into_iter()), Statistics { nulls: 1, ..Statistics::default() });
        assert_eq!((statistics(&[7.5]).mean, statistics(&[7.5]).std), (Some(7.5), None));
    }

    #[test]
    fn a_mean_whose_sum_overflows_is_still_a_mean() {
        assert_eq!(statistics(&[f64::MAX, f64::MAX]).mean, Some(f64::MAX));
    }

    proptest! {
        /// The oracle sums in 128-bit integers, which are exact for these values.
        #[test]
        fn mean_and_spread_equal_exact_arithmetic(
            offset in -1_000_000_000_000_i64..1_000_000_000_000,
            values in proptest::collection::vec(-1_000_000_i64..1_000_000, 2..200),
        ) {
            let exact: Vec<i128> = values.iter().map(|value| i128::from(value + offset)).collect();
            let n = exact.len() as i128;
            let sum: i128 = exact.iter().sum();
            let squares: i128 = exact.iter().map(|value| (value * n - sum).pow(2)).sum();
            let (mean, variance) = (sum as f64 / n as f64, squares as f64 / (n * n) as f64 / (n - 1) as f64);
            let found = statistics(&exact.iter().map(|&value| value as f64).collect::<Vec<_>>());
            prop_assert!((found.mean.unwrap() - mean).abs() <= mean.abs() * 1e-15);
            prop_assert!((found.std.unwrap() - variance.sqrt()).abs() <= variance.sqrt() * 1e-9);
        }
    }
}
