//! Why there is no reference.

use std::path::PathBuf;

use arrow::error::ArrowError;

use super::MOST_CSV_BYTES;
use crate::drift::DriftError;

/// Why there is no reference.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The file cannot be read.
    #[error("{}: cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("{}: is no {wanted}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// Why it is not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no reader for such files.
    #[error("{}: a reference is a .parquet, .csv or .json file", file.display())]
    UnknownFormat {
        /// The file.
        file: PathBuf,
    },
    /// It has too many rows for a file that is read whole.
    #[error("{}: has more than {MOST_CSV_BYTES} bytes; write it as Parquet", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// The statistics were made in another way than they are to be used.
    #[error("{}: {}; write the statistics anew, or name the training set in their place", file.display(), .problems.join("; "))]
    Unsuited {
        /// The file.
        file: PathBuf,
        /// Every difference.
        problems: Vec<String>,
    },
    /// Its columns cannot be watched as asked.
    #[error("{}", .problems.join("; "))]
    Columns {
        /// Every mistake.
        problems: Vec<String>,
    },
    /// A column has no bins.
    #[error("column `{column}`")]
    Bins {
        /// The column.
        column: String,
        /// Why.
        #[source]
        source: DriftError,
    },
    /// Rows could not be taken in.
    #[error("rows of the reference cannot be read")]
    Rows(#[from] ArrowError),
}
