//! Categories as numbers: how often each was seen in the reference.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FitError;

/// Categories of one column that are kept. A column with more is an identifier or free text, and fitting refuses it.
pub const MAX_CATEGORIES: usize = 10_000;

/// Replaces a category by its share of the reference rows. Made by [`FrequencyEncoding::fit`].
///
/// A missing value counts as the most frequent category, among equally frequent ones the first in order. A category that the
/// reference does not have is 0.
///
/// ```
/// use millstream_monitor::multivariate::FrequencyEncoding;
///
/// let encoding = FrequencyEncoding::fit("plan", [Some("free"), Some("paid"), Some("free"), None]).unwrap();
/// assert_eq!(encoding.encode(Some("free")), 0.75);
/// assert_eq!(encoding.encode(None), 0.75);
/// assert_eq!(encoding.encode(Some("trial")), 0.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrequencyEncoding {
    shares: BTreeMap<String, f64>,
    missing: f64,
}

impl FrequencyEncoding {
    /// Counts the categories of the reference; `None` is a missing value. `column` is named by errors only.
    ///
    /// # Errors
    /// There is no category, or there are more than [`MAX_CATEGORIES`].
    pub fn fit<'a>(
        column: &str,
        values: impl IntoIterator<Item = Option<&'a str>>,
    ) -> Result<Self, FitError> {
        let (mut counts, mut rows) = (BTreeMap::<&str, u64>::new(), 0_u64);
        for value in values {
            rows += 1;
            let Some(value) = value else { continue };
            *counts.entry(value).or_default() += 1;
            if counts.len() > MAX_CATEGORIES {
                return Err(FitError::TooManyCategories { column: column.to_owned(), most: MAX_CATEGORIES });
            }
        }
        let seen: u64 = counts.values().sum();
        // The last maximum of the reversed order is the first category of the order.
        let Some(mode) = counts.iter().rev().max_by_key(|(_, count)| **count).map(|(mode, _)| *mode) else {
            return Err(FitError::NothingPresent { column: column.to_owned() });
        };
        counts.entry(mode).and_modify(|count| *count += rows - seen);
        let share = |count: u64| count as f64 / rows as f64;
        let missing = share(counts[mode]);
        let shares = counts.iter().map(|(category, &count)| ((*category).to_owned(), share(count))).collect();
        Ok(Self { shares, missing })
    }

    /// The share of the reference rows that have this category; `None` is a missing value.
    pub fn encode(&self, value: Option<&str>) -> f64 {
        value.map_or(self.missing, |value| self.shares.get(value).copied().unwrap_or(0.0))
    }
}
