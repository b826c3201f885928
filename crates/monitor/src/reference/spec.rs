//! What a project file says that live values are compared with.

use std::{fmt, path::PathBuf, time::Duration};

use chrono::DateTime;
use millstream_graph::spec::Time;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::history::Keep;

/// What live values are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceSpec {
    /// A training set, or its statistics.
    File(PathBuf),
    /// The statistics of the model of this name.
    Model(String),
    /// What the port carried before.
    Past(Past),
}

/// A stretch of time that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// The window that ended so long ago.
    Before(Duration),
    /// From one time on and before another, in microseconds since 1970 UTC.
    Between(i64, i64),
}

/// Panes older than `keep.fine` are of whole hours: nothing before is told apart.
const LEAST: Duration = Duration::from_secs(3600);
/// A pane for each hour is kept of this time, which costs memory.
const MOST: Duration = Duration::from_secs(35 * 24 * 3600);
/// What is kept beyond `past`: the longest window, and what is rounded to whole hours.
const SPARE: Duration = Duration::from_secs(8 * 3600);
const HOUR: i64 = 3_600_000_000;

/// One of the keys, or `from` and `to`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReferenceKeys {
    /// The window that ended so long ago, from `1h` to `35d`: it moves with the time.
    past: Option<Time>,
    /// From this time on: `2026-11-01T00:00:00Z`.
    from: Option<String>,
    /// Before this time.
    to: Option<String>,
    /// The statistics of this model of the project.
    model: Option<String>,
}

impl Past {
    /// The stretch as of a time, beside a window of this length, in microseconds. What moves with the time moves by whole hours, because
    /// panes of the past are of such.
    pub fn stretch(self, now: i64, window: i64) -> (i64, i64) {
        match self {
            Self::Between(from, to) => (from, to),
            Self::Before(before) => {
                let before = i64::try_from(before.as_micros()).unwrap_or(i64::MAX);
                let hours = |micros: i64| micros.saturating_add(HOUR / 2).div_euclid(HOUR);
                let to = hours(now.saturating_sub(before)).saturating_mul(HOUR);
                (to.saturating_sub(hours(window).max(1).saturating_mul(HOUR)), to)
            }
        }
    }

    /// How long panes have to be kept, at least, so that those of the stretch are there, an hour each.
    #[must_use]
    pub fn keep(self, keep: Keep) -> Keep {
        match self {
            Self::Before(before) => Keep { hours: keep.hours.max(before + SPARE), ..keep },
            Self::Between(..) => keep,
        }
    }
}

impl TryFrom<ReferenceKeys> for ReferenceSpec {
    type Error = String;

    fn try_from(keys: ReferenceKeys) -> Result<Self, String> {
        match keys {
            ReferenceKeys { past: Some(Time(past)), from: None, to: None, model: None } => {
                let within = (LEAST..=MOST).contains(&past);
                within
                    .then_some(Self::Past(Past::Before(past)))
                    .ok_or_else(|| "`past` is from 1h to 35d; name older times by `from` and `to`".to_owned())
            }
            ReferenceKeys { past: None, from: Some(from), to: Some(to), model: None } => {
                let (from, to) = (time(&from)?, time(&to)?);
                if from >= to {
                    return Err("`from` is not before `to`".to_owned());
                }
                Ok(Self::Past(Past::Between(from, to)))
            }
            ReferenceKeys { past: None, from: None, to: None, model: Some(model) } => Ok(Self::Model(model)),
            _ => Err(format!("a reference is {FORMS}")),
        }
    }
}

fn time(text: &str) -> Result<i64, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.timestamp_micros())
        .map_err(|_| format!("`{text}` is no time; write it like 2026-11-01T00:00:00Z"))
}

const FORMS: &str =
    "a file, `{ past: 7d }`, `{ from: 2026-11-01T00:00:00Z, to: 2026-11-08T00:00:00Z }` or `{ model: name }`";

impl<'de> Deserialize<'de> for ReferenceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = ReferenceSpec;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(FORMS)
            }

            fn visit_str<E: de::Error>(self, file: &str) -> Result<ReferenceSpec, E> {
                Ok(ReferenceSpec::File(file.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ReferenceSpec, A::Error> {
                let keys = ReferenceKeys::deserialize(MapAccessDeserializer::new(map))?;
                keys.try_into().map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for ReferenceSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ReferenceSpec".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let keys = generator.subschema_for::<ReferenceKeys>();
        schemars::json_schema!({
            "anyOf": [
                { "type": "string", "description": "A training set as Parquet or CSV, or its statistics." },
                keys,
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = HOUR / 60;

    #[test]
    fn a_reference_is_a_file_a_model_or_a_time() {
        let week = Duration::from_secs(7 * 24 * 3600);
        let cases = [
            (r#""data/train.parquet""#, Ok(ReferenceSpec::File("data/train.parquet".into()))),
            (r#"{"model": "lgbm"}"#, Ok(ReferenceSpec::Model("lgbm".to_owned()))),
            (r#"{"past": "7d"}"#, Ok(ReferenceSpec::Past(Past::Before(week)))),
            (
                r#"{"from": "1970-01-01T00:00:01Z", "to": "1970-01-01T02:00:02+02:00"}"#,
                Ok(ReferenceSpec::Past(Past::Between(1_000_000, 2_000_000))),
            ),
            (r#"{"past": "59m"}"#, Err("`past` is from 1h to 35d; name older times by `from` and `to`")),
            (r#"{"past": "36d"}"#, Err("`past` is from 1h to 35d")),
            (r#"{"from": "yesterday", "to": "1970-01-01T00:00:02Z"}"#, Err("`yesterday` is no time")),
            (
                r#"{"from": "1970-01-01T00:00:02Z", "to": "1970-01-01T00:00:02Z"}"#,
                Err("`from` is not before `to`"),
            ),
            (r#"{"from": "1970-01-01T00:00:02Z"}"#, Err("a reference is a file, `{ past: 7d }`")),
            (r#"{"past": "7d", "model": "lgbm"}"#, Err("a reference is a file")),
            ("{}", Err("a reference is a file")),
            (r#"{"pats": "7d"}"#, Err("unknown field `pats`")),
            ("7", Err("expected a file, `{ past: 7d }`")),
        ];
        for (text, expected) in cases {
            match (serde_json::from_str::<ReferenceSpec>(text), expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{text}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{text}: {error}")
                }
                (read, expected) => panic!("{text}: {read:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_past_window_is_as_long_as_the_window_in_whole_hours() {
        let day = Past::Before(Duration::from_secs(24 * 3600));
        let (noon, minutes) = (36 * HOUR, |minutes: i64| minutes * MINUTE);
        let cases = [
            (day, noon, HOUR, (11 * HOUR, 12 * HOUR)),
            (day, noon + minutes(29), HOUR, (11 * HOUR, 12 * HOUR)),
            (day, noon + minutes(30), HOUR, (12 * HOUR, 13 * HOUR)),
            (day, noon, minutes(10), (11 * HOUR, 12 * HOUR)),
            (day, noon, 6 * HOUR + 1, (6 * HOUR, 12 * HOUR)),
            (Past::Between(3, 7), noon, HOUR, (3, 7)),
        ];
        for (past, now, window, expected) in cases {
            assert_eq!(past.stretch(now, window), expected, "{past:?} at {now}");
        }
        for now in [i64::MIN, i64::MAX] {
            let (from, to) = day.stretch(now, i64::MAX);
            assert!(from <= to);
        }
    }

    #[test]
    fn panes_are_kept_by_the_hour_for_as_long_as_the_past_is_asked_for() {
        let keep = Keep::default();
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        let hours = |past: Past| past.keep(keep).hours;
        assert_eq!(hours(Past::Before(days(1))), keep.hours);
        assert_eq!(hours(Past::Before(days(14))), days(14) + SPARE);
        assert_eq!(Past::Between(0, 1).keep(keep), keep);
    }
}
