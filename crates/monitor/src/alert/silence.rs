//! What keeps an active alert from sending: silences, and active alerts of higher severity.

use std::collections::{BTreeMap, HashMap};

use super::{Alert, Labels, Matchers, Severity};

/// Silences at one time; one too many is refused.
const MAX_SILENCES: usize = 1000;
/// Labels that one silence looks at.
const MAX_MATCHERS: usize = 32;
/// Bytes of an author, of a comment, and of the name and the value of a label.
const MAX_TEXT: usize = 1024;

/// A time during which matching alerts send nothing about firing. They stay active, and send when it is over if they
/// still fire; that an alert which was sent has ended is sent all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSilence {
    /// The labels of the alerts; `alertname`, `severity` and `metric` are among them.
    pub matchers: Matchers,
    /// Its first microsecond.
    pub from: i64,
    /// The first microsecond after it.
    pub to: i64,
    /// Who wants it.
    pub author: String,
    /// Why.
    pub comment: String,
}

/// A silence that has been taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Its number, never used twice.
    pub id: u64,
    /// What it is.
    pub silence: NewSilence,
}

/// Why a silence was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SilenceError {
    /// It would end before it begins.
    #[error("a silence ends after it begins")]
    Empty,
    /// It would silence everything.
    #[error("a silence names at least one label, at most {MAX_MATCHERS}")]
    Matchers,
    /// A text is too long.
    #[error("author, comment and each label of a silence have at most {MAX_TEXT} bytes")]
    TooLong,
    /// There are as many as there may be.
    #[error("there are {MAX_SILENCES} silences; remove one first")]
    Full,
}

/// The silences of a project.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Silences {
    pub(super) list: BTreeMap<u64, NewSilence>,
    pub(super) next: u64,
}

impl Silences {
    pub(super) fn add(&mut self, silence: NewSilence) -> Result<u64, SilenceError> {
        let texts = silence.matchers.pairs().flat_map(|(name, value)| [name, value]);
        let too_long = texts.chain([&*silence.author, &*silence.comment]).any(|text| text.len() > MAX_TEXT);
        if silence.from >= silence.to {
            return Err(SilenceError::Empty);
        }
        if !(1..=MAX_MATCHERS).contains(&silence.matchers.0.len()) {
            return Err(SilenceError::Matchers);
        }
        if too_long {
            return Err(SilenceError::TooLong);
        }
        if self.list.len() >= MAX_SILENCES {
            return Err(SilenceError::Full);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.list.insert(id, silence);
        Ok(id)
    }

    /// Drops those that are over.
    pub(super) fn expire(&mut self, now: i64) {
        self.list.retain(|_, silence| silence.to > now);
    }

    /// Whether one matches now.
    pub(super) fn silence(&self, labels: &Labels, now: i64) -> bool {
        self.list
            .values()
            .any(|silence| (silence.from..silence.to).contains(&now) && silence.matchers.matches(labels))
    }
}

/// How many alerts of each severity are active, by the values of the labels that they inhibit by.
#[derive(Clone, Debug, Default)]
pub(super) struct Inhibitors {
    /// The different lists of labels, of which there are few.
    lists: Vec<Vec<String>>,
    /// By the place of a list and the values of its labels.
    active: HashMap<(usize, Vec<String>), [usize; 3]>,
}

impl Inhibitors {
    pub(super) fn new<'a>(alerts: impl IntoIterator<Item = &'a Alert>) -> Self {
        let mut lists: Vec<_> = alerts.into_iter().filter_map(|alert| alert.inhibit.clone()).collect();
        lists.sort();
        lists.dedup();
        Self { lists, active: HashMap::new() }
    }

    /// A series of an alert has become active, or is so no more.
    pub(super) fn count(&mut self, alert: &Alert, labels: &Labels, active: bool) {
        let Some(list) = &alert.inhibit else { return };
        let (Ok(place), Some(values)) = (self.lists.binary_search(list), values(list, labels)) else {
            return;
        };
        let key = (place, values);
        let counts = self.active.entry(key.clone()).or_default();
        let count = &mut counts[alert.severity as usize];
        *count = if active { count.saturating_add(1) } else { count.saturating_sub(1) };
        if *counts == [0; 3] {
            self.active.remove(&key);
        }
    }

    /// Whether an alert of a higher severity with the same labels is active.
    pub(super) fn inhibit(&self, severity: Severity, labels: &Labels) -> bool {
        self.lists.iter().enumerate().any(|(place, list)| {
            let counts = values(list, labels).and_then(|values| self.active.get(&(place, values)));
            counts.is_some_and(|counts| counts[severity as usize + 1..].iter().any(|&count| count > 0))
        })
    }
}

/// The values of the labels; `None` when one is missing.
fn values(list: &[String], labels: &Labels) -> Option<Vec<String>> {
    list.iter().map(|name| labels.get(name).cloned()).collect()
}
