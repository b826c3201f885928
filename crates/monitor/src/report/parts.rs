//! What the sections of the page have in common.

use super::{format::counted, markup::Markup};

/// A section under its own heading. `id` is its anchor.
pub(super) fn section(
    m: &mut Markup,
    id: &'static str,
    heading: &'static str,
    inside: impl FnOnce(&mut Markup),
) {
    let title = format!("{id}-title");
    m.tag("section", &[("id", &id), ("aria-labelledby", &title)], |m| {
        m.leaf("h2", &[("id", &title)], heading);
        inside(m);
    });
}

/// A wide card for each of the items up to `most`, and how many there are beyond.
pub(super) fn cards<T>(
    m: &mut Markup,
    all: &[T],
    most: usize,
    noun: &'static str,
    card: impl Fn(&mut Markup, &T),
) {
    m.tag("div", &[("class", &"cards wide")], |m| {
        for one in all.iter().take(most) {
            m.tag("article", &[("class", &"card")], |m| card(m, one));
        }
    });
    beyond(m, all.len(), most, noun);
}

/// How many items of a list are not shown, if it is longer than `most`.
pub(super) fn beyond(m: &mut Markup, all: usize, most: usize, noun: &'static str) {
    let left = all.saturating_sub(most) as u64;
    if left > 0 {
        m.leaf("p", &[("class", &"remark")], format_args!("{} more not shown.", counted(left, noun)));
    }
}

/// The line of headings of a table: each with its class, which is `n` over numbers.
pub(super) fn headings(m: &mut Markup, headings: &[(&'static str, &'static str)]) {
    m.tag("thead", &[], |m| {
        m.tag("tr", &[], |m| {
            for (class, words) in headings {
                m.leaf("th", &[("scope", &"col"), ("class", class)], words);
            }
        });
    });
}
