//! Times and sizes as people write them in project files: `250ms`, `2s`, `1h`, `64KiB`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};

pub(crate) use millstream_runtime::layers::Time;

/// A number of bytes, written as `512B`, `64KiB`, `16MiB` or `1GiB`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) usize);

const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A whole number from 1 and one of the units.
fn parse(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, scale)| *scale);
    let value = number.parse::<u64>().ok().zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
    value.filter(|value| *value > 0).ok_or_else(|| {
        let units: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is no whole number with one of the units {}, such as {example}", units.join(", "))
    })
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        let bytes = parse(&text, &SIZES, "`64MiB`").map_err(Error::custom)?;
        usize::try_from(bytes).map(Self).map_err(Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_a_unit_above_zero_and_up_to_a_year() {
        let read = |text: &str| {
            let time: Result<Time, _> = serde_json::from_value(text.into());
            time.ok().map(|time| time.0.as_millis())
        };
        for (text, millis) in [
            ("250ms", Some(250)),
            ("2 s", Some(2_000)),
            ("1.5s", Some(1_500)),
            ("2 s ", Some(2_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
        ] {
            assert_eq!(read(text), millis, "{text}");
        }
        for text in ["", "2", "s", "0s", "-1s", "2S", "99999999999999999999s", "18446744073709551615h", "2y"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_a_whole_number_with_a_unit() {
        for (text, bytes) in
            [("512B", Some(512)), ("64KiB", Some(65_536)), ("1 GiB", Some(1 << 30)), ("1MB", None)]
        {
            assert_eq!(parse(text, &SIZES, "`64MiB`").ok(), bytes, "{text}");
        }
    }
}
