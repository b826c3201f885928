//! Models in processes of their own: whatever a model does to its process is an error of one request.

mod child;
mod wire;

use std::{
    env,
    io::{self, BufReader, BufWriter},
    num::NonZeroUsize,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, available_parallelism},
    time::Duration,
};

use millstream_graph::{Stop, when_nobody_waits};

use crate::{
    CheckedModel, LoadError, LoadOptions, Model, ModelError, ModelInfo, Tensor,
    model::{Read, Value},
    pool::Pool,
};
pub use child::run_isolated;
use wire::{Answer, Ask, GotValue};

/// A model that takes longer to load is given up.
const LOAD: Duration = Duration::from_secs(120);
/// A run that takes longer has lost its way, whether somebody waits for it or not.
const RUN: Duration = Duration::from_secs(300);
/// Names the program, where it is not this one.
const PROGRAM: &str = "MILLSTREAM_ISOLATED";
/// What of the environment the processes get: where programs and libraries are, and nothing that may be a secret.
const ENVIRONMENT: [&str; 6] =
    ["ORT_DYLIB_PATH", "PATH", "HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"];

/// An ONNX model that is run by processes of its own, one per instance.
///
/// A process that ends, for whatever reason, fails the run that it had; the next run starts another. So does a run that nobody
/// waits for any more. The process is the program `millstream` with the argument `isolated`, or what the variable
/// `MILLSTREAM_ISOLATED` names; a program of your own can be one by [`run_isolated`].
pub struct Isolated {
    info: ModelInfo,
    pool: Pool<Option<Process>>,
    start: Start,
}

/// How a process is started.
struct Start {
    program: PathBuf,
    name: String,
    model: CheckedModel,
    warm_up: bool,
}

struct Process {
    child: Arc<Mutex<Child>>,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Isolated {
    /// Starts the processes of a model that has been checked.
    ///
    /// # Errors
    /// When a process cannot be started, or does not load the model.
    pub fn from_checked(name: &str, model: &CheckedModel, options: &LoadOptions) -> Result<Self, LoadError> {
        crate::session::pinned(model, options)?;
        let program = program().map_err(|error| LoadError::Runtime(error.to_string()))?;
        let start = Start { program, name: name.to_owned(), model: model.clone(), warm_up: options.warm_up };
        let (info, first) = start.process().map_err(LoadError::Runtime)?;
        let count = options.instances.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let mut processes = vec![Some(first)];
        while processes.len() < count {
            processes.push(Some(start.process().map_err(LoadError::Runtime)?.1));
        }
        Ok(Self { info, pool: Pool::new(processes), start })
    }
}

/// The program whose processes models are run by.
fn program() -> io::Result<PathBuf> {
    if let Some(named) = env::var_os(PROGRAM) {
        return Ok(named.into());
    }
    let this = env::current_exe()?;
    if this.file_stem().is_some_and(|name| name == "millstream") {
        return Ok(this);
    }
    let problem = format!("an isolated model is run by the program `millstream`; {PROGRAM} says where it is");
    Err(io::Error::new(io::ErrorKind::NotFound, problem))
}

impl Start {
    /// A process that has loaded the model, and what the model is.
    fn process(&self) -> Result<(ModelInfo, Process), String> {
        let environment = ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?)));
        let mut command = Command::new(&self.program);
        // What is typed at a terminal is for the server, which ends its processes when it has no use for them any more.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .arg("isolated")
            .env_clear()
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a stranger's model says is not for the log.
            .stderr(Stdio::null())
            .spawn();
        let mut child =
            child.map_err(|error| format!("`{}` cannot be started: {error}", self.program.display()))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its process has no pipes".to_owned());
        };
        let child = Arc::new(Mutex::new(child));
        let mut process = Process { child, to: BufWriter::new(to), from: BufReader::new(from) };
        let folder = self.model.folder().to_str().ok_or("the model's folder has a name that is not UTF-8")?;
        let ask = Ask::Load { name: self.name.clone(), folder: folder.to_owned(), warm_up: self.warm_up };
        match process.ask(&ask, &[self.model.bytes()], LOAD) {
            Ok((Answer::Loaded(info), _)) => {
                let info = info.info(&self.name).map_err(|error| error.to_string())?;
                Ok((info, process))
            }
            Ok((Answer::Failed(error), _)) => Err(error),
            Ok((Answer::Ran(_), _)) => Err("its process answers what it was not asked".to_owned()),
            Err(error) => Err(error),
        }
    }
}

impl Process {
    /// Asks and waits, at most for a while: then, and when nobody waits any more, the process is ended.
    fn ask(&mut self, ask: &Ask, behind: &[&[u8]], most: Duration) -> Result<(Answer, Vec<u8>), String> {
        let end = Arc::clone(&self.child);
        let stop = when_nobody_waits(move || kill(&end));
        let (done, waits) = mpsc::sync_channel::<()>(1);
        let late = AtomicBool::new(false);
        let answer = thread::scope(|scope| {
            let (child, late) = (&self.child, &late);
            scope.spawn(move || {
                if waits.recv_timeout(most) == Err(mpsc::RecvTimeoutError::Timeout) {
                    late.store(true, SeqCst);
                    kill(child);
                }
            });
            let answer = wire::send(&mut self.to, ask, behind).and_then(|()| wire::receive(&mut self.from));
            drop(done);
            answer
        });
        // One that was ended after it had answered is not to be asked again.
        let given_up = stop.is_some_and(Stop::was_called) || late.load(SeqCst);
        if given_up && answer.is_ok() {
            self.end();
            return Err("its process was given up".to_owned());
        }
        answer.map_err(|_| format!("its process {}", self.end()))
    }

    /// How the process ended. What is left of it is ended.
    fn end(&self) -> String {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has closed its pipes ends by itself in a moment; one that babbles does not.
        let _ = child.kill();
        match child.wait() {
            Ok(status) => format!("ended ({status})"),
            Err(error) => format!("is lost ({error})"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn kill(child: &Mutex<Child>) {
    // It may have ended by itself.
    let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
}

impl Model for Isolated {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn run(&self, inputs: &[Tensor<'_>], wanted: &[usize], read: &mut Read<'_>) -> Result<(), ModelError> {
        let mut place = self.pool.take();
        // Taken out until it has answered: one that did not is not asked again.
        let mut process = match place.take() {
            Some(process) => process,
            None => self.start.process().map_err(ModelError::Runtime)?.1,
        };
        let mut bytes = Vec::new();
        let sent = inputs.iter().map(|tensor| wire::put(tensor, &mut bytes)).collect();
        let ask = Ask::Run { inputs: sent, wanted: wanted.to_vec() };
        let (answer, behind) = process.ask(&ask, &[&bytes], RUN).map_err(ModelError::Runtime)?;
        let sent = match answer {
            Answer::Ran(sent) => sent,
            Answer::Failed(error) => {
                *place = Some(process);
                return Err(ModelError::Runtime(error));
            }
            Answer::Loaded(_) => {
                return Err(ModelError::Runtime("its process answers what it was not asked".to_owned()));
            }
        };
        *place = Some(process);
        drop(place);
        let mut rest = &behind[..];
        let got: Vec<GotValue<'_>> = sent
            .into_iter()
            .map(|sent| wire::take_value(sent, &mut rest))
            .collect::<io::Result<_>>()
            .map_err(|error| ModelError::Runtime(error.to_string()))?;
        if got.len() != wanted.len() {
            return Err(ModelError::Runtime("its process answers what it was not asked".to_owned()));
        }
        let values: Vec<Value<'_>> = got
            .iter()
            .map(|got| match got {
                GotValue::Tensor(got) => Value::Tensor(got.tensor()),
                GotValue::Maps(maps) => Value::Maps(maps),
            })
            .collect();
        read(&values)
    }
}

impl std::fmt::Debug for Isolated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Isolated").field("info", &self.info).finish_non_exhaustive()
    }
}
