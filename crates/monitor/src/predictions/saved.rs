//! What a judge knows as the bytes of a file, so that a restart goes on with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    estimator::Estimate,
    judge::{Judge, Judged},
    series::Series,
};
use crate::performance::{
    Accumulator, BinaryMetrics, ExpectedMetrics, JoinConfig, JoinError, JoinState, LabelJoin, MeasureMetrics,
    MulticlassMetrics, RegressionMetrics,
};

impl Judge {
    /// All that a restart needs, for a file.
    ///
    /// # Errors
    /// None that its own types allow.
    pub fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut saved = Saved {
            binary: None,
            regression: None,
            multiclass: None,
            classes: self.classes.to_vec(),
            measures: self.measured.iter().map(|(name, join)| (name.clone(), join.state())).collect(),
            closed: self.closed.clone(),
            estimates: self.estimates.clone(),
        };
        match &self.judged {
            Judged::Binary(join) => saved.binary = Some(join.state()),
            Judged::Regression(join) => saved.regression = Some(join.state()),
            Judged::Multiclass(join) => saved.multiclass = Some(join.state()),
        }
        // Behind the rest, so that predictions are kept where detectors cannot be read.
        self.detectors.save(postcard::to_stdvec(&(VERSION, saved))?)
    }

    /// Takes up what was saved, if it is of the same task, classes, window and lateness. Of measures, those that it has.
    ///
    /// # Errors
    /// When the bytes are of something else. The judge is as it was then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let (version, rest) = postcard::take_from_bytes::<u32>(bytes)?;
        let (saved, behind) = match version {
            1 => {
                let (first, behind) = postcard::take_from_bytes::<First>(rest)?;
                (Saved::from(first), behind)
            }
            VERSION => postcard::take_from_bytes::<Saved>(rest)?,
            _ => return Err(RestoreError::Foreign),
        };
        if *saved.classes != *self.classes {
            return Err(RestoreError::Changed);
        }
        let judged = match (&self.judged, saved.binary, saved.regression, saved.multiclass) {
            (Judged::Binary(join), Some(state), _, _) => Judged::Binary(taken_up(join, state)?),
            (Judged::Regression(join), _, Some(state), _) => Judged::Regression(taken_up(join, state)?),
            (Judged::Multiclass(join), _, _, Some(state)) => Judged::Multiclass(taken_up(join, state)?),
            _ => return Err(RestoreError::Changed),
        };
        let mut measured = Vec::new();
        for (name, state) in saved.measures {
            if let Some(join) = self.measured.get(&name) {
                measured.push((name, taken_up(join, state)?));
            }
        }
        self.judged = judged;
        self.measured.extend(measured);
        // Measures that were not saved begin now.
        let now = self.now();
        self.measured.values_mut().for_each(|join| join.advance(now));
        self.detectors.restore(behind);
        (self.closed, self.estimates) = (saved.closed, saved.estimates);
        self.forget_measures();
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
const VERSION: u32 = 2;

/// What stands behind the version.
#[derive(Serialize, Deserialize)]
struct Saved {
    binary: Option<JoinState<BinaryMetrics>>,
    regression: Option<JoinState<RegressionMetrics>>,
    multiclass: Option<JoinState<MulticlassMetrics>>,
    classes: Vec<String>,
    measures: Vec<(String, JoinState<MeasureMetrics>)>,
    closed: Series,
    estimates: BTreeMap<i64, Estimate>,
}

/// The same in the first version.
#[derive(Serialize, Deserialize)]
struct First {
    binary: Option<JoinState<BinaryMetrics>>,
    regression: Option<JoinState<RegressionMetrics>>,
    closed: Series,
    estimates: BTreeMap<i64, ExpectedMetrics>,
}

impl From<First> for Saved {
    fn from(first: First) -> Self {
        let First { binary, regression, closed, estimates } = first;
        let estimates = estimates.into_iter().map(|(start, expected)| (start, Estimate::Binary(expected)));
        Self {
            binary,
            regression,
            multiclass: None,
            classes: Vec::new(),
            measures: Vec::new(),
            closed,
            estimates: estimates.collect(),
        }
    }
}

#[cfg(test)]
impl Judge {
    /// What the first version of the form has of predictions of a yes or no.
    pub(super) fn save_in_first_form(&self) -> Vec<u8> {
        let Judged::Binary(join) = &self.judged else { return Vec::new() };
        let binary = |(start, estimate): (&i64, &Estimate)| match estimate {
            Estimate::Binary(expected) => Some((*start, expected.clone())),
            Estimate::Multiclass(_) | Estimate::Closed(_) => None,
        };
        let first = First {
            binary: Some(join.state()),
            regression: None,
            closed: self.closed.clone(),
            estimates: self.estimates.iter().filter_map(binary).collect(),
        };
        postcard::to_stdvec(&(1_u32, first)).unwrap()
    }
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
    #[error("they are of another `task`, `window` or `lateness`, or of other classes")]
    Changed,
}
