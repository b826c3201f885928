//! Who is told what at a tick.

use std::{collections::BTreeMap, sync::Arc};

use super::{Activation, Alerts, Event, Labels, Notification, Status, notification::full_labels, state::Key};

/// Events of one message; more are counted in it.
const MAX_EVENTS: usize = 100;

/// A channel of an alert, both by their places, and a group.
type To = (usize, usize, Labels);
type Messages = BTreeMap<To, Vec<Event>>;

impl Alerts {
    /// One message for each channel and group that has something to be told.
    pub(super) fn tell(&mut self, now: i64) -> Vec<Notification> {
        let mut messages = Messages::new();
        for key in std::mem::take(&mut self.due) {
            if self.collect(&key, now, &mut messages) {
                self.due.insert(key);
            }
        }
        messages.into_iter().map(|(to, events)| self.notification(to, events, now)).collect()
    }

    /// Adds what a series has to tell to the messages; answers whether something remains to be told later.
    fn collect(&mut self, (place, labels): &Key, now: i64, messages: &mut Messages) -> bool {
        let rule = &mut self.rules[*place];
        let Some(series) = rule.series.get_mut(labels) else { return false };
        let alert = &*rule.alert;
        let full = full_labels(alert, labels);
        let quiet = self.silences.silence(&full, now) || self.inhibitors.inhibit(alert.severity, labels);
        let ended = series.ended.take();
        let mut remains = false;
        for (index, channel) in alert.channels.iter().enumerate() {
            let (bit, to) = (1 << index, (*place, index, alert.group(labels)));
            let may = !quiet && !cools(rule.sent.get(&(index, to.2.clone())), channel.cooldown, now);
            let told = series.told & bit != 0;
            let mut add = |status, activation: &Activation| {
                let event = Event { status, labels: Arc::clone(labels), activation: activation.clone() };
                messages.entry(to.clone()).or_default().push(event);
            };
            if let Some(ended) = ended.as_ref().filter(|ended| told || (!ended.seen && may)) {
                add(Status::Resolved, ended);
            }
            if ended.is_some() {
                series.told &= !bit;
            }
            if let Some(activation) = series.activation.as_ref().filter(|_| series.told & bit == 0) {
                if may {
                    add(Status::Firing, activation);
                    series.told |= bit;
                } else {
                    remains = true;
                }
            }
        }
        if let Some(activation) = &mut series.activation {
            activation.seen = true;
        }
        remains
    }

    fn notification(
        &mut self,
        (place, channel, group): To,
        mut events: Vec<Event>,
        now: i64,
    ) -> Notification {
        let rule = &mut self.rules[place];
        let cooldown = rule.alert.channels[channel].cooldown;
        // That something has ended starts no cooldown, unless it was never told that it began.
        let news = events.iter().any(|event| event.status == Status::Firing || !event.activation.seen);
        if news && cooldown > 0 {
            rule.sent.retain(|(channel, _), at| cools(Some(at), rule.alert.channels[*channel].cooldown, now));
            rule.sent.insert((channel, group.clone()), now);
        }
        events.sort_by_key(|event| event.status);
        let truncated = events.len().saturating_sub(MAX_EVENTS);
        // What fires matters more than what has ended.
        events.drain(..truncated);
        let (alert, project) = (Arc::clone(&rule.alert), Arc::clone(&self.project));
        Notification { alert, project, channel, group, events, truncated, at: now }
    }
}

/// Whether a message sent at a time keeps another back. One from the far future is that of a clock that has gone back.
fn cools(sent: Option<&i64>, cooldown: i64, now: i64) -> bool {
    sent.is_some_and(|&sent| now < sent.saturating_add(cooldown) && sent <= now.saturating_add(cooldown))
}
