//! For any plan and any rows: the engine equals the serial interpreter, ends, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use futures_util::future::join_all;
use millstream_graph::{
    ErrorKind, FailedRows, Graph, Input, JoinOn, OnError, Output, PortRef, Request, Rows, RunCx, RunId,
    SchemaError, Signature, Step, StepError, StepResult, Substitute, Work,
};
use millstream_runtime::{
    Append, Door, Engine, Limits, Portion, Reply, RunError, run_serially,
    testkit::{Record, fields, poll_once, rows},
};
use proptest::{prelude::*, sample::Index};
use tokio::runtime::{Builder, Runtime};

/// Where a step does its work.
#[derive(Clone, Copy, Debug)]
enum How {
    Done,
    /// Waits this often before it answers.
    Io(u8),
    Compute,
}

/// What goes wrong in a step, for rows whose id can be divided by three.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Whole,
    Rows,
    Panic,
}

/// Who takes care of a step's failure.
#[derive(Clone, Copy, Debug)]
enum Care {
    Step,
    Nobody,
    Skip,
    Default,
    ErrorPort,
}

/// One step of a plan to be, or a few that belong together; it reads the ports at `first` and `second`.
#[derive(Clone, Debug)]
struct Verb {
    what: What,
    first: Index,
    second: Index,
    tapped: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Probe(How, Fault, Care),
    Filter,
    ChooseAndMerge,
    Choose,
    Merge,
    Join,
    Handler,
}

#[derive(Clone, Debug)]
struct AnyPlan {
    verbs: Vec<Verb>,
    reply: Index,
}

/// Plans of up to `verbs` verbs. Few enough rules that everything meets everything.
fn any_plan(verbs: usize) -> impl Strategy<Value = AnyPlan> {
    let how = prop_oneof![Just(How::Done), (1..4u8).prop_map(How::Io), Just(How::Compute)];
    let fault = prop_oneof![
        3 => Just(Fault::None), 1 => Just(Fault::Whole), 1 => Just(Fault::Rows), 1 => Just(Fault::Panic),
    ];
    let care = prop_oneof![
        Just(Care::Nobody),
        Just(Care::Skip),
        Just(Care::Default),
        Just(Care::Step),
        Just(Care::ErrorPort)
    ];
    let what = prop_oneof![
        6 => (how, fault, care).prop_map(|(how, fault, care)| What::Probe(how, fault, care)),
        1 => Just(What::Filter),
        1 => Just(What::ChooseAndMerge),
        1 => Just(What::Choose),
        2 => Just(What::Merge),
        2 => Just(What::Join),
        1 => Just(What::Handler),
    ];
    let verb = (what, any::<Index>(), any::<Index>(), any::<bool>())
        .prop_map(|(what, first, second, tapped)| Verb { what, first, second, tapped });
    (prop::collection::vec(verb, 1..verbs), any::<Index>())
        .prop_map(|(verbs, reply)| AnyPlan { verbs, reply })
}

fn any_rows() -> impl Strategy<Value = RecordBatch> {
    prop::collection::vec(0..12i64, 0..20).prop_map(|id| {
        let v = (0..id.len() as i64).collect::<Vec<_>>();
        rows! { id: id, v: v }
    })
}

fn columns() -> SchemaRef {
    fields! { id: Int64, v: Int64 }
}

fn column(batch: &RecordBatch, at: usize) -> &Int64Array {
    batch.column(at).as_primitive::<Int64Type>()
}

fn at_fault(batch: &RecordBatch) -> BooleanArray {
    column(batch, 0).values().iter().map(|id| Some(id % 3 == 0)).collect()
}

/// A future that is ready when it is polled the second time.
struct OneWait(bool);

impl Future for OneWait {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Adds one to `v`, in one of the ways a step can work and fail.
struct Probe {
    how: How,
    fault: Fault,
    held: Arc<()>,
    /// Set when the step failed and nobody takes care of that.
    failed: Option<Arc<AtomicBool>>,
}

fn work(fault: Fault, failed: Option<&AtomicBool>, rows: &Rows) -> StepResult {
    let bad = at_fault(rows.batch());
    let bad = if fault == Fault::None { BooleanArray::from(vec![false; rows.len()]) } else { bad };
    if bad.true_count() > 0 {
        if let Some(failed) = failed {
            failed.store(true, SeqCst);
        }
        match fault {
            Fault::Whole => return Err(StepError::new(ErrorKind::Unavailable, "gone")),
            Fault::Panic => panic!("planted"),
            Fault::Rows | Fault::None => {}
        }
    }
    let good = rows.filter(&arrow::compute::not(&bad)?)?;
    let failed = rows.filter(&bad)?;
    let messages = column(failed.batch(), 0).values().iter().map(|id| format!("{id} is at fault")).collect();
    let v: Int64Array = column(good.batch(), 1).unary(|v| v + 1);
    let batch = RecordBatch::try_new(columns(), vec![Arc::clone(good.batch().column(0)), Arc::new(v)])?;
    Ok(Output::one(good.replace(batch)?).with_failed(FailedRows { rows: failed, messages }))
}

impl Step for Probe {
    fn signature(&self, _: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(columns()))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let (fault, failed, held) = (self.fault, self.failed.clone(), Arc::clone(&self.held));
        let mut rest = move || {
            let _held = &held;
            input.rows(0).and_then(|rows| work(fault, failed.as_deref(), &rows))
        };
        match self.how {
            How::Done => Work::Done(rest()),
            How::Compute => Work::Compute(Box::new(rest)),
            How::Io(times) => Work::Io(Box::pin(async move {
                for _ in 0..times {
                    OneWait(false).await;
                }
                rest()
            })),
        }
    }
}

/// A port of a plan that is being made.
#[derive(Clone)]
struct Place {
    port: PortRef,
    /// Whether each row of the request is there at most once.
    unique: bool,
}

/// A compiled plan, and what watches its runs.
struct Watched {
    engine: Engine,
    record: Record,
    held: Arc<()>,
    /// Whether a step failed that nobody takes care of: then what else ran is a race.
    failed: Arc<AtomicBool>,
}

impl AnyPlan {
    fn engine(&self, limits: Limits) -> Watched {
        let (record, held, failed) = (Record::default(), Arc::new(()), Arc::new(AtomicBool::new(false)));
        let mut graph = Graph::new("any", columns());
        let mut places = vec![Place { port: graph.input(), unique: true }];
        // At most one step may end the run: which of two is first is a race.
        let mut may_fail = true;
        for (at, verb) in self.verbs.iter().enumerate() {
            let (first, second) = (verb.first.get(&places).clone(), verb.second.get(&places).clone());
            let name = |what: &str| format!("{what}{at}");
            let before = places.len();
            match verb.what {
                What::Probe(how, fault, care) => {
                    let uncared = fault != Fault::None && matches!(care, Care::Nobody);
                    let fault = if uncared && !may_fail { Fault::None } else { fault };
                    may_fail &= !uncared;
                    let failed = uncared.then(|| Arc::clone(&failed));
                    let probe = Probe { how, fault, held: Arc::clone(&held), failed };
                    let port = graph.step(&name("probe"), &first.port, probe);
                    match care {
                        Care::Nobody => {}
                        Care::Skip => graph.when_failed(&port, OnError::Skip),
                        Care::Default => {
                            let values = [("v".to_owned(), serde_json::json!(-7))];
                            graph.when_failed(&port, OnError::Default(values.into()));
                        }
                        Care::Step => {
                            let substitute = Substitute::new(Probe {
                                how,
                                fault: Fault::None,
                                held: Arc::clone(&held),
                                failed: None,
                            });
                            graph.when_failed(&port, OnError::Step(substitute));
                        }
                        Care::ErrorPort => {
                            let mended = project(&mut graph, &name("mended"), &port.error());
                            places.push(Place { port: mended, unique: first.unique });
                        }
                    }
                    places.push(Place { port, unique: first.unique });
                }
                What::Filter => {
                    let port = graph.filter(&name("filter"), &first.port, |batch| {
                        Ok(column(batch, 0).values().iter().map(|id| Some(id % 5 != 1)).collect())
                    });
                    places.push(Place { port, ..first });
                }
                What::Choose => {
                    let ports = graph.choose(&name("choose"), &first.port, ["odd", "even"], parity);
                    places.extend(ports.map(|port| Place { port, unique: first.unique }));
                }
                What::ChooseAndMerge => {
                    let [odd, even] = graph.choose(&name("choose"), &first.port, ["odd", "even"], parity);
                    let even = project(&mut graph, &name("even"), &even);
                    let port = graph.merge(&name("merge"), [&odd, &even]);
                    places.push(Place { port, ..first });
                }
                What::Merge => {
                    let port = graph.merge(&name("merge"), [&first.port, &second.port]);
                    places.push(Place { port, unique: false });
                }
                What::Join if second.unique => {
                    let other = graph.map(&name("other"), &second.port, fields! { w: Int64 }, |batch| {
                        Ok(rows! { w: column(batch, 1).values().to_vec() })
                    });
                    let joined = graph.join(&name("join"), [&first.port, &other], JoinOn::Rows);
                    let port = graph.map(&name("sum"), &joined, columns(), |batch| {
                        let (v, w) = (column(batch, 1), column(batch, 2));
                        let sum =
                            (0..v.len()).map(|at| v.value(at) + if w.is_null(at) { -1 } else { w.value(at) });
                        Ok(rows! { id: column(batch, 0).values().to_vec(), v: sum.collect::<Vec<i64>>() })
                    });
                    places.push(Place { port, ..first });
                }
                What::Join => {}
                What::Handler => {
                    let failed = graph.on_error();
                    let port = project(&mut graph, &name("handler"), &failed);
                    places.push(Place { port, unique: true });
                }
            }
            if verb.tapped {
                places[before..].iter().for_each(|place| graph.tap(&place.port, Arc::new(record.clone())));
            }
        }
        graph.respond(&self.reply.get(&places).port);
        let plan = graph.compile().unwrap_or_else(|errors| panic!("{errors}"));
        Watched { engine: Engine::new(plan, limits).unwrap(), record, held, failed }
    }
}

fn parity(batch: &RecordBatch) -> Result<Vec<usize>, StepError> {
    Ok(column(batch, 0).values().iter().map(|id| usize::from(id % 2 == 0)).collect())
}

fn project(graph: &mut Graph, name: &str, input: &PortRef) -> PortRef {
    graph.map(name, input, columns(), |batch| Ok(batch.project(&[0, 1])?))
}

/// `id`, `v` and place.
type Row = (i64, i64, Option<u32>);
/// Step, kind and message.
type Failure = (Option<String>, ErrorKind, String);

/// What the engine and the serial interpreter must agree on.
#[derive(Debug, PartialEq)]
struct Told {
    reply: Result<Vec<Row>, Failure>,
    /// Unknown where a run failed: what else ran until then is a race.
    degraded: Option<Vec<(String, String)>>,
    seen: Option<Vec<String>>,
}

impl Watched {
    fn told(&self, result: Result<Reply, RunError>, failed: bool) -> Told {
        let run = result.as_ref().ok().map(Reply::run);
        let edge = |edge| self.engine.plan().edge_name(edge);
        let mut seen: Vec<_> = self.record.seen().into_iter().filter(|(_, by, _)| Some(*by) == run).collect();
        let mut seen: Vec<_> =
            seen.drain(..).map(|(at, _, batch)| format!("{}: {:?}", edge(at), batch.columns())).collect();
        seen.sort();
        let degraded = result.as_ref().ok().map(|reply| {
            let mut all: Vec<_> =
                reply.degraded().iter().map(|d| (d.step.to_string(), d.reason.to_string())).collect();
            all.sort();
            all
        });
        Told {
            reply: match result {
                Ok(reply) => {
                    assert_eq!(reply.rows().schema(), columns());
                    let (id, v) = (column(reply.rows(), 0), column(reply.rows(), 1));
                    Ok((0..id.len()).map(|row| (id.value(row), v.value(row), reply.place(row))).collect())
                }
                Err(error) => Err((error.step().map(str::to_owned), error.kind(), error.to_string())),
            },
            degraded: degraded.filter(|_| !failed),
            seen: run.filter(|_| !failed).map(|_| seen),
        }
    }

    /// What the serial interpreter says, and whether a step failed that nobody takes care of.
    async fn serially(&self, number: u64, rows: &RecordBatch) -> (Told, bool) {
        let cx = RunCx::new(RunId(u64::MAX - number), Request::default(), rows.num_rows(), Instant::now);
        self.failed.store(false, SeqCst);
        let result = run_serially(self.engine.plan(), &cx, rows.clone()).await;
        let failed = self.failed.load(SeqCst);
        (self.told(result, failed), failed)
    }

    /// Runs all inputs at once; every tail has ended afterwards.
    async fn at_once(&self, inputs: &[RecordBatch]) -> Vec<Result<Reply, RunError>> {
        let results = join_all(inputs.iter().map(|rows| self.engine.run(rows.clone()))).await;
        self.engine.close().await;
        results
    }
}

/// Runs a test on one runtime, with a bound far above what it takes.
fn in_time<T>(runtime: &Runtime, test: impl Future<Output = T>) -> T {
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), test).await.expect("every run ends")
    })
}

/// The two ways to be hosted: threads and a pool, or one thread without.
fn hosts() -> [(Runtime, Limits); 2] {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref::<&str>() != Some(&"planted") {
                usual(panic);
            }
        }));
    });
    let many = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    let limits = |compute_threads| Limits { compute_threads, ..Limits::default() };
    [(many, limits(2)), (one, limits(0))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_engine_equals_the_serial_interpreter(plan in any_plan(14), rows in any_rows()) {
        for (runtime, limits) in hosts() {
            let watched = plan.engine(limits);
            let (wanted, got) = in_time(&runtime, async {
                let (wanted, failed) = watched.serially(0, &rows).await;
                let result = watched.at_once(std::slice::from_ref(&rows)).await.remove(0);
                (wanted, watched.told(result, failed))
            });
            prop_assert_eq!(wanted, got, "{}", watched.engine.plan());
        }
    }

    #[test]
    fn runs_at_the_same_time_know_nothing_of_each_other(
        plan in any_plan(10),
        inputs in prop::collection::vec(any_rows(), 5),
    ) {
        for (runtime, limits) in hosts() {
            let watched = plan.engine(limits);
            let (wanted, got) = in_time(&runtime, async {
                let mut wanted = Vec::new();
                let mut failed = Vec::new();
                for (number, rows) in inputs.iter().enumerate() {
                    let (told, did_fail) = watched.serially(number as u64, rows).await;
                    wanted.push(told);
                    failed.push(did_fail);
                }
                let results = watched.at_once(&inputs).await;
                let got: Vec<_> = results.into_iter().zip(failed).map(|(r, failed)| watched.told(r, failed)).collect();
                (wanted, got)
            });
            prop_assert_eq!(wanted, got, "{}", watched.engine.plan());
        }
    }

    #[test]
    fn requests_that_share_a_run_are_answered_as_if_each_were_alone(
        plan in any_plan(12),
        arrivals in prop::collection::vec((any_rows(), 0..4u8, any::<bool>(), 0..6usize), 1..8),
        rows in 2..30usize,
        runs in 1..3usize,
    ) {
        for (runtime, limits) in hosts() {
            let watched = plan.engine(Limits { shared_rows: rows, shared_runs: runs, ..limits });
            let gather = Append::new(Arc::clone(watched.engine.plan().input_schema()));
            let door = Door::new(watched.engine.clone(), gather);
            let base = Arc::strong_count(&watched.held);
            let (wanted, got) = in_time(&runtime, async {
                let mut alone = Vec::new();
                for (number, (rows, ..)) in arrivals.iter().enumerate() {
                    alone.push(watched.serially(number as u64, rows).await);
                }
                let answers = join_all(arrivals.iter().map(|(rows, after, stays, polls)| {
                    let door = &door;
                    async move {
                        for _ in 0..*after {
                            OneWait(false).await;
                        }
                        let run = door.run(Request::default(), rows.clone());
                        if *stays {
                            return Some(run.await.map(Portion::into_reply));
                        }
                        // This caller goes away after a few polls, whatever it leads or waits for.
                        let mut run = Box::pin(run);
                        let mut polls = *polls;
                        std::future::poll_fn(|cx| {
                            if polls == 0 {
                                return Poll::Ready(None);
                            }
                            polls -= 1;
                            run.as_mut().poll(cx).map(|answer| Some(answer.map(Portion::into_reply)))
                        })
                        .await
                    }
                }))
                .await;
                watched.engine.close().await;
                while Arc::strong_count(&watched.held) > base {
                    tokio::task::yield_now().await;
                }
                let answered = answers.into_iter().zip(alone);
                let pairs = answered.filter_map(|(got, (wanted, failed))| Some((wanted, watched.told(got?, failed))));
                pairs.unzip::<_, _, Vec<_>, Vec<_>>()
            });
            prop_assert_eq!(wanted, got, "{}", watched.engine.plan());
        }
    }

    #[test]
    fn a_run_dropped_at_any_poll_leaves_nothing_behind(plan in any_plan(10), rows in any_rows(), polls in 0..8usize) {
        for (runtime, limits) in hosts() {
            let watched = plan.engine(limits);
            let base = Arc::strong_count(&watched.held);
            let (wanted, got) = in_time(&runtime, async {
                let (wanted, failed) = watched.serially(0, &rows).await;
                let mut run = Box::pin(watched.engine.run(rows.clone()));
                (0..polls).any(|_| poll_once(&mut run).is_ready());
                drop(run);
                // The engine goes on; and all permits come back, or it could not be closed.
                let result = watched.at_once(std::slice::from_ref(&rows)).await.remove(0);
                // A job that had started on the pool finishes unread.
                while Arc::strong_count(&watched.held) > base {
                    tokio::task::yield_now().await;
                }
                (wanted, watched.told(result, failed))
            });
            prop_assert_eq!(wanted, got, "{}", watched.engine.plan());
            prop_assert_eq!(Arc::strong_count(&watched.held), base);
        }
    }
}
