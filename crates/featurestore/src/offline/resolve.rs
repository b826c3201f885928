//! From a vector's names to lookups that can be run, in an order in which they can; every mistake at once.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::{DataType, Schema},
};
use indexmap::IndexMap;
use millstream_graph::suggest;

use super::{AsOf, OfflineSet, Vector, operator::Fill, set::SetEvents, vector::Reference};
use crate::{
    Cell, Policy,
    cell::{CellValue, column_of_bits},
    enrich::names::Name,
    key::KeyKind,
};

/// One set looked up at one time, once what its keys are taken from is there.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) set: &'a OfflineSet,
    pub(super) as_of: AsOf,
    pub(super) ahead: Duration,
    /// The columns that carry the keys: of the spine, or added by a lookup before.
    pub(super) by: Vec<String>,
    pub(super) features: Vec<PlannedFeature>,
    /// Sets whose features are keys here.
    after: Vec<String>,
}

impl<'a> Planned<'a> {
    /// What makes the set's rows events, if a feature is a window.
    pub(super) fn events(&self) -> Option<&'a SetEvents> {
        let window = self.features.iter().any(|planned| planned.feature >= self.set.own);
        self.set.events.as_ref().filter(|_| window)
    }
}

#[derive(Debug)]
pub(super) struct PlannedFeature {
    pub(super) feature: usize,
    pub(super) column: String,
    pub(super) missing: Fill,
    pub(super) null: Fill,
}

/// The lookups of a vector, and the columns they add that were asked for, in the order asked.
#[derive(Debug)]
pub(super) struct Resolved<'a> {
    pub(super) lookups: Vec<Planned<'a>>,
    pub(super) columns: Vec<String>,
}

struct Resolver<'a> {
    vector: &'a Vector,
    sets: &'a IndexMap<String, OfflineSet>,
    spine: &'a Schema,
    lookups: Vec<Planned<'a>>,
    columns: Vec<String>,
    problems: Vec<String>,
}

pub(super) fn resolve<'a>(
    vector: &'a Vector,
    sets: &'a IndexMap<String, OfflineSet>,
    spine: &'a Schema,
) -> Result<Resolved<'a>, Vec<String>> {
    let (lookups, columns, problems) = (Vec::new(), Vec::new(), Vec::new());
    let mut resolver = Resolver { vector, sets, spine, lookups, columns, problems };
    resolver.features();
    resolver.policies();
    // A relation may bring in a set that no feature is asked of, which has keys of its own.
    let mut at = 0;
    while at < resolver.lookups.len() {
        resolver.keys(at);
        at += 1;
    }
    resolver.finish()
}

impl<'a> Resolver<'a> {
    fn features(&mut self) {
        let vector = self.vector;
        if vector.features.is_empty() && vector.label.is_none() {
            self.problems.push("no features; name some as `set.feature` or `set.*`".into());
        }
        for reference in &vector.features {
            self.reference(reference, Duration::ZERO, false);
        }
        if let Some((label, after)) = &vector.label {
            self.reference(label, *after, true);
        }
    }

    fn reference(&mut self, reference: &Result<Reference, String>, ahead: Duration, label: bool) {
        let Reference { set, feature } = match reference {
            Ok(reference) => reference,
            Err(problem) => return self.problems.push(problem.clone()),
        };
        let Some(set) = self.set(set) else { return };
        let wanted = match feature {
            Name::All => set.feature_names().enumerate().map(|(at, name)| (at, name.to_owned())).collect(),
            Name::One { feature, alias } => match set.feature_names().position(|name| name == feature) {
                Some(at) => vec![(at, alias.clone().unwrap_or_else(|| feature.clone()))],
                None => {
                    let problem = suggest::unknown("feature", feature, set.feature_names());
                    return self.problems.push(format!("feature set `{}` has {problem}", set.name));
                }
            },
        };
        for (feature, column) in wanted {
            let (missing, null) =
                if label { (Fill::Null, Fill::Null) } else { self.fills(set, feature, &column) };
            if self.spine.index_of(&column).is_ok() || self.columns.contains(&column) {
                let name = &set.features[feature].name;
                self.problems.push(format!(
                    "a column `{column}` is there already; name the feature otherwise: `{}.{name} AS {}_{name}`",
                    set.name, set.name
                ));
            }
            self.columns.push(column.clone());
            self.lookup(set, ahead).features.push(PlannedFeature { feature, column, missing, null });
        }
    }

    fn set(&mut self, name: &str) -> Option<&'a OfflineSet> {
        let set = self.sets.get(name);
        if set.is_none() {
            self.problem(suggest::unknown("feature set", name, self.sets.keys().map(String::as_str)));
        }
        set
    }

    fn problem(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The lookup of a set at a time, made when it is first asked for.
    fn lookup(&mut self, set: &'a OfflineSet, ahead: Duration) -> &mut Planned<'a> {
        let same = |lookup: &Planned<'_>| lookup.set.name == set.name && lookup.ahead == ahead;
        let at = self.lookups.iter().position(same).unwrap_or_else(|| {
            let mut as_of = set.as_of;
            match self.vector.max_staleness {
                // Rows without a time have no age.
                _ if set.event.is_none() => as_of.ttl = None,
                // A label is not stale because it came soon after what it is of.
                Some(age) if ahead.is_zero() => as_of.ttl = Some(as_of.ttl.map_or(age, |ttl| ttl.min(age))),
                _ => {}
            }
            let (by, features, after) = (Vec::new(), Vec::new(), Vec::new());
            self.lookups.push(Planned { set, as_of, ahead, by, features, after });
            self.lookups.len() - 1
        });
        &mut self.lookups[at]
    }

    fn fills(&mut self, set: &OfflineSet, feature: usize, column: &str) -> (Fill, Fill) {
        let vector = self.vector;
        let policies = [(&vector.missing_of, &vector.missing), (&vector.nulls_of, &vector.nulls)];
        let [missing, null] = policies.map(|(own, all)| {
            fill(set, feature, own.get(column).unwrap_or(all)).unwrap_or_else(|problem| {
                self.problem(problem);
                Fill::Null
            })
        });
        (missing, null)
    }

    fn policies(&mut self) {
        for column in self.vector.missing_of.keys().chain(self.vector.nulls_of.keys()) {
            if !self.columns.contains(column) {
                let known = self.columns.iter().map(String::as_str);
                self.problem(format!("a policy names {}", suggest::unknown("column", column, known)));
            }
        }
        for set in self.vector.by.keys() {
            if !self.lookups.iter().any(|lookup| lookup.set.name == *set) && self.sets.contains_key(set) {
                // It may still be reached by a relation, which is found only later.
                let reached = self.vector.by.values().flatten().any(|by| by.starts_with(&format!("{set}.")));
                if !reached {
                    self.problem(format!("`by` names feature set `{set}`, of which nothing is read"));
                }
            } else if !self.sets.contains_key(set) {
                let problem = suggest::unknown("feature set", set, self.sets.keys().map(String::as_str));
                self.problem(format!("`by` names {problem}"));
            }
        }
        if self.vector.max_staleness.is_some() {
            let timeless = self.lookups.iter().filter(|lookup| lookup.set.event.is_none());
            let timeless: Vec<_> = timeless.map(|lookup| lookup.set.name.clone()).collect();
            for set in timeless {
                self.problem(format!("feature set `{set}` has no event timestamp that could be stale"));
            }
        }
    }

    /// Where the keys of a lookup come from.
    fn keys(&mut self, at: usize) {
        let set = self.lookups[at].set;
        let by = match self.vector.by.get(&set.name) {
            Some(by) => by.clone(),
            None => set.keys.iter().map(|key| key.name.clone()).collect(),
        };
        if by.len() != set.keys.len() {
            let keys = set.keys.iter().map(|key| format!("`{}`", key.name)).collect::<Vec<_>>().join(", ");
            return self.problem(format!(
                "`by` names {} columns for the keys of feature set `{}`: {keys}",
                by.len(),
                set.name
            ));
        }
        for (key, name) in set.keys.iter().zip(by) {
            let (column, have) = if let Ok(column) = self.spine.field_with_name(&name) {
                (name, column.data_type().clone())
            } else if let Some((from, feature, data_type)) = self.related(&name) {
                let column = format!("\u{1}{name}");
                self.lookups[at].after.push(from.name.clone());
                let related = self.lookup(from, Duration::ZERO);
                if related.features.iter().all(|feature| feature.column != column) {
                    let (missing, null) = (Fill::Null, Fill::Null);
                    related.features.push(PlannedFeature { feature, column: column.clone(), missing, null });
                }
                (column, data_type)
            } else {
                let known = self.spine.fields().iter().map(|field| field.name().as_str());
                let problem = suggest::unknown("column", &name, known);
                self.problem(format!(
                    "key `{}` of feature set `{}`: the spine has {problem}",
                    key.name, set.name
                ));
                continue;
            };
            let held = if let DataType::Dictionary(_, values) = &have { values.as_ref() } else { &have };
            if !KeyKind::accepts(&key.data_type, held) {
                self.problem(format!(
                    "key `{}` of feature set `{}` is {}, but column `{}` is {have}",
                    key.name,
                    set.name,
                    key.data_type,
                    column.trim_start_matches('\u{1}')
                ));
            }
            self.lookups[at].by.push(column);
        }
    }

    /// The feature of another set that a key is taken from.
    fn related(&self, name: &str) -> Option<(&'a OfflineSet, usize, DataType)> {
        let (set, feature) = name.split_once('.')?;
        let set = self.sets.get(set)?;
        let at = set.feature_names().position(|name| name == feature)?;
        Some((set, at, set.features[at].data_type.clone()))
    }

    /// Lookups in an order in which each finds its keys.
    fn finish(mut self) -> Result<Resolved<'a>, Vec<String>> {
        let mut ordered: Vec<Planned<'a>> = Vec::with_capacity(self.lookups.len());
        while !self.lookups.is_empty() {
            let there =
                |set: &String| ordered.iter().any(|done| done.ahead.is_zero() && done.set.name == *set);
            let Some(next) = self.lookups.iter().position(|lookup| lookup.after.iter().all(there)) else {
                let stuck: Vec<_> =
                    self.lookups.iter().map(|lookup| format!("`{}`", lookup.set.name)).collect();
                self.problem(format!("feature sets {} take their keys from each other", stuck.join(", ")));
                break;
            };
            ordered.push(self.lookups.remove(next));
        }
        if self.problems.is_empty() {
            Ok(Resolved { lookups: ordered, columns: self.columns })
        } else {
            Err(self.problems)
        }
    }
}

/// What a policy puts into a gap of a feature.
fn fill(set: &OfflineSet, number: usize, policy: &Policy) -> Result<Fill, String> {
    let feature = &set.features[number];
    let (name, data_type) = (&feature.name, &feature.data_type);
    let value = |cell: Option<Cell>| cell.and_then(|cell| value(&cell, data_type)).map(Fill::Value);
    match policy {
        Policy::Fail => Ok(Fill::Fail),
        Policy::Null => Ok(Fill::Null),
        Policy::Default(default) => value(Cell::from_json(default, data_type))
            .ok_or_else(|| format!("default {default} for feature `{name}` is no {data_type}")),
        Policy::Mean if !data_type.is_numeric() => {
            Err(format!("feature `{name}` is {data_type} and has no mean; give it a policy of its own"))
        }
        Policy::Mean => {
            let mean = set.statistics.get(number).and_then(|statistics| statistics.mean);
            value(mean.and_then(|mean| Cell::from_f64(mean, data_type)))
                .ok_or_else(|| format!("feature `{name}` has no mean: no statistics tell it"))
        }
    }
}

/// A cell as a column of one row.
fn value(cell: &Cell, data_type: &DataType) -> Option<ArrayRef> {
    match &cell.0 {
        CellValue::Bits(bits) => column_of_bits(&[Some(*bits)], data_type),
        CellValue::Text(text) => Some(Arc::new(StringArray::from(vec![text.as_ref()]))),
    }
}
