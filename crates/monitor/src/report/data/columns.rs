//! Edges and their columns.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Point;
use crate::report::number;

/// The columns of one edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeReport {
    /// The name of the edge.
    pub edge: String,
    /// Its rows that were counted.
    pub rows: u64,
    /// Its columns.
    pub columns: Vec<ColumnReport>,
    /// Columns that came to it unchanged from other edges, by name, and the edges at which they were counted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub elsewhere: BTreeMap<String, String>,
    /// Rules on its columns together.
    pub quality: Vec<RuleOutcome>,
}

/// What was observed of one column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColumnReport {
    /// The name of the column.
    pub column: String,
    /// What its values are.
    pub kind: ColumnKind,
    /// Values that were observed, nulls included.
    pub rows: u64,
    /// Values that were null.
    pub nulls: u64,
    /// Values that were NaN.
    pub nans: u64,
    /// Values that were an infinity.
    pub infinities: u64,
    /// Values that the reference does not have: unknown categories.
    pub unseen: u64,
    /// About how many different values there were.
    pub distinct: Option<u64>,
    /// The mean of the finite values.
    pub mean: Option<f64>,
    /// Their standard deviation.
    pub std: Option<f64>,
    /// The smallest finite value.
    pub min: Option<f64>,
    /// The largest finite value.
    pub max: Option<f64>,
    /// Quantiles, ascending.
    pub quantiles: Vec<Quantile>,
    /// How the values of the reference are distributed.
    pub reference: Option<Shape>,
    /// How the values of the window are distributed.
    pub live: Shape,
    /// How far the two are apart. The first measure leads: lists are sorted by it, and `series` is its history.
    pub measures: Vec<Measure>,
    /// The verdict; `None` when there is no reference, or too few rows to say. `note` says which.
    pub drifted: Option<bool>,
    /// A remark on the verdict, in words.
    pub note: Option<String>,
    /// The leading measure over time, ascending; it may begin before the window.
    pub series: Vec<Point>,
    /// Rules on the quality of the data.
    pub quality: Vec<RuleOutcome>,
    /// The leading measure by segment.
    pub segments: Vec<SegmentReport>,
    /// The bins or categories whose shares changed most, the largest change first.
    pub shifted: Vec<ShiftedBin>,
}

/// Whether the values of a column have an order and a distance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Numbers.
    #[default]
    Numeric,
    /// Names of a finite set.
    Categorical,
    /// Times, whose least and greatest are in microseconds since 1970 UTC.
    Time,
}

/// How the values of a column are distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A histogram: `edges` ascend and are one more than `counts`.
    Numeric {
        /// The borders of the bins. A bin has its lower border, not its upper one.
        #[serde(with = "number::list")]
        edges: Vec<f64>,
        /// Values in each bin.
        counts: Vec<u64>,
        /// Values below the first border.
        below: u64,
        /// Values at or above the last border.
        above: u64,
    },
    /// Frequencies.
    Categorical {
        /// Categories with the rows that have them.
        counts: Vec<(String, u64)>,
        /// Rows of all other categories together.
        other: u64,
    },
}

impl Default for Shape {
    /// A histogram of nothing.
    fn default() -> Self {
        Self::Numeric { edges: Vec::new(), counts: Vec::new(), below: 0, above: 0 }
    }
}

/// The value that a share of all values lies below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantile {
    /// The share, from 0 to 1.
    #[serde(with = "number")]
    pub at: f64,
    /// The value.
    #[serde(with = "number")]
    pub value: f64,
}

/// One distance between the reference and the live data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measure {
    /// The name, such as `psi`.
    pub name: String,
    /// The distance.
    #[serde(with = "number")]
    pub value: f64,
    /// The distance beyond which the column counts as drifted.
    pub threshold: Option<f64>,
    /// How likely a distance at least as large is without drift.
    pub p_value: Option<f64>,
    /// Whether this measure says that the column drifted.
    pub drifted: bool,
}

/// How one rule on the quality of a column came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleOutcome {
    /// The rule, in words.
    pub rule: String,
    /// Values that break it.
    pub broken: u64,
    /// Values that it was asked of.
    pub checked: u64,
    /// Whether that is tolerated.
    pub ok: bool,
}

/// The leading measure among the rows of one segment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SegmentReport {
    /// The segment, such as `region = north`.
    pub segment: String,
    /// Its rows.
    pub rows: u64,
    /// The leading measure; `None` when there are too few rows.
    pub value: Option<f64>,
    /// The verdict; `None` when there are too few rows.
    pub drifted: Option<bool>,
}

/// A bin or a category whose share of all rows changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShiftedBin {
    /// The bin as an interval, or the category.
    pub bin: String,
    /// Its share of the reference.
    #[serde(with = "number")]
    pub reference: f64,
    /// Its share of the live rows.
    #[serde(with = "number")]
    pub live: f64,
}

/// How badly the principal components of the reference rebuild the rows of an edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MultivariateReport {
    /// The name of the edge.
    pub edge: String,
    /// The columns that are watched together.
    pub columns: Vec<String>,
    /// How many components are kept of them.
    pub components: u64,
    /// The share of the reference's variance that these hold.
    pub explained: Option<f64>,
    /// Rows of the window.
    pub rows: u64,
    /// Rows among those that came whose error overflows.
    pub skipped: u64,
    /// The mean error of the rows, in standard deviations of the reference.
    pub error: Option<f64>,
    /// A mean below this is not as expected of so many rows.
    pub lower: Option<f64>,
    /// A mean above this is not as expected of so many rows.
    pub upper: Option<f64>,
    /// The verdict; `None` when there are too few rows to say.
    pub drifted: Option<bool>,
    /// The mean error pane by pane, ascending; it may begin before the window.
    pub series: Vec<Point>,
}
