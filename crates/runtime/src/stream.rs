//! Replies in parts: runs of one plan, one after the other, of which each is fed by the reply before.
//!
//! A part is a run like any other: it is let in, shares its run with whoever comes to the same door, is told to taps and counted.
//! So streams of many callers run together, row by row, and a row that is done makes room at once.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, GenericListArray, Int64Array, OffsetSizeTrait, RecordBatch,
        UInt32Array,
    },
    compute::{CastOptions, cast_with_options, take},
    datatypes::DataType,
    error::ArrowError,
};
use millstream_graph::{Feed, Plan, PlanStream, Request};

use crate::{Door, Engine, Gather, Portion, RunError, admission::Reserved, engine::with_schema_of, run::now};

/// A reply that comes in parts. Made by [`Engine::stream`].
///
/// Nothing runs between parts: the next one runs while somebody waits for it, in [`ReplyStream::next`] or [`ReplyStream::next_at`],
/// and whoever stops waiting cancels it. A plan without a [stream](Plan::stream) has one part.
///
/// ```
/// use millstream_graph::{Graph, Request, Stream, fields, rows};
/// use millstream_runtime::{Engine, Limits};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut graph = Graph::new("count", fields! { at: Int64 });
/// let input = graph.input();
/// let next = graph.map("next", &input, fields! { next: Int64, done: Boolean }, |batch| {
///     use arrow::{array::AsArray, datatypes::Int64Type};
///     let next: Vec<i64> = batch.column(0).as_primitive::<Int64Type>().values().iter().map(|at| at + 1).collect();
///     let done: Vec<bool> = next.iter().map(|next| *next >= 3).collect();
///     Ok(rows! { next: next, done: done })
/// });
/// graph.respond(&next);
/// graph.stream(Stream::until("done").feed("at", "next"));
/// let engine = Engine::new(graph.compile()?, Limits::default())?;
///
/// let mut parts = engine.stream(Request::default(), rows! { at: [0_i64] })?;
/// let mut count = 0;
/// while let Some(part) = parts.next().await {
///     count += 1;
///     assert_eq!(part?.is_last(), count == 3);
/// }
/// assert_eq!(count, 3);
/// # Ok(())
/// # }
/// ```
pub struct ReplyStream {
    engine: Engine,
    request: Request,
    /// What is run next; none once the stream has ended.
    next: Option<RecordBatch>,
    /// Why there is nothing to run, though rows are left; told behind the part that says so.
    failure: Option<RunError>,
    /// Which rows of the request those are; none while they are all of it.
    places: Option<Arc<[u32]>>,
    /// Parts so far.
    parts: usize,
    /// What those rows take, in bytes; and what is held of it beyond what the request brought.
    bytes: usize,
    room: Reserved,
    held: usize,
}

/// One part of a reply: what one run replied.
#[derive(Clone, Debug)]
pub struct Part {
    portion: Portion,
    places: Option<Arc<[u32]>>,
    number: usize,
    last: bool,
}

impl Part {
    /// What the run replied.
    pub fn portion(&self) -> &Portion {
        &self.portion
    }

    /// Which row of the stream's request row `row` of this part answers; `None` when the graph mixes rows.
    pub fn place(&self, row: usize) -> Option<u32> {
        let place = self.portion.place(row)?;
        match &self.places {
            None => Some(place),
            Some(places) => places.get(place as usize).copied(),
        }
    }

    /// Whether row `i` of this part answers row `i` of the request, for every row of a request of `rows`.
    pub fn is_whole(&self, rows: usize) -> bool {
        let own = self.portion.range().len();
        own == rows && (0..own).all(|row| self.place(row).is_none_or(|place| place as usize == row))
    }

    /// How many parts came before.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Whether no other follows.
    pub fn is_last(&self) -> bool {
        self.last
    }
}

impl Engine {
    /// A reply in parts to a request, which has one deadline for all of them.
    ///
    /// # Errors
    /// When the rows do not fit the plan.
    pub fn stream(&self, mut request: Request, rows: RecordBatch) -> Result<ReplyStream, RunError> {
        let plan = self.plan();
        let rows = if Arc::ptr_eq(plan.carried_schema(), rows.schema_ref()) {
            rows
        } else {
            with_schema_of(plan.input_schema(), rows)?
        };
        if let (None, Some(limit)) = (request.deadline, self.limits().deadline) {
            request.deadline = now().checked_add(limit);
        }
        let room = self.reserve(0)?;
        let bytes = size(&rows);
        Ok(ReplyStream {
            engine: self.clone(),
            request,
            next: Some(rows),
            failure: None,
            places: None,
            parts: 0,
            bytes,
            room,
            held: bytes,
        })
    }
}

impl ReplyStream {
    /// The next part, which has a run to itself; `None` behind the last one and behind an error.
    ///
    /// Dropping the future ends the stream.
    ///
    /// # Errors
    /// As [`Engine::try_run`].
    pub async fn next(&mut self) -> Option<Result<Part, RunError>> {
        let (request, rows) = match self.ask()? {
            Ok(asked) => asked,
            Err(error) => return Some(Err(error)),
        };
        let ran = self.engine.try_run(request, rows.clone()).await;
        Some(ran.map(|reply| self.part(&rows, reply.into())))
    }

    /// The next part, of a run that it shares with whatever comes to a door of the same engine.
    ///
    /// Dropping the future ends the stream.
    ///
    /// # Errors
    /// As [`Door::run`].
    pub async fn next_at<G>(&mut self, door: &Door<G>) -> Option<Result<Part, RunError>>
    where
        G: Gather<Part: From<RecordBatch>>,
    {
        let (request, rows) = match self.ask()? {
            Ok(asked) => asked,
            Err(error) => return Some(Err(error)),
        };
        let ran = if self.bytes > SHARED_BYTES / self.engine.limits().shared_rows.max(1) {
            self.engine.try_run(request, rows.clone()).await.map(Portion::from)
        } else {
            door.run(request, rows.clone().into()).await
        };
        Some(ran.map(|portion| self.part(&rows, portion)))
    }

    /// Parts so far.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The rows of the next run. Until its reply is taken, there is no other.
    fn ask(&mut self) -> Option<Result<(Request, RecordBatch), RunError>> {
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        Some(Ok((self.request.clone(), self.next.take()?)))
    }

    /// Makes a part of a reply to `rows`, and of what it says the rows of the next run.
    fn part(&mut self, rows: &RecordBatch, portion: Portion) -> Part {
        let places = self.places.clone();
        let number = self.parts;
        self.parts += 1;
        let plan = Arc::clone(self.engine.plan());
        let fed = match plan.stream().filter(|stream| self.parts < stream.most()) {
            Some(stream) => Fed::new(stream, rows.num_rows(), &portion),
            None => Fed::default(),
        };
        if let Some(stream) = plan.stream().filter(|_| !fed.rows.is_empty()) {
            let next = fed.batch(&plan, stream, rows, &portion).map_err(|error| unfit(&error));
            match next.and_then(|next| self.hold(&next).map(|()| next)) {
                Ok(next) => {
                    self.keep(&fed, rows.num_rows());
                    self.next = Some(next);
                }
                Err(error) => self.failure = Some(error),
            }
        }
        let last = self.next.is_none() && self.failure.is_none();
        Part { portion, places, number, last }
    }

    /// Takes room for what the rows have grown by.
    fn hold(&mut self, next: &RecordBatch) -> Result<(), RunError> {
        self.bytes = size(next);
        let more = self.bytes.saturating_sub(self.held);
        if more > 0 && !self.room.grow(more) {
            return Err(self.engine.no_room());
        }
        self.held += more;
        Ok(())
    }

    /// Remembers which rows of the request are left, of so many that were run.
    fn keep(&mut self, fed: &Fed, ran: usize) {
        if fed.rows.len() == ran {
            return;
        }
        let place = |row: &u32| match &self.places {
            None => *row,
            Some(places) => places[*row as usize],
        };
        let left: Arc<[u32]> = fed.rows.iter().map(place).collect();
        if let Some(times) = &self.request.times {
            let kept = fed.rows.iter().map(|&row| {
                let row = row as usize;
                (row < times.len() && times.is_valid(row)).then(|| times.value(row))
            });
            self.request.times = Some(kept.collect::<Int64Array>());
        }
        self.places = Some(left);
    }
}

/// What is run again.
#[derive(Default)]
struct Fed {
    /// Rows of the run, in order.
    rows: Vec<u32>,
    /// The row of the reply that each of them is fed by.
    by: Vec<u32>,
}

impl Fed {
    /// The rows of a run of so many that are not done.
    fn new(stream: &PlanStream, ran: usize, portion: &Portion) -> Self {
        let batch = portion.reply().rows();
        let done = batch.columns().get(stream.until()).and_then(|column| column.as_boolean_opt());
        let is_done =
            |row: usize| done.is_some_and(|done: &BooleanArray| done.is_valid(row) && done.value(row));
        // Of several rows that answer one, the last counts.
        let mut answers: Vec<Option<u32>> = vec![None; ran];
        for (own, row) in portion.range().enumerate() {
            let place = portion.place(own).and_then(|place| answers.get_mut(place as usize));
            if let Some(answer) = place {
                *answer = Some(row as u32);
            }
        }
        let mut fed = Self::default();
        for (row, answer) in answers.into_iter().enumerate() {
            if let Some(by) = answer.filter(|&by| !is_done(by as usize)) {
                fed.rows.push(row as u32);
                fed.by.push(by);
            }
        }
        fed
    }

    /// The rows of the next run.
    fn batch(
        &self,
        plan: &Plan,
        stream: &PlanStream,
        rows: &RecordBatch,
        portion: &Portion,
    ) -> Result<RecordBatch, ArrowError> {
        let (schema, place) = (rows.schema_ref(), place_in(plan, rows));
        let left = (self.rows.len() < rows.num_rows()).then(|| UInt32Array::from(self.rows.clone()));
        let by = UInt32Array::from(self.by.clone());
        let first = self.by.first().map_or(0, |&by| by as usize);
        let in_order = self.by.iter().enumerate().all(|(at, &by)| by as usize == first + at);
        let column = |(at, column): (usize, &ArrayRef)| {
            let Some(feed) = stream.feed().iter().find(|feed| place(**feed) == at) else {
                return left.as_ref().map_or_else(|| Ok(Arc::clone(column)), |left| take(column, left, None));
            };
            let answer = portion.reply().rows().column(feed.reply());
            let wanted = schema.field(at).data_type();
            if answer.data_type() != wanted {
                // Taken first, so that nothing is left in it of rows that are others'.
                let strict = CastOptions { safe: false, ..CastOptions::default() };
                return cast_with_options(&take(answer, &by, None)?, wanted, &strict);
            }
            if in_order { Ok(answer.slice(first, self.by.len())) } else { take(answer, &by, None) }
        };
        let columns = rows.columns().iter().enumerate().map(column).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(Arc::clone(schema), columns)
    }
}

/// Bytes of the rows of one shared run, which have to fit offsets of 32 bits.
const SHARED_BYTES: usize = 1 << 30;

/// The bytes of rows.
fn size(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| bytes_of(column)).sum()
}

/// The bytes of the rows of a column. Where its rows are some of a larger one, Arrow counts the items of all lists of that one.
fn bytes_of(column: &dyn Array) -> usize {
    let nulls = column.nulls().map_or(0, |nulls| nulls.len().div_ceil(8));
    match column.data_type() {
        DataType::List(_) => nulls + bytes_of_lists(column.as_list::<i32>()),
        DataType::LargeList(_) => nulls + bytes_of_lists(column.as_list::<i64>()),
        DataType::FixedSizeList(..) => nulls + bytes_of(column.as_fixed_size_list().values()),
        DataType::Struct(_) => {
            nulls + column.as_struct().columns().iter().map(|field| bytes_of(field)).sum::<usize>()
        }
        // A column whose size cannot be told is small.
        _ => column.to_data().get_slice_memory_size().unwrap_or(0),
    }
}

fn bytes_of_lists<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> usize {
    let offsets = lists.value_offsets();
    let first = offsets.first().map_or(0, |first| first.as_usize());
    let last = offsets.last().map_or(first, |last| last.as_usize());
    size_of_val(offsets) + bytes_of(&lists.values().slice(first, last - first))
}

/// Where fed columns stand in rows, which have all columns of the input or those alone that travel.
fn place_in(plan: &Plan, rows: &RecordBatch) -> fn(Feed) -> usize {
    if Arc::ptr_eq(plan.carried_schema(), rows.schema_ref()) { Feed::carried } else { Feed::input }
}

/// A reply that says of a row what no row of a request may say, such as an item that is null where none may be.
fn unfit(error: &ArrowError) -> RunError {
    RunError::Fed { reason: error.to_string() }
}

impl std::fmt::Debug for ReplyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyStream")
            .field("engine", &self.engine)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}
