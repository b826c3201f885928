//! The request log of one graph, over the versions of its project.

use std::sync::{
    Arc,
    atomic::{Ordering::Acquire, fence},
};

use millstream_monitor::record::{Counts, RecordError, Recorder, Writer};

/// What is written of the requests of one graph. A version may log elsewhere than the one before, or not at all: the last requests
/// of that one are written where it says, however late they end.
#[derive(Default)]
pub(super) struct RequestLog {
    /// Of each log that a version uses. One that none uses any more goes when all of its rows are written.
    writers: Vec<Writer>,
    /// Recorders whose log could not be opened: somebody else may have it still. It is tried again, and what they have no room for
    /// meanwhile is dropped and counted.
    closed: Vec<Arc<Recorder>>,
    /// What was counted for logs that are gone; none before there was a log.
    counted: Option<Counts>,
}

impl RequestLog {
    /// Writes what this takes, too.
    pub(super) fn follow(&mut self, recorder: &Arc<Recorder>) {
        self.counted = Some(self.counted.unwrap_or_default());
        // Those of versions before come first: the bounds are those of the last that follows.
        self.reopen();
        let Err(error) = self.open(recorder) else { return };
        tracing::error!(error = crate::project::chain(&error), "the request log cannot be written yet");
        if !self.closed.iter().any(|known| Arc::ptr_eq(known, recorder)) {
            self.closed.push(Arc::clone(recorder));
        }
    }

    fn open(&mut self, recorder: &Arc<Recorder>) -> Result<(), RecordError> {
        let known = self.writers.iter_mut().find(|writer| writer.is_of(recorder));
        match known {
            Some(writer) => writer.follow(Arc::clone(recorder)),
            None => Writer::open(Arc::clone(recorder)).map(|writer| self.writers.push(writer)),
        }
    }

    /// Tries again to open what could not be. What nobody uses any more is tried a last time.
    fn reopen(&mut self) {
        for recorder in std::mem::take(&mut self.closed) {
            let is_last = Arc::strong_count(&recorder) == 1;
            // What the last of the others has handed in before it let go is seen from here on.
            fence(Acquire);
            match (self.open(&recorder), &mut self.counted) {
                (Ok(()), _) => {}
                (Err(_), Some(counted)) if is_last => {
                    *counted += recorder.counts();
                    counted.rows_dropped += recorder.waiting_rows() as u64;
                }
                (Err(_), _) => self.closed.push(recorder),
            }
        }
    }

    /// Writes requests that have waited long enough.
    pub(super) fn drain(&mut self, now: i64) {
        self.write(|writer| writer.drain(now).map(drop));
    }

    /// Writes all requests.
    pub(super) fn flush(&mut self, now: i64) {
        self.write(|writer| writer.flush(now).map(drop));
    }

    /// Whether requests that have ended wait to be written.
    pub(super) fn has_waiting(&self) -> bool {
        self.writers.iter().any(Writer::has_waiting)
    }

    /// What became of requests, if there was a log.
    pub(super) fn counts(&self) -> Option<Counts> {
        let mut counts = self.counted?;
        self.writers.iter().for_each(|writer| counts += writer.counts());
        self.closed.iter().for_each(|recorder| counts += recorder.counts());
        Some(counts)
    }

    fn write(&mut self, write: impl Fn(&mut Writer) -> Result<(), RecordError>) {
        self.reopen();
        let Some(counted) = &mut self.counted else { return };
        self.writers.retain_mut(|writer| {
            if let Err(error) = write(writer) {
                tracing::error!(
                    error = crate::project::chain(&error),
                    "the request log could not be written"
                );
            }
            if writer.is_over() {
                *counted += writer.counts();
            }
            !writer.is_over()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millstream_graph::{RunId, rows};
    use millstream_monitor::record::{Finished, Reader, Watched};

    use super::*;

    /// 2026-12-01T05:00 UTC.
    const NOW: i64 = 1_796_101_200_000_000;

    fn recorder(folder: &Path) -> Arc<Recorder> {
        let settings = serde_json::from_value(serde_json::json!({ "path": folder })).unwrap();
        let input = Watched { name: "input".to_owned(), schema: rows! { amount: [1.0] }.schema() };
        Arc::new(Recorder::new("pay", &settings, &[input], |_| None).unwrap())
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
        let rows = Reader::open(&folder.join("pay")).unwrap().rows(i64::MIN, i64::MAX).unwrap();
        rows.map(|batch| batch.unwrap().num_rows()).sum()
    }

    #[test]
    fn a_log_that_somebody_else_has_is_written_when_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let other = Writer::open(recorder(folder.path())).unwrap();
        let mut log = RequestLog::default();
        let (first, second) = (recorder(folder.path()), recorder(folder.path()));
        for recorder in [&first, &second] {
            for _ in 0..2 {
                log.follow(recorder);
            }
            begin(recorder, 1);
            end(recorder, 1);
        }
        log.flush(NOW);
        // One that nobody uses any more is not waited for.
        drop(second);
        log.flush(NOW);
        let counts = log.counts().unwrap();
        assert_eq!((counts.rows_written, counts.rows_dropped), (0, 1));
        drop(other);
        log.flush(NOW);
        assert_eq!((logged(folder.path()), log.counts().unwrap().rows_written), (1, 1));
        assert!(log.closed.is_empty());
    }

    #[test]
    fn the_last_requests_of_a_version_are_logged_where_it_says_and_counts_go_on() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [here, there] = [folders[0].path(), folders[1].path()];
        let mut log = RequestLog::default();
        assert_eq!(log.counts(), None);
        let first = recorder(here);
        log.follow(&first);
        begin(&first, 1);
        begin(&first, 2);
        end(&first, 1);

        // The next version logs elsewhere, and the one behind it here again.
        let second = recorder(there);
        log.follow(&second);
        begin(&second, 3);
        end(&second, 3);
        log.flush(NOW);
        assert_eq!((logged(here), logged(there)), (1, 1));
        let third = recorder(here);
        log.follow(&third);
        begin(&third, 4);
        end(&third, 4);
        end(&first, 2);
        drop((first, second));
        assert!(log.has_waiting());
        log.flush(NOW);
        assert_eq!((logged(here), logged(there), log.has_waiting()), (3, 1, false));
        assert_eq!(log.counts().unwrap().rows_written, 4);

        // Nobody holds the log that no version uses: another may write it.
        log.drain(NOW);
        assert!(Writer::open(recorder(there)).is_ok());
        assert!(Writer::open(recorder(here)).is_err());
        drop(third);
        log.drain(NOW);
        assert!(Writer::open(recorder(here)).is_ok());
        assert_eq!(log.counts().unwrap().rows_written, 4);
    }
}
