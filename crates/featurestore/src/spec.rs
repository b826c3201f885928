//! Feature sets as a project file names them.

use std::{borrow::Cow, fmt, path::Path, sync::Arc, time::Duration};

use arrow::datatypes::{DataType, TimeUnit};
use indexmap::IndexMap;
use millstream_graph::suggest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[cfg(feature = "offline")]
use crate::OfflineSpec;
use crate::{
    AggregateSpec, AsideSpec, DefinitionError, LoadError, LoadOptions, MemoryTable, OnlineSpec, RuleSpec,
    StoredSet, Stores, WindowLength, WritableSet,
    load::{self, Defined},
    online::Wanted,
};

/// One entry of `feature_sets:` in a project file.
///
/// ```yaml
/// feature_sets:
///   cards:
///     keys: [card_id]
///     source: data/cards.parquet
///   visits:
///     keys: [card_id]
///     types: { card_id: int64 }
///     timestamp: at
///     features: { count: int64 }
///     online: { local: { path: state/visits } }
///   spending:
///     keys: [card_id]
///     types: { card_id: int64, amount: float64, country: string }
///     timestamp: at
///     aggregates:
///       - { column: amount, functions: [count, sum], windows: [1h, 24h] }
///       - { column: amount, functions: [sum], windows: [24h], where: country <> 'US', name: abroad }
///     lateness: 1h
///     online: memory
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureSetSpec {
    /// The columns by which rows are found.
    pub keys: Vec<String>,
    /// The file the rows come from, inside the project's folder: `.parquet`, `.csv` (with a header), `.jsonl`; or a folder of such
    /// and those in it, or a last part with `*`; or the folder of a Delta table. A set with `online` takes them when it is opened,
    /// and needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The event timestamp: of several rows with the same keys the latest counts, and of equally late ones the last in
    /// the file. Without it every key may stand in the file only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The column that says when a row became known: of equally late rows the one with the latest counts. For sets with `online`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The column that says until when a row may be used, inclusive. For sets with `online`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<String>,
    /// For how long after its event a row may be used, such as `30d`; for ever by default. For sets with `online`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<WindowLength>,
    /// Where the rows lie while they change. Without it the set is its file, and takes no rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<OnlineSpec>,
    /// Where everything that the set takes is kept, to train models on: a log of Parquet files. For sets with `online: {local: …}`.
    #[cfg(feature = "offline")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineSpec>,
    /// The features and their types. By default: every other column of the file, typed as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<std::collections::BTreeMap<String, TypeName>>")]
    pub features: Option<IndexMap<String, TypeName>>,
    /// Types of columns, where those found in the file are not meant.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, TypeName>")]
    pub types: IndexMap<String, TypeName>,
    /// Functions of the events over windows of event time, which become features. A set with aggregates has no other features
    /// than those that `features` names; what else events carry stands under `types`. For sets with `online`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregates: Vec<AggregateSpec>,
    /// How much older than the newest event of its key an event may be to be part of the windows, such as `1h`. By default not
    /// at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness: Option<WindowLength>,
    /// What rows must keep, by name. Rows that come over HTTP, from files, streams and graphs are checked alike. For sets with
    /// `online`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, RuleSpec>")]
    pub rules: IndexMap<String, RuleSpec>,
    /// A graph of the project that every row passes before it is taken: it takes what comes over HTTP, from files, streams and
    /// graphs, and answers rows of the set, whose columns have their types here. For sets with `online`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// Where rows are kept that were refused, came too late, or broke a rule. Without it they are counted. For sets with
    /// `online`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aside: Option<AsideSpec>,
    /// What the set is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Words to find the set by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl FeatureSetSpec {
    /// Loads the set's file into memory under the name `name`; `root` is the project's folder.
    ///
    /// # Errors
    /// When the file lies outside `root`, cannot be read, or does not hold what the definition says.
    pub fn load(&self, name: &str, root: &Path, options: &LoadOptions) -> Result<MemoryTable, LoadError> {
        load::spec(name, self, root, options)
    }

    /// The set under the name `name`: loaded from its file, or opened among `stores`, with the rows of its file.
    ///
    /// # Errors
    /// As [`FeatureSetSpec::load`], and when its store cannot be opened or written.
    ///
    /// A set whose rows pass a graph has no rows of its file yet: they come by [`WritableSet::fill`], once the graph is
    /// [bound](WritableSet::bind).
    pub fn open(
        &self,
        name: &str,
        root: &Path,
        stores: &Stores,
        options: &LoadOptions,
    ) -> Result<StoredSet, LoadError> {
        let Some(online) = &self.online else {
            #[cfg(feature = "offline")]
            if self.offline.is_some() {
                let problem = "`offline` keeps what a set takes, and this one takes nothing; give it `online: {local: …}`";
                return Err(
                    DefinitionError { set: name.to_owned(), problems: vec![problem.to_owned()] }.into()
                );
            }
            return Ok(StoredSet::Loaded(Arc::new(self.load(name, root, options)?)));
        };
        let Defined { set, source, times, rules } = load::define(name, self, root, options)?;
        let mut problems = Vec::new();
        if times.is_none() {
            problems
                .push("a set with `online` names a `timestamp`: the latest row of a key counts".to_owned());
        }
        if set.windows().is_some() && !online.keeps_windows() {
            let store = online.place();
            problems.push(format!("`aggregates`: {store} keeps no windows; use `online: {{local: {{path: …}}}}` or `online: memory`"));
        }
        let Some(times) = times.filter(|_| problems.is_empty()) else {
            return Err(DefinitionError { set: name.to_owned(), problems }.into());
        };
        let ttl = self.ttl.as_ref().map(|ttl| Duration::from_micros(ttl.micros().unsigned_abs()));
        let aside = self.aside.as_ref().map(|aside| stores.open_aside(root, &set, aside)).transpose()?;
        let wanted = Wanted {
            online: online.clone(),
            #[cfg(feature = "offline")]
            offline: self.offline.clone(),
        };
        let table = stores.open(root, set, (times.clone(), ttl), wanted)?;
        let mut set = WritableSet::new(table, times).keeping(rules, aside.flatten(), self.described());
        if let Some(graph) = &self.through {
            set = set.through(graph);
        } else if let Some(source) = source {
            match (set.fill_from(&source), &self.source) {
                // Rows that are taken again change no latest value.
                (Err(LoadError::Replaced { .. }), Some(file)) if set.set().windows().is_none() => {
                    load::again(|| set.fill(root, file))?;
                }
                (filled, _) => filled?,
            }
        }
        let set = Arc::new(set);
        Ok(StoredSet::Writable(set))
    }

    /// What is done to the rows of a set that takes rows, line by line.
    fn described(&self) -> String {
        let mut text = format!("created {:?}\nvalid_to {:?}\n", self.created, self.valid_to);
        text.extend(self.through.iter().map(|graph| format!("through {graph:?}\n")));
        text.extend(self.ttl.iter().map(|ttl| format!("ttl {}\n", ttl.micros())));
        for (name, RuleSpec { that, otherwise }) in &self.rules {
            text += &format!("rule {name:?} {that:?} {otherwise:?}\n");
        }
        text
    }
}

/// A column type by its name in a project file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeName(usize);

/// Every type name. Timestamps are microseconds in UTC.
static TYPES: [(&str, DataType); 15] = [
    ("bool", DataType::Boolean),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float16", DataType::Float16),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("string", DataType::Utf8),
    ("date", DataType::Date32),
    ("timestamp", DataType::Timestamp(TimeUnit::Microsecond, None)),
];

impl TypeName {
    /// The type named so.
    ///
    /// # Errors
    /// With the closest name there is.
    pub fn parse(name: &str) -> Result<Self, String> {
        let at = TYPES.iter().position(|(known, _)| *known == name);
        at.map(Self).ok_or_else(|| suggest::unknown("type", name, TYPES.iter().map(|(known, _)| *known)))
    }

    /// The name.
    pub fn name(self) -> &'static str {
        TYPES.get(self.0).map_or("", |(name, _)| *name)
    }

    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match TYPES.get(self.0) {
            Some((_, DataType::Timestamp(unit, _))) => DataType::Timestamp(*unit, Some("UTC".into())),
            Some((_, data_type)) => data_type.clone(),
            None => DataType::Null,
        }
    }
}

impl<'de> Deserialize<'de> for TypeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl de::Visitor<'_> for Name {
            type Value = TypeName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a type, such as `float32`")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<TypeName, E> {
                TypeName::parse(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl Serialize for TypeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl JsonSchema for TypeName {
    fn schema_name() -> Cow<'static, str> {
        "TypeName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = TYPES.iter().map(|(name, _)| *name).collect();
        json_schema!({ "description": "A column type. Timestamps are microseconds in UTC.", "enum": names })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tables")]
    fn check(value: serde_json::Value, expected: Expect) {
        let text = match serde_json::from_value::<FeatureSetSpec>(value) {
            Ok(spec) => serde_json::to_string(&spec).unwrap(),
            // With the feature `offline` there is one field more.
            Err(error) => error.to_string().replace("`offline`, ", ""),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_spec_round_trips_and_refuses_what_it_does_not_know() {
        check(
            json!({"keys": ["card_id"], "source": "data/cards.parquet"}),
            expect![[r#"{"keys":["card_id"],"source":"data/cards.parquet"}"#]],
        );
        check(
            json!({"keys": ["a", "b"], "source": "x.csv", "timestamp": "at", "features": {"avg": "float32", "n": "int8"},
                   "types": {"a": "string"}, "description": "d", "tags": ["t"]}),
            expect![[
                r#"{"keys":["a","b"],"source":"x.csv","timestamp":"at","features":{"avg":"float32","n":"int8"},"types":{"a":"string"},"description":"d","tags":["t"]}"#
            ]],
        );
        // Which fields there are depends on the features of the build.
        let unknown = json!({"keys": ["a"], "source": "x.csv", "sources": 1});
        let error = serde_json::from_value::<FeatureSetSpec>(unknown).unwrap_err().to_string();
        assert!(error.starts_with("unknown field `sources`, expected one of `keys`, `source`, "), "{error}");
        check(
            json!({"keys": ["a"], "timestamp": "at", "created": "known", "valid_to": "until", "ttl": "30d",
                   "online": {"local": {"path": "state/a", "durability": "interval", "max_bytes": "1024 MiB"}}}),
            expect![[
                r#"{"keys":["a"],"timestamp":"at","created":"known","valid_to":"until","ttl":"30d","online":{"local":{"path":"state/a","durability":"interval","max_bytes":"1GiB","when_full":"refuse"}}}"#
            ]],
        );
        check(
            json!({"keys": ["a"], "rules": {"p": "a > 0", "q": {"that": "a < 9", "otherwise": "count"}},
                   "aside": {"path": "x"}}),
            expect![[
                r#"{"keys":["a"],"rules":{"p":{"that":"a > 0","otherwise":"refuse"},"q":{"that":"a < 9","otherwise":"count"}},"aside":{"path":"x","max_bytes":"64MiB"}}"#
            ]],
        );
        check(
            json!({"keys": ["a"], "rules": {"p": {"that": "a > 0", "else": "count"}}}),
            expect!["unknown field `else`, expected `that` or `otherwise`"],
        );
        check(
            json!({"keys": ["a"], "online": {"local": {"path": "a", "durability": "never"}}}),
            expect!["unknown variant `never`, expected one of `always`, `interval`, `os`"],
        );
        check(
            json!({"keys": ["a"], "source": "x.csv", "features": {"x": "flaot32"}}),
            expect!["no type `flaot32`; did you mean `float32`?"],
        );
        check(
            json!({"keys": ["a"], "source": "x.csv", "features": {"x": 7}}),
            expect!["invalid type: integer `7`, expected the name of a type, such as `float32`"],
        );
    }

    #[test]
    fn every_type_name_is_its_own_and_can_be_a_feature() {
        for (name, _) in &TYPES {
            let parsed = TypeName::parse(name).unwrap();
            assert_eq!(parsed.name(), *name);
            assert!(crate::cell::Width::of(&parsed.data_type()).is_some(), "{name}");
        }
    }

    #[test]
    fn the_schema_documents_every_field() {
        let schema = serde_json::to_value(schemars::schema_for!(FeatureSetSpec)).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        for (name, property) in properties {
            assert!(property["description"].is_string(), "{name}");
        }
        assert_eq!(schema["additionalProperties"], json!(false));
    }
}
