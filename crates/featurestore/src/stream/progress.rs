//! How far a stream has come.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Hears how streams do, for metrics.
pub trait Meter: Send + Sync {
    /// Messages of a stream have been dealt with: `written` into the set, or `unread`.
    fn messages(&self, stream: &str, outcome: &'static str, count: u64);

    /// So many messages of a stream are not in the set yet.
    fn lag(&self, stream: &str, messages: u64);

    /// A stream has ended.
    fn ended(&self, stream: &str);
}

/// How far a stream has come, as its intake tells and others read.
pub struct Progress {
    stream: String,
    meter: Option<Arc<dyn Meter>>,
    standing: Mutex<Standing>,
}

/// How a stream stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What it does.
    pub phase: Phase,
    /// What went wrong last, if it has not been made good.
    pub trouble: Option<String>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// Messages whose rows were given to the set, since the stream was started.
    pub written: u64,
    /// Messages that could not be read.
    pub unread: u64,
}

/// What a stream does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It connects, or waits to do so again.
    #[default]
    Connecting,
    /// It reads.
    Reading,
    /// It waits for the set's store to take rows.
    Waiting,
    /// It has ended.
    Stopped,
}

/// How far a partition has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The partition.
    pub partition: u32,
    /// The offset up to which the set has it.
    pub position: Option<u64>,
    /// How many messages come after that.
    pub lag: u64,
}

impl Phase {
    /// One word, as answers have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Reading => "reading",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

impl Progress {
    pub(super) fn new(stream: &str, meter: Option<Arc<dyn Meter>>) -> Self {
        Self { stream: stream.to_owned(), meter, standing: Mutex::default() }
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// How it stands now.
    pub fn standing(&self) -> Standing {
        self.lock().clone()
    }

    pub(super) fn phase(&self, phase: Phase) {
        let mut standing = self.lock();
        standing.phase = phase;
        if phase == Phase::Reading {
            standing.trouble = None;
        }
    }

    pub(super) fn ended(&self) {
        self.phase(Phase::Stopped);
        if let Some(meter) = &self.meter {
            meter.ended(&self.stream);
        }
    }

    pub(super) fn trouble(&self, phase: Phase, trouble: String) {
        let mut standing = self.lock();
        (standing.phase, standing.trouble) = (phase, Some(trouble));
    }

    /// All partitions there are.
    pub(super) fn begin(&self, partitions: Vec<Partition>) {
        self.lock().partitions = partitions;
        self.tell_lag();
    }

    /// What became of messages, and how far their partitions have been read with them: partition, position and lag.
    pub(super) fn advance(&self, written: u64, unread: u64, to: &BTreeMap<u32, (u64, u64)>) {
        {
            let mut standing = self.lock();
            standing.written += written;
            standing.unread += unread;
            for partition in &mut standing.partitions {
                if let Some(&(position, lag)) = to.get(&partition.partition) {
                    (partition.position, partition.lag) = (Some(position), lag);
                }
            }
        }
        if let Some(meter) = &self.meter {
            meter.messages(&self.stream, "written", written);
            meter.messages(&self.stream, "unread", unread);
        }
        self.tell_lag();
    }

    fn tell_lag(&self) {
        if let Some(meter) = &self.meter {
            let lag = self.lock().partitions.iter().map(|partition| partition.lag).sum();
            meter.lag(&self.stream, lag);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
