//! Keys of callers. Only their digests are known here.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

/// What keys begin with, so that scanners for secrets find those that were left somewhere.
const PREFIX: &str = "ms_";
/// Random bytes of a key. With so many, a plain digest cannot be turned back by trying.
const BYTES: usize = 32;

/// The digest of a key.
pub(super) type KeyDigest = [u8; 32];

pub(super) fn digest(key: &[u8]) -> KeyDigest {
    Sha256::digest(key).into()
}

/// Reads a digest as files have it: 64 hexadecimal digits.
pub(super) fn parse(text: &str) -> Option<KeyDigest> {
    let text = text.as_bytes();
    let nibble = |byte: u8| (byte as char).to_digit(16);
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).ok()?;
    }
    Some(digest)
}

/// A new key, and its digest as files have it.
///
/// # Errors
/// When the machine has no random numbers.
pub(crate) fn new_key() -> Result<(String, String), &'static str> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "this machine gives no random numbers")?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let digest = digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((key, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_told_by_its_digest() {
        let (key, text) = new_key().unwrap();
        assert_eq!(parse(&text), Some(digest(key.as_bytes())));
        assert_ne!(new_key().unwrap().0, key);
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(65)] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
