//! Where a key stands between 0 and 1: the same on every machine, and for as long as the salt is the same.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, SchemaRef},
};
use millstream_graph::{SchemaError, StepError};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::prepared::find;

/// What stands before each part of a key, and cannot be typed into one.
const BETWEEN: u8 = 0x1f;

/// Columns whose values are a key, as files name them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "the name of a column, or a list of names")]
pub(crate) enum Keys {
    One(String),
    Several(Vec<String>),
}

impl From<Keys> for Vec<String> {
    fn from(keys: Keys) -> Self {
        match keys {
            Keys::One(name) => vec![name],
            Keys::Several(names) => names,
        }
    }
}

/// Gives each row the place of its key.
#[derive(Debug)]
pub(crate) struct Dealer {
    keys: Vec<usize>,
    salt: String,
}

impl Dealer {
    /// A dealer over columns of a schema; all that is wrong with them goes into `problems`.
    pub(crate) fn new(
        by: &[String],
        salt: &str,
        schema: &SchemaRef,
        problems: &mut Vec<SchemaError>,
    ) -> Self {
        if by.is_empty() {
            problems.push(SchemaError::new("it names no column to split by"));
        }
        let mut keys = Vec::new();
        for name in by {
            match find(schema, name) {
                Ok(at) => {
                    let kind = schema.field(at).data_type();
                    let text = matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
                    if !(text || kind.is_integer() || *kind == DataType::Boolean) {
                        let problem = format!(
                            "column `{name}` is {kind}; a key is a whole number, a text or a truth value"
                        );
                        problems.push(SchemaError::new(problem));
                    }
                    keys.push(at);
                }
                Err(error) => problems.push(error),
            }
        }
        Self { keys, salt: salt.to_owned() }
    }

    /// The columns that it reads.
    pub(crate) fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// The place of every row, from 0 to below 1.
    pub(crate) fn places(&self, batch: &RecordBatch) -> Result<Vec<f64>, StepError> {
        let texts = self.keys.iter().map(|at| cast(batch.column(*at), &DataType::Utf8));
        let texts: Vec<ArrayRef> = texts.collect::<Result<_, _>>()?;
        let texts: Vec<&StringArray> = texts.iter().map(|column| column.as_string()).collect();
        let place = |row: usize| {
            let mut hash = Sha256::new_with_prefix(&self.salt);
            for column in &texts {
                hash.update([BETWEEN]);
                // Null is a key like another, so that those rows stay together too.
                hash.update(if column.is_valid(row) { column.value(row) } else { "" });
            }
            fraction(&hash.finalize())
        };
        Ok((0..batch.num_rows()).map(place).collect())
    }
}

/// The first 53 bits as a fraction from 0 to below 1; a float holds as many.
fn fraction(digest: &[u8]) -> f64 {
    let first = digest.iter().take(8).fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    (first >> 11) as f64 / (1_u64 << 53) as f64
}
