//! Shares of categories, as a table with bars.

use std::collections::HashMap;

use super::{
    Shape,
    chart::Percent,
    format::{counted, percent},
    markup::Markup,
};

/// Categories that are listed; the others are one line.
const LISTED: usize = 12;

/// Live shares beside those of the reference, the largest first.
pub(super) struct Categories<'a> {
    listed: Vec<Row<'a>>,
    /// All categories that are not listed, together.
    others: Row<'a>,
    /// How many of those have a name.
    named: u64,
    /// Whether there is a reference of the same kind.
    known: bool,
}

#[derive(Default)]
struct Row<'a> {
    name: &'a str,
    live: f64,
    reference: f64,
}

impl<'a> Categories<'a> {
    /// `None` when nothing was counted on either side.
    pub(super) fn of(
        (counts, other): (&'a [(String, u64)], u64),
        reference: Option<&'a Shape>,
    ) -> Option<Self> {
        let known = match reference {
            Some(Shape::Categorical { counts, other }) => Some((counts.as_slice(), *other)),
            _ => None,
        };
        let live = Side::of(counts, other);
        let reference = known.map_or(Side::of(&[], 0), |(counts, other)| Side::of(counts, other));
        if live.total + reference.total == 0.0 {
            return None;
        }
        let mut places = HashMap::new();
        let mut rows: Vec<Row<'a>> = Vec::new();
        let mut row = |name: &'a str, live: f64, reference: f64| {
            let at = *places.entry(name).or_insert(rows.len());
            if at == rows.len() {
                rows.push(Row { name, ..Row::default() });
            }
            rows[at].live += live;
            rows[at].reference += reference;
        };
        live.counts.iter().for_each(|(name, count)| row(name, live.share(*count), 0.0));
        reference.counts.iter().for_each(|(name, count)| row(name, 0.0, reference.share(*count)));
        rows.sort_by(|a, b| b.largest().total_cmp(&a.largest()));
        let rest = rows.split_off(rows.len().min(LISTED));
        let others = Row {
            name: "",
            live: rest.iter().map(|row| row.live).sum::<f64>() + live.share(live.other),
            reference: rest.iter().map(|row| row.reference).sum::<f64>() + reference.share(reference.other),
        };
        Some(Self { listed: rows, others, named: rest.len() as u64, known: known.is_some() })
    }

    pub(super) fn draw(&self, m: &mut Markup) {
        let most = self.listed.iter().map(Row::largest).fold(self.others.largest(), f64::max);
        let others = match self.named {
            0 => "all others".to_owned(),
            some => format!("{} and all others", counted(some, "value")),
        };
        m.tag("div", &[("class", &"fit")], |m| {
            m.tag("table", &[("class", &"shares")], |m| {
                m.leaf("caption", &[("class", &"hidden")], "Share of rows by category");
                self.head(m);
                m.tag("tbody", &[], |m| {
                    for row in &self.listed {
                        self.row(m, |m| m.name(row.name), row, most);
                    }
                    if self.others.largest() > 0.0 {
                        self.row(m, |m| m.text(others), &self.others, most);
                    }
                });
            });
        });
    }

    fn head(&self, m: &mut Markup) {
        m.tag("thead", &[], |m| {
            m.tag("tr", &[], |m| {
                m.leaf("th", &[("scope", &"col")], "category");
                m.leaf("th", &[("scope", &"col"), ("class", &"grow")], "share of rows");
                if self.known {
                    m.leaf("th", &[("scope", &"col"), ("class", &"n")], "reference");
                }
                m.leaf("th", &[("scope", &"col"), ("class", &"n")], "live");
            });
        });
    }

    fn row(&self, m: &mut Markup, name: impl FnOnce(&mut Markup), row: &Row<'_>, most: f64) {
        let reference = self.known.then_some(row.reference);
        m.tag("tr", &[], |m| {
            m.tag("th", &[("scope", &"row")], name);
            m.tag("td", &[("class", &"grow")], |m| bar(m, row.live, reference, most));
            if let Some(reference) = reference {
                m.leaf("td", &[("class", &"n")], percent(reference));
            }
            m.leaf("td", &[("class", &"n")], percent(row.live));
        });
    }
}

impl Row<'_> {
    fn largest(&self) -> f64 {
        self.live.max(self.reference)
    }
}

/// One side of the comparison. The total is a float: it cannot overflow.
struct Side<'a> {
    counts: &'a [(String, u64)],
    other: u64,
    total: f64,
}

impl<'a> Side<'a> {
    fn of(counts: &'a [(String, u64)], other: u64) -> Self {
        let total = counts.iter().map(|(_, count)| *count as f64).sum::<f64>() + other as f64;
        Self { counts, other, total }
    }

    fn share(&self, count: u64) -> f64 {
        if self.total > 0.0 { count as f64 / self.total } else { 0.0 }
    }
}

/// A bar for the live share in the outline of the reference's. Its numbers stand beside it.
pub(super) fn bar(m: &mut Markup, live: f64, reference: Option<f64>, most: f64) {
    let length = |share: f64| Percent(if most > 0.0 { (share / most).clamp(0.0, 1.0) } else { 0.0 });
    m.tag(
        "svg",
        &[("class", &"share"), ("width", &"100%"), ("height", &16), ("aria-hidden", &"true")],
        |m| {
            m.void("rect", &[("class", &"bar"), ("y", &3), ("width", &length(live)), ("height", &10)]);
            if let Some(reference) = reference {
                m.void(
                    "rect",
                    &[("class", &"hollow"), ("y", &1), ("width", &length(reference)), ("height", &14)],
                );
            }
        },
    );
}
