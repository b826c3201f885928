//! One call of a batched step: rows put together, and the answer cut apart.

use std::{panic::AssertUnwindSafe, sync::Arc};

use arrow::compute::concat_batches;
use futures_util::FutureExt;
use millstream_graph::{Compute, Input, Rows, RunCx, Share, Step, StepError, StepResult, Token, Work};
use smallvec::SmallVec;

use super::queue::{Part, Piece};
use crate::{panics, run::now};

/// Calls a step with all pieces; when that gives no clean answer, with each alone.
pub(super) async fn call(step: &dyn Step, pieces: Vec<Piece>, jobs: Option<&Arc<dyn Compute>>) {
    match ask(step, &pieces, jobs).await {
        Ok(parts) => pieces.into_iter().zip(parts).for_each(|(piece, part)| piece.answered(Ok(part))),
        Err(error) if pieces.len() == 1 => {
            pieces.into_iter().for_each(|piece| piece.answered(Err(error.clone())))
        }
        Err(_) => {
            for piece in pieces {
                let part = ask(step, std::slice::from_ref(&piece), jobs).await;
                piece.answered(part.map(|mut parts| parts.swap_remove(0)));
            }
        }
    }
}

/// One answer per piece.
async fn ask(
    step: &dyn Step,
    pieces: &[Piece],
    jobs: Option<&Arc<dyn Compute>>,
) -> Result<Vec<Part>, StepError> {
    let batches: Vec<_> = pieces
        .iter()
        .map(|piece| piece.item.rows.batch().slice(piece.rows.start, piece.rows.len()))
        .collect();
    let batch = match &batches[..] {
        [one] => one.clone(),
        many => concat_batches(many[0].schema_ref(), many)?,
    };
    let shares: SmallVec<[Share; 1]> = pieces.iter().map(share).collect();
    let cx = RunCx::shared(shares[0].run, shares, now).with_compute(jobs.cloned());
    let (mut ports, failed, degraded) = answer(step, batch, &cx).await?.into_parts();
    if let (Some(reason), false) = (&degraded, pieces.len() == 1) {
        // Whose answer it is that is not what it should be is not known.
        return Err(StepError::internal(reason.to_string()));
    }
    let good = ports.pop().map(|(_, rows)| rows);
    let mut first = 0;
    let mut parts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let range = first..first + piece.rows.len();
        // Rows are counted from the first of the call, of the piece, and of the item that it belongs to.
        let moved = |place: u32| place - first as u32 + piece.rows.start as u32;
        let inside = |rows: &Rows| -> Vec<u32> {
            let places = (0..rows.len()).map(|row| rows.origin().place(row));
            let found = places
                .enumerate()
                .filter(|(_, place)| place.is_some_and(|place| range.contains(&(place as usize))));
            found.map(|(row, _)| row as u32).collect()
        };
        let place = |rows: &Rows, row: u32| rows.origin().place(row as usize).map_or(0, moved);
        let mut part = Part { good: None, failed: Vec::new(), degraded: degraded.clone() };
        if let Some(rows) = &good {
            let at = inside(rows);
            if !at.is_empty() {
                let places = at.iter().map(|&row| place(rows, row)).collect();
                part.good = Some((rows.take(&at)?.into_batch(), places));
            }
        }
        if let Some(failed) = &failed {
            let at = inside(&failed.rows).into_iter();
            let message = |row: u32| failed.messages.get(row as usize).cloned().unwrap_or_default();
            part.failed = at.map(|row| (place(&failed.rows, row), message(row))).collect();
        }
        parts.push(part);
        first = range.end;
    }
    Ok(parts)
}

/// A run's share of the call: the piece of its rows.
fn share(piece: &Piece) -> Share {
    let mut share = Share { rows: piece.rows.len(), ..piece.item.share.clone() };
    let times = share.request.times.take();
    share.request.times = times.map(|times| times.slice(piece.rows.start, piece.rows.len()));
    share
}

async fn answer(step: &dyn Step, batch: arrow::array::RecordBatch, cx: &RunCx) -> StepResult {
    let work = async {
        match step.call(Input::new([Token::Rows(Rows::whole(batch))].into()), cx) {
            Work::Done(result) => result,
            Work::Io(answer) => answer.await,
            Work::Compute(job) => cx.compute(job).await,
        }
    };
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(panics::error(&*panic)))
}
