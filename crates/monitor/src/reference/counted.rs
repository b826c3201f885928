//! What rows count, on several threads: counts are whole numbers, which add up to the same in any order.

use std::sync::Arc;

use arrow::{array::RecordBatch, error::ArrowError};

use super::{ReferenceError, rows::Rows, threads::each};
use crate::{
    counting::Counting,
    layout::{Column, Layout},
    pane::EdgePane,
    sketch::Merge,
};

/// What rows of one layout count.
pub(super) fn counted(
    layout: &Arc<Layout>,
    rows: &Rows<'_>,
    threads: usize,
) -> Result<EdgePane, ReferenceError> {
    if layout.segments.is_empty() { by_column(layout, rows, threads) } else { by_part(layout, rows, threads) }
}

/// What batches of one layout count, on this thread.
pub(super) fn count(
    layout: &Arc<Layout>,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<EdgePane, ReferenceError> {
    let mut counting = Counting::new(layout);
    for batch in batches {
        counting.add(&batch?);
    }
    Ok(counting.take().map(|(_, pane)| pane).unwrap_or_default())
}

/// Columns one by one: their values are counted while they are in the cache, and a thread holds the pages of one column only. Fewer
/// columns than threads are divided.
fn by_column(layout: &Layout, rows: &Rows<'_>, threads: usize) -> Result<EdgePane, ReferenceError> {
    let (columns, parts) = (layout.columns.len(), rows.parts());
    let stretches = (2 * threads).div_ceil(columns.max(1)).clamp(1, parts.max(1));
    let panes = each(columns * stretches, threads, |at| {
        let (column, stretch) = (&layout.columns[at / stretches], at % stretches);
        let own = parts * stretch / stretches..parts * (stretch + 1) / stretches;
        count(&alone(layout, column.clone()), rows.read(Some(&column.name), own)?)
    })?;
    side_by_side(panes.chunks(stretches).map(merged), rows.told())
}

/// Whole rows, which have to be seen together to be divided. What a thread counts is one, whichever parts it reads.
fn by_part(layout: &Arc<Layout>, rows: &Rows<'_>, threads: usize) -> Result<EdgePane, ReferenceError> {
    let threads = threads.clamp(1, rows.parts().max(1));
    let panes = each(threads, threads, |thread| {
        count(layout, rows.read(None, (thread..rows.parts()).step_by(threads))?)
    })?;
    Ok(merged(&panes))
}

/// A column of rows that have no other.
pub(super) fn alone(layout: &Layout, column: Column) -> Arc<Layout> {
    let columns = vec![column];
    Arc::new(Layout { columns, segments: Vec::new(), reconstruction: None, ..layout.clone() })
}

fn merged(panes: &[EdgePane]) -> EdgePane {
    let mut whole = EdgePane::new();
    panes.iter().for_each(|pane| whole.merge(pane));
    whole
}

/// What columns have counted that were read one by one. A row is lost if it is for one of them.
///
/// # Errors
/// When they do not have the same number of rows, which nobody sees who reads one of them.
pub(super) fn side_by_side(
    columns: impl IntoIterator<Item = EdgePane>,
    told: usize,
) -> Result<EdgePane, ReferenceError> {
    let (mut whole, mut rows) = (EdgePane::new(), None);
    for column in columns {
        let own = column.rows + column.lost;
        let first = *rows.get_or_insert(own);
        if own != first {
            return Err(ArrowError::ParquetError(format!("columns have {first} and {own} rows")).into());
        }
        whole.lost = whole.lost.max(column.lost);
        whole.columns.extend(column.columns);
    }
    whole.rows = rows.unwrap_or(told as u64) - whole.lost;
    Ok(whole)
}
