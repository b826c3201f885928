//! Metrics of the project's own: each over time, and what it is now.

use super::{
    OwnMetric, Report,
    axis::{Axis, Time},
    chart::{Chart, Line},
    format::{clipped, number},
    markup::Markup,
    parts,
};

/// Metrics that are shown.
const METRICS: usize = 60;

pub(super) fn section(m: &mut Markup, report: &Report) {
    parts::section(m, "own", "Metrics of the project's own", |m| {
        parts::cards(m, &report.metrics, METRICS, "metric", |m, metric| card(m, report, metric));
    });
}

fn card(m: &mut Markup, report: &Report, metric: &OwnMetric) {
    m.tag("div", &[("class", &"heading")], |m| {
        m.tag("h3", &[], |m| {
            m.name(&metric.name);
            m.tag("span", &[("class", &"quiet")], |m| {
                m.text(" · ");
                m.name(&metric.edge);
            });
        });
    });
    let now = metric
        .value
        .map_or("no value in the window".to_owned(), |value| format!("{} in the window", number(value)));
    m.leaf("p", &[], &now);
    if !metric.series.iter().any(|point| point.value.is_finite()) {
        return;
    }
    let axis = Axis::of(metric.series.iter().map(|point| point.value));
    Chart {
        title: format!("{} over time: {now}", clipped(&metric.name, 40)),
        time: Time::around(report.from, report.to, metric.series.iter().map(|point| point.at)),
        names: axis.names(),
        axis,
        height: 160,
        lines: &[Line { name: "value", class: "live", points: &metric.series }],
        expected: (None, None),
        shown: number,
    }
    .draw(m);
}
