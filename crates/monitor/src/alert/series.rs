//! The state of one alert for one set of labels.

use std::{collections::VecDeque, sync::Arc};

use serde_json::Value;

use super::{
    Alert, Reset,
    rule::{Condition, Verdict, seconds},
};

/// What an alert says about one set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing breaches.
    Inactive,
    /// Something breaches, but `hold` or `criteria` is not met yet.
    Pending,
    /// It fires.
    Active,
    /// Its values have cleared, but somebody must reset it.
    Waiting,
}

/// One time that an alert was active.
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    /// The time of the observation that made it active.
    pub started: i64,
    /// The value of that observation.
    pub value: f64,
    /// The value furthest past the threshold.
    pub peak: f64,
    /// The newest value.
    pub last: f64,
    /// Firings, those that made it active included.
    pub firings: u64,
    /// When and how it ended.
    pub ended: Option<(i64, Ending)>,
    /// What came with the observation that made it active.
    pub evidence: Option<Arc<Value>>,
    /// Whether a tick has seen it active. What began and ended between two ticks is told once, when it is over.
    pub(super) seen: bool,
}

/// How an activation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its values cleared.
    Cleared,
    /// Somebody reset it.
    Reset,
}

/// What became of an observation.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is older than all that is remembered.
    Late,
    /// There is one of the same time.
    Repeated,
    /// It was evaluated; the activation that it ended, if it did.
    Evaluated(Option<Activation>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    /// The last evaluations, by the times of their observations; no two have the same.
    pub(super) window: VecDeque<(i64, Verdict)>,
    /// The last firings within the period, in the same order.
    pub(super) firings: VecDeque<i64>,
    /// Observations at this time or before are over and done with.
    pub(super) floor: Option<i64>,
    /// The newest observation; before the first, when the series began.
    pub(super) newest: i64,
    /// When it was last worth keeping: the later of its newest observation and the tick before that came.
    pub(super) touched: i64,
    /// Whether its absence has been counted already.
    pub(super) missed: bool,
    /// When a tick must look at it next.
    pub(super) deadline: i64,
    pub(super) state: State,
    /// The time of the observation that brought it into this state.
    pub(super) since: i64,
    pub(super) activation: Option<Activation>,
    /// The last activation that is over, until a tick has told it.
    pub(super) ended: Option<Activation>,
    /// The channels that believe it fires, one bit each.
    pub(super) told: u16,
}

impl Series {
    pub(super) fn new(at: i64) -> Self {
        Self {
            window: VecDeque::new(),
            firings: VecDeque::new(),
            floor: None,
            newest: at,
            touched: at,
            missed: false,
            deadline: i64::MAX,
            state: State::Inactive,
            since: at,
            activation: None,
            ended: None,
            told: 0,
        }
    }

    /// Evaluates a value, at the time of the last tick; `evidence` is asked for only when it makes the alert active.
    pub(super) fn observe(
        &mut self,
        alert: &Alert,
        (at, value): (i64, f64),
        now: i64,
        evidence: impl FnOnce() -> Option<Arc<Value>>,
    ) -> Taken {
        if self.floor.is_some_and(|floor| at <= floor) {
            return Taken::Late;
        }
        if let Condition::Absent(time) = alert.condition {
            return self.present(alert, at, time, now);
        }
        let verdict = alert.verdict(value);
        if let Err(refused) = self.insert(at, verdict, alert.hold.of) {
            return refused;
        }
        self.newest = self.window.back().map_or(at, |&(newest, _)| newest);
        let breaches = self.count(|verdict| verdict == Verdict::Breach);
        let fires = verdict == Verdict::Breach && breaches >= alert.hold.at_least;
        if fires {
            self.fire(at, alert);
        }
        self.forget_firings(alert, self.newest);
        if let Some(activation) = &mut self.activation {
            activation.peak = alert.worse(activation.peak, value);
            if at == self.newest {
                activation.last = value;
            }
        } else if fires && self.firings.len() >= alert.criteria.count {
            self.activate(at, value, evidence());
            return Taken::Evaluated(None);
        }
        Taken::Evaluated(self.settle(alert, fires, breaches))
    }

    /// The state after an evaluation that did not make it active; the activation, if that is over.
    fn settle(&mut self, alert: &Alert, fires: bool, breaches: usize) -> Option<Activation> {
        if self.activation.is_none() {
            let pending = breaches > 0 || !self.firings.is_empty();
            self.enter(if pending { State::Pending } else { State::Inactive }, self.newest);
            return None;
        }
        let clears = self.count(|verdict| verdict != Verdict::Clear) < alert.hold.at_least;
        match (clears, alert.reset) {
            (true, Reset::Auto) => return self.end(self.newest, Ending::Cleared),
            (true, Reset::Manual) => self.enter(State::Waiting, self.newest),
            (false, _) if fires => self.enter(State::Active, self.newest),
            (false, _) => {}
        }
        None
    }

    /// Puts an evaluation where its time belongs.
    fn insert(&mut self, at: i64, verdict: Verdict, of: usize) -> Result<(), Taken> {
        let mut place = self.window.partition_point(|&(other, _)| other < at);
        if self.window.get(place).is_some_and(|&(other, _)| other == at) {
            return Err(Taken::Repeated);
        }
        if self.window.len() >= of {
            if place == 0 {
                return Err(Taken::Late);
            }
            self.window.pop_front();
            place -= 1;
        }
        self.window.insert(place, (at, verdict));
        Ok(())
    }

    fn count(&self, wanted: impl Fn(Verdict) -> bool) -> usize {
        self.window.iter().filter(|&&(_, verdict)| wanted(verdict)).count()
    }

    /// Counts a firing, also while the alert is active; of the older ones only as many as `criteria` asks for are kept.
    fn fire(&mut self, at: i64, alert: &Alert) {
        if let Some(activation) = &mut self.activation {
            activation.firings = activation.firings.saturating_add(1);
        }
        let place = self.firings.partition_point(|&other| other < at);
        self.firings.insert(place, at);
        if self.firings.len() > alert.criteria.count {
            self.firings.pop_front();
        }
    }

    /// Drops the firings that are a period or more older than a time.
    fn forget_firings(&mut self, alert: &Alert, than: i64) {
        // With a count of one the firing at hand is all that counts, however late it is.
        if alert.criteria.count == 1 {
            return;
        }
        let over = than.saturating_sub(alert.criteria.period);
        while self.firings.front().is_some_and(|&at| at <= over) {
            self.firings.pop_front();
        }
    }

    fn activate(&mut self, at: i64, value: f64, evidence: Option<Arc<Value>>) {
        let firings = u64::try_from(self.firings.len()).unwrap_or(u64::MAX);
        self.activation = Some(Activation {
            started: at,
            value,
            peak: value,
            last: value,
            firings,
            ended: None,
            evidence,
            seen: false,
        });
        self.enter(State::Active, at);
    }

    fn end(&mut self, at: i64, how: Ending) -> Option<Activation> {
        self.firings.clear();
        self.enter(State::Inactive, at);
        let mut activation = self.activation.take()?;
        // A late observation can start an activation after the time of the one that ends it.
        activation.ended = Some((at.max(activation.started), how));
        self.ended = Some(activation.clone());
        Some(activation)
    }

    fn enter(&mut self, state: State, at: i64) {
        if self.state != state {
            (self.state, self.since) = (state, at);
        }
    }

    /// Starts again: what was observed until now counts no more.
    pub(super) fn reset(&mut self, alert: &Alert, now: i64) -> Option<Activation> {
        let activation = self.end(now, Ending::Reset);
        self.window.clear();
        self.floor = Some(self.newest);
        // What always has to be there is waited for again; anything else may have gone for good.
        if alert.only_series().is_some() {
            (self.newest, self.missed) = (now, false);
        }
        activation
    }

    /// A value came, which ends an absence unless it is itself too old.
    fn present(&mut self, alert: &Alert, at: i64, time: i64, now: i64) -> Taken {
        if at <= self.newest {
            return if at == self.newest { Taken::Repeated } else { Taken::Late };
        }
        let gap = seconds(at.saturating_sub(self.newest));
        self.newest = at;
        if !self.missed || now.saturating_sub(at) >= time {
            return Taken::Evaluated(None);
        }
        self.missed = false;
        self.forget_firings(alert, at);
        let Some(activation) = &mut self.activation else {
            self.enter(if self.firings.is_empty() { State::Inactive } else { State::Pending }, at);
            return Taken::Evaluated(None);
        };
        activation.last = gap;
        activation.peak = activation.peak.max(gap);
        if alert.reset == Reset::Manual {
            self.enter(State::Waiting, at);
            return Taken::Evaluated(None);
        }
        Taken::Evaluated(self.end(at, Ending::Cleared))
    }

    /// No value came until `due`.
    pub(super) fn miss(&mut self, alert: &Alert, due: i64, now: i64) {
        self.missed = true;
        self.fire(due, alert);
        self.forget_firings(alert, due);
        if self.activation.is_some() {
            self.enter(State::Active, due);
        } else if self.firings.len() >= alert.criteria.count {
            self.activate(due, seconds(now.saturating_sub(self.newest)), None);
        } else {
            self.enter(State::Pending, due);
        }
    }
}
