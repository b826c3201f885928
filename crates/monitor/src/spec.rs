//! What a project file says of monitoring.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use millstream_graph::spec::Time;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    alert::{AlertSpec, Secret},
    compare::{Criterion, Discovery, Profile},
    history::Keep,
    multivariate::MultivariateSpec,
    predictions::PerformanceSpec,
    quality::{RuleSpec, SchemaRule},
    reference::{BinRule, ReferenceSpec},
};

/// How what a project's graphs carry is watched, whichever graph it is. `monitor` of a graph says which of its edges are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MonitoringSpec {
    /// The folder that counts are kept in. Without one they are gone when the server ends.
    pub path: Option<PathBuf>,
    /// How long counts are of one pane, from 1s to 1m: nothing is known sooner, and nothing is told apart that was closer together.
    #[serde(default)]
    pub pane: PaneTime,
    /// How long panes are kept, and how fine.
    #[serde(default)]
    pub keep: KeepSpec,
    /// The stretch of time before now that is compared with a reference; `1h` or 360 panes by default, and no more than those.
    pub window: Option<Time>,
    /// The server that takes mail of alerts.
    pub smtp: Option<SmtpSpec>,
    /// How messages name the server that sends them, for people to follow: `https://serving.example.org`.
    #[serde(default)]
    pub url: String,
    /// Alerts on what is measured, by name.
    #[serde(default)]
    pub alerts: BTreeMap<String, AlertSpec>,
}

/// A server that takes mail.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmtpSpec {
    /// Its name.
    pub host: String,
    /// Its port; 587 by default, 465 with `implicit`, 25 with `none`.
    pub port: Option<u16>,
    /// Who the mail is from: `Millstream <alerts@example.org>`.
    pub from: String,
    /// Who we are, if it asks.
    pub user: Option<String>,
    /// The password, by reference: `env:NAME` or `file:PATH`.
    pub password: Option<Secret>,
    /// How the connection is secured.
    #[serde(default)]
    pub tls: SmtpTls,
}

/// How a connection to a mail server is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// By STARTTLS, without which nothing is sent.
    #[default]
    Starttls,
    /// From its first byte on.
    Implicit,
    /// Not at all.
    None,
}

/// How long panes are kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepSpec {
    /// As they came; `1h` by default.
    pub fine: Option<Time>,
    /// One an hour; `7d` by default.
    pub hours: Option<Time>,
    /// One a day; `90d` by default.
    pub days: Option<Time>,
}

/// How the rows of one port are watched. All keys can be left out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchSpec {
    /// These columns; all by default, but for those that come unchanged from another port that is watched, where they are counted.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Whole numbers that are categories.
    #[serde(default)]
    pub categorical: Vec<String>,
    /// What live values are compared with: a training set as Parquet or CSV, or statistics that `millstream monitor profile` has
    /// written of one; what the port carried before, `{ past: 7d }`; or the statistics of a model, `{ model: name }`.
    pub reference: Option<ReferenceSpec>,
    /// Columns whose values divide the rows: each value is watched by itself, too.
    #[serde(default)]
    pub segments: Vec<String>,
    /// Values of such a column that are watched by themselves, beside those of the reference; the others are one segment. 50 by default.
    pub max_segments: Option<usize>,
    /// When a column has drifted.
    #[serde(default)]
    pub drift: DriftSpec,
    /// What of the rows are predictions, and how they are held against labels that come later.
    pub performance: Option<PerformanceSpec>,
    /// Whether it is watched how the numeric columns move together: `true`, or how. It is learned from the rows of the `reference`, which is
    /// a training set then.
    pub multivariate: Option<MultivariateSpec>,
    /// What is expected of columns, by their names.
    #[serde(default)]
    pub rules: BTreeMap<String, RuleSpec>,
    /// That the columns are those of the reference.
    pub schema: Option<SchemaRule>,
    /// Metrics of the project's own, by name: arithmetic over the numbers of the window, `{missing: income_nulls / rows}`; 50 at most.
    /// Numbers are `rows`, `requests`, `errors`; of a column `c` of numbers `c_mean`, `c_std`, `c_min`, `c_max`, `c_p50`, `c_p99`,
    /// `c_values` and `c_nulls`; of one of categories `c_distinct` and `c_nulls`; and the metrics of `performance`.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
}

/// When a column has drifted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DriftSpec {
    /// Whose measures and thresholds decide.
    #[serde(default)]
    pub profile: ProfileSpec,
    /// How often columns that have not drifted may be said to have, above 0 and below 1; 0.05 by default.
    pub alpha: Option<f64>,
    /// The population stability index below which a column has not drifted, however sure the difference is; 0.1 by default.
    pub at_least: Option<f64>,
    /// Rows below which nothing is said; 100 by default.
    pub min_rows: Option<u64>,
    /// What is done about many columns being asked at once: `fdr` by default, and `none` where the profile is that of another tool.
    pub discovery: Option<DiscoverySpec>,
    /// Bins of equal parts of the reference, from 2 to 100; 10 by default.
    pub bins: Option<usize>,
}

/// Whose measures and thresholds decide.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileSpec {
    /// The population stability index, where it is more than chance and more than little.
    #[default]
    Millstream,
    /// As MLRun does.
    Mlrun,
    /// As Evidently does.
    Evidently,
    /// As NannyML does.
    Nannyml,
}

/// What is done about many columns being asked at once.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscoverySpec {
    /// The share of false ones among those said to have drifted is at most `alpha` (Benjamini and Hochberg).
    #[default]
    Fdr,
    /// The chance that any of them is false is at most `alpha` (Bonferroni).
    Bonferroni,
    /// Each column is asked by itself.
    None,
}

/// The length of a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaneTime(pub Duration);

impl Default for PaneTime {
    fn default() -> Self {
        Self(LONGEST_PANE)
    }
}

/// Panes that are put together after each: more would take longer than a pane.
pub const MOST_PANES: u32 = 360;
const SHORTEST_PANE: Duration = Duration::from_secs(1);
const LONGEST_PANE: Duration = Duration::from_secs(60);
/// Segments of a column, unless the file says otherwise.
const SEGMENTS: usize = 50;
/// More bins than this are no bins of equal parts any more.
const MOST_BINS: usize = 100;
/// The metrics that alerts are told of each column, whether or not its port has a reference or rules.
const OF_COLUMNS: [&str; 3] = ["mean", "nulls", "unseen"];

impl<'de> Deserialize<'de> for PaneTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Time(time) = Time::deserialize(deserializer)?;
        let whole = 60_000 % time.as_millis().max(1) == 0;
        if (SHORTEST_PANE..=LONGEST_PANE).contains(&time) && whole {
            return Ok(Self(time));
        }
        Err(serde::de::Error::custom("a pane is from 1s to 1m long, and a minute is a whole number of them"))
    }
}

impl JsonSchema for PaneTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PaneTime".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Time::json_schema(generator)
    }
}

impl MonitoringSpec {
    /// How long panes are kept.
    pub fn keep(&self) -> Keep {
        let usual = Keep::default();
        let given = |time: Option<Time>, usual: Duration| time.map_or(usual, |time| time.0);
        Keep {
            fine: given(self.keep.fine, usual.fine),
            hours: given(self.keep.hours, usual.hours),
            days: given(self.keep.days, usual.days),
        }
    }

    /// The stretch of time that is compared: an hour, or [`MOST_PANES`], unless the file says otherwise.
    pub fn window(&self) -> Duration {
        let usual = Duration::from_secs(3600).min(self.pane.0 * MOST_PANES);
        self.window.map_or(usual, |time| time.0)
    }

    /// Whether an alert looks at a column at this port of a graph, and not at whichever port has it: then it has to be counted there.
    pub fn looks_at(&self, graph: &str, port: &str, column: &str) -> bool {
        self.alerts.values().map(|alert| &alert.when).any(|when| {
            let label = |name: &str| when.labels.get(name).and_then(Value::as_str);
            let any_or = |name: &str, own: &str| label(name).is_none_or(|value| value == "*" || value == own);
            OF_COLUMNS.contains(&when.metric.as_str())
                && label("edge") == Some(port)
                && any_or("graph", graph)
                && any_or("column", column)
        })
    }
}

impl WatchSpec {
    /// Whether a column has to be counted at this port although it was counted, with the same rows, at one before it.
    pub fn asks_for(&self, column: &str) -> bool {
        if !self.columns.is_empty() {
            return self.columns.iter().any(|name| name == column);
        }
        // What is compared, divided, or put together here is counted here.
        let of_all = self.reference.is_some()
            || self.schema.is_some()
            || self.performance.is_some()
            || self.multivariate.is_some()
            || !self.segments.is_empty()
            || !self.metrics.is_empty();
        of_all || self.categorical.iter().any(|name| name == column) || self.rules.contains_key(column)
    }

    /// Values of a segment's column that are watched by themselves.
    pub fn most_segments(&self) -> usize {
        self.max_segments.unwrap_or(SEGMENTS)
    }

    /// The bins of numeric columns.
    pub fn bins(&self) -> BinRule {
        match self.drift.profile {
            ProfileSpec::Mlrun => BinRule::Mlrun,
            ProfileSpec::Nannyml => BinRule::Doane,
            ProfileSpec::Millstream | ProfileSpec::Evidently => {
                self.drift.bins.map_or_else(BinRule::default, BinRule::Quantiles)
            }
        }
    }

    /// When a column has drifted.
    pub fn criterion(&self) -> Criterion {
        let usual = Criterion::of(match self.drift.profile {
            ProfileSpec::Millstream => Profile::Millstream,
            ProfileSpec::Mlrun => Profile::Mlrun,
            ProfileSpec::Evidently => Profile::Evidently,
            ProfileSpec::Nannyml => Profile::Nannyml,
        });
        Criterion {
            profile: usual.profile,
            alpha: self.drift.alpha.unwrap_or(usual.alpha),
            at_least: self.drift.at_least.unwrap_or(usual.at_least),
            min_rows: self.drift.min_rows.unwrap_or(usual.min_rows),
            discovery: self.drift.discovery.map_or(usual.discovery, |discovery| match discovery {
                DiscoverySpec::Fdr => Discovery::Rate,
                DiscoverySpec::Bonferroni => Discovery::Any,
                DiscoverySpec::None => Discovery::Each,
            }),
        }
    }

    /// What is wrong with the numbers in it.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.drift.alpha.is_some_and(|alpha| !(alpha > 0.0 && alpha < 1.0)) {
            mistakes.push("`alpha` lies between 0 and 1".to_owned());
        }
        if self.drift.at_least.is_some_and(|least| !(least >= 0.0 && least.is_finite())) {
            mistakes.push("`at_least` is 0 or more".to_owned());
        }
        if self.drift.bins.is_some_and(|bins| !(2..=MOST_BINS).contains(&bins)) {
            mistakes.push(format!("there are from 2 to {MOST_BINS} `bins`"));
        }
        mistakes.extend(self.rules.iter().flat_map(|(column, rule)| {
            rule.mistakes().into_iter().map(move |mistake| format!("rule of `{column}`: {mistake}"))
        }));
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_asked_by_themselves_under_the_profiles_of_other_tools_unless_the_file_says_otherwise() {
        let cases = [
            ("{}", Discovery::Rate),
            (r#"{"profile": "millstream"}"#, Discovery::Rate),
            (r#"{"profile": "mlrun"}"#, Discovery::Each),
            (r#"{"profile": "evidently"}"#, Discovery::Each),
            (r#"{"profile": "nannyml"}"#, Discovery::Each),
            (r#"{"profile": "evidently", "discovery": "fdr"}"#, Discovery::Rate),
            (r#"{"discovery": "bonferroni"}"#, Discovery::Any),
            (r#"{"discovery": "none"}"#, Discovery::Each),
        ];
        for (text, expected) in cases {
            let watch = WatchSpec { drift: serde_json::from_str(text).unwrap(), ..WatchSpec::default() };
            assert_eq!(watch.criterion().discovery, expected, "{text}");
        }
    }
}
