//! Leaving out what nobody reads: which columns of a plan travel, and the steps made anew for fewer.
//!
//! A plan is first typed as it was written, with every mistake reported. Then columns that nothing reads any more are left
//! out of the request and of what steps hand on. Nothing that can be seen changes: not the reply, nor what an error port, a
//! tap or a handler that is there gets, nor which rows fail and why.

use std::{
    any::{Any, TypeId},
    collections::BTreeSet,
    fmt,
    sync::Arc,
};

use arrow::datatypes::{Schema, SchemaRef};

use crate::{
    EdgeId, Fallback, Plan, PlanPort, PlanStep, RowFlow, Signature, Source, Step, failure::failed_schema,
};

/// Says which columns a step reads, and makes the step anew for a place where others are left out.
///
/// A column that is not read only passes through: without it the step answers the same rows without it, and fails for the
/// same rows in the same words. See [`Signature::narrowing`].
#[derive(Clone)]
pub struct Narrow {
    /// The type of the step. A layer answers the signature of the step inside it, and must not be replaced by that step.
    of: TypeId,
    reads: Vec<Vec<usize>>,
    /// Columns of in-port 0 that go out as they are, under their names.
    handed_on: Vec<usize>,
    anew: Arc<Anew>,
}

type Anew = dyn Fn(&Carried<'_>) -> Arc<dyn Step> + Send + Sync;

impl Narrow {
    /// A step that reads the columns `reads[i]` of in-port `i`, by index; `anew` makes the same step, not typed yet.
    ///
    /// Columns that the step makes and columns of which it knows the place or the name, such as one that it replaces, count as
    /// read.
    pub fn new<S: Step>(
        reads: impl IntoIterator<Item = Vec<usize>>,
        anew: impl Fn(&Carried<'_>) -> S + Send + Sync + 'static,
    ) -> Self {
        let anew = move |carried: &Carried<'_>| Arc::new(anew(carried)) as Arc<dyn Step>;
        let reads = reads.into_iter().collect();
        Self { of: TypeId::of::<S>(), reads, handed_on: Vec::new(), anew: Arc::new(anew) }
    }

    /// Says of columns of in-port 0, by index, that they go out under the same name as they came in, with every row that does not fail.
    #[must_use]
    pub fn handing_on(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.handed_on.extend(columns);
        self
    }
}

impl fmt::Debug for Narrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Narrow").field("reads", &self.reads).finish_non_exhaustive()
    }
}

/// What is carried to a step and read behind it, where it is made anew.
pub struct Carried<'a> {
    inputs: &'a [SchemaRef],
    wanted: &'a BTreeSet<&'a str>,
}

impl Carried<'_> {
    /// Whether a column comes in on any in-port.
    pub fn comes_in(&self, name: &str) -> bool {
        self.inputs.iter().any(|schema| schema.column_with_name(name).is_some())
    }

    /// Whether anything reads a column of this name on any out-port. The step may leave out columns that nothing reads.
    pub fn is_read(&self, name: &str) -> bool {
        self.wanted.contains(name)
    }
}

impl Signature {
    /// Lets compile leave out columns that nothing reads.
    ///
    /// A step that says nothing is taken to read all that comes in.
    #[must_use]
    pub fn narrowing(mut self, narrow: Narrow) -> Self {
        self.narrow = Some(narrow);
        self
    }
}

/// Leaves out of a checked plan what nothing reads. `ways` has one entry per step.
pub(crate) fn narrow(mut plan: Plan, ways: &[Option<Narrow>]) -> Plan {
    let ways: Vec<Option<&Narrow>> =
        plan.steps.iter().zip(ways).map(|(step, way)| way.as_ref().filter(|way| way.fits(step))).collect();
    for (step, passing) in passing(&plan, &ways).into_iter().enumerate() {
        plan.steps[step].outputs.iter_mut().zip(passing).for_each(|(port, passing)| port.passing = passing);
    }
    let wanted = Wanted::new(&plan, &ways);
    // A step that is not what it promised, once it is made anew, leaves the plan as it was written.
    if let Some(narrowed) = Narrowed::new(&plan, &ways, &wanted) {
        plan.carried_at = (0..wanted.input.len()).filter(|&at| wanted.input[at]).collect();
        plan.stream.iter_mut().for_each(|stream| stream.carry(&plan.carried_at));
        narrowed.replace(&mut plan);
    }
    plan
}

impl Narrow {
    /// Whether this is about `step`, and nothing else in the plan was made for the columns that come in.
    fn fits(&self, step: &PlanStep) -> bool {
        let any: &dyn Any = &*step.step;
        let filled = |fallback: &&Fallback| matches!(fallback, Fallback::Fill(_));
        any.type_id() == self.of && !step.fallbacks.each().iter().any(filled)
    }
}

/// Per step and out-port, which columns come from in-port 0 as they are, with every row that the step is given.
fn passing(plan: &Plan, ways: &[Option<&Narrow>]) -> Vec<Vec<Columns>> {
    let step = |(step, way): (&PlanStep, &Option<&Narrow>)| {
        // Rows that fail are missing here. That is known of all that follows only where nobody takes care of them.
        let of = match (way, &step.in_edges[..]) {
            (Some(way), &[edge]) if step.error.edges.is_empty() && nobody_answers(step) => {
                Some((way, plan.edge_schema(edge)))
            }
            _ => None,
        };
        let port = |port: &PlanPort| {
            let passes = |name: &str| {
                let (way, input) = of.filter(|_| port.flow == RowFlow::Same)?;
                let at = input.index_of(name).ok()?;
                Some(way.handed_on.contains(&at))
            };
            let fields = port.declared.fields().iter();
            fields.map(|field| passes(field.name()).unwrap_or(false)).collect()
        };
        step.outputs.iter().map(port).collect()
    };
    plan.steps.iter().zip(ways).map(step).collect()
}

fn nobody_answers(step: &PlanStep) -> bool {
    step.fallbacks.each().iter().all(|fallback| matches!(fallback, Fallback::None))
}

/// Per column, whether something reads it.
type Columns = Vec<bool>;

/// Which columns are read, by where they come out.
struct Wanted {
    input: Columns,
    /// Per step and out-port.
    ports: Vec<Vec<Columns>>,
    /// Per step: of the columns of its error port, which are those of its in-port 0 and `error`.
    errors: Vec<Columns>,
}

impl Wanted {
    /// Goes through the steps from the last to the first, so that all readers of a port have said what they read.
    fn new(plan: &Plan, ways: &[Option<&Narrow>]) -> Self {
        let none = |schema: &SchemaRef| vec![false; schema.fields().len()];
        let mut wanted = Self {
            input: none(&plan.input),
            ports: plan
                .steps
                .iter()
                .map(|step| step.outputs.iter().map(|port| none(&port.schema)).collect())
                .collect(),
            errors: plan.steps.iter().map(|step| none(&step.error.schema)).collect(),
        };
        for (at, edge) in plan.edges.iter().enumerate().filter(|(_, edge)| !edge.taps.is_empty()) {
            let fields = plan.edge_schema(EdgeId(at as u32)).fields();
            let is_read = |name: &String| {
                let reads = |columns: &Option<Arc<[String]>>| {
                    columns.as_ref().is_none_or(|columns| columns.contains(name))
                };
                edge.read.iter().any(reads)
            };
            let reads = fields.iter().enumerate().filter(|(_, field)| is_read(field.name()));
            wanted.read(edge.from, reads.map(|(at, _)| at));
        }
        for (id, step) in plan.steps.iter().enumerate().rev() {
            // Rows without columns would lose their number.
            wanted.ports[id].iter_mut().for_each(at_least_one);
            for (in_port, &edge) in step.in_edges.iter().enumerate() {
                let schema = plan.edge_schema(edge);
                let reads = match ways[id] {
                    Some(way) => wanted.reads(way, step, id, in_port, schema),
                    None => (0..schema.fields().len()).collect(),
                };
                wanted.read(plan.edges[edge.index()].from, reads);
            }
        }
        for feed in plan.stream.iter().flat_map(|stream| &stream.feed) {
            // What is fed is there to be fed into.
            wanted.input[feed.input] = true;
        }
        at_least_one(&mut wanted.input);
        wanted
    }

    /// What a step needs of an in-port: what it reads itself, and what is read of what it hands on.
    fn reads(&self, way: &Narrow, step: &PlanStep, id: usize, in_port: usize, schema: &Schema) -> Vec<usize> {
        let out = self.names(step, id);
        let mut reads = way.reads.get(in_port).cloned().unwrap_or_default();
        for (at, field) in schema.fields().iter().enumerate() {
            let fails = in_port == 0 && self.errors[id].get(at) == Some(&true);
            if fails || out.contains(field.name().as_str()) {
                reads.push(at);
            }
        }
        reads
    }

    /// The names of what is read of a step's out-ports.
    fn names<'p>(&self, step: &'p PlanStep, id: usize) -> BTreeSet<&'p str> {
        let ports = step.outputs.iter().zip(&self.ports[id]);
        let read = ports.flat_map(|(port, wanted)| port.schema.fields().iter().zip(wanted));
        read.filter(|(_, wanted)| **wanted).map(|(field, _)| field.name().as_str()).collect()
    }

    fn read(&mut self, from: Source, columns: impl IntoIterator<Item = usize>) {
        let wanted = match from {
            // What a handler sees of the request are its columns, and then `error`.
            Source::Input | Source::Handler => &mut self.input,
            Source::Port(step, port) => &mut self.ports[step.index()][port],
            Source::Error(step) => &mut self.errors[step.index()],
        };
        for column in columns {
            if let Some(wanted) = wanted.get_mut(column) {
                *wanted = true;
            }
        }
    }
}

fn at_least_one(columns: &mut Columns) {
    if let (false, Some(first)) = (columns.contains(&true), columns.first_mut()) {
        *first = true;
    }
}

/// What changes in a plan.
struct Narrowed {
    input: SchemaRef,
    handler: SchemaRef,
    steps: Vec<NarrowedStep>,
}

struct NarrowedStep {
    /// `None` where the step stays as it is.
    step: Option<Arc<dyn Step>>,
    outputs: Vec<SchemaRef>,
    error: SchemaRef,
}

impl Narrowed {
    /// Types the steps again, from the first to the last. `None` when there is nothing to leave out, or a step made anew is
    /// not the one it was.
    fn new(plan: &Plan, ways: &[Option<&Narrow>], wanted: &Wanted) -> Option<Self> {
        let input = kept_schema(&plan.input, &wanted.input);
        let mut narrowed =
            Self { handler: failed_schema(&input), input, steps: Vec::with_capacity(plan.steps.len()) };
        for (id, step) in plan.steps.iter().enumerate() {
            let inputs: Vec<SchemaRef> =
                step.in_edges.iter().map(|edge| narrowed.schema(plan.edges[edge.index()].from)).collect();
            let same = step
                .in_edges
                .iter()
                .zip(&inputs)
                .all(|(edge, now)| Arc::ptr_eq(plan.edge_schema(*edge), now));
            let all_read = wanted.ports[id].iter().flatten().all(|read| *read);
            let made = match ways[id] {
                Some(way) if !same || !all_read => {
                    let names = wanted.names(step, id);
                    let made = (way.anew)(&Carried { inputs: &inputs, wanted: &names });
                    let signature = made.signature(&inputs).ok()?;
                    let error = failed_schema(inputs.first()?);
                    check(step, &wanted.ports[id], &signature)?;
                    let outputs = signature.outputs.into_iter().map(|out| out.schema).collect();
                    NarrowedStep { step: Some(made), outputs, error }
                }
                _ => NarrowedStep {
                    step: None,
                    outputs: step.outputs.iter().map(|port| Arc::clone(&port.schema)).collect(),
                    error: Arc::clone(&step.error.schema),
                },
            };
            narrowed.steps.push(made);
        }
        narrowed.steps.iter().any(|step| step.step.is_some()).then_some(narrowed)
    }

    fn schema(&self, from: Source) -> SchemaRef {
        let schema = match from {
            Source::Input => &self.input,
            Source::Handler => &self.handler,
            Source::Port(step, port) => &self.steps[step.index()].outputs[port],
            Source::Error(step) => &self.steps[step.index()].error,
        };
        Arc::clone(schema)
    }

    fn replace(self, plan: &mut Plan) {
        plan.carried = self.input;
        plan.handler_schema = self.handler;
        for (step, made) in plan.steps.iter_mut().zip(self.steps) {
            step.step = made.step.unwrap_or_else(|| Arc::clone(&step.step));
            step.error.schema = made.error;
            step.outputs.iter_mut().zip(made.outputs).for_each(|(port, schema)| port.schema = schema);
        }
        if let Some(out) = plan.steps[plan.respond.index()].outputs.first() {
            plan.reply = Arc::clone(&out.schema);
        }
    }
}

/// The columns that are kept, under the same metadata; the same schema when that is all of them.
fn kept_schema(schema: &SchemaRef, columns: &Columns) -> SchemaRef {
    if columns.iter().all(|kept| *kept) {
        return Arc::clone(schema);
    }
    let fields =
        schema.fields().iter().zip(columns).filter(|(_, kept)| **kept).map(|(field, _)| Arc::clone(field));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// Whether a step made anew is what it was, but for columns that nothing reads.
fn check(step: &PlanStep, wanted: &[Columns], signature: &Signature) -> Option<()> {
    let same_ports = signature.outputs.len() == step.outputs.len() && signature.effect == step.effect;
    let ports = step.outputs.iter().zip(wanted).zip(&signature.outputs);
    let mut ports = ports.map(|((was, wanted), now)| {
        let left = |name: &str| now.schema.column_with_name(name).is_some();
        let was_there = was.schema.fields().iter();
        let kept: Columns = was_there.zip(wanted).map(|(field, read)| *read || left(field.name())).collect();
        was.name == now.name && was.flow == now.flow && *kept_schema(&was.schema, &kept) == *now.schema
    });
    (same_ports && ports.all(|same| same)).then_some(())
}
