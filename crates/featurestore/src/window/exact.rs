//! Sums without rounding, so that they depend neither on the order of what is added nor on how it was grouped.

use smallvec::SmallVec;

/// A number held exactly: a whole number of some power of 2^64, in as many words as it takes.
///
/// Sums and squares of floats are multiples of a power of two, so that adding them up is arithmetic of whole numbers. A result
/// is rounded once, when it is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Exact {
    /// Which power of 2^64 the first word counts.
    low: i32,
    /// Two's complement, the least word first; none for zero.
    words: SmallVec<[u64; 3]>,
}

/// Further from the point than any sum of squares of floats, in words.
const FARTHEST: i32 = 40;

impl Exact {
    /// Adds a finite float.
    pub(super) fn add_float(&mut self, value: f64) {
        let (magnitude, exponent) = parts(value);
        self.add_scaled(u128::from(magnitude), exponent, value < 0.0);
    }

    /// Adds the square of a finite float.
    pub(super) fn add_square(&mut self, value: f64) {
        let (magnitude, exponent) = parts(value);
        self.add_scaled(u128::from(magnitude).pow(2), 2 * exponent, false);
    }

    /// Adds a whole number.
    pub(super) fn add_whole(&mut self, magnitude: u128, negative: bool) {
        self.add_scaled(magnitude, 0, negative);
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, other: &Self) {
        if !other.words.is_empty() {
            self.add_words(other.low, &other.words, other.sign());
        }
    }

    /// The float nearest to the number divided by every one of `divisors`, none of which is zero: of two equally near ones the
    /// even one, and infinite beyond the largest.
    pub(super) fn quotient(&self, divisors: &[u64]) -> f64 {
        let (negative, magnitude) = self.magnitude();
        // Zero words below leave more digits of the quotient than a float has, whatever the divisors.
        let extra = if divisors.is_empty() { 0 } else { divisors.len() + 1 };
        let mut words = vec![0; extra];
        words.extend(magnitude);
        let mut rest = false;
        for &divisor in divisors {
            rest |= divide(&mut words, divisor) != 0;
        }
        let value = rounded(self.low - extra as i32, &words, rest);
        if negative { -value } else { value }
    }

    /// The number, if it is a whole one and fits.
    pub(super) fn to_i64(&self) -> Option<i64> {
        let (low, words) = self.trimmed();
        match words {
            [] => Some(0),
            [word] if low == 0 => Some(*word as i64),
            _ => None,
        }
    }

    /// `count` times the sum of squares `self`, less the square of `sum`: never negative for what was added to both.
    pub(super) fn spread(&self, count: u64, sum: &Self) -> Self {
        let mut spread = Self::default();
        let mut squares = product(&self.magnitude().1, &[count]);
        squares.push(0);
        spread.add_words(self.low, &squares, 0);
        let side = sum.magnitude().1;
        let mut square = product(&side, &side);
        square.push(0);
        negate(&mut square);
        let fill = if square.last() == Some(&0) { 0 } else { !0 };
        spread.add_words(2 * sum.low, &square, fill);
        spread
    }

    /// The one way to write the number: no word could be left out at either end.
    pub(super) fn trimmed(&self) -> (i32, &[u64]) {
        let mut words = &self.words[..];
        while let [.., below, top] = words {
            if *top != sign_of(*below) {
                break;
            }
            words = &words[..words.len() - 1];
        }
        let zeros = words.iter().take_while(|&&word| word == 0).count();
        let words = &words[zeros..];
        if words.is_empty() { (0, words) } else { (self.low + zeros as i32, words) }
    }

    /// A number from what [`Exact::trimmed`] gave; `None` for words that it never gives.
    pub(super) fn from_trimmed(low: i32, words: &[u64]) -> Option<Self> {
        let end = usize::try_from(i64::from(FARTHEST) - i64::from(low)).ok()?;
        let number = Self { low, words: words.into() };
        (low >= -FARTHEST && words.len() <= end && number.trimmed() == (low, words)).then_some(number)
    }

    /// Bytes held outside the value itself.
    pub(super) fn heap(&self) -> usize {
        if self.words.spilled() { self.words.capacity() * 8 } else { 0 }
    }

    /// Adds `magnitude` times 2^`exponent`, or takes it away.
    fn add_scaled(&mut self, magnitude: u128, exponent: i32, negative: bool) {
        if magnitude == 0 {
            return;
        }
        // Zeros at the end would take words of their own.
        let zeros = magnitude.trailing_zeros();
        let (magnitude, exponent) = (magnitude >> zeros, exponent + zeros as i32);
        let (at, shift) = (exponent.div_euclid(64), exponent.rem_euclid(64) as u32);
        let low = magnitude << shift;
        let high = if shift == 0 { 0 } else { (magnitude >> (128 - shift)) as u64 };
        let mut words = [low as u64, (low >> 64) as u64, high];
        let used = words.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        let words = &mut words[..used];
        if negative {
            negate(words);
        }
        self.add_words(at, words, if negative { !0 } else { 0 });
    }

    /// Adds a number in two's complement whose first word stands at `at`, and whose words above the given ones are `fill`.
    fn add_words(&mut self, at: i32, words: &[u64], fill: u64) {
        self.cover(at, at + words.len() as i32);
        let sign = self.sign();
        let start = (at - self.low) as usize;
        let mut carry = false;
        for (index, limb) in self.words[start..].iter_mut().enumerate() {
            let word = match words.get(index) {
                Some(word) => *word,
                // Nothing changes from here on: zeros without a carry, or ones with one.
                None if fill.wrapping_add(u64::from(carry)) == 0 => return,
                None => fill,
            };
            (*limb, carry) = limb.carrying_add(word, carry);
        }
        let above = sign.wrapping_add(fill).wrapping_add(u64::from(carry));
        if above != self.sign() {
            self.words.push(above);
        }
    }

    /// Makes room for the words from `at` up to `end`.
    fn cover(&mut self, at: i32, end: i32) {
        if self.words.is_empty() {
            self.low = at;
        }
        if at < self.low {
            self.words.insert_many(0, std::iter::repeat_n(0, (self.low - at) as usize));
            self.low = at;
        }
        let sign = self.sign();
        let wanted = (end - self.low) as usize;
        if self.words.len() < wanted {
            self.words.resize(wanted, sign);
        }
    }

    /// What the words above the highest one are.
    fn sign(&self) -> u64 {
        self.words.last().copied().map_or(0, sign_of)
    }

    fn magnitude(&self) -> (bool, SmallVec<[u64; 8]>) {
        let mut words: SmallVec<[u64; 8]> = self.words.as_slice().into();
        let negative = self.sign() != 0;
        if negative {
            negate(&mut words);
        }
        (negative, words)
    }
}

fn sign_of(word: u64) -> u64 {
    ((word as i64) >> 63) as u64
}

/// A finite float as a whole number and a power of two.
fn parts(value: f64) -> (u64, i32) {
    const FRACTION: u64 = (1 << 52) - 1;
    let bits = value.to_bits();
    match (bits >> 52 & 0x7ff) as i32 {
        0 => (bits & FRACTION, -1074),
        exponent => (bits & FRACTION | 1 << 52, exponent - 1075),
    }
}

fn negate(words: &mut [u64]) {
    let mut carry = true;
    for word in words {
        (*word, carry) = (!*word).carrying_add(0, carry);
    }
}

fn product(left: &[u64], right: &[u64]) -> Vec<u64> {
    let mut words = vec![0_u64; left.len() + right.len()];
    for (at, &factor) in left.iter().enumerate() {
        let mut carry = 0_u64;
        for (word, &other) in words[at..].iter_mut().zip(right.iter().chain([&0])) {
            let sum = u128::from(factor) * u128::from(other) + u128::from(*word) + u128::from(carry);
            (*word, carry) = (sum as u64, (sum >> 64) as u64);
        }
    }
    words
}

/// Divides in place and answers what remains.
fn divide(words: &mut [u64], divisor: u64) -> u64 {
    let mut rest = 0_u64;
    for word in words.iter_mut().rev() {
        let part = u128::from(rest) << 64 | u128::from(*word);
        *word = (part / u128::from(divisor)) as u64;
        rest = (part % u128::from(divisor)) as u64;
    }
    rest
}

/// The float nearest to unsigned `words`, of which the first counts 2^(64·`low`); `rest` says that something less than one of it
/// is missing.
fn rounded(low: i32, words: &[u64], rest: bool) -> f64 {
    let Some(top) = words.iter().rposition(|&word| word != 0) else { return 0.0 };
    let highest = 64 * top as i64 + 63 - i64::from(words[top].leading_zeros());
    let point = 64 * i64::from(low);
    // What the last bit of the float counts: floats end at 2^-1074.
    let unit = (point + highest - 52).max(-1074);
    if unit > 971 {
        return f64::INFINITY;
    }
    let cut = unit - point;
    let kept = bits_from(words, cut);
    let half = cut > 0 && bits_from(words, cut - 1) & 1 == 1;
    let below = rest || (cut > 1 && any_below(words, cut - 1));
    let kept = kept + u64::from(half && (below || kept & 1 == 1));
    kept as f64 * power_of_two(unit)
}

/// The 64 bits from bit `from` on; zeros where there are no words.
fn bits_from(words: &[u64], from: i64) -> u64 {
    let (index, shift) = (from.div_euclid(64), from.rem_euclid(64) as u32);
    let word =
        |index: i64| usize::try_from(index).ok().and_then(|index| words.get(index)).copied().unwrap_or(0);
    let pair = u128::from(word(index + 1)) << 64 | u128::from(word(index));
    (pair >> shift) as u64
}

fn any_below(words: &[u64], bit: i64) -> bool {
    let whole = ((bit / 64) as usize).min(words.len());
    let part = words.get(whole).is_some_and(|word| word & ((1 << (bit % 64)) - 1) != 0);
    part || words[..whole].iter().any(|&word| word != 0)
}

/// 2^`exponent`, for exponents from -1074 to 971.
fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits(if exponent < -1022 { 1 << (exponent + 1074) } else { ((exponent + 1023) as u64) << 52 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Shewchuk's partial sums, with the last rounding of Python's `fsum`: another way to the same number. Overflows where
    /// partial sums do.
    fn fsum(values: &[f64]) -> f64 {
        let mut partials: Vec<f64> = Vec::new();
        for &value in values {
            let mut x = value;
            let mut kept = Vec::new();
            for &y in &partials {
                let (big, small) = if x.abs() < y.abs() { (y, x) } else { (x, y) };
                let high = big + small;
                let low = small - (high - big);
                if low != 0.0 {
                    kept.push(low);
                }
                x = high;
            }
            kept.push(x);
            partials = kept;
        }
        let Some(mut high) = partials.pop() else { return 0.0 };
        let mut low = 0.0;
        while let Some(y) = partials.pop() {
            let x = high;
            high = x + y;
            low = y - (high - x);
            if low != 0.0 {
                break;
            }
        }
        if let Some(&next) = partials.last()
            && ((low < 0.0 && next < 0.0) || (low > 0.0 && next > 0.0))
        {
            let twice = low * 2.0;
            let x = high + twice;
            if twice == x - high {
                high = x;
            }
        }
        high
    }

    fn sum(values: &[f64]) -> Exact {
        let mut sum = Exact::default();
        values.iter().for_each(|&value| sum.add_float(value));
        sum
    }

    fn squares(values: &[f64]) -> Exact {
        let mut sum = Exact::default();
        values.iter().for_each(|&value| sum.add_square(value));
        sum
    }

    /// Every size of float, also the smallest and, short of overflow, the largest.
    fn float() -> impl Strategy<Value = f64> {
        let any = any::<f64>().prop_map(|float| if float.is_finite() { float } else { 0.5 });
        prop_oneof![
            any.prop_map(|float| float / 1024.0),
            -1e6..1e6,
            (-1000_i32..1000).prop_map(f64::from),
            Just(5e-324),
            Just(-2.2e-308),
        ]
    }

    proptest! {
        #[test]
        fn a_sum_is_the_nearest_float_to_the_true_one(values in proptest::collection::vec(float(), 0..40)) {
            prop_assert_eq!(sum(&values).quotient(&[]), fsum(&values));
        }

        #[test]
        fn order_and_grouping_change_no_word(
            values in proptest::collection::vec(float(), 0..40),
            cut in 0_usize..40,
        ) {
            let (left, right) = values.split_at(cut.min(values.len()));
            for of in [sum, squares] {
                let whole = of(&values);
                let mut merged = of(right);
                merged.merge(&of(left));
                prop_assert_eq!(merged.trimmed(), whole.trimmed());
                let reversed: Vec<f64> = values.iter().rev().copied().collect();
                let reversed = of(&reversed);
                prop_assert_eq!(reversed.trimmed(), whole.trimmed());
                let (low, words) = whole.trimmed();
                prop_assert_eq!(Exact::from_trimmed(low, words).map(|again| again.quotient(&[])), Some(whole.quotient(&[])));
            }
        }

        #[test]
        fn what_is_added_and_taken_away_leaves_nothing(values in proptest::collection::vec(float(), 0..40)) {
            let mut total = sum(&values);
            values.iter().rev().for_each(|&value| total.add_float(-value));
            prop_assert_eq!(total.trimmed(), (0, &[][..]));
        }

        /// The oracle is 128-bit arithmetic, exact for these values, and one correctly rounded division where it fits.
        #[test]
        fn whole_numbers_their_mean_and_spread_are_exact(
            values in proptest::collection::vec(-1_000_000_i64..1_000_000, 2..60),
        ) {
            let (mut total, mut square) = (Exact::default(), Exact::default());
            for value in &values {
                total.add_whole(u128::from(value.unsigned_abs()), *value < 0);
                square.add_whole(u128::from(value.unsigned_abs()).pow(2), false);
            }
            let (n, whole): (i64, i64) = (values.len() as i64, values.iter().sum());
            prop_assert_eq!(total.to_i64(), Some(whole));
            prop_assert_eq!(total.quotient(&[n as u64]), whole as f64 / n as f64);
            let spread = i128::from(n) * values.iter().map(|v| i128::from(*v).pow(2)).sum::<i128>() - i128::from(whole).pow(2);
            prop_assert_eq!(square.spread(n as u64, &total).quotient(&[]), spread as f64);
        }
    }

    #[test]
    fn sums_cross_the_edges_of_words_and_floats() {
        for (values, expected) in [
            (&[1e16, 0.1, 0.1][..], 1e16),
            (&[1e16, 0.1, 0.1, -1e16], 0.2),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[-f64::MAX, -f64::MAX], f64::NEG_INFINITY),
            (&[f64::MAX, f64::MAX, -f64::MAX], f64::MAX),
            (&[5e-324, 5e-324], 1e-323),
            (&[1.0, 1e-16, 1e-16], 1.0000000000000002),
            (&[9007199254740992.0, 1.0], 9007199254740992.0),
            (&[9007199254740992.0, 1.0, 5e-324], 9007199254740994.0),
        ] {
            assert_eq!(sum(values).quotient(&[]), expected, "{values:?}");
        }
    }

    #[test]
    fn squares_below_the_smallest_float_still_count() {
        let tiny = [1e-170; 3];
        assert_eq!(squares(&tiny).quotient(&[]), 0.0);
        let mut scaled = squares(&tiny);
        scaled.add_square(1e170);
        assert_eq!(scaled.quotient(&[]), f64::INFINITY);
        assert_eq!(squares(&[3e-162, 4e-162]).quotient(&[]), 2.5e-323);
    }

    #[test]
    fn a_whole_sum_that_does_not_fit_is_none() {
        let mut total = Exact::default();
        total.add_whole(u128::from(u64::MAX), false);
        assert_eq!(total.to_i64(), None);
        total.add_whole(1 << 63, true);
        assert_eq!(total.to_i64(), Some(i64::MAX));
        total.add_whole(u128::from(u64::MAX), true);
        assert_eq!(total.to_i64(), Some(i64::MIN));
        total.add_whole(1, true);
        assert_eq!(total.to_i64(), None);
    }

    #[test]
    fn words_that_no_sum_has_are_refused() {
        for (low, words) in [
            (0, &[0, 1][..]),
            (0, &[1, 0]),
            (0, &[u64::MAX, u64::MAX]),
            (1, &[]),
            (-41, &[1]),
            (40, &[1]),
            (i32::MIN, &[1]),
            (i32::MAX, &[1]),
        ] {
            assert!(Exact::from_trimmed(low, words).is_none(), "{low} {words:?}");
        }
    }
}
