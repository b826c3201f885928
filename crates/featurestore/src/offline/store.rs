//! Sets and vectors of all times, and SQL over them.

use std::{num::NonZero, sync::Arc};

use arrow::datatypes::{Field, Schema};
use datafusion::{
    common::{DataFusionError, SchemaError, TableReference, config::Dialect},
    execution::{
        SendableRecordBatchStream,
        memory_pool::GreedyMemoryPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    physical_plan::{ExecutionPlan, execute_stream},
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use indexmap::IndexMap;
use millstream_graph::suggest;

use super::{HistoryError, OfflineSet, Vector, profiled::Profiled};
use crate::{
    VectorProblem,
    vector::resolve::{Given, Resolved, resolve},
};

/// Bounds on what training sets and queries may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineLimits {
    /// Bytes of memory for all that runs at a time; what needs more ends with an error or goes to temporary files. 4 GiB by default.
    pub memory: usize,
    /// Into how many parts, by key, work is split: what one part holds is joined by one thread. As many as there are cores by
    /// default, and at most 64.
    pub partitions: NonZero<usize>,
}

impl Default for OfflineLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self { memory: 4 << 30, partitions: cores.min(NonZero::new(64).unwrap_or(cores)) }
    }
}

/// Feature sets of all times, and the vectors over them.
#[derive(Debug)]
pub struct OfflineStore {
    pub(super) sets: IndexMap<String, OfflineSet>,
    vectors: IndexMap<String, Vector>,
    pub(super) partitions: usize,
    #[cfg(feature = "ballista")]
    pub(super) cluster: Option<super::Cluster>,
    runtime: Arc<RuntimeEnv>,
}

impl OfflineStore {
    /// A store without sets.
    ///
    /// # Errors
    /// When DataFusion's runtime cannot be set up.
    pub fn new(limits: &OfflineLimits) -> Result<Self, HistoryError> {
        let pool = Arc::new(GreedyMemoryPool::new(limits.memory));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        Ok(Self {
            sets: IndexMap::new(),
            vectors: IndexMap::new(),
            partitions: limits.partitions.get(),
            #[cfg(feature = "ballista")]
            cluster: None,
            runtime,
        })
    }

    /// Runs training sets and queries on a cluster, whose machines find logs and spines under the paths that they have here. Rows in
    /// memory travel with the plan, up to 16 MiB.
    #[cfg(feature = "ballista")]
    #[must_use]
    pub fn on(mut self, cluster: super::Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Adds a set under its own name; one of the same name is replaced and answered.
    pub fn insert(&mut self, set: OfflineSet) -> Option<OfflineSet> {
        self.sets.insert(set.name.clone(), set)
    }

    /// The names of its sets.
    pub fn names(&self) -> Vec<String> {
        self.sets.keys().cloned().collect()
    }

    /// Adds a vector, which queries see as a table: the newest row of each set for every key that the first set has ever had.
    /// The policies of the vector and the lifetimes of rows do not matter there.
    ///
    /// # Errors
    /// With every mistake in the vector, such as a feature that is a window, or when a set has its name.
    pub fn insert_vector(&mut self, vector: Vector) -> Result<(), HistoryError> {
        if self.sets.contains_key(&vector.name) {
            let problems = vec![format!("a feature set is named `{}` already", vector.name)];
            return Err(HistoryError::Vector { problems });
        }
        latest(&vector, &self.sets)?;
        self.vectors.insert(vector.name.clone(), vector);
        Ok(())
    }

    /// Runs a query that reads: `SELECT`, `EXPLAIN`. Every set is a table of all its rows, every vector one of the newest.
    ///
    /// # Errors
    /// When the text is no query, or would change anything; the stream ends with an error when the query fails later.
    pub async fn query(&self, text: &str) -> Result<SendableRecordBatchStream, HistoryError> {
        let session = self.session(self.partitions)?;
        for vector in self.vectors.values() {
            let text = latest(vector, &self.sets)?;
            let view = session.sql_with_options(&text, read_only()).await?.into_view();
            session.register_table(TableReference::bare(vector.name.clone()), view)?;
        }
        match session.sql_with_options(text, read_only()).await {
            Ok(frame) => self.run(frame.create_physical_plan().await?, &session).await,
            Err(error) => Err(self.explained(&session, text, error)),
        }
    }

    /// What is wrong with a query: an unknown name as it is said everywhere, else what the engine says.
    fn explained(&self, session: &SessionContext, text: &str, error: DataFusionError) -> HistoryError {
        let is_missing = |text: &String| text.starts_with("table '") && text.contains("not found");
        let missing = matches!(error.find_root(), DataFusionError::Plan(text) if is_missing(text));
        let state = session.state();
        let statement = state.sql_to_statement(text, &Dialect::Generic);
        let tables = statement.and_then(|statement| state.resolve_table_references(&statement));
        let known = || self.sets.keys().chain(self.vectors.keys()).map(String::as_str);
        let unknown = |table: &&TableReference| {
            missing && table.schema().is_none() && known().all(|name| name != table.table())
        };
        let tables = tables.unwrap_or_default();
        let mut problems: Vec<String> = tables
            .iter()
            .filter(unknown)
            .map(|table| suggest::unknown("feature set or vector", table.table(), known()))
            .collect();
        if let DataFusionError::SchemaError(problem, _) = error.find_root()
            && let SchemaError::FieldNotFound { field, valid_fields } = problem.as_ref()
            && problems.is_empty()
        {
            let valid = valid_fields.iter().map(|field| field.name());
            problems.push(suggest::unknown("column", field.name(), valid));
        }
        if problems.is_empty() { error.into() } else { HistoryError::Query { problems } }
    }

    /// Whether plans run on a cluster.
    pub(super) fn is_spread(&self) -> bool {
        #[cfg(feature = "ballista")]
        return self.cluster.is_some();
        #[cfg(not(feature = "ballista"))]
        false
    }

    /// What a plan answers, as one stream; of several parts in no order.
    #[cfg_attr(not(feature = "ballista"), expect(clippy::unused_async, reason = "a cluster is waited for"))]
    pub(super) async fn run(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        session: &SessionContext,
    ) -> Result<SendableRecordBatchStream, HistoryError> {
        #[cfg(feature = "ballista")]
        if let Some(cluster) = &self.cluster {
            return cluster.run(plan, session.session_id(), &self.sets).await;
        }
        Ok(execute_stream(plan, session.task_ctx())?)
    }

    /// A session that knows every set.
    pub(super) fn session(&self, partitions: usize) -> Result<SessionContext, HistoryError> {
        let mut config =
            SessionConfig::new().with_target_partitions(partitions).with_information_schema(true);
        // Text stays what it is in files and logs.
        config.options_mut().execution.parquet.schema_force_view_types = false;
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let session = SessionContext::new_with_config_rt(config, Arc::clone(&self.runtime));
        for set in self.sets.values() {
            session.register_table(TableReference::bare(set.name.clone()), Arc::clone(&set.rows))?;
        }
        Ok(session)
    }
}

/// What SQL of users may do: read.
pub(super) fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// A vector's newest rows as a query.
fn latest(vector: &Vector, sets: &IndexMap<String, OfflineSet>) -> Result<String, Vec<VectorProblem>> {
    // Its rows are as they are: policies do not matter.
    let mut vector = vector.clone();
    vector.policies = vector.policies.without_statistics();
    let shapes = Profiled::new(sets);
    let first = vector.features.iter().flatten().next();
    let Some(base) = first.and_then(|reference| sets.get(&reference.set)) else {
        // Resolving says what is wrong.
        return Err(resolve(&vector, &shapes, Given::Needed, true).err().unwrap_or_default());
    };
    let by = vector.by.get(&base.name).filter(|by| by.len() == base.keys.len());
    let columns = |at: usize| by.map_or(&base.keys[at].name, |by| &by[at]);
    let fields =
        base.keys.iter().enumerate().map(|(at, key)| Field::new(columns(at), key.data_type.clone(), true));
    let spine = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    // What requests bring in is not there.
    vector.input.clear();
    vector.with.clear();
    let Resolved { lookups, columns: wanted, label, .. } =
        resolve(&vector, &shapes, Given::Columns(&spine), true)?;
    let windows = lookups.iter().filter_map(|lookup| {
        let set = sets.get(&lookup.set)?;
        let feature = lookup.features.iter().find(|wanted| wanted.feature >= set.own)?;
        let text = format!(
            "feature `{}` of set `{}` is a window, which has a value at a time and none in a table; leave it out, or ask for a \
             training set",
            set.features[feature.feature].name, set.name
        );
        Some(VectorProblem { place: vec!["features".to_owned()], text })
    });
    let problems: Vec<_> = windows.collect();
    if !problems.is_empty() {
        return Err(problems);
    }

    let mut places: IndexMap<String, String> = IndexMap::new();
    let mut keys = Vec::new();
    for (at, key) in base.keys.iter().enumerate() {
        keys.push(format!("{} AS {}", quoted(&key.name), quoted(columns(at))));
        places.insert(columns(at).clone(), format!("base.{}", quoted(columns(at))));
    }
    let mut text = format!(" FROM (SELECT DISTINCT {} FROM {}) AS base", keys.join(", "), quoted(&base.name));
    for (number, lookup) in lookups.iter().enumerate() {
        let alias = format!("s{number}");
        let Some(set) = sets.get(&lookup.set) else { continue };
        let matches = set.keys.iter().zip(&lookup.by).map(|(key, by)| {
            format!("{alias}.{} = {}", quoted(&key.name), places.get(by).map_or("NULL", String::as_str))
        });
        let matches = matches.collect::<Vec<_>>().join(" AND ");
        text += &format!(" LEFT JOIN ({}) AS {alias} ON {matches}", newest(set));
        for feature in &lookup.features {
            let name = quoted(&set.features[feature.feature].name);
            places.insert(feature.column.clone(), format!("{alias}.{name}"));
        }
    }
    let columns = spine.fields().iter().map(|field| field.name()).chain(&wanted).chain(&label);
    let columns = columns.filter_map(|name| Some(format!("{} AS {}", places.get(name)?, quoted(name))));
    Ok(format!("SELECT {}{text}", columns.collect::<Vec<_>>().join(", ")))
}

/// The newest row of each key of a set.
fn newest(set: &OfflineSet) -> String {
    let keys = set.keys.iter().map(|key| quoted(&key.name)).collect::<Vec<_>>().join(", ");
    let version = [&set.event, &set.created, &set.sequence].into_iter().flatten();
    let version: Vec<_> = version.map(|name| format!("{} DESC NULLS LAST", quoted(name))).collect();
    let order = if version.is_empty() { String::new() } else { format!(" ORDER BY {}", version.join(", ")) };
    format!(
        "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {keys}{order}) AS _rank FROM {}) WHERE _rank = 1",
        quoted(&set.name)
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
