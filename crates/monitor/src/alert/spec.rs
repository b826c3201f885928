//! Alerts as a project file has them. [`check`](super::check()) makes [`Alert`](super::Alert)s of them.

use std::{collections::BTreeMap, fmt};

use millstream_graph::spec::Time;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// One alert, as it stands under its name in the section `alerts` of a project file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertSpec {
    /// What the alert is for, in a sentence or two; it goes out with every message.
    #[serde(default)]
    pub description: Option<String>,
    /// The metric, its labels, and the values that breach.
    pub when: WhenSpec,
    /// How many of the last evaluations must breach; by default the last one alone.
    #[serde(default)]
    pub hold: HoldSpec,
    /// How many firings, within which time, make the alert active; by default one.
    #[serde(default)]
    pub criteria: CriteriaSpec,
    /// The value at which the alert clears; by default the threshold itself.
    #[serde(default)]
    pub clear: Option<ClearSpec>,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// Whether an active alert clears by itself.
    #[serde(default)]
    pub reset: Reset,
    /// The shortest time between two messages about firing, per channel and group. What falls into it is sent after it,
    /// if it still fires then.
    #[serde(default)]
    pub cooldown: Option<Time>,
    /// Labels: the series that share their values share one message per tick. Without it every series has its own.
    #[serde(default)]
    pub group_by: Option<Vec<String>>,
    /// Labels: while this alert is active, alerts of lower severity that share their values send nothing.
    #[serde(default)]
    pub inhibit: Option<Vec<String>>,
    /// One line about a firing, with `{{name}}` placeholders.
    #[serde(default)]
    pub summary: Option<String>,
    /// Where messages go.
    #[serde(default)]
    pub notify: Vec<ChannelSpec>,
}

/// A metric, labels that a series must have, and exactly one of `above`, `below`, `outside` and `absent`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct WhenSpec {
    /// The name of the metric.
    pub metric: String,
    /// A value above this one breaches.
    #[serde(default)]
    pub above: Option<f64>,
    /// A value below this one breaches.
    #[serde(default)]
    pub below: Option<f64>,
    /// A value below the first or above the second breaches.
    #[serde(default)]
    pub outside: Option<[f64; 2]>,
    /// No value for this long breaches.
    #[serde(default)]
    pub absent: Option<Time>,
    /// Every other key is a label and the value it must have; `*` is any value.
    #[serde(flatten)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub labels: BTreeMap<String, Value>,
}

/// N of the last M evaluations.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldSpec {
    /// The last so many evaluations are looked at; by default 1.
    #[serde(default)]
    pub of: Option<usize>,
    /// So many of them must breach; by default all.
    #[serde(default)]
    pub at_least: Option<usize>,
}

/// Firings within a period. A firing is an evaluation that breaches while `hold` is met.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CriteriaSpec {
    /// So many firings; by default 1.
    #[serde(default)]
    pub count: Option<usize>,
    /// Within this time, by the times of the observations.
    #[serde(default)]
    pub period: Option<Time>,
}

/// Where an active alert clears: one value for `above` and `below`, a range for `outside`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, or a range such as `[0.1, 0.9]`")]
pub enum ClearSpec {
    /// At this value or beyond it, on the good side.
    At(f64),
    /// Within this range, ends included.
    Within([f64; 2]),
}

/// How bad it is that an alert is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a look.
    Low,
    /// Worth a look today.
    #[default]
    Medium,
    /// Somebody should look now.
    High,
}

/// Whether an active alert clears by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reset {
    /// It clears when its values do.
    #[default]
    Auto,
    /// It waits for somebody to reset it.
    Manual,
}

/// Where messages go.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelSpec {
    /// A line of the log.
    Log,
    /// A POST of the JSON that Alertmanager sends to its webhooks (version 4).
    Webhook(HttpSpec),
    /// A message to an incoming webhook of Slack, or of what understands the same JSON.
    Slack(SlackSpec),
    /// An email.
    Email(EmailSpec),
    /// A POST of your own JSON.
    Post(PostSpec),
}

/// A POST to a URL.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    /// An `http` or `https` URL without user and password, or a reference to one.
    pub url: Secret,
    /// Headers; one that tells who we are must be a reference.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// In place of the alert's `cooldown`.
    #[serde(default)]
    pub cooldown: Option<Time>,
}

/// A message to Slack.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlackSpec {
    /// A reference to the URL of the incoming webhook, which is a secret.
    pub url: Secret,
    /// The channel, where it is not the webhook's own.
    #[serde(default)]
    pub channel: Option<String>,
    /// In place of the alert's `cooldown`.
    #[serde(default)]
    pub cooldown: Option<Time>,
}

/// An email.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailSpec {
    /// Who gets it.
    pub to: Vec<String>,
    /// In place of the alert's `cooldown`.
    #[serde(default)]
    pub cooldown: Option<Time>,
}

/// A POST of a JSON body whose strings are templates.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostSpec {
    /// An `http` or `https` URL without user and password, or a reference to one.
    pub url: Secret,
    /// Headers; one that tells who we are must be a reference.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The body. A string that is one placeholder and nothing else becomes that value with its type; `{{alerts}}` is
    /// the list that the webhook sends.
    pub body: Value,
    /// In place of the alert's `cooldown`.
    #[serde(default)]
    pub cooldown: Option<Time>,
}

/// Text that may be secret: `env:NAME`, `file:PATH`, or the text itself.
///
/// It shows a reference as it stands, and nothing of any other text.
///
/// ```
/// use millstream_monitor::alert::{Secret, Source};
///
/// let hook = Secret::new("env:HOOK");
/// assert_eq!(hook.source(), Source::Env("HOOK"));
/// assert_eq!(format!("{:?}", Secret::new("https://hooks.test/T0/xyz")), "Secret(..)");
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// Where the text of a [`Secret`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// In a variable of the environment.
    Env(&'a str),
    /// In a file, without the line end behind it.
    File(&'a str),
    /// Here.
    Plain(&'a str),
}

impl Secret {
    /// Reads a reference or a plain text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Where the text is.
    pub fn source(&self) -> Source<'_> {
        if let Some(name) = self.0.strip_prefix("env:") {
            Source::Env(name)
        } else if let Some(path) = self.0.strip_prefix("file:") {
            Source::File(path)
        } else {
            Source::Plain(&self.0)
        }
    }

    /// The text as the file has it: never show it.
    pub(super) fn written(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source() {
            Source::Plain(_) => f.write_str("Secret(..)"),
            Source::Env(_) | Source::File(_) => write!(f, "Secret({})", self.0),
        }
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "Env({name})"),
            Self::File(path) => write!(f, "File({path})"),
            Self::Plain(_) => f.write_str("Plain(..)"),
        }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A text, or a reference to a secret one: `env:NAME` or `file:PATH`.",
        })
    }
}

impl Severity {
    /// The word for it in files and labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One mistake in the alerts of a project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The keys that lead to it, the name of the alert first; empty where it is about all alerts.
    pub path: Vec<String>,
    /// What, with the fix where there is one.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.split_first() {
            None => f.write_str(&self.message),
            Some((alert, [])) => write!(f, "alert `{alert}`: {}", self.message),
            Some((alert, keys)) => write!(f, "alert `{alert}`: {}: {}", keys.join("."), self.message),
        }
    }
}

/// Every mistake in the alerts of a project; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Mistakes {}
