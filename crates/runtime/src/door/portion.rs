//! One request's part of a reply.

use std::{ops::Range, sync::Arc};

use arrow::array::RecordBatch;
use millstream_graph::{Origin, RunId};

use crate::Reply;

/// One request's rows of a reply, which other requests may share.
#[derive(Clone, Debug)]
pub struct Portion {
    pub(super) run: RunId,
    pub(super) reply: Arc<Reply>,
    pub(super) range: Range<usize>,
    /// Where the request's rows began in the run's input.
    pub(super) start: usize,
}

/// All rows of a reply, to a request that had a run to itself.
impl From<Reply> for Portion {
    fn from(reply: Reply) -> Self {
        let range = 0..reply.rows().num_rows();
        Self { run: reply.run(), reply: Arc::new(reply), range, start: 0 }
    }
}

impl Portion {
    /// The reply as if the request had run alone.
    pub fn into_reply(self) -> Reply {
        let Self { run, reply, range, start } = self;
        let reply = match Arc::try_unwrap(reply) {
            Ok(alone) if alone.run == run && range == (0..alone.rows.num_rows()) => return alone,
            Ok(shared) => shared,
            Err(shared) => (*shared).clone(),
        };
        let rows = reply.rows.slice(range.start, range.len());
        let place = |row| reply.origin.place(row).map(|place| place - start as u32);
        let origin = range.map(place).collect::<Option<Arc<[u32]>>>().map_or(Origin::Lost, Origin::Picked);
        Reply { run, rows, origin, degraded: reply.degraded }
    }

    /// Which row of the request row `row` of its rows answers; `None` when the graph mixes rows.
    pub fn place(&self, row: usize) -> Option<u32> {
        let place = self.reply.place(self.range.start + row)?;
        place.checked_sub(self.start as u32)
    }

    /// The request's run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The reply whose rows in [`range`](Self::range) are this request's. The other rows are other requests'.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// Which rows of the reply are this request's.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// This request's rows.
    pub fn rows(&self) -> RecordBatch {
        self.reply.rows().slice(self.range.start, self.range.len())
    }
}
