//! Live counts beside those of a reference: how far apart they are, and whether that is more than chance.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::{
    drift::{
        Shares, Sizes, Zeros, benjamini_hochberg, bonferroni, chi_square_contingency, ks_binned, psi_chi_square_limit,
    },
    pane::{Columns, EdgePane},
    reference::{Reference, ReferenceColumn},
    report::{ColumnKind, ColumnReport, EdgeReport, Measure, Quantile, SegmentReport, Shape, ShiftedBin},
    sketch::{Labels, Numbers, Sketch, Spectrum},
};

/// When a column has drifted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criterion {
    /// Whose measures, bins and thresholds.
    pub profile: Profile,
    /// How often columns that have not drifted may be said to have: the false discovery rate, or what `discovery` says.
    pub alpha: f64,
    /// PSI below which a column has not drifted, however sure the difference is.
    pub at_least: f64,
    /// Rows below which nothing is said.
    pub min_rows: u64,
    /// What is done about many columns being asked at once.
    pub discovery: Discovery,
}

/// Whose measures and thresholds decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// PSI in bins of equal parts, more than chance and more than little.
    #[default]
    Millstream,
    /// MLRun's: the mean of total variation and Hellinger distance; 0.5 is suspected, 0.7 detected.
    Mlrun,
    /// Evidently's: KS and chi-square up to 1000 reference rows, Wasserstein and Jensen-Shannon distance of 0.1 above.
    Evidently,
    /// NannyML's: Jensen-Shannon distance to base 2 of 0.1.
    Nannyml,
}

/// What is done about many columns being asked at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// The share of false ones among those said to have drifted is bounded (Benjamini and Hochberg).
    #[default]
    Rate,
    /// The chance that any is false is bounded (Bonferroni).
    Any,
    /// Each column is asked by itself.
    Each,
}

impl Default for Criterion {
    fn default() -> Self {
        Self { profile: Profile::default(), alpha: 0.05, at_least: 0.1, min_rows: 100, discovery: Discovery::default() }
    }
}

/// MLRun's threshold of detected drift.
const MLRUN_DETECTED: f64 = 0.7;
/// Evidently's and NannyML's threshold of distances.
const DISTANCE: f64 = 0.1;
/// Reference rows up to which Evidently tests, and does not measure.
const EVIDENTLY_TESTED: u64 = 1000;
/// Bins and categories that are named as having changed most.
const SHIFTED: usize = 5;

/// What each of the edges carried, beside its reference if it has one. Verdicts are over all of their columns together.
pub fn compare(edges: &[(&str, &EdgePane, Option<&Reference>, Criterion)]) -> Vec<EdgeReport> {
    let mut reports: Vec<EdgeReport> = edges
        .iter()
        .map(|(name, pane, reference, criterion)| EdgeReport {
            edge: (*name).to_owned(),
            columns: pane
                .columns
                .iter()
                .map(|(column, sketch)| {
                    let mut report = described(column, sketch);
                    if let Some(reference) = reference {
                        measure(&mut report, sketch, reference, criterion);
                        report.segments = segments(column, pane, reference, criterion);
                    } else {
                        report.note = Some("there is no reference".to_owned());
                    }
                    report
                })
                .collect(),
        })
        .collect();
    let criteria: BTreeMap<&str, Criterion> = edges.iter().map(|(name, .., criterion)| (*name, *criterion)).collect();
    judge(&mut reports, &criteria);
    reports
}

/// The leading measure of a column, if there are rows enough to say anything.
pub fn leading(column: &str, sketch: &Sketch, reference: &Reference, criterion: &Criterion) -> Option<f64> {
    let mut report = ColumnReport { column: column.to_owned(), rows: sketch.rows(), ..ColumnReport::default() };
    measure(&mut report, sketch, reference, criterion);
    report.measures.first().map(|measure| measure.value)
}

fn described(column: &str, sketch: &Sketch) -> ColumnReport {
    let report =
        ColumnReport { column: column.to_owned(), rows: sketch.rows(), nulls: sketch.nulls(), ..ColumnReport::default() };
    match sketch {
        Sketch::Numbers(numbers) => {
            let spectrum = numbers.spectrum();
            let quantile = |at: f64| Some(Quantile { at, value: spectrum.quantile(at)? });
            ColumnReport {
                nans: numbers.nans(),
                infinities: numbers.infinities(),
                mean: spectrum.mean(),
                std: spectrum.std(),
                min: numbers.range().map(|range| range.0),
                max: numbers.range().map(|range| range.1),
                quantiles: [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99].into_iter().filter_map(quantile).collect(),
                live: histogram(numbers, &borders(numbers, None)),
                ..report
            }
        }
        Sketch::Labels(labels) => ColumnReport {
            kind: ColumnKind::Categorical,
            distinct: Some(labels.distinct()),
            live: frequencies(labels),
            ..report
        },
        Sketch::Presence(_) => {
            ColumnReport { note: Some("values of this type are only counted".to_owned()), ..report }
        }
    }
}

fn measure(report: &mut ColumnReport, sketch: &Sketch, reference: &Reference, criterion: &Criterion) {
    let Some((bins, known)) = reference.column(&report.column).zip(reference.pane.columns.get(&report.column)) else {
        report.note = Some("the reference has no such column".to_owned());
        return;
    };
    let (before, now) = match (sketch, known, bins) {
        (Sketch::Numbers(live), Sketch::Numbers(before), ReferenceColumn::Numeric { edges }) => {
            let borders = borders(live, Some(before));
            report.reference = Some(histogram(before, &borders));
            report.live = histogram(live, &borders);
            let counts = (before.counts_in(edges), live.counts_in(edges));
            report.shifted = shifted(&counts, |bin| interval(edges, bin));
            counts
        }
        (Sketch::Labels(live), Sketch::Labels(before), ReferenceColumn::Categorical { .. }) => {
            report.reference = Some(frequencies(before));
            report.unseen = live.unseen();
            let (names, counts) = aligned(before, live);
            report.shifted = shifted(&counts, |bin| names[bin].clone());
            counts
        }
        _ => {
            report.note = Some("the reference has values of another type in this column".to_owned());
            return;
        }
    };
    let (n, m): (u64, u64) = (before.iter().sum(), now.iter().sum());
    if n < criterion.min_rows || m < criterion.min_rows {
        let (few, whose) = if n < m { (n, "of the reference") } else { (m, "so far") };
        report.note = Some(format!("{few} values {whose} are too few to say; {} are enough", criterion.min_rows));
        return;
    }
    if let Ok(shares) = Shares::new(&before, &now) {
        report.measures = measures(&Counted { before: &before, now: &now, shares: &shares }, known, sketch, criterion);
    }
}

/// Counts of one column in the bins of its reference.
struct Counted<'c> {
    before: &'c [u64],
    now: &'c [u64],
    shares: &'c Shares,
}

/// Every measure of the profile, the one that decides first.
fn measures(counted: &Counted<'_>, before: &Sketch, now: &Sketch, criterion: &Criterion) -> Vec<Measure> {
    let shares = counted.shares;
    let distance = |name: &str, value: f64, threshold: Option<f64>| Measure {
        name: name.to_owned(),
        value,
        threshold,
        p_value: None,
        drifted: threshold.is_some_and(|threshold| value >= threshold),
    };
    let chi_square = chi_square_contingency(counted.before, counted.now).ok().map(|test| Measure {
        name: "chi_square".to_owned(),
        value: test.statistic,
        threshold: None,
        p_value: Some(test.p_value),
        drifted: test.p_value < criterion.alpha,
    });
    let (ks, wasserstein) = match (before, now) {
        (Sketch::Numbers(before), Sketch::Numbers(now)) => {
            let (centres, before_counts, now_counts) = common(before.spectrum(), now.spectrum());
            let ks = ks_binned(&before_counts, &now_counts).ok().map(|test| Measure {
                name: "ks".to_owned(),
                value: test.statistic,
                threshold: None,
                p_value: Some(test.p_value),
                drifted: test.p_value < criterion.alpha,
            });
            let scale = before.spectrum().std().unwrap_or(0.0).max(1e-3);
            let moved = earth_moved(&centres, &before_counts, &now_counts) / scale;
            (ks, Some(distance("wasserstein", moved, Some(DISTANCE))))
        }
        _ => (None, None),
    };
    let psi = || {
        let (reference, live) = (counted.before.iter().sum(), counted.now.iter().sum());
        let sizes = Sizes { reference: Some(reference), live };
        let limit = psi_chi_square_limit(criterion.alpha, counted.before.len(), sizes);
        let threshold = limit.max(criterion.at_least);
        let p_value = chi_square.as_ref().and_then(|test| test.p_value);
        Measure { p_value, ..distance("psi", shares.psi(Zeros::default()), Some(threshold)) }
    };
    let mut measures = match criterion.profile {
        Profile::Millstream => vec![psi()],
        Profile::Mlrun => {
            let value = f64::midpoint(shares.tvd(), shares.hellinger());
            vec![
                distance("general_drift", value, Some(MLRUN_DETECTED)),
                distance("kld", shares.symmetric_kl(), None),
            ]
        }
        Profile::Evidently if before.rows() - before.nulls() <= EVIDENTLY_TESTED => {
            ks.clone().or_else(|| chi_square.clone()).into_iter().collect()
        }
        Profile::Evidently => {
            let js = || distance("js", shares.js_distance(), Some(DISTANCE));
            vec![wasserstein.clone().unwrap_or_else(js)]
        }
        Profile::Nannyml => vec![distance("js", shares.js_distance_base2(), Some(DISTANCE))],
    };
    let others = [
        Some(psi()),
        Some(distance("js", shares.js_distance_base2(), None)),
        Some(distance("hellinger", shares.hellinger(), None)),
        Some(distance("kl", shares.kl(Zeros::default()), None)),
        Some(distance("tvd", shares.tvd(), None)),
        Some(distance("l_infinity", shares.l_infinity(), None)),
        ks,
        wasserstein.map(|measure| Measure { threshold: None, drifted: false, ..measure }),
        chi_square,
    ];
    for other in others.into_iter().flatten() {
        if !measures.iter().any(|measure| measure.name == other.name) {
            measures.push(other);
        }
    }
    measures
}

/// The verdicts: of a test, by all its p-values together; of a distance, by its threshold.
fn judge(reports: &mut [EdgeReport], criteria: &BTreeMap<&str, Criterion>) {
    for discovery in [Discovery::Rate, Discovery::Any, Discovery::Each] {
        let mut asked: Vec<(&mut ColumnReport, Criterion)> = reports
            .iter_mut()
            .filter_map(|edge| Some((criteria.get(&*edge.edge)?, edge)))
            .filter(|(criterion, _)| criterion.discovery == discovery)
            .flat_map(|(criterion, edge)| edge.columns.iter_mut().map(|column| (column, *criterion)))
            .filter(|(column, _)| !column.measures.is_empty())
            .collect();
        let p_values: Vec<f64> = asked.iter().map(|(column, _)| column.measures[0].p_value.unwrap_or(1.0)).collect();
        let adjusted = match discovery {
            Discovery::Rate => benjamini_hochberg(&p_values),
            Discovery::Any => bonferroni(&p_values),
            Discovery::Each => Ok(p_values.clone()),
        };
        let adjusted = adjusted.unwrap_or(p_values);
        for ((column, criterion), p_value) in asked.iter_mut().zip(adjusted) {
            let Some(leading) = column.measures.first_mut() else { continue };
            let sure = leading.p_value.is_none() || p_value < criterion.alpha;
            let large = leading.threshold.is_none_or(|threshold| leading.value >= threshold);
            leading.drifted = sure && large;
            column.drifted = Some(leading.drifted);
        }
    }
}

fn segments(column: &str, pane: &EdgePane, reference: &Reference, criterion: &Criterion) -> Vec<SegmentReport> {
    let mut reports = Vec::new();
    for (by, live) in &pane.segments {
        let before = reference.pane.segments.get(by);
        let mut add = |name: String, columns: &Columns, before: Option<&Columns>| {
            let Some(sketch) = columns.get(column) else { return };
            let mut report = ColumnReport { column: column.to_owned(), ..ColumnReport::default() };
            if let Some(before) = before {
                // The segment's own reference: that it differs from the others is no drift.
                let pane = EdgePane { columns: before.clone(), ..EdgePane::default() };
                measure(&mut report, sketch, &reference.with_pane(pane), criterion);
            }
            let leading = report.measures.first();
            reports.push(SegmentReport {
                segment: format!("{by} = {name}"),
                rows: sketch.rows(),
                value: leading.map(|measure| measure.value),
                drifted: leading.map(|measure| {
                    measure.drifted && measure.p_value.is_none_or(|p_value| p_value < criterion.alpha)
                }),
            });
        };
        let mut named: Vec<_> = live.iter().filter(|(_, columns, _)| columns.values().any(|sketch| sketch.rows() > 0)).collect();
        named.sort_by(|a, b| a.0.cmp(b.0));
        for (name, columns, _) in named {
            add(name.to_owned(), columns, before.and_then(|before| before.get(name)));
        }
        if let Some(rest) = live.rest() {
            add("others".to_owned(), rest, before.and_then(|before| before.rest()));
        }
    }
    reports
}

/// Categories of both sides, and their counts.
fn aligned(before: &Labels, live: &Labels) -> (Vec<String>, (Vec<u64>, Vec<u64>)) {
    let mut names: Vec<String> =
        before.counts().into_iter().chain(live.counts()).map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    let counts = |labels: &Labels| -> Vec<u64> {
        names.iter().map(|name| labels.count_of(name)).chain([labels.rest()]).collect()
    };
    let mut counts = (counts(before), counts(live));
    names.push("others".to_owned());
    // A category that neither side has says nothing.
    let used: Vec<usize> = (0..names.len()).filter(|&at| counts.0[at] + counts.1[at] > 0).collect();
    counts = (used.iter().map(|&at| counts.0[at]).collect(), used.iter().map(|&at| counts.1[at]).collect());
    (used.iter().map(|&at| std::mem::take(&mut names[at])).collect(), counts)
}

fn shifted((before, now): &(Vec<u64>, Vec<u64>), name: impl Fn(usize) -> String) -> Vec<ShiftedBin> {
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

fn interval(edges: &[f64], bin: usize) -> String {
    let edge = |at: usize| format!("{:.6}", edges[at]).trim_end_matches('0').trim_end_matches('.').to_owned();
    match (bin.checked_sub(1), bin < edges.len()) {
        (None, true) => format!("below {}", edge(bin)),
        (Some(below), true) => format!("{} to {}", edge(below), edge(bin)),
        (Some(below), false) => format!("{} and more", edge(below)),
        (None, false) => "all values".to_owned(),
    }
}

/// Bins for people: 30 of equal width over what lies between the first and the last hundredth of both sides.
fn borders(live: &Numbers, before: Option<&Numbers>) -> Vec<f64> {
    const BINS: usize = 30;
    let ends = |numbers: &Numbers| numbers.spectrum().quantile(0.01).zip(numbers.spectrum().quantile(0.99));
    let all = [Some(live), before].into_iter().flatten().filter_map(ends);
    let Some((low, high)) = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return Vec::new() };
    let width = (high - low) / BINS as f64;
    if !width.is_finite() || width <= 0.0 {
        return vec![low, low.next_up()];
    }
    let mut borders: Vec<f64> = (0..=BINS).map(|at| low + width * at as f64).collect();
    borders.dedup();
    borders
}

fn histogram(numbers: &Numbers, borders: &[f64]) -> Shape {
    let mut counts = numbers.counts_in(borders);
    let (above, below) = (counts.pop().unwrap_or(0), if counts.is_empty() { 0 } else { counts.remove(0) });
    Shape::Numeric { edges: borders.to_vec(), counts, below, above }
}

fn frequencies(labels: &Labels) -> Shape {
    const NAMED: usize = 20;
    let counts = labels.counts();
    let other = counts.iter().skip(NAMED).map(|(_, count)| count).sum::<u64>() + labels.rest();
    let named = counts.into_iter().take(NAMED).filter(|(_, count)| *count > 0);
    Shape::Categorical { counts: named.map(|(name, count)| (name.to_owned(), count)).collect(), other }
}

/// The buckets of both sides: their centres, in ascending order, and the counts of each side.
fn common(before: &Spectrum, now: &Spectrum) -> (Vec<f64>, Vec<u64>, Vec<u64>) {
    let mut buckets: Vec<(f64, [u64; 2])> = Vec::new();
    for (side, spectrum) in [before, now].into_iter().enumerate() {
        buckets.extend(spectrum.buckets().into_iter().map(|bucket| {
            let mut counts = [0; 2];
            counts[side] = bucket.count;
            (f64::midpoint(bucket.from, bucket.to), counts)
        }));
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = [kept.1[0] + next.1[0], kept.1[1] + next.1[1]];
        }
        same
    });
    let side = |side: usize| buckets.iter().map(|(_, counts)| counts[side]).collect();
    (buckets.iter().map(|(centre, _)| *centre).collect(), side(0), side(1))
}

/// The first Wasserstein distance of values at these points.
fn earth_moved(points: &[f64], before: &[u64], now: &[u64]) -> f64 {
    let total = |counts: &[u64]| counts.iter().sum::<u64>().max(1) as f64;
    let (n, m) = (total(before), total(now));
    let (mut below, mut live_below, mut moved) = (0, 0, 0.0);
    for (at, pair) in points.windows(2).enumerate() {
        below += before[at];
        live_below += now[at];
        moved += (below as f64 / n - live_below as f64 / m).abs() * (pair[1] - pair[0]);
    }
    moved
}
