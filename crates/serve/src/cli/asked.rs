//! Rows of a file as requests of a graph: what each asks, and for which time; many under way at once, answered in order.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use millstream_featurestore::offline::Times;
use millstream_graph::Request;
use tokio::task::JoinSet;

use super::{Failure, input::Input};
use crate::wire::UnknownFields;

/// A batch of requests, and what stands beside them in the file.
pub(super) struct Asked {
    /// The number of the first row, counted from 0 over the file.
    pub(super) first: usize,
    pub(super) rows: RecordBatch,
    pub(super) times: Option<Int64Array>,
    #[cfg_attr(
        not(feature = "offline"),
        expect(dead_code, reason = "`verify` alone has something beside requests")
    )]
    pub(super) beside: Vec<ArrayRef>,
}

impl Asked {
    /// What asks for these rows; nobody waits for them.
    pub(super) fn request(&self) -> Request {
        Request { times: self.times.clone(), ..Request::default() }
    }

    /// One row alone.
    #[cfg(feature = "offline")]
    pub(super) fn row(&self, row: usize) -> Self {
        Self {
            first: self.first + row,
            rows: self.rows.slice(row, 1),
            times: self.times.as_ref().map(|times| times.slice(row, 1)),
            beside: self.beside.iter().map(|column| column.slice(row, 1)).collect(),
        }
    }
}

/// What is read of a file: the columns of a graph's requests, the column of times, and others.
pub(super) struct Asking {
    graph: SchemaRef,
    all: SchemaRef,
    time: Option<usize>,
    beside: Vec<usize>,
}

impl Asking {
    /// Requests with the columns of `graph`, for the times in column `time`, beside columns that are one of the request's or stand
    /// alone.
    pub(super) fn new(graph: &SchemaRef, time: Option<&str>, beside: &[Field]) -> Self {
        let mut fields: Vec<Field> = graph.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut place = |field: Field| {
            let known = fields.iter().position(|known| known.name() == field.name());
            known.unwrap_or_else(|| {
                fields.push(field);
                fields.len() - 1
            })
        };
        let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let time = time.map(|name| place(Field::new(name, stamp, true)));
        let beside = beside.iter().map(|field| place(field.clone().with_nullable(true))).collect();
        Self { graph: Arc::clone(graph), all: Arc::new(Schema::new(fields)), time, beside }
    }

    /// The rows of a file, `rows` at a time.
    pub(super) fn open(
        self,
        file: &Path,
        rows: usize,
        unknown_fields: UnknownFields,
    ) -> Result<(Option<u64>, impl Iterator<Item = Result<Asked, Failure>>), Failure> {
        let input = Input::open(file, &self.all, rows, unknown_fields)?;
        let total = input.total();
        let mut first = 0;
        let asked = input.map(move |batch| {
            let asked = self.asked(first, &batch?)?;
            first += asked.rows.num_rows();
            Ok(asked)
        });
        Ok((total, asked))
    }

    fn asked(&self, first: usize, batch: &RecordBatch) -> Result<Asked, Failure> {
        let columns = batch.columns()[..self.graph.fields().len()].to_vec();
        let times = match self.time {
            None => None,
            Some(at) => {
                let times = Times::of(batch.column(at))
                    .map_err(|error| format!("column `{}`: {error}", self.all.field(at).name()))?;
                Some((0..times.len()).map(|row| times.get(row)).collect())
            }
        };
        Ok(Asked {
            first,
            rows: RecordBatch::try_new(Arc::clone(&self.graph), columns)?,
            times,
            beside: self.beside.iter().map(|&at| Arc::clone(batch.column(at))).collect(),
        })
    }
}

/// Works on items side by side, two per core at a time, and hands over what comes of them in the order of the items.
pub(super) async fn in_order<A, R, F>(
    mut items: impl Iterator<Item = Result<A, Failure>>,
    work: impl Fn(A) -> F,
    mut done: impl FnMut(R) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    R: Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let most = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let (mut tasks, mut ready) = (JoinSet::new(), BTreeMap::new());
    let (mut begun, mut ended, mut more) = (0, 0, true);
    loop {
        while more && begun - ended < most {
            let Some(item) = items.next() else {
                more = false;
                break;
            };
            let (number, work) = (begun, work(item?));
            tasks.spawn(async move { (number, work.await) });
            begun += 1;
        }
        let Some(task) = tasks.join_next().await else { return Ok(()) };
        let (number, result) = task?;
        ready.insert(number, result);
        while let Some(result) = ready.remove(&ended) {
            ended += 1;
            done(result)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn what_is_done_first_waits_for_what_came_before_it() {
        let gate = Arc::new(Semaphore::new(0));
        let mut seen = Vec::new();
        let work = |number: usize| {
            let gate = Arc::clone(&gate);
            async move {
                // The first one is let through by the second.
                match number {
                    0 => gate.acquire().await.map(drop),
                    1 => {
                        gate.add_permits(1);
                        Ok(())
                    }
                    _ => Ok(()),
                }
                .map(|()| number)
            }
        };
        let done = |number| {
            seen.push(number?);
            Ok(())
        };
        in_order((0..100).map(Ok), work, done).await.unwrap();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn an_item_that_cannot_be_read_ends_the_work() {
        let items = [Ok(1), Err("unreadable".into())];
        let ended = in_order(items.into_iter(), |number: i32| async move { number }, |_| Ok(())).await;
        assert_eq!(ended.unwrap_err().to_string(), "unreadable");
    }
}
