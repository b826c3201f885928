//! `ingest` as a spec file has it.

use std::{collections::BTreeMap, sync::Arc};

use millstream_graph::{Step, spec::StepKind};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Ingest;
use crate::OnlineStore;

/// Writes each row into a feature set, and passes it on as it came.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IngestSettings {
    /// The feature set, which has `online`.
    set: String,
    /// Columns of the set, each by the column of the rows that it is taken from. By default those of the same names.
    #[serde(default)]
    columns: BTreeMap<String, String>,
    /// The column with the event time. By default the one that is named like the set's `timestamp`.
    event: Option<String>,
}

/// `ingest`, into the sets of `store`.
pub(crate) fn kind(store: Arc<dyn OnlineStore>) -> StepKind {
    StepKind::new("ingest", move |settings: IngestSettings| {
        let IngestSettings { set, columns, event } = settings;
        let mut step = Ingest::new(Arc::clone(&store), set);
        step.columns.extend(columns);
        step.event = event;
        Ok(Arc::new(step) as Arc<dyn Step>)
    })
}
