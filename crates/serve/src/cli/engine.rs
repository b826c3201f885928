//! Where training sets and queries run: in this process, or on a cluster.

use std::{num::NonZero, path::Path, str::FromStr};

use clap::Args;
#[cfg(feature = "ballista")]
use millstream_featurestore::offline::{Cluster, ClusterError, SchedulerAddress};
use millstream_featurestore::offline::{OfflineLimits, OfflineStore};
use millstream_graph::suggest;

use super::Failure;
use crate::offline::Offline;

#[derive(Args)]
pub(super) struct EngineArgs {
    /// What does the work: `local`, this process, or `ballista=HOST:PORT`, the cluster of the scheduler there.
    #[arg(long, default_value = "local", value_name = "ENGINE")]
    engine: Engine,
    /// Into how many parts work is split, by key; by default one per core here, and 16 on a cluster.
    #[arg(long, value_name = "N")]
    partitions: Option<NonZero<usize>>,
}

#[derive(Clone)]
enum Engine {
    Local,
    #[cfg(feature = "ballista")]
    Ballista(SchedulerAddress),
}

impl EngineArgs {
    /// What is known offline of the project at `path`, as `Offline::of`, with the engine that was named.
    pub(super) fn open(&self, path: &Path, state: Option<&Path>) -> Result<Offline, Failure> {
        let limits = OfflineLimits::default();
        let partitions = self.partitions.unwrap_or_else(|| self.engine.partitions(limits.partitions));
        let limits = OfflineLimits { partitions, ..limits };
        let Offline { store, vectors } = Offline::of(path, state, &limits)?;
        Ok(Offline { store: self.engine.on(store), vectors })
    }
}

impl Engine {
    /// Into how many parts it splits work, unless told; `here` is what this machine would do.
    fn partitions(&self, here: NonZero<usize>) -> NonZero<usize> {
        match self {
            Self::Local => here,
            // How many executors there are is not known; a few parts more than they do at a time cost little.
            #[cfg(feature = "ballista")]
            Self::Ballista(_) => NonZero::new(16).unwrap_or(here),
        }
    }

    fn on(&self, store: OfflineStore) -> OfflineStore {
        match self {
            Self::Local => store,
            #[cfg(feature = "ballista")]
            Self::Ballista(scheduler) => store.on(Cluster::at(scheduler.clone())),
        }
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "local" => Ok(Self::Local),
            Some(("ballista", address)) => ballista(address),
            None if text == "ballista" => {
                Err("name the scheduler, as in `ballista=10.0.0.1:50050`".to_owned())
            }
            _ => {
                let name = text.split('=').next().unwrap_or_default();
                Err(suggest::unknown("engine", name, ["local", "ballista"]))
            }
        }
    }
}

#[cfg(feature = "ballista")]
fn ballista(address: &str) -> Result<Engine, String> {
    address.parse().map(Engine::Ballista).map_err(|error: ClusterError| error.to_string())
}

#[cfg(not(feature = "ballista"))]
fn ballista(_: &str) -> Result<Engine, String> {
    Err("this build knows no clusters; build it with the feature `ballista`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Engine>().err().unwrap_or_default()
    }

    #[test]
    fn an_engine_is_this_process_or_a_cluster() {
        assert_eq!(refusal("local"), "");
        assert_eq!(refusal("ballsta=x:1"), "no engine `ballsta`; did you mean `ballista`?");
        assert_eq!(refusal("ballista"), "name the scheduler, as in `ballista=10.0.0.1:50050`");
        let with_a_cluster = ["", "`x` is no address of a scheduler, such as 10.0.0.1:50050: it has no port"];
        let without = ["this build knows no clusters; build it with the feature `ballista`"; 2];
        let expected = if cfg!(feature = "ballista") { with_a_cluster } else { without };
        assert_eq!(["ballista=10.0.0.1:50050", "ballista=x"].map(refusal), expected);
    }
}
