//! What a project file says of columns that are watched together, and the training set that they are compared with.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use arrow::array::RecordBatch;
use millstream_graph::suggest;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{FitError, Keep, Reconstruction, ReconstructionSettings};
use crate::{
    reference::{Reference, ReferenceError},
    values,
};

/// Whether numeric columns are watched together, and how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`true`, or any of `{ columns, keep, window_rows, deviations }`")]
pub enum MultivariateSpec {
    /// `true`: as usual.
    Switch(bool),
    /// As this says.
    How(MultivariateSettings),
}

/// How numeric columns are watched together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MultivariateSettings {
    /// These columns; by default all numeric ones that are watched and that the reference has.
    pub columns: Vec<String>,
    /// How many principal components are kept: `{variance: 0.65}`, which is the default, or `{components: 3}`.
    pub keep: Option<Keep>,
    /// Rows in each window of the reference that the limits are made of; a tenth of its rows by default.
    pub window_rows: Option<usize>,
    /// How many standard deviations the limits are from the mean; 3 by default.
    pub deviations: Option<f64>,
}

/// Why a training set cannot be fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It has no rows.
    #[error("{}: statistics have no rows to learn from; name the training set (.parquet, .csv) as `reference`", file.display())]
    Statistics {
        /// The file.
        file: PathBuf,
    },
    /// It cannot be read.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Columns that are named and are not there, or are no numbers.
    #[error("{}", .problems.join("; "))]
    Columns {
        /// Every mistake.
        problems: Vec<String>,
    },
    /// There is nothing that could move together.
    #[error("two numeric columns are needed, and the reference and what is watched have {found} in common")]
    TooFewColumns {
        /// How many there are.
        found: usize,
    },
    /// Its rows have no components.
    #[error(transparent)]
    Fit(#[from] FitError),
}

/// Values that are fitted at most: 128 MB. Of a longer reference every second row is, or every third, and so on.
const MOST_VALUES: usize = 16 << 20;

impl MultivariateSpec {
    /// How, if at all.
    pub fn settings(&self) -> Option<MultivariateSettings> {
        match self {
            Self::Switch(false) => None,
            Self::Switch(true) => Some(MultivariateSettings::default()),
            Self::How(settings) => Some(settings.clone()),
        }
    }
}

impl Reconstruction {
    /// Of the rows of a training set (`.parquet`, `.csv`). `numeric` are the numeric columns that are watched.
    ///
    /// # Errors
    /// When the file cannot be read or fitted, and when columns are not what `settings` say.
    pub fn of_file(
        file: &Path,
        numeric: &[&str],
        settings: &MultivariateSettings,
    ) -> Result<Self, FileError> {
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            return Err(FileError::Statistics { file: file.to_path_buf() });
        }
        let named = || settings.columns.iter().map(String::as_str);
        let unwatched = named().filter(|column| !numeric.contains(column));
        let mut problems: Vec<String> = unwatched
            .map(|column| suggest::unknown("watched column of numbers", column, numeric.iter().copied()))
            .collect();
        let mut seen = BTreeSet::new();
        problems.extend(
            named().filter(|name| !seen.insert(*name)).map(|name| format!("column `{name}` is named twice")),
        );
        let wanted: Vec<&str> =
            if settings.columns.is_empty() { numeric.to_vec() } else { named().collect() };
        let batches = Reference::rows_of(file, &wanted)?;
        let there = |column: &&str| batches.iter().all(|batch| batch.column_by_name(column).is_some());
        if !settings.columns.is_empty() {
            let missing = wanted.iter().filter(|column| !there(column));
            problems.extend(missing.map(|column| format!("the reference has no column `{column}`")));
        }
        let columns: Vec<&str> = wanted.into_iter().filter(there).collect();
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let width = columns.len();
        let every = count.saturating_mul(width).div_ceil(MOST_VALUES).max(1);
        let mut rows = vec![f64::NAN; count.div_ceil(every) * width];
        let mut before = 0;
        for batch in &batches {
            for (at, column) in columns.iter().enumerate() {
                let mut put = |row: usize, value: f64| {
                    let row = before + row;
                    if row.is_multiple_of(every) {
                        rows[row / every * width + at] = value;
                    }
                };
                let array = batch.column_by_name(column);
                let problem = format!("column `{column}` is no number in the reference");
                let counted = array.and_then(|array| values::numbers(array, &mut put));
                if counted.is_none() && !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
            before += batch.num_rows();
        }
        if !problems.is_empty() {
            return Err(FileError::Columns { problems });
        }
        if width < 2 {
            return Err(FileError::TooFewColumns { found: width });
        }
        let columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
        Ok(Self::fit(&columns, &rows, &settings.fit())?)
    }
}

impl MultivariateSettings {
    fn fit(&self) -> ReconstructionSettings {
        let usual = ReconstructionSettings::default();
        ReconstructionSettings {
            keep: self.keep.unwrap_or(usual.keep),
            window_rows: self.window_rows,
            deviations: self.deviations.unwrap_or(usual.deviations),
        }
    }
}
