//! What of a plan other machines cannot have, so that it is said before anything is sent.

use std::sync::Arc;

use datafusion::{
    datasource::{physical_plan::FileScanConfig, source::DataSourceExec},
    execution::object_store::ObjectStoreUrl,
    physical_plan::{ExecutionPlan, streaming::StreamingTableExec},
};
use indexmap::IndexMap;

use super::super::{LogTable, OfflineSet, numbered::NumberedExec};

/// Why other machines cannot run a plan over `sets`: every reason, once.
pub(super) fn problems(plan: &Arc<dyn ExecutionPlan>, sets: &IndexMap<String, OfflineSet>) -> Vec<String> {
    let (mut problems, mut left): (Vec<String>, _) = (Vec::new(), vec![plan]);
    while let Some(plan) = left.pop() {
        left.extend(plan.children());
        left.extend(plan.downcast_ref::<NumberedExec>().map(|numbered| &numbered.spine));
        let problem = own_files(plan, sets).or_else(|| catalog(plan));
        problems.extend(problem.filter(|problem| !problems.contains(problem)));
    }
    problems
}

/// Files in a store that was given to this process.
fn own_files(plan: &Arc<dyn ExecutionPlan>, sets: &IndexMap<String, OfflineSet>) -> Option<String> {
    let scan = plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()?;
    if scan.object_store_url == ObjectStoreUrl::local_filesystem() {
        return None;
    }
    let owns = |set: &&OfflineSet| {
        set.rows.downcast_ref::<LogTable>().is_some_and(|log| *log.url() == scan.object_store_url)
    };
    let of = sets.values().find(owns).map_or(String::new(), |set| format!(" of feature set `{}`", set.name));
    Some(format!(
        "the log{of} lies in an object store that this process alone knows; give a cluster logs in folders that its machines share"
    ))
}

/// The tables about tables.
fn catalog(plan: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let streams = plan.downcast_ref::<StreamingTableExec>().is_some();
    streams.then(|| "`information_schema` is read in this process alone; ask without a cluster".to_owned())
}
