//! Training sets and queries on several machines: plans are sent to a Ballista cluster, whose machines know our operators.
//!
//! A cluster is one scheduler and any number of executors, each a process that [`Scheduler::serve`] or [`Executor::serve`] runs. They
//! read logs and spines themselves, so these lie where all of them find them under the same name. Spines in memory travel with
//! the plan.

mod codec;
mod process;

use std::{fmt, sync::Arc};

use ballista_core::{execution_plans::execute_physical_plan, extension::SessionConfigExt};
use datafusion::{
    execution::SendableRecordBatchStream, physical_plan::ExecutionPlan, prelude::SessionConfig,
};
use datafusion_proto::protobuf::PhysicalPlanNode;

use self::codec::Codec;
use super::HistoryError;

pub use self::process::{ClusterError, Executor, Scheduler};

/// A cluster, by its scheduler.
#[derive(Clone, PartialEq, Eq)]
pub struct Cluster {
    url: String,
}

impl Cluster {
    /// The cluster whose scheduler answers at `url`, such as `http://10.0.0.1:50050`. It is asked when there is something to run.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into() }
    }

    /// What a plan answers, run by the cluster. `session` tells its jobs apart.
    pub(super) async fn run(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        session: String,
    ) -> Result<SendableRecordBatchStream, HistoryError> {
        // What is sent is not read here.
        let codec = Arc::new(Codec::default());
        let config = settings(&codec);
        let ballista = config.ballista_config();
        let url = self.url.clone();
        let run =
            execute_physical_plan::<PhysicalPlanNode>(url, &ballista, plan, codec.as_ref(), session, config)
                .await;
        run.map_err(HistoryError::Cluster)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// What clients, scheduler and executors agree on.
fn settings(codec: &Arc<Codec>) -> SessionConfig {
    SessionConfig::new_with_ballista().with_ballista_physical_extension_codec(Arc::clone(codec) as _)
}
