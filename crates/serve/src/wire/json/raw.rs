//! Values that are kept as text or read over: their grammar was checked, the rest is checked here.

use crate::wire::DecodeCode;

/// Checks a JSON value whose grammar is known to be right for what the grammar leaves open: how deep it nests,
/// and whether its escapes stand for whole characters.
pub(super) fn check(text: &str, depth: usize) -> Result<(), (DecodeCode, String)> {
    let bytes = text.as_bytes();
    let (mut at, mut open, mut in_string) = (0, 0_usize, false);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => at = escape(bytes, at)?,
            b'[' | b'{' if !in_string => {
                open += 1;
                if open > depth {
                    return Err((DecodeCode::TooDeep, format!("nests deeper than {depth} levels")));
                }
            }
            b']' | b'}' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Passes an escape, whose backslash lies before `at`, and answers where it ends.
fn escape(bytes: &[u8], at: usize) -> Result<usize, (DecodeCode, String)> {
    match unit(bytes, at) {
        None => Ok(at + 1),
        Some(0xD800..=0xDBFF) if bytes.get(at + 5) == Some(&b'\\') => match unit(bytes, at + 6) {
            Some(0xDC00..=0xDFFF) => Ok(at + 11),
            _ => Err(half()),
        },
        Some(0xD800..=0xDFFF) => Err(half()),
        Some(_) => Ok(at + 5),
    }
}

/// The UTF-16 unit of an escape `uXXXX`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 5)?.strip_prefix(b"u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn half() -> (DecodeCode, String) {
    (DecodeCode::BadUtf8, "an escape stands for half a character".to_owned())
}
