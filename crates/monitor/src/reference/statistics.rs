//! A reference as a file that travels with a model.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Reference, ReferenceColumn, ReferenceError, ReferenceOptions};

/// The version of the form that statistics are written in.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Statistics {
    millstream_statistics: u32,
    reference: Reference,
}

impl Reference {
    /// The statistics as a file that travels with a model: `reference: statistics.json`.
    ///
    /// # Errors
    /// None that its own types allow.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Statistics { millstream_statistics: VERSION, reference: self.clone() })
    }

    /// What [`Self::to_json`] has written.
    pub(super) fn read_json(file: &Path) -> Result<Self, ReferenceError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ReferenceError::Unreadable { file: file.to_path_buf(), source })?;
        let malformed = |source: Box<dyn std::error::Error + Send + Sync>| ReferenceError::Malformed {
            file: file.to_path_buf(),
            wanted: "statistics file",
            source,
        };
        let read: Statistics = serde_json::from_str(&text).map_err(|source| malformed(source.into()))?;
        if read.millstream_statistics != VERSION {
            return Err(malformed(format!("it is of version {}", read.millstream_statistics).into()));
        }
        let rising = |column: &ReferenceColumn| match column {
            ReferenceColumn::Numeric { edges } => edges.windows(2).all(|pair| pair[0] <= pair[1]),
            ReferenceColumn::Categorical { .. } => true,
        };
        if !read.reference.bins.values().all(rising) {
            return Err(malformed("the edges of its bins do not rise".into()));
        }
        Ok(read.reference)
    }

    /// How it differs from one that is made as `options` say.
    pub(super) fn differences(&self, options: &ReferenceOptions<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        if self.rule != options.bins {
            problems.push(format!("has {}, and {} are asked for", self.rule, options.bins));
        }
        for column in options.categorical {
            if !matches!(self.column(column), Some(ReferenceColumn::Categorical { .. })) {
                problems.push(format!("has no categories of column `{column}`"));
            }
        }
        for column in options.segments {
            if !self.pane.segments.contains_key(column) {
                problems.push(format!("has no segments by column `{column}`"));
            }
        }
        problems
    }
}
