//! What can be wrong with the settings of a log, with writing it, and with reading it.

use std::{fmt, io, path::PathBuf};

use arrow::{datatypes::DataType, error::ArrowError};
use parquet::errors::ParquetError;

/// Everything that is wrong with the settings of a request log.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            write!(f, "{}{mistake}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// One thing that is wrong with the settings of a request log.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// The share is no share.
    #[error("`sample`: {0} is no share; write a number above 0 and at most 1")]
    Sample(f64),
    /// A name cannot be part of a file's name.
    #[error(
        "`{setting}`: `{name}` cannot name files; write at most 100 letters, digits, `_`, `.` or `-`, the first no `.`"
    )]
    Name {
        /// The setting.
        setting: &'static str,
        /// What it says.
        name: String,
    },
    /// No rows may wait.
    #[error("`buffer_rows`: 0 rows leave no room for any request; write a number above 0")]
    NoBuffer,
    /// A setting names a column that no watched edge has.
    #[error("`{setting}`: {problem}")]
    Unknown {
        /// The setting.
        setting: &'static str,
        /// What is unknown, and what there is.
        problem: String,
    },
    /// A column is both left out and hashed.
    #[error("column `{0}` is under `drop` and under `hash`; keep it under one of them")]
    DroppedAndHashed(String),
    /// Values of this type have no text that stays the same.
    #[error(
        "`{setting}`: column `{column}` is {data_type}; only text, binary, whole numbers and booleans are hashed"
    )]
    NotHashable {
        /// The setting.
        setting: &'static str,
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// Columns are hashed without a secret.
    #[error(
        "`hash` needs `secret`: hashes without one can be undone by trying values; write `secret: env:NAME`"
    )]
    NoSecret,
    /// The secret is no reference. It is not shown: it may be the secret itself.
    #[error("`secret` is no reference; write `env:NAME`, and put the secret into that variable")]
    SecretForm,
    /// The variable is not set.
    #[error("`secret`: the environment has no text in `{0}`")]
    SecretUnset(String),
    /// The secret can be guessed.
    #[error("`secret`: the text in `{name}` has {bytes} bytes; use at least 16 random ones")]
    SecretShort {
        /// The variable.
        name: String,
        /// The length of its text.
        bytes: usize,
    },
    /// Two columns of the log have one name.
    #[error(
        "two columns of the log are called `{0}`; rename the step or the column, or name it under `drop`"
    )]
    SameName(String),
    /// Parquet has no such type.
    #[error("column `{column}` is {data_type}, which Parquet cannot hold; name it under `drop`")]
    NotParquet {
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
}

/// What can go wrong while a log is written. What could not be written is kept, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The disk refused something.
    #[error("{path}: {doing}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What was to be done to it.
        doing: &'static str,
        /// Why it was not.
        #[source]
        source: io::Error,
    },
    /// Another writer has this replica's files.
    #[error("{path}: another process writes the log as replica `{replica}`; give each its own `replica`")]
    InUse {
        /// The file that is locked.
        path: PathBuf,
        /// The replica's name.
        replica: String,
    },
    /// A recorder of another log was to be written with this one.
    #[error("{path}: the log is not that of this writer, which is {own}; open a writer of its own for it")]
    OtherLog {
        /// The folder of the recorder's log.
        path: PathBuf,
        /// The writer's.
        own: PathBuf,
    },
    /// Rows could not be put together. They are dropped and counted: another try would end alike.
    #[error("{rows} rows cannot be put together")]
    Build {
        /// How many.
        rows: usize,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// Rows could not be encoded.
    #[error("rows of {hour} cannot be encoded")]
    Encode {
        /// The folder of their hour.
        hour: String,
        /// Why.
        #[source]
        source: ParquetError,
    },
    /// A file of the log cannot be read, so it is left as it is.
    #[error("{path}: not a Parquet file of a log; remove it or restore it")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ParquetError,
    },
}

/// What can go wrong while a log is read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such log.
    #[error("{0}: no such folder; name the folder of one graph below `path`")]
    NoFolder(PathBuf),
    /// The disk refused something.
    #[error("{path}: cannot be read")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files of an hour were replaced faster than they could be opened.
    #[error("{0}: its files change faster than they are opened; read again later")]
    Changing(PathBuf),
    /// A file is broken, or none of a log.
    #[error("{path}: not a Parquet file of a log; remove it or restore it")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ParquetError,
    },
    /// A column has another type in newer files, and its values do not fit there.
    #[error(
        "{path}: column `{column}` is {was}, and a value is no {is}, which it is in newer files; read the times apart"
    )]
    TypeChanged {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type in this file.
        was: DataType,
        /// Its type in newer files.
        is: DataType,
    },
    /// Rows could not be put together.
    #[error("{path}: rows cannot be put together")]
    Build {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: ArrowError,
    },
}
