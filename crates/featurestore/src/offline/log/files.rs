//! The files of a log: written whole or not at all, read batch by batch.

use std::{path::PathBuf, sync::Arc};

use ahash::RandomState;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{
    LogError, LogSchema,
    manifest::Entry,
    schema::{EVENT, by_version},
};

/// Rows per row group: what a reader can skip by the times in it.
const GROUP_ROWS: usize = 128 * 1024;
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// Where the files lie.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder, when it is one of this machine: what is written there is made to last.
    folder: Option<PathBuf>,
}

impl Files {
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: Path, folder: Option<PathBuf>) -> Self {
        Self { store, prefix, folder }
    }

    pub(crate) fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// The folder, when it is one of this machine.
    pub(super) fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref()
    }

    /// Where they lie: a folder of this machine, or the prefix of a store.
    pub(super) fn place(&self) -> String {
        let folder = self.folder.as_ref().map(|folder| folder.display().to_string());
        folder.unwrap_or_else(|| self.prefix.to_string())
    }

    /// Whether they are the files of the same log.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (&self.folder, &other.folder) {
            (Some(folder), Some(other)) => folder == other,
            _ => Arc::ptr_eq(&self.store, &other.store) && self.prefix == other.prefix,
        }
    }

    /// The path of a file from the root of this machine's files, or of the store.
    pub(super) fn absolute(&self, name: &str) -> Path {
        let path = self.path(name);
        let root = self.folder.as_deref().and_then(|folder| Path::from_absolute_path(folder).ok());
        root.map_or(path.clone(), |root| path.parts().fold(root, |path, part| path.join(part)))
    }

    pub(super) fn failed(&self, path: &Path, source: object_store::Error) -> LogError {
        LogError::Store { path: path.to_string(), source }
    }

    /// Writes a file whole; on this machine it is on the disk, not only in its caches, when this returns.
    pub(super) async fn put(&self, path: &Path, bytes: Bytes, mode: PutMode) -> object_store::Result<()> {
        self.store.put_opts(path, bytes.into(), PutOptions::from(mode)).await?;
        let Some(folder) = &self.folder else { return Ok(()) };
        let file = path.parts().fold(folder.clone(), |file, part| file.join(part.as_ref()));
        let lasting = |path: &std::path::Path| std::fs::File::open(path)?.sync_all();
        let parents = file.ancestors().take_while(|parent| parent.starts_with(folder));
        parents.clone().try_for_each(lasting).map_err(|source| object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(source),
        })
    }

    /// Deletes a file, unless it is gone already.
    pub(super) async fn delete(&self, name: &str) -> Result<(), LogError> {
        let path = self.path(name);
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&path, error)),
        }
    }

    /// Writes rows of any dates, one file per date, each in the order of versions.
    pub(super) async fn write(&self, rows: &RecordBatch) -> Result<Vec<Entry>, LogError> {
        let rows = by_version(rows)?;
        let events = events(&rows);
        let mut entries = Vec::new();
        let mut start = 0;
        for day in events.chunk_by(|a, b| a.div_euclid(DAY) == b.div_euclid(DAY)) {
            let part = rows.slice(start, day.len());
            start += day.len();
            let path = format!("{}/part-{:016x}.parquet", date(day[0]), unique());
            let bytes = encode(&part)?;
            let size = bytes.len() as u64;
            let place = self.path(&path);
            self.put(&place, bytes, PutMode::Overwrite).await.map_err(|error| self.failed(&place, error))?;
            entries.push(Entry {
                path,
                rows: day.len() as u64,
                bytes: size,
                first: day[0],
                last: day[day.len() - 1],
            });
        }
        Ok(entries)
    }

    /// The rows of a file, those columns only that `columns` names, in the form of today.
    pub(super) async fn read(
        &self,
        entry: &Entry,
        columns: Option<&[String]>,
    ) -> Result<Vec<RecordBatch>, LogError> {
        let path = self.path(&entry.path);
        let broken = |problem: String| LogError::Malformed { path: path.to_string(), problem };
        let bytes = async { self.store.get(&path).await?.bytes().await };
        let bytes = bytes.await.map_err(|error| self.failed(&path, error))?;
        let mut builder =
            ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| broken(error.to_string()))?;
        if let Some(columns) = columns {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
            builder = builder.with_projection(mask);
        }
        let reader = builder.build().map_err(|error| broken(error.to_string()))?;
        reader.map(|batch| batch.map_err(|error| broken(error.to_string()))).collect()
    }

    /// All rows of a file.
    pub(super) async fn rows(&self, entry: &Entry, schema: &LogSchema) -> Result<RecordBatch, LogError> {
        let batches = self.read(entry, None).await?;
        let batches = batches.iter().map(|batch| schema.conform(batch)).collect::<Result<Vec<_>, _>>()?;
        Ok(arrow::compute::concat_batches(schema.arrow(), &batches)?)
    }

    /// The names of the Parquet files that lie in the folders of dates.
    pub(super) async fn parts(&self) -> Result<Vec<String>, LogError> {
        let listed: Vec<_> = self
            .store
            .list(Some(&self.prefix))
            .try_collect()
            .await
            .map_err(|error| self.failed(&self.prefix, error))?;
        let below = |path: &Path| {
            let parts: Vec<_> =
                path.prefix_match(&self.prefix)?.map(|part| part.as_ref().to_owned()).collect();
            let [folder, file] = parts.as_slice() else { return None };
            (folder.starts_with("date=") && file.ends_with(".parquet")).then(|| format!("{folder}/{file}"))
        };
        Ok(listed.iter().filter_map(|meta| below(&meta.location)).collect())
    }
}

/// The events of rows of a log.
fn events(rows: &RecordBatch) -> Vec<i64> {
    let column =
        rows.column_by_name(EVENT).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.map(|events| events.values().to_vec()).unwrap_or_default()
}

fn encode(rows: &RecordBatch) -> Result<Bytes, LogError> {
    let fast = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder()
        .set_compression(fast)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let broken = |error: parquet::errors::ParquetError| LogError::Encode { problem: error.to_string() };
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).map_err(broken)?;
    writer.write(rows).map_err(broken)?;
    Ok(writer.into_inner().map_err(broken)?.into())
}

/// The folder of the day an event falls on, in UTC.
fn date(event: i64) -> String {
    let day = chrono::DateTime::from_timestamp_micros(event).unwrap_or_default();
    day.format("date=%Y-%m-%d").to_string()
}

/// A number that no other file has.
fn unique() -> u64 {
    RandomState::new().hash_one(0)
}
