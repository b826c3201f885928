//! Feature sets: features that are written together, and the keys by which they are read.

use std::collections::HashSet;

use arrow::datatypes::DataType;

use crate::{cell::Width, key::KeyKind};

/// Features that are written together, found by one or several keys.
///
/// Always sound: made by [`FeatureSetBuilder::build`], which checks names and types.
///
/// ```
/// use arrow::datatypes::DataType;
/// use millstream_featurestore::FeatureSet;
///
/// let cards = FeatureSet::builder("cards")
///     .key("card_id", DataType::Int64)
///     .feature("avg_amount", DataType::Float32)
///     .build()?;
/// assert_eq!(cards.features()[0].name, "avg_amount");
/// # Ok::<(), millstream_featurestore::DefinitionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureSet {
    name: String,
    keys: Vec<Column>,
    features: Vec<Column>,
    timestamp: Option<Column>,
    description: Option<String>,
    tags: Vec<String>,
}

/// A named, typed column of a feature set: a key, a feature or the event timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// The type in which the store holds it.
    pub data_type: DataType,
}

impl FeatureSet {
    /// Starts a definition.
    pub fn builder(name: impl Into<String>) -> FeatureSetBuilder {
        FeatureSetBuilder {
            set: Self {
                name: name.into(),
                keys: Vec::new(),
                features: Vec::new(),
                timestamp: None,
                description: None,
                tags: Vec::new(),
            },
        }
    }

    /// The set's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The keys, in the order in which lookups give them; at least one.
    pub fn keys(&self) -> &[Column] {
        &self.keys
    }

    /// The features, in order; at least one.
    pub fn features(&self) -> &[Column] {
        &self.features
    }

    /// The place of a feature among [`FeatureSet::features`].
    pub fn feature(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|feature| feature.name == name)
    }

    /// The event timestamp: of several rows with the same keys the latest counts, and of equally late ones the last.
    pub fn timestamp(&self) -> Option<&Column> {
        self.timestamp.as_ref()
    }

    /// What the set is, for people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Words to find the set by.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }
}

/// Collects a [`FeatureSet`].
#[derive(Clone, Debug)]
pub struct FeatureSetBuilder {
    set: FeatureSet,
}

impl FeatureSetBuilder {
    /// Adds a key: an integer, a string, a truth value, a date or a timestamp.
    #[must_use]
    pub fn key(mut self, name: impl Into<String>, data_type: DataType) -> Self {
        self.set.keys.push(Column { name: name.into(), data_type });
        self
    }

    /// Adds a feature: a number, a string, a truth value, a date or a timestamp.
    #[must_use]
    pub fn feature(mut self, name: impl Into<String>, data_type: DataType) -> Self {
        self.set.features.push(Column { name: name.into(), data_type });
        self
    }

    /// Names the event timestamp: a timestamp, a date, or an integer that grows with time.
    #[must_use]
    pub fn timestamp(mut self, name: impl Into<String>, data_type: DataType) -> Self {
        self.set.timestamp = Some(Column { name: name.into(), data_type });
        self
    }

    /// Says what the set is, for people.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.set.description = Some(text.into());
        self
    }

    /// Adds words to find the set by.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = String>) -> Self {
        self.set.tags.extend(tags);
        self
    }

    /// Checks the definition.
    ///
    /// # Errors
    /// With every problem at once: no key, no feature, a name given twice, a type that keys or features cannot have.
    pub fn build(self) -> Result<FeatureSet, DefinitionError> {
        let set = self.set;
        let mut problems = Vec::new();
        for (what, columns) in [("key", &set.keys), ("feature", &set.features)] {
            if columns.is_empty() {
                problems.push(format!("no {what}; a set has at least one"));
            }
        }
        let mut seen = HashSet::new();
        for column in set.keys.iter().chain(&set.features) {
            if !seen.insert(column.name.as_str()) {
                problems.push(format!("column `{}` is named twice among keys and features", column.name));
            }
        }
        for Column { name, data_type } in &set.keys {
            if KeyKind::of(data_type).is_none() {
                problems.push(format!("key `{name}` is {data_type}; {KEY_TYPES}"));
            }
        }
        for Column { name, data_type } in &set.features {
            if Width::of(data_type).is_none() {
                problems.push(format!("feature `{name}` is {data_type}; {FEATURE_TYPES}"));
            }
        }
        if let Some(Column { name, data_type }) = &set.timestamp {
            let time =
                data_type.is_integer() || matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
            if !time {
                problems.push(format!("timestamp `{name}` is {data_type}; {TIME_TYPES}"));
            }
        }
        if problems.is_empty() { Ok(set) } else { Err(DefinitionError { set: set.name, problems }) }
    }
}

const KEY_TYPES: &str = "a key is an integer, a string, a truth value, a date or a timestamp";
const FEATURE_TYPES: &str = "a feature is a number, a string, a truth value, a date or a timestamp";
const TIME_TYPES: &str = "an event timestamp is a timestamp, a date or an integer";

/// Everything that is wrong with the definition of a feature set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("feature set `{set}`: {}", problems.join("; "))]
pub struct DefinitionError {
    /// The set's name.
    pub set: String,
    /// The problems, one sentence each.
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
    fn check(builder: FeatureSetBuilder, expected: Expect) {
        let text = match builder.build() {
            Ok(set) => format!("{} keys, {} features", set.keys().len(), set.features().len()),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_definition_names_every_problem_at_once() {
        check(
            FeatureSet::builder("cards")
                .key("card", DataType::Float64)
                .feature("card", DataType::Float32)
                .feature("parts", DataType::new_list(DataType::Int8, true))
                .timestamp("at", DataType::Utf8),
            expect![
                "feature set `cards`: column `card` is named twice among keys and features; key `card` is Float64; a key is an integer, a string, a truth value, a date or a timestamp; feature `parts` is List(Int8); a feature is a number, a string, a truth value, a date or a timestamp; timestamp `at` is Utf8; an event timestamp is a timestamp, a date or an integer"
            ],
        );
        check(
            FeatureSet::builder("empty"),
            expect![
                "feature set `empty`: no key; a set has at least one; no feature; a set has at least one"
            ],
        );
    }

    #[test]
    fn a_timestamp_may_be_a_feature_too() {
        check(
            FeatureSet::builder("cards")
                .key("card", DataType::Utf8)
                .feature("at", DataType::Int64)
                .timestamp("at", DataType::Int64),
            expect!["1 keys, 1 features"],
        );
    }
}
