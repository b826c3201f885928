//! Ended requests as rows of the log.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Int64Array, ListBuilder, RecordBatch, StringBuilder,
        StringDictionaryBuilder, TimestampMicrosecondArray, UInt32Array, new_null_array,
    },
    compute::{cast, interleave},
    datatypes::{DataType, Field, Int32Type},
    error::ArrowError,
};

use super::{
    layout::{Column, Edge, HEAD, Layout},
    open::Seen,
    recorder::Ended,
};

/// Rows of one batch of the log, so that the offsets of texts and lists fit, whatever they are.
const CHUNK_ROWS: usize = 8192;
/// Bytes that the batches of a chunk hold.
const CHUNK_BYTES: usize = 64 << 20;

/// Rows of the log, and what came of the observations.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) batch: RecordBatch,
    pub(super) repeated: usize,
    pub(super) mismatched: usize,
}

/// Parts of requests that are put together at once: at least one request each.
pub(super) fn chunks(mut ended: &[Ended]) -> impl Iterator<Item = &[Ended]> {
    std::iter::from_fn(move || {
        let (mut rows, mut bytes) = (0, 0);
        let fits = |ended: &&Ended| {
            rows += ended.rows.len();
            bytes += ended.seen.iter().map(|seen| seen.batch.get_array_memory_size()).sum::<usize>();
            rows <= CHUNK_ROWS && bytes <= CHUNK_BYTES
        };
        let count = ended.iter().take_while(fits).count().max(1).min(ended.len());
        let (chunk, rest) = ended.split_at(count);
        ended = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// One row per row of each request. Personal columns are hashed here, before anything of them can reach a disk.
pub(super) fn build(layout: &Layout, ended: &[Ended]) -> Result<Built, ArrowError> {
    let rows = ended.iter().map(|ended| ended.rows.len()).sum();
    let mut columns = head(layout, ended, rows);
    let (mut repeated, mut mismatched) = (0, 0);
    for (number, edge) in layout.edges.iter().enumerate() {
        let gathered = Gathered::new(ended, number, edge, rows);
        repeated += gathered.repeated;
        mismatched += gathered.mismatched;
        columns.push(gathered.seen());
        for column in &edge.columns {
            let values = gathered.column(column)?;
            columns.push(match layout.hmac.as_ref().filter(|_| column.hashed) {
                Some(hmac) => hmac.column(values.as_ref())?,
                None => values,
            });
        }
    }
    let batch = RecordBatch::try_new(Arc::clone(&layout.schema), columns)?;
    Ok(Built { batch, repeated, mismatched })
}

/// The columns that every log has, and those of versions.
fn head(layout: &Layout, ended: &[Ended], rows: usize) -> Vec<ArrayRef> {
    let each = || ended.iter().flat_map(|ended| ended.rows.iter().map(move |_| ended));
    let (mut ids, mut runs) = (StringBuilder::with_capacity(rows, 0), StringBuilder::with_capacity(rows, 0));
    let mut outcomes = StringDictionaryBuilder::<Int32Type>::new();
    let texts = Field::new_list_field(DataType::Utf8, false);
    let mut degraded = ListBuilder::new(StringBuilder::new()).with_field(texts);
    for ended in ended {
        let run = ended.run.to_string();
        for _ in &ended.rows {
            ids.append_option(ended.request_id.as_deref());
            runs.append_value(&run);
            outcomes.append_value(&ended.outcome);
            ended.degraded.iter().for_each(|step| degraded.values().append_value(step));
            degraded.append(true);
        }
    }
    let numbers = UInt32Array::from_iter_values(ended.iter().flat_map(|ended| ended.rows.iter().copied()));
    let counts = ended.iter().flat_map(|ended| {
        let count = asked_rows(ended, layout.input);
        ended.rows.iter().map(move |_| count)
    });
    let counts = UInt32Array::from_iter(counts);
    let at = TimestampMicrosecondArray::from_iter_values(each().map(|ended| ended.at)).with_timezone("UTC");
    let took = Int64Array::from_iter_values(each().map(|ended| ended.took));
    let head: [ArrayRef; HEAD] = [
        Arc::new(ids.finish()),
        Arc::new(runs.finish()),
        Arc::new(numbers),
        Arc::new(counts),
        Arc::new(at),
        Arc::new(took),
        Arc::new(outcomes.finish()),
        Arc::new(degraded.finish()),
    ];
    let mut columns = Vec::from(head);
    for version in 0..layout.versions {
        let mut texts = StringBuilder::with_capacity(rows, 0);
        each().for_each(|ended| texts.append_option(ended.versions.get(version)));
        columns.push(Arc::new(texts.finish()));
    }
    columns
}

/// How many rows a request had, whichever of them the sample has: none if nothing was seen of it where it came in.
fn asked_rows(ended: &Ended, input: Option<usize>) -> Option<u32> {
    let batches = ended.seen.iter().filter(|seen| Some(seen.edge) == input);
    let last =
        batches.flat_map(|seen| (0..seen.batch.num_rows()).filter_map(|row| seen.places.get(row))).max()?;
    last.checked_add(1)
}

/// Where the rows of an edge come from.
struct Gathered<'a> {
    /// Batch 0 is a row of nulls; the others follow.
    batches: Vec<&'a RecordBatch>,
    /// The batch and its row for each row of the log.
    from: Vec<(usize, usize)>,
    repeated: usize,
    mismatched: usize,
}

const NOTHING: (usize, usize) = (0, 0);

impl<'a> Gathered<'a> {
    fn new(ended: &'a [Ended], number: usize, edge: &Edge, rows: usize) -> Self {
        let mut gathered =
            Self { batches: Vec::new(), from: vec![NOTHING; rows], repeated: 0, mismatched: 0 };
        let mut start = 0;
        for ended in ended {
            for seen in ended.seen.iter().filter(|seen| seen.edge == number) {
                if fits(&seen.batch, edge) {
                    gathered.add(seen, &ended.rows, start);
                } else {
                    gathered.mismatched += seen.batch.num_rows();
                }
            }
            start += ended.rows.len();
        }
        gathered
    }

    /// Adds the rows of a batch; those of its request in the log are `rows`, from `start`.
    fn add(&mut self, seen: &'a Seen, rows: &[u32], start: usize) {
        self.batches.push(&seen.batch);
        let batch = self.batches.len();
        for row in 0..seen.batch.num_rows() {
            let Some(at) = seen.places.get(row).and_then(|place| rows.binary_search(&place).ok()) else {
                continue;
            };
            match &mut self.from[start + at] {
                from if *from == NOTHING => *from = (batch, row),
                _ => self.repeated += 1,
            }
        }
    }

    fn seen(&self) -> ArrayRef {
        Arc::new(self.from.iter().map(|from| Some(*from != NOTHING)).collect::<BooleanArray>())
    }

    fn column(&self, column: &Column) -> Result<ArrayRef, ArrowError> {
        let null = new_null_array(&column.plain, 1);
        let plain = |batch: &&RecordBatch| {
            let values = batch.column(column.source);
            let as_is = values.data_type() == &column.plain;
            if as_is { Ok(Arc::clone(values)) } else { cast(values, &column.plain) }
        };
        let arrays: Vec<ArrayRef> = self.batches.iter().map(plain).collect::<Result<_, _>>()?;
        let arrays: Vec<&dyn Array> =
            std::iter::once(null.as_ref()).chain(arrays.iter().map(AsRef::as_ref)).collect();
        interleave(&arrays, &self.from)
    }
}

/// Whether a batch has the columns of its edge. Names are not compared: a step may have renamed them.
fn fits(batch: &RecordBatch, edge: &Edge) -> bool {
    if Arc::ptr_eq(batch.schema_ref(), &edge.schema) {
        return true;
    }
    let (own, want) = (batch.schema_ref().fields(), edge.schema.fields());
    own.len() == want.len() && own.iter().zip(want).all(|(own, want)| own.data_type() == want.data_type())
}
