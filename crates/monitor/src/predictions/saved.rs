//! What a judge knows as the bytes of a file, so that a restart goes on with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    judge::{Judge, Judged},
    series::Series,
};
use crate::performance::{
    Accumulator, BinaryMetrics, ExpectedMetrics, JoinConfig, JoinError, JoinState, LabelJoin,
    RegressionMetrics,
};

impl Judge {
    /// All that a restart needs, for a file.
    ///
    /// # Errors
    /// None that its own types allow.
    pub fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        let (binary, regression) = match &self.judged {
            Judged::Binary(join) => (Some(join.state()), None),
            Judged::Regression(join) => (None, Some(join.state())),
        };
        let closed = self.closed.clone();
        postcard::to_stdvec(&Saved {
            version: VERSION,
            binary,
            regression,
            closed,
            estimates: self.estimates.clone(),
        })
    }

    /// Takes up what was saved, if it is of the same task, window and lateness.
    ///
    /// # Errors
    /// When the bytes are of something else. The judge is as it was then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let saved: Saved = postcard::from_bytes(bytes)?;
        if saved.version != VERSION {
            return Err(RestoreError::Foreign);
        }
        self.judged = match (&self.judged, saved.binary, saved.regression) {
            (Judged::Binary(join), Some(state), _) => Judged::Binary(taken_up(join, state)?),
            (Judged::Regression(join), _, Some(state)) => Judged::Regression(taken_up(join, state)?),
            _ => return Err(RestoreError::Changed),
        };
        (self.closed, self.estimates) = (saved.closed, saved.estimates);
        Ok(())
    }
}

/// Whether what was counted under one of the two stays true under the other.
pub(super) fn goes_on(one: &JoinConfig, other: &JoinConfig) -> bool {
    (one.window, one.lateness) == (other.window, other.lateness)
}

/// A table that was saved, under the bounds of this one.
fn taken_up<A: Accumulator>(join: &LabelJoin<A>, state: JoinState<A>) -> Result<LabelJoin<A>, RestoreError> {
    if !goes_on(state.config(), join.config()) {
        return Err(RestoreError::Changed);
    }
    Ok(LabelJoin::restore(state.with_config(join.config().clone()))?)
}

/// The version of the form that predictions are saved in.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    binary: Option<JoinState<BinaryMetrics>>,
    regression: Option<JoinState<RegressionMetrics>>,
    closed: Series,
    estimates: BTreeMap<i64, ExpectedMetrics>,
}

/// Why saved predictions cannot be taken up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The bytes are no predictions.
    #[error("they are no predictions that were saved")]
    Bytes(#[from] postcard::Error),
    /// They do not go together.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// They are in another form.
    #[error("they are of another version of the program")]
    Foreign,
    /// They were counted otherwise.
    #[error("they are of another `task`, `window` or `lateness`")]
    Changed,
}
