//! What is told of a prediction after it was made.

use serde::Serialize;

use crate::performance::LabelReply;

/// What is told of the prediction of an id: what turned out to be true, what it led to, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What the prediction is called.
    pub id: String,
    /// When it became true, in microseconds since 1970 UTC. Without it, it is dated when it came, or at the last prediction where
    /// predictions say themselves when they were made.
    pub at: Option<i64>,
    /// What turned out to be true.
    pub label: Option<Truth>,
    /// What it led to, by the names of the measures.
    pub measures: Vec<(String, f64)>,
}

/// What turned out to be true.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// A number; of a yes or no, a yes is above 0.5.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// The name of a class.
    Class(String),
}

impl Truth {
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Flag(flag) => Some(f64::from(u8::from(*flag))),
            Self::Class(_) => None,
        }
    }

    /// The class that it is, under the name that columns have it.
    pub(super) fn class(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Class(name) => name.clone(),
        }
    }
}

impl From<f64> for Truth {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Truth {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for Truth {
    fn from(name: &str) -> Self {
        Self::Class(name.to_owned())
    }
}

/// What became of labels, or of measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelCounts {
    /// Labels whose prediction was there.
    pub joined: u64,
    /// Labels that took the place of another.
    pub corrected: u64,
    /// Labels whose prediction may still come.
    pub waiting: u64,
    /// Labels that came too late or too early.
    pub out_of_time: u64,
    /// Labels of no prediction, or that say nothing of it.
    pub unknown: u64,
    /// Labels that were there already.
    pub repeated: u64,
}

/// What became of what was told: of labels, and of measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutcomeCounts {
    /// Labels.
    #[serde(flatten)]
    pub labels: LabelCounts,
    /// Measures, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measures: Option<LabelCounts>,
}

impl LabelCounts {
    pub(super) fn count(&mut self, reply: LabelReply) {
        *match reply {
            LabelReply::Joined => &mut self.joined,
            LabelReply::Corrected => &mut self.corrected,
            LabelReply::Waiting => &mut self.waiting,
            LabelReply::TooLate | LabelReply::TooEarly => &mut self.out_of_time,
            LabelReply::Unknown => &mut self.unknown,
            LabelReply::Repeated => &mut self.repeated,
        } += 1;
    }
}
