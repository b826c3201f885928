//! What stands in a training set: features of several sets, a label, and what becomes of gaps.

use std::time::Duration;

use indexmap::IndexMap;

use crate::{
    Policy,
    enrich::names::{Name, parse},
};

/// Features that are read together, maybe of several sets.
///
/// Features are named as in `set.feature`, `set.feature AS name` or `set.*`. A set's keys are taken from spine columns named like
/// them, or from those that [`Vector::by`] names; a name such as `employees.department_id` there takes the key from a feature of
/// another set, so that sets can be reached through each other.
///
/// ```
/// use std::time::Duration;
/// use millstream_featurestore::{Policy, offline::Vector};
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
    pub(super) name: String,
    pub(super) features: Vec<Result<Reference, String>>,
    pub(super) label: Option<(Result<Reference, String>, Duration)>,
    pub(super) by: IndexMap<String, Vec<String>>,
    pub(super) missing: Policy,
    pub(super) nulls: Policy,
    pub(super) missing_of: IndexMap<String, Policy>,
    pub(super) nulls_of: IndexMap<String, Policy>,
    pub(super) max_staleness: Option<Duration>,
}

/// A feature of a set, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) set: String,
    pub(super) feature: Name,
}

impl Reference {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
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
            missing: Policy::Null,
            nulls: Policy::Null,
            missing_of: IndexMap::new(),
            nulls_of: IndexMap::new(),
            max_staleness: None,
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
    /// null. A label that is a column of the spine needs no mention.
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

    /// What happens where a key has no row that may be used.
    #[must_use]
    pub fn missing(mut self, policy: Policy) -> Self {
        self.missing = policy;
        self
    }

    /// What happens where a row has null.
    #[must_use]
    pub fn nulls(mut self, policy: Policy) -> Self {
        self.nulls = policy;
        self
    }

    /// What happens for the feature in column `column` where a key has no row.
    #[must_use]
    pub fn missing_of(mut self, column: impl Into<String>, policy: Policy) -> Self {
        self.missing_of.insert(column.into(), policy);
        self
    }

    /// What happens for the feature in column `column` where a row has null.
    #[must_use]
    pub fn nulls_of(mut self, column: impl Into<String>, policy: Policy) -> Self {
        self.nulls_of.insert(column.into(), policy);
        self
    }

    /// How old a row may be, whatever its set allows: an older one is as good as none.
    #[must_use]
    pub fn max_staleness(mut self, age: Duration) -> Self {
        self.max_staleness = Some(age);
        self
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
