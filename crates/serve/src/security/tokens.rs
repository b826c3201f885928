//! Tokens of an identity provider: JWTs whose signatures its published keys check.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{Method, Request, Uri};
use http_body_util::Full;
use jsonwebtoken::{
    DecodingKey, Validation, decode, decode_header,
    jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::{
    Role,
    keys::{KeyDigest, digest},
    provider,
    rules::Caller,
};
use crate::remote::{Client, Trust};

/// Clocks differ by so much.
const LEEWAY_SECONDS: u64 = 60;
/// How often keys are fetched anew, and how soon after a token that none of them has signed.
const FETCH: Duration = Duration::from_secs(600);
const FETCH_AGAIN: Duration = Duration::from_secs(30);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const KEY_BYTES: usize = 1 << 20;
/// Longer tokens are none. A head has less room in any case.
const TOKEN_BYTES: usize = 16 << 10;
/// Tokens that are remembered, so that the same one is not checked for every request.
const REMEMBERED: usize = 10_000;

/// Which tokens are taken, and what they make of their bearers.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenSpec {
    /// Who issues them; tokens name it as `iss`.
    issuer: String,
    /// For whom; tokens name it in `aud`.
    audience: String,
    /// The file with the issuer's keys, a JWK set, beside this one.
    #[serde(default)]
    keys: Option<PathBuf>,
    /// Where the issuer publishes its keys. Without this and `keys`, the issuer's `/.well-known/openid-configuration` says it.
    #[serde(default)]
    keys_url: Option<String>,
    /// The member of a token that has its bearer's roles, such as `roles` or `realm_access.roles`: a text, or a list of texts.
    #[serde(default = "roles")]
    roles_claim: String,
    /// What role goes with what the token says. Of several, the highest counts.
    roles: BTreeMap<String, Role>,
}

fn roles() -> String {
    "roles".into()
}

pub(super) struct Tokens {
    spec: TokenSpec,
    keys: ArcSwap<JwkSet>,
    source: Source,
    /// A token came that no key has signed.
    missed: Notify,
    remembered: Mutex<HashMap<KeyDigest, Arc<Caller>>>,
}

/// Where keys come from.
enum Source {
    File,
    Url(Uri, Client),
    /// The issuer, which says where.
    Issuer(Uri, Client),
}

impl Tokens {
    pub(super) fn new(spec: TokenSpec, folder: &Path) -> Result<Self, String> {
        provider::install();
        let client = || Client::new(&Trust::Machine).map_err(|error| error.to_string());
        let mut keys = JwkSet { keys: Vec::new() };
        let source = match (&spec.keys, &spec.keys_url) {
            (Some(_), Some(_)) => return Err("give `keys` or `keys_url`, not both".into()),
            (Some(file), None) => {
                let file = folder.join(file);
                let text = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                keys = serde_json::from_slice(&text)
                    .map_err(|error| format!("{}: it is no JWK set: {error}", file.display()))?;
                Source::File
            }
            (None, Some(url)) => Source::Url(address(url)?, client()?),
            (None, None) => {
                let issuer = spec.issuer.trim_end_matches('/');
                Source::Issuer(address(&format!("{issuer}/.well-known/openid-configuration"))?, client()?)
            }
        };
        Ok(Self {
            spec,
            keys: ArcSwap::from_pointee(keys),
            source,
            missed: Notify::new(),
            remembered: Mutex::default(),
        })
    }

    /// Knows the keys of the issuer that were fetched already, until they are fetched anew.
    pub(super) fn go_on_from(&self, before: &Self) {
        if self.spec == before.spec && !matches!(self.source, Source::File) {
            self.keys.store(before.keys.load_full());
        }
    }

    /// Who bears a token.
    pub(super) fn caller(&self, token: &[u8]) -> Result<Arc<Caller>, &'static str> {
        let name = digest(token);
        if let Some(known) = self.lock().get(&name) {
            let good = known.until().is_none_or(|until| Utc::now() < until);
            return if good { Ok(Arc::clone(known)) } else { Err("the token has expired") };
        }
        let keys = self.keys.load_full();
        let caller = Arc::new(self.check(token, &keys)?);
        let mut remembered = self.lock();
        // By keys that have been taken back meanwhile, nobody is known.
        if caller.until().is_some() && Arc::ptr_eq(&keys, &self.keys.load()) {
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(name, Arc::clone(&caller));
        }
        Ok(caller)
    }

    fn check(&self, token: &[u8], keys: &JwkSet) -> Result<Caller, &'static str> {
        if token.len() > TOKEN_BYTES {
            return Err("the token is too long");
        }
        let header = decode_header(token).map_err(|_| "the token is none")?;
        // What is for encrypting signs nothing.
        let signs = |key: &&Jwk| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
        let signing: Vec<&Jwk> = keys.keys.iter().filter(signs).collect();
        let fits = |key: &&&Jwk| match &header.kid {
            Some(kid) => key.common.key_id.as_ref() == Some(kid),
            None => signing.len() == 1,
        };
        let Some(key) = signing.iter().find(fits) else {
            self.missed.notify_one();
            return Err("no key of the issuer has signed the token");
        };
        // A key that says what it is for is used for nothing else.
        let says = key.common.key_algorithm.as_ref().map(KeyAlgorithm::to_string);
        if says.is_some_and(|says| says != format!("{:?}", header.alg)) {
            return Err("the token is signed by another algorithm than its key is for");
        }
        let decoding = DecodingKey::from_jwk(key).map_err(|_| "the issuer's key cannot be used")?;
        let mut validation = Validation::new(header.alg);
        validation.algorithms =
            provider::ALGORITHMS.into_iter().filter(|known| *known == header.alg).collect();
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.spec.audience]);
        validation.set_issuer(&[&self.spec.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let claims = decode::<Map<String, Value>>(token, &decoding, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired",
                ErrorKind::ImmatureSignature => "the token is not good yet",
                ErrorKind::InvalidIssuer => "the token is another issuer's",
                ErrorKind::InvalidAudience => "the token is for somebody else",
                ErrorKind::MissingRequiredClaim(_) => "the token lacks `exp`, `iss` or `aud`",
                _ => "the token's signature is wrong",
            }
        })?;
        self.bearer(&claims.claims)
    }

    fn bearer(&self, claims: &Map<String, Value>) -> Result<Caller, &'static str> {
        // A member may have dots in its name, as those with an address do.
        let whole = claims.get(&self.spec.roles_claim);
        let said = whole.or_else(|| {
            let mut place = self.spec.roles_claim.split('.');
            let first = place.next().and_then(|name| claims.get(name));
            place.fold(first, |value, name| value.and_then(|value| value.get(name)))
        });
        let said: Vec<&str> = match said {
            Some(Value::String(text)) => text.split(' ').collect(),
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let role = said.iter().filter_map(|said| self.spec.roles.get(*said)).max();
        let role = *role.ok_or("the token gives its bearer no role here")?;
        // Nobody gets the name of a key by a token.
        let name = format!("token:{}", claims.get("sub").and_then(Value::as_str).unwrap_or_default());
        let until = claims.get("exp").and_then(|at| at.as_i64().or_else(|| at.as_f64().map(|at| at as i64)));
        let until = until.and_then(|at| DateTime::from_timestamp(at, 0));
        let leeway = chrono::TimeDelta::seconds(LEEWAY_SECONDS as i64);
        Ok(Caller::by_token(name, role, until.and_then(|until| until.checked_add_signed(leeway))))
    }

    /// Fetches the issuer's keys, now and then.
    pub(super) async fn keep(&self) {
        if matches!(self.source, Source::File) {
            return std::future::pending().await;
        }
        loop {
            match self.fetch().await {
                Ok(keys) => {
                    self.keys.store(Arc::new(keys));
                    // Keys that were taken back make nobody known any more.
                    self.lock().clear();
                }
                Err(error) => {
                    tracing::error!(issuer = self.spec.issuer, error, "the issuer's keys were not fetched");
                }
            }
            tokio::time::sleep(FETCH_AGAIN).await;
            let _ = tokio::time::timeout(FETCH - FETCH_AGAIN, self.missed.notified()).await;
        }
    }

    async fn fetch(&self) -> Result<JwkSet, String> {
        let (url, client) = match &self.source {
            Source::File => return Err("they are in a file".into()),
            Source::Url(url, client) => (url.clone(), client),
            Source::Issuer(configuration, client) => {
                let told: Value = get(client, configuration.clone()).await?;
                if told["issuer"].as_str() != Some(self.spec.issuer.as_str()) {
                    return Err(format!("{configuration} is of another issuer"));
                }
                let url =
                    told["jwks_uri"].as_str().ok_or_else(|| format!("{configuration} has no jwks_uri"))?;
                (address(url)?, client)
            }
        };
        get(client, url).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<KeyDigest, Arc<Caller>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address of the issuer's: over TLS, except on this machine.
fn address(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| format!("`{text}` is no address"))?;
    let here = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if here => Ok(url),
        _ => Err(format!("`{text}`: keys are fetched over https")),
    }
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, url: Uri) -> Result<T, String> {
    let request = Request::builder().method(Method::GET).uri(url.clone()).body(Full::new(Bytes::new()));
    let request = request.map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(FETCH_TIMEOUT, client.call(request, KEY_BYTES)).await;
    let body =
        answer.map_err(|_| format!("{url} did not answer"))?.map_err(|error| format!("{url}: {error}"))?;
    serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
}
