//! The streams of a project, as they run.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    runtime::{Builder, Runtime},
    task::{AbortHandle, JoinSet},
};

use super::{Decode, Intake, Meter, Progress, PutAside, StreamSpec};
use crate::WritableSet;

/// A stream of a project: what is read, by whom it is decoded, and where the rows go.
#[derive(Clone)]
pub struct Stream {
    /// The stream's name.
    pub name: String,
    /// Its definition.
    pub spec: StreamSpec,
    /// The project's folder.
    pub root: PathBuf,
    /// The set that takes the rows.
    pub set: Arc<WritableSet>,
    /// What makes rows of messages.
    pub decode: Arc<dyn Decode>,
    /// Where messages go that cannot be read.
    pub aside: Option<Arc<dyn PutAside>>,
}

/// Runs streams, on a thread of its own: what they decode is no matter of those who serve.
///
/// Dropping it ends all streams. Nothing is lost, whenever that is: what is not in its set yet is read again.
#[derive(Default)]
pub struct Streams {
    meter: Option<Arc<dyn Meter>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made for the first stream.
    runtime: Option<Runtime>,
    running: HashMap<String, Running>,
    tasks: JoinSet<()>,
    stopped: bool,
}

struct Running {
    stream: Stream,
    progress: Arc<Progress>,
    task: AbortHandle,
}

/// An intake that runs, whatever its feed is.
type Run = Pin<Box<dyn Future<Output = Infallible> + Send>>;

impl Streams {
    /// No streams yet, and nobody who hears how they do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells `meter` how streams do.
    #[must_use]
    pub fn meter(mut self, meter: Arc<dyn Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Makes these the streams that run. Those that run already, for the same set and by the same definition, go on; those that
    /// are not among them end; the others begin where their sets stand. After [`Streams::stop`] none begins.
    ///
    /// # Errors
    /// What is wrong with the settings of streams that were to begin, by name, or that there is no thread to be had; they do not
    /// run.
    pub fn keep(&self, wanted: Vec<Stream>) -> Result<(), Vec<String>> {
        let mut state = self.lock();
        if state.stopped {
            return Ok(());
        }
        while state.tasks.try_join_next().is_some() {}
        let goes_on = |running: &Running| wanted.iter().any(|wanted| wanted.is(&running.stream));
        state.running.retain(|_, running| {
            let goes_on = goes_on(running);
            if !goes_on {
                running.task.abort();
            }
            goes_on
        });
        if state.runtime.is_none() && !wanted.is_empty() {
            state.runtime = Some(runtime().map_err(|error| vec![format!("no thread for streams: {error}")])?);
        }
        let State { runtime: Some(runtime), running, tasks, .. } = &mut *state else { return Ok(()) };
        let mut problems = Vec::new();
        for stream in wanted {
            if running.contains_key(&stream.name) {
                continue;
            }
            match stream.intake(self.meter.as_ref()) {
                Ok((run, progress)) => {
                    // It never ends by itself.
                    let run = async { match run.await {} };
                    let task = tasks.spawn_on(run, runtime.handle());
                    running.insert(stream.name.clone(), Running { stream, progress, task });
                }
                Err(wrong) => {
                    problems.extend(
                        wrong.into_iter().map(|problem| format!("stream `{}`: {problem}", stream.name)),
                    );
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// How far each stream has come, with the name of its set, by name.
    pub fn progress(&self) -> Vec<(Arc<Progress>, String)> {
        let state = self.lock();
        let running = state.running.values();
        let mut all: Vec<_> = running
            .map(|running| (Arc::clone(&running.progress), running.stream.set.set().name().to_owned()))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.stream().cmp(b.stream()));
        all
    }

    /// Ends all streams, and waits until none has its set any more.
    pub async fn stop(&self) {
        let mut tasks = {
            let mut state = self.lock();
            state.stopped = true;
            state.running.clear();
            std::mem::take(&mut state.tasks)
        };
        tasks.shutdown().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Whether the other one does the same.
    fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.spec == other.spec && Arc::ptr_eq(&self.set, &other.set)
    }

    fn intake(&self, meter: Option<&Arc<dyn Meter>>) -> Result<(Run, Arc<Progress>), Vec<String>> {
        let source = self.spec.source().unwrap_or_default();
        #[cfg(feature = "nats")]
        if let Some(nats) = &self.spec.nats {
            return Ok(self.run(super::NatsFeed::new(nats, &self.root, source)?, meter));
        }
        #[cfg(feature = "kafka")]
        if let Some(kafka) = &self.spec.kafka {
            return Ok(self.run(super::KafkaFeed::new(kafka, source)?, meter));
        }
        self.spec.check(&self.root)?;
        Err(vec!["nothing says what is read".to_owned()])
    }

    fn run<F: super::Feed>(&self, feed: F, meter: Option<&Arc<dyn Meter>>) -> (Run, Arc<Progress>) {
        let mut intake = Intake::new(&self.name, feed, Arc::clone(&self.set), Arc::clone(&self.decode));
        intake = intake.at_gap(self.spec.gap);
        if let Some(most) = self.spec.rows {
            intake = intake.most(most);
        }
        if let Some(aside) = &self.aside {
            intake = intake.aside(Arc::clone(aside));
        }
        if let Some(meter) = meter {
            intake = intake.meter(Arc::clone(meter));
        }
        let progress = intake.progress();
        (Box::pin(intake.run()), progress)
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name("millstream-streams").enable_all().build()
}

impl Drop for Streams {
    fn drop(&mut self) {
        if let Some(runtime) = self.lock().runtime.take() {
            // It may be dropped where nothing may wait.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("running", &self.lock().running.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).field("spec", &self.spec).finish_non_exhaustive()
    }
}
