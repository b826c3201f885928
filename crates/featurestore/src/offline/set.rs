//! Feature sets as the offline side knows them: the rows of all times, and what their columns mean.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use millstream_graph::suggest;

use super::{
    AsOf, HistoryError,
    log::{CREATED, EVENT, LogTable, SEQUENCE, VALID_TO},
    operator::LookupEvents,
};
use crate::{AggregateSpec, Aggregates, Column, FeatureSet};

/// The rows of a feature set, of all times.
#[derive(Clone, Debug)]
pub struct OfflineSet {
    pub(super) name: String,
    pub(super) keys: Vec<Column>,
    /// Those of its own, then the windows.
    pub(super) features: Vec<Column>,
    pub(super) own: usize,
    /// There if it has windows.
    pub(super) events: Option<SetEvents>,
    pub(super) event: Option<String>,
    pub(super) created: Option<String>,
    pub(super) sequence: Option<String>,
    pub(super) valid_to: Option<String>,
    pub(super) as_of: AsOf,
    pub(super) rows: Arc<dyn TableProvider>,
}

/// What makes rows of a set with windows events.
#[derive(Clone, Debug)]
pub(super) struct SetEvents {
    /// The set that they are of.
    pub(super) set: Arc<FeatureSet>,
    pub(super) windows: Arc<Aggregates>,
    /// What the windows were made of.
    pub(super) made_of: (Vec<AggregateSpec>, Duration),
    /// The columns that windows read, with keys and own features.
    pub(super) schema: SchemaRef,
}

impl SetEvents {
    pub(super) fn of(set: &FeatureSet) -> Option<Self> {
        set.windows().map(|windows| Self {
            set: Arc::new(set.clone()),
            windows: Arc::clone(windows),
            made_of: (set.aggregates().to_vec(), set.lateness()),
            schema: set.event_schema(),
        })
    }
}

impl SetEvents {
    /// The same for a table that has its columns where `place` says.
    pub(super) fn lookup<E>(
        &self,
        place: impl FnMut(&String) -> Result<usize, E>,
    ) -> Result<LookupEvents, E> {
        let names = self.schema.fields().iter().map(|field| field.name());
        Ok(LookupEvents {
            windows: Arc::clone(&self.windows),
            made_of: self.made_of.clone(),
            schema: Arc::clone(&self.schema),
            columns: names.map(place).collect::<Result<_, E>>()?,
        })
    }
}

impl OfflineSet {
    /// The set `set`, whose rows are a log. If it has windows, the log's rows are events, and each window is a feature: at every time it
    /// holds what the online store would have read then, having taken the same events.
    ///
    /// # Errors
    /// When the log lacks columns of the set; every one is named.
    pub fn of(set: &FeatureSet, log: LogTable) -> Result<Self, HistoryError> {
        check_columns(set, set.event_columns(), &log.schema())?;
        Ok(Self {
            keys: set.keys().to_vec(),
            features: set.features().to_vec(),
            own: set.own_features().len(),
            events: SetEvents::of(set),
            ..Self::of_log(set.name(), log)
        })
    }

    /// The set whose rows are a log, with every column of the log as a feature.
    pub fn of_log(name: impl Into<String>, log: LogTable) -> Self {
        let schema = log.log_schema();
        Self {
            name: name.into(),
            keys: schema.keys().to_vec(),
            features: schema.columns().to_vec(),
            own: schema.columns().len(),
            events: None,
            event: Some(EVENT.into()),
            created: Some(CREATED.into()),
            sequence: Some(SEQUENCE.into()),
            valid_to: Some(VALID_TO.into()),
            as_of: AsOf::default(),
            rows: Arc::new(log),
        }
    }

    /// The set whose rows are a table of any kind, such as its source file. Of rows with the same keys and time the last counts;
    /// the rows of a set without event timestamp count at any time.
    ///
    /// # Errors
    /// When the table lacks columns of the set, every one of which is named, or a set with windows has no event timestamp.
    pub fn of_table(set: &FeatureSet, rows: Arc<dyn TableProvider>) -> Result<Self, HistoryError> {
        check_columns(set, set.event_columns().chain(set.timestamp()), &rows.schema())?;
        if set.windows().is_some() && set.timestamp().is_none() {
            let problem = format!(
                "feature set `{}` has windows, and no event timestamp to place events by",
                set.name()
            );
            return Err(HistoryError::Vector { problems: vec![problem] });
        }
        Ok(Self {
            name: set.name().to_owned(),
            keys: set.keys().to_vec(),
            features: set.features().to_vec(),
            own: set.own_features().len(),
            events: SetEvents::of(set),
            event: set.timestamp().map(|column| column.name.clone()),
            created: None,
            sequence: None,
            valid_to: None,
            as_of: AsOf::default(),
            rows,
        })
    }

    /// When its rows may be used.
    #[must_use]
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = as_of;
        self
    }

    /// The set's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether rows have the columns of a set.
fn check_columns<'a>(
    set: &FeatureSet,
    wanted: impl Iterator<Item = &'a Column>,
    schema: &Schema,
) -> Result<(), HistoryError> {
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    let missing = wanted.filter(|column| schema.index_of(&column.name).is_err());
    let problems: Vec<_> = missing
        .map(|column| {
            format!("feature set `{}`: {}", set.name(), suggest::unknown("column", &column.name, names()))
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(HistoryError::Vector { problems }) }
}
