//! `enrich` as a spec file has it.

use std::{borrow::Cow, fmt, sync::Arc};

use indexmap::IndexMap;
use millstream_graph::{Step, spec::StepKind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{By, Enrich};
use crate::{
    OnlineStore,
    policy::{Own, Policies, Policy},
};

/// The kinds of step that read from `store` and write into it: `enrich`, `ingest`.
///
/// ```yaml
/// enrich:
///   set: cards
///   by: card_id
///   features: [avg_amount, "max_amount AS largest"]
///   missing: fail
///   nulls: mean
/// ```
pub fn kinds(store: Arc<dyn OnlineStore>) -> Vec<StepKind> {
    let ingest = crate::ingest::kind(Arc::clone(&store));
    let enrich = move |settings: EnrichSettings| {
        Ok(Arc::new(Enrich::from_settings(Arc::clone(&store), settings)) as Arc<dyn Step>)
    };
    vec![StepKind::new("enrich", enrich), ingest]
}

/// Adds stored features to each row, found by the keys that the row carries.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EnrichSettings {
    /// The feature set.
    set: String,
    /// The columns that carry the keys: one, a list in the order of the set's keys, or the column of each key. By
    /// default the columns named like the keys.
    #[serde(default)]
    by: By,
    /// The column with the time for which features are read: a timestamp, a date, or whole microseconds since 1970 UTC. By default
    /// the present.
    #[serde(default)]
    at: Option<String>,
    /// The features to add: `avg`, `avg AS usual`, or `*` for all, which is the default.
    #[serde(default)]
    features: Features,
    /// Put before the name of every feature that has no name of its own by `AS`.
    #[serde(default)]
    prefix: String,
    /// What happens where a key has no row. By default the row leaves on the error port.
    #[serde(default = "fail")]
    missing: Policy,
    /// What happens where a row has null. By default it stays null.
    #[serde(default = "null")]
    nulls: Policy,
    /// What happens for single features, in place of `missing` and `nulls`.
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, Own>")]
    policies: IndexMap<String, Own>,
}

fn fail() -> Policy {
    Policy::Fail
}

fn null() -> Policy {
    Policy::Null
}

impl Enrich {
    fn from_settings(store: Arc<dyn OnlineStore>, settings: EnrichSettings) -> Self {
        let EnrichSettings { set, by, at, features, prefix, missing, nulls, policies } = settings;
        let mut step = Self::new(store, set).features(features.0).prefix(prefix);
        (step.by, step.at) = (by, at);
        step.policies = Policies { missing, nulls, own: policies };
        step
    }
}

/// One feature or several; none means all.
#[derive(Debug, Default)]
struct Features(Vec<String>);

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> de::Visitor<'de> for Names {
            type Value = Features;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a feature, a list of features, or `*`")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Features, E> {
                Ok(Features(vec![name.to_owned()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Features, A::Error> {
                let names: Vec<String> =
                    Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
                if names.is_empty() {
                    return Err(de::Error::custom("no feature is named; leave `features` out to add all"));
                }
                Ok(Features(names))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

impl JsonSchema for Features {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Features".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] })
    }
}

impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> de::Visitor<'de> for Columns {
            type Value = By;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column, a list of columns, or a column for each key")
            }
            fn visit_str<E: de::Error>(self, column: &str) -> Result<By, E> {
                Ok(By::Columns(vec![column.to_owned()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<By, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(By::Columns)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<By, A::Error> {
                Deserialize::deserialize(de::value::MapAccessDeserializer::new(map)).map(By::Named)
            }
        }
        deserializer.deserialize_any(Columns)
    }
}

impl JsonSchema for By {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "By".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" } },
            { "type": "object", "additionalProperties": { "type": "string" } },
        ] })
    }
}
