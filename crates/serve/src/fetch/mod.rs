//! Models that a project has by a URL: fetched, bounded, checked against their pins, and kept in a folder.
//!
//! `order.rs` says what is fetched from where, and who asks; `http.rs` and `object.rs` ask; `cache.rs` is the folder. What is fetched
//! is written beside what is there and takes its name when all of it has come. A file that is pinned and in the cache needs no
//! server; any other is asked for anew each time the project is loaded, and sent only when it has changed.

mod cache;
mod http;
#[cfg(any(test, feature = "cloud"))]
mod object;
mod order;

use std::{collections::BTreeMap, fmt, future::Future, io, path::Path, sync::Arc, thread, time::Duration};

use ::http::StatusCode;
use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use millstream_models::{FetchedModel, ModelSpec};
use tokio::time::timeout;

pub(crate) use cache::CacheSpec;
use cache::{Cache, Held, Known, Marks};
use order::Order;

use crate::{outside::Outside, units::Size};

/// Files that are fetched at the same time.
const AT_ONCE: usize = 4;
/// A server that sends nothing for so long has gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a model's file cannot be had from its URL. None of it has the URL, which is named beside it as it may be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Settings(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("it answered {0}")]
    Answered(StatusCode),
    #[error("it leads to another host, which is followed by https and where `sha256` pins the file only")]
    LeadsAway,
    #[error("it leads elsewhere more than {0} times")]
    LeadsOn(usize),
    #[error("the file has more than {0}, which `max_bytes` bounds")]
    TooLarge(Size),
    #[error("the file broke off: {0}")]
    Broken(String),
    #[error("nothing came for {0:?}")]
    Stalled(Duration),
    #[error("it was not there within {0:?}; `timeout` is how long that may take")]
    Late(Duration),
    #[error("the file's sha256 is {got}, not {wanted}")]
    Digest { wanted: String, got: String },
    #[error("the cache of models cannot be used: {0}; MILLSTREAM_MODEL_CACHE names another folder")]
    Cache(#[from] io::Error),
}

/// A model's file that was fetched. The cache keeps it for as long as this is there.
pub(crate) struct Fetched {
    /// Where it came from, as that may be shown.
    pub(crate) from: String,
    /// Whether the project says which file it is.
    pub(crate) pinned: bool,
    held: Held,
}

impl Fetched {
    pub(crate) fn sha256(&self) -> &str {
        self.held.sha256()
    }

    /// The file as models are loaded from it.
    pub(crate) fn model(&self) -> FetchedModel {
        FetchedModel { file: self.held.path().to_owned(), sha256: self.sha256().to_owned() }
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("from", &self.from).field("sha256", &self.sha256()).finish()
    }
}

/// What was fetched, by the name of its model.
pub(crate) type AllFetched = BTreeMap<String, Arc<Fetched>>;

/// Fetches the files of all models that have a URL, some at the same time, for a project in the folder `root`. What cannot be had
/// is told by the model's name, and stops no other.
pub(crate) fn fetch_all<'s>(
    root: &Path,
    spec: &CacheSpec,
    models: impl Iterator<Item = (&'s str, &'s ModelSpec)>,
) -> (AllFetched, Vec<(String, FetchError)>) {
    let (mut orders, mut errors) = (Vec::new(), Vec::new());
    for (name, model) in models {
        match Order::read(root, name, model) {
            Ok(order) => orders.extend(order),
            Err(error) => errors.push((name.to_owned(), error)),
        }
    }
    if orders.is_empty() {
        return (AllFetched::new(), errors);
    }
    let cache = match Cache::open(root, spec) {
        Ok(cache) => cache,
        Err(error) => {
            let told = |order: &Order| {
                let error = io::Error::new(error.kind(), error.to_string());
                (order.name.clone(), FetchError::Cache(error))
            };
            errors.extend(orders.iter().map(told));
            return (AllFetched::new(), errors);
        }
    };
    // Connections are of the runtime that they are made on, which ends with this.
    let outside = Outside::new(root);
    let each = orders.iter().map(|order| {
        let (cache, outside) = (&cache, &outside);
        async move { (order.name.clone(), one(order, cache, outside).await) }
    });
    let each: Vec<_> = each.collect();
    let all = stream::iter(each).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let mut fetched = AllFetched::new();
    match apart(all) {
        Ok(all) => {
            for (name, one) in all {
                match one {
                    Ok(one) => drop(fetched.insert(name, Arc::new(one))),
                    Err(error) => errors.push((name, error)),
                }
            }
        }
        Err(error) => {
            let told = |order: &Order| (order.name.clone(), FetchError::Unreachable(error.to_string()));
            errors.extend(orders.iter().map(told));
        }
    }
    // They end in any order, and are told in that of the file.
    errors.sort_by_key(|(name, _)| orders.iter().position(|order| order.name == *name));
    (fetched, errors)
}

/// Waits on a thread of its own: the caller's may belong to a runtime. A panic is an error.
fn apart<T: Send>(work: impl Future<Output = T> + Send) -> io::Result<T> {
    let wait = || -> io::Result<T> {
        // Connections have a thread of their own: a disk that is waited for here is no silence of theirs.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let done = runtime.block_on(work);
        // A name that is still looked up is not waited for.
        runtime.shutdown_background();
        Ok(done)
    };
    let done = thread::scope(|scope| scope.spawn(wait).join());
    done.unwrap_or_else(|_| Err(io::Error::other("fetching models panicked")))
}

async fn one(order: &Order, cache: &Cache, outside: &Outside) -> Result<Fetched, FetchError> {
    if let Some(wanted) = &order.sha256
        && let Some(held) = cache.take(wanted)?
    {
        return Ok(order.fetched(held));
    }
    // Held from here on, so that it is still there when the answer is that it is the one.
    let known = match cache.known(&order.key).filter(|_| order.sha256.is_none()) {
        Some(known) => cache.take(&known.sha256)?.map(|held| (known.marks, held)),
        None => None,
    };
    let all = Box::pin(async {
        let answer = order.open(outside, known.as_ref().map(|(marks, _)| marks)).await?;
        receive(order, cache, known, answer).await
    });
    timeout(order.timeout, all).await.unwrap_or(Err(FetchError::Late(order.timeout)))
}

/// What a URL answers.
enum Answer {
    /// The file is the one that is known.
    Same,
    New(New),
}

/// A file on its way.
struct New {
    /// Its bytes, where that is told.
    bytes: Option<u64>,
    marks: Marks,
    body: BoxStream<'static, Result<Bytes, FetchError>>,
}

/// Takes an answer to its end, and keeps the file if it is one that may be.
async fn receive(
    order: &Order,
    cache: &Cache,
    known: Option<(Marks, Held)>,
    answer: Answer,
) -> Result<Fetched, FetchError> {
    let New { bytes, marks, mut body } = match (answer, known) {
        (Answer::New(new), _) => new,
        (Answer::Same, Some((_, held))) => return Ok(order.fetched(held)),
        (Answer::Same, None) => return Err(FetchError::Answered(StatusCode::NOT_MODIFIED)),
    };
    let too_large = || FetchError::TooLarge(Size(usize::try_from(order.most).unwrap_or(usize::MAX)));
    if bytes.is_some_and(|bytes| bytes > order.most) {
        return Err(too_large());
    }
    let mut part = cache.part()?;
    while let Some(bytes) = timeout(PATIENCE, body.next()).await.map_err(|_| FetchError::Stalled(PATIENCE))? {
        let bytes = bytes?;
        if part.bytes() + bytes.len() as u64 > order.most {
            return Err(too_large());
        }
        part.write(&bytes)?;
    }
    if let Some(bytes) = bytes.filter(|bytes| *bytes != part.bytes()) {
        return Err(FetchError::Broken(format!("{} of {bytes} bytes have come", part.bytes())));
    }
    let got = part.sha256();
    if let Some(wanted) = order.sha256.as_ref().filter(|wanted| **wanted != got) {
        return Err(FetchError::Digest { wanted: wanted.clone(), got });
    }
    let held = cache.keep(part, &got)?;
    if order.sha256.is_none() && !marks.is_empty() {
        let remembered = cache.remember(&order.key, &Known { sha256: got, marks });
        if let Err(error) = remembered {
            tracing::warn!(model = %order.name, %error, "it is not known by what to ask for the model the next time");
        }
    }
    Ok(order.fetched(held))
}
