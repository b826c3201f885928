//! Requests that end when their graph, or the folder of its counts, is another one already.

use std::{fs, path::Path, sync::Arc};

use millstream_graph::{RunId, rows};
use millstream_monitor::record::{Finished, Reader, Recorder};

use super::{Plan, keeper::Keeper};
use crate::Project;

/// 2026-12-01T05:00 UTC.
const NOW: i64 = 1_796_101_200_000_000;
const PROJECT: &str = "\
name: p
monitoring: { path: kept }
graphs:
  pay:
    input: { amount: float64 }
    steps:
      all: { select: [amount] }
    respond: all
    monitor: { input: {} }
    record: { path: log, flush: 1h }
";

fn load(folder: &Path, text: &str) -> (Project, Arc<Plan>) {
    fs::write(folder.join("millstream.yaml"), text).unwrap();
    let project = Project::load(folder).unwrap_or_else(|error| panic!("{error}"));
    let plan = Arc::new(project.monitoring().clone());
    (project, plan)
}

fn begin(recorder: &Recorder, run: u64) {
    recorder.observe(RunId(run), 0, &rows! { amount: [1.0] }, |row| u32::try_from(row).ok());
}

fn end(recorder: &Recorder, run: u64) {
    recorder.finish(Finished {
        run: RunId(run),
        request_id: None,
        at: NOW,
        took: 1,
        outcome: "ok",
        degraded: &[],
        versions: Arc::from([]),
    });
}

fn logged(folder: &Path) -> usize {
    let rows = Reader::open(&folder.join("log/pay")).unwrap().rows(i64::MIN, i64::MAX).unwrap();
    rows.map(|batch| batch.unwrap().num_rows()).sum()
}

#[test]
fn requests_of_a_graph_that_is_served_no_more_are_logged_before_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (project, plan) = load(folder.path(), PROJECT);
    let mut keeper = Keeper::new("p", Arc::clone(&plan));
    keeper.drain(project.watches(), NOW);
    let watch = Arc::clone(&project.watches()[0]);
    drop(project);
    let recorder = watch.recorder.as_ref().unwrap();
    (1..=2).for_each(|run| begin(recorder, run));
    end(recorder, 1);
    keeper.turn(&plan, &[], NOW + 1);
    assert_eq!(logged(folder.path()), 0, "it need not be written yet");
    end(recorder, 2);
    drop(watch);
    let turned = keeper.turn(&plan, &[], NOW + 2);
    assert_eq!((logged(folder.path()), turned.recorded["pay"].rows_written), (2, 2));
    assert!(keeper.turn(&plan, &[], NOW + 3).recorded.is_empty());
}

#[test]
fn requests_are_logged_when_counts_are_kept_elsewhere_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let (old, plan) = load(folder.path(), PROJECT);
    let mut keeper = Keeper::new("p", plan);
    keeper.drain(old.watches(), NOW);
    let recorder = old.watches()[0].recorder.as_ref().unwrap();
    (1..=2).for_each(|run| begin(recorder, run));
    end(recorder, 1);
    let (new, plan) = load(folder.path(), &PROJECT.replace("path: kept", "path: elsewhere"));
    keeper.turn(&plan, new.watches(), NOW + 1);
    end(recorder, 2);
    let recorder = new.watches()[0].recorder.as_ref().unwrap();
    begin(recorder, 3);
    end(recorder, 3);
    keeper.end(new.watches(), NOW + 2);
    assert_eq!(logged(folder.path()), 3);
    assert!(folder.path().join("elsewhere").is_dir());
}
