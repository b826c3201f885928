//! Definitions of a project file, completed by what is found in their files.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use indexmap::{IndexMap, IndexSet};
use millstream_graph::suggest;

use super::{
    LoadError, LoadOptions,
    source::{Columns, Source},
};
use crate::{
    AggregateSpec, DefinitionError, FeatureSet, FeatureSetSpec, TimeColumns,
    cell::held_as,
    online::{rules::Rules, set::written},
    set::{Column, is_time},
};

/// A definition that is complete.
pub(crate) struct Defined {
    pub(crate) set: FeatureSet,
    pub(crate) source: Option<Source>,
    /// Where there is an event time.
    pub(crate) times: Option<TimeColumns>,
    pub(crate) rules: Rules,
}

/// Completes a definition by what is found in its file, if it has one.
pub(crate) fn define(
    name: &str,
    spec: &FeatureSetSpec,
    root: &Path,
    options: &LoadOptions,
) -> Result<Defined, LoadError> {
    let source = spec.source.as_ref().map(|file| Source::open(root, file)).transpose()?;
    let times = || spec.timestamp.iter().chain(&spec.created).chain(&spec.valid_to).map(String::as_str);
    let named: HashSet<&str> = spec.keys.iter().map(String::as_str).chain(times()).collect();
    let typed = spec.features.is_some()
        && spec.aggregates.is_empty()
        && named.iter().all(|name| spec.types.contains_key(*name));
    // The columns of a file whose rows pass a graph are not those of the set.
    let raw = spec.through.is_some();
    let found = match &source {
        Some(source) if !typed && !raw => source.columns(options)?,
        _ => Vec::new(),
    };
    let mut types =
        Types { spec, found: &found, sourced: source.is_some() && !raw, problems: misplaced(spec) };
    let mut set = FeatureSet::builder(name).tags(spec.tags.iter().cloned());
    for key in &spec.keys {
        set = set.key(key, types.of(key));
    }
    let mut time = |name: &String| Column { name: name.clone(), data_type: types.of_time(name) };
    let event = spec.timestamp.as_ref().map(&mut time);
    let (created, valid_to) = (spec.created.as_ref().map(&mut time), spec.valid_to.as_ref().map(&mut time));
    if let Some(event) = &event {
        set = set.timestamp(&event.name, event.data_type.clone());
    }
    for column in created.iter().chain(&valid_to).filter(|column| !is_time(&column.data_type)) {
        let Column { name, data_type } = column;
        types.problems.push(format!("column `{name}` is {data_type}, which is no time"));
    }
    match &spec.features {
        Some(features) => {
            for (feature, data_type) in features {
                set = set.feature(feature, data_type.data_type());
            }
        }
        None if !spec.aggregates.is_empty() => {}
        None => {
            // Where rows stood in a stream is no feature of a set that may read it.
            let place = |column: &str| spec.online.is_some() && crate::online::PLACE.contains(&column);
            let feature = |column: &str| !named.contains(column) && !place(column);
            for (feature, _) in found.iter().filter(|(column, _)| feature(column)) {
                set = set.feature(feature, types.of(feature));
            }
        }
    }
    for column in types.only_aggregated(&named, options) {
        let of_time = [&spec.timestamp, &spec.created, &spec.valid_to].contains(&&Some(column.clone()));
        let data_type = if of_time { types.of_time(&column) } else { types.of(&column) };
        set = set.event_column(column, data_type);
    }
    let lateness = spec.lateness.as_ref().map_or(0, |lateness| lateness.micros().unsigned_abs());
    set = set.aggregates(spec.aggregates.iter().cloned(), Duration::from_micros(lateness));
    if let Some(text) = &spec.description {
        set = set.description(text);
    }
    types.check(name, source.as_ref().filter(|_| !raw))?;
    let times = event.map(|event| TimeColumns { event, created, valid_to });
    let set = set.build_over(&options.conditions)?;
    let rules = match &times {
        Some(times) => Rules::new(&spec.rules, &written(&set, times), &options.conditions)
            .map_err(|problems| DefinitionError { set: name.to_owned(), problems })?,
        // Without a time there are no rows to write, which whoever opens the set says.
        None => Rules::default(),
    };
    Ok(Defined { set, source, times, rules })
}

/// What a set that does not change cannot have.
fn misplaced(spec: &FeatureSetSpec) -> Vec<String> {
    let given = [
        ("created", spec.created.is_some()),
        ("valid_to", spec.valid_to.is_some()),
        ("ttl", spec.ttl.is_some()),
        ("aggregates", !spec.aggregates.is_empty()),
        ("rules", !spec.rules.is_empty()),
        ("through", spec.through.is_some()),
        ("aside", spec.aside.is_some()),
    ];
    let given = given.iter().filter(|(_, given)| *given && spec.online.is_none());
    let mut problems: Vec<_> = given.map(|(name, _)| format!("`{name}` is for sets with `online`")).collect();
    if spec.lateness.is_some() && spec.aggregates.is_empty() {
        problems.push("`lateness` is for sets with `aggregates`".to_owned());
    }
    problems
}

/// The types of columns: as declared, else as found in the file.
struct Types<'a> {
    spec: &'a FeatureSetSpec,
    found: &'a Columns,
    sourced: bool,
    problems: Vec<String>,
}

impl Types<'_> {
    /// Null where it cannot be told, which is a problem.
    fn of(&mut self, column: &str) -> DataType {
        let declared = self.spec.types.get(column).map(|name| name.data_type());
        let as_found =
            || self.found.iter().find(|(found, _)| found == column).map(|(_, found)| found.clone());
        match declared.map(Some).or_else(as_found) {
            Some(Some(data_type)) => held_as(&data_type),
            Some(None) => {
                self.problems.push(format!(
                    "column `{column}` has no value that tells its type; name it under `types`"
                ));
                DataType::Null
            }
            None if self.sourced => {
                self.problems.push(suggest::unknown("column", column, self.names()));
                DataType::Null
            }
            None => {
                self.problems.push(format!("column `{column}` has no type; name it under `types`"));
                DataType::Null
            }
        }
    }

    /// Where nothing tells it, a time is a timestamp.
    fn of_time(&mut self, column: &str) -> DataType {
        if !self.sourced && !self.spec.types.contains_key(column) {
            return DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        }
        self.of(column)
    }

    /// Of a set with aggregates: the columns of its events that are neither keys nor features. They are those under `types`, and
    /// of the others those that aggregates read.
    fn only_aggregated(&self, named: &HashSet<&str>, options: &LoadOptions) -> IndexSet<String> {
        let spec = self.spec;
        if spec.aggregates.is_empty() {
            return IndexSet::new();
        }
        let candidates = self.candidates();
        let mut columns: IndexSet<String> = spec.types.keys().cloned().collect();
        columns.retain(|column| !named.contains(column.as_str()));
        for AggregateSpec { column, .. } in &spec.aggregates {
            columns.extend(column.iter().filter(|column| candidates.index_of(column).is_ok()).cloned());
        }
        let rules = spec.rules.values().map(|rule| (&rule.that, true));
        let filters = spec.aggregates.iter().filter_map(|spec| Some((spec.filter.as_ref()?, false)));
        for (text, sees_times) in filters.chain(rules) {
            // What is wrong with a condition is said when the set is built.
            let reads =
                options.conditions.make(text, &candidates).map_or(Vec::new(), |condition| condition.reads);
            let names = reads.into_iter().filter_map(|at| Some(candidates.fields().get(at)?.name().clone()));
            columns.extend(names.filter(|name| !sees_times || !named.contains(name.as_str())));
        }
        let feature = |column: &str| spec.features.iter().any(|features| features.contains_key(column));
        columns.retain(|column| !spec.keys.contains(column) && !feature(column));
        columns
    }

    /// Every column that events may have.
    fn candidates(&self) -> SchemaRef {
        let mut columns: IndexMap<&str, DataType> = IndexMap::new();
        let times = [&self.spec.timestamp, &self.spec.created, &self.spec.valid_to].into_iter().flatten();
        columns.extend(
            times.map(|name| (name.as_str(), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))),
        );
        for (name, data_type) in self.found {
            columns.extend(data_type.as_ref().map(|data_type| (name.as_str(), held_as(data_type))));
        }
        let declared = self.spec.types.iter().chain(self.spec.features.iter().flatten());
        columns.extend(declared.map(|(name, data_type)| (name.as_str(), data_type.data_type())));
        let field = |(name, data_type): (&str, DataType)| Field::new(name, data_type, true);
        Arc::new(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|(name, _)| name.as_str())
    }

    /// Every problem at once.
    fn check(mut self, set: &str, source: Option<&Source>) -> Result<(), LoadError> {
        let spec = self.spec;
        let extra = spec.created.iter().chain(&spec.valid_to);
        let known = || spec.keys.iter().chain(&spec.timestamp).chain(extra.clone()).map(String::as_str);
        let names: Vec<&str> = if source.is_none() {
            known().collect()
        } else {
            self.found.iter().map(|(name, _)| name.as_str()).collect()
        };
        // Of a set with aggregates that has no file, `types` says what events carry.
        if !names.is_empty() && (source.is_some() || spec.aggregates.is_empty()) {
            for column in spec.types.keys().filter(|column| !names.contains(&column.as_str())) {
                self.problems.push(suggest::unknown("column", column, names.iter().copied()));
            }
        }
        if source.is_none() && spec.features.is_none() && spec.aggregates.is_empty() {
            self.problems
                .push("without a `source`, `features` names the features and their types".to_owned());
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.dedup();
        Err(match source {
            Some(source) => LoadError::Columns { file: source.name().to_owned(), problems: self.problems },
            None => DefinitionError { set: set.to_owned(), problems: self.problems }.into(),
        })
    }
}
