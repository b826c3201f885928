//! Alerts over any metric: [`AlertSpec`]s are checked into [`Alert`]s, and [`Alerts`] runs them.
//!
//! [`Alerts`] is a state machine without clock, thread or socket. [`Alerts::observe`] takes a value of a metric,
//! [`Alerts::tick`] takes the time and answers the notifications that are due. [`Notification::message`] makes the body of
//! each; sending it is the caller's part.
//!
//! Two times are kept apart. Whether an alert fires is judged by the times of the observations, so a late, repeated or
//! replayed observation counts where it belongs. Cooldowns, silences and absence are judged by the time of the tick.
//! Times are microseconds since 1970.
//!
//! ```
//! use millstream_monitor::alert::{check, Alerts, Message, Sample};
//!
//! let specs = serde_json::from_str(r#"{
//!     "income_drifts": {
//!         "when": {"metric": "drift", "graph": "loan", "column": "*", "above": 0.2},
//!         "summary": "{{column}} of {{graph}} drifts: {{value}}",
//!         "notify": ["log"]
//!     }
//! }"#)?;
//! let mut alerts = Alerts::new("bank", check(&specs)?);
//!
//! let labels = [("graph", "loan"), ("column", "income")];
//! let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
//! alerts.observe(&Sample { metric: "drift".to_owned(), labels, value: 0.31, at: 60_000_000, evidence: None });
//! let notifications = alerts.tick(61_000_000);
//!
//! let Message::Log { line, .. } = notifications[0].message("") else { panic!("a line of the log") };
//! assert!(line.contains(r#"summary="income of loan drifts: 0.31""#));
//! assert!(alerts.tick(62_000_000).is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod check;
mod evidence;
mod exposition;
mod index;
mod message;
mod notification;
mod persist;
mod rule;
mod series;
mod silence;
mod spec;
mod state;
mod tell;
mod template;
#[cfg(test)]
mod tests;
mod text;

pub use check::check;
pub use exposition::Exposed;
pub use message::{Level, Message};
pub use notification::{Event, Notification, Status};
pub use persist::{RestoreError, Restored};
pub use rule::{Alert, Condition, Labels, Matchers};
pub use series::{Activation, Ending, State};
pub use silence::{NewSilence, Silence, SilenceError};
pub use spec::{
    AlertSpec, ChannelSpec, ClearSpec, CriteriaSpec, EmailSpec, HoldSpec, HttpSpec, Mistake, Mistakes,
    PostSpec, Reset, Secret, Severity, SlackSpec, Source, WhenSpec,
};
pub use state::{Alerts, Counts, Sample, SeriesView};
