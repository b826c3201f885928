//! The time that a caller waits, as headers give it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// A longer time than this is no bound; it keeps arithmetic away from overflow.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A header, how its value is read, and what it must be.
type Form = (&'static str, fn(&str) -> Option<Duration>, &'static str);

const MILLIS: &str = "x-request-timeout-ms";
const FORMS: [Form; 2] = [
    (MILLIS, millis, "a whole number of milliseconds"),
    ("grpc-timeout", grpc, "one to eight digits and a unit: H, M, S, m, u or n"),
];

/// The time that a header gives, or what the header must be that is not; `None` for headers that give none.
pub(crate) fn given(name: &str, value: &HeaderValue) -> Option<Result<Duration, String>> {
    let (name, read, wanted) = FORMS.iter().find(|(known, ..)| *known == name)?;
    let time = value.to_str().ok().and_then(read).map(|time| time.min(LONGEST));
    Some(time.ok_or_else(|| format!("header `{name}` must be {wanted}")))
}

/// The time that headers give, if they give one. What cannot be read is told by whoever runs the request.
pub(crate) fn of(headers: &HeaderMap) -> Option<Duration> {
    headers.iter().filter_map(|(name, value)| given(name.as_str(), value)?.ok()).min()
}

/// Leaves so much of the time that headers give.
pub(crate) fn shorten(headers: &mut HeaderMap, remains: Duration) {
    let millis = u64::try_from(remains.as_millis()).unwrap_or(u64::MAX);
    headers.append(HeaderName::from_static(MILLIS), millis.into());
}

/// Of two times the shorter, unless one of them is none.
pub(crate) fn shorter(
    one: Option<Result<Duration, String>>,
    other: Result<Duration, String>,
) -> Result<Duration, String> {
    match one {
        Some(Ok(one)) => other.map(|other| one.min(other)),
        Some(Err(error)) => Err(error),
        None => other,
    }
}

fn millis(text: &str) -> Option<Duration> {
    digits(text.trim()).map(Duration::from_millis)
}

/// As in gRPC over HTTP/2: `5S`, `100m`.
fn grpc(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 {
        return None;
    }
    let number = digits(number)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Digits and nothing else; more than 64 bits hold stand for as many as they do.
fn digits(text: &str) -> Option<u64> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], expected: Result<Option<Duration>, &str>) {
        let given = headers.iter().filter_map(|(name, value)| {
            super::given(name, &HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let given = given.fold(None, |before, given| Some(shorter(before, given))).transpose();
        match (&given, expected) {
            (Err(message), Err(part)) => assert!(message.contains(part), "{headers:?}: {message}"),
            (given, expected) => assert_eq!(given.clone(), expected.map_err(str::to_owned), "{headers:?}"),
        }
    }

    #[test]
    fn every_form_of_a_deadline_is_understood() {
        let of = |time| Ok(Some(time));
        check(&[], Ok(None));
        check(&[("x-request-timeout-ms", " 250 ")], of(Duration::from_millis(250)));
        check(&[("x-request-timeout-ms", "0")], of(Duration::ZERO));
        check(&[("x-request-timeout-ms", "99999999999999999999999")], of(LONGEST));
        for (text, time) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("5S", Duration::from_secs(5)),
            ("100m", Duration::from_millis(100)),
            ("7u", Duration::from_micros(7)),
            ("00000001n", Duration::from_nanos(1)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("99999999H", LONGEST),
        ] {
            check(&[("grpc-timeout", text)], of(time));
        }
    }

    #[test]
    fn the_shortest_deadline_counts() {
        let (long, short) = (("grpc-timeout", "2S"), ("x-request-timeout-ms", "5"));
        check(&[long, short], Ok(Some(Duration::from_millis(5))));
        check(&[("x-request-timeout-ms", "5000"), long], Ok(Some(Duration::from_secs(2))));
        check(&[("x-request-timeout-ms", "9"), short], Ok(Some(Duration::from_millis(5))));
    }

    #[test]
    fn what_remains_of_a_time_is_what_headers_give() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), None);
        headers.insert("grpc-timeout", HeaderValue::from_static("2S"));
        headers.append("x-request-timeout-ms", HeaderValue::from_static("soon"));
        headers.append("x-request-timeout-ms", HeaderValue::from_static("5000"));
        assert_eq!(of(&headers), Some(Duration::from_secs(2)));
        shorten(&mut headers, Duration::from_micros(1_500_900));
        assert_eq!(of(&headers), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_deadline_that_is_none_names_its_header() {
        for text in
            ["", "S", "5", "5s", "5 S", " 5S", "+5S", "-5S", "1.5S", "123456789S", "5SS", "0x5S", "5\u{e9}"]
        {
            check(&[("x-request-timeout-ms", "5"), ("grpc-timeout", text)], Err("`grpc-timeout`"));
        }
        for text in ["", "soon", "1.5", "-1", "+1", "1_000", "5S"] {
            check(&[("grpc-timeout", "5S"), ("x-request-timeout-ms", text)], Err("`x-request-timeout-ms`"));
        }
    }
}
