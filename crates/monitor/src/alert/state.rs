//! The alerts of a project, running.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use super::{
    Activation, Alert, Condition, Labels, NewSilence, Notification, Silence, SilenceError, State,
    evidence::{held, keep},
    index::Index,
    series::{Series, Taken},
    silence::{Inhibitors, Silences},
};

/// Series of one alert, and of all. One too many is refused and counted; see [`Counts::refused_series`].
pub(super) const MAX_SERIES: usize = 10_000;
pub(super) const MAX_ALL_SERIES: usize = 200_000;
/// Labels of a sample, and the bytes of their names and values. A sample with more is refused and counted.
const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 4096;
/// Activations of one alert that are remembered; the oldest goes first.
pub(super) const MAX_HISTORY: usize = 50;
/// A series that does not fire and has had no value for a week is forgotten.
const FORGET: i64 = 7 * 24 * 3600 * 1_000_000;
/// How far ahead of the last tick an observation may be. One of a wrong clock would make all later ones late.
const MAX_AHEAD: i64 = 600 * 1_000_000;

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric.
    pub metric: String,
    /// Its labels.
    pub labels: Labels,
    /// The value; NaN is no value.
    pub value: f64,
    /// The time it is of.
    pub at: i64,
    /// What shows how the value came about. It goes out with the message if the value makes an alert active.
    pub evidence: Option<Value>,
}

/// The alerts of a project and the state of each of their series.
///
/// [`tick`](Alerts::tick) it at least every few minutes; it costs what there is to tell, not what there is.
#[derive(Clone, Debug)]
pub struct Alerts {
    pub(super) project: Arc<str>,
    pub(super) rules: Vec<Rule>,
    index: Index,
    /// Series that have something to tell, in the order in which they tell it.
    pub(super) due: BTreeSet<Key>,
    /// When a tick must look at each series.
    deadlines: BTreeSet<(i64, Key)>,
    pub(super) inhibitors: Inhibitors,
    pub(super) silences: Silences,
    pub(super) counts: Counts,
    /// The last tick.
    pub(super) now: Option<i64>,
    /// Whether what is waited for has been made.
    pub(super) expecting: bool,
    pub(super) all_series: usize,
    pub(super) evidence_bytes: usize,
}

/// An alert by its place, and the labels of one of its series.
pub(super) type Key = (usize, Arc<Labels>);

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) alert: Arc<Alert>,
    pub(super) series: HashMap<Arc<Labels>, Series>,
    pub(super) history: VecDeque<(Arc<Labels>, Activation)>,
    /// When a channel was last told of a firing of a group; kept as long as the cooldown.
    pub(super) sent: BTreeMap<(usize, Labels), i64>,
}

/// What [`Alerts`] did since it was made. What is refused is in here and nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Alerts looked at, for all samples.
    pub candidates: u64,
    /// Values evaluated.
    pub evaluated: u64,
    /// Values older than all that is remembered of their series.
    pub late: u64,
    /// Values of a time that there was one of already.
    pub repeated: u64,
    /// Samples more than ten minutes ahead of the last tick.
    pub ahead: u64,
    /// Samples whose value is NaN.
    pub no_number: u64,
    /// Samples with more than 32 labels, or more than 4096 bytes of them.
    pub refused_labels: u64,
    /// Values of series that there was no room for.
    pub refused_series: u64,
    /// Evidence that was too large, or that there was no room for.
    pub evidence_left_out: u64,
}

/// A series of an alert, to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct SeriesView<'a> {
    /// The alert.
    pub alert: &'a Alert,
    /// The labels of the series.
    pub labels: &'a Labels,
    /// Its state.
    pub state: State,
    /// The time of the observation that brought it into this state.
    pub since: i64,
    /// What there is of its activation while it is active or waiting.
    pub activation: Option<&'a Activation>,
}

impl Alerts {
    /// Alerts of which nothing has been observed yet.
    pub fn new(project: &str, alerts: impl IntoIterator<Item = Alert>) -> Self {
        let rule = |alert| Rule {
            alert: Arc::new(alert),
            series: HashMap::new(),
            history: VecDeque::new(),
            sent: BTreeMap::new(),
        };
        let rules: Vec<Rule> = alerts.into_iter().map(rule).collect();
        let all = || rules.iter().map(|rule| &*rule.alert);
        Self {
            project: project.into(),
            index: Index::new(all()),
            inhibitors: Inhibitors::new(all()),
            rules,
            due: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            silences: Silences::default(),
            counts: Counts::default(),
            now: None,
            expecting: false,
            all_series: 0,
            evidence_bytes: 0,
        }
    }

    /// Takes a value in. What it leads to is told by the next [`tick`](Alerts::tick), so that the order of the values
    /// within a tick does not matter to groups and inhibition.
    pub fn observe(&mut self, sample: &Sample) {
        if sample.value.is_nan() {
            return increase(&mut self.counts.no_number);
        }
        if self.now.is_some_and(|now| sample.at > now.saturating_add(MAX_AHEAD)) {
            return increase(&mut self.counts.ahead);
        }
        let bytes: usize = sample.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        if sample.labels.len() > MAX_LABELS || bytes > MAX_LABEL_BYTES {
            return increase(&mut self.counts.refused_labels);
        }
        for place in self.index.candidates(&sample.metric, &sample.labels) {
            increase(&mut self.counts.candidates);
            if self.rules[place].alert.matchers.matches(&sample.labels) {
                self.evaluate(place, sample);
            }
        }
    }

    fn evaluate(&mut self, place: usize, sample: &Sample) {
        let alert = Arc::clone(&self.rules[place].alert);
        let own = alert.series(&sample.labels);
        let labels = own.as_ref().unwrap_or(&sample.labels);
        let now = self.now.unwrap_or(sample.at);
        let Some(key) = self.key(place, labels, sample.at.saturating_sub(1)) else {
            return increase(&mut self.counts.refused_series);
        };
        let Some(series) = self.rules[place].series.get_mut(&key.1) else { return };
        series.touched = series.touched.max(sample.at.max(now));
        let (before, missed) = (series.state, series.missed);
        let (counts, held) = (&mut self.counts, &mut self.evidence_bytes);
        let evidence = || keep(sample.evidence.as_ref()?, held, counts);
        let taken = series.observe(&alert, (sample.at, sample.value), now, evidence);
        let (after, found) = (series.state, missed && !series.missed);
        match taken {
            Taken::Late => increase(&mut self.counts.late),
            Taken::Repeated => increase(&mut self.counts.repeated),
            Taken::Evaluated(over) => {
                increase(&mut self.counts.evaluated);
                self.moved(&key, before, after, over);
            }
        }
        if found {
            self.schedule(&key);
        }
    }

    /// The key of a series, which is made if there is room.
    fn key(&mut self, place: usize, labels: &Labels, began: i64) -> Option<Key> {
        let rule = &mut self.rules[place];
        if let Some((labels, _)) = rule.series.get_key_value(labels) {
            return Some((place, Arc::clone(labels)));
        }
        if rule.series.len() >= MAX_SERIES || self.all_series >= MAX_ALL_SERIES {
            return None;
        }
        let labels = Arc::new(labels.clone());
        rule.series.insert(Arc::clone(&labels), Series::new(began));
        self.all_series += 1;
        let key = (place, labels);
        self.schedule(&key);
        Some(key)
    }

    /// Keeps in step with a series that has gone from one state into another, and with an activation that is over.
    fn moved(&mut self, key: &Key, before: State, after: State, over: Option<Activation>) {
        let rule = &mut self.rules[key.0];
        if (before == State::Active) != (after == State::Active) {
            self.inhibitors.count(&rule.alert, &key.1, after == State::Active);
        }
        let begins = after == State::Active && matches!(before, State::Inactive | State::Pending);
        let tells = begins || over.is_some();
        if let Some(activation) = over {
            rule.history.push_back((Arc::clone(&key.1), activation));
            if rule.history.len() > MAX_HISTORY {
                let gone = rule.history.pop_front();
                self.evidence_bytes =
                    self.evidence_bytes.saturating_sub(gone.map_or(0, |(_, gone)| held(&gone)));
            }
        }
        if tells && !rule.alert.channels.is_empty() {
            self.due.insert(key.clone());
        }
    }

    /// Sets when a tick must look at a series next.
    fn schedule(&mut self, key: &Key) {
        let rule = &mut self.rules[key.0];
        let Some(series) = rule.series.get_mut(&key.1) else { return };
        self.deadlines.remove(&(series.deadline, key.clone()));
        series.deadline = deadline(&rule.alert, series);
        self.deadlines.insert((series.deadline, key.clone()));
    }

    /// Passes the time and answers what is to be sent. `now` should not go back; if it does, cooldowns may end early.
    pub fn tick(&mut self, now: i64) -> Vec<Notification> {
        self.now = Some(now);
        self.expect_values(now);
        self.pass_deadlines(now);
        self.silences.expire(now);
        self.tell(now)
    }

    /// An absence can begin before the first value; what is waited for is there from the first tick on.
    fn expect_values(&mut self, now: i64) {
        if std::mem::replace(&mut self.expecting, true) {
            return;
        }
        for place in 0..self.rules.len() {
            let expected = self.rules[place].alert.only_series();
            if expected.is_some_and(|labels| self.key(place, &labels, now).is_none()) {
                increase(&mut self.counts.refused_series);
            }
        }
    }

    fn pass_deadlines(&mut self, now: i64) {
        // At the end of time a deadline cannot be put off any more, so each is looked at once.
        let mut passed = Vec::new();
        while self.deadlines.first().is_some_and(|(at, _)| *at <= now) {
            passed.extend(self.deadlines.pop_first());
        }
        for (_, key) in passed {
            let rule = &mut self.rules[key.0];
            let Some(series) = rule.series.get_mut(&key.1) else { continue };
            // Values have come since it was set.
            let due = deadline(&rule.alert, series);
            if due > now {
                self.schedule(&key);
                continue;
            }
            let before = series.state;
            match rule.alert.condition {
                Condition::Absent(_) if !series.missed => {
                    series.miss(&rule.alert, due, now);
                    let after = series.state;
                    self.moved(&key, before, after, None);
                }
                _ if series.activation.is_none() && rule.alert.only_series().is_none() => {
                    rule.series.remove(&key.1);
                    self.all_series -= 1;
                    continue;
                }
                // What fires, and what must be there, is never forgotten; look again in a week.
                _ => series.touched = now,
            }
            self.schedule(&key);
        }
    }

    /// Resets the series of an alert that have these labels, of all of them with `None`: what was observed until now
    /// counts no more. Answers how many were active or waiting.
    pub fn reset(&mut self, alert: &str, labels: Option<&Labels>, now: i64) -> usize {
        let Some(place) = self.rules.iter().position(|rule| rule.alert.name == alert) else { return 0 };
        let meant = |key: &&Arc<Labels>| labels.is_none_or(|labels| labels == &***key);
        let mut keys: Vec<Key> =
            self.rules[place].series.keys().filter(meant).map(|labels| (place, Arc::clone(labels))).collect();
        // The history must not depend on how the map is laid out.
        keys.sort();
        let mut ended = 0;
        for key in keys {
            let rule = &mut self.rules[place];
            let Some(series) = rule.series.get_mut(&key.1) else { continue };
            let before = series.state;
            let over = series.reset(&rule.alert, now);
            let after = series.state;
            ended += usize::from(over.is_some());
            self.moved(&key, before, after, over);
            self.schedule(&key);
        }
        ended
    }

    /// Keeps matching alerts from sending for a time; answers the number of the silence.
    ///
    /// # Errors
    /// When it is empty, too large, or one too many.
    pub fn silence(&mut self, silence: NewSilence) -> Result<u64, SilenceError> {
        self.silences.add(silence)
    }

    /// Ends a silence; answers whether there was one.
    pub fn unsilence(&mut self, id: u64) -> bool {
        self.silences.list.remove(&id).is_some()
    }

    /// The silences that are not over, the oldest first.
    pub fn silences(&self) -> impl Iterator<Item = Silence> {
        self.silences.list.iter().map(|(&id, silence)| Silence { id, silence: silence.clone() })
    }

    /// The alerts, in the order in which they were given.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.rules.iter().map(|rule| &*rule.alert)
    }

    /// Every series of every alert, in the order of the alerts and of the labels.
    pub fn series(&self) -> impl Iterator<Item = SeriesView<'_>> {
        self.rules.iter().flat_map(|rule| {
            rule.sorted().into_iter().map(|(labels, series)| SeriesView {
                alert: &rule.alert,
                labels,
                state: series.state,
                since: series.since,
                activation: series.activation.as_ref(),
            })
        })
    }

    /// The activations of an alert that are over, the oldest first: the last fifty.
    pub fn history(&self, alert: &str) -> impl Iterator<Item = (&Labels, &Activation)> {
        let rule = self.rules.iter().find(|rule| rule.alert.name == alert);
        rule.into_iter().flat_map(|rule| &rule.history).map(|(labels, activation)| (&**labels, activation))
    }

    /// What it has done and refused.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Works out again what follows from the series and the history, after they have been read.
    pub(super) fn rebuild(&mut self) {
        (self.due, self.deadlines) = (BTreeSet::new(), BTreeSet::new());
        (self.all_series, self.evidence_bytes) = (0, 0);
        self.inhibitors = Inhibitors::new(self.rules.iter().map(|rule| &*rule.alert));
        for (place, rule) in self.rules.iter_mut().enumerate() {
            self.evidence_bytes += rule.history.iter().map(|(_, activation)| held(activation)).sum::<usize>();
            let all = (1_u32 << rule.alert.channels.len()) - 1;
            for (labels, series) in &mut rule.series {
                let key = (place, Arc::clone(labels));
                self.all_series += 1;
                self.evidence_bytes += series.activation.as_ref().map_or(0, held);
                series.deadline = deadline(&rule.alert, series);
                self.deadlines.insert((series.deadline, key.clone()));
                if series.state == State::Active {
                    self.inhibitors.count(&rule.alert, labels, true);
                }
                let untold = series.activation.is_some() && u32::from(series.told) != all;
                if untold || series.ended.is_some() {
                    self.due.insert(key);
                }
            }
        }
    }
}

impl Rule {
    /// The series in the order of their labels.
    pub(super) fn sorted(&self) -> Vec<(&Arc<Labels>, &Series)> {
        let mut all: Vec<_> = self.series.iter().collect();
        all.sort_by_key(|&(labels, _)| labels);
        all
    }
}

pub(super) fn increase(count: &mut u64) {
    *count = count.saturating_add(1);
}

fn deadline(alert: &Alert, series: &Series) -> i64 {
    match alert.condition {
        Condition::Absent(time) if !series.missed => series.newest.saturating_add(time),
        _ => series.touched.saturating_add(FORGET),
    }
}
