//! Alerts and when they fired.

use serde::{Deserialize, Serialize};

/// One alert and its history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertReport {
    /// The name of the alert.
    pub name: String,
    /// How much it matters.
    pub severity: Severity,
    /// Where it stands.
    pub state: AlertState,
    /// What it says, in words.
    pub summary: String,
    /// Since when it is in its state.
    pub since: Option<i64>,
    /// When it fired, ascending.
    pub activations: Vec<Activation>,
}

/// How much an alert matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To know of.
    #[default]
    Low,
    /// To look at soon.
    Medium,
    /// To look at now.
    High,
}

/// Where an alert stands when the report is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Its condition does not hold.
    #[default]
    Inactive,
    /// Its condition holds, but not yet for as long as is asked.
    Pending,
    /// It has been raised and not cleared.
    Firing,
}

/// One time that an alert fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Activation {
    /// When it began to fire.
    pub at: i64,
    /// When it stopped; `None`: it has not.
    pub cleared: Option<i64>,
    /// The value that made it fire.
    pub value: Option<f64>,
}
