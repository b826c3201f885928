//! Intakes over a feed that breaks when it is told to. The clock is paused, so that no test waits for a wait.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use millstream_featurestore::{
    Answer, Changes, FeatureSet, LocalOptions, LocalTable, OnlineTable, Positions, Profile, ProfileError,
    Read, Receipt, Selection, WritableSet, WritableTable, WriteError, Written,
    stream::{AtGap, Feed, FeedError, Intake, Message, Phase, Session, Span},
};
use proptest::prelude::*;

use super::{Json, Kept, Watch, catch_up, event, events, in_folder, in_memory, known, mark, over, sums};

/// Messages by partition, the first of which has a number.
#[derive(Clone, Default)]
pub(super) struct Shelf(Arc<Mutex<Shelved>>);

#[derive(Default)]
pub(super) struct Shelved {
    partitions: BTreeMap<u32, (u64, Vec<Bytes>)>,
    /// After how many messages each session breaks; those behind them do not.
    breaks: VecDeque<usize>,
    /// How many messages come at once, in turn.
    parts: VecDeque<usize>,
}

impl Shelf {
    pub(super) fn of(partitions: impl IntoIterator<Item = (u32, u64, Vec<Bytes>)>) -> Self {
        let partitions =
            partitions.into_iter().map(|(partition, first, messages)| (partition, (first, messages)));
        Self(Arc::new(Mutex::new(Shelved { partitions: partitions.collect(), ..Shelved::default() })))
    }

    pub(super) fn breaking(
        self,
        breaks: impl IntoIterator<Item = usize>,
        parts: impl IntoIterator<Item = usize>,
    ) -> Self {
        {
            let mut shelf = self.0.lock().unwrap();
            (shelf.breaks, shelf.parts) = (breaks.into_iter().collect(), parts.into_iter().collect());
        }
        self
    }
}

pub(super) struct Reading {
    shelf: Shelf,
    next: BTreeMap<u32, u64>,
    left: usize,
}

impl Feed for Shelf {
    type Session = Reading;

    fn source(&self) -> &str {
        "shelf"
    }

    async fn connect(&self) -> Result<Reading, FeedError> {
        let left = self.0.lock().unwrap().breaks.pop_front().unwrap_or(usize::MAX);
        if left == 0 {
            Err(FeedError::Ended)
        } else {
            Ok(Reading { shelf: self.clone(), next: BTreeMap::new(), left })
        }
    }
}

impl Session for Reading {
    async fn spans(&mut self) -> Result<Vec<Span>, FeedError> {
        let shelf = self.shelf.0.lock().unwrap();
        let span = |(&partition, (first, messages)): (&u32, &(u64, Vec<Bytes>))| Span {
            partition,
            first: *first,
            end: first + messages.len() as u64,
        };
        Ok(shelf.partitions.iter().map(span).collect())
    }

    async fn seek(&mut self, from: &[(u32, u64)]) -> Result<Vec<u64>, FeedError> {
        self.next = from.iter().copied().collect();
        let ends = self.spans().await?;
        Ok(ends.iter().map(|span| span.end - self.next[&span.partition]).collect())
    }

    async fn next(&mut self, most: usize) -> Result<Vec<Message>, FeedError> {
        let arrived = {
            let mut shelf = self.shelf.0.lock().unwrap();
            let part = shelf.parts.pop_front().unwrap_or(usize::MAX).clamp(1, most).min(self.left);
            let mut arrived = Vec::new();
            for (&partition, next) in &mut self.next {
                let (first, messages) = &shelf.partitions[&partition];
                let end = first + messages.len() as u64;
                while arrived.len() < part && *next < end {
                    let payload = messages[(*next - first) as usize].clone();
                    arrived.push(Message { partition, offset: *next, payload, behind: end - *next - 1 });
                    *next += 1;
                }
            }
            arrived
        };
        if arrived.is_empty() {
            return if self.left == 0 { Err(FeedError::Ended) } else { std::future::pending().await };
        }
        self.left -= arrived.len();
        Ok(arrived)
    }
}

pub(super) fn intake(shelf: &Shelf, set: &Arc<WritableSet>) -> Intake<Shelf> {
    Intake::new("test", shelf.clone(), Arc::clone(set), Arc::new(Json))
}

#[track_caller]
pub(super) fn run(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(future);
}

fn numbered(range: std::ops::Range<i64>) -> Vec<Bytes> {
    range.map(|n| event(1, n)).collect()
}

#[test]
fn a_stream_goes_on_where_the_set_stands() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::of([(0, 5, numbered(0..10)), (3, 0, numbered(100..104))]);
    for (more, expected) in
        [(0..0, sums((0..10).chain(100..104))), (10..15, sums((0..10).chain(100..104).chain(10..15)))]
    {
        shelf.0.lock().unwrap().partitions.get_mut(&0).unwrap().1.extend(numbered(more));
        // What was open is closed: all that goes on is what lies in the folder.
        let set = in_folder(dir.path());
        run(catch_up(intake(&shelf, &set)));
        assert_eq!(known(&set, 1), expected);
    }
    let set = in_folder(dir.path());
    assert_eq!(
        (mark(&set, "shelf", 0), mark(&set, "shelf", 3), mark(&set, "shelf", 1)),
        (Some(19), Some(3), None)
    );
}

#[test]
fn a_message_that_cannot_be_read_is_put_aside_and_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let messages = vec![
        event(1, 1),
        "{".into(),
        "[]".into(),
        "[{\"id\":1,\"n\":2},{\"id\":1,\"n\":3}]".into(),
        "{}".into(),
    ];
    let shelf = Shelf::of([(0, 0, messages)]);
    let kept = Arc::new(Kept::default());
    for written in [3, 0] {
        let set = in_folder(dir.path());
        let watch = Watch::new();
        let intake = intake(&shelf, &set).aside(Arc::clone(&kept) as _).meter(Arc::clone(&watch) as _);
        let progress = intake.progress();
        run(async {
            tokio::select! { never = intake.run() => match never {}, () = watch.caught_up() => {} }
        });
        let standing = progress.standing();
        assert_eq!((standing.written, standing.unread), (written, written / 3 * 2));
        assert_eq!(known(&set, 1), sums(1..4));
        // The last message has no row, and is not read again all the same.
        assert_eq!(mark(&set, "shelf", 0), Some(4));
    }
    assert_eq!(*kept.0.lock().unwrap(), [(1, "{".to_owned()), (4, "{}".to_owned())]);
}

#[test]
fn messages_that_are_gone_stop_a_stream_unless_it_may_go_on_behind_them() {
    let set = in_memory();
    run(catch_up(intake(&Shelf::of([(0, 0, numbered(0..5))]), &set)));
    let later = Shelf::of([(0, 8, numbered(8..10))]);
    check_refused(&later, &set, "messages 5 to 7 of partition 0 of shelf are gone");
    assert_eq!(known(&set, 1), sums(0..5));
    run(catch_up(intake(&later, &set).at_gap(AtGap::Continue)));
    assert_eq!(known(&set, 1), sums((0..5).chain(8..10)));
}

#[test]
fn a_stream_that_was_made_anew_is_not_taken_for_the_old_one() {
    let set = in_memory();
    run(catch_up(intake(&Shelf::of([(0, 0, numbered(0..5))]), &set)));
    for at_gap in [AtGap::Fail, AtGap::Continue] {
        let anew = Shelf::of([(0, 0, numbered(0..3))]);
        let watch = Watch::new();
        let intake = intake(&anew, &set).at_gap(at_gap).meter(watch);
        check_trouble(intake, "taken messages up to 4 of partition 0 of shelf, which ends before 3");
    }
    assert_eq!(known(&set, 1), sums(0..5));
}

fn check_refused(shelf: &Shelf, set: &Arc<WritableSet>, sentence: &str) {
    check_trouble(intake(shelf, set), sentence);
}

/// Runs an intake for a minute, in which it tries again and again.
#[track_caller]
fn check_trouble(intake: Intake<Shelf>, sentence: &str) {
    let progress = intake.progress();
    run(async {
        let minute = tokio::time::sleep(std::time::Duration::from_secs(60));
        tokio::select! { never = intake.run() => match never {}, () = minute => {} }
        // Read before the intake is dropped.
    });
    let standing = progress.standing();
    assert_eq!(standing.phase, Phase::Stopped);
    let trouble = standing.trouble.unwrap_or_default();
    assert!(trouble.contains(sentence), "{trouble}");
}

/// A table that refuses writes as long as it is told to.
struct Refusing {
    table: LocalTable,
    refusals: AtomicU64,
}

impl OnlineTable for Refusing {
    fn set(&self) -> &Arc<FeatureSet> {
        self.table.set()
    }

    fn profile(&self, feature: usize) -> Result<Profile, ProfileError> {
        self.table.profile(feature)
    }

    fn is_local(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection) -> Read<'a> {
        self.table.read(batch, selection)
    }

    fn read_at<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection, at: i64) -> Read<'a> {
        self.table.read_at(batch, selection, at)
    }
}

impl WritableTable for Refusing {
    fn write(&self, changes: Changes) -> Answer<'_, Written> {
        match self.refusals.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(left) if left % 2 == 0 => Answer::Ready(Err(WriteError::Full { limit: 1 })),
            Ok(_) => Answer::Ready(Err(WriteError::ReadOnly { reason: "planted".into() })),
            Err(_) => self.table.write(changes),
        }
    }

    fn erase(&self, keys: RecordBatch) -> Answer<'_, Receipt> {
        self.table.erase(keys)
    }

    fn purge(&self) -> Answer<'_, Receipt> {
        self.table.purge()
    }

    fn mark(&self, source: &str, partition: u32) -> Answer<'_, Option<u64>> {
        self.table.mark(source, partition)
    }
}

#[test]
fn a_stream_waits_for_its_set_and_skips_nothing() {
    let table = LocalTable::in_memory(events(), LocalOptions::default());
    let set = over(Refusing { table, refusals: AtomicU64::new(9) });
    let shelf = Shelf::of([(0, 0, numbered(0..100))]).breaking([], [7; 100]);
    run(catch_up(intake(&shelf, &set)));
    assert_eq!(known(&set, 1), sums(0..100));
}

#[test]
fn what_is_too_much_for_one_write_is_written_in_parts() {
    let set = in_memory();
    let row = |n| format!("{{\"id\":1,\"n\":{n}}}");
    let array = |n: i64| -> Bytes { format!("[{}]", vec![row(n); 300_000].join(",")).into() };
    let alone: Bytes = format!("[{}]", vec![row(9); (1 << 20) + 1].join(",")).into();
    let shelf =
        Shelf::of([(0, 0, vec!["x".into(), array(1), array(2), array(3), array(4), alone, event(1, 5)])]);
    let kept = Arc::new(Kept::default());
    run(catch_up(intake(&shelf, &set).aside(Arc::clone(&kept) as _)));
    assert_eq!(known(&set, 1), "5 1200001 3000005");
    let kept = kept.0.lock().unwrap();
    assert_eq!(kept.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_event_counts_once_however_sessions_and_parts_fall(
        lengths in prop::collection::vec((0_u64..50, 0_usize..60), 1..4),
        breaks in prop::collection::vec(0_usize..30, 0..6),
        parts in prop::collection::vec(1_usize..20, 0..30),
        most in 1_usize..40,
        // What was written before by others: up to where, and in how large parts.
        before in prop::collection::vec((0_u32..4, 0_usize..60, 1_usize..25), 0..4),
    ) {
        let set = in_memory();
        let messages = |partition: i64, len: usize| (0..len as i64).map(|n| event(partition, n)).collect::<Vec<_>>();
        let partitions = lengths.iter().zip(0_u32..).map(|(&(first, len), partition)| (partition, first, messages(partition.into(), len)));
        let shelf = Shelf::of(partitions.clone()).breaking(breaks, parts);
        for (partition, end, part) in before {
            let Some(&(first, len)) = lengths.get(partition as usize) else { continue };
            let rows: Vec<u64> = (0..len.min(end) as u64).collect();
            for rows in rows.chunks(part) {
                let ids = vec![i64::from(partition); rows.len()];
                let values: Vec<i64> = rows.iter().map(|&n| n as i64).collect();
                let batch = millstream_graph::rows! { id: ids, n: values };
                let at = Positions::new("shelf", partition, rows.iter().map(|n| first + n).collect());
                millstream_featurestore::wait(set.write(Changes::new(batch, vec![super::AT; rows.len()]).at(at)).get()).unwrap();
            }
        }
        run(catch_up(intake(&shelf, &set).most(most)));
        for (partition, _, messages) in partitions {
            prop_assert_eq!(known(&set, partition.into()), sums(0..messages.len() as i64));
        }
    }
}
