//! Feature sets as the offline side knows them: the rows of all times, and what their columns mean.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use indexmap::IndexMap;
use millstream_graph::suggest;

use super::{
    AsOf, HistoryError,
    log::{CREATED, EVENT, LogTable, SEQUENCE, VALID_TO},
};
use crate::{
    Column, FeatureSet, Statistics,
    vector::resolve::{Shape, Shapes},
};

/// The rows of a feature set, of all times.
#[derive(Clone, Debug)]
pub struct OfflineSet {
    pub(super) name: String,
    pub(super) keys: Vec<Column>,
    pub(super) features: Vec<Column>,
    pub(super) event: Option<String>,
    pub(super) created: Option<String>,
    pub(super) sequence: Option<String>,
    pub(super) valid_to: Option<String>,
    pub(super) as_of: AsOf,
    pub(super) statistics: Vec<Statistics>,
    pub(super) rows: Arc<dyn TableProvider>,
}

impl OfflineSet {
    /// The set whose rows are a log.
    pub fn of_log(name: impl Into<String>, log: LogTable) -> Self {
        let schema = log.log_schema();
        Self {
            name: name.into(),
            keys: schema.keys().to_vec(),
            features: schema.columns().to_vec(),
            event: Some(EVENT.into()),
            created: Some(CREATED.into()),
            sequence: Some(SEQUENCE.into()),
            valid_to: Some(VALID_TO.into()),
            as_of: AsOf::default(),
            statistics: Vec::new(),
            rows: Arc::new(log),
        }
    }

    /// The set whose rows are a table of any kind, such as its source file. Of rows with the same keys and time the last counts;
    /// the rows of a set without event timestamp count at any time.
    ///
    /// # Errors
    /// When the table lacks columns of the set; every one is named.
    pub fn of_table(set: &FeatureSet, rows: Arc<dyn TableProvider>) -> Result<Self, HistoryError> {
        let schema = rows.schema();
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let wanted = set.keys().iter().chain(set.features()).chain(set.timestamp());
        let missing = wanted.filter(|column| schema.index_of(&column.name).is_err());
        let problems: Vec<_> = missing
            .map(|column| {
                format!("feature set `{}`: {}", set.name(), suggest::unknown("column", &column.name, names()))
            })
            .collect();
        if !problems.is_empty() {
            return Err(HistoryError::Vector { problems });
        }
        Ok(Self {
            name: set.name().to_owned(),
            keys: set.keys().to_vec(),
            features: set.features().to_vec(),
            event: set.timestamp().map(|column| column.name.clone()),
            created: None,
            sequence: None,
            valid_to: None,
            as_of: AsOf::default(),
            statistics: Vec::new(),
            rows,
        })
    }

    /// When its rows may be used.
    #[must_use]
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = as_of;
        self
    }

    /// What its features look like now, in their order: where imputed means come from.
    #[must_use]
    pub fn statistics(mut self, statistics: Vec<Statistics>) -> Self {
        self.statistics = statistics;
        self
    }

    /// The set's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Shapes for IndexMap<String, OfflineSet> {
    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }

    fn shape(&self, set: &str) -> Option<Shape<'_>> {
        let set = self.get(set)?;
        let timed = set.event.is_some();
        Some(Shape { name: &set.name, keys: &set.keys, features: &set.features, timed })
    }

    fn mean(&self, set: &str, feature: usize) -> Option<f64> {
        self.get(set)?.statistics.get(feature)?.mean
    }
}
