//! Which requests are logged: a share of them, the same ones on every replica.

use arrow::array::Array;
use arrow::error::ArrowError;

use super::personal::texts;

/// Keeps a name when its hash is below the share.
///
/// The hash is FNV-1a (64 bits) of `record:` and the name, stirred by the last step of SplitMix64. The prefix makes the choice
/// independent of others that hash the same names, such as a canary's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    share: f64,
}

impl Sample {
    /// Keeps `share` of all names, from 0 to 1.
    pub(super) fn new(share: f64) -> Self {
        Self { share }
    }

    /// Whether every name is kept.
    pub(super) fn all(self) -> bool {
        self.share >= 1.0
    }

    pub(super) fn keeps(self, name: &[u8]) -> bool {
        // 53 bits are what a float holds exactly.
        self.all() || ((hash(name) >> 11) as f64) < self.share * (1u64 << 53) as f64
    }

    /// Whether each row's key is kept; none for a row without a key.
    pub(super) fn keeps_keys(self, keys: &dyn Array) -> Result<Vec<Option<bool>>, ArrowError> {
        Ok(texts(keys)?.iter().map(|key| key.map(|key| self.keeps(key))).collect())
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in b"record:".iter().chain(name) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        hash: String,
    }

    #[test]
    fn the_hash_is_what_python_computes() {
        let fixture = include_str!("../../tests/oracles/record.json");
        let cases: serde_json::Value = serde_json::from_str(fixture).unwrap();
        let cases: Vec<Case> = serde_json::from_value(cases["sample"].clone()).unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            assert_eq!(format!("{:016x}", hash(case.name.as_bytes())), case.hash, "{:?}", case.name);
        }
    }

    #[test]
    fn as_many_are_kept_as_the_share_says() {
        const NAMES: usize = 100_000;
        for share in [0.001, 0.01, 0.1, 0.5, 0.9] {
            // Names that differ in their last characters only, as those of real clients do.
            let kept =
                (0..NAMES).filter(|i| Sample::new(share).keeps(format!("req-{i:08}").as_bytes())).count();
            let deviation = (NAMES as f64 * share * (1.0 - share)).sqrt();
            let off = (kept as f64 - NAMES as f64 * share).abs() / deviation;
            assert!(off < 4.0, "{share}: {kept} kept, {off} standard deviations off");
        }
        assert!((0..1000).all(|i| Sample::new(1.0).keeps(format!("{i}").as_bytes())));
    }

    #[test]
    fn what_a_smaller_share_keeps_a_larger_one_keeps_too() {
        for i in 0..10_000 {
            let name = format!("{i}");
            assert!(!Sample::new(0.1).keeps(name.as_bytes()) || Sample::new(0.3).keeps(name.as_bytes()));
        }
    }
}
