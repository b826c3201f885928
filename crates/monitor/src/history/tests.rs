use proptest::prelude::*;

use super::{
    file::{HEAD, MAGIC, folder, with},
    *,
};
use crate::{
    pane::EdgePane,
    sketch::{Labels, Numbers, Sketch},
};

const MINUTE: i64 = 60 * MICROS;

fn pane(minute: i64, values: &[f64]) -> Pane {
    let mut numbers = Numbers::new(&[0.5]);
    values.iter().for_each(|value| numbers.add(&[0.5], *value));
    let columns = [("amount".to_owned(), Sketch::Numbers(numbers))].into_iter().collect();
    let edge = EdgePane { rows: values.len() as u64, columns, ..EdgePane::default() };
    let mut pane = Pane { from: minute * MINUTE, to: (minute + 1) * MINUTE, ..Pane::default() };
    pane.edges.insert("score".to_owned(), edge);
    pane.requests.outcomes.insert("ok".to_owned(), values.len() as u64);
    pane
}

fn values(minute: i64) -> Vec<f64> {
    (0..5).map(|i| ((minute * 7 + i) % 11) as f64 * 0.1).collect()
}

fn filled(history: &mut History, minutes: std::ops::Range<i64>) -> Pane {
    let mut whole = Pane::default();
    for minute in minutes {
        let pane = pane(minute, &values(minute));
        history.push(&pane).unwrap();
        whole.merge(&pane);
    }
    whole
}

#[test]
fn old_panes_become_coarser_and_count_the_same() {
    let mut history = History::in_memory(Keep::default());
    let mut whole = filled(&mut history, 0..60 * 24 * 9);
    let levels: Vec<usize> = history.levels.iter().map(VecDeque::len).collect();
    assert_eq!(levels, [60, 24 * 7 - 1, 2]);
    let kept = history.over(i64::MIN, i64::MAX).unwrap();
    (whole.from, whole.to) = (kept.from, kept.to);
    assert_eq!(kept, whole);
    let last = history.over((60 * 24 * 9 - 10) * MINUTE, i64::MAX).unwrap();
    assert_eq!(last.answered(), 50);
}

#[test]
fn what_was_pushed_is_there_again_and_the_file_stays_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/fraud.panes");
    let mut history = History::open(&path, Keep::default()).unwrap();
    let whole = filled(&mut history, 0..300);
    history.rewrite().unwrap();
    let short = std::fs::metadata(&path).unwrap().len();
    filled(&mut history, 300..301);
    drop(history);
    let again = History::open(&path, Keep::default()).unwrap();
    assert_eq!(again.over(0, i64::MAX).unwrap().answered(), whole.answered() + 5);
    assert!(short < 64 * 800, "{short}");
}

#[test]
fn a_torn_end_is_cut_off_and_a_foreign_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fraud.panes");
    filled(&mut History::open(&path, Keep::default()).unwrap(), 0..3);
    let good = std::fs::read(&path).unwrap();
    let mut ends = Vec::new();
    for cut in 0..=good.len() {
        std::fs::write(&path, &good[..cut]).unwrap();
        let mut history = History::open(&path, Keep::default()).unwrap();
        let there = history.over(0, i64::MAX).unwrap().answered() / 5;
        ends.push(there);
        history.push(&pane(9, &[1.0])).unwrap();
        drop(history);
        let again = History::open(&path, Keep::default()).unwrap();
        assert_eq!(again.over(0, i64::MAX).unwrap().answered(), there * 5 + 1, "cut at {cut}");
    }
    assert!(ends.is_sorted() && ends.first() == Some(&0) && ends.last() == Some(&3));
    std::fs::write(&path, "something else").unwrap();
    assert!(matches!(History::open(&path, Keep::default()), Err(HistoryError::Foreign { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"something else");
    assert!(!folder.path().join("fraud.panes.bad").exists());
}

#[test]
fn what_stands_behind_a_record_that_has_changed_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fraud.panes");
    let ends: Vec<usize> = (0..3)
        .map(|minute| {
            filled(&mut History::open(&path, Keep::default()).unwrap(), minute..minute + 1);
            std::fs::metadata(&path).unwrap().len() as usize
        })
        .collect();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[ends[0] + HEAD + 3] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut history = History::open(&path, Keep::default()).unwrap();
    let aside = history.set_aside().unwrap().to_path_buf();
    assert_eq!(
        (aside.file_name().unwrap().to_str(), history.over(0, i64::MAX).unwrap().answered()),
        (Some("fraud.panes.bad"), 5)
    );
    assert_eq!(std::fs::read(aside).unwrap(), bytes[ends[0]..]);
    history.push(&pane(5, &[1.0])).unwrap();
    drop(history);
    let again = History::open(&path, Keep::default()).unwrap();
    assert_eq!((again.over(0, i64::MAX).unwrap().answered(), again.set_aside()), (6, None));
}

#[test]
fn a_history_that_is_open_is_opened_by_nobody_else_and_read_by_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fraud.panes");
    let mut history = History::open(&path, Keep::default()).unwrap();
    filled(&mut history, 0..2);
    for _ in 0..2 {
        let error = History::open(&path, Keep::default()).err().unwrap();
        assert!(matches!(error, HistoryError::Taken { .. }), "{error}");
        assert!(error.to_string().ends_with("give each server its own folder"), "{error}");
        assert_eq!(read_panes(&path).unwrap().len(), 2);
        history.rewrite().unwrap();
    }
    filled(&mut history, 2..3);
    drop(history);
    assert_eq!(History::open(&path, Keep::default()).unwrap().over(0, i64::MAX).unwrap().answered(), 15);
}

#[test]
fn panes_of_a_file_that_is_not_there_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let Err(HistoryError::File { source, .. }) = read_panes(&folder.path().join("gone.panes")) else {
        panic!("a file")
    };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_path_without_a_folder_lies_in_the_working_folder() {
    assert_eq!(folder(Path::new("fraud.panes")), Path::new("."));
    assert_eq!(folder(Path::new("counts/fraud.panes")), Path::new("counts"));
    assert_eq!(with(Path::new("counts/fraud.v2.panes"), ".bad"), Path::new("counts/fraud.v2.panes.bad"));
}

#[test]
fn panes_of_turns_that_come_early_or_late_are_in_the_window_that_has_most_of_them() {
    let mut history = History::in_memory(Keep::default());
    let mut from = 0;
    for minute in 1..=20 {
        // Up to 3 seconds late.
        let to = minute * MINUTE + minute % 4 * MICROS;
        history.push(&Pane { from, to, ..pane(0, &[1.0]) }).unwrap();
        from = to;
    }
    for now in 10..=20 {
        let now = now * MINUTE + now % 4 * MICROS;
        assert_eq!(history.over(now - 5 * MINUTE, now).unwrap().answered(), 5, "{now}");
    }
}

#[test]
fn a_column_that_changes_its_kind_is_of_the_later_kind_when_panes_have_aged() {
    let named = |minute: i64| {
        let mut pane = pane(minute, &[1.0]);
        let column = Sketch::Labels(Labels::new([]));
        pane.edges.get_mut("score").unwrap().columns.insert("amount".to_owned(), column);
        pane
    };
    for numbers_first in [true, false] {
        let mut history = History::in_memory(Keep { fine: Duration::ZERO, ..Keep::default() });
        for minute in 0..40 {
            let pane = if (minute < 20) == numbers_first { pane(minute, &[1.0]) } else { named(minute) };
            history.push(&pane).unwrap();
        }
        assert_eq!(history.levels[1].len(), 1);
        let kept = history.over(i64::MIN, i64::MAX).unwrap();
        let numbers = matches!(kept.edges["score"].columns["amount"], Sketch::Numbers(_));
        assert_eq!((numbers, kept.answered()), (!numbers_first, 40));
    }
}

#[test]
fn panes_are_kept_as_long_as_was_said_last() {
    let mut history = History::in_memory(Keep::default());
    filled(&mut history, 0..30);
    let minute = Duration::from_secs(60);
    history.keep(Keep { fine: minute, hours: minute, days: minute });
    assert_eq!(history.levels[0].len(), 30);
    filled(&mut history, 30..31);
    assert_eq!(history.levels[0].len(), 1);
}

proptest! {
    #[test]
    fn any_changed_byte_costs_no_more_than_what_stands_behind_it(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fraud.panes");
        filled(&mut History::open(&path, Keep::default()).unwrap(), 0..3);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
        bytes[at] = to;
        std::fs::write(&path, &bytes).unwrap();
        let there = History::open(&path, Keep::default()).unwrap().over(0, i64::MAX).unwrap();
        prop_assert!(there.answered() <= 15 && there.answered().is_multiple_of(5));
    }
}
