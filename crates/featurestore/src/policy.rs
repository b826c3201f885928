//! What becomes of features that are not there.

use std::{borrow::Cow, cell::OnceCell, fmt};

use indexmap::IndexMap;
use millstream_graph::suggest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

use crate::{Cell, Column, Distinct, Gap, Numbers, Profile, ProfileError};

/// What happens where a stored feature is not there. Statistics are those of all rows of the set that have a value, as they were
/// when the graph was compiled.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// The row leaves on the error port.
    Fail,
    /// The feature is null.
    Null,
    /// The feature's mean. Of numbers alone, as are the median and the extremes; rounded for integers.
    Mean,
    /// The feature's median.
    Median,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The most frequent value, of any type; of equally frequent ones the smallest.
    MostFrequent,
    /// This value.
    Default(serde_json::Value),
}

/// The policies that are a word.
static WORDS: [(&str, Policy); 7] = [
    ("fail", Policy::Fail),
    ("null", Policy::Null),
    ("mean", Policy::Mean),
    ("median", Policy::Median),
    ("min", Policy::Min),
    ("max", Policy::Max),
    ("most_frequent", Policy::MostFrequent),
];

impl Policy {
    /// What the policy puts into a gap of a feature, whose values look like `profile`.
    fn gap<'a>(
        &self,
        feature: &Column,
        profile: impl FnOnce() -> Result<&'a Profile, &'a ProfileError>,
    ) -> Result<Gap, String> {
        let Column { name, data_type } = feature;
        let number: fn(&Numbers) -> Option<f64> = match self {
            Self::Fail => return Ok(Gap::Fail),
            Self::Null => return Ok(Gap::Null),
            Self::Default(value) => {
                return Cell::from_json(value, data_type)
                    .map(Gap::Fill)
                    .ok_or_else(|| format!("default {value} for feature `{name}` is no {data_type}"));
            }
            Self::MostFrequent => |_| None,
            Self::Mean => |numbers| numbers.statistics.mean,
            Self::Median => Numbers::median,
            Self::Min => |numbers| numbers.statistics.min,
            Self::Max => |numbers| numbers.statistics.max,
        };
        let (word, any) = (self.word(), *self == Self::MostFrequent);
        if !any && !data_type.is_numeric() {
            return Err(format!(
                "feature `{name}` is {data_type} and has no {word}; give it a policy of its own"
            ));
        }
        let profile = profile().map_err(|error| format!("feature `{name}` has no {word}: {error}"))?;
        let cell = match &profile.numbers {
            Some(numbers) if !any => number(numbers).and_then(|value| Cell::from_f64(value, data_type)),
            _ => profile.frequent.first().and_then(|(value, _)| Cell::from_json(value, data_type)),
        };
        cell.map(Gap::Fill).ok_or_else(|| match profile.distinct {
            Distinct::MoreThan(counted) => {
                format!("feature `{name}` has no {word} that is known: it has more than {counted} different values")
            }
            Distinct::Exactly(_) => format!("feature `{name}` has no {word}: no row has a value"),
        })
    }

    /// The policy as it is written; `default` for one with a value.
    fn word(&self) -> &'static str {
        WORDS.iter().find(|(_, policy)| policy == self).map_or("default", |(word, _)| *word)
    }

    /// Whether it takes what other rows have.
    #[cfg(feature = "offline")]
    fn is_statistic(&self) -> bool {
        !matches!(self, Self::Fail | Self::Null | Self::Default(_))
    }
}

/// The policies for many features: for all, and for some of their own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policies {
    pub(crate) missing: Policy,
    pub(crate) nulls: Policy,
    pub(crate) own: IndexMap<String, Own>,
}

impl Policies {
    pub(crate) fn new(missing: Policy) -> Self {
        Self { missing, nulls: Policy::Null, own: IndexMap::new() }
    }

    /// What fills gaps of `feature`, whose policies are those of `name`: where there is no row, and where the row has null.
    /// `profile` is asked for at most once.
    pub(crate) fn gaps(
        &self,
        name: &str,
        feature: &Column,
        profile: impl Fn() -> Result<Profile, ProfileError>,
    ) -> [Result<Gap, String>; 2] {
        let own = self.own.get(name);
        let missing = own.and_then(|own| own.missing.as_ref()).unwrap_or(&self.missing);
        let nulls = own.and_then(|own| own.nulls.as_ref()).unwrap_or(&self.nulls);
        let known = OnceCell::new();
        [missing, nulls].map(|policy| policy.gap(feature, || known.get_or_init(&profile).as_ref()))
    }

    /// The same without what would be taken from other rows.
    #[cfg(feature = "offline")]
    pub(crate) fn without_statistics(mut self) -> Self {
        let own = self.own.values_mut().flat_map(|own| [&mut own.missing, &mut own.nulls]).flatten();
        let all = [&mut self.missing, &mut self.nulls].into_iter().chain(own);
        all.filter(|policy| policy.is_statistic()).for_each(|policy| *policy = Policy::Null);
        self
    }
}

/// What happens where one feature is not there, in place of what happens for all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Policies")]
pub(crate) struct Own {
    /// What happens where a key has no row.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub(crate) missing: Option<Policy>,
    /// What happens where a row has null.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub(crate) nulls: Option<Policy>,
}

/// In YAML `null` is a value of its own; written here it means the policy, not that there is none.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Policy>, D::Error> {
    Policy::deserialize(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl<'de> de::Visitor<'de> for Word {
            type Value = Policy;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                WORDS.iter().try_for_each(|(word, _)| write!(f, "`{word}`, "))?;
                f.write_str("or `{default: VALUE}`")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Policy, E> {
                Ok(Policy::Null)
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Policy, E> {
                if let Some((_, policy)) = WORDS.iter().find(|(known, _)| *known == word) {
                    return Ok(policy.clone());
                }
                if word == "default" {
                    return Err(E::custom("a default needs its value: `{default: VALUE}`"));
                }
                let known = WORDS.iter().map(|(word, _)| *word).chain(["default"]);
                Err(E::custom(suggest::unknown("policy", word, known)))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Policy, A::Error> {
                let policy = match map.next_key::<String>()? {
                    Some(key) if key == "default" => Policy::Default(map.next_value()?),
                    Some(key) => {
                        return Err(de::Error::custom(suggest::unknown("policy", &key, ["default"])));
                    }
                    None => return Err(de::Error::custom("no policy is given: `{default: VALUE}`")),
                };
                match map.next_key::<String>()? {
                    None => Ok(policy),
                    Some(key) => Err(de::Error::custom(format!("`{key}` has no meaning beside `default`"))),
                }
            }
        }
        deserializer.deserialize_any(Word)
    }
}

impl JsonSchema for Policy {
    fn schema_name() -> Cow<'static, str> {
        "Policy".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What happens where a stored feature is not there: the row fails, the feature is null, it is what other rows of its set have (their mean, median, smallest, largest or most frequent value), or it is a value.",
            "anyOf": [
                { "enum": ["fail", "null", "mean", "median", "min", "max", "most_frequent", null] },
                { "type": "object", "properties": { "default": {} }, "required": ["default"], "additionalProperties": false },
            ],
        })
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Default(value) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("default", value)?;
                map.end()
            }
            word => serializer.serialize_str(word.word()),
        }
    }
}
