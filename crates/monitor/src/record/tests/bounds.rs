//! Rotation, compaction, size and age.

use serde_json::json;

use super::*;

fn hours(log: &Log) -> Vec<(i64, usize)> {
    log.reader().hours().unwrap().iter().map(|hour| ((hour.start - START) / HOUR, hour.files)).collect()
}

#[test]
fn rows_go_into_the_hour_of_their_request_when_they_have_waited_long_enough() {
    let log = Log::new(json!({"flush": "10s"}));
    let mut writer = log.writer();
    log.request("a", START + HOUR - 1, 1);
    log.request("b", START + HOUR, 1);
    assert_eq!(writer.drain(START + HOUR).unwrap(), Drained::default());
    assert_eq!(log.recorder.waiting_rows(), 2);
    assert_eq!(
        writer.drain(START + HOUR + 10 * SECOND).unwrap(),
        Drained { rows: 2, files: 2, ..Drained::default() }
    );
    assert_eq!(hours(&log), [(0, 1), (1, 1)]);
    let names: Vec<String> = log
        .files()
        .iter()
        .map(|path| path.strip_prefix(log.recorder.folder()).unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["hour=2026-12-01T05/0-0000000000.parquet", "hour=2026-12-01T06/0-0000000001.parquet"]);
}

#[test]
fn many_rows_do_not_wait() {
    let log = Log::new(json!({"buffer_rows": 10, "flush": "1h"}));
    let mut writer = log.writer();
    log.request("a", START, 4);
    assert_eq!(writer.drain(START).unwrap().rows, 0);
    log.request("b", START, 1);
    assert_eq!(writer.drain(START).unwrap().rows, 5);
    log.request("c", START, 11);
    let counts = log.recorder.counts();
    assert_eq!(
        (counts.observations_dropped, counts.runs_dropped),
        (2, 1),
        "a request that is too large is dropped whole"
    );
    log.recorder.observe(RunId(1), INPUT, &input("d", 11), |row| Some(row as u32));
    log.recorder.finish(finished(RunId(1), Some("d"), START));
    assert_eq!((log.recorder.counts().rows_dropped, log.recorder.waiting_rows()), (11, 0));
}

#[test]
fn an_hour_that_is_over_becomes_one_file_in_the_order_of_times() {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    for i in 0..6 {
        log.request(&format!("r{i}"), START + (i * 7 % 6) * SECOND, 2);
        writer.flush(START + i * SECOND).unwrap();
    }
    assert_eq!(hours(&log), [(0, 6)]);
    assert_eq!(writer.drain(START + HOUR + SECOND).unwrap().compacted, 0, "runs of the hour may still end");
    assert_eq!(writer.drain(START + HOUR + 70 * SECOND).unwrap().compacted, 6);
    assert_eq!(hours(&log), [(0, 1)]);
    let rows = log.rows();
    let at =
        column(&rows, "at").as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values().to_vec();
    assert!(at.is_sorted() && at.len() == 12);
    // A row that comes late goes into a file of its own, which becomes part of the other.
    log.request("late", START + 3 * SECOND, 1);
    writer.flush(START + 2 * HOUR).unwrap();
    writer.drain(START + 2 * HOUR + 60 * SECOND).unwrap();
    assert_eq!((hours(&log), log.logged().len()), (vec![(0, 1)], 13));
}

#[test]
fn an_hour_that_goes_on_never_has_many_files() {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    for i in 0..100 {
        log.request(&format!("r{i}"), START + i, 1);
        writer.flush(START + i).unwrap();
        assert!(hours(&log)[0].1 <= 16, "{:?} after {i}", hours(&log));
    }
    assert_eq!(log.logged().len(), 100);
}

#[test]
fn hours_that_are_too_old_are_deleted() {
    let log = Log::new(json!({"max_age": "2h"}));
    let mut writer = log.writer();
    for hour in 0..5 {
        log.request(&format!("r{hour}"), START + hour * HOUR, 1);
        writer.flush(START + hour * HOUR).unwrap();
    }
    assert_eq!(hours(&log), [(1, 1), (2, 1), (3, 1), (4, 1)], "hour 1 ended two hours ago");
    writer.drain(START + 4 * HOUR + 61 * SECOND).unwrap();
    assert_eq!(hours(&log), [(2, 1), (3, 1), (4, 1)]);
    assert_eq!(log.recorder.counts().rows_written, 5);
    assert!(!log.recorder.folder().join("hour=2026-12-01T05").exists());
    writer.drain(i64::MAX).unwrap();
    assert_eq!(hours(&log), []);
}

#[test]
fn the_oldest_hours_make_room_for_the_newest() {
    let one = {
        let log = Log::new(json!({}));
        log.request("r0", START, 50);
        log.writer().flush(START).unwrap();
        log.bytes()
    };
    let most = one * 6;
    let log = Log::new(json!({"max_bytes": format!("{most}B")}));
    let mut writer = log.writer();
    let mut deleted = 0;
    for hour in 0..12 {
        // Two files an hour.
        for part in 0..2 {
            log.request(&format!("r{hour}-{part}"), START + hour * HOUR, 50);
            deleted += writer.flush(START + hour * HOUR).unwrap().deleted;
            assert!(log.bytes() <= most, "{} of {most}", log.bytes());
        }
    }
    let left = hours(&log);
    assert!(left.len() >= 2 && left.last().is_some_and(|(hour, _)| *hour == 11), "{left:?}");
    assert!(
        left.is_sorted() && left.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0),
        "{left:?}: the oldest went"
    );
    assert!(deleted > 10);
}

#[test]
fn the_only_hour_makes_room_file_by_file_and_the_newest_file_stays() {
    let log = Log::new(json!({"max_bytes": "1B"}));
    let mut writer = log.writer();
    for id in ["a", "b", "c"] {
        log.request(id, START, 1);
        writer.flush(START).unwrap();
        assert_eq!(log.logged(), once([(id, 0)]));
    }
}

#[test]
fn replicas_share_a_folder_and_its_bounds() {
    let log = Log::new(json!({"replica": "a", "max_age": "2h"}));
    let other = recorder(log.folder.path(), json!({"replica": "b", "max_age": "2h"})).unwrap();
    let mut writers = [log.writer(), Writer::open(Arc::clone(&other)).unwrap()];
    for part in 0..3 {
        request(&log.recorder, &format!("a{part}"), START, 1);
        request(&other, &format!("b{part}"), START, 1);
        for writer in &mut writers {
            writer.flush(START + part).unwrap();
        }
    }
    assert_eq!(hours(&log), [(0, 6)]);
    for writer in &mut writers {
        assert_eq!(writer.drain(START + 2 * HOUR).unwrap().compacted, 3);
    }
    assert_eq!((hours(&log), log.logged().len()), (vec![(0, 2)], 6));
    assert_eq!(writers[0].drain(START + 4 * HOUR).unwrap().deleted, 2);
    writers[1].drain(START + 4 * HOUR).unwrap();
    assert_eq!(hours(&log), []);
}

#[test]
fn a_writer_follows_the_recorder_of_a_new_plan() {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    let new =
        recorder(log.folder.path(), json!({"drop": ["amount"], "versions": ["model_version"]})).unwrap();
    writer.follow(Arc::clone(&new)).unwrap();
    log.request("old", START, 1);
    request(&new, "new", START, 1);
    assert_eq!(writer.flush(START).unwrap().files, 2, "their columns differ");
    let rows = log.rows();
    let names = names(&rows);
    assert_eq!(names.len(), 2);
    let old = names.iter().position(|(id, _)| id == "old").unwrap();
    assert_eq!(floats(&rows, "input__amount")[old], Some(0.0));
    assert_eq!(floats(&rows, "input__amount")[1 - old], None);
    let elsewhere = recorder(&log.folder.path().join("elsewhere"), json!({})).unwrap();
    assert!(writer.follow(elsewhere).is_err());
    // Files of different columns stay apart.
    writer.drain(START + 2 * HOUR).unwrap();
    assert_eq!(hours(&log), [(0, 2)]);
}

#[test]
fn a_recorder_is_let_go_with_its_last_row_and_what_it_has_counted_stays() {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    let new = recorder(log.folder.path(), json!({})).unwrap();
    for _ in 0..2 {
        writer.follow(Arc::clone(&new)).unwrap();
    }
    let Log { folder, recorder: old } = log;
    old.observe(RunId(1), INPUT, &input("lost", 2), |_| None);
    request(&old, "old", START, 1);
    request(&new, "new", START, 1);
    let alive = [&old, &new].map(Arc::downgrade);
    drop(old);
    assert!(writer.has_waiting());
    writer.drain(START).unwrap();
    assert!(writer.has_waiting() && alive[0].upgrade().is_some(), "its row is not written yet");
    assert_eq!(writer.flush(START).unwrap().rows, 2);
    assert_eq!((writer.has_waiting(), writer.is_over()), (false, false));
    assert!(alive[0].upgrade().is_none());
    drop(new);
    writer.drain(START).unwrap();
    assert!(
        writer.is_over() && alive[1].upgrade().is_none(),
        "a recorder that is followed twice is held once"
    );
    let counts = writer.counts();
    assert_eq!((counts.rows_written, counts.rows_lost), (2, 2));
    drop(folder);
}

#[test]
fn runs_that_do_not_end_are_evicted_and_counted() {
    let log = Log::new(json!({"open_for": "1m"}));
    let mut writer = log.writer();
    log.recorder.observe(RunId(1), INPUT, &input("a", 3), |row| Some(row as u32));
    writer.drain(START).unwrap();
    writer.drain(START + 60 * SECOND).unwrap();
    assert_eq!((log.recorder.open_rows(), log.recorder.counts().runs_evicted), (3, 0));
    writer.drain(START + 61 * SECOND).unwrap();
    assert_eq!((log.recorder.open_rows(), log.recorder.counts().runs_evicted), (0, 1));
    // A request is there whole or not at all, and counted once.
    log.recorder.observe(RunId(1), SCORE, &score("a", 3), |row| Some(row as u32));
    log.recorder.finish(finished(RunId(1), Some("a"), START));
    writer.flush(START + 61 * SECOND).unwrap();
    let counts = log.recorder.counts();
    assert_eq!((counts.runs_evicted, counts.runs_unseen, counts.observations_dropped), (1, 0, 1));
    assert_eq!((counts.rows_written, log.recorder.open_rows()), (0, 0));
}

#[test]
fn a_run_whose_caller_has_gone_is_abandoned_when_the_log_is_drained() {
    let log = Log::new(json!({}));
    let mut writer = log.writer();
    for (run, id) in [(1, "here"), (2, "gone")] {
        let id: Arc<str> = Arc::from(id);
        log.recorder.observe_for(Some(&id), RunId(run), INPUT, &input(&id, 3), |row| Some(row as u32));
        if run == 1 {
            // One that is answered before its name is let go is logged.
            log.recorder.finish(finished(RunId(run), Some(&id), START));
        }
    }
    writer.flush(START).unwrap();
    let counts = log.recorder.counts();
    assert_eq!((log.recorder.open_rows(), counts.runs_abandoned, counts.runs_evicted), (0, 1, 0));
    assert_eq!(log.logged(), once([("here", 0), ("here", 1), ("here", 2)]));
}
