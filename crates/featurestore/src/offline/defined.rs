//! Sets of a project file as the offline side has them.

use std::{path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Field, Schema},
    error::ArrowError,
};
use datafusion::datasource::MemTable;

use super::{AsOf, Log, LogSchema, OfflineSet, set::SetEvents};
use crate::{
    AppendError, Column, DefinitionError, FeatureSet, FeatureSetSpec, LoadError, LoadOptions, MemoryTable,
    fit::{Unfit, fit},
    inside,
    load::{At, Defined, Source, again, define},
    online::rules::Rules,
    wait,
};

impl FeatureSetSpec {
    /// What is known offline of the set under the name `name`: its log, inside the folder `state` or else `root`; without one the
    /// rows of its file, in memory. `None` for a set without either.
    ///
    /// # Errors
    /// As [`FeatureSetSpec::load`], and when its log cannot be opened.
    pub fn offline(
        &self,
        name: &str,
        (root, state): (&Path, Option<&Path>),
        options: &LoadOptions,
    ) -> Result<Option<OfflineSet>, LoadError> {
        again(|| self.known_offline(name, (root, state), options))
    }

    fn known_offline(
        &self,
        name: &str,
        (root, state): (&Path, Option<&Path>),
        options: &LoadOptions,
    ) -> Result<Option<OfflineSet>, LoadError> {
        let Defined { set, source, times, rules } = define(name, self, root, options)?;
        let ttl = self.ttl.as_ref().map(|ttl| Duration::from_micros(ttl.micros().unsigned_abs()));
        if let Some(offline) = &self.offline {
            let set = log(&set, state.unwrap_or(root), &offline.path)?;
            return Ok(Some(set.as_of(AsOf { ttl, ..AsOf::default() })));
        }
        // Rows of a file that pass a graph are not those of the set.
        let Some(source) = source.filter(|_| self.through.is_none()) else { return Ok(None) };
        let extra = times.iter().flat_map(|times| times.created.iter().chain(&times.valid_to));
        let mut columns: Vec<Column> = Vec::new();
        for column in set.event_columns().chain(set.timestamp()).chain(extra) {
            if columns.iter().all(|known| known.name != column.name) {
                columns.push(column.clone());
            }
        }
        let mut batches = rows(&source, &columns, options)?;
        // What breaks a rule is not taken online either.
        for batch in &mut batches {
            *batch = kept(batch, &rules).map_err(|error| LoadError::Malformed {
                place: source.place(At::File),
                problem: error.to_string(),
            })?;
        }
        if set.windows().is_none() {
            // It says which rows are none, as loading does.
            MemoryTable::from_batches(set.clone(), &batches).map_err(|error| unfit(&source, error))?;
        }
        let schema = Arc::new(schema(&columns));
        let rows = MemTable::try_new(schema, vec![batches]).map_err(|error| LoadError::Malformed {
            place: source.place(At::File),
            problem: error.to_string(),
        })?;
        let name = |column: Option<&Column>| column.map(|column| column.name.clone());
        Ok(Some(OfflineSet {
            name: set.name().to_owned(),
            keys: set.keys().to_vec(),
            features: set.features().to_vec(),
            own: set.own_features().len(),
            events: SetEvents::of(&set),
            event: name(set.timestamp()),
            created: name(times.as_ref().and_then(|times| times.created.as_ref())),
            sequence: None,
            valid_to: name(times.as_ref().and_then(|times| times.valid_to.as_ref())),
            as_of: AsOf { ttl, ..AsOf::default() },
            rows: Arc::new(rows),
        }))
    }
}

/// The set of a log.
fn log(set: &FeatureSet, root: &Path, path: &str) -> Result<OfflineSet, LoadError> {
    let wrong = |problems: Vec<String>| DefinitionError { set: set.name().to_owned(), problems };
    let folder = inside(root, path).map_err(|problem| wrong(vec![format!("`offline`: {problem}")]))?;
    let log = wait(Log::local(folder, LogSchema::of(set)?));
    let log = log.map_err(|source| LoadError::Log { set: set.name().to_owned(), source })?;
    Ok(OfflineSet::of(set, log.table()).map_err(|error| wrong(vec![error.to_string()]))?)
}

/// The rows that break no rule that refuses them.
fn kept(batch: &RecordBatch, rules: &Rules) -> Result<RecordBatch, ArrowError> {
    let mut kept = vec![true; batch.num_rows()];
    rules.broken(batch).iter().filter(|broken| broken.refuses).for_each(|broken| kept[broken.row] = false);
    if kept.contains(&false) { filter_record_batch(batch, &kept.into()) } else { Ok(batch.clone()) }
}

fn schema(columns: &[Column]) -> Schema {
    let field = |column: &Column| Field::new(&column.name, column.data_type.clone(), true);
    Schema::new(columns.iter().map(field).collect::<Vec<_>>())
}

/// The rows of a file in the types of a set.
fn rows(source: &Source, columns: &[Column], options: &LoadOptions) -> Result<Vec<RecordBatch>, LoadError> {
    let schema = Arc::new(schema(columns));
    let (mut batches, mut bytes) = (Vec::new(), 0);
    source.each(|part| {
        part.read(columns, &mut |batch, place| {
            let fitted = |column: &Column| -> Result<ArrayRef, LoadError> {
                let found = batch.column_by_name(&column.name).ok_or_else(|| LoadError::Columns {
                    file: part.name().to_owned(),
                    problems: vec![format!("no column `{}`", column.name)],
                })?;
                fit(column, found).map_err(|unfit| match unfit {
                    Unfit::Column(problem) => {
                        LoadError::Columns { file: part.name().to_owned(), problems: vec![problem] }
                    }
                    Unfit::Value { row, problem } => {
                        LoadError::Row { place: part.place(place(row)), problem }
                    }
                })
            };
            let fitted = columns.iter().map(fitted).collect::<Result<Vec<_>, _>>()?;
            let batch = RecordBatch::try_new(Arc::clone(&schema), fitted).map_err(|error| {
                LoadError::Malformed { place: part.place(At::File), problem: error.to_string() }
            })?;
            bytes += batch.get_array_memory_size();
            if bytes > options.max_bytes {
                let limit = format!("{} bytes", options.max_bytes);
                return Err(LoadError::TooLarge { file: source.name().to_owned(), limit });
            }
            batches.push(batch);
            Ok(())
        })
    })?;
    Ok(batches)
}

fn unfit(source: &Source, error: AppendError) -> LoadError {
    let file = source.name().to_owned();
    match error {
        AppendError::Row { row, problem } => {
            LoadError::Row { place: source.place(At::Row(row + 1)), problem }
        }
        AppendError::Columns { problems } => LoadError::Columns { file, problems },
        AppendError::TooLarge { limit } => LoadError::TooLarge { file, limit },
        AppendError::Lookup(error) => LoadError::Lookup(error),
    }
}
