use std::collections::{BTreeMap, btree_map::Entry};

use serde::{Deserialize, Serialize};

/// The sum of `f64` terms without any rounding, whatever their order and however they are split over replicas.
///
/// Each term is an integer of 53 bits times a power of two. Terms whose powers lie in the same band of 32 are added
/// as integers of 128 bits, so addition, subtraction and merging are integer additions: the state depends only on
/// which terms it holds. One band takes 2^42 (4.4e12) terms of one sign before it wraps. Rounding happens once, in
/// [`value`](Self::value).
///
/// ```
/// use millstream_monitor::performance::ExactSum;
///
/// let mut sum = ExactSum::default();
/// for term in [1e16, 0.1, -1e16] {
///     sum.add(term);
/// }
/// assert_eq!(sum.value(), 0.1);
/// sum.subtract(0.1);
/// assert_eq!(sum, ExactSum::default());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct ExactSum {
    /// Band `k` counts units of 2^(32 k). A band of zero is absent, so that equal sums of equal terms are equal
    /// values.
    bands: BTreeMap<i16, i128>,
    /// Terms that are infinite or no number.
    not_finite: u64,
}

const BAND_BITS: i32 = 32;

impl ExactSum {
    /// Adds one term. A term that is infinite or no number is counted, and makes the value no number.
    pub fn add(&mut self, term: f64) {
        self.change(term, 1);
    }

    /// Takes back one term that was added: the state is then as if it had never been.
    pub fn subtract(&mut self, term: f64) {
        self.change(term, -1);
    }

    /// Adds all terms of another sum.
    pub fn merge(&mut self, other: &Self) {
        for (&band, &units) in &other.bands {
            self.add_units(band, units);
        }
        self.not_finite = self.not_finite.wrapping_add(other.not_finite);
    }

    /// The sum as the nearest `f64`, up to one unit in its last place; no number if a term was not finite.
    pub fn value(&self) -> f64 {
        let (high, low) = self.pair();
        if high.is_finite() { high + low } else { high }
    }

    /// The sum as an unevaluated pair of about 106 bits, for differences of large sums.
    pub(super) fn pair(&self) -> (f64, f64) {
        if self.not_finite != 0 {
            return (f64::NAN, 0.0);
        }
        let (mut high, mut low) = (0.0_f64, 0.0_f64);
        for (&band, &units) in self.bands.iter().rev() {
            let leading = units as f64;
            let rest = units.saturating_sub(leading as i128) as f64;
            for piece in [scaled(leading, band), scaled(rest, band)] {
                let (sum, error) = two_sum(high, piece);
                high = sum;
                low += error;
            }
        }
        if high.is_finite() { two_sum(high, low) } else { (high, 0.0) }
    }

    fn change(&mut self, term: f64, sign: i64) {
        if !term.is_finite() {
            self.not_finite = self.not_finite.wrapping_add_signed(sign);
            return;
        }
        let (mantissa, exponent) = decompose(term);
        let units = i128::from(mantissa * sign) << exponent.rem_euclid(BAND_BITS);
        self.add_units(exponent.div_euclid(BAND_BITS) as i16, units);
    }

    fn add_units(&mut self, band: i16, units: i128) {
        // Wrapping keeps addition associative and subtraction its exact inverse.
        match self.bands.entry(band) {
            Entry::Occupied(mut held) => {
                let sum = held.get().wrapping_add(units);
                if sum == 0 {
                    held.remove();
                } else {
                    held.insert(sum);
                }
            }
            Entry::Vacant(_) if units == 0 => {}
            Entry::Vacant(place) => {
                place.insert(units);
            }
        }
    }
}

/// The sum of terms between 0 and 1, each cut once to a multiple of 2^-64 (5.4e-20): 16 bytes, for tables of many
/// sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct UnitSum(u128);

const UNIT: f64 = 18_446_744_073_709_551_616.0; // 2^64

impl UnitSum {
    /// Adds one term; a term outside of 0 to 1 counts as the nearer of the two, and what is no number as 0.
    pub fn add(&mut self, term: f64) {
        self.0 = self.0.wrapping_add(units(term));
    }

    /// Takes back one term that was added.
    pub fn subtract(&mut self, term: f64) {
        self.0 = self.0.wrapping_sub(units(term));
    }

    /// Adds all terms of another sum.
    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// The sum, rounded once.
    pub fn value(self) -> f64 {
        self.0 as f64 / UNIT
    }
}

/// Both values of a product without rounding: the `f64` nearest to it, and the rest.
pub(super) fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    (product, a.mul_add(b, -product))
}

/// Both values of a sum without rounding.
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

fn units(term: f64) -> u128 {
    // A cast of what is no number gives 0.
    (term.clamp(0.0, 1.0) * UNIT) as u128
}

/// `term = mantissa * 2^exponent`, for a finite term.
fn decompose(term: f64) -> (i64, i32) {
    let bits = term.to_bits();
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let biased = ((bits >> 52) & 0x7ff) as i32;
    let (magnitude, exponent) =
        if biased == 0 { (fraction, -1074) } else { (fraction | (1 << 52), biased - 1075) };
    (if term.is_sign_negative() { -magnitude } else { magnitude }, exponent)
}

/// `units * 2^(32 band)`. In two steps, because the power alone may be too small for an `f64`.
fn scaled(units: f64, band: i16) -> f64 {
    let half = 2.0_f64.powi(i32::from(band) * BAND_BITS / 2);
    units * half * half
}

/// An [`ExactSum`] in files: bands as (index, high bits, low bits), since not every format has integers of 128 bits.
#[derive(Clone, Serialize, Deserialize)]
struct Wire {
    bands: Vec<(i16, i64, u64)>,
    not_finite: u64,
}

impl From<ExactSum> for Wire {
    fn from(sum: ExactSum) -> Self {
        let split = |(band, units): (i16, i128)| (band, (units >> 64) as i64, units as u64);
        Self { bands: sum.bands.into_iter().map(split).collect(), not_finite: sum.not_finite }
    }
}

impl From<Wire> for ExactSum {
    fn from(wire: Wire) -> Self {
        let mut sum = Self { bands: BTreeMap::new(), not_finite: wire.not_finite };
        for (band, high, low) in wire.bands {
            // Bands that no `f64` has cannot come from a sum.
            if (-34..=31).contains(&band) {
                sum.add_units(band, (i128::from(high) << 64) | i128::from(low));
            }
        }
        sum
    }
}

impl From<UnitSum> for (u64, u64) {
    fn from(sum: UnitSum) -> Self {
        ((sum.0 >> 64) as u64, sum.0 as u64)
    }
}

impl From<(u64, u64)> for UnitSum {
    fn from((high, low): (u64, u64)) -> Self {
        Self((u128::from(high) << 64) | u128::from(low))
    }
}
