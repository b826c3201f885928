//! What the log of a table says: its columns, and which data files are its rows.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::datatypes::Field;
use deltalake_core::{
    DeltaTableBuilder,
    kernel::{Snapshot, StructField},
};
use futures_util::TryStreamExt;
use url::Url;

use super::{super::places::DELTA_LOG, TableColumn, deleted::Deleted};

/// Bytes of all commits of a log together: what may have to be read at once.
const MOST_COMMITTED: u64 = 1 << 30;

/// What readers of a table must know, by the names that the protocol has for it, and this one does.
const KNOWN: [&str; 4] = ["columnMapping", "deletionVectors", "timestampNtz", "vacuumProtocolCheck"];

/// A version of a table.
pub(super) struct Log {
    /// Stays the same for as long as there is the table.
    pub(super) id: String,
    pub(super) columns: Vec<TableColumn>,
    /// In the order in which they were written.
    pub(super) files: Vec<DataFile>,
}

#[derive(Clone, Debug)]
pub(super) struct DataFile {
    /// In the folder of the table.
    pub(super) path: String,
    /// The values of partition columns as text, by the names that they have in files; null where there is none.
    pub(super) values: HashMap<String, Option<String>>,
    /// Milliseconds since 1970 UTC.
    pub(super) written: i64,
    /// The rows that are none any more.
    pub(super) deleted: Option<Deleted>,
}

/// Whether a log lies where it may, and is small enough to be read.
pub(super) fn check(root: &Path, table: &Path) -> io::Result<()> {
    let refused = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
    let folder = table.join(DELTA_LOG).canonicalize()?;
    if !folder.starts_with(root) {
        return Err(refused(format!("`{DELTA_LOG}` lies outside the project's folder")));
    }
    let mut committed = 0;
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let (found, name) = (entry.metadata()?, entry.file_name());
        if found.is_symlink() {
            return Err(refused(format!("`{DELTA_LOG}/{}` is a link", name.display())));
        }
        // Checkpoints are read part by part.
        if found.is_file() && !name.as_encoded_bytes().ends_with(b".parquet") {
            committed += found.len();
        }
    }
    if committed > MOST_COMMITTED {
        let problem =
            format!("the commits in `{DELTA_LOG}` have more than {MOST_COMMITTED} bytes; clean the log up");
        return Err(refused(problem));
    }
    Ok(())
}

/// Reads the newest version, which may have `most` data files.
pub(super) async fn read(folder: PathBuf, most: usize) -> io::Result<Log> {
    let url = Url::from_directory_path(&folder).map_err(|()| io::Error::other("its path is no URL"))?;
    let table =
        DeltaTableBuilder::from_url(url).and_then(DeltaTableBuilder::build).map_err(io::Error::other)?;
    let store = table.log_store();
    let snapshot = Snapshot::try_new(store.as_ref(), None).await.map_err(io::Error::other)?;
    let problems = unknown(&snapshot);
    if !problems.is_empty() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, problems.join("; ")));
    }
    let mut files: Vec<DataFile> = Vec::new();
    let mut views = snapshot.file_views(store.as_ref(), None);
    while let Some(view) = views.try_next().await.map_err(io::Error::other)? {
        let path = view.path().into_owned();
        let deleted = view.deletion_vector_descriptor().map(|descriptor| Deleted::new(&descriptor));
        let deleted = deleted
            .transpose()
            .map_err(|error| io::Error::new(error.kind(), format!("`{path}`: {error}")))?;
        if files.len() == most {
            return Err(io::Error::other(format!("the table has more than {most} data files; optimize it")));
        }
        let (values, written) = (view.partition_values_map(), view.modification_time());
        files.push(DataFile { path, values, written, deleted });
    }
    files.sort_by(|a, b| (a.written, &a.path).cmp(&(b.written, &b.path)));
    Ok(Log { id: snapshot.metadata().id().to_owned(), columns: columns(&snapshot), files })
}

/// What the table asks of its readers beyond what this one knows; all of it at once.
fn unknown(snapshot: &Snapshot) -> Vec<String> {
    let features = snapshot.protocol().reader_features().unwrap_or_default().iter();
    let features = features.map(ToString::to_string).filter(|feature| !KNOWN.contains(&feature.as_str()));
    let mut problems: Vec<_> =
        features.map(|feature| format!("tables with the feature `{feature}` are not read")).collect();
    let mode = snapshot.metadata().configuration().get("delta.columnMapping.mode").map(String::as_str);
    if mode == Some("id") {
        problems
            .push("tables whose columns are mapped by `id` are not read, only those by `name`".to_owned());
    }
    problems
}

fn columns(snapshot: &Snapshot) -> Vec<TableColumn> {
    let mode = snapshot.table_configuration().column_mapping_mode();
    let (logical, typed) = (snapshot.schema(), snapshot.arrow_schema());
    let partitions = snapshot.metadata().partition_columns();
    let column = |(field, typed): (&StructField, &Arc<Field>)| TableColumn {
        name: typed.name().clone(),
        physical: field.physical_name(mode).to_owned(),
        data_type: typed.data_type().clone(),
        partition: partitions.contains(typed.name()),
    };
    logical.fields().zip(typed.fields()).map(column).collect()
}
