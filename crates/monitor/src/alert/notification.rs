//! What a channel is to be told.

use std::sync::Arc;

use serde_json::Value;

use super::{Activation, Alert, Labels, text};

/// One message for one channel: the series of one alert that share a group. Made by [`Alerts::tick`](super::Alerts::tick).
#[derive(Clone, Debug)]
pub struct Notification {
    /// The alert.
    pub alert: Arc<Alert>,
    /// The project it belongs to.
    pub project: Arc<str>,
    /// The place of the channel in the alert's `notify`, from zero.
    pub channel: usize,
    /// The labels that its series share.
    pub group: Labels,
    /// What happened: what has ended first, then what fires; there is at least one.
    pub events: Vec<Event>,
    /// How many more events there were than a message holds.
    pub truncated: usize,
    /// The time of the tick.
    pub at: i64,
}

/// What happened to one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whether it fires.
    pub status: Status,
    /// Its labels, as the samples had them.
    pub labels: Arc<Labels>,
    /// The activation it is about.
    pub activation: Activation,
}

/// Whether an alert fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It did.
    Resolved,
    /// It does.
    Firing,
}

impl Status {
    /// The word for it in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Firing => "firing",
        }
    }
}

impl Notification {
    /// `Firing` when any of its series fires.
    pub fn status(&self) -> Status {
        self.events.iter().map(|event| event.status).max().unwrap_or(Status::Resolved)
    }

    /// A number that two different messages hardly share, for receivers that see a message twice.
    pub fn id(&self) -> String {
        let (channel, at) = (self.channel.to_string(), self.at.to_string());
        let group = self.group.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let own = [&*self.project, self.alert.name(), &channel, &at];
        format!("{:016x}", text::hash(own.into_iter().chain(group)))
    }
}

impl Event {
    /// What came with the observation that made the alert active.
    pub fn evidence(&self) -> Option<&Value> {
        self.activation.evidence.as_deref()
    }
}

/// The labels of a series in messages: its own, and the alert's name, metric and severity. Where two have one name, the
/// series' own is called `exported_NAME`.
pub(super) fn full_labels(alert: &Alert, labels: &Labels) -> Labels {
    let own =
        [("alertname", alert.name()), ("metric", alert.metric()), ("severity", alert.severity().word())];
    let mut full: Labels = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for (name, value) in labels {
        let taken = own.iter().any(|(other, _)| other == name);
        let name = if taken { format!("exported_{name}") } else { name.clone() };
        full.insert(name, value.clone());
    }
    full
}
