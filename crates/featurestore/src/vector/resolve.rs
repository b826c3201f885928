//! From a vector's names to lookups that can be run, in an order in which they can; every mistake at once.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use indexmap::IndexMap;
use millstream_graph::suggest;

use super::{Reference, Vector, VectorProblem, derived::Derived};
use crate::{Column, Gap, Profile, ProfileError, enrich::names::Name, key::KeyKind};

/// What resolving asks of a feature set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) name: &'a str,
    pub(crate) keys: &'a [Column],
    pub(crate) features: &'a [Column],
    /// Whether its rows have an event time, by which they could be stale.
    pub(crate) timed: bool,
}

impl<'a> Shape<'a> {
    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.features.iter().map(|feature| feature.name.as_str())
    }
}

/// The feature sets that a vector may name.
pub(crate) trait Shapes {
    fn names(&self) -> Vec<&str>;
    fn shape(&self, set: &str) -> Option<Shape<'_>>;
    /// What the values of a feature look like, for policies that fill gaps with it.
    fn profile(&self, set: &str, feature: usize) -> Result<Profile, ProfileError>;
}

/// The columns that come in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given<'a> {
    /// These, whatever the vector makes of them.
    Columns(&'a SchemaRef),
    /// Those that the vector needs.
    Needed,
}

/// One set looked up at one time, once what its keys are taken from is there.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) set: String,
    /// How long after the time of the row.
    #[cfg_attr(not(feature = "offline"), expect(dead_code, reason = "training sets have labels"))]
    pub(crate) ahead: Duration,
    /// Whether it is for the label, which is never stale.
    pub(crate) label: bool,
    /// The columns that carry the keys: given, or added by a lookup before.
    pub(crate) by: Vec<String>,
    pub(crate) features: Vec<Feature>,
    /// Lookups of one wave need nothing of each other.
    pub(crate) wave: usize,
    /// Sets whose features are keys here.
    after: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Feature {
    /// Its number in the set.
    pub(crate) feature: usize,
    pub(crate) column: String,
    pub(crate) data_type: DataType,
    pub(crate) missing: Gap,
    pub(crate) null: Gap,
}

impl Feature {
    pub(crate) fn field(&self) -> FieldRef {
        let nullable = self.missing == Gap::Null || self.null == Gap::Null;
        Arc::new(Field::new(&self.column, self.data_type.clone(), nullable))
    }
}

/// The lookups of a vector, and the columns that were asked for.
#[derive(Clone)]
pub(crate) struct Resolved {
    /// What comes in.
    pub(crate) input: SchemaRef,
    /// In an order in which each finds its keys.
    pub(crate) lookups: Vec<Lookup>,
    /// The columns of features, in the order asked.
    pub(crate) columns: Vec<String>,
    /// The column of the label.
    #[cfg_attr(not(feature = "offline"), expect(dead_code, reason = "training sets have labels"))]
    pub(crate) label: Option<String>,
    /// What adds the columns that are expressions.
    pub(crate) derived: Option<Derived>,
}

/// Looks a vector's names up in `sets`; with its label if `label`.
pub(crate) fn resolve(
    vector: &Vector,
    sets: &dyn Shapes,
    given: Given<'_>,
    label: bool,
) -> Result<Resolved, Vec<VectorProblem>> {
    let mut resolver = Resolver {
        vector,
        sets,
        given,
        needed: IndexMap::new(),
        lookups: Vec::new(),
        columns: Vec::new(),
        label: None,
        problems: Vec::new(),
    };
    resolver.features(label);
    resolver.policies(label);
    // A relation may bring in a set that no feature is asked of, which has keys of its own.
    let mut at = 0;
    while at < resolver.lookups.len() {
        resolver.keys(at);
        at += 1;
    }
    resolver.input();
    resolver.names();
    resolver.order();
    resolver.finish()
}

struct Resolver<'a> {
    vector: &'a Vector,
    sets: &'a dyn Shapes,
    given: Given<'a>,
    /// What is needed of what comes in.
    needed: IndexMap<String, DataType>,
    lookups: Vec<Lookup>,
    columns: Vec<Asked>,
    label: Option<Asked>,
    problems: Vec<VectorProblem>,
}

/// A feature that is asked for.
struct Asked {
    column: String,
    /// As the vector names it.
    feature: String,
    /// Where the vector does.
    place: Vec<String>,
}

impl<'a> Resolver<'a> {
    fn problem(&mut self, place: &[&str], text: String) {
        if self.problems.iter().all(|known| known.text != text) {
            self.problems.push(VectorProblem::new(place, text));
        }
    }

    fn features(&mut self, label: bool) {
        let vector = self.vector;
        if vector.features.is_empty() && vector.label.is_none() {
            self.problem(&["features"], "no features; name some as `set.feature` or `set.*`".into());
        }
        for (at, reference) in vector.features.iter().enumerate() {
            self.reference(reference, None, &["features", &at.to_string()]);
        }
        if let Some((reference, after)) = vector.label.as_ref().filter(|_| label) {
            self.reference(reference, Some(*after), &["label", "feature"]);
        }
    }

    fn reference(&mut self, reference: &Result<Reference, String>, label: Option<Duration>, place: &[&str]) {
        let Reference { set, feature } = match reference {
            Ok(reference) => reference,
            Err(problem) => return self.problem(place, problem.clone()),
        };
        let Some(set) = self.set(set, place, "") else { return };
        let wanted = match feature {
            Name::All => set.names().enumerate().map(|(at, name)| (at, name.to_owned())).collect(),
            Name::One { feature, alias } => match set.names().position(|name| name == feature) {
                Some(at) => vec![(at, alias.clone().unwrap_or_else(|| feature.clone()))],
                None => {
                    let problem = suggest::unknown("feature", feature, set.names());
                    return self.problem(place, format!("feature set `{}` has {problem}", set.name));
                }
            },
        };
        for (feature, column) in wanted {
            let defined = &set.features[feature];
            let [missing, null] = match label {
                Some(_) => [Gap::Null, Gap::Null],
                None => self.gaps(&set, feature, &column),
            };
            let asked = Asked {
                column: column.clone(),
                feature: format!("{}.{}", set.name, defined.name),
                place: place.iter().map(ToString::to_string).collect(),
            };
            match label {
                Some(_) => self.label = Some(asked),
                None => self.columns.push(asked),
            }
            let data_type = defined.data_type.clone();
            let feature = Feature { feature, column, data_type, missing, null };
            self.lookup(set.name, label).features.push(feature);
        }
    }

    /// The set of a name; `what` says who names it.
    fn set(&mut self, name: &str, place: &[&str], what: &str) -> Option<Shape<'a>> {
        let set = self.sets.shape(name);
        if set.is_none() {
            self.problem(
                place,
                format!("{what}{}", suggest::unknown("feature set", name, self.sets.names())),
            );
        }
        set
    }

    /// The lookup of a set, made when it is first asked for.
    fn lookup(&mut self, set: &str, label: Option<Duration>) -> &mut Lookup {
        let same = |lookup: &Lookup| lookup.set == set && lookup.label == label.is_some();
        let at = self.lookups.iter().position(same).unwrap_or_else(|| {
            self.lookups.push(Lookup {
                set: set.to_owned(),
                ahead: label.unwrap_or_default(),
                label: label.is_some(),
                by: Vec::new(),
                features: Vec::new(),
                wave: 0,
                after: Vec::new(),
            });
            self.lookups.len() - 1
        });
        &mut self.lookups[at]
    }

    fn gaps(&mut self, set: &Shape<'_>, feature: usize, column: &str) -> [Gap; 2] {
        let profile = || self.sets.profile(set.name, feature);
        let gaps = self.vector.policies.gaps(column, &set.features[feature], profile);
        gaps.map(|gap| {
            gap.unwrap_or_else(|problem| {
                self.problem(&["policies", column], problem);
                Gap::Null
            })
        })
    }

    fn policies(&mut self, label: bool) {
        let vector = self.vector;
        for column in vector.policies.own.keys() {
            if self.columns.iter().all(|asked| asked.column != *column) {
                let known = self.columns.iter().map(|asked| asked.column.as_str());
                let problem = suggest::unknown("column", column, known);
                self.problem(&["policies", column], format!("a policy names {problem}"));
            }
        }
        for set in vector.by.keys() {
            let place = ["by", set.as_str()];
            if self.set(set, &place, "`by` names ").is_none() {
                continue;
            }
            // It may still be reached by a relation, which is found only later; or be the label's, when that is left out.
            let reached = vector.by.values().flatten().any(|by| by.starts_with(&format!("{set}.")));
            let labels = match &vector.label {
                Some((Ok(reference), _)) => !label && reference.set == *set,
                _ => false,
            };
            if self.lookups.iter().all(|lookup| lookup.set != *set) && !reached && !labels {
                self.problem(&place, format!("`by` names feature set `{set}`, of which nothing is read"));
            }
        }
        if vector.max_staleness.is_some() {
            let sets: Vec<_> = self.lookups.iter().map(|lookup| lookup.set.clone()).collect();
            for set in sets {
                if self.sets.shape(&set).is_some_and(|shape| !shape.timed) {
                    let problem = format!("feature set `{set}` has no event timestamp that could be stale");
                    self.problem(&["max_staleness"], problem);
                }
            }
        }
    }

    /// Where the keys of a lookup come from.
    fn keys(&mut self, at: usize) {
        let name = self.lookups[at].set.clone();
        let Some(set) = self.sets.shape(&name) else { return };
        let by = match self.vector.by.get(&name) {
            Some(by) => by.clone(),
            None => set.keys.iter().map(|key| key.name.clone()).collect(),
        };
        let place = ["by", name.as_str()];
        if by.len() != set.keys.len() {
            let keys = set.keys.iter().map(|key| format!("`{}`", key.name)).collect::<Vec<_>>().join(", ");
            let problem =
                format!("`by` names {} columns for the keys of feature set `{name}`: {keys}", by.len());
            return self.problem(&place, problem);
        }
        for (key, by) in set.keys.iter().zip(by) {
            let of = format!("key `{}` of feature set `{name}`", key.name);
            let (column, have) = match self.carrier(&by, key) {
                Ok(Carrier::Given(data_type)) => (by.clone(), data_type),
                Ok(Carrier::Feature(set, feature)) => {
                    let from = set.features[feature].data_type.clone();
                    (self.relate(at, &by, set.name, feature, &from), from)
                }
                Err(problem) => {
                    self.problem(&place, format!("{of}: {problem}"));
                    continue;
                }
            };
            let held = if let DataType::Dictionary(_, values) = &have { values.as_ref() } else { &have };
            if !KeyKind::accepts(&key.data_type, held) {
                self.problem(&place, format!("{of} is {}, but column `{by}` is {have}", key.data_type));
            }
            self.lookups[at].by.push(column);
        }
    }

    /// What carries a key: a column that comes in, or a feature of another set.
    fn carrier(&mut self, by: &str, key: &Column) -> Result<Carrier<'a>, String> {
        let given = match self.given {
            Given::Columns(schema) => schema.field_with_name(by).ok().map(|field| field.data_type()),
            Given::Needed => self.vector.input.get(by).or(self.needed.get(by)),
        };
        if let Some(data_type) = given.cloned() {
            self.needed.insert(by.to_owned(), data_type.clone());
            return Ok(Carrier::Given(data_type));
        }
        if let Some((set, feature)) = by.split_once('.') {
            let sets = self.sets;
            let set = sets.shape(set).ok_or_else(|| suggest::unknown("feature set", set, sets.names()))?;
            return match set.names().position(|name| name == feature) {
                Some(feature) => Ok(Carrier::Feature(set, feature)),
                None => {
                    let problem = suggest::unknown("feature", feature, set.names());
                    Err(format!("feature set `{}` has {problem}", set.name))
                }
            };
        }
        match self.given {
            Given::Columns(schema) => {
                let known = schema.fields().iter().map(|field| field.name().as_str());
                Err(suggest::unknown("column", by, known))
            }
            Given::Needed => {
                self.needed.insert(by.to_owned(), key.data_type.clone());
                Ok(Carrier::Given(key.data_type.clone()))
            }
        }
    }

    /// Makes another set's feature the key of a lookup; the column that carries it, which nobody asked for.
    fn relate(&mut self, at: usize, by: &str, set: &str, feature: usize, data_type: &DataType) -> String {
        let column = format!("\u{1}{by}");
        self.lookups[at].after.push(set.to_owned());
        let related = self.lookup(set, None);
        if related.features.iter().all(|feature| feature.column != column) {
            let (column, data_type) = (column.clone(), data_type.clone());
            related.features.push(Feature {
                feature,
                column,
                data_type,
                missing: Gap::Null,
                null: Gap::Null,
            });
        }
        column
    }

    /// What the vector says of columns that come in.
    fn input(&mut self) {
        for (name, declared) in &self.vector.input {
            let Given::Columns(schema) = self.given else {
                self.needed.entry(name.clone()).or_insert_with(|| declared.clone());
                continue;
            };
            match schema.field_with_name(name) {
                // A key may be of another type as long as it is a key of the set.
                Ok(_) if self.needed.contains_key(name) => {}
                Ok(field) if field.data_type() == declared => {}
                Ok(field) => {
                    let problem = format!("column `{name}` is {}, not {declared}", field.data_type());
                    self.problem(&["input", name], problem);
                }
                Err(_) => {
                    let known = schema.fields().iter().map(|field| field.name().as_str());
                    self.problem(&["input", name], suggest::unknown("column", name, known));
                }
            }
        }
    }

    /// No two columns have one name.
    fn names(&mut self) {
        let mut taken: Vec<String> = match self.given {
            Given::Columns(schema) => schema.fields().iter().map(|field| field.name().clone()).collect(),
            Given::Needed => self.needed.keys().cloned().collect(),
        };
        let mut problems = Vec::new();
        for Asked { column, feature, place } in self.columns.iter().chain(&self.label) {
            if taken.contains(column) {
                let other = feature.replace('.', "_");
                let text = format!(
                    "a column `{column}` is there already; name the feature otherwise: `{feature} AS {other}`"
                );
                problems.push(VectorProblem { place: place.clone(), text });
            }
            taken.push(column.clone());
        }
        for (name, _) in &self.vector.with {
            if taken.contains(name) {
                let text = format!("a column `{name}` is there already; name the expression otherwise");
                problems.push(VectorProblem::new(&["with", name], text));
            }
            taken.push(name.clone());
        }
        self.problems.extend(problems);
    }

    /// Puts lookups into an order in which each finds its keys.
    fn order(&mut self) {
        let mut ordered: Vec<Lookup> = Vec::with_capacity(self.lookups.len());
        while !self.lookups.is_empty() {
            let done = |set: &String| ordered.iter().find(|done| !done.label && done.set == *set);
            let wave = |lookup: &Lookup| {
                let waves = lookup.after.iter().map(|set| done(set).map(|done| done.wave + 1));
                waves.collect::<Option<Vec<_>>>().map(|waves| waves.into_iter().max().unwrap_or(0))
            };
            let next = self.lookups.iter().enumerate().find_map(|(at, lookup)| Some((at, wave(lookup)?)));
            let Some((next, wave)) = next else {
                let stuck: Vec<_> = self.lookups.iter().map(|lookup| format!("`{}`", lookup.set)).collect();
                let problem = format!("feature sets {} take their keys from each other", stuck.join(", "));
                self.problem(&["by"], problem);
                break;
            };
            ordered.push(Lookup { wave, ..self.lookups.remove(next) });
        }
        // Stable: within a wave the order of the vector stays.
        ordered.sort_by_key(|lookup| lookup.wave);
        self.lookups = ordered;
    }

    fn finish(mut self) -> Result<Resolved, Vec<VectorProblem>> {
        let input = match self.given {
            Given::Columns(schema) => Arc::clone(schema),
            Given::Needed => {
                let fields = self.needed.iter().map(|(name, kind)| Field::new(name, kind.clone(), true));
                Arc::new(Schema::new(fields.collect::<Vec<_>>()))
            }
        };
        // Expressions are typed by columns that may be wrong as long as there are other mistakes.
        let derived = if self.problems.is_empty() { self.derived(&input) } else { None };
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        Ok(Resolved {
            input,
            lookups: self.lookups,
            columns: self.columns.into_iter().map(|asked| asked.column).collect(),
            label: self.label.map(|asked| asked.column),
            derived,
        })
    }

    fn derived(&mut self, input: &SchemaRef) -> Option<Derived> {
        if self.vector.with.is_empty() {
            return None;
        }
        let Some(expressions) = &self.vector.expressions else {
            self.problem(&["with"], "nothing here reads expressions".into());
            return None;
        };
        let features = || self.lookups.iter().filter(|lookup| !lookup.label).flat_map(|one| &one.features);
        let field = |asked: &Asked| Some(features().find(|have| have.column == asked.column)?.field());
        let fields = input.fields().iter().cloned().chain(self.columns.iter().filter_map(field));
        let input = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let step = expressions.step(&self.vector.with);
        match step.signature(&[Arc::clone(&input)]) {
            Ok(signature) => {
                let made = signature.outputs.first().map(|port| port.schema.fields());
                let added = made.into_iter().flatten().skip(input.fields().len()).cloned().collect();
                Some(Derived { step, input, added })
            }
            Err(error) => {
                for problem in error.problems() {
                    self.problem(&["with"], problem.clone());
                }
                None
            }
        }
    }
}

enum Carrier<'a> {
    /// A column that comes in, of this type.
    Given(DataType),
    /// A feature of a set.
    Feature(Shape<'a>, usize),
}
