//! Reconstruction errors of live rows, kept as sums whose addition is exact.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{LARGEST, Limits, NOISE, Reconstruction};
use crate::{pane::EdgePane, performance::ExactSum, report::MultivariateReport, sketch::Merge};

/// How badly rows were rebuilt. Those of parts of a stream add up to those of the whole, to the bit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rebuilt {
    rows: u64,
    skipped: u64,
    sum: ExactSum,
}

/// What was rebuilt of an edge, by the digests of the references: errors under one mean nothing under another.
pub type RebuiltBy = BTreeMap<u64, Rebuilt>;

/// Rebuilds rows of which only some columns are those of the reference.
pub(crate) struct Rebuilding {
    reconstruction: Arc<Reconstruction>,
    digest: u64,
    /// Where each column of the reference is in a row, if it is there.
    places: Vec<Option<usize>>,
    /// Room for one row.
    row: Vec<f64>,
    scratch: Vec<f64>,
    rebuilt: Rebuilt,
}

impl Rebuilt {
    /// Rows in the mean.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows whose error overflows.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The mean error of the rows, in standard deviations of the reference; none without rows.
    pub fn mean(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.sum.value() / self.rows as f64)
    }

    fn add(&mut self, error: f64) {
        if error.is_finite() && error < LARGEST {
            self.rows = self.rows.saturating_add(1);
            self.sum.add(error);
        } else {
            self.skipped = self.skipped.saturating_add(1);
        }
    }
}

impl Merge for Rebuilt {
    fn merge(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.sum.merge(&other.sum);
    }
}

impl Rebuilding {
    /// Of rows that have these columns.
    pub(crate) fn new(reconstruction: &Arc<Reconstruction>, columns: &[&str]) -> Self {
        let place = |wanted: &String| columns.iter().position(|column| column == wanted);
        Self {
            reconstruction: Arc::clone(reconstruction),
            digest: reconstruction.digest(),
            places: reconstruction.columns().iter().map(place).collect(),
            row: Vec::new(),
            scratch: Vec::new(),
            rebuilt: Rebuilt::default(),
        }
    }

    /// Rebuilds rows that lie one after the other, of as many values each. What is no number is missing.
    pub(crate) fn add(&mut self, rows: &[f64], width: usize) {
        let Self { reconstruction, places, row, scratch, rebuilt, .. } = self;
        for values in rows.chunks_exact(width.max(1)) {
            row.clear();
            let value = |place: &Option<usize>| place.and_then(|place| values.get(place).copied());
            row.extend(places.iter().map(|place| value(place).unwrap_or(f64::NAN)));
            // A row has as many values as the reference has columns.
            if let Ok(error) = reconstruction.error(row, scratch) {
                rebuilt.add(error);
            }
        }
    }

    /// What was rebuilt, and nothing is afterwards.
    pub(crate) fn take(&mut self) -> RebuiltBy {
        let rebuilt = std::mem::take(&mut self.rebuilt);
        (rebuilt != Rebuilt::default()).then_some((self.digest, rebuilt)).into_iter().collect()
    }
}

impl Reconstruction {
    /// The limits of the mean error of so many rows. Where they are fewer than those of a window of the reference, their mean varies
    /// more by chance, by the root of how much fewer they are, and the limits are as much wider.
    pub fn limits_of_rows(&self, rows: u64) -> Limits {
        let Limits { lower, upper } = self.limits;
        if rows == 0 || rows >= self.window_rows {
            return self.limits;
        }
        // Without a lower limit the mean of the windows is not known: it may be as low as zero.
        let reach = lower.map_or(upper, |lower| (upper - lower) / 2.0);
        let more = reach * ((self.window_rows as f64 / rows as f64).sqrt() - 1.0);
        Limits { lower: lower.map(|lower| lower - more).filter(|&lower| lower > NOISE), upper: upper + more }
    }

    /// A number for it: the errors of two with the same number are of the same rows and columns.
    pub fn digest(&self) -> u64 {
        let names = self.columns.iter().flat_map(|name| [name.as_bytes(), &[0xff]].concat());
        let numbers = self.means.iter().chain(&self.scales).chain(&self.components);
        let bytes: Vec<u8> = names.chain(numbers.flat_map(|number| number.to_bits().to_le_bytes())).collect();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// What was rebuilt of it among what was counted of an edge.
    pub fn rebuilt<'p>(&self, pane: &'p EdgePane) -> Option<&'p Rebuilt> {
        pane.rebuilt.get(&self.digest())
    }

    /// How the rows of an edge compare with the reference. Of fewer than `min_rows` nothing is said.
    pub fn report(&self, edge: &str, pane: Option<&EdgePane>, min_rows: u64) -> MultivariateReport {
        let rebuilt = pane.and_then(|pane| self.rebuilt(pane));
        let rows = rebuilt.map_or(0, Rebuilt::rows);
        let mean = rebuilt.and_then(Rebuilt::mean);
        let limits = self.limits_of_rows(rows);
        MultivariateReport {
            edge: edge.to_owned(),
            columns: self.columns().to_vec(),
            components: self.components() as u64,
            explained: Some(self.explained_variance()),
            rows,
            skipped: rebuilt.map_or(0, Rebuilt::skipped),
            error: mean,
            lower: limits.lower,
            upper: Some(limits.upper),
            drifted: mean.filter(|_| rows >= min_rows.max(1)).map(|mean| limits.breached_by(mean)),
            series: Vec::new(),
        }
    }
}
