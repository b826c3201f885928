//! W3C trace context: who asked, under which trace, and whether it is recorded.

use http::HeaderMap;

/// Longer lists of vendors' entries are left out, as the standard allows beyond this size.
const STATE_BYTES: usize = 512;

/// A trace and the span in it that everything here belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) sampled: bool,
}

impl Context {
    /// What the header `traceparent` says; `None` when there is none, several, or one that is not valid.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let [version] = bytes(parts.next()?)?;
        let (trace, span, [flags]) = (bytes(parts.next()?)?, bytes(parts.next()?)?, bytes(parts.next()?)?);
        // Version 0 has four parts; later ones may have more, and begin with these. 255 is not a version.
        let fits = match version {
            0 => parts.next().is_none(),
            version => version != 0xff,
        };
        let named = trace != [0; 16] && span != [0; 8];
        (fits && named).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// A trace of its own.
    pub(super) fn root() -> Self {
        Self { trace: fastrand::u128(1..).to_be_bytes(), span: new_span(), sampled: true }
    }

    /// A span within this one.
    pub(super) fn child(&self) -> Self {
        Self { span: new_span(), ..*self }
    }

    /// As the header `traceparent`.
    pub(super) fn header(&self) -> String {
        format!("00-{}-{}-{:02x}", hex(&self.trace), hex(&self.span), u8::from(self.sampled))
    }

    pub(super) fn trace_id(&self) -> String {
        hex(&self.trace)
    }
}

/// The vendors' entries that travel with a trace.
pub(super) fn state(headers: &HeaderMap) -> String {
    let values: Vec<_> =
        headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok()).collect();
    let state = values.join(",");
    if state.len() <= STATE_BYTES { state } else { String::new() }
}

pub(super) fn new_span() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `N` bytes in lower-case hexadecimal.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_taken_when_it_is_valid_and_as_none_when_it_is_not() {
        let context = Context::parse(VALID).unwrap();
        assert_eq!((context.header().as_str(), context.sampled), (VALID, true));
        assert!(!Context::parse(&VALID.replace("-01", "-02")).unwrap().sampled);
        assert!(Context::parse(&format!("{}-later", VALID.replacen("00", "cc", 1))).is_some());
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn two_traceparents_are_none_and_a_long_tracestate_is_left_out() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", VALID.parse().unwrap());
        headers.append("tracestate", "a=1".parse().unwrap());
        headers.append("tracestate", "b=2".parse().unwrap());
        assert!(Context::of(&headers).is_some());
        assert_eq!(state(&headers), "a=1,b=2");
        headers.append("traceparent", VALID.parse().unwrap());
        headers.append("tracestate", "x".repeat(512).parse().unwrap());
        assert!(Context::of(&headers).is_none());
        assert_eq!(state(&headers), "");
    }
}
