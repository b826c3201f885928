//! What templates and JSON bodies say of a notification.

use serde_json::{Map, Value, json};

use super::{
    Condition, Ending, Event, Labels, Notification, Status,
    notification::full_labels,
    rule::seconds,
    template::Placed,
    text::{self, number, rfc3339},
};

/// The end of what has not ended, as Alertmanager writes it.
const NO_END: &str = "0001-01-01T00:00:00Z";

impl Notification {
    /// The body that Alertmanager sends to its webhooks (version 4). `external_url` leads to who sends it.
    ///
    /// Beside Alertmanager's own keys an alert has `evidence`, and its value, peak and firings as annotations.
    pub fn webhook_body(&self, external_url: &str) -> Value {
        let labels: Vec<Labels> =
            self.events.iter().map(|event| full_labels(&self.alert, &event.labels)).collect();
        let annotations: Vec<Labels> = self.events.iter().map(|event| self.annotations(event)).collect();
        let group: Labels = std::iter::once(("alertname".to_owned(), self.alert.name.clone()))
            .chain(self.group.iter().map(|(name, value)| (name.clone(), value.clone())))
            .collect();
        let key: Vec<String> = group.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        json!({
            "version": "4",
            "groupKey": format!("{{}}:{{{}}}", key.join(", ")),
            "truncatedAlerts": self.truncated,
            "status": self.status().word(),
            "receiver": format!("{}/{}", self.alert.name, self.channel),
            "groupLabels": group,
            "commonLabels": common(&labels),
            "commonAnnotations": common(&annotations),
            "externalURL": external_url,
            "alerts": self.alerts(),
        })
    }

    /// The list `alerts` of the webhook.
    fn alerts(&self) -> Vec<Value> {
        let alert = |event: &Event| {
            let labels = full_labels(&self.alert, &event.labels);
            let texts = labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
            let mut alert = json!({
                "status": event.status.word(),
                "fingerprint": format!("{:016x}", text::hash(texts)),
                "labels": labels,
                "annotations": self.annotations(event),
                "startsAt": rfc3339(event.activation.started),
                "endsAt": event.activation.ended.map_or_else(|| NO_END.to_owned(), |(at, _)| rfc3339(at)),
                "generatorURL": "",
            });
            if let (Some(map), Some(evidence)) = (alert.as_object_mut(), event.evidence()) {
                map.insert("evidence".to_owned(), evidence.clone());
            }
            alert
        };
        self.events.iter().map(alert).collect()
    }

    fn annotations(&self, event: &Event) -> Labels {
        let mut annotations = vec![
            ("summary", self.summary(event)),
            ("value", number(event.activation.last)),
            ("peak", number(event.activation.peak)),
            ("threshold", self.alert.threshold()),
            ("firings", event.activation.firings.to_string()),
        ];
        annotations.extend(self.alert.description.clone().map(|text| ("description", text)));
        annotations.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }

    /// The summary of one event.
    pub fn summary(&self, event: &Event) -> String {
        self.alert.summary.text(&|name| self.placed(name, event))
    }

    /// What a placeholder of a body stands for: that of the event which fires, and of the whole message.
    pub(super) fn placed_in_body(&self, name: &str) -> Placed {
        let Some(event) = self.events.last() else { return Placed::Text(String::new()) };
        match name {
            "alerts" => Placed::Json(Value::Array(self.alerts())),
            "evidence" => Placed::Json(event.evidence().cloned().unwrap_or_default()),
            "group" => Placed::Json(map(&self.group)),
            "id" => Placed::Text(self.id()),
            "labels" => Placed::Json(map(&event.labels)),
            "summary" => Placed::Text(self.summary(event)),
            "status" => Placed::Text(self.status().word().to_owned()),
            _ => self.placed(name, event),
        }
    }

    /// What a placeholder stands for. The alert's own names win over labels.
    fn placed(&self, name: &str, event: &Event) -> Placed {
        let activation = &event.activation;
        let text = match name {
            "count" => return Placed::Json(activation.firings.into()),
            "peak" => return Placed::Number(activation.peak),
            "value" => return Placed::Number(activation.last),
            "threshold" => match self.alert.condition {
                Condition::Above(threshold) | Condition::Below(threshold) => {
                    return Placed::Number(threshold);
                }
                Condition::Absent(time) => return Placed::Number(seconds(time)),
                Condition::Outside(..) => self.alert.threshold(),
            },
            "description" => self.alert.description.clone().unwrap_or_default(),
            "started" => rfc3339(activation.started),
            "ended" => activation.ended.map(|(at, _)| rfc3339(at)).unwrap_or_default(),
            "entity" => entity(&event.labels),
            "metric" => self.alert.metric.clone(),
            "name" => self.alert.name.clone(),
            "project" => self.project.to_string(),
            "severity" => self.alert.severity.word().to_owned(),
            "status" => event.status.word().to_owned(),
            label => event.labels.get(label).cloned().unwrap_or_default(),
        };
        Placed::Text(text)
    }
}

/// The labels of a series in one text: `column=income, graph=loan`.
pub(super) fn entity(labels: &Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

/// How an event came about, for people.
pub(super) fn told(event: &Event) -> String {
    let activation = &event.activation;
    match (event.status, activation.ended) {
        (Status::Resolved, Some((at, how))) => {
            let how = if how == Ending::Reset { "reset" } else { "cleared" };
            format!("since {}, {how} {}", rfc3339(activation.started), rfc3339(at))
        }
        _ => format!("since {}", rfc3339(activation.started)),
    }
}

fn map(labels: &Labels) -> Value {
    labels
        .iter()
        .map(|(name, value)| (name.clone(), Value::String(value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

/// What all have, with one value.
fn common(all: &[Labels]) -> Labels {
    let Some((first, others)) = all.split_first() else { return Labels::new() };
    let everywhere =
        |(name, value): &(&String, &String)| others.iter().all(|other| other.get(*name) == Some(value));
    first.iter().filter(everywhere).map(|(name, value)| (name.clone(), value.clone())).collect()
}
