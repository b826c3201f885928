//! Who may do what: keys and tokens of callers, their roles, how much they may ask for, and what is written down of it.

mod audit;
mod keys;
mod places;
mod provider;
mod role;
mod rules;
pub(crate) mod tls;
mod tokens;

use std::{
    fmt,
    fs::{self, Metadata},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};

use crate::{
    refusals::Refused,
    service::{Answer, json_answer},
    snapshot::Shared,
};
use audit::Audit;
pub(crate) use keys::new_key;
pub use role::Role;
use rules::{Caller, Rules};

/// How often it is looked whether the files of keys and certificates have changed.
const LOOK: Duration = Duration::from_secs(2);
/// The other header that a key may come in.
pub(crate) const API_KEY: &str = "x-api-key";

/// Who may ask a server for what, and where that is written down.
#[derive(Clone, Debug)]
pub struct Access {
    /// The file with keys and rules for tokens. It is read again when it changes.
    pub file: PathBuf,
    /// Where changes, and what was refused, are written down; nowhere if there is none.
    pub audit: Option<PathBuf>,
}

/// Why it cannot be said who may do what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The file of keys cannot be read.
    #[error("{}: cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file of keys is wrong.
    #[error("{}", problems.join("\n"))]
    Invalid {
        /// Every mistake, with its place.
        problems: Vec<String>,
    },
    /// The audit log cannot be written.
    #[error("the audit log {}: cannot be written", file.display())]
    Audit {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Asks callers who they are.
pub(crate) struct Guard {
    rules: ArcSwap<Rules>,
    file: PathBuf,
    /// What the file was when it was read first.
    seen: Option<Stamp>,
    /// Which project is served: a reload may give it another name, and keys are good for some.
    shared: Arc<Shared>,
    audit: Option<Audit>,
}

/// Somebody who was let in: to ask again within a stream, and to change what not everybody may.
#[derive(Clone)]
pub(crate) struct Session {
    guard: Arc<Guard>,
    credential: Arc<[u8]>,
    role: Role,
    /// What the request changes, where only its message says what that is.
    change: Option<Arc<Change>>,
}

/// A change that is written down once it is known what it changes; if that is never known, when the request ends.
struct Change {
    guard: Arc<Guard>,
    line: Mutex<Option<Value>>,
}

impl Change {
    fn note(&self, model: Option<&str>) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(mut line), Some(audit)) = (line, &self.guard.audit) {
            if let Some(model) = model {
                line["model"] = audit::text(model).into();
            }
            audit.changed(line);
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.note(None);
    }
}

impl Session {
    /// Lets the next request of a stream in, as if it had come by itself.
    pub(crate) fn again(&self) -> Result<(), Denied> {
        let caller = self.guard.caller(&self.credential).map_err(Denied::Unknown)?;
        if caller.role < Role::Invoker {
            return Err(Denied::Forbidden { needs: Role::Invoker });
        }
        caller.take().map_err(|retry| Denied::TooMany { retry })
    }

    /// Writes down that the request changes what there is of a model, before it does.
    pub(crate) fn changes(&self, model: &str) {
        if let Some(change) = &self.change {
            change.note(Some(model));
        }
    }

    /// Whether the caller may load and unload models, and change what is traced and logged.
    pub(crate) fn may_change(&self) -> bool {
        self.role >= Role::Operator
    }
}

/// What a request asks for, as far as it matters who asks.
pub(crate) struct Asked<'r> {
    pub(crate) method: &'r Method,
    pub(crate) path: &'r str,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) from: Option<IpAddr>,
}

/// Why a request goes no further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It is not known who asks.
    Unknown(&'static str),
    /// Whoever asks may not.
    Forbidden { needs: Role },
    /// Whoever asks has asked for too much.
    TooMany { retry: Duration },
}

impl Denied {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unauthenticated",
            Self::Forbidden { .. } => "forbidden",
            Self::TooMany { .. } => "rate_limited",
        }
    }

    pub(crate) fn answer(&self) -> Answer {
        let status = match self {
            Self::Unknown(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut answer = json_answer(status, &json!({ "error": self.to_string(), "code": self.code() }));
        match self {
            Self::Unknown(_) => {
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooMany { retry } => drop(answer.headers_mut().insert(RETRY_AFTER, seconds(*retry).into())),
            Self::Forbidden { .. } => {}
        }
        answer.extensions_mut().insert(Refused(self.code()));
        answer
    }
}

/// Whole seconds, of which a client waits at least one.
fn seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(why) => f.write_str(why),
            Self::Forbidden { needs } => write!(f, "this takes the role `{needs}`"),
            Self::TooMany { retry } => {
                write!(f, "more requests than this key may send; ask again in {} s", seconds(*retry))
            }
        }
    }
}

impl Guard {
    /// A guard of a server.
    ///
    /// # Errors
    /// When a file cannot be read or written, or is wrong.
    pub(crate) fn new(access: &Access, shared: &Arc<Shared>) -> Result<Self, AccessError> {
        // Looked at before it is read: a change in between is seen as one.
        let seen = stamp(&access.file);
        let rules = Rules::read(&access.file)?;
        let audit = access.audit.as_deref().map(|file| {
            Audit::open(file).map_err(|source| AccessError::Audit { file: file.to_path_buf(), source })
        });
        Ok(Self {
            rules: ArcSwap::from_pointee(rules),
            file: access.file.clone(),
            seen,
            shared: Arc::clone(shared),
            audit: audit.transpose()?,
        })
    }

    /// Who sends a key or a token to the project that is served now.
    fn caller(&self, credential: &[u8]) -> Result<Arc<Caller>, &'static str> {
        self.rules.load().caller(credential, &self.shared.live.load().project)
    }

    /// Lets a request in, or says why not. What changes something is written down, and so is what was refused. Nobody is asked for
    /// what is open to all.
    pub(crate) fn let_in(self: &Arc<Self>, asked: &Asked<'_>) -> Result<Option<Session>, Denied> {
        let Some(needs) = places::needs(asked.method, asked.path) else { return Ok(None) };
        let credential = credential(asked.headers);
        let caller = credential.and_then(|credential| self.caller(credential));
        let decided = match &caller {
            Err(why) => Err(Denied::Unknown(why)),
            Ok(caller) if caller.role < needs => Err(Denied::Forbidden { needs }),
            Ok(caller) => caller.take().map_err(|retry| Denied::TooMany { retry }),
        };
        let changes = needs >= Role::Operator;
        let mut change = None;
        if let Some(audit) = &self.audit {
            let name = caller.as_ref().ok().map(|caller| &*caller.name);
            match &decided {
                Ok(()) if changes => {
                    let line = Mutex::new(Some(audit::line(asked, name, "allowed")));
                    let noted = Change { guard: Arc::clone(self), line };
                    // Over gRPC only the message says which model is meant; dropped, it is written down at once.
                    change = places::is_inference(asked.path).then(|| Arc::new(noted));
                }
                Err(denied) if changes || !matches!(denied, Denied::TooMany { .. }) => {
                    audit.refused(asked, name, denied);
                }
                _ => {}
            }
        }
        decided?;
        // Nobody asks again of what is one request and changes nothing.
        let known = credential.ok().zip(caller.ok()).filter(|_| changes || places::is_stream(asked.path));
        Ok(known.map(|(credential, caller)| Session {
            guard: Arc::clone(self),
            credential: credential.into(),
            role: caller.role,
            change,
        }))
    }

    /// Reads the file of keys again whenever it changes, and fetches keys of tokens, until it is dropped.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut seen = self.seen;
        loop {
            let rules = self.rules.load_full();
            let changed = async {
                loop {
                    tokio::time::sleep(LOOK).await;
                    let now = stamp(&self.file);
                    if now != seen {
                        break now;
                    }
                }
            };
            // Keys are fetched in a time of their own, which looking at the file does not cut short.
            seen = tokio::select! {
                now = changed => now,
                () = rules.keep() => continue,
            };
            match Rules::read(&self.file) {
                Ok(mut next) => {
                    next.go_on_from(&rules);
                    self.rules.store(Arc::new(next));
                    tracing::info!(file = %self.file.display(), "the keys were read again");
                }
                Err(error) => tracing::error!(%error, "the keys were not read again; those before are good"),
            }
        }
    }
}

/// The key or the token in the headers.
fn credential(headers: &HeaderMap) -> Result<&[u8], &'static str> {
    let bearer = headers.get(AUTHORIZATION).map(|header| {
        let (scheme, rest) = header.as_bytes().split_at_checked("Bearer ".len()).unwrap_or_default();
        scheme
            .eq_ignore_ascii_case(b"Bearer ")
            .then_some(rest)
            .ok_or("authorization is `Bearer` and a key or a token")
    });
    let credential = match (bearer, headers.get(API_KEY)) {
        (Some(bearer), _) => bearer?,
        (None, Some(key)) => key.as_bytes(),
        (None, None) => return Err("send a key or a token: authorization: Bearer ..., or x-api-key: ..."),
    };
    Ok(credential.trim_ascii())
}

/// What changes with a file: its name may stand for another one.
pub(crate) type Stamp = (SystemTime, u64, u64);

pub(crate) fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), inode(&metadata)))
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}
