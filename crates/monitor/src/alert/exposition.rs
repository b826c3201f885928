//! Alerts as Prometheus shows its own.

use super::{Alerts, Labels, State, notification::full_labels, rule::seconds};

/// One sample of a metric, for whoever writes the exposition format.
#[derive(Clone, Debug, PartialEq)]
pub struct Exposed {
    /// The metric: `ALERTS` or `ALERTS_FOR_STATE`.
    pub name: &'static str,
    /// Its labels; their names are valid in the exposition format, their values still to be escaped.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

impl Alerts {
    /// `ALERTS{alertname, alertstate, severity, ..}` with the value 1 for each series that is pending or firing, and
    /// `ALERTS_FOR_STATE` with the second since 1970 at which it became so. One that waits for its reset is firing.
    ///
    /// ```
    /// use millstream_monitor::alert::{check, Alerts, Sample};
    ///
    /// let specs = serde_json::from_str(r#"{"slow": {"when": {"metric": "latency", "above": 0.1}}}"#)?;
    /// let mut alerts = Alerts::new("bank", check(&specs)?);
    /// let sample = |value| Sample {
    ///     metric: "latency".to_owned(), labels: Default::default(), value, at: 5_000_000, evidence: None,
    /// };
    /// alerts.observe(&sample(0.3));
    ///
    /// let exposed = alerts.exposed();
    /// assert_eq!((exposed[0].name, exposed[0].value), ("ALERTS", 1.0));
    /// assert_eq!(exposed[0].labels["alertstate"], "firing");
    /// assert_eq!((exposed[1].name, exposed[1].value), ("ALERTS_FOR_STATE", 5.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exposed(&self) -> Vec<Exposed> {
        let mut exposed = Vec::new();
        for series in self.series() {
            let state = match series.state {
                State::Inactive => continue,
                State::Pending => "pending",
                State::Active | State::Waiting => "firing",
            };
            let labels = named(full_labels(series.alert, series.labels));
            let since = series.activation.map_or(series.since, |activation| activation.started);
            let mut stated = labels.clone();
            stated.insert("alertstate".to_owned(), state.to_owned());
            exposed.push(Exposed { name: "ALERTS", labels: stated, value: 1.0 });
            exposed.push(Exposed { name: "ALERTS_FOR_STATE", labels, value: seconds(since) });
        }
        // A scrape with two samples of one series is refused as a whole.
        exposed.sort_by(|one, other| (one.name, &one.labels).cmp(&(other.name, &other.labels)));
        exposed.dedup_by(|one, other| (one.name, &one.labels) == (other.name, &other.labels));
        exposed
    }
}

/// Labels whose names Prometheus takes: letters, digits and `_`, no digit first, no `__` first. Where two names become
/// one, the first in the order of the labels keeps it.
fn named(labels: Labels) -> Labels {
    let mut fit = Labels::new();
    for (name, value) in labels {
        let mut name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if name == "alertstate" {
            name.insert_str(0, "exported_");
        } else if name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with("__") || name.is_empty()
        {
            name.insert_str(0, "label_");
        }
        fit.entry(name).or_insert(value);
    }
    fit
}
