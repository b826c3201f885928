//! Feature sets: features that are written together, and the keys by which they are read.

use std::{collections::HashSet, sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::{AggregateSpec, Aggregates, Compile, Conditions, cell::Width, key::KeyKind};

/// Features that are written together, found by one or several keys.
///
/// A set may aggregate its events over windows. Then its rows are events, and it has the windows as features beside those of
/// its own, which are the latest event's.
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
    /// Those of its own, then the windows.
    features: Vec<Column>,
    own: usize,
    /// What events carry beside keys and own features.
    raw: Vec<Column>,
    windows: Option<Windows>,
    timestamp: Option<Column>,
    description: Option<String>,
    tags: Vec<String>,
}

/// Aggregates as they were declared, and as they were made of that.
#[derive(Clone, Debug)]
struct Windows {
    specs: Vec<AggregateSpec>,
    lateness: Duration,
    made: Arc<Aggregates>,
}

impl PartialEq for Windows {
    fn eq(&self, other: &Self) -> bool {
        (&self.specs, self.lateness) == (&other.specs, other.lateness)
    }
}

impl Eq for Windows {}

/// A named, typed column of a feature set: a key, a feature, the event timestamp, or what events carry for windows.
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
                own: 0,
                raw: Vec::new(),
                windows: None,
                timestamp: None,
                description: None,
                tags: Vec::new(),
            },
            aggregates: Vec::new(),
            lateness: Duration::ZERO,
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

    /// The features as readers see them, in order: those of its own, then the windows. At least one.
    pub fn features(&self) -> &[Column] {
        &self.features
    }

    /// The features that are written: all but the windows.
    pub fn own_features(&self) -> &[Column] {
        &self.features[..self.own]
    }

    /// The columns that a writer gives: keys, own features, and what windows aggregate beside them.
    pub fn event_columns(&self) -> impl Iterator<Item = &Column> {
        self.keys.iter().chain(self.own_features()).chain(&self.raw)
    }

    /// What windows aggregate beside keys and own features.
    pub(crate) fn raw_columns(&self) -> &[Column] {
        &self.raw
    }

    /// The aggregates as they were declared; none for a set without windows.
    pub fn aggregates(&self) -> &[AggregateSpec] {
        self.windows.as_ref().map_or(&[], |windows| &windows.specs)
    }

    /// How much older than the newest event of its key an event may be to be part of the windows.
    pub fn lateness(&self) -> Duration {
        self.windows.as_ref().map_or(Duration::ZERO, |windows| windows.lateness)
    }

    /// The aggregates, checked and typed; `None` for a set without windows.
    pub fn windows(&self) -> Option<&Arc<Aggregates>> {
        self.windows.as_ref().map(|windows| &windows.made)
    }

    /// The schema of [`FeatureSet::event_columns`].
    pub(crate) fn event_schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name, column.data_type.clone(), true);
        Arc::new(Schema::new(self.event_columns().map(field).collect::<Vec<_>>()))
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

    /// All that its rows follow from, line by line.
    pub(crate) fn described(&self) -> String {
        let line = |kind: &'static str| {
            move |Column { name, data_type }: &Column| format!("{kind} {name:?} {data_type}\n")
        };
        let mut text = format!("set {:?}\n", self.name);
        text.extend(self.keys.iter().map(line("key")));
        text.extend(self.own_features().iter().map(line("feature")));
        text.extend(self.raw.iter().map(line("event")));
        text.extend(self.timestamp.iter().map(line("timestamp")));
        if let Some(Windows { specs, lateness, .. }) = &self.windows {
            // A spec is plain data.
            let specs = serde_json::to_string(specs).unwrap_or_default();
            text += &format!("aggregates {specs} {}\n", lateness.as_micros());
        }
        text
    }
}

/// Collects a [`FeatureSet`].
#[derive(Clone, Debug)]
pub struct FeatureSetBuilder {
    set: FeatureSet,
    aggregates: Vec<AggregateSpec>,
    lateness: Duration,
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

    /// Adds a column that events carry for windows to aggregate, and that is no feature itself.
    #[must_use]
    pub fn event_column(mut self, name: impl Into<String>, data_type: DataType) -> Self {
        self.set.raw.push(Column { name: name.into(), data_type });
        self
    }

    /// Adds windows over the columns of the events. Events up to `lateness` older than the newest one of their key are part of
    /// them.
    #[must_use]
    pub fn aggregates(mut self, specs: impl IntoIterator<Item = AggregateSpec>, lateness: Duration) -> Self {
        self.aggregates.extend(specs);
        self.lateness = lateness;
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

    /// Checks the definition, of which no aggregate has a `where`.
    ///
    /// # Errors
    /// As [`FeatureSetBuilder::build_with`].
    pub fn build(self) -> Result<FeatureSet, DefinitionError> {
        self.build_with(&|_| Err("nothing here reads expressions".to_owned()))
    }

    /// The same as [`FeatureSetBuilder::build_with`], with conditions over the columns of the events.
    pub(crate) fn build_over(mut self, conditions: &Conditions) -> Result<FeatureSet, DefinitionError> {
        self.set.own = self.set.features.len();
        let events = self.set.event_schema();
        self.build_with(&|text| Ok(conditions.make(text, &events)?.predicate))
    }

    /// Checks the definition. `compile` makes a predicate of what stands under `where` in aggregates.
    ///
    /// # Errors
    /// With every problem at once: no key, no feature, a name given twice, a type that keys or features cannot have, aggregates
    /// that are not sound.
    pub fn build_with(self, compile: &Compile<'_>) -> Result<FeatureSet, DefinitionError> {
        let Self { mut set, aggregates: specs, lateness } = self;
        let mut problems = set.problems();
        set.own = set.features.len();
        if !specs.is_empty() {
            match Aggregates::new(&specs, &set.event_schema(), lateness, compile) {
                Ok(made) => {
                    set.features.extend_from_slice(made.columns());
                    set.windows = Some(Windows { specs, lateness, made: Arc::new(made) });
                }
                Err(error) => problems.extend(error.problems),
            }
        } else if set.features.is_empty() {
            problems.push("no feature; a set has at least one".to_owned());
        }
        let mut seen = HashSet::new();
        for Column { name, .. } in set.keys.iter().chain(&set.features).chain(&set.raw) {
            if RESERVED.contains(&name.as_str()) {
                problems.push(format!(
                    "column `{name}`: the name is taken by what logs keep of a row; name it otherwise"
                ));
            }
            if !seen.insert(name.as_str()) {
                problems.push(format!("column `{name}` is named twice among keys and features"));
            }
        }
        if problems.is_empty() { Ok(set) } else { Err(DefinitionError { set: set.name, problems }) }
    }
}

impl FeatureSet {
    /// What is wrong with the columns of a set that is being built, each by itself.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.keys.is_empty() {
            problems.push("no key; a set has at least one".to_owned());
        }
        for Column { name, data_type } in &self.keys {
            if KeyKind::of(data_type).is_none() {
                problems.push(format!("key `{name}` is {data_type}; {KEY_TYPES}"));
            }
        }
        for (what, columns) in [("feature", &self.features), ("event column", &self.raw)] {
            for Column { name, data_type } in
                columns.iter().filter(|column| Width::of(&column.data_type).is_none())
            {
                problems.push(format!("{what} `{name}` is {data_type}; {FEATURE_TYPES}"));
            }
        }
        if let Some(Column { name, data_type }) = &self.timestamp {
            let time = is_time(data_type);
            if !time {
                problems.push(format!("timestamp `{name}` is {data_type}; {TIME_TYPES}"));
            }
        }
        problems
    }
}

/// Whether a column of this type can be a time.
pub(crate) fn is_time(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Timestamp(..) | DataType::Date32)
}

/// Columns that logs put beside those of a set.
const RESERVED: [&str; 4] = ["_event", "_created", "_valid_to", "_sequence"];

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
                "feature set `cards`: key `card` is Float64; a key is an integer, a string, a truth value, a date or a timestamp; feature `parts` is List(Int8); a feature is a number, a string, a truth value, a date or a timestamp; timestamp `at` is Utf8; an event timestamp is a timestamp, a date or an integer; column `card` is named twice among keys and features"
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
