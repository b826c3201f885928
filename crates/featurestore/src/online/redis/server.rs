//! Connections to a server or a cluster.

use std::time::Duration;

use redis::{
    Client, Cmd, Pipeline, RedisFuture, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
};

use super::RedisError;

/// A Redis or Valkey server, or a cluster of them. Cheap to clone; what is asked at the same time shares connections.
///
/// Is connected on a tokio runtime, which must last as long as its tables. A connection that breaks is made anew.
#[derive(Clone)]
pub struct RedisServer(pub(super) Connection);

#[derive(Clone)]
pub(super) enum Connection {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

impl RedisServer {
    /// Connects to one server: `redis://[user:password@]host[:port][/database]`.
    ///
    /// # Errors
    /// When the address is none, or nobody answers there within `wait`.
    pub async fn single(url: &str, wait: Duration) -> Result<Self, RedisError> {
        let client = Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(wait))
            .set_response_timeout(Some(wait));
        let manager = ConnectionManager::new_with_config(client, config);
        let manager =
            tokio::time::timeout(wait * 2, manager).await.map_err(|_| RedisError::TimedOut(wait))?;
        Ok(Self(Connection::Single(manager?)))
    }

    /// Connects to a cluster, of which some nodes are named like [`RedisServer::single`]'s.
    ///
    /// # Errors
    /// When an address is none, or no node answers within `wait`.
    pub async fn cluster(urls: impl IntoIterator<Item = String>, wait: Duration) -> Result<Self, RedisError> {
        let client = ClusterClient::builder(urls)
            .connection_timeout(wait)
            .response_timeout(wait)
            .retries(3)
            .build()?;
        let connection = tokio::time::timeout(wait * 2, client.get_async_connection()).await;
        Ok(Self(Connection::Cluster(connection.map_err(|_| RedisError::TimedOut(wait))??)))
    }
}

impl std::fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisServer")
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
