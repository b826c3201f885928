//! Distances between two histograms over the same bins.

use std::f64::consts::LN_2;

use super::error::{DriftError, Side, same_bins, total};

/// How bins that are empty on one side are treated where a logarithm is taken of them. PSI and KL of the same counts
/// differ by this more than by anything else, so it is part of the number's name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Zeros {
    /// An empty bin has this share. The others stay as they are, so the shares sum to a little more than one.
    Floor(f64),
    /// As Evidently does: an empty bin has the share 1e-4, or a millionth of the side's smallest one where that is at most
    /// 1e-4. KL is taken of shares that sum to one again, PSI is not.
    Evidently,
    /// As MLRun does: a term whose first share is 0 is 0, a second share of 0 is 1e-4.
    MlRun,
    /// As Hopsworks does: this is added to each count (1e-6 there), and the shares sum to one.
    Epsilon(f64),
}

impl Default for Zeros {
    /// A floor of 1e-4.
    fn default() -> Self {
        Self::Floor(SMALL)
    }
}

/// The share that most tools give to an empty bin.
const SMALL: f64 = 1e-4;

/// Two histograms over the same bins, as shares of their totals: p of the reference, q of the live side. Both have at
/// least one value.
///
/// ```
/// use millstream_monitor::drift::{Shares, Zeros};
///
/// let shares = Shares::new(&[50, 30, 20], &[20, 30, 50])?;
/// assert!((shares.psi(Zeros::default()) - 0.5497744391).abs() < 1e-9);
/// assert!((shares.tvd() - 0.3).abs() < 1e-12);
/// # Ok::<(), millstream_monitor::drift::DriftError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Shares {
    reference: Vec<f64>,
    live: Vec<f64>,
    /// Number of values of each side; 1 where only shares are known.
    totals: (f64, f64),
}

impl Shares {
    /// Shares of counts.
    pub fn new(reference: &[u64], live: &[u64]) -> Result<Self, DriftError> {
        let totals = (total(reference, Side::Reference)?, total(live, Side::Live)?);
        Self::of_totals(reference, live, totals)
    }

    /// Shares where values lie outside of all bins: the totals count them too.
    pub(super) fn of_totals(reference: &[u64], live: &[u64], totals: (f64, f64)) -> Result<Self, DriftError> {
        same_bins(reference.len(), live.len())?;
        let shares = |counts: &[u64], total: f64| counts.iter().map(|&count| count as f64 / total).collect();
        Ok(Self { reference: shares(reference, totals.0), live: shares(live, totals.1), totals })
    }

    /// Shares that are known without counts, taken as they are, whether or not they sum to one.
    pub fn of_fractions(reference: &[f64], live: &[f64]) -> Result<Self, DriftError> {
        same_bins(reference.len(), live.len())?;
        for (shares, side) in [(reference, Side::Reference), (live, Side::Live)] {
            if let Some(index) = shares.iter().position(|share| !share.is_finite() || *share < 0.0) {
                return Err(DriftError::BadShare { side, index, value: shares[index] });
            }
            if shares.iter().all(|share| *share == 0.0) {
                return Err(DriftError::Empty { side });
            }
        }
        Ok(Self { reference: reference.to_vec(), live: live.to_vec(), totals: (1.0, 1.0) })
    }

    /// The reference's shares, bin by bin.
    pub fn reference(&self) -> &[f64] {
        &self.reference
    }

    /// The live shares, bin by bin.
    pub fn live(&self) -> &[f64] {
        &self.live
    }

    /// Number of values of the reference and of the live side.
    pub fn totals(&self) -> (f64, f64) {
        self.totals
    }

    /// Population stability index, Σ (p - q) ln(p / q), in nats, from 0 on. It is the symmetric KL divergence.
    pub fn psi(&self, zeros: Zeros) -> f64 {
        let (p, q) = self.filled(zeros);
        directed(&p, &q, zeros) + directed(&q, &p, zeros)
    }

    /// Kullback-Leibler divergence from the reference to the live side, Σ p ln(p / q), in nats. With a floor it can be
    /// slightly below zero, as the shares do not sum to one.
    pub fn kl(&self, zeros: Zeros) -> f64 {
        let (mut p, mut q) = self.filled(zeros);
        if zeros == Zeros::Evidently {
            normalise(&mut p);
            normalise(&mut q);
        }
        directed(&p, &q, zeros)
    }

    /// Symmetric Kullback-Leibler divergence as MLRun has it (`kld`), KL(q‖p) + KL(p‖q), in nats.
    pub fn symmetric_kl(&self) -> f64 {
        self.psi(Zeros::MlRun)
    }

    /// Jensen-Shannon divergence, half of KL(p‖m) + KL(q‖m) at m = (p + q) / 2, in nats: 0 to ln 2. Empty bins need no rule.
    pub fn js_divergence(&self) -> f64 {
        js_divergence(&self.reference, &self.live)
    }

    /// The Jensen-Shannon divergence of shares that have this rule of zeros applied, as Hopsworks takes it.
    pub fn js_divergence_with(&self, zeros: Zeros) -> f64 {
        let (p, q) = self.filled(zeros);
        js_divergence(&p, &q)
    }

    /// Jensen-Shannon distance, the root of the divergence in nats: 0 to √ln 2 (0.83). Evidently's.
    pub fn js_distance(&self) -> f64 {
        self.js_divergence().sqrt()
    }

    /// Jensen-Shannon distance to base 2, the root of the divergence in bits: 0 to 1. NannyML's.
    pub fn js_distance_base2(&self) -> f64 {
        (self.js_divergence() / LN_2).sqrt()
    }

    /// Hellinger distance, √(Σ (√p - √q)² / 2): 0 to 1.
    pub fn hellinger(&self) -> f64 {
        (self.pairs().map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2)).sum::<f64>() / 2.0).sqrt()
    }

    /// Bhattacharyya's coefficient, Σ √(p q): 1 of equal shares, 0 of shares without a common bin.
    pub fn affinity(&self) -> f64 {
        self.pairs().map(|(p, q)| (p * q).sqrt()).sum()
    }

    /// Total variation distance, Σ |p - q| / 2: 0 to 1, the share of values that would have to move.
    pub fn tvd(&self) -> f64 {
        self.pairs().map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0
    }

    /// L-infinity distance, max |p - q|: 0 to 1, the largest change of one bin.
    pub fn l_infinity(&self) -> f64 {
        self.pairs().map(|(p, q)| (p - q).abs()).fold(0.0, f64::max)
    }

    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> {
        self.reference.iter().copied().zip(self.live.iter().copied())
    }

    fn filled(&self, zeros: Zeros) -> (Vec<f64>, Vec<f64>) {
        (fill(&self.reference, self.totals.0, zeros), fill(&self.live, self.totals.1, zeros))
    }
}

fn fill(shares: &[f64], total: f64, zeros: Zeros) -> Vec<f64> {
    let floored = |floor: f64| shares.iter().map(|&share| if share == 0.0 { floor } else { share }).collect();
    match zeros {
        Zeros::Floor(floor) => floored(floor),
        Zeros::Evidently => {
            let smallest = shares.iter().copied().filter(|share| *share > 0.0).fold(f64::INFINITY, f64::min);
            floored(if smallest <= SMALL { smallest / 1e6 } else { SMALL })
        }
        Zeros::MlRun => shares.to_vec(),
        Zeros::Epsilon(epsilon) => {
            let all = 1.0 + epsilon * shares.len() as f64 / total;
            shares.iter().map(|share| (share + epsilon / total) / all).collect()
        }
    }
}

/// Σ a ln(a / b).
fn directed(a: &[f64], b: &[f64], zeros: Zeros) -> f64 {
    let missing = if zeros == Zeros::MlRun { SMALL } else { 0.0 };
    a.iter().zip(b).map(|(&a, &b)| relative_entropy(a, if b == 0.0 { missing } else { b })).sum()
}

fn relative_entropy(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a * (a / b).ln() }
}

fn js_divergence(p: &[f64], q: &[f64]) -> f64 {
    let (of_p, of_q) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
    let sum: f64 = p
        .iter()
        .zip(q)
        .map(|(p, q)| {
            let (p, q) = (p / of_p, q / of_q);
            let middle = (p + q) / 2.0;
            relative_entropy(p, middle) + relative_entropy(q, middle)
        })
        .sum();
    // Rounding can make the smallest sums negative.
    (sum / 2.0).max(0.0)
}

fn normalise(shares: &mut [f64]) {
    let sum: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
}
