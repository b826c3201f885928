//! The operator's way with sets that have windows: the spine comes in pieces, and the events of its keys pass once for each.

use std::{mem::size_of, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    datatypes::SchemaRef,
};
use datafusion::{
    common::Result,
    execution::{SendableRecordBatchStream, memory_pool::MemoryReservation},
};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use super::{
    Times,
    held::{Answers, Held},
    join::{LogRows, Sweep, Swept},
    operator::{Lookup, LookupEvents, Origin, external},
};
use crate::{Cell, Column, array};

/// Rows of the smallest piece of a spine. A piece has as many as there are events, so that what all pieces cost together grows with
/// the spine and the log, and not with their product.
const LEAST: usize = 1 << 16;

/// A log that is held, with its events in order.
struct Sweeper {
    lookup: Arc<Lookup>,
    events: LookupEvents,
    schema: SchemaRef,
    held: Held,
    swept: Swept,
    /// The features that are windows: their numbers among them, and their columns.
    windows: Vec<usize>,
    columns: Vec<Column>,
    memory: MemoryReservation,
}

/// Rows of a spine that are answered together, and the memory that they take.
struct Piece {
    batches: Vec<RecordBatch>,
    asked: Vec<(Vec<ArrayRef>, Times)>,
    rows: usize,
    memory: MemoryReservation,
}

/// Joins a spine to a log of events.
pub(super) fn sweep(
    lookup: Arc<Lookup>,
    events: LookupEvents,
    schema: SchemaRef,
    spine: SendableRecordBatchStream,
    mut held: Held,
    memory: MemoryReservation,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let rows = std::mem::replace(&mut held.rows, LogRows::new(&[]).map_err(external)?);
    let swept = Swept::new(rows, lookup.as_of).map_err(external)?;
    memory.try_grow(swept.bytes())?;
    let (mut windows, mut columns) = (Vec::new(), Vec::new());
    for feature in &lookup.features {
        if let Origin::Window(window) = feature.origin {
            windows.push(window);
            columns.push(Column { name: feature.column.clone(), data_type: feature.data_type.clone() });
        }
    }
    let sweeper = Arc::new(Sweeper { lookup, events, schema, held, swept, windows, columns, memory });
    let pieces = stream::try_unfold((Some(spine), Arc::clone(&sweeper)), |(spine, sweeper)| async move {
        let Some(spine) = spine else { return Ok(None) };
        let (piece, rest) = sweeper.piece(spine).await?;
        Ok((piece.rows > 0).then_some((piece, (rest, sweeper))))
    });
    Ok(pieces
        .map(move |piece: Result<_>| sweeper.answers(&piece?))
        .map_ok(stream::iter)
        .try_flatten()
        .boxed())
}

impl Sweeper {
    /// The next rows of the spine, and the rest of it.
    async fn piece(
        &self,
        mut spine: SendableRecordBatchStream,
    ) -> Result<(Piece, Option<SendableRecordBatchStream>)> {
        let most = self.swept.len().max(LEAST);
        let (batches, asked) = (Vec::new(), Vec::new());
        let mut piece = Piece { batches, asked, rows: 0, memory: self.memory.new_empty() };
        while piece.rows < most {
            let Some(batch) = spine.try_next().await? else { return Ok((piece, None)) };
            let cells = batch.num_rows() * self.windows.len() * size_of::<Option<Cell>>();
            piece.memory.try_grow(batch.get_array_memory_size() + cells)?;
            piece.asked.push(self.lookup.asked(&batch)?);
            piece.rows += batch.num_rows();
            piece.batches.push(batch);
        }
        Ok((piece, Some(spine)))
    }

    fn answers(&self, piece: &Piece) -> Result<Vec<Result<RecordBatch>>> {
        let of = &self.events.windows;
        let found = self.swept.sweep(of, &self.held.events, &piece.asked, &self.windows).map_err(external)?;
        let mut start = 0;
        let answer = |batch: &RecordBatch| {
            start += batch.num_rows();
            self.answer(&found, batch, start - batch.num_rows())
        };
        Ok(piece.batches.iter().map(answer).collect())
    }

    /// The rows of a batch, which begins at `start` of its piece.
    fn answer(&self, found: &Sweep, batch: &RecordBatch, start: usize) -> Result<RecordBatch> {
        let rows = start..start + batch.num_rows();
        let windows = found.cells.iter().zip(&self.columns);
        let windows =
            windows.map(|(cells, column)| array(column, cells[rows.clone()].iter().map(Option::as_ref)));
        let unknown: Vec<bool> = found.known[rows.clone()].iter().map(|known| !known).collect();
        let own = found.rows.slice(start, batch.num_rows());
        let answers = Answers::events(&own, windows.collect(), BooleanArray::from(unknown));
        self.held.answer(&self.lookup, &self.schema, batch, &answers)
    }
}
