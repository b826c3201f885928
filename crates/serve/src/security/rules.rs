//! The file of keys, and who its keys are.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use millstream_graph::spec::Document;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    AccessError, Role,
    keys::{self, KeyDigest},
    tokens::{TokenSpec, Tokens},
};

/// The most bytes of the file.
const MOST_BYTES: u64 = 1 << 20;

/// Who may do what, as the file says.
pub(super) struct Rules {
    /// One key may be several callers', each in projects of its own.
    keys: HashMap<KeyDigest, Vec<Arc<Caller>>>,
    tokens: Option<Tokens>,
}

/// Somebody who may do something.
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) role: Role,
    until: Option<DateTime<Utc>>,
    rate: Option<Rate>,
    /// The projects that it is good for; all if there is none.
    projects: Option<Vec<String>>,
}

/// The keys of the file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of `keys` and `tokens`")]
struct AccessKeys {
    #[serde(default)]
    keys: IndexMap<String, Value>,
    #[serde(default)]
    tokens: Option<Value>,
}

/// A key, under the name of who has it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeySpec {
    sha256: Digests,
    role: Role,
    /// Until when it is good: a time such as `2027-01-31T00:00:00Z`.
    #[serde(default)]
    expires: Option<String>,
    /// Requests per second, each of the same worth.
    #[serde(default)]
    rate: Option<NonZeroU32>,
    /// The projects whose servers take it; all if it is left out.
    #[serde(default)]
    projects: Option<Vec<String>>,
}

/// One digest, or several while a key is being replaced by another.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "the digest of a key, or a list of digests")]
enum Digests {
    One(String),
    Several(Vec<String>),
}

impl Rules {
    pub(super) fn read(file: &Path) -> Result<Self, AccessError> {
        let unreadable = |source| AccessError::Unreadable { file: file.to_path_buf(), source };
        let length = std::fs::metadata(file).map_err(unreadable)?.len();
        if length > MOST_BYTES {
            return Err(unreadable(std::io::Error::other(format!("it has more than {MOST_BYTES} bytes"))));
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        Self::of(&text, file)
    }

    fn of(text: &str, file: &Path) -> Result<Self, AccessError> {
        let placed = |errors: &millstream_graph::spec::SpecErrors| AccessError::Invalid {
            problems: errors.errors().iter().map(|error| format!("{}:{error}", file.display())).collect(),
        };
        let document = Document::read(text).map_err(|errors| placed(&errors))?;
        let all: AccessKeys = document.typed(&[]).map_err(|errors| placed(&errors))?;
        let mut errors = millstream_graph::spec::SpecErrors::default();
        let mut known: HashMap<KeyDigest, Vec<Arc<Caller>>> = HashMap::new();
        for name in all.keys.keys() {
            let path = ["keys", name.as_str()];
            let spec: KeySpec = match document.typed(&path) {
                Ok(spec) => spec,
                Err(problems) => {
                    errors.extend(problems);
                    continue;
                }
            };
            let until = spec.expires.as_deref().map(DateTime::parse_from_rfc3339).transpose();
            let until = until.unwrap_or_else(|_| {
                let problem = "a time is written as 2027-01-31T00:00:00Z";
                errors.push(document.place(&["keys", name, "expires"]), format!("key `{name}`: {problem}"));
                None
            });
            let until = until.map(|until| until.to_utc());
            let rate = spec.rate.map(Rate::new);
            let projects = spec.projects;
            let caller = Arc::new(Caller { name: name.clone(), role: spec.role, until, rate, projects });
            let digests = match spec.sha256 {
                Digests::One(digest) => vec![digest],
                Digests::Several(digests) => digests,
            };
            for digest in digests {
                match keys::parse(&digest) {
                    None => {
                        let problem = "a digest is 64 hexadecimal digits; `millstream keys new` makes a key and its digest";
                        errors.push(
                            document.place(&["keys", name, "sha256"]),
                            format!("key `{name}`: {problem}"),
                        );
                    }
                    Some(digest) if known.get(&digest).is_some_and(|others| caller.is_beside(others)) => {
                        let problem = "another has the same key, for the same projects";
                        errors.push(
                            document.place(&["keys", name, "sha256"]),
                            format!("key `{name}`: {problem}"),
                        );
                    }
                    Some(digest) => known.entry(digest).or_default().push(Arc::clone(&caller)),
                }
            }
        }
        let mut tokens = None;
        if all.tokens.is_some() {
            let folder = file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
            match document.typed::<TokenSpec>(&["tokens"]) {
                Ok(spec) => match Tokens::new(spec, &folder) {
                    Ok(made) => tokens = Some(made),
                    Err(problem) => errors.push(document.place(&["tokens"]), format!("`tokens`: {problem}")),
                },
                Err(problems) => errors.extend(problems),
            }
        }
        errors.check().map_err(|errors| placed(&errors))?;
        Ok(Self { keys: known, tokens })
    }

    /// Goes on where the rules before were: what callers have used up of their rates, and the keys that tokens are signed with.
    pub(super) fn go_on_from(&mut self, before: &Self) {
        for (key, callers) in &mut self.keys {
            let known = before.keys.get(key).map_or(&[][..], Vec::as_slice);
            for caller in callers {
                if let Some(known) = known.iter().find(|known| known.is_same(caller)) {
                    *caller = Arc::clone(known);
                }
            }
        }
        if let (Some(tokens), Some(known)) = (&self.tokens, &before.tokens) {
            tokens.go_on_from(known);
        }
    }

    /// Who sends a key or a token to the server of a project.
    pub(super) fn caller(&self, credential: &[u8], project: &str) -> Result<Arc<Caller>, &'static str> {
        let callers = self.keys.get(&keys::digest(credential));
        if let Some(caller) = callers.into_iter().flatten().find(|caller| caller.is_of(project)) {
            return match caller.until {
                Some(until) if until <= Utc::now() => Err("the key has expired"),
                _ => Ok(Arc::clone(caller)),
            };
        }
        match &self.tokens {
            Some(tokens) if credential.iter().filter(|byte| **byte == b'.').count() == 2 => {
                tokens.caller(credential)
            }
            _ => Err("the key is not known"),
        }
    }

    /// Fetches the keys that tokens are signed with, again and again; never ready where there are none to fetch.
    pub(super) async fn keep(&self) {
        match &self.tokens {
            Some(tokens) => tokens.keep().await,
            None => std::future::pending().await,
        }
    }
}

impl Caller {
    pub(super) fn by_token(name: String, role: Role, until: Option<DateTime<Utc>>) -> Self {
        Self { name, role, until, rate: None, projects: None }
    }

    fn is_same(&self, other: &Self) -> bool {
        let every = |caller: &Self| caller.rate.as_ref().map(|rate| rate.every);
        (&self.name, self.role, self.until, every(self), &self.projects)
            == (&other.name, other.role, other.until, every(other), &other.projects)
    }

    /// Whether the server of a project takes its key.
    fn is_of(&self, project: &str) -> bool {
        self.projects.as_ref().is_none_or(|projects| projects.iter().any(|name| name == project))
    }

    /// Whether there is a project whose server would take the key for that of one of these, too.
    fn is_beside(&self, others: &[Arc<Self>]) -> bool {
        others.iter().any(|other| match (&self.projects, &other.projects) {
            (Some(ours), _) => ours.iter().any(|project| other.is_of(project)),
            (None, Some(theirs)) => !theirs.is_empty(),
            (None, None) => true,
        })
    }

    pub(super) fn until(&self) -> Option<DateTime<Utc>> {
        self.until
    }

    /// Takes one request of those that the caller may send, or says when there is the next.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(Instant::now()))
    }
}

/// Requests at a steady rate, of which those of one second may come at once.
struct Rate {
    every: Duration,
    /// When the next would come, if they came steadily.
    next: Mutex<Option<Instant>>,
}

impl Rate {
    fn new(per_second: NonZeroU32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.get(), next: Mutex::new(None) }
    }

    fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.map_or(now, |next| next.max(now));
        // What has been saved up is a second's worth.
        let ahead = due.duration_since(now);
        let most = Duration::from_secs(1).saturating_sub(self.every);
        if ahead > most {
            return Err(ahead - most);
        }
        *next = Some(due + self.every);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_over_time_and_lets_a_second_come_at_once() {
        let (rate, start) = (Rate::new(NonZeroU32::new(10).unwrap()), Instant::now());
        let taken = |at: Instant| (0..100).take_while(|_| rate.take(at).is_ok()).count();
        assert_eq!(taken(start), 10);
        assert_eq!(rate.take(start), Err(Duration::from_millis(100)));
        assert_eq!(taken(start + Duration::from_millis(250)), 2);
        assert_eq!(taken(start + Duration::from_secs(60)), 10, "nothing more is saved up");
    }

    #[test]
    fn all_that_is_wrong_with_a_file_is_said_with_its_place() {
        let (_, digest) = keys::new_key().unwrap();
        let text = format!(
            "keys:\n  a: {{ sha256: {digest}, role: invoker }}\n  b: {{ sha256: [{digest}, '12'], role: viewer }}\n  c: {{ sha256: x, role: boss }}\ntokens: {{ issuer: i }}\n"
        );
        let error = Rules::of(&text, Path::new("access.yaml")).err().unwrap().to_string();
        for part in [
            "access.yaml:3",
            "another has the same key",
            "64 hexadecimal digits",
            "access.yaml:4",
            "boss",
            "access.yaml:5",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_key_is_good_until_it_expires_and_for_its_projects() {
        let (key, digest) = keys::new_key().unwrap();
        let rules = |more: &str| {
            let text = format!("keys: {{ a: {{ sha256: {digest}, role: operator{more} }} }}");
            Rules::of(&text, Path::new("access.yaml")).unwrap()
        };
        let ask = |rules: &Rules, key: &str| rules.caller(key.as_bytes(), "p").map(|caller| caller.role);
        assert_eq!(ask(&rules(""), &key), Ok(Role::Operator));
        assert_eq!(ask(&rules(""), "ms_other"), Err("the key is not known"));
        assert_eq!(ask(&rules(", expires: 2020-01-01T00:00:00Z"), &key), Err("the key has expired"));
        assert_eq!(ask(&rules(", expires: 2999-01-01T00:00:00Z"), &key), Ok(Role::Operator));
        assert_eq!(ask(&rules(", projects: [q]"), &key), Err("the key is not known"));
        assert_eq!(ask(&rules(", projects: [q, p]"), &key), Ok(Role::Operator));
    }

    #[test]
    fn a_key_has_one_role_in_each_project() {
        let (key, digest) = keys::new_key().unwrap();
        let rules = |one: &str, other: &str| {
            let text = format!(
                "keys:\n  a: {{ sha256: {digest}, role: viewer{one} }}\n  b: {{ sha256: {digest}, role: admin{other} }}\n"
            );
            Rules::of(&text, Path::new("access.yaml"))
        };
        let both = rules(", projects: [p, q]", ", projects: [r]").unwrap();
        for (project, role) in [("p", Some(Role::Viewer)), ("r", Some(Role::Admin)), ("s", None)] {
            let got = both.caller(key.as_bytes(), project).map(|caller| caller.role);
            assert_eq!(got.ok(), role, "{project}");
        }
        for (one, other) in [
            ("", ""),
            (", projects: [p]", ""),
            ("", ", projects: [p]"),
            (", projects: [p, q]", ", projects: [q]"),
        ] {
            let error = rules(one, other).err().unwrap().to_string();
            assert!(error.contains("access.yaml:3"), "{one} {other}: {error}");
        }
    }
}
