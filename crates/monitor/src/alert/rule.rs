//! A checked alert: its condition, and what it says about one value.

use std::collections::BTreeMap;

use super::{
    EmailSpec, HttpSpec, Reset, Secret, Severity, SlackSpec,
    template::{JsonTemplate, Template},
};

/// Names and values, in the order of the names.
pub type Labels = BTreeMap<String, String>;

/// An alert that has been checked: its placeholders and labels are known, its numbers are in their bounds.
/// Made by [`check`](super::check()), run by [`Alerts`](super::Alerts).
#[derive(Clone, Debug)]
pub struct Alert {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) severity: Severity,
    pub(super) metric: String,
    pub(super) matchers: Matchers,
    pub(super) condition: Condition,
    /// Where it clears, both ends included; for `absent` nothing looks at it.
    pub(super) clear: (f64, f64),
    pub(super) hold: Hold,
    pub(super) criteria: Criteria,
    pub(super) reset: Reset,
    pub(super) group_by: Option<Vec<String>>,
    pub(super) inhibit: Option<Vec<String>>,
    pub(super) summary: Template,
    pub(super) channels: Vec<Channel>,
    /// A hash of all that the state of its series depends on.
    pub(super) definition: u64,
}

/// Which values breach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// Those above.
    Above(f64),
    /// Those below.
    Below(f64),
    /// Those below the first and those above the second.
    Outside(f64, f64),
    /// None for so many microseconds.
    Absent(i64),
}

/// At least `at_least` of the last `of` evaluations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) of: usize,
    pub(super) at_least: usize,
}

/// At least `count` firings within `period` microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Criteria {
    pub(super) count: usize,
    pub(super) period: i64,
}

/// Where messages go, and how often at most.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// The shortest time between two messages about firing for one group, in microseconds.
    pub(super) cooldown: i64,
    pub(super) kind: ChannelKind,
}

#[derive(Clone, Debug)]
pub(super) enum ChannelKind {
    Log,
    Webhook(HttpSpec),
    Slack(SlackSpec),
    Email(EmailSpec),
    Post { url: Secret, headers: BTreeMap<String, Secret>, body: JsonTemplate },
}

impl ChannelKind {
    /// The word for it in files.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Webhook(_) => "webhook",
            Self::Slack(_) => "slack",
            Self::Email(_) => "email",
            Self::Post { .. } => "post",
        }
    }
}

/// What one value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is past the threshold.
    Breach,
    /// It is between the threshold and where the alert clears.
    Between,
    /// It is where the alert clears.
    Clear,
}

impl Alert {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The metric it looks at.
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Whether any of its messages are mail.
    pub fn mails(&self) -> bool {
        self.channels.iter().any(|channel| matches!(channel.kind, ChannelKind::Email(_)))
    }

    /// Which values breach.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// What a value says; it is no NaN.
    pub(super) fn verdict(&self, value: f64) -> Verdict {
        let breach = match self.condition {
            Condition::Above(threshold) => value > threshold,
            Condition::Below(threshold) => value < threshold,
            Condition::Outside(low, high) => value < low || value > high,
            Condition::Absent(_) => false,
        };
        match breach {
            true => Verdict::Breach,
            false if self.clear.0 <= value && value <= self.clear.1 => Verdict::Clear,
            false => Verdict::Between,
        }
    }

    /// The worse of two values: the one further past the threshold.
    pub(super) fn worse(&self, one: f64, other: f64) -> f64 {
        let distance = |value: f64| match self.condition {
            Condition::Above(_) | Condition::Absent(_) => value,
            Condition::Below(_) => -value,
            Condition::Outside(low, high) => (low - value).max(value - high),
        };
        if distance(other) > distance(one) { other } else { one }
    }

    /// The threshold as text.
    pub(super) fn threshold(&self) -> String {
        use super::text::number;
        match self.condition {
            Condition::Above(threshold) | Condition::Below(threshold) => number(threshold),
            Condition::Outside(low, high) => format!("{}..{}", number(low), number(high)),
            Condition::Absent(time) => format!("{}s", number(seconds(time))),
        }
    }

    /// The labels that a message of the series is grouped by: all of them without `group_by`.
    pub(super) fn group(&self, labels: &Labels) -> Labels {
        let Some(names) = &self.group_by else { return labels.clone() };
        names
            .iter()
            .filter_map(|name| labels.get_key_value(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The labels that tell its series apart. Absence is that of a value with the labels that the alert names, whatever
    /// other labels come with it.
    pub(super) fn series(&self, labels: &Labels) -> Option<Labels> {
        let Condition::Absent(_) = self.condition else { return None };
        let named = |name: &String| self.matchers.0.contains_key(name);
        Some(
            labels
                .iter()
                .filter(|(name, _)| named(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }

    /// The one series of an alert about absence that names every label: it is there before its first value.
    pub(super) fn only_series(&self) -> Option<Labels> {
        let Condition::Absent(_) = self.condition else { return None };
        self.matchers.0.iter().map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a time of centuries may lose its microseconds")]
pub(super) fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// Labels that must be there, and their values; `None` is any value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matchers(pub(super) BTreeMap<String, Option<String>>);

impl Matchers {
    /// Matchers as files write them: `*` is any value.
    ///
    /// ```
    /// use millstream_monitor::alert::Matchers;
    ///
    /// let matchers = Matchers::new([("graph", "loan"), ("column", "*")]);
    /// let labels = [("graph", "loan"), ("column", "age")];
    /// assert!(matchers.matches(&labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()));
    /// assert!(!matchers.matches(&Default::default()));
    /// ```
    pub fn new<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let value = |value: String| (value != "*").then_some(value);
        Self(pairs.into_iter().map(|(name, wanted)| (name.into(), value(wanted.into()))).collect())
    }

    /// Whether labels have all that is asked.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(name, wanted)| match (labels.get(name), wanted) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(value), Some(wanted)) => value == wanted,
        })
    }

    /// The pairs, as [`Matchers::new`] takes them.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or("*")))
    }

    /// The labels that must have one value, and that value.
    pub(super) fn exact(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }
}
