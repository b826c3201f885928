//! What becomes of features that are not there.

use std::{borrow::Cow, fmt};

use indexmap::IndexMap;
use millstream_graph::suggest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

use crate::{Cell, Column, Gap};

/// What happens where a stored feature is not there.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// The row leaves on the error port.
    Fail,
    /// The feature is null.
    Null,
    /// The mean of the feature over all rows of its set, as it was when the graph was compiled. Rounded for integers.
    Mean,
    /// This value.
    Default(serde_json::Value),
}

impl Policy {
    /// What the policy puts into a gap of a feature, whose mean is `mean`.
    pub(crate) fn gap(&self, feature: &Column, mean: impl FnOnce() -> Option<f64>) -> Result<Gap, String> {
        let Column { name, data_type } = feature;
        match self {
            Self::Fail => Ok(Gap::Fail),
            Self::Null => Ok(Gap::Null),
            Self::Default(value) => Cell::from_json(value, data_type)
                .map(Gap::Fill)
                .ok_or_else(|| format!("default {value} for feature `{name}` is no {data_type}")),
            Self::Mean if !data_type.is_numeric() => {
                Err(format!("feature `{name}` is {data_type} and has no mean; give it a policy of its own"))
            }
            Self::Mean => {
                let cell = mean().and_then(|mean| Cell::from_f64(mean, data_type));
                cell.map(Gap::Fill).ok_or_else(|| format!("feature `{name}` has no mean: no row has a value"))
            }
        }
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
    pub(crate) fn gaps(
        &self,
        name: &str,
        feature: &Column,
        mean: impl Fn() -> Option<f64>,
    ) -> [Result<Gap, String>; 2] {
        let own = self.own.get(name);
        let missing = own.and_then(|own| own.missing.as_ref()).unwrap_or(&self.missing);
        let nulls = own.and_then(|own| own.nulls.as_ref()).unwrap_or(&self.nulls);
        [missing.gap(feature, &mean), nulls.gap(feature, &mean)]
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

const POLICIES: [&str; 3] = ["fail", "null", "mean"];

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl<'de> de::Visitor<'de> for Word {
            type Value = Policy;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`fail`, `null`, `mean` or `{default: VALUE}`")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Policy, E> {
                Ok(Policy::Null)
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Policy, E> {
                match word {
                    "fail" => Ok(Policy::Fail),
                    "null" => Ok(Policy::Null),
                    "mean" => Ok(Policy::Mean),
                    "default" => Err(E::custom("a default needs its value: `{default: VALUE}`")),
                    other => Err(E::custom(suggest::unknown(
                        "policy",
                        other,
                        POLICIES.into_iter().chain(["default"]),
                    ))),
                }
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
            "description": "What happens where a stored feature is not there: the row fails, the feature is null, it is the mean of its set, or it is a value.",
            "anyOf": [
                { "enum": ["fail", "null", "mean", null] },
                { "type": "object", "properties": { "default": {} }, "required": ["default"], "additionalProperties": false },
            ],
        })
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fail => serializer.serialize_str("fail"),
            Self::Null => serializer.serialize_unit(),
            Self::Mean => serializer.serialize_str("mean"),
            Self::Default(value) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("default", value)?;
                map.end()
            }
        }
    }
}
