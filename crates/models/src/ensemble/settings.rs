//! Ensembles as settings.

use std::fmt;

use millstream_graph::SchemaError;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::Ensemble;
use crate::Keep;

/// Makes one column of several models' columns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnsembleSettings {
    /// How the members are combined.
    pub method: Method,
    /// The members' columns, with their weights; or a list of columns that weigh the same.
    pub members: Members,
    /// The name of the combined column.
    pub r#as: String,
    /// What happens when a member has no value for a row.
    #[serde(default)]
    pub missing: Missing,
    /// Which of the columns that come in are passed on.
    #[serde(default)]
    pub keep: Keep,
}

/// How members are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The weighted mean of numbers.
    WeightedMean,
    /// The class (a whole number or a text) with the most weight; of several, the lowest.
    MajorityVote,
    /// The largest number.
    Max,
}

/// What happens when a member has no value for a row: a null, or a branch that was skipped.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The row fails, and the error names the member.
    #[default]
    Fail,
    /// The member is left out and the weights of the others are scaled up; the reply says so.
    Renormalise,
    /// This number or class stands in for the member; the reply says so.
    Replace(Value),
}

/// The members of an ensemble, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Members {
    /// Columns that weigh the same.
    Alike(Vec<String>),
    /// Columns with their weights.
    Weighted(Vec<(String, f64)>),
}

impl TryFrom<EnsembleSettings> for Ensemble {
    type Error = SchemaError;

    fn try_from(settings: EnsembleSettings) -> Result<Self, SchemaError> {
        let EnsembleSettings { method, members, r#as: name, missing, keep } = settings;
        if method == Method::Max && matches!(members, Members::Weighted(_)) {
            return Err(SchemaError::new(
                "`max` takes no weights: list its members, as in `members: [a, b]`",
            ));
        }
        let members = match members {
            Members::Alike(members) => members.into_iter().map(|member| (member, 1.0)).collect(),
            Members::Weighted(members) => members,
        };
        let ensemble = match method {
            Method::WeightedMean => Self::weighted_mean(name, members),
            Method::MajorityVote => Self::majority_vote(name, members),
            Method::Max => Self::max(name, members.into_iter().map(|(member, _)| member)),
        };
        let ensemble = ensemble.missing(missing).keep(keep);
        ensemble.weights()?;
        Ok(ensemble)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("columns with weights, or a list of columns")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = list.next_element()? {
            members.push(member);
        }
        Ok(Members::Alike(members))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members::Weighted(members))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MembersVisitor)
    }
}

impl JsonSchema for Members {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Members".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Columns with their weights, or a list of columns that weigh the same.",
            "anyOf": [
                { "type": "object", "additionalProperties": { "type": "number", "minimum": 0 } },
                { "type": "array", "items": { "type": "string" } },
            ],
        })
    }
}
