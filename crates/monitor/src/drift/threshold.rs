//! From when on a distance is drift: limits that know how large the samples were.
//!
//! Let N and M values of one distribution be counted into B bins. With π the shares of that distribution, the statistic
//! X² = Σ (p - q)² / π is close to (1/N + 1/M) times a chi-square variable of B - 1 degrees of freedom. For small
//! differences the distances between histograms are multiples of it, as their second derivatives at p = q show:
//!
//! | distance | about |
//! |---|---|
//! | PSI, symmetric KL | X² |
//! | KL | X² / 2 |
//! | Jensen-Shannon divergence (nats) | X² / 8 |
//! | squared Hellinger distance | X² / 8 |
//!
//! so a limit that a share α of pairs without drift exceeds is that multiple of (1/N + 1/M) χ²₁₋α,B₋₁ (for PSI: Yurdakul,
//! 2018). The sum of absolute values in the total variation distance has no such law. Its mean and variance without drift
//! are known, and a gamma distribution of the same mean and variance gives the limit.
//!
//! All this is for bins of some five expected values or more on each side; with fewer, empty bins make PSI and KL larger
//! than the limit allows for.

use std::f64::consts::{FRAC_2_PI, LN_2};

use super::{
    distance::{Shares, Zeros},
    special::{chi_square_quantile, normal_quantile},
};

/// Above, the covariance of every two bins takes too long, and the total variation distance is held to half the root of
/// the limit of X², which it never exceeds.
const MAX_COVARIANCE_BINS: usize = 1024;

/// A distance between histograms whose noise is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// [`Shares::psi`]; [`Shares::symmetric_kl`] is the same by MLRun's rule of zeros.
    Psi,
    /// [`Shares::kl`].
    Kl,
    /// [`Shares::js_divergence`], nats.
    JsDivergence,
    /// [`Shares::js_distance`], root of nats.
    JsDistance,
    /// [`Shares::js_distance_base2`], root of bits.
    JsDistanceBase2,
    /// [`Shares::hellinger`].
    Hellinger,
    /// [`Shares::tvd`].
    Tvd,
}

impl Measure {
    /// The distance. The rule of zeros matters to PSI and KL only.
    pub fn of(self, shares: &Shares, zeros: Zeros) -> f64 {
        match self {
            Self::Psi => shares.psi(zeros),
            Self::Kl => shares.kl(zeros),
            Self::JsDivergence => shares.js_divergence(),
            Self::JsDistance => shares.js_distance(),
            Self::JsDistanceBase2 => shares.js_distance_base2(),
            Self::Hellinger => shares.hellinger(),
            Self::Tvd => shares.tvd(),
        }
    }

    /// What the distance exceeds in a share `alpha` of pairs of samples without drift: [`Gate::ChiSquare`]'s limit.
    pub fn limit(self, shares: &Shares, alpha: f64) -> f64 {
        Gate::ChiSquare { alpha }.limit(self, shares)
    }

    /// The distance of two samples whose X² is `square`.
    fn of_square(self, square: f64) -> f64 {
        match self {
            Self::Psi => square,
            Self::Kl => square / 2.0,
            Self::JsDivergence => square / 8.0,
            Self::JsDistance | Self::Hellinger => (square / 8.0).sqrt(),
            Self::JsDistanceBase2 => (square / (8.0 * LN_2)).sqrt(),
            // Cauchy and Schwarz: Σ |p - q| is at most the root of X², as the shares sum to one.
            Self::Tvd => square.sqrt() / 2.0,
        }
    }
}

/// From when on a distance is drift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// Above a number, whatever the samples' sizes.
    Fixed(f64),
    /// Above what a share `alpha` of pairs without drift exceeds.
    ChiSquare {
        /// Share of false alarms, such as 0.05.
        alpha: f64,
    },
    /// The same with a normal distribution in place of the chi-square one: too low a limit for few bins, known from
    /// Yurdakul's paper and other tools.
    Normal {
        /// Share of false alarms, such as 0.05.
        alpha: f64,
    },
}

impl Default for Gate {
    /// Corrected for the samples' sizes, one false alarm in twenty.
    fn default() -> Self {
        Self::ChiSquare { alpha: 0.05 }
    }
}

impl Gate {
    /// The number that a distance of these shares has to exceed.
    pub fn limit(self, measure: Measure, shares: &Shares) -> f64 {
        let (n, m) = shares.totals();
        let scale = 1.0 / n + 1.0 / m;
        // A bin that both sides lack is no degree of freedom.
        let bins =
            shares.reference().iter().zip(shares.live()).filter(|(p, q)| **p > 0.0 || **q > 0.0).count();
        let moments = (measure == Measure::Tvd && bins <= MAX_COVARIANCE_BINS).then(|| tvd_moments(shares));
        match (self, moments) {
            (Self::Fixed(limit), _) => limit,
            (Self::ChiSquare { alpha }, None) => measure.of_square(scale * chi_square(alpha, bins)),
            (Self::Normal { alpha }, None) => measure.of_square(scale * normal(alpha, bins)),
            (Self::ChiSquare { alpha }, Some((mean, variance))) => gamma_quantile(alpha, mean, variance),
            (Self::Normal { alpha }, Some((mean, variance))) => normal_of(alpha, mean, variance),
        }
    }

    /// The distance of these shares, its limit, and whether it is drift.
    pub fn judge(self, measure: Measure, zeros: Zeros, shares: &Shares, minimum: Minimum) -> Judgement {
        let (value, limit) = (measure.of(shares, zeros), self.limit(measure, shares));
        let (reference, live) = shares.totals();
        let verdict = minimum.verdict(reference as u64, live as u64, value > limit);
        Judgement { value, limit, verdict }
    }
}

/// A distance and what it was held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The distance.
    pub value: f64,
    /// What it has to exceed.
    pub limit: f64,
    /// Whether it does.
    pub verdict: Verdict,
}

/// What is said of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There are too few values to say anything.
    TooFew,
    /// What was seen is noise.
    Steady,
    /// What was seen is more than noise.
    Drifted,
}

/// How many values each sample has to have before anything is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minimum {
    /// Values of the reference.
    pub reference: u64,
    /// Live values.
    pub live: u64,
}

impl Default for Minimum {
    /// 50 of each: five for each of ten bins, from where the chi-square law holds.
    fn default() -> Self {
        Self { reference: 50, live: 50 }
    }
}

impl Minimum {
    /// The verdict of a test, unless there were too few values. For tests with a p-value, `drifted` is `p_value < alpha`.
    ///
    /// ```
    /// use millstream_monitor::drift::{Minimum, Verdict};
    ///
    /// let p_value = 0.003;
    /// assert_eq!(Minimum::default().verdict(1000, 200, p_value < 0.05), Verdict::Drifted);
    /// assert_eq!(Minimum::default().verdict(1000, 3, p_value < 0.05), Verdict::TooFew);
    /// ```
    pub fn verdict(self, reference: u64, live: u64, drifted: bool) -> Verdict {
        if reference < self.reference || live < self.live {
            Verdict::TooFew
        } else if drifted {
            Verdict::Drifted
        } else {
            Verdict::Steady
        }
    }
}

/// Number of values of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of the reference; none where its shares are taken as known exactly.
    pub reference: Option<u64>,
    /// Of the live sample.
    pub live: u64,
}

impl Sizes {
    /// 1/N + 1/M, infinite where there is no value.
    fn scale(self) -> f64 {
        self.reference.map_or(0.0, |n| 1.0 / n as f64) + 1.0 / self.live as f64
    }
}

/// The limit of PSI over so many bins: χ²₁₋α,B₋₁ (1/N + 1/M).
///
/// ```
/// use millstream_monitor::drift::{Sizes, psi_chi_square_limit};
///
/// let limit = psi_chi_square_limit(0.05, 10, Sizes { reference: Some(200), live: 200 });
/// assert!((limit - 0.16919).abs() < 1e-5);
/// ```
pub fn psi_chi_square_limit(alpha: f64, bins: usize, sizes: Sizes) -> f64 {
    sizes.scale() * chi_square(alpha, bins)
}

/// The limit of PSI by the normal distribution: (B - 1 + z₁₋α √(2 (B - 1))) (1/N + 1/M).
pub fn psi_normal_limit(alpha: f64, bins: usize, sizes: Sizes) -> f64 {
    sizes.scale() * normal(alpha, bins)
}

fn chi_square(alpha: f64, bins: usize) -> f64 {
    chi_square_quantile(alpha, bins.saturating_sub(1) as f64)
}

fn normal(alpha: f64, bins: usize) -> f64 {
    let freedom = bins.saturating_sub(1) as f64;
    normal_of(alpha, freedom, 2.0 * freedom)
}

/// The number above which a share `alpha` of the normal distribution with this mean and variance lies, at least 0.
fn normal_of(alpha: f64, mean: f64, variance: f64) -> f64 {
    // Without variance there is no noise, whatever the level.
    if variance <= 0.0 { mean } else { (mean + normal_quantile(alpha) * variance.sqrt()).max(0.0) }
}

/// The number above which a share `alpha` of the gamma distribution with this mean and variance lies.
fn gamma_quantile(alpha: f64, mean: f64, variance: f64) -> f64 {
    if variance <= 0.0 {
        return mean;
    }
    // A gamma variable of shape k is half a chi-square variable of 2k degrees, times its scale.
    variance / mean / 2.0 * chi_square_quantile(alpha, 2.0 * mean * mean / variance)
}

/// Mean and variance of the total variation distance without drift.
///
/// The differences of shares are normal with variance (1/N + 1/M) π (1 - π) and correlation ρ = -√(o o') of the odds
/// o = π / (1 - π). For two standard normal variables E|x| = √(2/π) and Cov(|x|, |y|) = 2/π (√(1 - ρ²) + ρ asin ρ - 1).
fn tvd_moments(shares: &Shares) -> (f64, f64) {
    let (n, m) = shares.totals();
    let spread: Vec<(f64, f64)> = shares
        .reference()
        .iter()
        .zip(shares.live())
        .map(|(p, q)| (p * n + q * m) / (n + m))
        .filter(|share| *share > 0.0 && *share < 1.0)
        .map(|share| ((share * (1.0 - share)).sqrt(), (share / (1.0 - share)).sqrt()))
        .collect();
    let scale = 1.0 / n + 1.0 / m;
    let mean = (scale * FRAC_2_PI).sqrt() / 2.0 * spread.iter().map(|(deviation, _)| deviation).sum::<f64>();
    let mut covariance = 0.0;
    for (i, &(deviation, root)) in spread.iter().enumerate() {
        covariance += deviation * deviation * (1.0 / FRAC_2_PI - 1.0);
        for &(other_deviation, other_root) in &spread[..i] {
            let rho = -(root * other_root).min(1.0);
            covariance +=
                2.0 * deviation * other_deviation * ((1.0 - rho * rho).sqrt() + rho * rho.asin() - 1.0);
        }
    }
    (mean, scale * FRAC_2_PI / 4.0 * covariance)
}
