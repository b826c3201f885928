//! Live counts beside those of a reference: how far apart they are, and whether that is more than chance.

mod shape;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BTreeMap, HashSet},
};

pub use self::shape::bin_borders;
use self::shape::{borders, frequencies, histogram, interval};
use crate::{
    drift::{
        Shares, Sizes, Zeros, benjamini_hochberg, bonferroni, chi_square_contingency, ks_binned,
        psi_chi_square_limit,
    },
    pane::{Columns, EdgePane},
    reference::{Reference, ReferenceColumn},
    report::{ColumnKind, ColumnReport, EdgeReport, Measure, Quantile, SegmentReport, ShiftedBin},
    sketch::{Labels, Sketch, Spectrum},
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
        Self::of(Profile::default())
    }
}

impl Criterion {
    /// That of a profile. Other tools ask each column by itself.
    pub const fn of(profile: Profile) -> Self {
        let discovery = match profile {
            Profile::Millstream => Discovery::Rate,
            Profile::Mlrun | Profile::Evidently | Profile::Nannyml => Discovery::Each,
        };
        Self { profile, alpha: 0.05, at_least: 0.1, min_rows: 100, discovery }
    }
}

/// MLRun's threshold of detected drift.
const MLRUN_DETECTED: f64 = 0.7;
/// Evidently's and NannyML's threshold of distances.
const DISTANCE: f64 = 0.1;
/// Reference rows up to which Evidently tests, and does not measure.
const EVIDENTLY_TESTED: u64 = 1000;
const TIMES: &str = "times move on: they are dated, and not compared";
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
            ..EdgeReport::default()
        })
        .collect();
    let criteria: BTreeMap<&str, Criterion> =
        edges.iter().map(|(name, .., criterion)| (*name, *criterion)).collect();
    judge(&mut reports, &criteria);
    reports
}

/// The leading measure of a column, if there are rows enough to say anything.
pub fn leading(column: &str, sketch: &Sketch, reference: &Reference, criterion: &Criterion) -> Option<f64> {
    let before = Before::of(reference, column)?;
    let measures = before.measures(&before.counts(sketch)?, sketch, criterion).ok()?;
    measures.first().map(|measure| measure.value)
}

fn described(column: &str, sketch: &Sketch) -> ColumnReport {
    let report = ColumnReport {
        column: column.to_owned(),
        rows: sketch.rows(),
        nulls: sketch.nulls(),
        ..ColumnReport::default()
    };
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
                quantiles: [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
                    .into_iter()
                    .filter_map(quantile)
                    .collect(),
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
        Sketch::Times(times) => ColumnReport {
            kind: ColumnKind::Time,
            min: times.range().map(|range| range.0 as f64),
            max: times.range().map(|range| range.1 as f64),
            note: Some(TIMES.to_owned()),
            ..report
        },
        Sketch::Presence(_) => {
            ColumnReport { note: Some("values of this type are only counted".to_owned()), ..report }
        }
    }
}

/// A column of a reference: how it is counted, and what was counted.
#[derive(Clone, Copy)]
struct Before<'b> {
    bins: &'b ReferenceColumn,
    sketch: &'b Sketch,
}

impl<'b> Before<'b> {
    fn of(reference: &'b Reference, column: &str) -> Option<Self> {
        let (bins, sketch) = reference.column(column).zip(reference.pane.columns.get(column))?;
        Some(Self { bins, sketch })
    }

    /// The counts of both sides in the bins of the reference. Of categories, those that the reference knows have a bin each, and all
    /// others share one: which of them have a name is another matter on each side.
    fn counts(self, live: &Sketch) -> Option<(Vec<u64>, Vec<u64>)> {
        match (live, self.sketch, self.bins) {
            (Sketch::Numbers(live), Sketch::Numbers(before), ReferenceColumn::Numeric { edges }) => {
                Some((before.counts_in(edges), live.counts_in(edges)))
            }
            (Sketch::Labels(live), Sketch::Labels(before), ReferenceColumn::Categorical { known }) => {
                let told = told(known, before, live);
                let counts = |labels: &Labels| -> Vec<u64> {
                    told.iter().map(|name| labels.count_of(name)).chain([labels.beyond(&told)]).collect()
                };
                // A category that neither side has says nothing.
                let used = |(before, now): &(u64, u64)| before + now > 0;
                Some(counts(before).into_iter().zip(counts(live)).filter(used).unzip())
            }
            _ => None,
        }
    }

    /// Every measure of the profile, if there are values enough to say anything; else why not.
    fn measures(
        self,
        (before, now): &(Vec<u64>, Vec<u64>),
        live: &Sketch,
        criterion: &Criterion,
    ) -> Result<Vec<Measure>, String> {
        let (n, m): (u64, u64) = (before.iter().sum(), now.iter().sum());
        if n < criterion.min_rows || m < criterion.min_rows {
            let (few, whose) = if n < m { (n, "of the reference") } else { (m, "so far") };
            return Err(format!(
                "{few} values {whose} are too few to say; {} are enough",
                criterion.min_rows
            ));
        }
        let shares = Shares::new(before, now).map_err(|error| error.to_string())?;
        Ok(measures(&Counted { before, now, shares: &shares }, self.sketch, live, criterion))
    }
}

fn measure(report: &mut ColumnReport, live: &Sketch, reference: &Reference, criterion: &Criterion) {
    if let Sketch::Times(_) = live {
        return;
    }
    let Some(before) = Before::of(reference, &report.column) else {
        report.note = Some("the reference has no such column".to_owned());
        return;
    };
    let Some(counts) = before.counts(live) else {
        report.note = Some("the reference has values of another type in this column".to_owned());
        return;
    };
    match before.measures(&counts, live, criterion) {
        Ok(measures) => report.measures = measures,
        Err(note) => report.note = Some(note),
    }
    match (live, before.sketch, before.bins) {
        (Sketch::Numbers(live), Sketch::Numbers(numbers), ReferenceColumn::Numeric { edges }) => {
            let borders = borders(live, Some(numbers));
            report.reference = Some(histogram(numbers, &borders));
            report.live = histogram(live, &borders);
            report.shifted = shifted(&counts, |bin| interval(edges, bin));
        }
        (Sketch::Labels(labels), Sketch::Labels(before), ReferenceColumn::Categorical { known }) => {
            report.reference = Some(frequencies(before));
            let unseen = reference.unseen(&report.column, live);
            report.unseen = unseen.unwrap_or(0);
            if unseen.is_none() {
                let whose = if before.beyond(known) > 0 { "the reference has" } else { "there are" };
                let note =
                    || format!("{whose} more categories than are kept: which values are new is not known");
                report.note.get_or_insert_with(note);
            }
            let (names, counts) = named(&told(known, before, labels), before, labels, unseen.is_some());
            report.shifted = shifted(&counts, |bin| names[bin].clone());
        }
        _ => {}
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

/// The verdicts: of tests, by their p-values together; of a distance without one, by its threshold alone.
fn judge(reports: &mut [EdgeReport], criteria: &BTreeMap<&str, Criterion>) {
    for discovery in [Discovery::Rate, Discovery::Any, Discovery::Each] {
        let mut asked: Vec<(&mut ColumnReport, Criterion)> = reports
            .iter_mut()
            .filter_map(|edge| Some((criteria.get(&*edge.edge)?, edge)))
            .filter(|(criterion, _)| criterion.discovery == discovery)
            .flat_map(|(criterion, edge)| edge.columns.iter_mut().map(|column| (column, *criterion)))
            .filter(|(column, _)| !column.measures.is_empty())
            .collect();
        // Only columns that are tested are among the tests.
        let p_values: Vec<f64> =
            asked.iter().filter_map(|(column, _)| column.measures.first()?.p_value).collect();
        let adjusted = match discovery {
            Discovery::Rate => benjamini_hochberg(&p_values),
            Discovery::Any => bonferroni(&p_values),
            Discovery::Each => Ok(p_values.clone()),
        };
        let mut adjusted = adjusted.unwrap_or(p_values).into_iter();
        for (column, criterion) in &mut asked {
            let Some(leading) = column.measures.first_mut() else { continue };
            let p_value = leading.p_value.and_then(|_| adjusted.next());
            let sure = p_value.is_none_or(|p_value| p_value < criterion.alpha);
            let large = leading.threshold.is_none_or(|threshold| leading.value >= threshold);
            leading.drifted = sure && large;
            column.drifted = Some(leading.drifted);
        }
    }
}

fn segments(
    column: &str,
    pane: &EdgePane,
    reference: &Reference,
    criterion: &Criterion,
) -> Vec<SegmentReport> {
    let mut reports = Vec::new();
    let bins = reference.column(column);
    for (by, live) in &pane.segments {
        let all_before = reference.pane.segments.get(by);
        let mut add = |name: &str, columns: &Columns, before: Option<&Columns>| {
            let Some(sketch) = columns.get(column) else { return };
            // The segment's own reference: that it differs from the others is no drift.
            let before = bins.zip(before.and_then(|before| before.get(column)));
            let before = before.map(|(bins, sketch)| Before { bins, sketch });
            let measures =
                before.and_then(|before| before.measures(&before.counts(sketch)?, sketch, criterion).ok());
            let leading = measures.as_ref().and_then(|measures| measures.first());
            reports.push(SegmentReport {
                segment: format!("{by} = {name}"),
                rows: sketch.rows(),
                value: leading.map(|measure| measure.value),
                drifted: leading.map(|measure| {
                    measure.drifted && measure.p_value.is_none_or(|p_value| p_value < criterion.alpha)
                }),
            });
        };
        let mut named: Vec<_> =
            live.iter().filter(|(_, columns, _)| columns.values().any(|sketch| sketch.rows() > 0)).collect();
        named.sort_by(|a, b| a.0.cmp(b.0));
        for (name, columns, _) in named {
            add(name, columns, all_before.and_then(|before| before.get(name)));
        }
        if let Some(rest) = live.rest() {
            add("others", rest, all_before.and_then(|before| before.rest()));
        }
    }
    reports
}

/// Those of the categories whose counts both sides know. All of them, where live values were counted beside the reference.
fn told<'k>(known: &'k [String], before: &Labels, live: &Labels) -> Cow<'k, [String]> {
    let both = |name: &String| before.tells(name) && live.tells(name);
    match known.iter().all(both) {
        true => known.into(),
        false => known.iter().filter(|name| both(name)).cloned().collect::<Vec<_>>().into(),
    }
}

/// Categories for people, and the counts of both sides: those that are known, and if what is outside is `new`, the most frequent of it.
fn named(known: &[String], before: &Labels, live: &Labels, new: bool) -> (Vec<String>, (Vec<u64>, Vec<u64>)) {
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
