//! Verdicts over many columns together.

use std::collections::BTreeMap;

use super::{Criterion, Discovery};
use crate::{
    drift::{benjamini_hochberg, bonferroni},
    report::{ColumnReport, EdgeReport},
};

/// The verdicts: of tests, by their p-values together; of a distance without one, by its threshold alone.
pub(super) fn judge(reports: &mut [EdgeReport], criteria: &BTreeMap<&str, Criterion>) {
    for discovery in [Discovery::Rate, Discovery::Any, Discovery::Each] {
        let mut asked: Vec<(&mut ColumnReport, Criterion)> = reports
            .iter_mut()
            .filter_map(|edge| Some((criteria.get(&*edge.edge)?, edge)))
            .filter(|(criterion, _)| criterion.discovery == discovery)
            .flat_map(|(criterion, edge)| edge.columns.iter_mut().map(|column| (column, *criterion)))
            .filter(|(column, _)| !column.measures.is_empty())
            .collect();
        // Only columns that are tested are among the tests.
        let p_values: Vec<f64> =
            asked.iter().filter_map(|(column, _)| column.measures.first()?.p_value).collect();
        let adjusted = match discovery {
            Discovery::Rate => benjamini_hochberg(&p_values),
            Discovery::Any => bonferroni(&p_values),
            Discovery::Each => Ok(p_values.clone()),
        };
        let mut adjusted = adjusted.unwrap_or(p_values).into_iter();
        for (column, criterion) in &mut asked {
            let Some(leading) = column.measures.first_mut() else { continue };
            let p_value = leading.p_value.and_then(|_| adjusted.next());
            let sure = p_value.is_none_or(|p_value| p_value < criterion.alpha);
            let large = leading.threshold.is_none_or(|threshold| leading.value >= threshold);
            leading.drifted = sure && large;
            column.drifted = Some(leading.drifted);
        }
    }
}
