//! What is called in the background: rows go to the disk, hours are compacted, old ones are deleted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{Ordering::Acquire, fence},
    },
};

use arrow::array::RecordBatch;

use super::{
    build::{build, chunks},
    compact::Compactor,
    encode::encode,
    error::RecordError,
    files::Files,
    folder::{Folder, Hours},
    hour::{self, HOUR},
    recorder::{Counts, Ended, Recorder, add},
    settings::Checked,
};

/// Writes what recorders of one log have taken. It has no thread of its own: somebody calls [`Writer::drain`] every so often, and
/// [`Writer::flush`] at the end.
pub struct Writer {
    checked: Checked,
    folder: Folder,
    sources: Vec<Source>,
    compactor: Compactor,
    /// When the bounds were last looked after.
    tended: Option<i64>,
    /// What recorders have counted that were let go.
    let_go: Counts,
}

/// A recorder, and what was taken from it.
struct Source {
    recorder: Arc<Recorder>,
    hours: BTreeMap<i64, Pending>,
}

/// Rows that wait for a file of their hour.
struct Pending {
    batches: Vec<RecordBatch>,
    rows: usize,
    /// When the first of them was taken.
    since: i64,
}

/// What a call has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Rows that went to files.
    pub rows: usize,
    /// Files that were written for them.
    pub files: usize,
    /// Files that became part of one, which replaces them.
    pub compacted: usize,
    /// Files that were deleted because of `max_bytes` or `max_age`.
    pub deleted: usize,
}

/// How long the bounds are left alone when nothing is written, in microseconds.
const TEND: i64 = 60_000_000;

impl Writer {
    /// Opens the log of a recorder, and removes what a crash left of it.
    ///
    /// # Errors
    /// When the folder cannot be used, or another writer has the same replica's files.
    pub fn open(recorder: Arc<Recorder>) -> Result<Self, RecordError> {
        Self::open_on(recorder, Files::default())
    }

    pub(super) fn open_on(recorder: Arc<Recorder>, files: Files) -> Result<Self, RecordError> {
        let checked = recorder.checked.clone();
        let folder = Folder::open(&checked.root, &checked.replica, files)?;
        let sources = vec![Source { recorder, hours: BTreeMap::new() }];
        let (compactor, let_go) = (Compactor::default(), Counts::default());
        Ok(Self { checked, folder, sources, compactor, tended: None, let_go })
    }

    /// Writes what another recorder takes too: the one of a new plan, while runs of the old one go on. Its bounds hold from now on.
    /// A recorder that nobody else holds is let go once its rows are written.
    ///
    /// # Errors
    /// When it is a recorder of another log.
    pub fn follow(&mut self, recorder: Arc<Recorder>) -> Result<(), RecordError> {
        if !self.is_of(&recorder) {
            let (path, own) = (recorder.checked.root.clone(), self.checked.root.clone());
            return Err(RecordError::OtherLog { path, own });
        }
        self.checked = recorder.checked.clone();
        if !self.sources.iter().any(|source| Arc::ptr_eq(&source.recorder, &recorder)) {
            self.sources.push(Source { recorder, hours: BTreeMap::new() });
        }
        Ok(())
    }

    /// Whether it writes the log of a recorder: the same folder, as the same replica.
    pub fn is_of(&self, recorder: &Recorder) -> bool {
        (&recorder.checked.root, &recorder.checked.replica) == (&self.checked.root, &self.checked.replica)
    }

    /// What its recorders have counted, those that were let go included.
    pub fn counts(&self) -> Counts {
        let mut counts = self.let_go;
        self.sources.iter().for_each(|source| counts += source.recorder.counts());
        counts
    }

    /// Whether rows of requests that have ended wait to be written.
    pub fn has_waiting(&self) -> bool {
        self.sources.iter().any(|source| !source.is_written())
    }

    /// Whether no recorder is left, so that nothing is ever to be written again unless it [follows](Self::follow) another.
    pub fn is_over(&self) -> bool {
        self.sources.is_empty()
    }

    /// Takes the rows of requests that have ended, and writes those that have waited long enough. `now` is in microseconds since
    /// 1970 UTC.
    ///
    /// # Errors
    /// The first thing that went wrong. Everything else was done all the same, and rows that could not be written wait on.
    pub fn drain(&mut self, now: i64) -> Result<Drained, RecordError> {
        self.work(now, false)
    }

    /// Writes all rows of requests that have ended. Call it again to try again.
    ///
    /// # Errors
    /// As [`Writer::drain`].
    pub fn flush(&mut self, now: i64) -> Result<Drained, RecordError> {
        self.work(now, true)
    }

    fn work(&mut self, now: i64, everything: bool) -> Result<Drained, RecordError> {
        let mut drained = Drained::default();
        let mut first = Ok(());
        let mut note = |result: Result<(), RecordError>| {
            if first.is_ok() {
                first = result;
            }
        };
        for source in &mut self.sources {
            note(source.take(now));
        }
        for number in 0..self.sources.len() {
            note(self.write(number, now, everything, &mut drained));
        }
        note(self.folder.settle());
        let due = self.tended.is_none_or(|tended| now < tended || now.saturating_sub(tended) >= TEND);
        if due || drained.files > 0 {
            self.tended = Some(now);
            note(self.tend(now, &mut drained));
        }
        let let_go = &mut self.let_go;
        self.sources.retain(|source| {
            let over = source.is_over();
            if over {
                *let_go += source.recorder.counts();
            }
            !over
        });
        first.map(|()| drained)
    }

    /// Writes the hours of a recorder whose rows have waited long enough.
    fn write(
        &mut self,
        source: usize,
        now: i64,
        everything: bool,
        drained: &mut Drained,
    ) -> Result<(), RecordError> {
        let Source { recorder, hours } = &mut self.sources[source];
        // Rows that cannot wait leave room for others before it is all taken.
        let many = (self.checked.buffer_rows / 2).max(1);
        let due = |pending: &Pending| {
            let waited = now.saturating_sub(pending.since);
            everything || pending.rows >= many || waited >= self.checked.flush || waited < 0
        };
        let mut first = Ok(());
        hours.retain(|hour, pending| {
            if !due(pending) {
                return true;
            }
            let encoded = encode(&pending.batches, &[])
                .map_err(|source| RecordError::Encode { hour: hour::folder(*hour), source });
            match encoded.and_then(|bytes| self.folder.publish(*hour, &bytes)) {
                Ok(_) => {
                    recorder.written(pending.rows);
                    add(&recorder.counters.rows_written, pending.rows);
                    drained.rows += pending.rows;
                    drained.files += 1;
                    false
                }
                Err(error) => {
                    add(&recorder.counters.write_failures, 1);
                    if first.is_ok() {
                        first = Err(error);
                    }
                    true
                }
            }
        });
        first
    }

    /// Compacts one hour and keeps the bounds.
    fn tend(&mut self, now: i64, drained: &mut Drained) -> Result<(), RecordError> {
        let mut hours = self.folder.scan()?;
        let aged = self.forget_old(now, &mut hours, drained);
        let bounded = self.make_room(0, &mut hours, drained);
        let compacted = self.compact(now, &mut hours, drained);
        self.compactor.keep(|hour| hours.contains_key(&hour));
        aged.and(bounded).and(compacted)
    }

    /// Deletes the hours that ended longer ago than `max_age`.
    fn forget_old(&mut self, now: i64, hours: &mut Hours, drained: &mut Drained) -> Result<(), RecordError> {
        while let Some(entry) = hours.first_entry() {
            let hour = *entry.key();
            if now.saturating_sub(end(hour)) <= self.checked.max_age {
                break;
            }
            for held in entry.remove() {
                self.folder.remove(hour, &held)?;
                drained.deleted += 1;
            }
            self.folder.remove_hour(hour)?;
        }
        Ok(())
    }

    /// Deletes the oldest hours until there is room for so many bytes more; of the last hour the oldest files, but for one.
    fn make_room(&mut self, bytes: u64, hours: &mut Hours, drained: &mut Drained) -> Result<(), RecordError> {
        let mut total: u64 = hours.values().flatten().map(|held| held.bytes).sum();
        let full = |total: u64| total.saturating_add(bytes) > self.checked.max_bytes;
        while full(total) {
            let last = hours.len() == 1;
            let Some(mut entry) = hours.first_entry() else { break };
            let hour = *entry.key();
            let files = entry.get_mut();
            if last {
                if files.len() < 2 {
                    break;
                }
                let held = files.remove(0);
                self.folder.remove(hour, &held)?;
                total -= held.bytes;
                drained.deleted += 1;
                continue;
            }
            for held in entry.remove() {
                self.folder.remove(hour, &held)?;
                total -= held.bytes;
                drained.deleted += 1;
            }
            self.folder.remove_hour(hour)?;
        }
        Ok(())
    }

    /// Compacts one hour, the newest that needs it: one call takes a bounded time.
    fn compact(&mut self, now: i64, hours: &mut Hours, drained: &mut Drained) -> Result<(), RecordError> {
        let waits = |hour: i64| self.sources.iter().any(|source| source.hours.contains_key(&hour));
        let mut found = None;
        let mut first = Ok(());
        for (&hour, held) in hours.iter().rev() {
            // Runs that came in the hour may end after it.
            let over = now.saturating_sub(end(hour)) >= self.checked.flush && !waits(hour);
            match self.compactor.compact(&self.folder, hour, held, over) {
                Ok(None) => {}
                Ok(Some(compacted)) => {
                    found = Some((hour, compacted));
                    break;
                }
                Err(error) if first.is_ok() => first = Err(error),
                Err(_) => {}
            }
        }
        let Some((hour, compacted)) = found else { return first };
        self.make_room(compacted.bytes.len() as u64, hours, drained)?;
        // Where only the hour itself could make room, it stays in small files.
        let whole = |names: &[String]| {
            let there = hours.get(&hour).into_iter().flatten();
            let there: Vec<&str> = there.map(|held| held.name.as_str()).collect();
            names.iter().all(|name| there.contains(&name.as_str()))
        };
        if whole(&compacted.replaces) {
            self.folder.publish(hour, &compacted.bytes)?;
            drained.compacted += compacted.replaces.len();
            self.folder.replace(hour, compacted.replaces);
            self.folder.settle()?;
        }
        first
    }
}

impl Source {
    /// Takes what has ended, as rows of the log.
    fn take(&mut self, now: i64) -> Result<(), RecordError> {
        let mut hours: BTreeMap<i64, Vec<Ended>> = BTreeMap::new();
        for ended in self.recorder.take_ended(now) {
            hours.entry(ended.hour).or_default().push(ended);
        }
        let counters = &self.recorder.counters;
        let mut first = Ok(());
        for (hour, ended) in hours {
            for chunk in chunks(&ended) {
                match build(&self.recorder.layout, chunk) {
                    Ok(built) => {
                        add(&counters.rows_repeated, built.repeated);
                        add(&counters.rows_mismatched, built.mismatched);
                        let pending = self.hours.entry(hour).or_insert(Pending {
                            batches: Vec::new(),
                            rows: 0,
                            since: now,
                        });
                        pending.rows += built.batch.num_rows();
                        pending.batches.push(built.batch);
                    }
                    Err(source) => {
                        let rows = chunk.iter().map(|ended| ended.rows.len()).sum();
                        add(&counters.rows_broken, rows);
                        self.recorder.written(rows);
                        first = first.and(Err(RecordError::Build { rows, source }));
                    }
                }
            }
        }
        first
    }

    /// Whether nobody else can give its recorder rows, and all that it had are written.
    fn is_over(&self) -> bool {
        let alone = Arc::strong_count(&self.recorder) == 1;
        // What the last of the others has handed in before it let go is seen from here on.
        fence(Acquire);
        alone && self.is_written()
    }

    /// Whether all rows that its recorder has so far are written.
    fn is_written(&self) -> bool {
        self.hours.is_empty() && self.recorder.waiting_rows() == 0
    }
}

/// The end of an hour, in microseconds.
fn end(hour: i64) -> i64 {
    hour.saturating_add(1).saturating_mul(HOUR)
}
