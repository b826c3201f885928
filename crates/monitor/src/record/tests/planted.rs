//! A failure before each thing that is done to the disk: an error, the end of the process, the end of the machine.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::json;

use super::*;
use crate::record::{
    RecordError,
    files::{Before, Op},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// The disk refuses one thing.
    Error,
    /// The process ends.
    Crash,
    /// The machine ends: the last so many changes of folders that were not brought to the disk are undone.
    PowerLoss(usize),
}

/// A disk that fails once.
#[derive(Default)]
struct Disk {
    done: usize,
    fails_at: Option<(usize, Failure)>,
    crashed: bool,
    /// Changes of folders that are not on the disk, oldest first.
    undo: Vec<(PathBuf, Undo)>,
    /// Files whose bytes are not on the disk.
    unsynced: BTreeSet<PathBuf>,
}

enum Undo {
    Rename(PathBuf, PathBuf),
    Restore(PathBuf, Vec<u8>),
    Made(PathBuf),
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap().to_owned()
}

impl Disk {
    fn before(&mut self, op: Op<'_>) -> io::Result<()> {
        let now = self.done;
        self.done += 1;
        let fails = self.fails_at.is_some_and(|(at, _)| at == now);
        if self.crashed || fails {
            self.crashed = self.fails_at.is_some_and(|(_, failure)| failure != Failure::Error);
            if let (Op::Write(path, bytes), true) = (op, fails) {
                fs::write(path, &bytes[..bytes.len() / 2])?;
                self.unsynced.insert(path.to_owned());
            }
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        match op {
            Op::Write(path, _) => drop(self.unsynced.insert(path.to_owned())),
            Op::Sync(path) => drop(self.unsynced.remove(path)),
            Op::Rename(from, to) => {
                assert!(!self.unsynced.contains(from), "{from:?} is renamed before it is on the disk");
                self.undo.push((parent(to), Undo::Rename(from.to_owned(), to.to_owned())));
            }
            Op::Remove(path) => {
                if let Ok(bytes) = fs::read(path) {
                    self.undo.push((parent(path), Undo::Restore(path.to_owned(), bytes)));
                }
            }
            Op::CreateFolder(path) if !path.exists() => {
                self.undo.push((parent(path), Undo::Made(path.to_owned())))
            }
            Op::SyncFolder(path) => self.undo.retain(|(folder, _)| folder != path),
            _ => {}
        }
        Ok(())
    }

    /// What the machine finds when it is on again.
    fn lose_power(&mut self, changes: usize) {
        for path in &self.unsynced {
            if path.exists() {
                fs::write(path, []).unwrap();
            }
        }
        for (_, undo) in self.undo.drain(self.undo.len().saturating_sub(changes)..).rev() {
            match undo {
                Undo::Rename(from, to) if to.exists() => fs::rename(to, from).unwrap(),
                Undo::Restore(path, bytes) if path.parent().unwrap().exists() => {
                    fs::write(path, bytes).unwrap()
                }
                Undo::Made(path) if path.exists() => fs::remove_dir_all(path).unwrap(),
                _ => {}
            }
        }
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn files(disk: &Arc<Mutex<Disk>>) -> Files {
    let disk = Arc::clone(disk);
    let before: Before = Arc::new(move |op| lock(&disk).before(op));
    Files::planted(before)
}

/// Requests of two hours, flushed in four parts, then the compaction of the first hour and of the second. Answers what was said to
/// be on the disk.
fn script(log: &Log, writer: &mut Writer) -> (BTreeSet<(String, u32)>, Result<(), RecordError>) {
    let (mut asked, mut safe, mut first) = (BTreeSet::new(), BTreeSet::new(), Ok(()));
    let parts: [(&[&str], i64); 5] = [
        (&["a", "b"], 0),
        (&["c"], 10 * SECOND),
        (&["d"], HOUR),
        (&["e"], HOUR + 20 * SECOND),
        (&[], 4 * HOUR),
    ];
    for (ids, at) in parts {
        for id in ids {
            log.request(id, START + at, 2);
            asked.extend([((*id).to_owned(), 0), ((*id).to_owned(), 1)]);
        }
        for minute in 0..3 {
            match writer.flush(START + at + SECOND + minute * 60 * SECOND) {
                Ok(_) => safe.clone_from(&asked),
                Err(error) if first.is_ok() => first = Err(error),
                Err(_) => {}
            }
        }
    }
    (safe, first)
}

/// The requests of the script, each row once.
fn all() -> BTreeMap<(String, u32), usize> {
    once(["a", "b", "c", "d", "e"].into_iter().flat_map(|id| [(id, 0), (id, 1)]))
}

fn fail(at: usize, failure: Failure) -> (usize, bool) {
    let log = Log::new(json!({}));
    let disk = Arc::new(Mutex::new(Disk { fails_at: Some((at, failure)), ..Disk::default() }));
    let context = format!("{failure:?} before thing {at}");
    let Ok(mut writer) = log.writer_on(files(&disk)) else {
        if let Failure::PowerLoss(changes) = failure {
            lock(&disk).lose_power(changes);
        }
        let mut writer = log.writer();
        assert!(script(&log, &mut writer).1.is_ok(), "{context}: the log opens when the disk is well");
        assert_eq!(log.logged(), all(), "{context}");
        return (0, true);
    };
    let (safe, result) = script(&log, &mut writer);
    let failed = result.is_err();
    if failure == Failure::Error {
        writer.flush(START + 5 * HOUR).unwrap();
        assert_eq!(log.logged(), all(), "{context}");
        assert_eq!((log.recorder.waiting_rows(), log.recorder.counts().rows_written), (0, 10), "{context}");
        assert!(!log.has_temporary_files(), "{context}: {:?}", log.files());
        return (0, failed);
    }
    drop(writer);
    let unsynced = lock(&disk).undo.len();
    if let Failure::PowerLoss(changes) = failure {
        lock(&disk).lose_power(changes);
    }
    let check = |logged: &BTreeMap<(String, u32), usize>, when: &str| {
        let lost: Vec<_> = safe.iter().filter(|row| !logged.contains_key(row)).collect();
        assert!(lost.is_empty(), "{context}, {when}: {lost:?} were said to be on the disk");
        assert!(logged.values().all(|count| *count == 1), "{context}, {when}: {logged:?}");
        assert!(logged.keys().all(|row| all().contains_key(row)), "{context}, {when}");
    };
    if log.recorder.folder().exists() {
        check(&log.logged(), "before it is opened");
    }
    // Another process, with the same settings.
    let again = recorder(log.folder.path(), json!({})).unwrap();
    let mut writer = Writer::open(Arc::clone(&again)).unwrap();
    assert!(!log.has_temporary_files(), "{context}: {:?}", log.files());
    let before = log.logged();
    check(&before, "opened");
    request(&again, "f", START + HOUR, 1);
    for minute in 0..4 {
        writer.flush(START + 6 * HOUR + minute * 60 * SECOND).unwrap();
    }
    let mut want = before;
    want.insert(("f".to_owned(), 0), 1);
    assert_eq!(log.logged(), want, "{context}: later requests leave the earlier ones as they are");
    assert!(log.reader().hours().unwrap().iter().all(|hour| hour.files == 1), "{context}: {:?}", log.files());
    (unsynced, failed)
}

/// How many things the script does to the disk when all goes well.
fn things() -> usize {
    let log = Log::new(json!({}));
    let disk = Arc::new(Mutex::new(Disk::default()));
    let mut writer = log.writer_on(files(&disk)).unwrap();
    let (safe, result) = script(&log, &mut writer);
    assert!(result.is_ok() && safe.len() == 10 && log.logged() == all());
    assert!(log.reader().hours().unwrap().iter().all(|hour| hour.files == 1), "both hours are compacted");
    lock(&disk).done
}

#[test]
fn an_error_of_the_disk_loses_nothing_and_repeats_nothing() {
    let things = things();
    assert!(things > 60);
    let reported = (0..things).filter(|at| fail(*at, Failure::Error).1).count();
    // What is not reported is what fails where it does not matter: the opening that finds what a crash left.
    assert!(reported >= things - 10, "{reported} of {things}");
}

#[test]
fn the_end_of_the_process_loses_nothing_that_was_written_and_repeats_nothing() {
    for at in 0..things() {
        assert!(fail(at, Failure::Crash).1, "thing {at}");
    }
}

#[test]
fn the_end_of_the_machine_loses_nothing_that_was_said_to_be_on_the_disk() {
    for at in 0..things() {
        let (unsynced, _) = fail(at, Failure::PowerLoss(0));
        for changes in BTreeSet::from([1, unsynced.div_ceil(2), unsynced]) {
            fail(at, Failure::PowerLoss(changes));
        }
    }
}

#[test]
fn rows_wait_for_a_full_disk_up_to_the_bound() {
    let log = Log::new(json!({"buffer_rows": 6}));
    let full = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_full = Arc::clone(&full);
    let before: Before = Arc::new(move |op| match op {
        Op::Write(..) if is_full.load(std::sync::atomic::Ordering::Relaxed) => {
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    });
    let mut writer = log.writer_on(Files::planted(before)).unwrap();
    for (i, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        log.request(id, START, 2);
        let error = writer.flush(START + i as i64 * 60 * SECOND).unwrap_err();
        assert!(matches!(error, RecordError::Disk { doing: "cannot be written", .. }), "{error}");
    }
    let counts = log.recorder.counts();
    assert_eq!((counts.rows_dropped, counts.write_failures, log.recorder.waiting_rows()), (2, 4, 6));
    full.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(writer.drain(START + 300 * SECOND).unwrap().rows, 6);
    assert_eq!(log.logged(), once(["a", "b", "c"].into_iter().flat_map(|id| [(id, 0), (id, 1)])));
    assert_eq!((log.recorder.waiting_rows(), log.recorder.counts().rows_written), (0, 6));
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("log"), "no folder").unwrap();
    let recorder = recorder(folder.path(), json!({})).unwrap();
    let Err(error) = Writer::open(recorder) else { panic!("it opened") };
    assert!(matches!(error, RecordError::Disk { doing: "cannot be made", .. }), "{error}");
}

#[test]
fn two_writers_of_one_replica_are_refused() {
    let log = Log::new(json!({"replica": "a"}));
    let writer = log.writer();
    let Err(error) = log.writer_on(Files::default()) else { panic!("it opened") };
    assert!(matches!(error, RecordError::InUse { .. }), "{error}");
    drop(writer);
    log.writer();
}

#[test]
fn a_broken_file_is_reported_once_and_left_alone() {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
        log.request(id, START, 1);
        writer.flush(START + i as i64).unwrap();
    }
    let broken = log.files().remove(1);
    fs::write(&broken, "PAR1 and no more").unwrap();
    let later = START + 3 * HOUR;
    assert!(matches!(writer.drain(later), Err(RecordError::Malformed { path, .. }) if path == broken));
    assert_eq!(writer.drain(later + 60 * SECOND).unwrap().compacted, 2, "the others");
    writer.drain(later + 120 * SECOND).unwrap();
    assert_eq!((log.files().len(), fs::read(&broken).unwrap().len()), (2, 16));
    assert!(log.reader().rows(i64::MIN, i64::MAX).is_err(), "a reader says so");
    fs::remove_file(broken).unwrap();
    assert_eq!(log.logged(), once([("a", 0), ("c", 0)]));
}

#[test]
fn files_that_cannot_be_removed_stay_replaced() {
    let log = Log::new(json!({}));
    let stays = |path: &Path| {
        ["0-0000000000.parquet", "0-0000000001.parquet"].iter().any(|name| path.ends_with(name))
    };
    let before: Before = Arc::new(move |op| match op {
        Op::Remove(path) if stays(path) => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    });
    let mut writer = log.writer_on(Files::planted(before)).unwrap();
    for id in ["a", "b"] {
        log.request(id, START, 1);
        writer.flush(START).unwrap();
    }
    let removal = |result: Result<Drained, RecordError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, RecordError::Disk { doing: "cannot be removed", .. }), "{error}");
    };
    removal(writer.drain(START + 2 * HOUR));
    assert_eq!((log.files().len(), log.logged()), (3, once([("a", 0), ("b", 0)])));
    // The file that replaced them is replaced and removed itself.
    log.request("c", START, 1);
    removal(writer.flush(START + 3 * HOUR));
    assert_eq!((log.files().len(), log.logged()), (3, once([("a", 0), ("b", 0), ("c", 0)])));
}

#[test]
fn replaced_files_stay_until_the_new_one_is_on_the_disk() {
    let log = Log::new(json!({}));
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&fails);
    let before: Before = Arc::new(move |op| match op {
        Op::SyncFolder(_) if asked.load(std::sync::atomic::Ordering::Relaxed) => Err(io::Error::other("no")),
        _ => Ok(()),
    });
    let mut writer = log.writer_on(Files::planted(before)).unwrap();
    for id in ["a", "b"] {
        log.request(id, START, 1);
        writer.flush(START).unwrap();
    }
    fails.store(true, std::sync::atomic::Ordering::Relaxed);
    for minute in 0..2 {
        let error = writer.drain(START + 2 * HOUR + minute * 60 * SECOND).unwrap_err();
        assert!(matches!(error, RecordError::Disk { doing: "cannot be brought to the disk", .. }), "{error}");
        assert_eq!((log.files().len(), log.logged()), (3, once([("a", 0), ("b", 0)])));
    }
    fails.store(false, std::sync::atomic::Ordering::Relaxed);
    writer.drain(START + 3 * HOUR).unwrap();
    assert_eq!((log.files().len(), log.logged()), (1, once([("a", 0), ("b", 0)])));
}
