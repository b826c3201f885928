//! Small files of an hour become one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Fields, Schema},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{
    encode::encode,
    error::RecordError,
    folder::{Folder, Held, Opened, disk},
    hour,
};

/// A file of as many bytes is left as it is, and one that is made of others has no more than theirs together.
const SMALL: u64 = 32 << 20;
/// Rows of the files that become one: they are in memory while they are put in order.
const ROWS: i64 = 1 << 20;
/// An hour that is not over is compacted when it has as many small files of a replica, so that their number stays small.
const MANY: usize = 16;

/// Finds what can be compacted, and remembers where nothing can.
#[derive(Default)]
pub(super) struct Compactor {
    /// The small files with which there was nothing to do.
    settled: BTreeMap<i64, Vec<String>>,
    /// Files that cannot be read: they were reported, and are left as they are.
    broken: BTreeSet<PathBuf>,
}

/// A file that is ready to be published in the place of others.
pub(super) struct Compacted {
    pub(super) bytes: Vec<u8>,
    pub(super) replaces: Vec<String>,
}

impl Compactor {
    /// The rows of small files of an hour as one file; none when there is nothing to do.
    pub(super) fn compact(
        &mut self,
        folder: &Folder,
        hour: i64,
        held: &[Held],
        over: bool,
    ) -> Result<Option<Compacted>, RecordError> {
        let path = folder.path(hour);
        let small =
            |held: &&Held| held.own && held.bytes < SMALL && !self.broken.contains(&path.join(&held.name));
        let small: Vec<&Held> = held.iter().filter(small).collect();
        if small.len() < if over { 2 } else { MANY } {
            return Ok(None);
        }
        let names: Vec<String> = small.iter().map(|held| held.name.clone()).collect();
        if self.settled.get(&hour) == Some(&names) {
            return Ok(None);
        }
        let Some(group) = self.group(folder, hour, &small)? else {
            self.settled.insert(hour, names);
            return Ok(None);
        };
        let read: Result<Vec<_>, RecordError> = group.iter().map(|opened| self.read(opened)).collect();
        let batches: Vec<RecordBatch> = read?.into_iter().flatten().collect();
        let mut replaces = BTreeSet::new();
        for opened in &group {
            replaces.extend(opened.path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
            // Files that an earlier one replaced and that could not be removed are named on.
            let there = |name: &&String| held.iter().any(|held| held.name == **name);
            replaces.extend(opened.replaces.iter().filter(there).cloned());
        }
        let replaces: Vec<String> = replaces.into_iter().collect();
        let bytes = encode(&batches, &replaces)
            .map_err(|source| RecordError::Encode { hour: hour::folder(hour), source })?;
        Ok(Some(Compacted { bytes, replaces }))
    }

    /// Forgets the hours that are gone.
    pub(super) fn keep(&mut self, there: impl Fn(i64) -> bool) {
        self.settled.retain(|hour, _| there(*hour));
        self.broken.retain(|path| path.exists());
    }

    /// The first files of the same columns that may become one.
    fn group(
        &mut self,
        folder: &Folder,
        hour: i64,
        small: &[&Held],
    ) -> Result<Option<Vec<Opened>>, RecordError> {
        let mut opened = Vec::with_capacity(small.len());
        for held in small {
            let path = folder.path(hour).join(&held.name);
            match folder.open_file(&path) {
                Ok(file) => opened.push((held.bytes, file)),
                // Another replica's bounds took it.
                Err(RecordError::Disk { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.note(path, error)),
            }
        }
        let replaced: BTreeSet<String> =
            opened.iter().flat_map(|(_, opened)| opened.replaces.iter().cloned()).collect();
        let mut groups: Vec<Group> = Vec::new();
        for (bytes, opened) in opened {
            let name = opened.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if replaced.contains(name) {
                continue;
            }
            match groups.iter_mut().find(|group| group.takes(bytes, &opened)) {
                Some(group) => group.add(bytes, opened),
                None => groups.push(Group::new(bytes, opened)),
            }
        }
        Ok(groups.into_iter().map(|group| group.files).find(|files| files.len() > 1))
    }

    fn read(&mut self, opened: &Opened) -> Result<Vec<RecordBatch>, RecordError> {
        let malformed = |source| RecordError::Malformed { path: opened.path.clone(), source };
        let file = opened.file.try_clone().map_err(disk(&opened.path, "cannot be opened"))?;
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, opened.metadata.clone()).build();
        // The schema's metadata has what the file says of itself, such as what it replaces. The next file says its own.
        let schema = Arc::new(Schema::new(opened.metadata.schema().fields().clone()));
        let plain = |batch: RecordBatch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec());
        let read = reader.map_err(malformed).and_then(|reader| {
            reader.map(|batch| batch.and_then(plain).map_err(|error| malformed(error.into()))).collect()
        });
        read.map_err(|error| self.note(opened.path.clone(), error))
    }

    /// A file that is broken is reported once.
    fn note(&mut self, path: PathBuf, error: RecordError) -> RecordError {
        if matches!(error, RecordError::Malformed { .. }) {
            self.broken.insert(path);
        }
        error
    }
}

/// Files that may become one.
struct Group {
    fields: Fields,
    bytes: u64,
    rows: i64,
    files: Vec<Opened>,
}

impl Group {
    fn new(bytes: u64, opened: Opened) -> Self {
        let (fields, rows) = (opened.metadata.schema().fields().clone(), rows(&opened));
        Self { fields, bytes, rows, files: vec![opened] }
    }

    fn takes(&self, bytes: u64, opened: &Opened) -> bool {
        self.bytes.saturating_add(bytes) <= SMALL
            && self.rows.saturating_add(rows(opened)) <= ROWS
            && self.fields == *opened.metadata.schema().fields()
    }

    fn add(&mut self, bytes: u64, opened: Opened) {
        self.bytes += bytes;
        self.rows += rows(&opened);
        self.files.push(opened);
    }
}

fn rows(opened: &Opened) -> i64 {
    opened.metadata.metadata().file_metadata().num_rows()
}
