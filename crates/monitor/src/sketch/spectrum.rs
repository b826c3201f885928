//! Numbers by magnitude: a histogram that needs no reference, and sums that do not depend on the order of addition.

use serde::{Deserialize, Serialize};

use super::Merge;

/// Buckets that each power of two is divided into: a quantile is off by at most 1/64 of its value.
const BUCKETS: usize = 32;
/// The powers of two that have buckets: from 2^-128 up to, not including, 2^128. Others are counted, and nothing else.
const FIRST_EXPONENT: u64 = 1023 - 128;
const LAST_EXPONENT: u64 = 1023 + 127;
const MANTISSA_BITS: u32 = 52;
/// Bits of a value that enter its square: twice as many, times any number of rows, fit a sum of 128 bits.
const SQUARED_BITS: u32 = 42;

/// Counts and sums of finite numbers, by sign and power of two.
///
/// Everything in it is a whole number, so that [merging](Merge) is addition: parts of a stream, in whatever order they are
/// added, give the spectrum of the whole to the bit. It takes 0.3 KB for each power of two that values have, 0.2 MB at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spectrum {
    zeros: u64,
    /// Values whose magnitude is below or above what has buckets.
    outside: u64,
    /// By sign, the positive one first: a place that is computed is found sooner than a branch that cannot be foretold.
    halves: [Half; 2],
}

/// The pages of one sign, from the least power of two that occurred to the greatest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Half {
    first: u64,
    pages: Vec<Option<Box<Page>>>,
}

/// Values of one sign and power of two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    counts: [u64; BUCKETS],
    /// The sum of their significands, as whole numbers of 53 bits.
    sum: u128,
    /// The sum of their leading bits, and of the squares of those.
    leading: u128,
    squares: u128,
}

/// Values of one bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The least value of the bucket.
    pub from: f64,
    /// The values of the bucket are at most this, and less where it is not the bucket's own.
    pub to: f64,
    /// How many there are.
    pub count: u64,
}

impl Spectrum {
    /// Adds a finite number; others are ignored.
    #[inline]
    pub fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let exponent = (bits >> MANTISSA_BITS) & 0x7ff;
        if !(FIRST_EXPONENT..=LAST_EXPONENT).contains(&exponent) {
            return self.add_outside(value);
        }
        let half = &mut self.halves[(bits >> 63) as usize];
        match half.pages.get_mut(exponent.wrapping_sub(half.first) as usize) {
            Some(Some(page)) => page.add(bits),
            _ => half.page(exponent).add(bits),
        }
    }

    /// Adds finite numbers; others are ignored.
    pub fn add_all(&mut self, values: &[f64]) {
        values.iter().for_each(|value| self.add(*value));
    }

    #[cold]
    fn add_outside(&mut self, value: f64) {
        if value == 0.0 {
            self.zeros += 1;
        } else if value.is_finite() {
            self.outside += 1;
        }
    }

    /// How many numbers it has counted, those outside of its buckets included.
    pub fn count(&self) -> u64 {
        self.inside() + self.outside
    }

    /// How many numbers have a magnitude below 2^-128, zero apart, or from 2^128 on: they enter no bucket, mean or spread.
    pub fn outside(&self) -> u64 {
        self.outside
    }

    /// How many are zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    fn inside(&self) -> u64 {
        self.zeros + self.halves.iter().map(Half::count).sum::<u64>()
    }

    /// The mean; `None` without numbers.
    pub fn mean(&self) -> Option<f64> {
        let count = self.inside();
        let [positive, negative] = &self.halves;
        (count > 0).then(|| (positive.sum() - negative.sum()) / count as f64)
    }

    /// The standard deviation of the numbers as a population (divided by n); `None` without numbers.
    pub fn std(&self) -> Option<f64> {
        let mut whole = Moments { count: self.zeros as f64, mean: 0.0, squares: 0.0 };
        let [positive, negative] = &self.halves;
        for (half, sign) in [(negative, -1.0), (positive, 1.0)] {
            for (exponent, page) in half.used() {
                whole.merge(&page.moments(exponent, sign));
            }
        }
        (whole.count > 0.0).then(|| (whole.squares / whole.count).sqrt())
    }

    /// The buckets that have values, in ascending order. Zero is a bucket of its own.
    pub fn buckets(&self) -> Vec<Bucket> {
        let [positive, negative] = &self.halves;
        let mut buckets: Vec<Bucket> = negative.buckets().collect();
        buckets.reverse();
        for bucket in &mut buckets {
            *bucket = Bucket { from: -bucket.to, to: -bucket.from, count: bucket.count };
        }
        buckets.extend((self.zeros > 0).then_some(Bucket { from: 0.0, to: 0.0, count: self.zeros }));
        buckets.extend(positive.buckets());
        buckets
    }

    /// The value below which the share `q` of the numbers lies, by linear interpolation within its bucket; `None` without numbers.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let buckets = self.buckets();
        let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
        let rank = q.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        for bucket in &buckets {
            let count = bucket.count as f64;
            if below + count >= rank {
                return Some(
                    bucket.from + (bucket.to - bucket.from) * ((rank - below) / count).clamp(0.0, 1.0),
                );
            }
            below += count;
        }
        buckets.last().map(|bucket| bucket.to)
    }

    /// How many of the numbers lie in each part of the axis that `edges` cut, values at an edge above it. Buckets that an edge cuts
    /// are divided as if their values were spread evenly.
    pub fn rebin(&self, edges: &[f64]) -> Vec<f64> {
        let mut parts = vec![0.0; edges.len() + 1];
        for bucket in self.buckets() {
            let width = bucket.to - bucket.from;
            let mut part = edges.partition_point(|edge| *edge <= bucket.from);
            let mut from = bucket.from;
            while width > 0.0 && edges.get(part).is_some_and(|edge| *edge < bucket.to) {
                parts[part] += bucket.count as f64 * (edges[part] - from) / width;
                from = edges[part];
                part += 1;
            }
            let rest = if width > 0.0 { (bucket.to - from) / width } else { 1.0 };
            parts[part] += bucket.count as f64 * rest;
        }
        parts
    }
}

impl Merge for Spectrum {
    fn merge(&mut self, other: &Self) {
        self.zeros += other.zeros;
        self.outside += other.outside;
        self.halves.iter_mut().zip(&other.halves).for_each(|(half, other)| half.merge(other));
    }
}

impl Half {
    /// The page of a power of two. There is room from the least to the greatest that occurred, whichever came first.
    #[cold]
    fn page(&mut self, exponent: u64) -> &mut Page {
        if self.pages.is_empty() {
            self.first = exponent;
        }
        if exponent < self.first {
            let more = (self.first - exponent) as usize;
            self.pages.splice(0..0, std::iter::repeat_with(|| None).take(more));
            self.first = exponent;
        }
        let at = (exponent - self.first) as usize;
        if at >= self.pages.len() {
            self.pages.resize_with(at + 1, || None);
        }
        self.pages[at].get_or_insert_with(Box::default)
    }

    fn merge(&mut self, other: &Self) {
        for (exponent, page) in other.used() {
            self.page(exponent).merge(page);
        }
    }

    fn used(&self) -> impl Iterator<Item = (u64, &Page)> {
        (self.first..).zip(&self.pages).filter_map(|(exponent, page)| Some((exponent, page.as_deref()?)))
    }

    fn count(&self) -> u64 {
        self.used().map(|(_, page)| page.count()).sum()
    }

    /// The sum of the magnitudes, the least first.
    fn sum(&self) -> f64 {
        self.used().map(|(exponent, page)| page.sum as f64 * power(exponent, MANTISSA_BITS)).sum()
    }

    fn buckets(&self) -> impl Iterator<Item = Bucket> {
        self.used().flat_map(|(exponent, page)| {
            let least = power(exponent, 0);
            let edge = move |bucket: usize| least * (1.0 + bucket as f64 / BUCKETS as f64);
            let used = page.counts.iter().enumerate().filter(|(_, count)| **count > 0);
            used.map(move |(at, count)| Bucket { from: edge(at), to: edge(at + 1), count: *count })
        })
    }
}

/// The value of a significand's last bit, of `bits` behind the point.
fn power(exponent: u64, bits: u32) -> f64 {
    f64::from_bits((exponent - u64::from(bits)) << MANTISSA_BITS)
}

impl Page {
    #[inline]
    fn add(&mut self, bits: u64) {
        let mantissa = bits & ((1 << MANTISSA_BITS) - 1);
        let significand = mantissa | 1 << MANTISSA_BITS;
        let leading = significand >> (MANTISSA_BITS + 1 - SQUARED_BITS);
        self.counts[(mantissa >> (MANTISSA_BITS - BUCKETS.ilog2())) as usize] += 1;
        self.sum += u128::from(significand);
        self.leading += u128::from(leading);
        self.squares += u128::from(leading) * u128::from(leading);
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        self.leading += other.leading;
        self.squares += other.squares;
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Exact as far as whole numbers go, so that values far from zero lose nothing of their spread.
    fn moments(&self, exponent: u64, sign: f64) -> Moments {
        let count = u128::from(self.count()).max(1);
        let (mean, rest) = (self.leading / count, self.leading % count);
        // sum of (x - mean)^2, where mean is rounded down: its own error is taken away after.
        let around = self.squares.saturating_sub(mean * (self.leading + rest));
        let unit = power(exponent, SQUARED_BITS - 1);
        let (count, rest) = (count as f64, rest as f64);
        Moments {
            count,
            mean: sign * self.sum as f64 * power(exponent, MANTISSA_BITS) / count,
            squares: (around as f64 - rest * rest / count).max(0.0) * unit * unit,
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0, leading: 0, squares: 0 }
    }
}

/// How many values, around which mean, and the sum of their squared distances from it.
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Chan, Golub and LeVeque's rule for two parts.
    fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        if other.count == 0.0 || count == 0.0 {
            return;
        }
        let apart = other.mean - self.mean;
        self.squares += other.squares + apart * apart * self.count * other.count / count;
        self.mean += apart * other.count / count;
        self.count = count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Spectrum {
        let mut spectrum = Spectrum::default();
        values.iter().for_each(|value| spectrum.add(*value));
        spectrum
    }

    #[test]
    fn mean_and_spread_are_those_of_the_values() {
        let far: Vec<f64> = (0..1000).map(|i| 1e6 + f64::from(i % 7) * 0.125).collect();
        let cases: [(&[f64], f64, f64); 7] = [
            (&[3.0], 3.0, 0.0),
            (&[1.0, 2.0, 3.0, 4.0], 2.5, 1.25_f64.sqrt()),
            (&[-2.0, 2.0], 0.0, 2.0),
            (&[0.0, 0.0, 0.0, 4.0], 1.0, 3.0_f64.sqrt()),
            (&[-1.5, -2.5, -3.5], -2.5, (2.0_f64 / 3.0).sqrt()),
            (&[1e-30, 3e-30], 2e-30, 1e-30),
            (&far, 1e6 + 0.374_625, 0.249_843_419_715_228_83),
        ];
        for (values, mean, std) in cases {
            let spectrum = of(values);
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(f64::MIN_POSITIVE);
            assert!(close(spectrum.mean().unwrap(), mean), "mean {:?} for {mean}", spectrum.mean());
            let (got, off) = (spectrum.std().unwrap(), 1e-6 * std);
            assert!((got - std).abs() <= off, "std {got} for {std}");
        }
    }

    #[test]
    fn what_has_no_magnitude_that_is_kept_is_counted_or_ignored() {
        let spectrum =
            of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e300, 1e-300, 5e-324, 1.0]);
        assert_eq!((spectrum.count(), spectrum.zeros(), spectrum.outside()), (6, 2, 3));
        assert_eq!(spectrum.mean(), Some(1.0 / 3.0));
        assert_eq!((of(&[]).mean(), of(&[]).std(), of(&[]).quantile(0.5)), (None, None, None));
    }

    #[test]
    fn a_quantile_is_off_by_no_more_than_half_a_bucket_on_either_side() {
        let values: Vec<f64> = (1..=10_000).map(|i| f64::from(i).sqrt()).collect();
        let spectrum = of(&values);
        for q in [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99] {
            let exact = (q * 10_000.0_f64).sqrt();
            let got = spectrum.quantile(q).unwrap();
            assert!((got / exact - 1.0).abs() < 1.0 / 64.0, "{q}: {got} for {exact}");
        }
    }

    #[test]
    fn values_are_divided_among_other_bins_without_loss() {
        let spectrum = of(&[-3.0, -0.5, 0.0, 0.25, 1.0, 1.0, 2.0, 900.0]);
        let parts = spectrum.rebin(&[-1.0, 0.0, 1.0, 2.0]);
        assert_eq!(parts, [1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(of(&[]).rebin(&[1.0]), [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn parts_merged_in_any_order_are_the_whole_to_the_bit(
            values in prop::collection::vec(prop_oneof![any::<f64>(), -1e3..1e3, Just(0.0)], 0..200),
            cuts in prop::collection::vec(0usize..200, 0..4),
            turn in any::<prop::sample::Index>(),
        ) {
            let whole = of(&values);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| *cut.min(&values.len())).collect();
            ends.extend([0, values.len()]);
            ends.sort_unstable();
            let mut parts: Vec<Spectrum> = ends.windows(2).map(|ends| of(&values[ends[0]..ends[1]])).collect();
            let turn = turn.index(parts.len());
            parts.rotate_left(turn);
            let mut merged = Spectrum::default();
            parts.iter().for_each(|part| merged.merge(part));
            prop_assert_eq!(merged.mean().map(f64::to_bits), whole.mean().map(f64::to_bits));
            prop_assert_eq!(merged.std().map(f64::to_bits), whole.std().map(f64::to_bits));
            prop_assert_eq!(merged, whole);
        }
    }
}
