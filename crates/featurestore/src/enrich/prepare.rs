//! Typing the step: every name becomes a number, every mistake is named.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_graph::{SchemaError, suggest};
use smallvec::SmallVec;

use super::{Bound, By, Enrich, Name};
use crate::{FeatureSet, Gap, OnlineTable, Pick, Selection, key::KeyKind, online::set::TIME, set::is_time};

/// A feature to add, and the name of its column.
struct Added {
    feature: usize,
    column: String,
}

pub(super) fn bind(step: &Enrich, schema: &SchemaRef) -> Result<Bound, SchemaError> {
    let Some(table) = step.store.table(&step.set) else {
        let names = step.store.names();
        let problem = suggest::unknown("feature set", &step.set, names.iter().map(String::as_str));
        return Err(SchemaError::new(problem));
    };
    let set = Arc::clone(table.set());
    let mut problems = Vec::new();
    let keys = keys(step, &set, schema, &mut problems);
    let at = at(step, schema, &mut problems);
    let added = added(step, &set, schema, &mut problems);
    let picks = picks(step, table.as_ref(), &added, &mut problems);
    SchemaError::collect(problems)?;
    let (added, picks) = without(&step.unread, added, picks);

    let passes = |at: &usize| !step.unread.contains(schema.field(*at).name());
    let handed_on: Vec<usize> = (0..schema.fields().len()).filter(passes).collect();
    let mut fields: Vec<_> = handed_on.iter().map(|&at| Arc::clone(&schema.fields()[at])).collect();
    for (Added { feature, column }, pick) in added.iter().zip(&picks) {
        let nullable = pick.missing == Gap::Null || pick.null == Gap::Null;
        fields.push(Arc::new(Field::new(column, set.features()[*feature].data_type.clone(), nullable)));
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    // A table outside the process is given the key columns alone.
    let alone: SmallVec<[usize; 2]> = (0..keys.len()).collect();
    let places = if table.is_local() { &keys } else { &alone };
    let selection =
        Selection::new(&set, places, picks).map_err(|error| SchemaError::new(error.to_string()))?;
    let kinds = set.keys().iter().filter_map(|key| KeyKind::of(&key.data_type)).collect();
    let picks = added.iter().map(|added| set.features()[added.feature].name.clone()).collect();
    Ok(Bound { table, selection, schema, handed_on, keys, kinds, at, picks })
}

/// The column of each key. Of no meaning when there are problems.
fn keys(
    step: &Enrich,
    set: &FeatureSet,
    schema: &SchemaRef,
    problems: &mut Vec<SchemaError>,
) -> SmallVec<[usize; 2]> {
    let names = || set.keys().iter().map(|key| key.name.as_str());
    let listed = || names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut columns: Vec<&str> = Vec::new();
    match &step.by {
        By::Keys => columns.extend(names()),
        By::Columns(by) => {
            if by.len() != set.keys().len() {
                let problem = format!(
                    "`by` names {} columns for the keys of feature set `{}`: {}",
                    by.len(),
                    set.name(),
                    listed()
                );
                problems.push(SchemaError::new(problem));
            }
            columns.extend(by.iter().map(String::as_str));
        }
        By::Named(by) => {
            for unknown in by.keys().filter(|key| names().all(|name| name != *key)) {
                problems.push(SchemaError::new(suggest::unknown("key", unknown, names())));
            }
            for key in names() {
                match by.get(key) {
                    Some(column) => columns.push(column),
                    None => problems.push(SchemaError::new(format!("`by` names no column for key `{key}`"))),
                }
            }
        }
    }
    let mut found = SmallVec::new();
    for (at, name) in columns.iter().enumerate() {
        let Ok(column) = schema.index_of(name) else {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            problems.push(SchemaError::unknown_column(name, known));
            continue;
        };
        found.push(column);
        let have = schema.field(column).data_type();
        // Which key a column is for is known only as long as none is left out.
        let key = if columns.len() == set.keys().len() { set.keys().get(at) } else { None };
        if let Some(key) = key.filter(|key| !KeyKind::accepts(&key.data_type, have)) {
            problems.push(SchemaError::new(format!(
                "key `{}` of feature set `{}` is {}, but column `{name}` is {have}",
                key.name,
                set.name(),
                key.data_type
            )));
        }
    }
    found
}

/// The column of times.
fn at(step: &Enrich, schema: &SchemaRef, problems: &mut Vec<SchemaError>) -> Option<usize> {
    let name = step.at.as_ref()?;
    let Ok(at) = schema.index_of(name) else {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        problems.push(SchemaError::unknown_column(name, known));
        return None;
    };
    let have = schema.field(at).data_type();
    if !is_time(have) {
        problems.push(SchemaError::new(format!("`at`: column `{name}` is {have}; {TIME}")));
    }
    Some(at)
}

fn added(step: &Enrich, set: &FeatureSet, schema: &SchemaRef, problems: &mut Vec<SchemaError>) -> Vec<Added> {
    let names = || set.features().iter().map(|feature| feature.name.as_str());
    let plain = |feature: usize| Added {
        feature,
        column: format!("{}{}", step.prefix, set.features()[feature].name),
    };
    let mut added = Vec::new();
    if step.features.is_empty() {
        added.extend((0..set.features().len()).map(plain));
    }
    for feature in &step.features {
        match feature {
            Err(problem) => problems.push(SchemaError::new(problem)),
            Ok(Name::All) => added.extend((0..set.features().len()).map(plain)),
            Ok(Name::One { feature, alias }) => match (set.feature(feature), alias) {
                (None, _) => problems.push(unknown_feature(set, feature)),
                (Some(feature), Some(alias)) => added.push(Added { feature, column: alias.clone() }),
                (Some(feature), None) => added.push(plain(feature)),
            },
        }
    }
    for feature in step.policies.own.keys() {
        if !names().any(|name| name == feature) {
            problems.push(unknown_feature(set, feature));
        } else if !added.iter().any(|added| set.features()[added.feature].name == *feature) {
            problems
                .push(SchemaError::new(format!("`policies` names feature `{feature}`, which is not read")));
        }
    }
    let mut taken: HashMap<&str, bool> = HashMap::new();
    taken.extend(schema.fields().iter().map(|field| (field.name().as_str(), true)));
    for Added { feature, column } in &added {
        let name = &set.features()[*feature].name;
        match taken.insert(column, false) {
            Some(true) => problems.push(SchemaError::new(format!(
                "a column `{column}` comes in already; name the feature otherwise: `{name} AS {}_{name}`",
                set.name()
            ))),
            Some(false) => problems.push(SchemaError::new(format!("two features are named `{column}`"))),
            None => {}
        }
    }
    added
}

fn unknown_feature(set: &FeatureSet, name: &str) -> SchemaError {
    let names = set.features().iter().map(|feature| feature.name.as_str());
    SchemaError::new(format!("feature set `{}` has {}", set.name(), suggest::unknown("feature", name, names)))
}

fn picks(
    step: &Enrich,
    table: &dyn OnlineTable,
    added: &[Added],
    problems: &mut Vec<SchemaError>,
) -> Vec<Pick> {
    let pick = |added: &Added| {
        let feature = &table.set().features()[added.feature];
        let gaps = step.policies.gaps(&feature.name, feature, || table.profile(added.feature));
        let [missing, null] = gaps.map(|gap| {
            gap.unwrap_or_else(|problem| {
                let problem = SchemaError::new(problem);
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
                Gap::Null
            })
        });
        Pick { feature: added.feature, missing, null }
    };
    added.iter().map(pick).collect()
}

/// Leaves out what nothing reads, unless rows fail by it: a feature that must not be null, and one of those without which a key
/// that has no row would not fail. One is always left.
fn without(unread: &HashSet<String>, added: Vec<Added>, picks: Vec<Pick>) -> (Vec<Added>, Vec<Pick>) {
    let stays = |(added, pick): &(&Added, &Pick)| !unread.contains(&added.column) || pick.null == Gap::Fail;
    let mut kept: Vec<bool> = added.iter().zip(&picks).map(|pair| stays(&pair)).collect();
    let fails = |at: &usize| picks[*at].missing == Gap::Fail;
    let missed = (0..picks.len()).filter(fails).all(|at| !kept[at]);
    if let (true, Some(at)) = (missed, (0..picks.len()).find(fails)) {
        kept[at] = true;
    }
    if let (false, Some(first)) = (kept.contains(&true), kept.first_mut()) {
        *first = true;
    }
    added.into_iter().zip(picks).zip(kept).filter(|(_, kept)| *kept).map(|(pair, _)| pair).unzip()
}
