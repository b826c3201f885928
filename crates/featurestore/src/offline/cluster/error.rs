//! Why a process of a cluster does not run.

use std::io;

use ballista_core::error::BallistaError;

/// Why a process of a cluster does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A text is not where a scheduler answers.
    #[error("`{text}` is no address of a scheduler, such as 10.0.0.1:50050: {problem}")]
    Address {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An address cannot be listened at.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as given.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder for what an executor computes cannot be used.
    #[error("folder `{folder}` cannot be used")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Ballista gave up.
    #[error(transparent)]
    Ballista(#[from] BallistaError),
}
