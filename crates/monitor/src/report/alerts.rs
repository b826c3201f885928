//! Alerts as cards, those that fire first.

use std::{cmp::Reverse, fmt::Display};

use super::{
    Activation, AlertReport, AlertState, Report, Severity,
    axis::Time,
    chart::{Percent, frame, time_axis},
    columns::mark,
    format::{TEXT, clipped, counted, duration, number, optional, time},
    markup::Markup,
    parts,
};

/// Alerts that are shown.
const ALERTS: usize = 60;
/// Activations of one alert that are listed: the last ones.
const ACTIVATIONS: usize = 10;
/// Activations of one alert that are drawn: the last ones.
const DRAWN: usize = 200;

pub(super) fn section(m: &mut Markup, report: &Report) {
    parts::section(m, "alerts", "Alerts", |m| {
        let mut alerts: Vec<_> = report.alerts.iter().collect();
        alerts.sort_by_key(|alert| Reverse((alert.state, alert.severity)));
        m.tag("div", &[("class", &"cards")], |m| {
            for alert in alerts.iter().take(ALERTS) {
                card(m, report, alert);
            }
        });
        parts::beyond(m, alerts.len(), ALERTS, "alert");
    });
}

fn card(m: &mut Markup, report: &Report, alert: &AlertReport) {
    let (class, badge, icon, state) = match alert.state {
        AlertState::Firing => ("card alert firing", "badge bad", "#bad", "firing"),
        AlertState::Pending => ("card alert pending", "badge warn", "#warn", "pending"),
        AlertState::Inactive => ("card alert", "badge none", "#none", "inactive"),
    };
    let severity = match alert.severity {
        Severity::High => "high severity",
        Severity::Medium => "medium severity",
        Severity::Low => "low severity",
    };
    m.tag("article", &[("class", &class)], |m| {
        m.tag("div", &[("class", &"heading")], |m| {
            m.tag("h3", &[], |m| m.name(&alert.name));
            mark(m, badge, icon, state);
        });
        m.tag("p", &[("class", &"quiet")], |m| {
            m.text(severity);
            if let Some(since) = alert.since {
                m.text(format_args!(", {state} since "));
                moment(m, since);
            }
        });
        m.tag("p", &[], |m| m.leaf("bdi", &[], clipped(&alert.summary, TEXT)));
        activations(m, report, alert);
    });
}

/// A time, as words and for programs.
pub(super) fn moment(m: &mut Markup, at: i64) {
    m.leaf("time", &[("datetime", &time(at))], time(at));
}

fn activations(m: &mut Markup, report: &Report, alert: &AlertReport) {
    let all = alert.activations.as_slice();
    if all.is_empty() {
        m.leaf("p", &[("class", &"quiet")], "Did not fire in the window.");
        return;
    }
    let drawn = &all[all.len().saturating_sub(DRAWN)..];
    strip(m, report, drawn);
    let words = format!("Fired {}", counted(all.len() as u64, "time"));
    m.tag("details", &[], |m| {
        m.leaf("summary", &[], words);
        m.tag("div", &[("class", &"fit")], |m| {
            m.tag("table", &[], |m| {
                m.leaf("caption", &[("class", &"hidden")], "Activations, the last one first");
                parts::headings(m, &[("", "fired"), ("n", "for"), ("n", "value")]);
                m.tag("tbody", &[], |m| {
                    for activation in all.iter().rev().take(ACTIVATIONS) {
                        m.tag("tr", &[], |m| {
                            m.tag("td", &[], |m| moment(m, activation.at));
                            m.leaf("td", &[("class", &"n")], length(activation));
                            m.leaf("td", &[("class", &"n")], optional(activation.value));
                        });
                    }
                });
            });
        });
        if all.len() > ACTIVATIONS {
            let words = format!("The last {ACTIVATIONS} are listed.");
            m.leaf("p", &[("class", &"remark")], words);
        }
    });
}

fn length(activation: &Activation) -> String {
    match activation.cleared {
        Some(cleared) => duration(cleared.saturating_sub(activation.at)),
        None => "until now".to_owned(),
    }
}

/// When the alert fired, on the window's axis of time.
fn strip(m: &mut Markup, report: &Report, activations: &[Activation]) {
    const HEIGHT: u32 = 12;
    let window = Time::around(report.from, report.to, []);
    let title = format!("Fired {} on the axis of time", counted(activations.len() as u64, "time"));
    m.tag("div", &[("class", &"strip")], |m| {
        frame(m, &title, HEIGHT, |m| {
            m.void("rect", &[("class", &"rail"), ("width", &"100%"), ("height", &HEIGHT)]);
            for activation in activations {
                let start = window.place(activation.at);
                let end = window.place(activation.cleared.unwrap_or(window.to));
                // An activation of a moment is seen too.
                let size = (end - start).max(0.004);
                let (x, width) = (Percent(start.min(1.0 - size)), Percent(size));
                let place: [(&str, &dyn Display); 4] =
                    [("class", &"fired"), ("x", &x), ("width", &width), ("height", &HEIGHT)];
                m.tag("rect", &place, |m| {
                    let value = activation.value.map(|value| format!(", value {}", number(value)));
                    let words = format!(
                        "{}, {}{}",
                        time(activation.at),
                        length(activation),
                        value.unwrap_or_default()
                    );
                    m.leaf("title", &[], words);
                });
            }
            time_axis(m, window, HEIGHT);
        });
    });
}
