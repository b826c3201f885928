//! Feature vectors: features of one or several sets under one name, the same for training and for serving.

pub(crate) mod derived;
mod online;
pub(crate) mod resolve;
mod spec;

use std::{fmt, sync::Arc, time::Duration};

use arrow::datatypes::DataType;
use indexmap::IndexMap;
use millstream_graph::Step;

use crate::{
    OnlineStore, OnlineTable, Policy, Profile, ProfileError,
    enrich::names::{Name, parse},
    policy::Policies,
};
pub use online::{OnlineVector, VectorError, VectorRows};
use resolve::{Given, Shape, Shapes, resolve};
pub use spec::{LabelSpec, VectorSpec};

/// Features that are read together, maybe of several sets: once said, the same for training and for serving.
///
/// Features are named as in `set.feature`, `set.feature AS name` or `set.*`. A set's keys are taken from columns named like them, or
/// from those that [`Vector::by`] names; a name such as `employees.department_id` there takes the key from a feature of another set,
/// so that sets can be reached through each other.
///
/// ```
/// use std::time::Duration;
/// use millstream_featurestore::{Policy, Vector};
///
/// let fraud = Vector::new("fraud")
///     .features(["cards.avg_amount AS usual", "merchants.*"])
///     .by("merchants", ["cards.home_merchant"])
///     .missing_of("usual", Policy::Default(0.into()))
///     .max_staleness(Duration::from_secs(86_400))
///     .label("chargebacks.is_fraud", Duration::from_secs(90 * 86_400));
/// # assert_eq!(fraud.name(), "fraud");
/// ```
#[derive(Clone, Debug)]
pub struct Vector {
    pub(crate) name: String,
    pub(crate) features: Vec<Result<Reference, String>>,
    pub(crate) label: Option<(Result<Reference, String>, Duration)>,
    pub(crate) by: IndexMap<String, Vec<String>>,
    pub(crate) input: IndexMap<String, DataType>,
    /// By column.
    pub(crate) policies: Policies,
    pub(crate) max_staleness: Option<Duration>,
    pub(crate) with: Vec<(String, String)>,
    pub(crate) expressions: Option<Expressions>,
    description: Option<String>,
    tags: Vec<String>,
}

/// What reads expressions: makes the step that adds columns, of which each may use those before it.
#[derive(Clone)]
pub struct Expressions(Arc<Make>);

type Make = dyn Fn(&[(String, String)]) -> Arc<dyn Step> + Send + Sync;

impl Expressions {
    /// Steps made by `make` of names and expressions. Such a step adds its columns behind those that come in.
    pub fn new(make: impl Fn(&[(String, String)]) -> Arc<dyn Step> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    fn step(&self, named: &[(String, String)]) -> Arc<dyn Step> {
        (self.0)(named)
    }
}

impl fmt::Debug for Expressions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expressions")
    }
}

/// A mistake in a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorProblem {
    /// Where it is, as keys below the vector in a project file: `features`, `0`.
    pub place: Vec<String>,
    /// What it is, in a sentence.
    pub text: String,
}

impl VectorProblem {
    fn new(place: &[&str], text: String) -> Self {
        Self { place: place.iter().map(ToString::to_string).collect(), text }
    }
}

/// A feature of a set, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) set: String,
    pub(crate) feature: Name,
}

impl Reference {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no feature; write `set.feature`, `set.feature AS name`, or `set.*` for all")
        };
        let (set, feature) = text.trim().split_once('.').ok_or_else(wrong)?;
        if set.is_empty() || set.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Self { set: set.to_owned(), feature: parse(feature).map_err(|_| wrong())? })
    }
}

impl Vector {
    /// A vector without features. Gaps are null.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            features: Vec::new(),
            label: None,
            by: IndexMap::new(),
            input: IndexMap::new(),
            policies: Policies::new(Policy::Null),
            max_staleness: None,
            with: Vec::new(),
            expressions: None,
            description: None,
            tags: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds features.
    #[must_use]
    pub fn features<S: AsRef<str>>(mut self, features: impl IntoIterator<Item = S>) -> Self {
        self.features.extend(features.into_iter().map(|feature| Reference::parse(feature.as_ref())));
        self
    }

    /// Adds what is to be predicted as the last column: `set.feature`, as it was known `after` the spine row's time. Its gaps stay
    /// null. A label that is a column of the spine needs no mention. Serving leaves it out.
    #[must_use]
    pub fn label(mut self, feature: &str, after: Duration) -> Self {
        self.label = Some((Reference::parse(feature), after));
        self
    }

    /// Takes the keys of set `set` from these columns, in the order of its keys.
    #[must_use]
    pub fn by<S: Into<String>>(
        mut self,
        set: impl Into<String>,
        columns: impl IntoIterator<Item = S>,
    ) -> Self {
        self.by.insert(set.into(), columns.into_iter().map(Into::into).collect());
        self
    }

    /// Says of which type a column is that comes in: one that expressions use, or a key that is held in another type than its set's.
    #[must_use]
    pub fn input(mut self, column: impl Into<String>, data_type: DataType) -> Self {
        self.input.insert(column.into(), data_type);
        self
    }

    /// What happens where a key has no row that may be used.
    #[must_use]
    pub fn missing(mut self, policy: Policy) -> Self {
        self.policies.missing = policy;
        self
    }

    /// What happens where a row has null.
    #[must_use]
    pub fn nulls(mut self, policy: Policy) -> Self {
        self.policies.nulls = policy;
        self
    }

    /// What happens for the feature in column `column` where a key has no row.
    #[must_use]
    pub fn missing_of(mut self, column: impl Into<String>, policy: Policy) -> Self {
        self.policies.own.entry(column.into()).or_default().missing = Some(policy);
        self
    }

    /// What happens for the feature in column `column` where a row has null.
    #[must_use]
    pub fn nulls_of(mut self, column: impl Into<String>, policy: Policy) -> Self {
        self.policies.own.entry(column.into()).or_default().nulls = Some(policy);
        self
    }

    /// How old a row may be, whatever its set allows: an older one is as good as none.
    #[must_use]
    pub fn max_staleness(mut self, age: Duration) -> Self {
        self.max_staleness = Some(age);
        self
    }

    /// Adds a column that is computed from the features, what comes in, and such columns before it.
    #[must_use]
    pub fn with(mut self, column: impl Into<String>, expression: impl Into<String>) -> Self {
        self.with.push((column.into(), expression.into()));
        self
    }

    /// What reads the expressions of [`Vector::with`].
    #[must_use]
    pub fn expressions(mut self, expressions: Expressions) -> Self {
        self.expressions = Some(expressions);
        self
    }

    /// Says what the vector is, for people.
    #[must_use]
    pub fn described(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Adds words to find the vector by.
    #[must_use]
    pub fn tagged(mut self, tags: impl IntoIterator<Item = String>) -> Self {
        self.tags.extend(tags);
        self
    }

    /// What the vector is, for people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Words to find the vector by.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Looks every name up among the sets of `store`, the label's too.
    ///
    /// # Errors
    /// With every mistake.
    pub fn check(&self, store: &dyn OnlineStore) -> Result<(), Vec<VectorProblem>> {
        resolve(self, &Tables::of(store), Given::Needed, true).map(|_| ())
    }
}

/// The sets of an online store.
pub(crate) struct Tables(pub(crate) IndexMap<String, Arc<dyn OnlineTable>>);

impl Tables {
    pub(crate) fn of(store: &dyn OnlineStore) -> Self {
        let table = |name: String| store.table(&name).map(|table| (name, table));
        Self(store.names().into_iter().filter_map(table).collect())
    }
}

impl Shapes for Tables {
    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn shape(&self, set: &str) -> Option<Shape<'_>> {
        let set = self.0.get(set)?.set();
        Some(Shape {
            name: set.name(),
            keys: set.keys(),
            features: set.features(),
            timed: set.timestamp().is_some(),
        })
    }

    fn profile(&self, set: &str, feature: usize) -> Result<Profile, ProfileError> {
        match self.0.get(set) {
            Some(table) => table.profile(feature),
            None => Err(ProfileError::Feature { number: feature, features: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_named_by_its_set() {
        let one = |set: &str, feature: &str, alias: Option<&str>| {
            let feature = Name::One { feature: feature.into(), alias: alias.map(str::to_owned) };
            Some(Reference { set: set.into(), feature })
        };
        let cases = [
            ("cards.avg", one("cards", "avg", None)),
            (" cards.avg AS usual ", one("cards", "avg", Some("usual"))),
            ("cards.\"a.b\" as c", one("cards", "a.b", Some("c"))),
            ("cards.*", Some(Reference { set: "cards".into(), feature: Name::All })),
            ("avg", None),
            (".avg", None),
            ("my cards.avg", None),
            ("cards.", None),
            ("cards.avg usual", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Reference::parse(text).ok(), expected, "{text}");
        }
    }
}
