//! How far counts of a column lie apart from those of its reference.

use super::{Criterion, Profile};
use crate::{
    drift::{Shares, Sizes, Zeros, chi_square_contingency, ks_binned, psi_chi_square_limit},
    report::Measure,
    sketch::{Sketch, Spectrum},
};

/// MLRun's threshold of detected drift.
const MLRUN_DETECTED: f64 = 0.7;
/// Evidently's and NannyML's threshold of distances.
const DISTANCE: f64 = 0.1;
/// Reference rows up to which Evidently tests, and does not measure.
const EVIDENTLY_TESTED: u64 = 1000;

/// Counts of one column in the bins of its reference.
pub(super) struct Counted<'c> {
    pub(super) before: &'c [u64],
    pub(super) now: &'c [u64],
    pub(super) shares: &'c Shares,
}

/// Every measure of the profile, the one that decides first.
pub(super) fn measures(
    counted: &Counted<'_>,
    before: &Sketch,
    now: &Sketch,
    criterion: &Criterion,
) -> Vec<Measure> {
    let shares = counted.shares;
    let distance = |name: &str, value: f64, threshold: Option<f64>| Measure {
        name: name.to_owned(),
        value,
        threshold,
        p_value: None,
        drifted: threshold.is_some_and(|threshold| value >= threshold),
    };
    let tested = |name: &str, statistic: f64, p_value: f64| Measure {
        name: name.to_owned(),
        value: statistic,
        threshold: None,
        p_value: Some(p_value),
        drifted: p_value < criterion.alpha,
    };
    let chi_square = chi_square_contingency(counted.before, counted.now).ok();
    let chi_square = chi_square.map(|test| tested("chi_square", test.statistic, test.p_value));
    let (ks, wasserstein) = match (before, now) {
        (Sketch::Numbers(before), Sketch::Numbers(now)) => {
            let (centres, before_counts, now_counts) = common(before.spectrum(), now.spectrum());
            let ks = ks_binned(&before_counts, &now_counts).ok();
            let ks = ks.map(|test| tested("ks", test.statistic, test.p_value));
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
