//! References of files, and the counts of other files beside them.

use std::path::Path;

use arrow::array::RecordBatch;

use super::{Reference, ReferenceError, ReferenceOptions, counted::counted, rows::Rows};
use crate::pane::EdgePane;

impl Reference {
    /// Reads a training set (`.parquet`, `.csv`), or the statistics (`.json`) that [`Self::to_json`] has written of one.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what its name says; and when statistics were made in other bins, or without columns that
    /// `options` say are categories or divide the rows.
    pub fn read(file: &Path, options: &ReferenceOptions<'_>) -> Result<Self, ReferenceError> {
        let extension =
            file.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let mut reference = match extension.as_deref() {
            Some("parquet" | "csv") => Self::made(&Rows::of_file(file)?, options)?,
            Some("json") => {
                let reference = Self::read_json(file)?;
                let problems = reference.differences(options);
                return match problems[..] {
                    [] => Ok(reference),
                    _ => Err(ReferenceError::Unsuited { file: file.to_path_buf(), problems }),
                };
            }
            _ => return Err(ReferenceError::UnknownFormat { file: file.to_path_buf() }),
        };
        reference.source =
            file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(reference)
    }

    /// The rows of a training set (`.parquet`, `.csv`), some columns of them; those that are not there are left out.
    ///
    /// # Errors
    /// As [`Self::read`]; statistics have no rows.
    pub fn rows_of(file: &Path, columns: &[&str]) -> Result<Vec<RecordBatch>, ReferenceError> {
        let known =
            |wanted: &str| file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted));
        if !known("parquet") && !known("csv") {
            return Err(ReferenceError::UnknownFormat { file: file.to_path_buf() });
        }
        let rows = Rows::of_file(file)?;
        let picked = |batch: RecordBatch| {
            let places: Vec<usize> =
                columns.iter().filter_map(|name| batch.schema().index_of(name).ok()).collect();
            batch.project(&places)
        };
        rows.read(None, 0..rows.parts())?.map(|batch| Ok(picked(batch?)?)).collect()
    }

    /// Counts the rows of a file as live rows beside this reference are counted. The counts are the same on any number of threads.
    ///
    /// # Errors
    /// As [`Self::read`], and when the columns do not allow what `options` ask.
    pub fn count(&self, file: &Path, options: &ReferenceOptions<'_>) -> Result<EdgePane, ReferenceError> {
        let rows = Rows::of_file(file)?;
        let layout = self.layout("live", &rows.schema(), options)?;
        counted(&layout, &rows, options.threads_for(rows.told()))
    }
}
