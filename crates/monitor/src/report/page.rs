//! The page around the parts.

use super::{
    AlertState, Report, alerts,
    alerts::moment,
    column,
    columns::{self, Listed, Verdict},
    format::{clipped, count, counted, duration, latency, number, share},
    markup::Markup,
    own, performance, together, traffic,
};

pub(super) const STYLE: &str = include_str!("style.css");
pub(super) const SCRIPT: &str = include_str!("script.js");
/// Lets nothing load, and nothing run but the two texts of these hashes: script or style that got into the page by
/// some name from outside would do nothing. A test compares the hashes with the texts.
pub(super) const POLICY: &str = "default-src 'none'; \
     style-src 'sha256-+J8Jy64IqR6nufEv6m78ReUOfV7WG0WQ3WSfjZmcLpw='; \
     script-src 'sha256-5I2fnkWu8wPHT/WVaTchpKMgJy3jtsomrqreU1GHZXw='; \
     base-uri 'none'; form-action 'none'";

/// The marks of verdicts, which differ by their form, and the hatching of failures.
const SYMBOLS: &str = r##"<svg width="0" height="0" class="symbols" aria-hidden="true"><defs>
<symbol id="bad" viewBox="0 0 12 12"><path d="M6 1 11.5 11H.5Z" fill="currentColor"/></symbol>
<symbol id="warn" viewBox="0 0 12 12"><path d="M6 .5 11.5 6 6 11.5 .5 6Z" fill="currentColor"/></symbol>
<symbol id="good" viewBox="0 0 12 12"><path d="M1.5 6.5 4.5 9.5 10.5 2.5" fill="none" stroke="currentColor" stroke-width="2"/></symbol>
<symbol id="none" viewBox="0 0 12 12"><circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="1.5"/></symbol>
<pattern id="hatch" width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="4" height="4" class="hatch-ground"/><rect width="2" height="4" class="hatch-line"/></pattern>
</defs></svg>
"##;

pub(super) fn page(report: &Report) -> String {
    let mut m = Markup::default();
    m.literal("<!DOCTYPE html>\n");
    m.tag("html", &[("lang", &"en"), ("xmlns", &"http://www.w3.org/1999/xhtml")], |m| {
        m.tag("head", &[], |m| head(m, report));
        m.tag("body", &[], |m| body(m, report));
    });
    m.finish()
}

fn head(m: &mut Markup, report: &Report) {
    m.void("meta", &[("charset", &"utf-8")]);
    m.void("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &POLICY)]);
    m.void("meta", &[("name", &"viewport"), ("content", &"width=device-width, initial-scale=1")]);
    m.void("meta", &[("name", &"referrer"), ("content", &"no-referrer")]);
    m.void("meta", &[("name", &"color-scheme"), ("content", &"light dark")]);
    let (project, graph) = (clipped(&report.project, 80), clipped(&report.graph, 80));
    m.leaf("title", &[], format_args!("{project} / {graph}: monitoring report"));
    m.tag("style", &[], |m| m.literal(STYLE));
}

fn body(m: &mut Markup, report: &Report) {
    let listed = Listed::all(report);
    m.literal(SYMBOLS);
    m.leaf("a", &[("class", &"skip"), ("href", &"#main")], "Skip to the report");
    m.tag("header", &[], |m| title(m, report));
    m.tag("main", &[("id", &"main")], |m| {
        overview(m, report);
        if !report.alerts.is_empty() {
            alerts::section(m, report);
        }
        columns::section(m, report, &listed);
        if !report.multivariate.is_empty() {
            together::section(m, report);
        }
        if !report.metrics.is_empty() {
            own::section(m, report);
        }
        if !report.performance.is_empty() || !report.detectors.is_empty() {
            performance::section(m, report);
        }
        if !report.latency.is_empty() {
            traffic::section(m, report);
        }
        if !listed.is_empty() {
            column::section(m, (report.from, report.to), &listed);
        }
    });
    m.tag("footer", &[], method);
    m.tag("script", &[], |m| m.literal(SCRIPT));
}

fn title(m: &mut Markup, report: &Report) {
    m.tag("div", &[("class", &"heading")], |m| {
        m.tag("h1", &[], |m| {
            m.tag("span", &[("class", &"quiet")], |m| {
                m.name(&report.project);
                m.text(" / ");
            });
            m.name(&report.graph);
        });
        m.leaf(
            "button",
            &[("type", &"button"), ("id", &"theme"), ("hidden", &"hidden")],
            "Theme: as the system",
        );
    });
    m.tag("dl", &[("class", &"about")], |m| {
        let mut fact = |name, value: &dyn Fn(&mut Markup)| {
            m.tag("div", &[], |m| {
                m.leaf("dt", &[], name);
                m.tag("dd", &[], |m| value(m));
            });
        };
        fact("Window", &|m| {
            moment(m, report.from);
            m.text(" to ");
            moment(m, report.to);
            m.text(format_args!(" ({})", duration(report.to.saturating_sub(report.from))));
        });
        fact("Graph version", &|m| m.name(&report.version));
        fact("Reference", &|m| match &report.reference {
            Some(reference) => m.name(reference),
            None => m.text("none: nothing to compare with"),
        });
        fact("Made", &|m| moment(m, report.made));
    });
}

/// The outcome in words, then the numbers.
fn overview(m: &mut Markup, report: &Report) {
    let verdict = Verdict::of(report);
    let firing = report.alerts.iter().filter(|alert| alert.state == AlertState::Firing).count() as u64;
    let calm = verdict.drifted == 0 && firing == 0;
    m.tag(
        "section",
        &[("class", &if calm { "verdict" } else { "verdict bad" }), ("aria-label", &"Summary")],
        |m| {
            m.tag("p", &[("class", &"says")], |m| {
                m.text(&verdict.says);
                for (at, name) in verdict.names.iter().enumerate() {
                    m.text(if at == 0 { ": " } else { ", " });
                    m.name(name);
                }
                m.text(verdict.more().map(|more| format!(", {more}")).unwrap_or_default());
                m.text(".");
            });
            m.leaf("p", &[], remarks(report, &verdict, firing));
        },
    );
    let requests = report.requests;
    let tail = report.latency.iter().filter_map(|point| point.p99).fold(f64::NAN, f64::max);
    let tiles = [
        ("Columns drifted", count(verdict.drifted), format!("of {}", count(verdict.total))),
        ("Alerts firing", count(firing), format!("of {}", report.alerts.len())),
        ("Requests", count(requests), rate(report)),
        ("Failed", count(report.failed), share(report.failed, requests)),
        ("Degraded", count(report.degraded), share(report.degraded, requests)),
        ("Highest p99", latency(tail), "in one bucket".to_owned()),
        ("Not observed", count(report.lost), "dropped by taps".to_owned()),
    ];
    m.tag("dl", &[("class", &"tiles")], |m| {
        for (name, value, under) in tiles {
            m.tag("div", &[], |m| {
                m.leaf("dt", &[], name);
                m.leaf("dd", &[("class", &"value")], value);
                m.leaf("dd", &[("class", &"under")], under);
            });
        }
    });
}

fn rate(report: &Report) -> String {
    let seconds = (report.to as f64 - report.from as f64) / 1e6;
    match report.requests as f64 / seconds {
        rate if seconds > 0.0 => format!("{} per second", number(rate)),
        _ => "in no time".to_owned(),
    }
}

/// What the reader has to know besides the verdict, in sentences.
fn remarks(report: &Report, verdict: &Verdict<'_>, firing: u64) -> String {
    let are = |n: u64| if n == 1 { "is" } else { "are" };
    let mut remarks = vec![match firing {
        0 => "No alert is firing.".to_owned(),
        n => format!("{} {} firing.", counted(n, "alert"), are(n)),
    }];
    let rules = report
        .edges
        .iter()
        .flat_map(|edge| edge.columns.iter().flat_map(|column| &column.quality).chain(&edge.quality));
    let broken = rules.filter(|rule| !rule.ok).count() as u64;
    if broken > 0 {
        remarks.push(format!("{} on data quality {} broken.", counted(broken, "rule"), are(broken)));
    }
    if verdict.unknown > 0 && verdict.unknown < verdict.total {
        let have = if verdict.unknown == 1 { "has" } else { "have" };
        remarks.push(format!("{} {have} no verdict.", counted(verdict.unknown, "column")));
    }
    if report.lost > 0 {
        let words = "so counts of rows are too low by as many";
        remarks.push(format!("Taps dropped {}, {words}.", counted(report.lost, "observation")));
    }
    remarks.join(" ")
}

fn method(m: &mut Markup) {
    m.leaf("h2", &[], "How to read this");
    m.tag("ul", &[], |m| {
        for note in [
            "Times are in UTC. Shares are of all values of their side that have a place in the bins, so that the window and the reference can be compared whatever their sizes.",
            "A column drifted when a distance between its live values and the reference is larger than the threshold. The first measure of a column leads: columns are sorted by it, in multiples of its threshold.",
            "No verdict: there is no reference, or there are too few rows to tell drift from chance.",
            "Missing: nulls and NaN. Unseen: values that the reference does not have. Distinct values are estimated.",
            "Estimated performance is computed without labels, from the scores alone. It sees drift of the inputs, not a change of what the inputs mean.",
            "Requests that failed are drawn at least two pixels high. Long series are thinned; the least and the largest values are kept.",
        ] {
            m.leaf("li", &[], note);
        }
    });
    m.tag("p", &[], |m| {
        m.text("Made by Millstream. The same content as JSON is the report's other form.");
    });
}
