//! The bins and categories whose shares changed most.

use std::{cmp::Ordering, collections::HashSet};

use crate::{report::ShiftedBin, sketch::Labels};

/// Bins and categories that are named as having changed most.
const SHIFTED: usize = 5;

/// Those of the bins of both sides, the largest change first.
pub(super) fn shifted(
    (before, now): &(Vec<u64>, Vec<u64>),
    name: impl Fn(usize) -> String,
) -> Vec<ShiftedBin> {
    let (n, m): (u64, u64) = (before.iter().sum(), now.iter().sum());
    if n == 0 || m == 0 {
        return Vec::new();
    }
    let bin = |at: usize| ShiftedBin {
        bin: name(at),
        reference: before[at] as f64 / n as f64,
        live: now[at] as f64 / m as f64,
    };
    let mut bins: Vec<ShiftedBin> = (0..before.len()).map(bin).collect();
    let change = |bin: &ShiftedBin| (bin.live - bin.reference).abs();
    bins.sort_by(|a, b| change(b).partial_cmp(&change(a)).unwrap_or(Ordering::Equal));
    bins.truncate(SHIFTED);
    bins.retain(|bin| change(bin) > 0.0);
    bins
}

/// Categories for people, and the counts of both sides: those that are known, and if what is outside is `new`, the most frequent of it.
pub(super) fn named(
    known: &[String],
    before: &Labels,
    live: &Labels,
    new: bool,
) -> (Vec<String>, (Vec<u64>, Vec<u64>)) {
    let mut names = known.to_vec();
    let mut counts: (Vec<u64>, Vec<u64>) =
        known.iter().map(|name| (before.count_of(name), live.count_of(name))).unzip();
    let mut others = live.beyond(known);
    if new {
        let known: HashSet<&str> = known.iter().map(String::as_str).collect();
        let kept = live.counts().into_iter().filter(|(name, count)| *count > 0 && !known.contains(name));
        for (name, count) in kept.take(SHIFTED) {
            names.push(name.to_owned());
            counts.0.push(0);
            counts.1.push(count);
            others = others.saturating_sub(count);
        }
    }
    names.push("others".to_owned());
    counts.0.push(before.beyond(known));
    counts.1.push(others);
    (names, counts)
}
