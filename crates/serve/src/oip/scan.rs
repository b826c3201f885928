//! JSON text, read piece by piece.
//!
//! Other than `serde_json`'s parser, this one takes the bare words `NaN`, `Infinity` and `-Infinity`, which Triton and its clients
//! write, and finds where a value ends without looking into it: what a tensor's data are is known only from what stands beside it.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

use crate::wire::{DecodeCode, DecodeError};

type Read<T> = Result<T, DecodeError>;

/// A text, and how far it has been read.
pub(super) struct Scan<'b> {
    text: &'b str,
    at: usize,
}

impl<'b> Scan<'b> {
    pub(super) fn new(text: &'b str) -> Self {
        Self { text, at: 0 }
    }

    /// The byte that the next value begins with.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let white = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.at += white.unwrap_or(rest.len());
        rest.get(white?).copied()
    }

    /// Passes a byte, if it is the next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Passes a word, if it is the next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.peek();
        let there = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if there { word.len() } else { 0 };
        there
    }

    pub(super) fn expect(&mut self, byte: u8) -> Read<()> {
        if self.take(byte) { Ok(()) } else { Err(self.lacks(&format!("`{}`", byte as char))) }
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) -> Read<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => {
                let message = format!("something follows the end of the value, at byte {}", self.at);
                Err(DecodeError::new(DecodeCode::Trailing, message))
            }
        }
    }

    /// Reads an object, member by member.
    pub(super) fn members(&mut self, mut each: impl FnMut(&str, &mut Self) -> Read<()>) -> Read<()> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.expect(b':')?;
            each(&name, self)?;
            if !self.take(b',') {
                return if self.take(b'}') { Ok(()) } else { Err(self.lacks("`,` or `}`")) };
            }
        }
    }

    /// Reads an array, item by item. Answers how many there are.
    pub(super) fn items(&mut self, mut each: impl FnMut(usize, &mut Self) -> Read<()>) -> Read<usize> {
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(0);
        }
        let mut count = 0;
        loop {
            each(count, self)?;
            count += 1;
            if !self.take(b',') {
                return if self.take(b']') { Ok(count) } else { Err(self.lacks("`,` or `]`")) };
            }
        }
    }

    pub(super) fn string(&mut self) -> Read<Cow<'b, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.lacks("a string"));
        }
        let start = self.at;
        self.pass_string()?;
        let quoted = &self.text[start..self.at];
        let inside = &quoted[1..quoted.len() - 1];
        if !inside.bytes().any(|byte| byte == b'\\' || byte < 0x20) {
            return Ok(Cow::Borrowed(inside));
        }
        let unescaped = serde_json::from_str::<String>(quoted);
        unescaped.map(Cow::Owned).map_err(|_| {
            let message = format!("a string that is none, at byte {start}");
            DecodeError::new(DecodeCode::BadUtf8, message)
        })
    }

    /// A number, as it is written.
    pub(super) fn number(&mut self) -> Read<&'b str> {
        self.peek();
        let rest = &self.text[self.at..];
        let end = rest
            .bytes()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.'));
        let token = &rest[..end.unwrap_or(rest.len())];
        if !is_number(token.as_bytes()) && !matches!(token, "NaN" | "Infinity" | "-Infinity") {
            return Err(self.lacks("a value"));
        }
        self.at += token.len();
        Ok(token)
    }

    /// Passes a value whose grammar is looked at by whoever reads what is answered.
    pub(super) fn extent(&mut self) -> Read<&'b str> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => self.pass_string()?,
            Some(b'{' | b'[') => self.pass_nested()?,
            _ => {
                let rest = &self.text.as_bytes()[start..];
                let end = rest
                    .iter()
                    .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'));
                self.at += end.unwrap_or(rest.len());
            }
        }
        if self.at == start { Err(self.lacks("a value")) } else { Ok(&self.text[start..self.at]) }
    }

    /// Passes a value that nobody reads.
    pub(super) fn skip(&mut self) -> Read<()> {
        let start = self.at;
        let text = self.extent()?;
        serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|_| {
            DecodeError::new(DecodeCode::Malformed, format!("the value at byte {start} is no JSON"))
        })
    }

    fn pass_nested(&mut self) -> Read<()> {
        let mut open = 0_usize;
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.pass_string()?;
                    continue;
                }
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') => open -= 1,
                Some(_) => {}
                None => return Err(self.lacks("the end of a value")),
            }
            self.at += 1;
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// Passes a string that begins here.
    fn pass_string(&mut self) -> Read<()> {
        self.at += 1;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            match memchr2(b'"', b'\\', rest) {
                Some(at) if rest[at] == b'"' => {
                    self.at += at + 1;
                    return Ok(());
                }
                // What is escaped is one byte at least, which may be the last.
                Some(at) if rest.len() > at + 1 => self.at += at + 2,
                _ => {
                    self.at = self.text.len();
                    return Err(self.lacks("the end of a string"));
                }
            }
        }
    }

    fn lacks(&mut self, what: &str) -> DecodeError {
        match self.peek() {
            Some(_) => {
                let message = format!("{what} is missing at byte {}", self.at);
                DecodeError::new(DecodeCode::Malformed, message)
            }
            None => DecodeError::new(DecodeCode::Truncated, format!("it ends where {what} is missing")),
        }
    }
}

/// Whether a token is a number by JSON's grammar.
fn is_number(token: &[u8]) -> bool {
    let token = token.strip_prefix(b"-").unwrap_or(token);
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(token);
    if whole == 0 || (whole > 1 && token[0] == b'0') {
        return false;
    }
    let mut rest = &token[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let places = digits(fraction);
        if places == 0 {
            return false;
        }
        rest = &fraction[places..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_json_and_the_three_words() {
        for text in ["0", "-0", "12", "1.5", "-1.25e-3", "1E+9", "NaN", "Infinity", "-Infinity"] {
            assert_eq!(Scan::new(&format!(" {text} ")).number().unwrap(), text);
        }
        for text in ["", "01", "1.", ".5", "+1", "1e", "1e+", "--1", "nan", "inf", "-NaN", "0x1", "true"] {
            assert!(Scan::new(text).number().is_err(), "{text}");
        }
    }

    #[test]
    fn values_end_where_they_do_for_serde() {
        for value in [r#""a\"b\\""#, r#"[1,{"a]":"}"},[]]"#, "{}", "-1.5e3", "null", "\"\u{e9}\""] {
            for after in ["", " ", ",1", "]", "}"] {
                let text = format!("{value}{after}");
                assert_eq!(Scan::new(&text).extent().unwrap(), value, "{text}");
            }
        }
        for cut in [r#""abc"#, r#""abc\"#, "[1,[2]", r#"{"a":"}"#, "", ","] {
            assert!(Scan::new(cut).extent().is_err(), "{cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in r#"[\[\]{}":,\\ 1eNtu\u{e9}.-]{0,24}"#) {
            let mut scan = Scan::new(&text);
            while scan.skip().is_ok() || scan.string().is_ok() || scan.number().is_ok() || scan.take(b',') {}
            let _ = Scan::new(&text).members(|_, scan| scan.skip());
            let _ = Scan::new(&text).items(|_, scan| scan.skip());
        }
    }
}
