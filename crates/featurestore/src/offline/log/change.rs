//! What changes a log: appending, compacting, erasing.

use std::collections::BTreeMap;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::UInt64Type,
};
use millstream_graph::suggest;

use super::{
    Log, LogError, SEQUENCE,
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

    /// Adds rows in the form of the log, which have numbers of their own, ascending; numbers may be left out. As [`Log::append`].
    pub(crate) async fn append_numbered(&self, rows: &RecordBatch) -> Result<Appended, LogError> {
        let _writer = self.writer.lock().await;
        let newest = self.newest();
        let numbers = sequences(rows)?;
        let known = numbers.partition_point(|&number| number < newest.next);
        let Some(last) = numbers.get(known..).and_then(<[u64]>::last) else {
            return Ok(Appended { rows: 0, next: newest.next });
        };
        let mut manifest = Manifest::clone(&newest);
        manifest.next = last.saturating_add(1);
        let new = rows.slice(known, rows.num_rows() - known);
        manifest.files.extend(self.files.write(&new).await?);
        let next = manifest.next;
        self.commit(manifest).await?;
        Ok(Appended { rows: new.num_rows() as u64, next })
    }

    /// How many files could be put together with others, into ones of at most `max_rows` rows.
    pub(crate) fn fragments(&self, max_rows: u64) -> usize {
        groups(&self.newest().files, max_rows).iter().map(Vec::len).sum()
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
        self.erase_before(keys, u64::MAX).await
    }

    /// As [`Log::erase`], the rows whose numbers are less than `before`.
    pub(crate) async fn erase_before(&self, keys: &RecordBatch, before: u64) -> Result<Erased, LogError> {
        let keys = Some(self.index_of(keys)?);
        self.remove(&Gone { keys, before }).await
    }

    /// Removes every row whose number is less than `before`, from the files too.
    pub(crate) async fn purge_before(&self, before: u64) -> Result<Erased, LogError> {
        self.remove(&Gone { keys: None, before }).await
    }

    async fn remove(&self, erased: &Gone) -> Result<Erased, LogError> {
        let _writer = self.writer.lock().await;
        let mut manifest = Manifest::clone(&self.newest());
        let mut receipt = Erased { rows: 0, deleted: Vec::new(), version: manifest.version };
        let mut changed = !manifest.replaced.is_empty();
        for entry in std::mem::take(&mut manifest.files) {
            if !self.holds(&entry, erased).await? {
                manifest.files.push(entry);
                continue;
            }
            let rows = self.files.rows(&entry, &self.schema).await?;
            let kept = filter_record_batch(&rows, &self.kept(&rows, erased)?)?;
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

    /// Whether a file has rows that are to go. Reads the key columns and numbers alone.
    async fn holds(&self, entry: &Entry, erased: &Gone) -> Result<bool, LogError> {
        let mut names: Vec<_> = self.schema.keys().iter().map(|key| key.name.clone()).collect();
        names.push(SEQUENCE.to_owned());
        for batch in self.files.read(entry, Some(&names)).await? {
            if self.kept(&batch, erased)?.false_count() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Which rows stay.
    fn kept(&self, batch: &RecordBatch, erased: &Gone) -> Result<BooleanArray, LogError> {
        let numbers = sequences(batch)?;
        let mut kept: Vec<bool> = numbers.iter().map(|&number| number >= erased.before).collect();
        if let Some(keys) = &erased.keys {
            let columns: Vec<&ArrayRef> =
                self.schema.keys().iter().filter_map(|key| batch.column_by_name(&key.name)).collect();
            let mut row = 0;
            keys.find(&columns, |found| {
                kept[row] |= found == ABSENT;
                row += 1;
            })?;
        }
        Ok(kept.into())
    }
}

/// Which rows are removed: of some keys, or of all, and with numbers less than `before`.
struct Gone {
    keys: Option<Index>,
    before: u64,
}

/// The numbers of rows of a log.
fn sequences(rows: &RecordBatch) -> Result<&[u64], LogError> {
    let column = rows.column_by_name(SEQUENCE).and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let column =
        column.ok_or_else(|| LogError::Columns { problems: vec![format!("no column `{SEQUENCE}`")] });
    column.map(|numbers| &numbers.values()[..])
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
