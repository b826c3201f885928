//! Training sets and queries on several machines: plans are sent to a Ballista cluster, whose machines know our operators.
//!
//! A cluster is one scheduler and any number of executors, each a process that [`Scheduler::serve`] or [`Executor::serve`] runs. They
//! read logs and spines themselves, so these lie where all of them find them under the same path. What lies in memory, spines and sets
//! that are files, travels with the plan.

mod address;
mod codec;
mod error;
mod process;
mod reach;

use std::{fmt, sync::Arc, time::Duration};

use ballista_core::{execution_plans::execute_physical_plan, extension::SessionConfigExt};
use datafusion::{
    common::DataFusionError, execution::SendableRecordBatchStream, physical_plan::ExecutionPlan,
    prelude::SessionConfig,
};
use datafusion_proto::{physical_plan::AsExecutionPlan, protobuf::PhysicalPlanNode};
use indexmap::IndexMap;
use prost::Message;
use tokio::net::TcpStream;

use self::codec::Codec;
use super::{HistoryError, OfflineSet};

pub use self::{
    address::SchedulerAddress,
    error::ClusterError,
    process::{Executor, Scheduler},
};

/// Bytes of a plan that is sent, with the rows in it: a scheduler holds all plans under way, and tasks have parts of them.
const PLAN: usize = 16 << 20;

/// Bytes of a message that processes of a cluster take. One may bring an executor a task for each part of a plan.
const MESSAGE: usize = 1 << 30;

/// How long a scheduler may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster, by its scheduler.
#[derive(Clone, PartialEq, Eq)]
pub struct Cluster {
    scheduler: SchedulerAddress,
}

impl Cluster {
    /// The cluster whose scheduler answers there. It is asked when there is something to run.
    pub fn at(scheduler: impl Into<SchedulerAddress>) -> Self {
        Self { scheduler: scheduler.into() }
    }

    /// What a plan over `sets` answers, run by the cluster. `session` tells its jobs apart.
    pub(super) async fn run(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        session: String,
        sets: &IndexMap<String, OfflineSet>,
    ) -> Result<SendableRecordBatchStream, HistoryError> {
        // What is sent is not read here.
        let codec = Arc::new(Codec::default());
        check(&plan, &codec, sets)?;
        self.reach().await?;
        let config = settings(&codec);
        let ballista = config.ballista_config();
        let url = self.scheduler.url();
        let run =
            execute_physical_plan::<PhysicalPlanNode>(url, &ballista, plan, codec.as_ref(), session, config);
        Box::pin(run).await.map_err(HistoryError::Cluster)
    }

    /// Whether anything answers at the address: what Ballista says when nothing does is said of jobs that fail, too.
    async fn reach(&self) -> Result<(), HistoryError> {
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(self.scheduler.to_string())).await;
        let connected = connected.unwrap_or_else(|late| Err(late.into()));
        let address = || self.scheduler.to_string();
        connected.map(drop).map_err(|source| HistoryError::Unreachable { address: address(), source })
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// Refuses a plan that other machines cannot run, or that is too large to be sent.
fn check(
    plan: &Arc<dyn ExecutionPlan>,
    codec: &Codec,
    sets: &IndexMap<String, OfflineSet>,
) -> Result<(), HistoryError> {
    let problems = reach::problems(plan, sets);
    if !problems.is_empty() {
        return Err(HistoryError::Spread { problems });
    }
    let unsent = |error: DataFusionError| HistoryError::Spread {
        problems: vec![format!("a part of the plan cannot be sent: {error}")],
    };
    let encoded = PhysicalPlanNode::try_from_physical_plan(Arc::clone(plan), codec).map_err(unsent)?;
    let bytes = encoded.encoded_len();
    if bytes > PLAN {
        let problem = format!(
            "the plan has {bytes} bytes with the rows that lie in memory, and {PLAN} are sent: give sets that are files a log \
             (`offline`), and the spine as a file"
        );
        return Err(HistoryError::Spread { problems: vec![problem] });
    }
    Ok(())
}

/// What clients, scheduler and executors agree on.
fn settings(codec: &Arc<Codec>) -> SessionConfig {
    SessionConfig::new_with_ballista()
        .with_ballista_grpc_client_max_message_size(MESSAGE)
        .with_ballista_physical_extension_codec(Arc::clone(codec) as _)
}
