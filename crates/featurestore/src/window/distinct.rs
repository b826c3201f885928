//! How many different values there are: exact while there are few, estimated when there are many.

use std::f64::consts::LN_2;

/// Different values, as their hashes or, beyond [`FEW`] of them, as a HyperLogLog of 4096 registers.
///
/// Which of both is decided by the values alone, not by the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Distinct {
    /// The hashes, ascending.
    Few(Vec<u64>),
    /// For every register, the longest run of zeros seen, and one more.
    Many(Box<[u8; REGISTERS]>),
}

/// Up to so many different values are counted exactly: their hashes take as many bytes as the registers would.
pub(super) const FEW: usize = REGISTERS / 8;

pub(super) const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 12;
/// The highest value of a register: all other bits of the hash are zero.
pub(super) const HIGHEST: u8 = (64 - INDEX_BITS + 1) as u8;

impl Default for Distinct {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Distinct {
    pub(super) fn add(&mut self, hash: u64) {
        match self {
            Self::Few(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    hashes.insert(at, hash);
                    if hashes.len() > FEW {
                        *self = Self::Many(registers(hashes));
                    }
                }
            }
            Self::Many(registers) => note(registers, hash),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Few(hashes)) => hashes.iter().for_each(|&hash| self.add(hash)),
            (Self::Few(hashes), Self::Many(registers)) => {
                let mut registers = registers.clone();
                hashes.iter().for_each(|&hash| note(&mut registers, hash));
                *self = Self::Many(registers);
            }
            (Self::Many(registers), Self::Many(others)) => {
                for (register, other) in registers.iter_mut().zip(&**others) {
                    *register = (*register).max(*other);
                }
            }
        }
    }

    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Few(hashes) => hashes.len() as u64,
            Self::Many(registers) => estimate(registers).round() as u64,
        }
    }

    /// Bytes held outside the value itself.
    pub(super) fn heap(&self) -> usize {
        match self {
            Self::Few(hashes) => hashes.capacity() * 8,
            Self::Many(_) => REGISTERS,
        }
    }
}

fn registers(hashes: &[u64]) -> Box<[u8; REGISTERS]> {
    let mut registers = Box::new([0; REGISTERS]);
    hashes.iter().for_each(|&hash| note(&mut registers, hash));
    registers
}

fn note(registers: &mut [u8; REGISTERS], hash: u64) {
    let index = (hash >> (64 - INDEX_BITS)) as usize;
    let run = (hash << INDEX_BITS).leading_zeros().min(64 - INDEX_BITS) as u8 + 1;
    registers[index] = registers[index].max(run);
}

/// The improved raw estimator of O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017: without bias
/// from few to many values, and without tables. Only the four operations and square roots, so the same bits everywhere.
fn estimate(registers: &[u8; REGISTERS]) -> f64 {
    let m = REGISTERS as f64;
    let mut with = [0.0; HIGHEST as usize + 1];
    registers.iter().for_each(|&register| with[usize::from(register.min(HIGHEST))] += 1.0);
    let highest = with[usize::from(HIGHEST)];
    let mut z = m * tau(1.0 - highest / m);
    for value in (1..usize::from(HIGHEST)).rev() {
        z = 0.5 * (z + with[value]);
    }
    z += m * sigma(with[0] / m);
    m * m / (2.0 * LN_2) / z
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let next = z + x * y;
        if next == z {
            return z;
        }
        (y, z) = (y + y, next);
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        y *= 0.5;
        let next = z - (1.0 - x) * (1.0 - x) * y;
        if next == z {
            return z / 3.0;
        }
        z = next;
    }
}

/// A hash of a number's bits. No two numbers have the same.
pub(super) fn hash_word(word: u64) -> u64 {
    let mut hash = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// A hash of a text, the same in every version and on every machine, since it is written down.
pub(super) fn hash_text(text: &str) -> u64 {
    text.as_bytes().chunks(8).fold(hash_word(text.len() as u64), |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash_word(hash ^ u64::from_le_bytes(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: std::ops::Range<u64>) -> Distinct {
        let mut distinct = Distinct::default();
        values.for_each(|value| distinct.add(hash_word(value)));
        distinct
    }

    #[test]
    fn few_values_are_counted_and_many_are_estimated() {
        for count in [0, 1, 2, 511, 512] {
            assert_eq!(of(0..count).count(), count);
        }
        // The standard error of 4096 registers is 1.04 / 64 = 1.6 %; three of them are allowed.
        for count in [513, 1_000, 10_000, 100_000, 1_000_000] {
            let found = of(0..count).count() as f64;
            assert!((found / count as f64 - 1.0).abs() < 0.049, "{found} of {count}");
        }
    }

    #[test]
    fn merging_equals_counting_all() {
        for (left, right) in
            [(0..300, 200..400), (0..300, 200..600), (0..9_000, 10..20), (0..700, 500..5_000)]
        {
            let all = left.start.min(right.start)..left.end.max(right.end);
            let (left, right) = (of(left), of(right));
            for (into, from) in [(&left, &right), (&right, &left)] {
                let mut merged = into.clone();
                merged.merge(from);
                assert_eq!(merged, of(all.clone()));
            }
        }
    }

    #[test]
    fn texts_that_differ_have_hashes_that_differ() {
        let texts = ["", "a", "b", "ab", "ab\0", "a\0", "12345678", "123456789", "12345678\0", "ü"];
        let hashes: std::collections::HashSet<u64> = texts.iter().map(|text| hash_text(text)).collect();
        assert_eq!(hashes.len(), texts.len());
        assert_eq!(hash_text("gold"), 1_770_238_085_319_751_852, "it is written down, so it must not change");
    }
}
