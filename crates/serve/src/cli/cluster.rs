//! `millstream cluster`: the processes that run training sets and queries on several machines.

use std::{cell::Cell, net::SocketAddr, num::NonZero, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use millstream_featurestore::offline::{ClusterError, Executor, Scheduler, SchedulerAddress};

use super::{Failure, observe::LogArgs, serve::StopSignals};
use crate::{project::conditions::conditions, units::Size};

#[derive(Args)]
pub(super) struct ClusterArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cut what clients ask for into parts, and give them to executors.
    Scheduler(SchedulerArgs),
    /// Run parts.
    Executor(ExecutorArgs),
}

#[derive(Args)]
struct SchedulerArgs {
    /// Where to listen for clients and executors. Whoever reaches it can have files read and written: keep it private.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50050")]
    listen: SocketAddr,
    /// The time that executors keep what a job answered after its end, for a client that still reads, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    keep_s: u64,
    #[command(flatten)]
    process: ProcessArgs,
}

#[derive(Args)]
struct ExecutorArgs {
    /// The scheduler.
    #[arg(long, value_name = "HOST:PORT")]
    scheduler: SchedulerAddress,
    /// Where to listen for those who fetch what was computed: clients and other executors. Port 0 is any that is free.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// The name or address under which they reach it; by default the one of --listen.
    #[arg(long)]
    host: Option<String>,
    /// The folder in which it makes one for what it has computed; by default the one for temporary files.
    #[arg(long, value_name = "FOLDER")]
    work_dir: Option<PathBuf>,
    /// Parts that run at the same time; by default one per core.
    #[arg(long, value_name = "N")]
    tasks: Option<NonZero<usize>>,
    /// Memory for all of them, such as 8GiB, of which each has its share; by default 70 % of the machine's.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    #[command(flatten)]
    process: ProcessArgs,
}

#[derive(Args)]
struct ProcessArgs {
    /// The time in which the process ends after a signal to stop, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    grace_s: u64,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn cluster(args: ClusterArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = match args.command {
        Command::Scheduler(args) => runtime.block_on(args.run()),
        Command::Executor(args) => runtime.block_on(args.run()),
    };
    // What is cut off is not waited for.
    runtime.shutdown_background();
    ended
}

impl SchedulerArgs {
    async fn run(self) -> Result<(), Failure> {
        self.process.log.log();
        let (first, mut stop) = (StopSignals::new()?, StopSignals::new()?);
        let scheduler = Scheduler::bind(self.listen, conditions()).await?;
        let scheduler = scheduler.keep(Duration::from_secs(self.keep_s));
        open_to_others(scheduler.address());
        tracing::info!("scheduling on {}", scheduler.address());
        let serving = scheduler.serve_until(async move {
            stop.next().await;
        });
        self.process.until_stopped(first, serving).await
    }
}

impl ExecutorArgs {
    async fn run(self) -> Result<(), Failure> {
        self.process.log.log();
        let signals = StopSignals::new()?;
        if self.host.is_none() && self.listen.ip().is_unspecified() {
            return Err(
                format!("--listen {} is no address that others reach; add --host", self.listen).into()
            );
        }
        let cores = || std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let executor = Executor {
            scheduler: self.scheduler,
            listen: self.listen,
            host: self.host,
            tasks: self.tasks.unwrap_or_else(cores).get(),
            memory: self.memory.map(|memory| memory.0 as u64),
            folder: self.work_dir,
            conditions: conditions(),
        };
        let executor = executor.settled()?;
        open_to_others(executor.listen);
        tracing::info!(scheduler = %executor.scheduler, tasks = executor.tasks, "executing on {}", executor.listen);
        self.process.until_stopped(signals, executor.serve()).await
    }
}

/// Says what it means to listen where others reach it.
fn open_to_others(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            "whoever reaches {address} can have the files of executors read and written: keep it to a private network"
        );
    }
}

impl ProcessArgs {
    /// Runs a process until it ends: when it is asked to, at the latest when the grace is over.
    async fn until_stopped(
        &self,
        mut signals: StopSignals,
        serving: impl Future<Output = Result<(), ClusterError>>,
    ) -> Result<(), Failure> {
        let asked = Cell::new(false);
        let over = async {
            signals.next().await;
            asked.set(true);
            tracing::info!("stopping: work under way has another {} s", self.grace_s);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(self.grace_s)) => {
                    tracing::warn!("the grace is over: work under way is cut off");
                }
                _ = signals.next() => tracing::warn!("asked to stop again: work under way is cut off"),
            }
        };
        tokio::select! {
            // A process that ends at once has been asked to all the same.
            biased;
            () = over => Ok(()),
            ended = serving => match ended {
                Ok(()) if !asked.get() => Err("the process ended, and nobody had asked it to".into()),
                ended => Ok(ended?),
            },
        }
    }
}
