//! Personal values: HMAC-SHA-256 under a secret, so that equal values stay equal and nobody can try values without it.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, StringBuilder},
    compute::cast,
    datatypes::DataType,
    error::ArrowError,
};
use sha2::{Digest, Sha256};

/// The block of SHA-256, in bytes.
const BLOCK: usize = 64;

/// HMAC-SHA-256 (RFC 2104) under one key. Shows nothing of the key.
#[derive(Clone)]
pub(super) struct Hmac {
    /// SHA-256 after the key's inner and outer block: each value starts from there.
    inner: Sha256,
    outer: Sha256,
}

impl fmt::Debug for Hmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hmac")
    }
}

impl Hmac {
    pub(super) fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        if key.len() <= BLOCK {
            block[..key.len()].copy_from_slice(key);
        } else {
            let digest = Sha256::digest(key);
            block[..digest.len()].copy_from_slice(&digest);
        }
        let after = |pad: u8| Sha256::new_with_prefix(block.map(|byte| byte ^ pad));
        Self { inner: after(0x36), outer: after(0x5c) }
    }

    /// `SHA-256(key ^ opad, SHA-256(key ^ ipad, value))`.
    fn of(&self, value: &[u8]) -> impl AsRef<[u8]> {
        let inner = self.inner.clone().chain_update(value).finalize();
        self.outer.clone().chain_update(inner).finalize()
    }

    /// The values of a column as 64 hex digits each; a null stays one.
    pub(super) fn column(&self, values: &dyn Array) -> Result<ArrayRef, ArrowError> {
        let texts = texts(values)?;
        let mut hashed = StringBuilder::with_capacity(texts.len(), texts.len().saturating_mul(64));
        let mut hex = String::with_capacity(64);
        for text in &texts {
            let Some(text) = text else {
                hashed.append_null();
                continue;
            };
            hex.clear();
            let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
            hex.extend(self.of(text).as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
            hashed.append_value(&hex);
        }
        Ok(Arc::new(hashed.finish()))
    }
}

/// Whether values of this type have one text each, which is the same wherever it is written: what [`texts`] takes.
pub(super) fn has_texts(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Boolean, LargeBinary, LargeUtf8, Utf8, Utf8View};
    data_type.is_integer()
        || matches!(data_type, Boolean | Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

/// The bytes of texts and binaries, and what is written for whole numbers (`-7`) and booleans (`true`).
pub(super) fn texts(values: &dyn Array) -> Result<BinaryArray, ArrowError> {
    let binary = match values.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => cast(values, &DataType::Binary)?,
        _ => cast(&cast(values, &DataType::Utf8)?, &DataType::Binary)?,
    };
    Ok(binary.as_binary::<i32>().clone())
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Int64Array, LargeStringArray, StringArray, StringViewArray, UInt8Array,
    };
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        key: String,
        value: String,
        digest: String,
    }

    #[test]
    fn a_hash_is_the_hmac_that_python_computes() {
        let fixture = include_str!("../../tests/oracles/record.json");
        let cases: serde_json::Value = serde_json::from_str(fixture).unwrap();
        let cases: Vec<Case> = serde_json::from_value(cases["hmac"].clone()).unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let hashed = Hmac::new(case.key.as_bytes()).column(&StringArray::from(vec![case.value.as_str()]));
            assert_eq!(hashed.unwrap().as_string::<i32>().value(0), case.digest, "{:?}", case.value);
        }
    }

    #[test]
    fn a_value_hashes_alike_in_every_type_that_can_hold_it() {
        let hmac = Hmac::new(b"0123456789abcdef");
        let hash = |array: &dyn Array| hmac.column(array).unwrap().as_string::<i32>().value(0).to_owned();
        let arrays: [ArrayRef; 6] = [
            Arc::new(StringArray::from(vec!["7"])),
            Arc::new(LargeStringArray::from(vec!["7"])),
            Arc::new(StringViewArray::from(vec!["7"])),
            Arc::new(BinaryArray::from(vec![b"7".as_slice()])),
            Arc::new(Int64Array::from(vec![7])),
            Arc::new(UInt8Array::from(vec![7])),
        ];
        let hashes: Vec<String> = arrays.iter().map(|array| hash(array.as_ref())).collect();
        assert!(hashes.iter().all(|other| *other == hashes[0]), "{hashes:?}");
        assert_eq!(hash(&BooleanArray::from(vec![true])), hash(&StringArray::from(vec!["true"])));
        assert_ne!(hashes[0], hash(&StringArray::from(vec!["8"])));
    }

    #[test]
    fn a_null_stays_null_and_the_key_is_not_shown() {
        let hmac = Hmac::new(b"0123456789abcdef");
        let hashed = hmac.column(&StringArray::from(vec![None, Some(""), Some("a")])).unwrap();
        assert_eq!((0..3).map(|i| hashed.is_null(i)).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(hashed.as_string::<i32>().value(1).len(), 64);
        assert_eq!(format!("{hmac:?}"), "Hmac");
    }
}
