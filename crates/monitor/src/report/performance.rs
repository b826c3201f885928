//! The model's performance: realised where labels arrived, estimated where they did not.

use std::fmt::Display;

use super::{
    DetectorReport, DetectorState, MetricSeries, Report,
    alerts::moment,
    axis::{Axis, Time},
    chart::{Chart, Line, legend},
    columns::mark,
    format::{clipped, count, expected, number, optional},
    markup::Markup,
    parts,
};

/// Metrics that are shown.
const METRICS: usize = 40;
/// Detectors that are shown.
const DETECTORS: usize = 60;

pub(super) fn section(m: &mut Markup, report: &Report) {
    parts::section(m, "performance", "Performance of the model", |m| {
        parts::cards(m, &report.performance, METRICS, "metric", |m, metric| card(m, report, metric));
        if !report.detectors.is_empty() {
            detectors(m, &report.detectors);
        }
    });
}

/// What watches errors.
fn detectors(m: &mut Markup, all: &[DetectorReport]) {
    m.leaf("h3", &[], "Detectors of changed errors");
    m.tag("div", &[("class", &"fit")], |m| {
        m.tag("table", &[], |m| {
            m.leaf("caption", &[("class", &"hidden")], "Detectors and what they have said");
            m.tag("thead", &[], |m| {
                m.tag("tr", &[], |m| {
                    let heads = ["edge", "detector", "state", "errors", "fired", "last fired", "recent mean"];
                    for words in heads {
                        m.leaf("th", &[("scope", &"col")], words);
                    }
                });
            });
            m.tag("tbody", &[], |m| {
                all.iter().take(DETECTORS).for_each(|one| m.tag("tr", &[], |m| detector(m, one)));
            });
        });
    });
    parts::beyond(m, all.len(), DETECTORS, "detector");
}

fn detector(m: &mut Markup, one: &DetectorReport) {
    m.tag("td", &[], |m| m.name(&one.edge));
    m.tag("td", &[], |m| m.name(&one.detector));
    m.tag("td", &[], |m| match one.state {
        DetectorState::Drift => mark(m, "badge bad", "#bad", "changed"),
        DetectorState::Warning => mark(m, "badge warn", "#warn", "warns"),
        DetectorState::Stable if one.errors == 0 => mark(m, "badge none", "#none", "no labels yet"),
        DetectorState::Stable => mark(m, "badge good", "#good", "stable"),
    });
    m.leaf("td", &[("class", &"n")], count(one.errors));
    m.leaf("td", &[("class", &"n")], count(one.drifts));
    m.tag("td", &[], |m| match one.last_drift {
        Some(at) => moment(m, at),
        None => m.text("never"),
    });
    m.leaf("td", &[("class", &"n")], optional(one.recent_mean));
}

fn card(m: &mut Markup, report: &Report, metric: &MetricSeries) {
    let points = || metric.realised.iter().chain(&metric.estimated);
    let finite = |limit: Option<f64>| limit.filter(|limit| limit.is_finite());
    let (lower, upper) = (finite(metric.lower), finite(metric.upper));
    let inside = |value: f64| lower.is_none_or(|low| value >= low) && upper.is_none_or(|high| value <= high);
    let last = |points: &[super::Point]| points.iter().map(|p| p.value).rfind(|value| value.is_finite());
    let (realised, estimated) = (last(&metric.realised), last(&metric.estimated));
    m.tag("div", &[("class", &"heading")], |m| {
        m.tag("h3", &[], |m| {
            m.name(&metric.name);
            if let Some(segment) = &metric.segment {
                m.tag("span", &[("class", &"quiet")], |m| {
                    m.text(" · ");
                    m.name(segment);
                });
            }
        });
        match estimated.or(realised) {
            _ if lower.is_none() && upper.is_none() => mark(m, "badge none", "#none", "no expected range"),
            None => mark(m, "badge none", "#none", "no values"),
            Some(value) if inside(value) => mark(m, "badge good", "#good", "as expected"),
            Some(_) => mark(m, "badge bad", "#bad", "outside the expected range"),
        }
    });
    if points().next().is_none() {
        m.leaf("p", &[("class", &"empty")], "Neither labels nor an estimate yet.");
        return;
    }
    let at_end = |value: Option<f64>| {
        value.map_or("none yet".to_owned(), |value| format!("{} at the end", number(value)))
    };
    let range = expected(lower, upper);
    let (one, two) = (at_end(realised), at_end(estimated));
    let entries: [(&'static str, &dyn Display); 3] = [
        ("live", &format_args!("realised, {one}")),
        ("second", &format_args!("estimated, {two}")),
        ("band", &range.as_deref().unwrap_or_default()),
    ];
    legend(m, &entries[..if range.is_some() { 3 } else { 2 }]);
    let axis = Axis::of(points().map(|point| point.value).chain(lower).chain(upper));
    Chart {
        title: format!("{} over time: realised {one}, estimated {two}", clipped(&metric.name, 40)),
        time: Time::around(report.from, report.to, points().map(|point| point.at)),
        names: axis.names(),
        axis,
        height: 160,
        lines: &[
            Line { name: "estimated", class: "second", points: &metric.estimated },
            Line { name: "realised", class: "live", points: &metric.realised },
        ],
        expected: (lower, upper),
        shown: number,
    }
    .draw(m);
}
