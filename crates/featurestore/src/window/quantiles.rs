//! Quantiles from values rounded to eight binary digits.

/// How often each value occurs, when values are rounded to eight significant binary digits: a relative error of 1/256 at most.
///
/// Rounding keeps the order of values, so that a quantile of it is the quantile of the values, rounded: exact for whole numbers
/// up to 256 and for every other value of eight digits, the same for any order of arrival, and bounded by the number of
/// different roundings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quantiles {
    /// Rounded values, ascending, and how many there are of each; never none.
    counts: Vec<(i32, u64)>,
}

/// Digits kept after the first.
const DIGITS: u32 = 7;
/// The step of infinity.
const INFINITE: i32 = 0x7ff << DIGITS;

impl Quantiles {
    /// Adds a value, which is a number.
    pub(super) fn add(&mut self, value: f64) {
        self.add_many(step(value), 1);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|&(step, count)| self.add_many(step, count));
    }

    /// The value with a share of `thousandths` of all values at or below it: the nearest rank, rounded. `None` without values.
    pub(super) fn at(&self, thousandths: u16) -> Option<f64> {
        let total = self.counts.iter().fold(0_u64, |total, (_, count)| total.saturating_add(*count));
        let rank = (u128::from(total) * u128::from(thousandths)).div_ceil(1000).max(1);
        let mut below = 0_u128;
        self.counts.iter().find_map(|&(step, count)| {
            below += u128::from(count);
            (below >= rank).then(|| value(step))
        })
    }

    pub(super) fn counts(&self) -> &[(i32, u64)] {
        &self.counts
    }

    /// From what [`Quantiles::counts`] gave; `None` for what it never gives.
    pub(super) fn from_counts(counts: Vec<(i32, u64)>) -> Option<Self> {
        let ascending = counts.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let known =
            counts.iter().all(|&(step, count)| count > 0 && (-INFINITE - 1..=INFINITE).contains(&step));
        (ascending && known).then_some(Self { counts })
    }

    /// Bytes held outside the value itself.
    pub(super) fn heap(&self) -> usize {
        self.counts.capacity() * size_of::<(i32, u64)>()
    }

    fn add_many(&mut self, step: i32, count: u64) {
        match self.counts.binary_search_by_key(&step, |&(step, _)| step) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => self.counts.insert(at, (step, count)),
        }
    }
}

/// Which rounded value: steps have the order of values. Those below zero, and zero below zero, count down from -1.
fn step(value: f64) -> i32 {
    const CUT: u32 = 52 - DIGITS;
    let bits = value.abs().to_bits();
    let mut step = ((bits + (1 << (CUT - 1))) >> CUT) as i32;
    if value.is_finite() {
        step = step.min(INFINITE - 1);
    }
    if value.is_sign_negative() { -1 - step } else { step }
}

fn value(step: i32) -> f64 {
    let (negative, size) = if step < 0 { (true, -1 - step) } else { (false, step) };
    let value = f64::from_bits((size as u64) << (52 - DIGITS));
    if negative { -value } else { value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounding_keeps_eight_digits_and_the_order() {
        for exact in [
            0.0,
            -0.0,
            1.0,
            255.0,
            256.0,
            -7.0,
            0.5,
            1e300_f64.log2().exp2(),
            f64::INFINITY,
            f64::NEG_INFINITY,
        ] {
            let rounded = value(step(exact));
            assert!(rounded == exact || (rounded / exact - 1.0).abs() <= 1.0 / 256.0, "{exact} {rounded}");
        }
        assert_eq!(
            [257.0, 258.0, 259.0, -257.0].map(|value_| value(step(value_))),
            [258.0, 258.0, 260.0, -258.0]
        );
        assert!(value(step(f64::MAX)).is_finite());
        assert_eq!(value(step(-0.0)).to_bits(), (-0.0_f64).to_bits());
    }

    proptest! {
        #[test]
        fn a_quantile_is_the_nearest_rank_within_the_error(
            mut values in proptest::collection::vec(prop_oneof![-1e3..1e3, any::<f64>()], 1..60),
            thousandths in 1_u16..1000,
        ) {
            values.retain(|value: &f64| !value.is_nan());
            let mut quantiles = Quantiles::default();
            values.iter().for_each(|&value| quantiles.add(value));
            values.sort_by(f64::total_cmp);
            let rank = (values.len() as f64 * f64::from(thousandths) / 1000.0).ceil().max(1.0) as usize;
            let found = quantiles.at(thousandths);
            prop_assert_eq!(found.is_some(), !values.is_empty());
            if let Some(found) = found {
                let exact = values[rank - 1];
                // Below the smallest normal float the error is absolute.
                let allowed = (exact.abs() / 256.0).max(f64::MIN_POSITIVE);
                prop_assert!(found == exact || (found - exact).abs() <= allowed, "{} {}", found, exact);
            }
            prop_assert_eq!(Quantiles::from_counts(quantiles.counts().to_vec()), Some(quantiles));
        }
    }
}
