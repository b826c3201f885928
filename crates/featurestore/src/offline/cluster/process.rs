//! The processes of a cluster.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use ballista_core::{config::TaskSchedulingPolicy, error::BallistaError};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::{
    cluster::BallistaCluster,
    config::SchedulerConfig,
    scheduler_process::{create_scheduler, start_grpc_service_with_listener},
};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tokio::net::TcpListener;

use super::{codec::Codec, settings};
use crate::Conditions;

/// The process that cuts plans into parts, and gives them to executors.
#[derive(Debug)]
pub struct Scheduler {
    listener: TcpListener,
    conditions: Conditions,
}

/// A process that runs parts of plans.
#[derive(Clone, Debug)]
pub struct Executor {
    /// The host and port of the scheduler.
    pub scheduler: (String, u16),
    /// Where other executors and clients fetch what it has computed, and where it takes orders one port further.
    pub listen: SocketAddr,
    /// The name under which others reach it; by default the address.
    pub host: Option<String>,
    /// Parts that run at the same time.
    pub tasks: usize,
    /// Where it keeps what it has computed until it is fetched; by default a temporary folder.
    pub folder: Option<PathBuf>,
    /// What knows the expressions under `where` in aggregates.
    pub conditions: Conditions,
}

/// Why a process of a cluster ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClusterError(String);

impl From<BallistaError> for ClusterError {
    fn from(error: BallistaError) -> Self {
        Self(error.to_string())
    }
}

impl Scheduler {
    /// Listens there; executors come to it, and clients. `conditions` knows the expressions under `where` in aggregates.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(address: SocketAddr, conditions: Conditions) -> Result<Self, ClusterError> {
        let failed = |error| ClusterError(format!("{address} cannot be listened at: {error}"));
        Ok(Self { listener: TcpListener::bind(address).await.map_err(failed)?, conditions })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> Result<SocketAddr, ClusterError> {
        self.listener.local_addr().map_err(|error| ClusterError(error.to_string()))
    }

    /// Schedules until it is dropped.
    ///
    /// # Errors
    /// When connections can no longer be taken.
    pub async fn serve(self) -> Result<(), ClusterError> {
        let address = self.address()?;
        let codec = Arc::new(Codec::new(self.conditions));
        let config = SchedulerConfig {
            scheduling_policy: TaskSchedulingPolicy::PullStaged,
            override_physical_codec: Some(Arc::clone(&codec) as _),
            override_config_producer: Some(Arc::new(move || settings(&codec))),
            external_host: address.ip().to_string(),
            bind_host: address.ip().to_string(),
            bind_port: address.port(),
            ..SchedulerConfig::default()
        };
        let cluster = BallistaCluster::new_from_config(&config).await?;
        let scheduler = create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, Arc::new(config));
        Ok(start_grpc_service_with_listener(self.listener, scheduler.await?).await?)
    }
}

impl Executor {
    /// Works until it is told to stop by a signal, or dropped.
    ///
    /// # Errors
    /// When the scheduler cannot be reached, or an address is taken.
    pub async fn serve(self) -> Result<(), ClusterError> {
        let folder = match self.folder {
            Some(folder) => folder,
            None => std::env::temp_dir().join(format!("millstream-executor-{}", self.listen.port())),
        };
        std::fs::create_dir_all(&folder)
            .map_err(|error| ClusterError(format!("{} cannot be made: {error}", folder.display())))?;
        let (scheduler_host, scheduler_port) = self.scheduler;
        let codec = Arc::new(Codec::new(self.conditions));
        let config = ExecutorProcessConfig {
            scheduler_host,
            scheduler_port,
            scheduler_connect_timeout_seconds: 10,
            bind_host: self.listen.ip().to_string(),
            external_host: Some(self.host.unwrap_or_else(|| self.listen.ip().to_string())),
            port: self.listen.port(),
            grpc_port: self.listen.port().wrapping_add(1),
            vcores: self.tasks,
            task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
            work_dir: Some(folder.display().to_string()),
            override_physical_codec: Some(Arc::clone(&codec) as _),
            override_config_producer: Some(Arc::new(move || settings(&codec))),
            ..ExecutorProcessConfig::default()
        };
        Ok(start_executor_process(Arc::new(config)).await?)
    }
}
