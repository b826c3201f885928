//! Whose measures say that a column has drifted, and from where on.

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
