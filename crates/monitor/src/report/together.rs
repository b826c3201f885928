//! Columns that are watched together: how badly the reference's principal components rebuild live rows.

use super::{
    MultivariateReport, Report,
    axis::{Axis, Time},
    chart::{Chart, Line, legend},
    columns::badge,
    format::{clipped, count, counted, expected, number, optional, percent},
    markup::Markup,
    parts,
};

/// Edges that are shown.
const EDGES: usize = 40;
/// Columns that are named.
const COLUMNS: usize = 20;

pub(super) fn section(m: &mut Markup, report: &Report) {
    parts::section(m, "together", "Columns together", |m| {
        parts::cards(m, &report.multivariate, EDGES, "edge", |m, of| card(m, report, of));
    });
}

fn card(m: &mut Markup, report: &Report, of: &MultivariateReport) {
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    let (lower, upper) = (finite(of.lower), finite(of.upper));
    m.tag("div", &[("class", &"heading")], |m| {
        m.tag("h3", &[], |m| m.name(&of.edge));
        badge(m, of.drifted);
    });
    let held = of.explained.map(percent).map(|held| format!(", which hold {held} of the variance"));
    let words = format!(
        "{} of {}{}: ",
        counted(of.components, "principal component"),
        counted(of.columns.len() as u64, "column"),
        held.unwrap_or_default()
    );
    m.tag("p", &[("class", &"quiet")], |m| {
        m.text(words);
        for (at, column) in of.columns.iter().take(COLUMNS).enumerate() {
            m.text(if at == 0 { "" } else { ", " });
            m.name(column);
        }
        let left = of.columns.len().saturating_sub(COLUMNS) as u64;
        m.text(if left > 0 { format!(" and {} more", count(left)) } else { String::new() });
    });
    if of.series.is_empty() && of.error.is_none() {
        m.leaf("p", &[("class", &"empty")], "No rows yet.");
        return;
    }
    let range = expected(lower, upper).unwrap_or_else(|| "no expected range".to_owned());
    let whole = format!("reconstruction error, {} over {}", optional(of.error), counted(of.rows, "row"));
    legend(m, &[("live", &whole), ("band", &range)]);
    let values = of.series.iter().map(|point| point.value).chain(lower).chain(upper);
    let axis = Axis::of(values);
    Chart {
        title: format!("Reconstruction error of {} over time: {whole}", clipped(&of.edge, 40)),
        time: Time::around(report.from, report.to, of.series.iter().map(|point| point.at)),
        names: axis.names(),
        axis,
        height: 160,
        lines: &[Line { name: "reconstruction error", class: "live", points: &of.series }],
        expected: (lower, upper),
        shown: number,
    }
    .draw(m);
}
