//! Live counts beside those of a reference: how far apart they are, and whether that is more than chance.

mod before;
mod criterion;
mod measures;
mod shape;
mod shifted;
#[cfg(test)]
mod tests;
mod verdicts;

use std::collections::BTreeMap;

use self::{
    before::{Before, shared, told},
    shape::{borders, frequencies, histogram, interval},
    shifted::{named, shifted},
    verdicts::judge,
};
pub use self::{
    criterion::{Criterion, Discovery, Profile},
    shape::bin_borders,
};
use crate::{
    pane::{Columns, EdgePane},
    reference::{Reference, ReferenceColumn},
    report::{ColumnKind, ColumnReport, EdgeReport, Quantile, SegmentReport},
    sketch::{Kept, Sketch},
};

const TIMES: &str = "times move on: they are dated, and not compared";

/// What each of the edges carried, beside its reference if it has one. Verdicts are over all of their columns together.
pub fn compare(edges: &[(&str, &EdgePane, Option<&Reference>, Criterion)]) -> Vec<EdgeReport> {
    let mut reports: Vec<EdgeReport> = edges
        .iter()
        .map(|(name, pane, reference, criterion)| EdgeReport {
            edge: (*name).to_owned(),
            rows: pane.rows,
            columns: pane
                .columns
                .iter()
                .map(|(column, sketch)| {
                    let mut report = described(column, sketch);
                    if let Some(reference) = reference {
                        measure(&mut report, sketch, reference, criterion);
                        report.segments = segments(column, pane, reference, criterion);
                    } else {
                        report.note = Some("there is no reference".to_owned());
                    }
                    report
                })
                .collect(),
            ..EdgeReport::default()
        })
        .collect();
    let criteria: BTreeMap<&str, Criterion> =
        edges.iter().map(|(name, .., criterion)| (*name, *criterion)).collect();
    judge(&mut reports, &criteria);
    reports
}

/// The leading measure of a column, if there are rows enough to say anything.
pub fn leading(column: &str, sketch: &Sketch, reference: &Reference, criterion: &Criterion) -> Option<f64> {
    let before = Before::of(reference, column)?;
    let measures = before.measures(&before.counts(sketch).ok()?, sketch, criterion).ok()?;
    measures.first().map(|measure| measure.value)
}

/// What a column carried, by itself.
fn described(column: &str, sketch: &Sketch) -> ColumnReport {
    let report = ColumnReport {
        column: column.to_owned(),
        rows: sketch.rows(),
        nulls: sketch.nulls(),
        ..ColumnReport::default()
    };
    match sketch {
        Sketch::Numbers(numbers) => {
            let spectrum = numbers.spectrum();
            let quantile = |at: f64| Some(Quantile { at, value: spectrum.quantile(at)? });
            ColumnReport {
                nans: numbers.nans(),
                infinities: numbers.infinities(),
                mean: spectrum.mean(),
                std: spectrum.std(),
                min: numbers.range().map(|range| range.0),
                max: numbers.range().map(|range| range.1),
                quantiles: [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
                    .into_iter()
                    .filter_map(quantile)
                    .collect(),
                live: histogram(numbers, &borders(numbers, None)),
                ..report
            }
        }
        Sketch::Labels(labels) => ColumnReport {
            kind: ColumnKind::Categorical,
            distinct: Some(labels.distinct()),
            live: frequencies(labels),
            ..report
        },
        Sketch::Times(times) => ColumnReport {
            kind: ColumnKind::Time,
            min: times.range().map(|range| range.0 as f64),
            max: times.range().map(|range| range.1 as f64),
            note: Some(TIMES.to_owned()),
            ..report
        },
        Sketch::Presence(_) => {
            ColumnReport { note: Some("values of this type are only counted".to_owned()), ..report }
        }
    }
}

/// Sets what a column carried beside its reference.
fn measure(report: &mut ColumnReport, live: &Sketch, reference: &Reference, criterion: &Criterion) {
    if let Sketch::Times(_) = live {
        return;
    }
    let Some(before) = Before::of(reference, &report.column) else {
        report.note = Some("the reference has no such column".to_owned());
        return;
    };
    let counts = before.counts(live);
    let measured = counts.as_ref().map_err(|note| (*note).to_owned());
    match measured.and_then(|counts| before.measures(counts, live, criterion)) {
        Ok(measures) => report.measures = measures,
        Err(note) => report.note = Some(note),
    }
    match (live, before.sketch, before.bins) {
        (Sketch::Numbers(live), Sketch::Numbers(numbers), ReferenceColumn::Numeric { edges }) => {
            let borders = borders(live, Some(numbers));
            report.reference = Some(histogram(numbers, &borders));
            report.live = histogram(live, &borders);
            if let (Ok(counts), Some(edges)) = (&counts, shared(edges, numbers, live)) {
                report.shifted = shifted(counts, |bin| interval(&edges, bin));
            }
        }
        (Sketch::Labels(labels), Sketch::Labels(before), ReferenceColumn::Categorical { known }) => {
            report.reference = Some(frequencies(before));
            let unseen = reference.unseen(&report.column, live);
            report.unseen = unseen.unwrap_or(0);
            if unseen.is_none() {
                let whose = if before.beyond(known) > 0 { "the reference has" } else { "there are" };
                let note =
                    || format!("{whose} more categories than are kept: which values are new is not known");
                report.note.get_or_insert_with(note);
            }
            let (names, counts) = named(&told(known, before, labels), before, labels, unseen.is_some());
            report.shifted = shifted(&counts, |bin| names[bin].clone());
        }
        _ => {}
    }
}

/// The leading measure of a column among the rows of each segment.
fn segments(
    column: &str,
    pane: &EdgePane,
    reference: &Reference,
    criterion: &Criterion,
) -> Vec<SegmentReport> {
    let mut reports = Vec::new();
    let bins = reference.column(column);
    for (by, live) in &pane.segments {
        let all_before = reference.pane.segments.get(by);
        let mut add = |name: &str, columns: &Columns, before: Option<&Columns>| {
            let Some(sketch) = columns.get(column) else { return };
            // The segment's own reference: that it differs from the others is no drift.
            let before = bins.zip(before.and_then(|before| before.get(column)));
            let before = before.map(|(bins, sketch)| Before { bins, sketch });
            let measures = before
                .and_then(|before| before.measures(&before.counts(sketch).ok()?, sketch, criterion).ok());
            let leading = measures.as_ref().and_then(|measures| measures.first());
            reports.push(SegmentReport {
                segment: format!("{by} = {name}"),
                rows: sketch.rows(),
                value: leading.map(|measure| measure.value),
                drifted: leading.map(|measure| {
                    measure.drifted && measure.p_value.is_none_or(|p_value| p_value < criterion.alpha)
                }),
            });
        };
        let mut named: Vec<_> =
            live.iter().filter(|(_, columns, _)| columns.values().any(|sketch| sketch.rows() > 0)).collect();
        named.sort_by(|a, b| a.0.cmp(b.0));
        for (name, columns, _) in named {
            add(name, columns, all_before.and_then(|before| before.get(name)));
        }
        if let Some(rest) = live.rest() {
            // Where a segment of the reference was counted among the others for some time, they are not the reference's.
            let same = |before: &&Kept<Columns>| {
                before.iter().filter(|(.., known)| *known).all(|(name, ..)| live.tells(name))
            };
            add("others", rest, all_before.filter(same).and_then(|before| before.rest()));
        }
    }
    reports
}
