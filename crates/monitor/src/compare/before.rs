//! A column of a reference, and live values counted as it is.

use std::borrow::Cow;

use super::{
    Criterion,
    measures::{Counted, measures},
};
use crate::{
    drift::Shares,
    reference::{Reference, ReferenceColumn, between_buckets},
    report::Measure,
    sketch::{Labels, Numbers, Sketch},
};

const OTHER_TYPE: &str = "the reference has values of another type in this column";
const TOO_COARSE: &str = "values were counted before there was this reference, too coarsely for its bins: wait until they have left the window";

/// A column of a reference: how it is counted, and what was counted.
#[derive(Clone, Copy)]
pub(super) struct Before<'b> {
    pub(super) bins: &'b ReferenceColumn,
    pub(super) sketch: &'b Sketch,
}

impl<'b> Before<'b> {
    pub(super) fn of(reference: &'b Reference, column: &str) -> Option<Self> {
        let (bins, sketch) = reference.column(column).zip(reference.pane.columns.get(column))?;
        Some(Self { bins, sketch })
    }

    /// The counts of both sides in the bins of the reference. Of categories, those that the reference knows have a bin each, and all
    /// others share one: which of them have a name is another matter on each side. Else why they cannot be put side by side.
    pub(super) fn counts(self, live: &Sketch) -> Result<(Vec<u64>, Vec<u64>), &'static str> {
        match (live, self.sketch, self.bins) {
            (Sketch::Numbers(live), Sketch::Numbers(before), ReferenceColumn::Numeric { edges }) => {
                let edges = shared(edges, before, live).ok_or(TOO_COARSE)?;
                Ok((before.counts_in(&edges), live.counts_in(&edges)))
            }
            (Sketch::Labels(live), Sketch::Labels(before), ReferenceColumn::Categorical { known }) => {
                let told = told(known, before, live);
                let counts = |labels: &Labels| -> Vec<u64> {
                    told.iter().map(|name| labels.count_of(name)).chain([labels.beyond(&told)]).collect()
                };
                // A category that neither side has says nothing.
                let used = |(before, now): &(u64, u64)| before + now > 0;
                Ok(counts(before).into_iter().zip(counts(live)).filter(used).unzip())
            }
            _ => Err(OTHER_TYPE),
        }
    }

    /// Every measure of the profile, if there are values enough to say anything; else why not.
    pub(super) fn measures(
        self,
        (before, now): &(Vec<u64>, Vec<u64>),
        live: &Sketch,
        criterion: &Criterion,
    ) -> Result<Vec<Measure>, String> {
        let (n, m): (u64, u64) = (before.iter().sum(), now.iter().sum());
        if n < criterion.min_rows || m < criterion.min_rows {
            let (few, whose) = if n < m { (n, "of the reference") } else { (m, "so far") };
            return Err(format!(
                "{few} values {whose} are too few to say; {} are enough",
                criterion.min_rows
            ));
        }
        let shares = Shares::new(before, now).map_err(|error| error.to_string())?;
        Ok(measures(&Counted { before, now, shares: &shares }, self.sketch, live, criterion))
    }
}

/// The edges of bins in which both sides are counted alike: exactly, or both by magnitude. Where some of the live values were counted
/// without the reference, whose own counts are exact, they are edges near by; none if those are too coarse.
pub(super) fn shared<'e>(edges: &'e [f64], before: &Numbers, live: &Numbers) -> Option<Cow<'e, [f64]>> {
    let exact = [before, live].map(|numbers| numbers.exactly_in(edges).is_some());
    if exact[0] == exact[1] || live.values() == 0 {
        return Some(Cow::Borrowed(edges));
    }
    between_buckets(edges, before, live).map(Cow::Owned)
}

/// Those of the categories whose counts both sides know. All of them, where live values were counted beside the reference.
pub(super) fn told<'k>(known: &'k [String], before: &Labels, live: &Labels) -> Cow<'k, [String]> {
    let both = |name: &String| before.tells(name) && live.tells(name);
    match known.iter().all(both) {
        true => known.into(),
        false => known.iter().filter(|name| both(name)).cloned().collect::<Vec<_>>().into(),
    }
}
