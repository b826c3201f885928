//! All columns in one table, the largest drift first.

use std::{collections::BTreeMap, fmt::Display};

use super::{
    ColumnKind, ColumnReport, Measure, Report,
    chart::{Percent, spark},
    column,
    format::{NAME, NOTHING, clipped, count, counted, number, share},
    markup::Markup,
    parts,
};

/// Columns that get a card of their own.
pub(super) const CARDS: usize = 200;
/// Columns that the table lists.
const ROWS: usize = 2_000;
/// Edges whose rules are shown.
const RULED: usize = 50;
/// Names in the verdict.
const NAMES: usize = 5;

/// One column and where it is.
pub(super) struct Listed<'a> {
    pub(super) edge: &'a str,
    pub(super) column: &'a ColumnReport,
    /// Its anchor: the positions of edge and column in the report. Names from outside do not get into anchors.
    pub(super) id: String,
}

impl<'a> Listed<'a> {
    /// Drifted columns first, those without a verdict last; among equals the largest drift first.
    pub(super) fn all(report: &'a Report) -> Vec<Self> {
        let edges = report.edges.iter().enumerate();
        let mut listed: Vec<_> = edges
            .flat_map(|(at, edge)| {
                edge.columns.iter().enumerate().map(move |(nth, column)| Self {
                    edge: &edge.edge,
                    column,
                    id: format!("e{at}c{nth}"),
                })
            })
            .collect();
        listed.sort_by(|a, b| {
            let rank = |of: &Self| (verdict_rank(of.column.drifted), drift(of.column).unwrap_or(f64::MIN));
            let (a, b) = (rank(a), rank(b));
            b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
        });
        listed
    }
}

pub(super) fn verdict_rank(drifted: Option<bool>) -> u8 {
    drifted.map_or(0, |drifted| 1 + u8::from(drifted))
}

/// The leading measure in multiples of its threshold, or as it is without one.
fn drift(column: &ColumnReport) -> Option<f64> {
    let measure = column.measures.first().filter(|measure| !measure.value.is_nan())?;
    Some(multiple(measure).unwrap_or(measure.value))
}

fn multiple(measure: &Measure) -> Option<f64> {
    let multiple = measure.value / measure.threshold.filter(|threshold| *threshold > 0.0)?;
    multiple.is_finite().then_some(multiple)
}

/// How many columns drifted, and which.
pub(super) struct Verdict<'a> {
    /// `3 of 12 columns drifted`
    pub(super) says: String,
    /// The first of those that drifted.
    pub(super) names: Vec<&'a str>,
    pub(super) drifted: u64,
    pub(super) total: u64,
    /// Listed columns that have no verdict.
    pub(super) unknown: u64,
}

impl<'a> Verdict<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let listed = Listed::all(report);
        let with = |verdict| listed.iter().filter(move |of| of.column.drifted == verdict).count() as u64;
        // The two counts of the report may cover more columns than it lists, but not fewer.
        let total = report.columns_total.max(listed.len() as u64);
        let drifted = report.drifted_columns.max(with(Some(true)));
        let unknown = with(None);
        let columns = counted(total, "column");
        let says = match drifted {
            _ if total == 0 => "No columns were observed".to_owned(),
            0 if unknown == total => format!("No verdict on {columns}"),
            0 => format!("None of {columns} drifted"),
            _ => format!("{} of {columns} drifted", count(drifted)),
        };
        let names = listed.iter().filter(|of| of.column.drifted == Some(true)).take(NAMES);
        let names = names.map(|of| of.column.column.as_str()).collect();
        Self { says, names, drifted, total, unknown }
    }

    /// `and 4 more`, when there are more than the names.
    pub(super) fn more(&self) -> Option<String> {
        let more = self.drifted.saturating_sub(self.names.len() as u64);
        (more > 0 && !self.names.is_empty()).then(|| format!("and {} more", count(more)))
    }
}

/// The verdict as a word and a mark: its colour is not needed.
pub(super) fn badge(m: &mut Markup, drifted: Option<bool>) {
    match drifted {
        Some(true) => mark(m, "badge bad", "#bad", "drifted"),
        Some(false) => mark(m, "badge good", "#good", "stable"),
        None => mark(m, "badge none", "#none", "no verdict"),
    }
}

pub(super) fn mark(m: &mut Markup, class: &'static str, icon: &'static str, words: impl Display) {
    m.tag("span", &[("class", &class)], |m| {
        m.tag("svg", &[("width", &12), ("height", &12), ("aria-hidden", &"true")], |m| {
            m.void("use", &[("href", &icon)])
        });
        m.text(words);
    });
}

pub(super) fn section(m: &mut Markup, report: &Report, listed: &[Listed<'_>]) {
    parts::section(m, "columns", "Columns", |m| {
        rules(m, report);
        if listed.is_empty() {
            m.leaf("p", &[("class", &"empty")], "No edge of this graph was observed.");
            return;
        }
        tools(m);
        let edges = report.edges.len() > 1;
        let attributes: [(&str, &dyn Display); 4] = [
            ("class", &"scroll"),
            ("role", &"region"),
            ("aria-labelledby", &"columns-caption"),
            ("tabindex", &0),
        ];
        m.tag("div", &attributes, |m| {
            m.tag("table", &[("class", &"columns"), ("id", &"column-table")], |m| {
                m.leaf(
                    "caption",
                    &[("id", &"columns-caption"), ("class", &"hidden")],
                    "Columns by drift, the largest first",
                );
                head(m);
                m.tag("tbody", &[], |m| {
                    for (at, of) in listed.iter().take(ROWS).enumerate() {
                        row(m, of, edges, at < CARDS);
                    }
                });
            });
        });
        let left = listed.len().saturating_sub(ROWS) as u64
            + report.columns_total.saturating_sub(listed.len() as u64);
        if left > 0 {
            let words = format!("{} more are not listed here.", counted(left, "column"));
            m.leaf("p", &[("class", &"remark")], words);
        }
        elsewhere(m, report);
    });
}

/// What edges hand on unchanged, and where it is counted.
fn elsewhere(m: &mut Markup, report: &Report) {
    for edge in report.edges.iter().filter(|edge| !edge.elsewhere.is_empty()).take(RULED) {
        let mut ports: BTreeMap<&str, u64> = BTreeMap::new();
        edge.elsewhere.values().for_each(|port| *ports.entry(port).or_default() += 1);
        let ports = ports
            .iter()
            .map(|(port, columns)| format!("{} at {}", counted(*columns, "column"), clipped(port, NAME)));
        let ports = ports.collect::<Vec<_>>().join(", ");
        let words =
            format!("{} hands on unchanged what is counted before: {ports}.", clipped(&edge.edge, NAME));
        m.leaf("p", &[("class", &"remark")], words);
    }
}

/// Rules on the columns of an edge together.
fn rules(m: &mut Markup, report: &Report) {
    let edges = report.edges.iter().filter(|edge| !edge.quality.is_empty());
    for edge in edges.clone().take(RULED) {
        let caption = format!("Data quality of {}", clipped(&edge.edge, NAME));
        column::quality(m, &caption, &edge.quality);
    }
    let left = edges.skip(RULED).count() as u64;
    if left > 0 {
        let words = format!("Rules of {} more are not shown.", counted(left, "edge"));
        m.leaf("p", &[("class", &"remark")], words);
    }
}

/// What needs the script: it shows this.
fn tools(m: &mut Markup) {
    m.tag("div", &[("class", &"tools"), ("id", &"tools"), ("hidden", &"hidden")], |m| {
        m.tag("label", &[], |m| {
            m.leaf("span", &[], "Find a column");
            m.void(
                "input",
                &[("type", &"search"), ("id", &"find"), ("autocomplete", &"off"), ("spellcheck", &"false")],
            );
        });
        m.tag("label", &[], |m| {
            m.leaf("span", &[], "Verdict");
            m.tag("select", &[("id", &"verdict")], |m| {
                for (value, words) in [("", "all"), ("2", "drifted"), ("1", "stable"), ("0", "no verdict")] {
                    m.leaf("option", &[("value", &value)], words);
                }
            });
        });
        m.leaf("span", &[("id", &"found"), ("role", &"status")], "");
    });
}

/// The first of a heading's two words is for the script: how the column is sorted when it is chosen.
fn head(m: &mut Markup) {
    let headings = [
        ("ascending", "", "Column"),
        ("descending", "", "Verdict"),
        ("descending", "n", "Measure"),
        ("descending", "n", "vs threshold"),
        ("", "", "Trend"),
        ("descending", "n", "Rows"),
        ("descending", "n", "Missing"),
        ("descending", "", "Quality"),
    ];
    m.tag("thead", &[], |m| {
        m.tag("tr", &[], |m| {
            for (sort, class, words) in headings {
                m.leaf("th", &[("scope", &"col"), ("class", &class), ("data-sort", &sort)], words);
            }
        });
    });
}

fn row(m: &mut Markup, of: &Listed<'_>, edges: bool, card: bool) {
    let column = of.column;
    let leading = column.measures.first();
    m.tag("tr", &[], |m| {
        m.tag("th", &[("scope", &"row")], |m| {
            let name = |m: &mut Markup| m.name(&column.column);
            match card {
                true => m.tag("a", &[("href", &format_args!("#{}", of.id))], name),
                false => name(m),
            }
            m.tag("span", &[("class", &"under")], |m| {
                m.text(kind(column.kind));
                if edges {
                    m.text(" · ");
                    m.name(of.edge);
                }
            });
        });
        m.tag("td", &[("data-key", &verdict_rank(column.drifted))], |m| badge(m, column.drifted));
        let value = key(leading.map(|measure| measure.value));
        m.tag("td", &[("class", &"n"), ("data-key", &value)], |m| {
            m.text(leading.map_or(NOTHING.to_owned(), |measure| number(measure.value)));
            m.tag("span", &[("class", &"under")], |m| m.name(leading.map_or("", |measure| &measure.name)));
        });
        let times = leading.and_then(multiple);
        m.tag("td", &[("class", &"n"), ("data-key", &key(times))], |m| {
            m.text(times.map_or(NOTHING.to_owned(), |times| format!("{} ×", number(times))));
            if let Some(times) = times {
                bullet(m, times);
            }
        });
        m.tag("td", &[], |m| trend(m, column, leading));
        m.leaf("td", &[("class", &"n"), ("data-key", &column.rows)], count(column.rows));
        let missing = column.nulls.saturating_add(column.nans);
        let part = missing as f64 / column.rows.max(1) as f64;
        m.leaf("td", &[("class", &"n"), ("data-key", &key(Some(part)))], share(missing, column.rows));
        let broken = column.quality.iter().filter(|rule| !rule.ok).count() as u64;
        m.tag("td", &[("data-key", &broken)], |m| match (broken, column.quality.len() as u64) {
            (_, 0) => m.leaf("span", &[("class", &"quiet")], "no rules"),
            (0, rules) => mark(m, "badge good", "#good", format_args!("{} kept", counted(rules, "rule"))),
            (broken, rules) => {
                mark(m, "badge bad", "#bad", format_args!("{broken} of {} broken", counted(rules, "rule")))
            }
        });
    });
}

/// What the script sorts by. What is not there comes after all distances.
fn key(value: Option<f64>) -> String {
    format!("{:e}", value.filter(|value| value.is_finite()).unwrap_or(-1.0))
}

pub(super) fn kind(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Numeric => "numeric",
        ColumnKind::Categorical => "categorical",
        ColumnKind::Time => "time",
    }
}

/// A bar that reaches the mark in the middle when the threshold is reached.
fn bullet(m: &mut Markup, times: f64) {
    let over = times > 1.0;
    m.tag("svg", &[("class", &"bullet"), ("width", &72), ("height", &8), ("aria-hidden", &"true")], |m| {
        let class = if over { "bar over" } else { "bar" };
        m.void("rect", &[("class", &"rail"), ("width", &"100%"), ("height", &8)]);
        m.void(
            "rect",
            &[("class", &class), ("width", &Percent((times / 2.0).clamp(0.0, 1.0))), ("height", &8)],
        );
        m.void("line", &[("class", &"mark"), ("x1", &"50%"), ("x2", &"50%"), ("y2", &8)]);
    });
}

fn trend(m: &mut Markup, column: &ColumnReport, leading: Option<&Measure>) {
    let finite: Vec<_> =
        column.series.iter().map(|point| point.value).filter(|value| value.is_finite()).collect();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else { return };
    let name = leading.map_or("drift", |measure| &measure.name);
    let title = format!("{name} from {} to {}", number(*first), number(*last));
    spark(m, &title, &column.series, leading.and_then(|measure| measure.threshold));
}
