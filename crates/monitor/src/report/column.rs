//! One column in full, as a card that opens.

use std::fmt::Display;

use super::{
    ColumnKind, ColumnReport, Measure, Quantile, RuleOutcome, ShiftedBin,
    axis::{Axis, Time},
    categories::bar,
    chart::{Chart, Line, legend},
    columns::{CARDS, Listed, badge, kind, mark},
    format::{TEXT, change, clipped, count, number, optional, percent, share, time},
    histogram,
    markup::Markup,
    parts,
};

/// Measures of one column that are shown.
const MEASURES: usize = 20;
/// Rules of one column, or of an edge, that are shown.
const RULES: usize = 20;
/// Quantiles of one column that are shown.
const QUANTILES: usize = 12;
/// Segments of one column that are shown.
const SEGMENTS: usize = 30;
/// Bins of one column that are shown.
const SHIFTED: usize = 8;

pub(super) fn section(m: &mut Markup, window: (i64, i64), listed: &[Listed<'_>]) {
    m.tag("section", &[("id", &"details"), ("aria-labelledby", &"details-title")], |m| {
        m.tag("div", &[("class", &"heading")], |m| {
            m.leaf("h2", &[("id", &"details-title")], "Columns in detail");
            m.tag("span", &[("id", &"openers"), ("hidden", &"hidden")], |m| {
                m.leaf("button", &[("type", &"button"), ("id", &"open-all")], "Open all");
                m.leaf("button", &[("type", &"button"), ("id", &"close-all")], "Close all");
            });
        });
        for of in listed.iter().take(CARDS) {
            card(m, window, of);
        }
        let left = listed.len().saturating_sub(CARDS) as u64;
        if left > 0 {
            let words = format!(
                "The first {CARDS} columns by drift are shown in full; {} more are in the table above only.",
                count(left)
            );
            m.leaf("p", &[("class", &"remark")], words);
        }
    });
}

fn card(m: &mut Markup, window: (i64, i64), of: &Listed<'_>) {
    let column = of.column;
    let open: [(&str, &dyn Display); 3] = [("class", &"card column"), ("id", &of.id), ("open", &"open")];
    // What drifted is open from the start.
    let attributes = &open[..if column.drifted == Some(true) { 3 } else { 2 }];
    m.tag("details", attributes, |m| {
        m.tag("summary", &[], |m| {
            m.tag("h3", &[], |m| m.name(&column.column));
            badge(m, column.drifted);
            if let Some(leading) = column.measures.first() {
                m.tag("span", &[("class", &"lead")], |m| {
                    m.name(&leading.name);
                    m.text(format_args!(" {}", number(leading.value)));
                });
            }
            m.tag("span", &[("class", &"quiet")], |m| {
                m.text(format_args!("{} · ", kind(column.kind)));
                m.name(of.edge);
            });
        });
        if let Some(note) = &column.note {
            m.tag("p", &[("class", &"note")], |m| m.leaf("bdi", &[], clipped(note, TEXT)));
        }
        m.tag("div", &[("class", &"blocks")], |m| {
            block(m, |m| {
                m.leaf("h4", &[], "Distribution");
                histogram::key(m, column.reference.is_some());
                histogram::draw(m, &column.column, &column.live, column.reference.as_ref());
            });
            shifted(m, &column.shifted);
            measures(m, &column.measures);
            history(m, window, column);
            facts(m, column);
            quality(m, "Data quality", &column.quality);
            segments(m, column);
        });
    });
}

/// What stays together when a card has two columns.
fn block(m: &mut Markup, inside: impl FnOnce(&mut Markup)) {
    m.tag("div", &[("class", &"block")], inside);
}

/// A list that is cut after some items.
struct List<'a, T> {
    all: &'a [T],
    most: usize,
    /// What one item is.
    noun: &'static str,
}

/// A list as a table: a caption, a line of headings, and a line for each item. Class `n` is for numbers.
fn table<T>(
    m: &mut Markup,
    caption: impl Display,
    headings: &[(&'static str, &'static str)],
    List { all, most, noun }: List<'_, T>,
    cells: impl Fn(&mut Markup, &T),
) {
    if all.is_empty() {
        return;
    }
    block(m, |m| {
        m.tag("div", &[("class", &"fit")], |m| {
            m.tag("table", &[], |m| {
                m.leaf("caption", &[], caption);
                parts::headings(m, headings);
                m.tag("tbody", &[], |m| {
                    for item in all.iter().take(most) {
                        m.tag("tr", &[], |m| cells(m, item));
                    }
                });
            });
        });
        parts::beyond(m, all.len(), most, noun);
    });
}

/// The cell that names its line.
fn named(m: &mut Markup, name: &str) {
    m.tag("th", &[("scope", &"row")], |m| m.name(name));
}

/// A cell for a number.
fn figure(m: &mut Markup, text: impl Display) {
    m.leaf("td", &[("class", &"n")], text);
}

fn measures(m: &mut Markup, measures: &[Measure]) {
    let headings = [("", "measure"), ("n", "value"), ("n", "threshold"), ("n", "p-value"), ("", "verdict")];
    let list = List { all: measures, most: MEASURES, noun: "measure" };
    table(m, "Distance from the reference", &headings, list, |m, measure| {
        named(m, &measure.name);
        figure(m, number(measure.value));
        figure(m, optional(measure.threshold));
        figure(m, optional(measure.p_value));
        m.tag("td", &[], |m| badge(m, Some(measure.drifted)));
    });
}

/// The leading measure over time.
fn history(m: &mut Markup, (from, to): (i64, i64), column: &ColumnReport) {
    let values = || column.series.iter().map(|point| point.value).filter(|value| value.is_finite());
    let Some(last) = values().next_back() else { return };
    let leading = column.measures.first();
    let threshold = leading.and_then(|measure| measure.threshold).filter(|threshold| threshold.is_finite());
    let name = clipped(leading.map_or("drift", |measure| &measure.name), 40).to_string();
    let limit = threshold.map(|threshold| format!("threshold {}", number(threshold)));
    block(m, |m| {
        m.leaf("h4", &[], "Distance over time");
        let entries: [(&'static str, &dyn Display); 2] =
            [("live", &name), ("limit", &limit.as_deref().unwrap_or_default())];
        legend(m, &entries[..if limit.is_some() { 2 } else { 1 }]);
        let axis = Axis::from_zero(values().chain(threshold));
        Chart {
            title: format!(
                "{name} of {} over time, {} at the end",
                clipped(&column.column, 40),
                number(last)
            ),
            time: Time::around(from, to, column.series.iter().map(|point| point.at)),
            names: axis.names(),
            axis,
            height: 110,
            lines: &[Line { name: &name, class: "live", points: &column.series }],
            expected: (None, threshold),
            shown: number,
        }
        .draw(m);
    });
}

fn facts(m: &mut Markup, column: &ColumnReport) {
    let rows = column.rows;
    let of_rows = |part: u64| match part {
        0 => "0".to_owned(),
        _ => format!("{} ({})", count(part), share(part, rows)),
    };
    let counts = [
        ("nulls", column.nulls),
        ("NaN", column.nans),
        ("infinite", column.infinities),
        ("unseen", column.unseen),
    ];
    let moments = match column.kind {
        // As numbers they would be microseconds.
        ColumnKind::Time => [("earliest", column.min), ("latest", column.max), ("", None), ("", None)],
        _ => [("mean", column.mean), ("std", column.std), ("min", column.min), ("max", column.max)],
    };
    let shown = |value: f64| match column.kind {
        ColumnKind::Time => time(value as i64),
        _ => number(value),
    };
    let quantile =
        |quantile: &Quantile| (format!("p{}", number(quantile.at * 100.0)), number(quantile.value));
    let mut facts = vec![("rows".to_owned(), count(rows))];
    facts.extend(counts.map(|(name, part)| (name.to_owned(), of_rows(part))));
    facts.extend(column.distinct.map(|distinct| ("distinct".to_owned(), format!("≈ {}", count(distinct)))));
    facts.extend(moments.into_iter().filter_map(|(name, value)| Some((name.to_owned(), shown(value?)))));
    facts.extend(column.quantiles.iter().take(QUANTILES).map(quantile));
    block(m, |m| {
        m.leaf("h4", &[], "Values in the window");
        m.tag("dl", &[("class", &"facts")], |m| {
            for (name, value) in facts {
                m.tag("div", &[], |m| {
                    m.leaf("dt", &[], name);
                    m.leaf("dd", &[], value);
                });
            }
        });
    });
}

fn shifted(m: &mut Markup, bins: &[ShiftedBin]) {
    let most = bins.iter().map(|bin| bin.live.max(bin.reference)).fold(0.0, f64::max);
    let headings =
        [("", "bin"), ("grow spare", "share of rows"), ("n", "reference"), ("n", "live"), ("n", "change")];
    let list = List { all: bins, most: SHIFTED, noun: "bin" };
    table(m, "Largest changes of share", &headings, list, |m, bin| {
        named(m, &bin.bin);
        m.tag("td", &[("class", &"grow spare")], |m| bar(m, bin.live, Some(bin.reference), most));
        figure(m, percent(bin.reference));
        figure(m, percent(bin.live));
        figure(m, change(bin.live - bin.reference));
    });
}

pub(super) fn quality(m: &mut Markup, caption: &str, rules: &[RuleOutcome]) {
    let headings = [("", "rule"), ("n", "broken"), ("n spare", "checked"), ("n", "share"), ("", "outcome")];
    let list = List { all: rules, most: RULES, noun: "rule" };
    table(m, caption, &headings, list, |m, rule| {
        named(m, &rule.rule);
        figure(m, count(rule.broken));
        m.leaf("td", &[("class", &"n spare")], count(rule.checked));
        figure(m, share(rule.broken, rule.checked));
        m.tag("td", &[], |m| match rule.ok {
            true => mark(m, "badge good", "#good", "kept"),
            false => mark(m, "badge bad", "#bad", "broken"),
        });
    });
}

fn segments(m: &mut Markup, column: &ColumnReport) {
    let headings = [("", "segment"), ("n", "rows"), ("n", "value"), ("", "verdict")];
    let name = column.measures.first().map_or("the leading measure", |measure| &measure.name);
    let list = List { all: &column.segments, most: SEGMENTS, noun: "segment" };
    table(m, format_args!("Segments by {}", clipped(name, 40)), &headings, list, |m, segment| {
        named(m, &segment.segment);
        figure(m, count(segment.rows));
        figure(m, optional(segment.value));
        m.tag("td", &[], |m| badge(m, segment.drifted));
    });
}
