//! Replies that come in parts: what a graph declares about them, and what compile makes of it.
//!
//! A part is a run like any other. The graph is run again on the same rows, of which some columns are now what the last reply
//! said: a loop around the graph, and no cycle in it.

use arrow::datatypes::{DataType, Schema};

use crate::{CompileError, Graph, suggest};

/// What a graph declares about replies that come in parts: it is run again and again, and each run's reply is a part.
///
/// Columns of a reply become columns of the next run's input; every other column stays as the request has it. A row that is done,
/// or that has no row in the reply, is not run again.
///
/// ```
/// use millstream_graph::{Graph, Stream, fields, rows};
///
/// let mut graph = Graph::new("count", fields! { at: Int64 });
/// let input = graph.input();
/// let next = graph.map("next", &input, fields! { next: Int64, done: Boolean }, |batch| {
///     use arrow::{array::AsArray, datatypes::Int64Type};
///     let next: Vec<i64> = batch.column(0).as_primitive::<Int64Type>().values().iter().map(|at| at + 1).collect();
///     let done: Vec<bool> = next.iter().map(|next| *next >= 10).collect();
///     Ok(rows! { next: next, done: done })
/// });
/// graph.respond(&next);
/// graph.stream(Stream::until("done").feed("at", "next").most(100));
/// assert_eq!(graph.compile()?.stream().map(|stream| stream.most()), Some(100));
/// # Ok::<(), millstream_graph::CompileErrors>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub(crate) feed: Vec<(String, String)>,
    pub(crate) until: String,
    pub(crate) most: usize,
}

impl Stream {
    /// The parts of a stream of which nothing else is said.
    pub const MOST: usize = 256;
    /// No graph may declare more: each part is a run, and somebody waits for the last one.
    pub const MOST_EVER: usize = 65_536;

    /// A stream whose rows are done when this column of the reply is true.
    pub fn until(column: &str) -> Self {
        Self { feed: Vec::new(), until: column.to_owned(), most: Self::MOST }
    }

    /// The same, where column `input` of the next run is column `reply` of this one's reply.
    #[must_use]
    pub fn feed(mut self, input: &str, reply: &str) -> Self {
        self.feed.push((input.to_owned(), reply.to_owned()));
        self
    }

    /// The same, of at most so many parts.
    #[must_use]
    pub fn most(mut self, parts: usize) -> Self {
        self.most = parts;
        self
    }
}

/// A [`Stream`] that has been checked: columns are indices, and their types fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanStream {
    pub(crate) feed: Vec<Feed>,
    pub(crate) until: usize,
    pub(crate) most: usize,
}

/// A column of the reply that becomes one of the next run's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    pub(crate) input: usize,
    pub(crate) carried: usize,
    pub(crate) reply: usize,
}

impl Feed {
    /// Where the column stands in the input.
    pub fn input(self) -> usize {
        self.input
    }

    /// Where it stands among the columns that travel.
    pub fn carried(self) -> usize {
        self.carried
    }

    /// The column of the reply.
    pub fn reply(self) -> usize {
        self.reply
    }
}

impl PlanStream {
    /// What of a reply goes into the next run.
    pub fn feed(&self) -> &[Feed] {
        &self.feed
    }

    /// The column of the reply that says which rows are done.
    pub fn until(&self) -> usize {
        self.until
    }

    /// The most parts that there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Finds the fed columns among those that travel, which stand at these places of the input.
    pub(crate) fn carry(&mut self, carried_at: &[usize]) {
        for feed in &mut self.feed {
            // They are always among them: narrowing keeps them.
            feed.carried = carried_at.iter().position(|&at| at == feed.input).unwrap_or(feed.input);
        }
    }

    /// The stream in words.
    pub(crate) fn told(&self, input: &Schema, reply: &Schema) -> String {
        let fed = self
            .feed
            .iter()
            .map(|feed| format!("{} <- {}", input.field(feed.input).name(), reply.field(feed.reply).name()));
        let fed = fed.collect::<Vec<_>>().join(", ");
        format!("{fed}; until {}, {} parts at most", reply.field(self.until).name(), self.most)
    }
}

/// Finds the columns that a stream names. `reply` are those of the reply, and whether its rows know their place in the request;
/// none when it could not be typed, of which it is said elsewhere.
pub(crate) fn resolve(
    graph: &Graph,
    reply: Option<(&Schema, bool)>,
    errors: &mut Vec<CompileError>,
) -> Option<PlanStream> {
    let Stream { feed, until, most } = graph.stream.as_ref()?;
    let before = errors.len();
    let mut wrong = |problem: String| errors.push(CompileError::Stream { problem });
    if *most == 0 || *most > Stream::MOST_EVER {
        wrong(format!("`most` is {most}, but a stream has 1 to {} parts", Stream::MOST_EVER));
    }
    if feed.is_empty() {
        wrong("`feed` is empty: every part would be the first one again".to_owned());
    }
    if let Some((_, false)) = reply {
        wrong(
            "the rows of the reply no longer know their place in the request, so that none can be run again"
                .to_owned(),
        );
    }
    let reply = reply.map(|(schema, _)| schema);
    let mut found: Vec<Feed> = Vec::with_capacity(feed.len());
    for (input, from) in feed {
        let fed = fed(&graph.input, reply, (input.as_str(), from.as_str()), &mut wrong);
        if let Some(fed) = fed {
            if found.iter().any(|other| other.input == fed.input) {
                wrong(format!("`feed` names column `{input}` of the input twice"));
            }
            found.push(fed);
        }
    }
    let until = column(reply?, "the reply", until, &mut wrong).filter(|&at| {
        let data_type = reply.map_or(&DataType::Null, |reply| reply.field(at).data_type());
        let fits = *data_type == DataType::Boolean;
        if !fits {
            wrong(format!(
                "`until` names column `{until}` of the reply, which is {data_type} and not Boolean"
            ));
        }
        fits
    })?;
    (errors.len() == before).then_some(PlanStream { feed: found, until, most: *most })
}

/// One pair of columns, where both are there and the one fits the other.
fn fed(
    input: &Schema,
    reply: Option<&Schema>,
    (to, from): (&str, &str),
    wrong: &mut impl FnMut(String),
) -> Option<Feed> {
    let at = column(input, "the input", to, wrong);
    let from_at = reply.and_then(|reply| column(reply, "the reply", from, wrong).zip(Some(reply)));
    let (at, (from_at, reply)) = at.zip(from_at)?;
    let (target, source) = (input.field(at), reply.field(from_at));
    if !fits(source.data_type(), target.data_type()) {
        wrong(format!(
            "column `{from}` of the reply is {} where column `{to}` of the input is {}; cast it",
            source.data_type(),
            target.data_type()
        ));
    } else if source.is_nullable() && !target.is_nullable() {
        wrong(format!(
            "column `{from}` of the reply may be null where column `{to}` of the input may not; let the input be null, or fill \
             the gaps before the reply"
        ));
    } else {
        return Some(Feed { input: at, carried: at, reply: from_at });
    }
    None
}

fn column(schema: &Schema, of: &str, name: &str, wrong: &mut impl FnMut(String)) -> Option<usize> {
    let found = schema.index_of(name).ok();
    if found.is_none() {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        wrong(format!("{of} has {}", suggest::unknown("column", name, known)));
    }
    found
}

/// Whether values of one type can be those of another. Whether items of lists may be null is a matter of the values: outputs of
/// models say that they may, and never are.
fn fits(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::FixedSizeList(from, sizes), DataType::FixedSizeList(to, wanted)) => {
            sizes == wanted && fits(from.data_type(), to.data_type())
        }
        (DataType::List(from), DataType::List(to)) | (DataType::LargeList(from), DataType::LargeList(to)) => {
            fits(from.data_type(), to.data_type())
        }
        (from, to) => from == to,
    }
}
