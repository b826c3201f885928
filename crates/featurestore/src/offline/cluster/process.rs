//! The processes of a cluster.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ballista_core::config::TaskSchedulingPolicy;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::{
    cluster::BallistaCluster,
    config::SchedulerConfig,
    scheduler_process::{create_scheduler, start_grpc_service_with_listener},
};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tokio::net::TcpListener;

use super::{ClusterError, MESSAGE, SchedulerAddress, address::host, codec::Codec, settings};
use crate::Conditions;

/// How often a scheduler that was asked to end looks whether it has jobs left.
const LOOK: Duration = Duration::from_millis(100);

/// How long an executor may be silent before its parts are given to others. It asks for work, and so is heard of, every few seconds.
const SILENCE_S: u64 = 30;

/// The process that cuts plans into parts, and gives them to executors.
#[derive(Debug)]
pub struct Scheduler {
    listener: TcpListener,
    address: SocketAddr,
    conditions: Conditions,
    keep: Duration,
}

/// A process that runs parts of plans.
#[derive(Clone, Debug)]
pub struct Executor {
    /// Where the scheduler answers.
    pub scheduler: SchedulerAddress,
    /// Where other executors and clients fetch what it has computed.
    pub listen: SocketAddr,
    /// The name under which they reach it; by default the address.
    pub host: Option<String>,
    /// Parts that run at the same time.
    pub tasks: usize,
    /// Bytes of memory for all of them, each of which has its share; by default 70 % of the machine's, or of the container's.
    pub memory: Option<u64>,
    /// Where it makes a folder for what it has computed, until that is fetched; by default the one for temporary files.
    pub folder: Option<PathBuf>,
    /// What knows the expressions under `where` in aggregates.
    pub conditions: Conditions,
}

impl Scheduler {
    /// Listens there; executors come to it, and clients. `conditions` knows the expressions under `where` in aggregates.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(address: SocketAddr, conditions: Conditions) -> Result<Self, ClusterError> {
        let taken = |source| ClusterError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        Ok(Self { listener, address, conditions, keep: Duration::from_secs(3600) })
    }

    /// How long executors keep what a job answered after it has ended, for a client that is not done reading: an hour by default.
    #[must_use]
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Schedules until it is dropped.
    ///
    /// # Errors
    /// When connections can no longer be taken.
    pub async fn serve(self) -> Result<(), ClusterError> {
        self.serve_until(std::future::pending()).await
    }

    /// Schedules until `stop` is ready, and from then on until no job is left.
    ///
    /// # Errors
    /// As [`Scheduler::serve`].
    pub async fn serve_until(self, stop: impl Future<Output = ()>) -> Result<(), ClusterError> {
        let codec = Arc::new(Codec::new(self.conditions));
        let config = SchedulerConfig {
            scheduling_policy: TaskSchedulingPolicy::PullStaged,
            override_physical_codec: Some(Arc::clone(&codec) as _),
            override_config_producer: Some(Arc::new(move || settings(&codec))),
            external_host: host(self.address),
            bind_host: host(self.address),
            bind_port: self.address.port(),
            grpc_server_max_decoding_message_size: MESSAGE as u32,
            grpc_server_max_encoding_message_size: MESSAGE as u32,
            finished_job_data_clean_up_interval_seconds: self.keep.as_secs().max(1),
            finished_job_state_clean_up_interval_seconds: self.keep.as_secs().max(1),
            executor_timeout_seconds: SILENCE_S,
            ..SchedulerConfig::default()
        };
        let cluster = BallistaCluster::new_from_config(&config).await?;
        let scheduler =
            create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, Arc::new(config)).await?;
        let jobs = scheduler.clone();
        let idle = async {
            stop.await;
            let mut looks = tokio::time::interval(LOOK);
            // Between two looks the client of a job that has just ended hears of it.
            let mut free = 0;
            while free < 2 {
                looks.tick().await;
                let left = jobs.pending_job_number() + jobs.running_job_number();
                free = if left == 0 { free + 1 } else { 0 };
            }
        };
        tokio::select! {
            ended = start_grpc_service_with_listener(self.listener, scheduler) => Ok(ended?),
            () = idle => Ok(()),
        }
    }
}

impl Executor {
    /// The same with a port that nothing listens at in the place of port 0.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub fn settled(mut self) -> Result<Self, ClusterError> {
        let address = self.listen;
        // Ballista takes an address, not a listener: this one goes, so that it can take its place.
        let bound = std::net::TcpListener::bind(address).and_then(|listener| listener.local_addr());
        self.listen = bound.map_err(|source| ClusterError::Listen { address, source })?;
        Ok(self)
    }

    /// Works until the process is told by a signal to stop, and from then on until it has no part left. Then what it has computed is
    /// gone: others compute it again.
    ///
    /// # Errors
    /// When the scheduler cannot be reached, or the address is taken.
    pub async fn serve(self) -> Result<(), ClusterError> {
        let executor = self.settled()?;
        let parent = executor.folder.clone().unwrap_or_else(std::env::temp_dir);
        let folder = Folder::make(&parent)?;
        Ok(Box::pin(start_executor_process(Arc::new(executor.config(&folder.0)))).await?)
    }

    fn config(self, folder: &Path) -> ExecutorProcessConfig {
        let codec = Arc::new(Codec::new(self.conditions));
        ExecutorProcessConfig {
            scheduler_host: self.scheduler.host,
            scheduler_port: self.scheduler.port,
            scheduler_connect_timeout_seconds: 10,
            bind_host: host(self.listen),
            external_host: Some(self.host.unwrap_or_else(|| host(self.listen))),
            port: self.listen.port(),
            // Nobody calls it there: it asks for work.
            grpc_port: self.listen.port(),
            vcores: self.tasks,
            memory_pool_size: self.memory,
            task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
            work_dir: Some(folder.display().to_string()),
            // What no scheduler has cleaned up, since it ended before its jobs.
            job_data_clean_up_interval_seconds: 3600,
            grpc_max_decoding_message_size: MESSAGE as u32,
            grpc_max_encoding_message_size: MESSAGE as u32,
            override_physical_codec: Some(Arc::clone(&codec) as _),
            override_config_producer: Some(Arc::new(move || settings(&codec))),
            ..ExecutorProcessConfig::default()
        }
    }
}

/// A folder of one executor, which goes with this. Everything in it may be deleted at any time, so it is none that was there before.
struct Folder(PathBuf);

impl Folder {
    fn make(parent: &Path) -> Result<Self, ClusterError> {
        let folder = parent.join(format!("millstream-executor-{:016x}", fastrand::u64(..)));
        let unusable = |source| ClusterError::Folder { folder: folder.display().to_string(), source };
        std::fs::create_dir_all(parent).map_err(unusable)?;
        std::fs::create_dir(&folder).map_err(unusable)?;
        // Ballista tells other executors where its files are.
        let folder = folder.canonicalize().map_err(unusable)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _what_is_left_is_temporary = std::fs::remove_dir_all(&self.0);
    }
}
