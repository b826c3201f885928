//! Times as people write them in project files: `20ms`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// A longer time could not be added to the clock's.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A time above zero, of at most a year, as it stands in a file: `20ms`, `2s`, `1m 30s`.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_duration(&text).ok().filter(|time| !time.is_zero() && *time <= LONGEST);
        let refused = || serde::de::Error::custom(format!("`{text}` is no time; write it like 20ms or 2s"));
        time.map(Self).ok_or_else(refused)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A time, such as `20ms` or `2s`.",
            "pattern": "^[0-9]",
        })
    }
}
