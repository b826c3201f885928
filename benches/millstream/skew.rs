//! Jobs of very different cost on all cores: the engine and its pool beside other ways to share jobs out.
//!
//! One job in 16 costs forty times as much as the others. The floor is the sum of all costs by the number of cores
//! (`ideal`, which the bench prints); a share handed out in advance (`split`) shows what stealing is for.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::sync_channel,
    },
    thread::{JoinHandle, available_parallelism, spawn},
    time::{Duration, Instant},
};

use criterion::Criterion;
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use futures_util::future::join_all;
use millstream::{
    Engine, Graph, Input, Limits, Output, RunCx, SchemaError, Signature, Step, Work,
    arrow::{
        array::AsArray,
        datatypes::{Int64Type, SchemaRef},
    },
    fields, rows,
};

const JOBS: i64 = 256;

/// What job `id` costs.
fn cost(id: i64) -> Duration {
    Duration::from_micros(if id % 16 == 0 { 4000 } else { 100 })
}

fn work(id: i64) {
    let start = Instant::now();
    while start.elapsed() < cost(id) {
        std::hint::spin_loop();
    }
}

pub(crate) fn bench(c: &mut Criterion) {
    let cores = available_parallelism().map_or(1, usize::from);
    let all: Duration = (0..JOBS).map(cost).sum();
    eprintln!("skew: ideal on {cores} cores {:?}", all / cores as u32);
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(cores).build().unwrap();
    let deque = Deque::new(cores);
    let mut group = c.benchmark_group("skew");
    group.sample_size(10);
    let engine = engine();
    // On a thread of its own: the benches run inside a runtime already.
    let answered = |jobs: i64| {
        std::thread::scope(|scope| {
            let answers = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(join_all((0..jobs).map(|id| engine.run(rows! { id: [id] }))))
            });
            assert!(answers.join().unwrap().iter().all(Result::is_ok));
        });
    };
    // Once, so that the engine knows what the step costs.
    answered(1);
    group.bench_function("engine", |b| b.iter(|| answered(JOBS)));
    group.bench_function("rayon", |b| b.iter(|| through(|job| rayon.spawn(job))));
    group.bench_function("crossbeam_deque", |b| b.iter(|| through(|job| deque.spawn(job))));
    group.bench_function("split", |b| {
        b.iter(|| {
            std::thread::scope(|scope| {
                for core in 0..cores as i64 {
                    let part = JOBS / cores as i64;
                    scope.spawn(move || (core * part..(core + 1) * part).for_each(|at| work(sorted(at))));
                }
            });
        });
    });
    group.finish();
    let mut group = c.benchmark_group("hand_over");
    group.bench_function("rayon", |b| b.iter(|| one(|job| rayon.spawn(job))));
    group.bench_function("crossbeam_deque", |b| b.iter(|| one(|job| deque.spawn(job))));
    group.finish();
}

/// The jobs with the dear ones first, as those of one large customer lie next to each other.
fn sorted(at: i64) -> i64 {
    let dear = JOBS / 16;
    if at < dear { at * 16 } else { (at - dear) / 15 * 16 + (at - dear) % 15 + 1 }
}

/// Every job by `spawn`, waited for by this thread.
fn through(spawn: impl Fn(Job)) {
    let (done, ends) = sync_channel(JOBS as usize);
    for id in 0..JOBS {
        let done = done.clone();
        spawn(Box::new(move || {
            work(id);
            done.send(()).unwrap();
        }));
    }
    (0..JOBS).for_each(|_| ends.recv().unwrap());
}

/// An empty job to another thread and back.
fn one(spawn: impl Fn(Job)) {
    let (done, end) = sync_channel(1);
    spawn(Box::new(move || done.send(()).unwrap()));
    end.recv().unwrap();
}

/// Costs what its row's id says.
struct Costly;

impl Step for Costly {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        Work::Compute(Box::new(move || {
            let rows = input.rows(0)?;
            rows.batch().column(0).as_primitive::<Int64Type>().values().iter().copied().for_each(work);
            Ok(Output::one(rows))
        }))
    }
}

fn engine() -> Engine {
    let mut graph = Graph::new("skew", fields! { id: Int64 });
    let costly = graph.step("costly", graph.input(), Costly);
    graph.respond(&costly);
    Engine::new(graph.compile().unwrap(), Limits::default()).unwrap()
}

type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads over `crossbeam-deque`, as the engine's would be without rayon.
struct Deque {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    injector: Injector<Job>,
    stealers: Vec<Stealer<Job>>,
    /// Threads that have found nothing, under the lock that a spawner takes to wake one.
    idle: Mutex<usize>,
    wake: Condvar,
    closed: AtomicBool,
}

impl Deque {
    fn new(threads: usize) -> Self {
        let workers: Vec<Worker<Job>> = (0..threads).map(|_| Worker::new_fifo()).collect();
        let shared = Arc::new(Shared {
            injector: Injector::new(),
            stealers: workers.iter().map(Worker::stealer).collect(),
            idle: Mutex::new(0),
            wake: Condvar::new(),
            closed: AtomicBool::new(false),
        });
        let thread = |worker| {
            let shared = Arc::clone(&shared);
            #[expect(clippy::disallowed_methods, reason = "joined when the pool is dropped")]
            spawn(move || shared.work(&worker))
        };
        Self { threads: workers.into_iter().map(thread).collect(), shared }
    }

    fn spawn(&self, job: Job) {
        self.shared.injector.push(job);
        if *self.shared.idle.lock().unwrap() > 0 {
            self.shared.wake.notify_one();
        }
    }
}

impl Shared {
    fn work(&self, local: &Worker<Job>) {
        loop {
            if let Some(job) = self.find(local) {
                job();
                continue;
            }
            let mut idle = self.idle.lock().unwrap();
            *idle += 1;
            // Whoever pushes takes the lock afterwards, so what came before it is seen here.
            while self.injector.is_empty() && !self.closed.load(SeqCst) {
                idle = self.wake.wait(idle).unwrap();
            }
            *idle -= 1;
            if self.closed.load(SeqCst) {
                return;
            }
        }
    }

    fn find(&self, local: &Worker<Job>) -> Option<Job> {
        local.pop().or_else(|| {
            std::iter::repeat_with(|| {
                self.injector
                    .steal_batch_and_pop(local)
                    .or_else(|| self.stealers.iter().map(Stealer::steal).collect())
            })
            .find(|steal| !steal.is_retry())
            .and_then(Steal::success)
        })
    }
}

impl Drop for Deque {
    fn drop(&mut self) {
        self.shared.closed.store(true, SeqCst);
        drop(self.shared.idle.lock().unwrap());
        self.shared.wake.notify_all();
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}
