//! MLRun's application `histogram-data-drift` (1.10): 20 bins over the training data and one on either side, three
//! distances per feature, one verdict for all features.
//!
//! Where MLRun is wrong, it is not followed: a result that rounding puts a little outside of 0 to 1 is no error, and a column
//! with missing values keeps its histogram, as the caller drops them.

use crate::drift::{DriftError, Frozen, Shares};

/// The three distances of one feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureDrift {
    /// Total variation distance.
    pub tvd: f64,
    /// Hellinger distance.
    pub hellinger: f64,
    /// Symmetric Kullback-Leibler divergence, nats.
    pub kld: f64,
}

impl FeatureDrift {
    /// Distances between two samples of a feature.
    pub fn of_samples(reference: &[f64], live: &[f64]) -> Result<Self, DriftError> {
        let frozen = Frozen::mlrun(reference)?;
        Ok(Self::of_shares(&frozen.shares(&frozen.bins().count(live))?))
    }

    /// Distances between two histograms over the bins of [`Frozen::mlrun`], or any others.
    pub fn of_shares(shares: &Shares) -> Self {
        Self {
            tvd: shares.tvd(),
            hellinger: (1.0 - shares.affinity()).max(0.0).sqrt(),
            kld: shares.symmetric_kl(),
        }
    }
}

/// The means over all features, and the result that the verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneralDrift {
    /// `tvd_mean`.
    pub tvd_mean: f64,
    /// `hellinger_mean`.
    pub hellinger_mean: f64,
    /// `kld_mean`, which is shown and not used.
    pub kld_mean: f64,
    /// `general_drift`, the mean of the first two, between 0 and 1.
    pub value: f64,
}

/// The result over features; none without features.
pub fn general_drift(features: &[FeatureDrift]) -> Option<GeneralDrift> {
    if features.is_empty() {
        return None;
    }
    let mean = |of: fn(&FeatureDrift) -> f64| features.iter().map(of).sum::<f64>() / features.len() as f64;
    let (tvd_mean, hellinger_mean) = (mean(|f| f.tvd), mean(|f| f.hellinger));
    let value = f64::midpoint(tvd_mean, hellinger_mean).clamp(0.0, 1.0);
    Some(GeneralDrift { tvd_mean, hellinger_mean, kld_mean: mean(|f| f.kld), value })
}

/// What MLRun says of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Below both thresholds.
    NoDetection,
    /// At the lower threshold or above.
    PotentialDetection,
    /// At the upper threshold or above.
    Detected,
}

/// MLRun's two thresholds, 0 < potential < detected < 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classifier {
    potential: f64,
    detected: f64,
}

impl Default for Classifier {
    /// 0.5 and 0.7.
    fn default() -> Self {
        Self { potential: 0.5, detected: 0.7 }
    }
}

impl Classifier {
    /// Other thresholds.
    pub fn new(potential: f64, detected: f64) -> Result<Self, DriftError> {
        if 0.0 < potential && potential < detected && detected < 1.0 {
            Ok(Self { potential, detected })
        } else {
            Err(DriftError::BadThresholds { potential, detected })
        }
    }

    /// The verdict of a result. Where MLRun refuses one of 1 + 1e-16, it is drift here.
    ///
    /// ```
    /// use millstream_monitor::drift::profile::mlrun::{Classifier, Status};
    ///
    /// assert_eq!(Classifier::default().status(0.5), Status::PotentialDetection);
    /// assert_eq!(Classifier::default().status(1.0 + 1e-15), Status::Detected);
    /// ```
    pub fn status(self, value: f64) -> Status {
        if value >= self.detected {
            Status::Detected
        } else if value >= self.potential {
            Status::PotentialDetection
        } else {
            Status::NoDetection
        }
    }
}
