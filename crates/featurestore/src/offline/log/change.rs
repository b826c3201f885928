//! What changes a log: appending, compacting, erasing.

use std::collections::BTreeMap;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
};
use millstream_graph::suggest;

use super::{
    Log, LogError,
    manifest::{Entry, Manifest},
};
use crate::{
    index::{ABSENT, Index, Inserted},
    key::KeyKind,
};

/// What appending did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Rows that were not there before.
    pub rows: u64,
    /// The sequence number of the next row.
    pub next: u64,
}

/// What compacting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Files that were put together.
    pub merged: u64,
    /// Files that took their place.
    pub written: u64,
    /// Files deleted: those an earlier compaction replaced, and those no commit lists.
    pub deleted: u64,
}

/// The receipt of an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Rows that are gone.
    pub rows: u64,
    /// Files that held such rows, or that no commit lists: they are deleted.
    pub deleted: Vec<String>,
    /// The commit in which the rows are no more.
    pub version: u64,
}

impl Log {
    /// Adds rows, which are numbered from `first` on: columns by name, `_event` and, if there are, `_created` and `_valid_to`.
    /// Rows that are there already, by their numbers, are left out: the same batch may be sent again. All of it counts or nothing.
    ///
    /// # Errors
    /// When a column is missing or does not fit, a key or an event is null, the store fails, or another process has written.
    pub async fn append(&self, first: u64, rows: &RecordBatch) -> Result<Appended, LogError> {
        let _writer = self.writer.lock().await;
        let newest = self.newest();
        let all = rows.num_rows();
        let known = usize::try_from(newest.next.saturating_sub(first)).map_or(all, |known| known.min(all));
        if known == all {
            return Ok(Appended { rows: 0, next: newest.next });
        }
        let end = first.checked_add(all as u64).ok_or_else(|| LogError::Row {
            row: 0,
            problem: format!("sequence number {first} leaves no room for {all} rows"),
        })?;
        let new = self.schema.rows(rows, first)?.slice(known, all - known);
        let mut manifest = Manifest::clone(&newest);
        manifest.next = end;
        manifest.files.extend(self.files.write(&new).await?);
        let next = manifest.next;
        self.commit(manifest).await?;
        Ok(Appended { rows: (all - known) as u64, next })
    }

    /// Puts the files of each day together, into ones of at most `max_rows` rows. The rows are the same, and so is every answer.
    /// Files that were put together stay until the next compaction, for those who still read them.
    ///
    /// # Errors
    /// When the store fails, or another process has written.
    pub async fn compact(&self, max_rows: u64) -> Result<Compacted, LogError> {
        let _writer = self.writer.lock().await;
        let mut manifest = Manifest::clone(&self.newest());
        let mut done = Compacted { merged: 0, written: 0, deleted: 0 };
        let mut replaced = Vec::new();
        for group in groups(&manifest.files, max_rows) {
            let mut rows = Vec::with_capacity(group.len());
            for entry in &group {
                rows.push(self.files.rows(entry, &self.schema).await?);
            }
            let written = self.files.write(&concat_batches(self.schema.arrow(), &rows)?).await?;
            done.merged += group.len() as u64;
            done.written += written.len() as u64;
            manifest.files.retain(|entry| !group.contains(entry));
            manifest.files.extend(written);
            replaced.extend(group.into_iter().map(|entry| entry.path));
        }
        if !replaced.is_empty() || !manifest.replaced.is_empty() {
            manifest.replaced.clone_from(&replaced);
            self.commit(manifest).await?;
        }
        done.deleted = self.clear().await?.len() as u64;
        Ok(done)
    }

    /// Removes every row of these keys, from the files too: columns by the names of the keys.
    ///
    /// # Errors
    /// When a key column is missing, the store fails, or another process has written.
    pub async fn erase(&self, keys: &RecordBatch) -> Result<Erased, LogError> {
        let _writer = self.writer.lock().await;
        let erased = self.index_of(keys)?;
        let mut manifest = Manifest::clone(&self.newest());
        let mut receipt = Erased { rows: 0, deleted: Vec::new(), version: manifest.version };
        let mut changed = !manifest.replaced.is_empty();
        for entry in std::mem::take(&mut manifest.files) {
            if !self.holds(&entry, &erased).await? {
                manifest.files.push(entry);
                continue;
            }
            let rows = self.files.rows(&entry, &self.schema).await?;
            let kept = filter_record_batch(&rows, &self.kept(&rows, &erased)?)?;
            receipt.rows += (rows.num_rows() - kept.num_rows()) as u64;
            changed = true;
            manifest.files.extend(self.files.write(&kept).await?);
        }
        // Files that a compaction replaced hold the same rows once more.
        manifest.replaced.clear();
        if changed {
            receipt.version = self.commit(manifest).await?;
        }
        receipt.deleted = self.clear().await?;
        Ok(receipt)
    }

    /// Deletes files that no commit lists: those that were replaced, and those of a change that did not come to its end.
    async fn clear(&self) -> Result<Vec<String>, LogError> {
        let kept = self.newest();
        let mut parts = self.files.parts().await?;
        parts.retain(|part| {
            !kept.replaced.contains(part) && kept.files.iter().all(|entry| entry.path != *part)
        });
        for part in &parts {
            self.files.delete(part).await?;
        }
        Ok(parts)
    }

    /// Makes a state the newest, and answers its number.
    async fn commit(&self, mut manifest: Manifest) -> Result<u64, LogError> {
        manifest.version += 1;
        manifest.files.sort_by(|a, b| (a.date(), a.first, &a.path).cmp(&(b.date(), b.first, &b.path)));
        manifest.commit(&self.files).await?;
        let version = manifest.version;
        self.publish(manifest);
        Ok(version)
    }

    fn index_of(&self, keys: &RecordBatch) -> Result<Index, LogError> {
        let names = || keys.schema_ref().fields().iter().map(|field| field.name().as_str());
        let mut problems = Vec::new();
        let mut columns = Vec::new();
        for key in self.schema.keys() {
            match keys.column_by_name(&key.name) {
                None => problems.push(suggest::unknown("column", &key.name, names())),
                Some(column) if !KeyKind::accepts(&key.data_type, column.data_type()) => problems
                    .push(format!("key `{}` is {}, not {}", key.name, key.data_type, column.data_type())),
                Some(column) => columns.push(column),
            }
        }
        if !problems.is_empty() {
            return Err(LogError::Columns { problems });
        }
        let kinds = self.schema.keys().iter().filter_map(|key| KeyKind::of(&key.data_type)).collect();
        let mut index = Index::new(kinds);
        let mut next = 0;
        // Row numbers do not matter here, only that each key is there.
        index
            .insert(&columns, next, |_, inserted| next += u32::from(matches!(inserted, Inserted::New(_))))?;
        Ok(index)
    }

    /// Whether a file has rows of these keys. Reads the key columns alone.
    async fn holds(&self, entry: &Entry, keys: &Index) -> Result<bool, LogError> {
        let names: Vec<_> = self.schema.keys().iter().map(|key| key.name.clone()).collect();
        for batch in self.files.read(entry, Some(&names)).await? {
            if self.kept(&batch, keys)?.false_count() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Which rows are none of these keys.
    fn kept(&self, batch: &RecordBatch, keys: &Index) -> Result<BooleanArray, LogError> {
        let columns: Vec<&ArrayRef> =
            self.schema.keys().iter().filter_map(|key| batch.column_by_name(&key.name)).collect();
        let mut kept = Vec::with_capacity(batch.num_rows());
        keys.find(&columns, |row| kept.push(row == ABSENT))?;
        Ok(kept.into())
    }
}

/// Files of one day to be put together: smallest first, as many as have `max_rows` rows.
fn groups(files: &[Entry], max_rows: u64) -> Vec<Vec<Entry>> {
    let mut days: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for file in files {
        days.entry(file.date()).or_default().push(file);
    }
    let mut groups = Vec::new();
    for mut day in days.into_values() {
        day.sort_by_key(|file| file.rows);
        let mut group: Vec<Entry> = Vec::new();
        for file in day {
            if group.iter().map(|file| file.rows).sum::<u64>() + file.rows > max_rows {
                groups.push(std::mem::take(&mut group));
            }
            group.push(file.clone());
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() > 1);
    groups
}
