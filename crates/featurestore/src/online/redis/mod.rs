//! Feature sets in Redis or Valkey, single or cluster.
//!
//! The keys of a set fall into buckets. A bucket is one hash of packed rows by key, and beside it, on the same node, its marks and
//! event ids. A script puts rows to their keys: it compares versions, positions and ids where they lie, so that writers in
//! several processes agree, and a write that is sent twice is taken once.

mod server;
pub(crate) mod within;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use arrow::array::{ArrayRef, RecordBatch};
use futures_util::future::try_join_all;
use redis::{Script, cmd};
use smallvec::SmallVec;
use tokio::runtime::Handle;

pub use self::server::RedisServer;
use self::{
    server::Connection,
    within::{Background, Within},
};
use super::{
    Answer, Changes, Clock, Outcome, Receipt, WritableTable, WriteError, Written,
    expiry::Expiry,
    incoming::{Incoming, Packer},
    row::{Copied, definition, difference},
};
use crate::{
    FeatureSet, Found, LookupError, OnlineTable, Profile, ProfileError, Read, Selection,
    key::{Given, encode},
};

/// One feature set in Redis or Valkey. Made by [`RedisTable::open`].
///
/// Rows whose time is over are stale, and stay until they are overwritten, erased or purged. Event ids are remembered with the
/// keys they came with: an event that is sent again has the same keys.
pub struct RedisTable {
    packer: Packer,
    expiry: Expiry,
    connection: Connection,
    names: Box<[Names]>,
    whole: Whole,
    wait: Duration,
    ids: usize,
    scripts: Arc<Scripts>,
    /// The runtime on which it was connected.
    handle: Handle,
    /// That runtime, where it is nobody else's.
    _background: Option<Arc<Background>>,
}

/// How a [`RedisTable`] keeps its rows.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// For how long after its event a row may be used, inclusive; for ever by default.
    pub ttl: Option<Duration>,
    /// What now is, for lookups that give no time. The system's clock by default.
    pub clock: Clock,
    /// What the names of all keys in the server begin with; `millstream` by default.
    pub prefix: String,
    /// For how long an answer is waited for; 500 ms by default.
    pub wait: Duration,
    /// Event ids that are remembered, about; 100 000 by default.
    pub max_ids: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            ttl: None,
            clock: Clock::default(),
            prefix: "millstream".to_owned(),
            wait: Duration::from_millis(500),
            max_ids: 100_000,
        }
    }
}

/// Why a server or a set in it cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// The server answered with an error, or not at all.
    #[error(transparent)]
    Server(#[from] redis::RedisError),
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The set was written with another definition.
    #[error(
        "the set was written for another definition: {difference}; purge it, or give the set another name or prefix"
    )]
    Definition {
        /// How the definitions differ.
        difference: String,
    },
    /// The set has windows, which are kept by the process that reads them.
    #[error("feature set `{set}` has windows, which Redis does not keep; use the in-process store")]
    Windows {
        /// The set.
        set: String,
    },
    /// The server holds what no table of this version writes.
    #[error("{0}")]
    Damaged(String),
}

/// Part of the format: rows are found by it.
const BUCKETS: usize = 64;

/// The keys of one bucket, on one node by their common `{tag}`: rows, marks, ids, the count of ids.
type Names = [String; 4];

/// The keys of the set as a whole.
#[derive(Debug)]
struct Whole {
    definition: String,
    marks: String,
}

#[derive(Debug)]
struct Scripts {
    write: Script,
    mark: Script,
    purge: Script,
}

impl RedisTable {
    /// The set in a server, which is made if it is not there.
    ///
    /// # Errors
    /// When the server does not answer, or has the set with another definition.
    pub async fn open(
        server: &RedisServer,
        set: FeatureSet,
        options: RedisOptions,
    ) -> Result<Self, RedisError> {
        let RedisOptions { ttl, clock, prefix, wait, max_ids } = options;
        if set.windows().is_some() {
            return Err(RedisError::Windows { set: set.name().to_owned() });
        }
        let packer = Packer::new(set);
        let set = packer.set.name().to_owned();
        let names = (0..BUCKETS).map(|bucket| {
            let tag = format!("{prefix}:{{{set}:{bucket}}}");
            ["rows", "marks", "ids", "count"].map(|kind| format!("{tag}:{kind}"))
        });
        let whole = Whole {
            definition: format!("{prefix}:{{{set}}}:definition"),
            marks: format!("{prefix}:{{{set}}}:marks"),
        };
        let scripts = Scripts {
            write: Script::new(include_str!("write.lua")),
            mark: Script::new(include_str!("mark.lua")),
            purge: Script::new(include_str!("purge.lua")),
        };
        let table = Self {
            packer,
            expiry: Expiry::new(ttl, clock),
            connection: server.0.clone(),
            names: names.collect(),
            whole,
            wait,
            ids: max_ids.div_ceil(BUCKETS),
            scripts: Arc::new(scripts),
            handle: Handle::current(),
            _background: None,
        };
        table.in_time(table.define()).await?;
        Ok(table)
    }

    /// The same table, which keeps the runtime it was opened on.
    pub(crate) fn on(self, background: Arc<Background>) -> Self {
        Self { _background: Some(background), ..self }
    }

    /// Writes the definition, unless there is one; then it must be the same.
    async fn define(&self) -> Result<(), RedisError> {
        let now = definition(&self.packer.set);
        let mut connection = self.connection.clone();
        let mut set = cmd("SET");
        set.arg(&self.whole.definition).arg(&now).arg("NX");
        let _: Option<String> = set.query_async(&mut connection).await?;
        let wrote: String = cmd("GET").arg(&self.whole.definition).query_async(&mut connection).await?;
        match difference(&wrote, &now) {
            None => Ok(()),
            Some(difference) => Err(RedisError::Definition { difference }),
        }
    }

    /// Bounds how long is waited for an answer.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
        tokio::time::timeout(self.wait, answer).await.unwrap_or(Err(RedisError::TimedOut(self.wait)))
    }

    fn answer<'a, T: 'a>(
        &'a self,
        answer: impl Future<Output = Result<T, RedisError>> + Send + 'a,
    ) -> Answer<'a, T> {
        let answer = async { self.in_time(answer).await.map_err(WriteError::unavailable) };
        Answer::Waits(Box::pin(Within::new(&self.handle, answer)))
    }

    async fn put(&self, incoming: Box<Incoming>) -> Result<Written, RedisError> {
        let partition = incoming.positions.as_ref().map(|at| partition(&at.source, at.partition));
        // What all buckets have. Each knows its own rows better, but not the offsets of others.
        let whole = match &partition {
            Some(partition) => self.whole_mark(partition).await?,
            None => None,
        };
        let repeated = |row: usize| {
            let offset = incoming.positions.as_ref().map(|at| at.offsets[row]);
            offset.zip(whole).is_some_and(|(offset, mark)| offset <= mark)
        };
        let mut buckets = vec![Vec::new(); BUCKETS];
        let mut outcomes = Vec::with_capacity(incoming.len());
        for row in 0..incoming.len() {
            outcomes.push(match &incoming.refused[row] {
                Some(problem) => Some(Outcome::Refused(problem.clone())),
                None if repeated(row) => Some(Outcome::Repeated),
                None => {
                    buckets[bucket(incoming.row(row).key)].push(row);
                    None
                }
            });
        }
        let buckets = buckets.iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        let fates = buckets.clone().map(|(bucket, rows)| {
            let call = self.write_call(bucket, rows, partition.as_deref().unwrap_or(&[]), &incoming);
            let mut connection = self.connection.clone();
            async move { call.invoke_async::<Vec<i64>>(&mut connection).await }
        });
        let fates = try_join_all(fates).await?;
        for ((_, rows), fates) in buckets.zip(fates) {
            for (&row, fate) in rows.iter().zip(fates) {
                outcomes[row] = match fate {
                    1 => Some(Outcome::Taken),
                    2 => Some(Outcome::Older),
                    3 => Some(Outcome::Repeated),
                    _ => None,
                };
            }
        }
        // Last, when every bucket has its rows: whoever goes on from here misses none.
        if let Some((partition, at)) = partition.zip(incoming.positions.as_ref())
            && let Some(offset) = at.top()
        {
            let mut call = self.scripts.mark.key(&self.whole.marks);
            call.arg(partition).arg(&offset.to_le_bytes());
            let _: i64 = call.invoke_async(&mut self.connection.clone()).await?;
        }
        let outcomes: Option<Vec<_>> = outcomes.into_iter().collect();
        let rows =
            outcomes.ok_or_else(|| RedisError::Damaged("a script answered for too few rows".to_owned()));
        Ok(Written { rows: rows?, broken: Vec::new() })
    }

    async fn whole_mark(&self, partition: &[u8]) -> Result<Option<u64>, RedisError> {
        let mut call = cmd("HGET");
        call.arg(&self.whole.marks).arg(partition);
        let mark: Option<Vec<u8>> = call.query_async(&mut self.connection.clone()).await?;
        let mark = mark.map(|mark| {
            let bytes = <[u8; 8]>::try_from(mark.as_slice());
            bytes.map_err(|_| RedisError::Damaged("a mark that is none".to_owned()))
        });
        Ok(mark.transpose()?.map(u64::from_le_bytes))
    }

    fn write_call<'a>(
        &'a self,
        bucket: usize,
        rows: &[usize],
        partition: &[u8],
        incoming: &Incoming,
    ) -> redis::ScriptInvocation<'a> {
        let mut call = self.scripts.write.prepare_invoke();
        self.names[bucket].iter().for_each(|name| {
            call.key(name);
        });
        call.arg(partition).arg(self.ids);
        for &at in rows {
            let row = incoming.row(at);
            call.arg(row.key).arg(row.blob());
            match &incoming.positions {
                Some(positions) => call.arg(&positions.offsets[at].to_le_bytes()),
                None => call.arg(""),
            };
            // So that an id of no letters is not none.
            call.arg(incoming.id(at).map_or(String::new(), |id| format!("#{id}")));
        }
        call
    }

    async fn remove(&self, keys: Vec<Vec<u8>>) -> Result<Receipt, RedisError> {
        let mut buckets = vec![Vec::new(); BUCKETS];
        keys.iter().for_each(|key| buckets[bucket(key)].push(key));
        let removed =
            buckets.iter().zip(&self.names).filter(|(keys, _)| !keys.is_empty()).map(|(keys, names)| {
                let mut connection = self.connection.clone();
                let mut call = cmd("HDEL");
                call.arg(&names[0]).arg(keys);
                async move { call.query_async::<u64>(&mut connection).await }
            });
        let removed = try_join_all(removed).await?.iter().sum();
        Ok(Receipt {
            removed,
            unknown: (keys.len() as u64).saturating_sub(removed),
            beyond: vec![BEYOND.to_owned()],
            ..Receipt::default()
        })
    }

    async fn clear(&self) -> Result<Receipt, RedisError> {
        let removed = self.names.iter().map(|names| {
            let mut connection = self.connection.clone();
            let mut call = self.scripts.purge.prepare_invoke();
            names.iter().for_each(|name| {
                call.key(name);
            });
            async move { call.invoke_async::<u64>(&mut connection).await }
        });
        let removed = try_join_all(removed).await?.iter().sum();
        let mut connection = self.connection.clone();
        let _: u64 = cmd("UNLINK").arg(&self.whole.marks).query_async(&mut connection).await?;
        Ok(Receipt { removed, beyond: vec![BEYOND.to_owned()], ..Receipt::default() })
    }

    /// The rows of each key, where there is one, in the order of `keys`.
    async fn rows(&self, keys: &[Option<Vec<u8>>]) -> Result<Vec<Option<Vec<u8>>>, RedisError> {
        let mut buckets = vec![Vec::new(); BUCKETS];
        for (row, key) in keys.iter().enumerate() {
            key.iter().for_each(|key| buckets[bucket(key)].push(row));
        }
        let asked = buckets.iter().zip(&self.names).filter(|(rows, _)| !rows.is_empty());
        let answers = asked.clone().map(|(rows, names)| {
            let mut connection = self.connection.clone();
            let mut call = cmd("HMGET");
            call.arg(&names[0]);
            rows.iter().filter_map(|&row| keys[row].as_ref()).for_each(|key| {
                call.arg(key);
            });
            async move { call.query_async::<Vec<Option<Vec<u8>>>>(&mut connection).await }
        });
        let answers = try_join_all(answers).await?;
        let mut found = vec![None; keys.len()];
        for ((rows, _), answer) in asked.zip(answers) {
            for (&row, blob) in rows.iter().zip(answer) {
                found[row] = blob;
            }
        }
        Ok(found)
    }

    fn find<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection, at: Option<i64>) -> Read<'a> {
        let keys = selection.key_columns(batch).and_then(|columns| {
            let columns: SmallVec<[&ArrayRef; 2]> = columns;
            let mut keys = Vec::with_capacity(batch.num_rows());
            encode(&columns, &self.packer.kinds, |_, given| {
                keys.push(if let Given::Key(key) = given { Some(key.to_vec()) } else { None });
            })?;
            Ok(keys)
        });
        let keys = match keys {
            Ok(keys) => keys,
            Err(error) => return Read::Ready(Err(error)),
        };
        let unavailable = |error: RedisError| LookupError::Unavailable(Box::new(error));
        let found: Pin<Box<dyn Future<Output = Result<Found, LookupError>> + Send + 'a>> =
            Box::pin(Within::new(&self.handle, async move {
                let rows = self.in_time(self.rows(&keys)).await.map_err(unavailable)?;
                let mut copied = Copied::new(self.packer.fixed(), rows.len());
                for row in &rows {
                    match row {
                        None => copied.missing(),
                        Some(blob) if copied.push_blob(blob) => {}
                        Some(blob) => {
                            let what = format!("a row of {} bytes that is none", blob.len());
                            return Err(unavailable(RedisError::Damaged(what)));
                        }
                    }
                }
                Ok(copied.found(selection, &self.expiry, at))
            }));
        Read::Waits(found)
    }
}

const BEYOND: &str =
    "the server's own files hold rows until it rewrites them: have it do so (BGREWRITEAOF, BGSAVE)";

fn bucket(key: &[u8]) -> usize {
    crc32c::crc32c(key) as usize % BUCKETS
}

/// The name of a partition among marks.
fn partition(source: &str, partition: u32) -> Vec<u8> {
    format!("{partition}:{source}").into_bytes()
}

impl std::fmt::Debug for RedisTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisTable").field("set", &self.packer.set.name()).finish_non_exhaustive()
    }
}

impl OnlineTable for RedisTable {
    fn set(&self) -> &Arc<FeatureSet> {
        &self.packer.set
    }

    /// Not told: it would take reading all rows over the network.
    fn profile(&self, _feature: usize) -> Result<Profile, ProfileError> {
        Err(ProfileError::Elsewhere)
    }

    fn is_local(&self) -> bool {
        false
    }

    fn read<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection) -> Read<'a> {
        self.find(batch, selection, None)
    }

    fn read_at<'a>(&'a self, batch: &RecordBatch, selection: &'a Selection, at: i64) -> Read<'a> {
        self.find(batch, selection, Some(at))
    }
}

impl WritableTable for RedisTable {
    fn write(&self, changes: Changes) -> Answer<'_, Written> {
        match self.packer.pack(changes) {
            Ok(incoming) => self.answer(self.put(incoming)),
            Err(error) => Answer::Ready(Err(error)),
        }
    }

    fn erase(&self, keys: RecordBatch) -> Answer<'_, Receipt> {
        match self.packer.keys(&keys) {
            Ok(keys) => self.answer(self.remove(keys)),
            Err(error) => Answer::Ready(Err(error)),
        }
    }

    fn purge(&self) -> Answer<'_, Receipt> {
        self.answer(self.clear())
    }

    fn mark(&self, source: &str, partition: u32) -> Answer<'_, Option<u64>> {
        let partition = self::partition(source, partition);
        self.answer(async move { self.whole_mark(&partition).await })
    }
}
