//! Feature vectors as a project file names them.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Vector;
use crate::{
    TypeName, WindowLength,
    policy::{Own, Policies, Policy},
};

/// One entry of `feature_vectors:` in a project file.
///
/// ```yaml
/// feature_vectors:
///   fraud:
///     features: [cards.amount_sum_1h AS spent, "merchants.*"]
///     by: { merchants: cards.home_merchant }
///     input: { amount: float64 }
///     max_staleness: 1h
///     label: { feature: chargebacks.is_fraud, after: 90d }
///     with: { ratio: amount / spent }
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VectorSpec {
    /// The features: `set.feature`, `set.feature AS name`, or `set.*` for all of a set.
    features: Vec<String>,
    /// What carries the keys of a set, in their order: columns that come in, or features of other sets, as in
    /// `cards.home_merchant`. By default the columns named like the keys.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, Columns>")]
    by: IndexMap<String, Columns>,
    /// Columns that come in beside keys, for expressions to use; or keys, where the type of their set is not meant.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, TypeName>")]
    input: IndexMap<String, TypeName>,
    /// What happens where a key has no row that may be used. By default the feature is null.
    #[serde(default = "null", skip_serializing_if = "is_null")]
    missing: Policy,
    /// What happens where a row has null. By default it stays null.
    #[serde(default = "null", skip_serializing_if = "is_null")]
    nulls: Policy,
    /// What happens for the features of single columns, in place of `missing` and `nulls`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, Own>")]
    policies: IndexMap<String, Own>,
    /// How old a row may be, such as `1h`, whatever its set allows: an older one is as good as none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_staleness: Option<WindowLength>,
    /// What is to be predicted. Training sets have it as their last column; serving leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<LabelSpec>,
    /// Columns by SQL expression over the features and what comes in. A later one sees those before it.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    with: IndexMap<String, String>,
    /// What the vector is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Words to find the vector by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

/// The label of a feature vector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelSpec {
    /// The feature: `set.feature`, maybe `AS name`.
    feature: String,
    /// How long after a row's time the label is taken as it is then known, such as `90d`.
    after: WindowLength,
}

fn null() -> Policy {
    Policy::Null
}

fn is_null(policy: &Policy) -> bool {
    *policy == Policy::Null
}

impl VectorSpec {
    /// The vector under the name `name`.
    pub fn vector(&self, name: &str) -> Vector {
        let length = |length: &WindowLength| Duration::from_micros(length.micros().unsigned_abs());
        let mut vector = Vector::new(name).features(&self.features);
        vector.by = self.by.iter().map(|(set, by)| (set.clone(), by.0.clone())).collect();
        vector.input = self.input.iter().map(|(name, kind)| (name.clone(), kind.data_type())).collect();
        vector.policies =
            Policies { missing: self.missing.clone(), nulls: self.nulls.clone(), own: self.policies.clone() };
        vector.max_staleness = self.max_staleness.as_ref().map(length);
        vector.with = self.with.clone().into_iter().collect();
        if let Some(LabelSpec { feature, after }) = &self.label {
            vector = vector.label(feature, length(after));
        }
        vector.description.clone_from(&self.description);
        vector.tagged(self.tags.iter().cloned())
    }
}

/// One column or several.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Columns(Vec<String>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a column, or a list of columns")]
        enum Written {
            One(String),
            Many(Vec<String>),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::One(column) => vec![column],
            Written::Many(columns) => columns,
        }))
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Columns {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Columns".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
    fn check(value: serde_json::Value, expected: Expect) {
        let text = match serde_json::from_value::<VectorSpec>(value) {
            Ok(spec) => serde_json::to_string(&spec).unwrap(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_spec_round_trips_and_refuses_what_it_does_not_know() {
        check(json!({"features": ["cards.*"]}), expect![[r#"{"features":["cards.*"]}"#]]);
        check(
            json!({"features": ["cards.avg AS usual"], "by": {"cards": "card", "shops": ["cards.shop"]},
                   "input": {"amount": "float64"}, "missing": "mean", "nulls": null,
                   "policies": {"usual": {"missing": {"default": 7}, "nulls": null}}, "max_staleness": "1h",
                   "label": {"feature": "chargebacks.is_fraud", "after": "90d"}, "with": {"z": "a", "a": "z"},
                   "description": "d", "tags": ["t"]}),
            expect![[
                r#"{"features":["cards.avg AS usual"],"by":{"cards":["card"],"shops":["cards.shop"]},"input":{"amount":"float64"},"missing":"mean","policies":{"usual":{"missing":{"default":7},"nulls":null}},"max_staleness":"1h","label":{"feature":"chargebacks.is_fraud","after":"90d"},"with":{"z":"a","a":"z"},"description":"d","tags":["t"]}"#
            ]],
        );
        check(json!({"features": [], "by": {"cards": 7}}), expect!["a column, or a list of columns"]);
        check(
            json!({"features": ["cards.*"], "missing": "nul"}),
            expect!["no policy `nul`; did you mean `null`?"],
        );
        check(
            json!({"features": ["cards.*"], "max_staleness": "soon"}),
            expect![
                "`soon` is no length of time; write a whole number and one of ms, s, m, h, d, w, up to ten years, such as `24h`"
            ],
        );
    }

    #[test]
    fn the_schema_documents_every_field() {
        let schema = serde_json::to_value(schemars::schema_for!(VectorSpec)).unwrap();
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{name}");
        }
        assert_eq!(schema["additionalProperties"], json!(false));
    }
}
