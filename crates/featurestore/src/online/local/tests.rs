//! Faults of the disk, damage of the files, and what removals leave behind.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Waker},
    time::Duration,
};

use arrow::{
    array::{AsArray, Int64Array, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use millstream_graph::rows;
use proptest::{collection::vec, prelude::*};

use super::{
    Durability, LocalOptions, LocalTable, OpenError, WhenFull,
    files::{Appender, Files, Folder},
};
use crate::{
    Changes, Clock, FeatureSet, Gap, OnlineTable, Outcome, Pick, Positions, Read as Lookup, Selection,
    WritableTable, WriteError,
};

/// A folder in memory that can fail, wait, be cut and be damaged. It knows what was made safe.
#[derive(Default)]
struct Disk {
    names: Mutex<BTreeMap<String, Arc<Inode>>>,
    /// The names as they were when they were last made safe.
    safe_names: Mutex<BTreeMap<String, Arc<Inode>>>,
    /// How many bytes more it has room for.
    room: AtomicI64,
    /// Whether making anything safe fails, without telling what was.
    sync_fails: AtomicBool,
    syncs: AtomicI64,
    /// Making safe waits for these: files of the log, and snapshots.
    log_gate: Mutex<()>,
    snapshot_gate: Mutex<()>,
}

#[derive(Default)]
struct Inode {
    bytes: Mutex<Vec<u8>>,
    safe: AtomicUsize,
}

struct Handle {
    disk: Arc<Disk>,
    inode: Arc<Inode>,
    snapshot: bool,
}

/// The contents of a folder.
type Contents = BTreeMap<String, Vec<u8>>;

/// So that files can hold on to their disk.
struct Shared(Arc<Disk>);

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self { room: AtomicI64::new(i64::MAX), ..Self::default() })
    }

    fn of(files: &Contents) -> Arc<Self> {
        let disk = Self::new();
        let inode = |bytes: &Vec<u8>| Inode { bytes: Mutex::new(bytes.clone()), safe: bytes.len().into() };
        let names: BTreeMap<_, _> =
            files.iter().map(|(name, bytes)| (name.clone(), Arc::new(inode(bytes)))).collect();
        *disk.safe_names.lock().unwrap() = names.clone();
        *disk.names.lock().unwrap() = names;
        disk
    }

    fn files(&self) -> Contents {
        let names = self.names.lock().unwrap();
        names.iter().map(|(name, inode)| (name.clone(), inode.bytes.lock().unwrap().clone())).collect()
    }

    /// What is there after the machine has lost its power: what was safe, and as much of the rest as `some` says of so many
    /// bytes.
    fn after_a_crash(&self, mut some: impl FnMut(usize) -> usize) -> Contents {
        let names = self.safe_names.lock().unwrap();
        let left = names.iter().map(|(name, inode)| {
            let bytes = inode.bytes.lock().unwrap();
            let safe = inode.safe.load(SeqCst).min(bytes.len());
            (name.clone(), bytes[..safe + some(bytes.len() - safe)].to_vec())
        });
        left.collect()
    }

    fn inode(&self, name: &str) -> Arc<Inode> {
        Arc::clone(&self.names.lock().unwrap()[name])
    }
}

impl Shared {
    fn open(&self, name: &str, inode: Arc<Inode>) -> Box<dyn Appender> {
        Box::new(Handle { disk: Arc::clone(&self.0), inode, snapshot: name.starts_with("snapshot") })
    }
}

impl Files for Shared {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.names.lock().unwrap().keys().cloned().collect())
    }
    fn read(&self, name: &str) -> io::Result<(Box<dyn Read>, u64)> {
        let file = self.0.inode(name).bytes.lock().unwrap().clone();
        let len = file.len() as u64;
        Ok((Box::new(io::Cursor::new(file)), len))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        let inode = Arc::<Inode>::default();
        self.0.names.lock().unwrap().insert(name.to_owned(), Arc::clone(&inode));
        Ok(self.open(name, inode))
    }
    fn extend(&self, name: &str, len: u64) -> io::Result<Box<dyn Appender>> {
        let inode = self.0.inode(name);
        inode.bytes.lock().unwrap().truncate(len as usize);
        Ok(self.open(name, inode))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.0.names.lock().unwrap();
        let inode = names.remove(from).unwrap();
        names.insert(to.to_owned(), inode);
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.names.lock().unwrap().remove(name).unwrap();
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let names = self.0.names.lock().unwrap().clone();
        *self.0.safe_names.lock().unwrap() = names;
        Ok(())
    }
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("disk").join(name)
    }
}

impl Appender for Handle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = self.disk.room.load(SeqCst).max(0) as usize;
        let some = bytes.len().min(room);
        self.inode.bytes.lock().unwrap().extend_from_slice(&bytes[..some]);
        self.disk.room.fetch_sub(some as i64, SeqCst);
        if some < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        let gate = if self.snapshot { &self.disk.snapshot_gate } else { &self.disk.log_gate };
        let _open = gate.lock().unwrap();
        self.disk.syncs.fetch_add(1, SeqCst);
        if self.disk.sync_fails.load(SeqCst) {
            return Err(io::Error::other("the device is gone"));
        }
        self.inode.safe.store(self.inode.bytes.lock().unwrap().len(), SeqCst);
        Ok(())
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.inode.bytes.lock().unwrap().truncate(len as usize);
        self.inode.safe.fetch_min(len as usize, SeqCst);
        Ok(())
    }
}

fn set() -> FeatureSet {
    let set = FeatureSet::builder("s").key("id", DataType::Utf8);
    set.feature("n", DataType::Int64).feature("t", DataType::Utf8).build().unwrap()
}

fn open(disk: &Arc<Disk>, options: LocalOptions) -> Result<LocalTable, OpenError> {
    let files: Arc<dyn Files> = Arc::new(Shared(Arc::clone(disk)));
    LocalTable::open_in(&files, set(), options)
}

fn row(id: &str, n: i64, event: i64) -> Changes {
    Changes::new(rows! { id: [id], n: [n], t: [format!("text {n}")] }, vec![event])
}

fn get<T>(answer: crate::Answer<'_, T>) -> Result<T, WriteError> {
    match answer {
        crate::Answer::Ready(answer) => answer,
        waits @ crate::Answer::Waits(_) => {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(waits.get())
        }
    }
}

/// Writes one row; the outcome or the error, as text.
fn write(table: &LocalTable, changes: Changes) -> String {
    match get(table.write(changes)) {
        Ok(written) => format!("{:?}", written.rows[0]),
        Err(error) => error.to_string(),
    }
}

/// The number of each key, for keys that have a row; its text must fit.
fn read(table: &LocalTable, ids: &[&str]) -> Vec<Option<i64>> {
    let picks = [0, 1].map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null });
    let selection = Selection::new(table.set(), &[0], picks.to_vec()).unwrap();
    let batch: RecordBatch = rows! { id: ids.iter().map(|id| id.to_string()).collect::<Vec<_>>() };
    let Lookup::Ready(found) = table.read(&batch, &selection) else { panic!("it is local") };
    let found = found.unwrap();
    let numbers: Vec<_> = found.columns[0].as_primitive::<Int64Type>().iter().collect();
    for (number, text) in numbers.iter().zip(found.columns[1].as_string::<i32>()) {
        assert_eq!(number.map(|number| format!("text {number}")).as_deref(), text);
    }
    numbers
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_reading_and_forgets_nothing_that_was_acknowledged() {
    for room in 0..200 {
        let disk = Disk::new();
        let table = open(&disk, LocalOptions::default()).unwrap();
        assert_eq!(write(&table, row("a", 1, 1)), "Taken");
        disk.room.store(room, SeqCst);
        let first = write(&table, row("b", 2, 1));
        if first != "Taken" {
            assert!(
                first.starts_with("the store is read-only until it is opened anew: disk/wal-"),
                "{first}"
            );
        }
        // Room that comes back does not bring trust back.
        let acked = first == "Taken";
        disk.room.store(if acked { 0 } else { i64::MAX }, SeqCst);
        assert!(write(&table, row("c", 3, 1)).contains("read-only"), "with room for {room}");
        assert!(get(table.erase(rows! { id: ["a"] })).unwrap_err().to_string().contains("read-only"));
        assert_eq!(read(&table, &["a", "b", "c"]), [Some(1), acked.then_some(2), None]);
        drop(table);
        disk.room.store(i64::MAX, SeqCst);
        let table = open(&disk, LocalOptions::default()).unwrap();
        assert_eq!(
            read(&table, &["a", "b", "c"]),
            [Some(1), acked.then_some(2), None],
            "with room for {room}"
        );
        assert_eq!(write(&table, row("c", 3, 1)), "Taken");
    }
}

#[test]
fn writes_that_come_together_are_made_safe_together_and_are_not_seen_before() {
    let disk = Disk::new();
    let table = open(&disk, LocalOptions::default()).unwrap();
    let before = disk.syncs.load(SeqCst);
    let closed = disk.log_gate.lock().unwrap();
    let names: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    let mut answers: Vec<_> = (0..50)
        .map(|n| match table.write(row(&names[n as usize], n, 1)) {
            crate::Answer::Waits(answer) => answer,
            crate::Answer::Ready(_) => panic!("it is kept"),
        })
        .collect();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(answers.iter_mut().all(|answer| answer.as_mut().poll(&mut cx).is_pending()));
    let ids: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(read(&table, &ids), vec![None; 50]);
    drop(closed);
    for answer in answers {
        assert_eq!(get(crate::Answer::Waits(answer)).unwrap().rows, [Outcome::Taken]);
    }
    assert_eq!(read(&table, &ids), (0..50).map(Some).collect::<Vec<_>>());
    // Some had been taken before the others came.
    let syncs = disk.syncs.load(SeqCst) - before;
    assert!(syncs <= 2, "{syncs}");
}

#[test]
fn reads_and_writes_go_on_while_a_snapshot_is_made_and_a_crash_in_it_is_harmless() {
    let disk = Disk::new();
    let table = open(&disk, LocalOptions { segment_bytes: 500, ..LocalOptions::default() }).unwrap();
    for n in 0..20 {
        write(&table, row(&n.to_string(), n, 1));
    }
    let closed = disk.snapshot_gate.lock().unwrap();
    let mut snapshot = match table.snapshot() {
        crate::Answer::Waits(answer) => answer,
        crate::Answer::Ready(_) => panic!("it is kept"),
    };
    assert!(snapshot.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    for n in 10..30 {
        assert_eq!(write(&table, row(&n.to_string(), n * 100, 2)), "Taken");
    }
    let ids = ["0", "9", "10", "19", "20", "29"];
    let now = [Some(0), Some(9), Some(1000), Some(1900), Some(2000), Some(2900)];
    assert_eq!(read(&table, &ids), now);
    let crashed = Disk::of(&disk.after_a_crash(|_| 0));
    drop(closed);
    get(crate::Answer::Waits(snapshot)).unwrap();
    drop(table);
    for (disk, files) in [(&crashed, "wal-"), (&disk, "snapshot-")] {
        let table = open(disk, LocalOptions::default()).unwrap();
        assert_eq!(read(&table, &ids), now, "{files}");
        assert!(disk.files().into_keys().next().unwrap().starts_with(files));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// After each answer the power may go; of what was not safe, any part may be left.
    #[test]
    fn what_was_answered_is_there_after_the_power_has_gone(
        ops in vec((0..12_usize, 0..6_i64), 1..20), left in vec(0..1000_usize, 64),
    ) {
        let disk = Disk::new();
        let options = || LocalOptions { segment_bytes: 400, snapshot_after: 900, ..LocalOptions::default() };
        let mut table = open(&disk, options()).unwrap();
        let mut part = left.iter().cycle();
        for (n, &(op, key)) in ops.iter().enumerate() {
            let id = ["", "a", "bb", "ccc", "dddd", "a key that is longer than others"][key as usize];
            match op {
                0 => drop(get(table.erase(rows! { id: [id] })).unwrap()),
                1 => drop(get(table.purge()).unwrap()),
                2 => get(table.snapshot()).unwrap(),
                3 => {
                    drop(table);
                    table = open(&disk, options()).unwrap();
                }
                _ => {
                    let changes = row(id, n as i64, key).at(Positions::new("s", 0, vec![n as u64]));
                    get(table.write(changes)).unwrap();
                }
            }
            let ids = ["", "a", "bb", "ccc", "dddd", "a key that is longer than others"];
            let crashed = Disk::of(&disk.after_a_crash(|rest| part.next().unwrap() * rest / 999));
            let after = open(&crashed, options()).unwrap();
            prop_assert_eq!(read(&after, &ids), read(&table, &ids), "after {:?}", &ops[..=n]);
            prop_assert_eq!(get(after.mark("s", 0)).unwrap(), get(table.mark("s", 0)).unwrap());
        }
    }
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_is_not_tried_again() {
    let disk = Disk::new();
    let table = open(&disk, LocalOptions::default()).unwrap();
    assert_eq!(write(&table, row("a", 1, 1)), "Taken");
    disk.sync_fails.store(true, SeqCst);
    let refused = write(&table, row("a", 2, 2));
    assert!(refused.ends_with("wal-0000000000000001: the device is gone"), "{refused}");
    let syncs = disk.syncs.load(SeqCst);
    disk.sync_fails.store(false, SeqCst);
    assert!(write(&table, row("a", 3, 3)).contains("read-only"));
    assert!(get(table.snapshot()).unwrap_err().to_string().contains("read-only"));
    assert_eq!(read(&table, &["a"]), [Some(1)]);
    drop(table);
    assert_eq!(disk.syncs.load(SeqCst), syncs);
    assert_eq!(read(&open(&disk, LocalOptions::default()).unwrap(), &["a"]), [Some(1)]);
}

#[test]
fn what_is_written_at_leisure_is_made_safe_soon_and_a_failure_is_told_to_the_next() {
    let disk = Disk::new();
    let every = LocalOptions { durability: Durability::Every(Duration::ZERO), ..LocalOptions::default() };
    let table = open(&disk, every).unwrap();
    let before = disk.syncs.load(SeqCst);
    assert_eq!(write(&table, row("a", 1, 1)), "Taken");
    // The next thing that is asked comes after what was due.
    get(table.mark("s", 0)).unwrap();
    assert!(disk.syncs.load(SeqCst) > before);
    disk.sync_fails.store(true, SeqCst);
    assert_eq!(write(&table, row("a", 2, 2)), "Taken");
    get(table.mark("s", 0)).unwrap();
    assert!(write(&table, row("a", 3, 3)).contains("the device is gone"));
    assert!(get(table.problem()).unwrap().is_some_and(|problem| problem.ends_with("the device is gone")));
    assert_eq!(read(&table, &["a"]), [Some(2)]);
}

#[test]
fn a_snapshot_that_finds_no_room_costs_nothing_but_itself() {
    let disk = Disk::new();
    let table = open(&disk, LocalOptions::default()).unwrap();
    for n in 0..50 {
        assert_eq!(write(&table, row(&n.to_string(), n, 1)), "Taken");
    }
    disk.room.store(1_000, SeqCst);
    get(table.snapshot()).unwrap_err();
    let problem = get(table.problem()).unwrap();
    assert_eq!(problem.as_deref(), Some("no snapshot: no storage space"));
    disk.room.store(i64::MAX, SeqCst);
    assert_eq!(write(&table, row("0", 100, 2)), "Taken");
    assert!(!disk.files().keys().any(|name| name.starts_with("snapshot")));
    get(table.snapshot()).unwrap();
    assert_eq!(get(table.problem()).unwrap(), None);
    let names: Vec<_> = disk.files().into_keys().collect();
    assert_eq!(names, ["snapshot-0000000000000003", "wal-0000000000000003"]);
    drop(table);
    let table = open(&disk, LocalOptions::default()).unwrap();
    assert_eq!((table.len(), read(&table, &["0", "49"])), (50, vec![Some(100), Some(49)]));
}

/// The numbers of [`IDS`].
type State = Vec<Option<i64>>;

/// Files of a small history: a snapshot, a segment that is not the last, and the last.
fn history() -> (Contents, Vec<State>) {
    let disk = Disk::new();
    let options = LocalOptions { segment_bytes: 600, ..LocalOptions::default() };
    let table = open(&disk, options).unwrap();
    let mut states = vec![read(&table, IDS)];
    for n in 0..10_i64 {
        let id = IDS[n as usize % IDS.len()];
        let changes = row(id, n, n).at(Positions::new("s", 0, vec![n as u64])).ids([Some(format!("id {n}"))]);
        assert_eq!(write(&table, changes), "Taken");
        states.push(read(&table, IDS));
        if n == 3 {
            get(table.snapshot()).unwrap();
            states.clear();
            states.push(read(&table, IDS));
        }
    }
    drop(table);
    let files = disk.files();
    let segments = files.keys().filter(|name| name.starts_with("wal-")).count();
    assert!(segments >= 2 && files.len() == segments + 1, "{:?}", files.keys());
    (files, states)
}

const IDS: &[&str] = &["", "a", "a longer key than lies in the index"];

/// Opens damaged files: a refusal that names the file, or one of the states that there were. Whether it was opened.
fn opens(files: &Contents, states: &[State], damage: &str) -> bool {
    match open(&Disk::of(files), LocalOptions::default()) {
        Ok(table) => {
            let state = read(&table, IDS);
            assert!(states.contains(&state), "{damage}: {state:?}");
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("disk/") && text.contains(" is damaged at byte "), "{damage}: {text}");
            false
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_is_a_state_there_was_or_is_refused() {
    let (files, states) = history();
    let last = files.keys().next_back().unwrap();
    for (name, bytes) in &files {
        for len in 0..bytes.len() {
            let mut cut = files.clone();
            cut.get_mut(name).unwrap().truncate(len);
            let opened = opens(&cut, &states, &format!("{name} cut at {len}"));
            assert_eq!(opened, name == last, "{name} cut at {len}");
        }
    }
}

#[test]
fn a_bit_flipped_in_any_byte_is_a_state_there_was_or_is_refused() {
    let (files, states) = history();
    let last = files.keys().next_back().unwrap();
    for (name, bytes) in &files {
        let mut refused = 0;
        for at in 0..bytes.len() {
            let mut flipped = files.clone();
            flipped.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            let opened = opens(&flipped, &states, &format!("{name} flipped at {at}"));
            assert!(!opened || name == last, "{name} flipped at {at}");
            refused += usize::from(!opened);
        }
        // Every frame was safe before the next was written, so only damage to the last one can be a crash's.
        assert!(refused > bytes.len() / 2, "{name}: {refused} of {}", bytes.len());
    }
}

#[test]
fn a_missing_file_is_missed() {
    let (files, states) = history();
    let last = files.keys().next_back().unwrap();
    for name in files.keys().filter(|name| *name != last) {
        let mut fewer = files.clone();
        fewer.remove(name);
        assert!(!opens(&fewer, &states, name), "without {name}");
    }
}

#[test]
fn files_of_another_definition_are_refused_and_the_difference_is_named() {
    let (files, _) = history();
    for (set, difference) in [
        (
            FeatureSet::builder("s")
                .key("id", DataType::Utf8)
                .feature("n", DataType::Int32)
                .feature("t", DataType::Utf8),
            "it had feature `n` Int64 where there is feature `n` Int32 now",
        ),
        (
            FeatureSet::builder("s")
                .key("id", DataType::Utf8)
                .feature("t", DataType::Utf8)
                .feature("n", DataType::Int64),
            "its columns stood in another order",
        ),
        (
            FeatureSet::builder("s").key("id", DataType::Utf8).feature("n", DataType::Int64),
            "it had feature `t` Utf8, which is gone",
        ),
    ] {
        let disk: Arc<dyn Files> = Arc::new(Shared(Disk::of(&files)));
        let opened = LocalTable::open_in(&disk, set.build().unwrap(), LocalOptions::default());
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(difference), "{error}");
    }
}

fn holds(files: &Contents, what: &str) -> bool {
    files.values().any(|bytes| bytes.windows(what.len()).any(|window| window == what.as_bytes()))
}

#[test]
fn of_an_erased_key_no_file_holds_a_byte() {
    let disk = Disk::new();
    let table = open(&disk, LocalOptions { segment_bytes: 300, ..LocalOptions::default() }).unwrap();
    for n in 0..20 {
        write(&table, row(["somebody", "another"][n as usize % 2], n, n));
        if n == 10 {
            get(table.snapshot()).unwrap();
        }
    }
    assert!(holds(&disk.files(), "somebody"));
    let receipt = get(table.erase(rows! { id: ["somebody", "nobody"] })).unwrap();
    assert_eq!((receipt.removed, receipt.unknown), (1, 1));
    let names: Vec<_> = disk.files().into_keys().collect();
    assert_eq!(receipt.files_written, names);
    assert!(receipt.files_deleted.len() > 2, "{receipt:?}");
    for gone in ["somebody", "nobody", "text 18"] {
        assert!(!holds(&disk.files(), gone), "{gone}");
    }
    drop(table);
    let table = open(&disk, LocalOptions::default()).unwrap();
    assert_eq!(read(&table, &["somebody", "another"]), [None, Some(19)]);
}

#[test]
fn a_removal_that_a_crash_cut_short_is_finished_when_the_store_is_opened() {
    let disk = Disk::new();
    let table = open(&disk, LocalOptions::default()).unwrap();
    write(&table, row("somebody", 1, 1));
    write(&table, row("another", 2, 1));
    // Room for the record, not for the files that take the place of those with the rows.
    disk.room.store(300, SeqCst);
    assert!(get(table.erase(rows! { id: ["somebody"] })).is_err());
    assert_eq!(read(&table, &["somebody"]), [None]);
    drop(table);
    assert!(holds(&disk.files(), "somebody"));
    disk.room.store(i64::MAX, SeqCst);
    let table = open(&disk, LocalOptions::default()).unwrap();
    assert!(!holds(&disk.files(), "somebody"));
    assert_eq!(read(&table, &["somebody", "another"]), [None, Some(2)]);
}

#[test]
fn a_full_memory_refuses_whole_writes_or_makes_room_from_what_is_over() {
    let now = Arc::new(AtomicI64::new(0));
    let clock = Arc::clone(&now);
    let options = move |when_full| LocalOptions {
        ttl: Some(Duration::from_micros(10)),
        clock: Clock::new({
            let clock = Arc::clone(&clock);
            move || clock.load(SeqCst)
        }),
        max_bytes: Some(2_000),
        when_full,
        ..LocalOptions::default()
    };
    for (when_full, later) in [(WhenFull::Refuse, false), (WhenFull::EvictExpired, true)] {
        now.store(0, SeqCst);
        let disk = Disk::new();
        let table = open(&disk, options(when_full)).unwrap();
        let mut taken = 0;
        let full = loop {
            match write(&table, row(&taken.to_string(), taken, 0)) {
                outcome if outcome == "Taken" => taken += 1,
                error => break error,
            }
        };
        assert_eq!(
            full,
            "the rows would take more than 2000 bytes of memory; nothing of the write was taken"
        );
        assert!(taken > 5 && table.len() as i64 == taken, "{taken}");
        // A row that takes no more than the one it replaces has room, and so has one that is older.
        assert_eq!(write(&table, row("0", 9, 1)), "Taken");
        now.store(11, SeqCst);
        assert_eq!(write(&table, row("new", 1, 11)) == "Taken", later, "{when_full:?}");
        assert_eq!(read(&table, &["1"]), [None], "stale or gone");
        assert_eq!(table.len() as i64, if later { 2 } else { taken }, "{when_full:?}");
        let before = table.len();
        drop(table);
        let table = open(&disk, options(when_full)).unwrap();
        assert_eq!(table.len(), before, "{when_full:?}");
        assert_eq!(read(&table, &["0", "new"]), [Some(9), later.then_some(1)]);
    }
}

#[test]
fn rows_are_counted_as_they_come_and_go() {
    let table =
        LocalTable::in_memory(set(), LocalOptions { max_bytes: Some(1_000_000), ..LocalOptions::default() });
    let bytes = |table: &LocalTable| match &table.mode {
        super::Mode::Memory(engine) => engine.lock().unwrap().writer.bytes(),
        super::Mode::Kept(_) => unreachable!("it is in memory"),
    };
    assert_eq!(bytes(&table), 0);
    for n in 0..200_i64 {
        write(&table, row(&"k".repeat(n as usize % 40), n * n * n, n / 3));
    }
    assert!(
        bytes(&table) > 40 * 64 && bytes(&table) < table.bytes(),
        "{} of {}",
        bytes(&table),
        table.bytes()
    );
    let ids: Vec<_> = (0..40).map(|n| "k".repeat(n)).collect();
    get(table.erase(rows! { id: ids })).unwrap();
    assert_eq!((bytes(&table), table.len()), (0, 0));
}

#[test]
fn a_write_that_names_a_partition_too_many_is_refused() {
    let table = LocalTable::in_memory(set(), LocalOptions::default());
    for partition in 0..crate::online::repeats::MAX_PARTITIONS as u32 {
        let none = row("a", 0, 0).at(Positions::new("s", partition, vec![0]));
        assert!(get(table.write(none)).is_ok());
    }
    let more = row("a", 0, 0).at(Positions::new("other", 0, vec![0]));
    assert_eq!(write(&table, more), "more than 65536 partitions of sources");
    let known = row("a", 0, 0).at(Positions::new("s", 7, vec![1]));
    assert_eq!(write(&table, known), "Taken");
}

/// A real, full file system, where this machine lets one be made.
#[test]
fn a_real_full_disk_refuses_writes_and_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let done = std::process::Command::new(args[0]).args(&args[1..]).arg(dir.path()).output();
        done.is_ok_and(|done| done.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "none"]) {
        println!("SKIPPED: no small file system can be mounted here; the disk that fails is tested without");
        return;
    }
    let open = || {
        let folder: Arc<dyn Files> = Arc::new(Folder::open(dir.path()).unwrap().unwrap());
        LocalTable::open_in(&folder, set(), LocalOptions::default()).unwrap()
    };
    let table = open();
    let mut acked = 0;
    let refused = loop {
        let many = (0..8).map(|_| acked).collect::<Vec<i64>>();
        let batch = rows! { id: many.iter().map(i64::to_string).collect::<Vec<_>>(), n: many.clone(), t: many.iter().map(|n| format!("text {n}")).collect::<Vec<_>>() };
        match get(table.write(Changes::new(batch, Int64Array::from(vec![1; 8])))) {
            Ok(written) => assert_eq!(written.rows[0], Outcome::Taken),
            Err(error) => break error.to_string(),
        }
        acked += 1;
    };
    assert!(refused.contains("read-only") && refused.contains("No space left"), "{refused}");
    drop(table);
    let table = open();
    let read = (table.len() as i64, read(&table, &[&(acked - 1).to_string(), &acked.to_string()]));
    drop(table);
    assert!(mount(&["umount"]));
    assert_eq!(read, (acked, vec![Some(acked - 1), None]));
}
