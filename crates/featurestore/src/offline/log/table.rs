//! A log as a table of DataFusion.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DFSchema, Result, ScalarValue, Statistics, project_schema, stats::Precision},
    datasource::{
        TableType,
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
    },
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown, utils::conjunction},
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};

use object_store::ObjectMeta;

use super::{
    LogSchema,
    files::Files,
    manifest::{Entry, Manifest},
    schema::EVENT,
};

/// The rows of a log as they were at one moment. Row groups whose times a filter rules out are not read.
pub struct LogTable {
    schema: LogSchema,
    files: Files,
    manifest: Arc<Manifest>,
    url: ObjectStoreUrl,
}

impl LogTable {
    pub(super) fn new(schema: LogSchema, files: Files, manifest: Arc<Manifest>) -> Self {
        // Files of this machine are what they are everywhere; of other stores each table has its files under an address of its
        // own, so that tables of several stores meet in one session.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let own = || ObjectStoreUrl::parse(format!("log://n{}", NUMBER.fetch_add(1, Relaxed))).ok();
        let url = if files.folder().is_some() { None } else { own() };
        Self { schema, files, manifest, url: url.unwrap_or_else(ObjectStoreUrl::local_filesystem) }
    }

    /// What is known of a file without opening it, so that one whose times a filter rules out never is.
    fn statistics(&self, entry: &Entry) -> Statistics {
        let schema = self.schema.arrow();
        let mut statistics = Statistics::new_unknown(schema);
        let time =
            |micros| Precision::Exact(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
        statistics.num_rows = Precision::Exact(usize::try_from(entry.rows).unwrap_or(usize::MAX));
        for (field, column) in schema.fields().iter().zip(&mut statistics.column_statistics) {
            if field.name() == EVENT {
                column.null_count = Precision::Exact(0);
                column.min_value = time(entry.first);
                column.max_value = time(entry.last);
            }
        }
        statistics
    }

    /// The store of its files, in sessions that have scanned it.
    #[cfg(feature = "ballista")]
    pub(crate) fn url(&self) -> &ObjectStoreUrl {
        &self.url
    }

    /// What the log holds.
    pub fn log_schema(&self) -> &LogSchema {
        &self.schema
    }
}

impl fmt::Debug for LogTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogTable").field("files", &self.manifest.files.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.arrow())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.manifest.files.is_empty() {
            // A source without files has no partition, which not every plan over it can do with.
            return Ok(Arc::new(EmptyExec::new(project_schema(self.schema.arrow(), projection)?)));
        }
        if self.files.folder().is_none() {
            state.runtime_env().register_object_store(self.url.as_ref(), Arc::clone(&self.files.store));
        }
        let mut source = ParquetSource::new(Arc::clone(self.schema.arrow()));
        if let Some(filter) = conjunction(filters.to_vec()) {
            let schema = DFSchema::try_from(Arc::clone(self.schema.arrow()))?;
            source = source.with_predicate(state.create_physical_expr(filter, &schema)?);
        }
        // One group, earliest day first: whoever reads one partition reads the days in order.
        let file = |entry: &Entry| {
            let meta = ObjectMeta {
                location: self.files.absolute(&entry.path),
                last_modified: chrono::DateTime::default(),
                size: entry.bytes,
                e_tag: None,
                version: None,
            };
            PartitionedFile::new_from_meta(meta).with_statistics(Arc::new(self.statistics(entry)))
        };
        let group: FileGroup = self.manifest.files.iter().map(file).collect();
        let config = FileScanConfigBuilder::new(self.url.clone(), Arc::new(source)).with_limit(limit);
        let config = config.with_file_group(group).with_projection_indices(projection.cloned())?.build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
