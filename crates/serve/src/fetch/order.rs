//! What is fetched, from where, and who asks for it.

use std::{io::Read, path::Path, time::Duration};

use ::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use millstream_models::{ModelSource, ModelSpec};
use millstream_monitor::alert::{Secret, Source};
use sha2::{Digest, Sha256};

use super::{
    Answer, FetchError, Fetched,
    cache::{Held, Marks, hex},
    http,
};
use crate::outside::Outside;

/// The time that a file has to come when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The most bytes of a file with a secret.
const SECRET_BYTES: u64 = 64 << 10;
/// The most headers of a call.
const HEADERS: usize = 64;
/// Schemes of object stores.
const CLOUD: [&str; 7] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];
/// Headers that say where a call goes, how it travels or which part of the file is asked for.
const OURS: [HeaderName; 12] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::RANGE,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
    header::ACCEPT_ENCODING,
];
/// What is part of the name of a header that says who asks.
const CREDENTIALS: [&str; 6] = ["auth", "cookie", "token", "key", "secret", "password"];

/// One model's file, to be fetched.
pub(super) struct Order {
    /// The model.
    pub(super) name: String,
    from: String,
    /// What the cache knows the URL by.
    pub(super) key: String,
    target: Target,
    pub(super) headers: HeaderMap,
    pub(super) ca: Option<String>,
    /// The pin, in small letters.
    pub(super) sha256: Option<String>,
    /// The most bytes of the file.
    pub(super) most: u64,
    pub(super) timeout: Duration,
}

enum Target {
    Http(Uri),
    #[cfg(feature = "cloud")]
    Object(String),
}

impl Order {
    /// What is to be fetched of a model; nothing of one whose file is here, or whose settings are wrong, which loading tells.
    pub(super) fn read(root: &Path, name: &str, spec: &ModelSpec) -> Result<Option<Self>, FetchError> {
        let Ok(ModelSource::Url(url)) = spec.source() else { return Ok(None) };
        let text = resolved(root, url.written()).map_err(|problem| wrong(format!("`url`: {problem}")))?;
        let target = target(&text)?;
        if (!spec.headers.is_empty() || spec.ca.is_some()) && !text.starts_with("http") {
            return Err(wrong("`headers` and `ca` are for https:// and http:// only".to_owned()));
        }
        if spec.headers.len() > HEADERS {
            return Err(wrong(format!("`headers` has more than {HEADERS}")));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &spec.headers {
            let (name, value) = header(root, name, value.written())
                .map_err(|problem| wrong(format!("header `{name}`: {problem}")))?;
            headers.insert(name, value);
        }
        let sha256 = spec.sha256.as_deref().map(|pin| pin.trim().to_ascii_lowercase());
        if sha256.as_ref().is_some_and(|pin| !is_digest(pin)) {
            return Err(wrong("`sha256` is 64 hexadecimal digits".to_owned()));
        }
        Ok(Some(Self {
            name: name.to_owned(),
            from: url.to_string(),
            key: hex(&Sha256::digest(&text)),
            target,
            headers,
            ca: spec.ca.clone(),
            sha256,
            most: spec.limits().bytes,
            timeout: spec.timeout.map_or(TIMEOUT, |time| time.0),
        }))
    }

    /// Asks for the file, unless it is still the one that has these marks.
    pub(super) async fn open(&self, outside: &Outside, known: Option<&Marks>) -> Result<Answer, FetchError> {
        match &self.target {
            Target::Http(url) => http::open(self, url, outside, known).await,
            #[cfg(feature = "cloud")]
            Target::Object(url) => super::object::open_at(url, known).await,
        }
    }

    pub(super) fn fetched(&self, held: Held) -> Fetched {
        Fetched { from: self.from.clone(), pinned: self.sha256.is_some(), held }
    }
}

fn wrong(problem: String) -> FetchError {
    FetchError::Settings(problem)
}

/// Whether a text is a SHA-256 as the cache writes it: the name of a file, which leads nowhere else.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where a URL leads. No message has any of it: it may be a secret.
fn target(text: &str) -> Result<Target, FetchError> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    match scheme {
        "https" | "http" => {}
        "file" => return Err(wrong("a file of this machine is named by `path`".to_owned())),
        cloud if CLOUD.contains(&cloud) => return object(text),
        _ => return Err(wrong("a url begins with https://, http://, s3://, gs:// or az://".to_owned())),
    }
    let uri: Uri =
        text.parse().map_err(|_| wrong("`url` has a character that must be encoded".to_owned()))?;
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| wrong("no host stands behind `://`".to_owned()))?;
    if authority.as_str().contains('@') {
        let problem = "a name and a password belong into the header `authorization`, not into the url";
        return Err(wrong(problem.to_owned()));
    }
    if rest.contains('#') {
        return Err(wrong("what stands behind `#` in a url is not sent".to_owned()));
    }
    Ok(Target::Http(uri))
}

#[cfg(feature = "cloud")]
fn object(url: &str) -> Result<Target, FetchError> {
    super::object::check(url)?;
    Ok(Target::Object(url.to_owned()))
}

#[cfg(not(feature = "cloud"))]
fn object(_: &str) -> Result<Target, FetchError> {
    let problem = "this build fetches from https:// and http:// only; build it with the feature `cloud`";
    Err(wrong(problem.to_owned()))
}

fn header(root: &Path, name: &str, written: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name: HeaderName = name.parse().map_err(|_| "that is no name of a header".to_owned())?;
    if OURS.contains(&name) {
        return Err("it is not for a project to say".to_owned());
    }
    let is_plain = matches!(Secret::new(written).source(), Source::Plain(_));
    if is_plain && CREDENTIALS.iter().any(|part| name.as_str().contains(part)) {
        return Err("it says who asks, so it is a reference: `env:NAME` or `file:PATH`".to_owned());
    }
    let mut value: HeaderValue =
        resolved(root, written)?.parse().map_err(|_| "it has characters that no header has".to_owned())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// A text, or what it refers to.
fn resolved(root: &Path, written: &str) -> Result<String, String> {
    // A URL that begins with `file://` is no reference.
    if written.starts_with("file://") {
        return Ok(written.to_owned());
    }
    match Secret::new(written).source() {
        Source::Plain(text) => Ok(text.to_owned()),
        Source::Env(name) => {
            std::env::var(name).map_err(|_| format!("the environment has no text in {name}"))
        }
        Source::File(path) => {
            let mut text = String::new();
            let file = root.join(path);
            // Opening a pipe would wait for whoever writes to it.
            let read = file.metadata().and_then(|found| {
                if !found.is_file() {
                    return Err(std::io::Error::other("not a file"));
                }
                std::fs::File::open(file)?.take(SECRET_BYTES).read_to_string(&mut text)
            });
            read.map_err(|error| format!("{path}: {error}"))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: serde_json::Value) -> Result<Option<Order>, String> {
        let spec: ModelSpec = serde_json::from_value(spec).unwrap();
        Order::read(Path::new(env!("CARGO_MANIFEST_DIR")), "m", &spec).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused_without_saying_a_secret() {
        use serde_json::json;
        let many: serde_json::Map<_, _> = (0..65).map(|at| (format!("x-{at}"), json!("1"))).collect();
        for (spec, wanted) in [
            (json!({"url": "ftp://h/hunter2"}), "a url begins with https://"),
            (json!({"url": "hunter2"}), "a url begins with https://"),
            (json!({"url": "file:///etc/hunter2"}), "is named by `path`"),
            (json!({"url": "https://me:hunter2@h/m.onnx"}), "belong into the header `authorization`"),
            (json!({"url": "https://h/hunter2 b"}), "a character that must be encoded"),
            (json!({"url": "https:///hunter2"}), ""),
            (json!({"url": "https://h/m#hunter2"}), "behind `#`"),
            (
                json!({"url": "env:NOT_SET_ANYWHERE"}),
                "`url`: the environment has no text in NOT_SET_ANYWHERE",
            ),
            (json!({"url": "file:no/such/file"}), "`url`: no/such/file: "),
            (json!({"url": "https://h/m", "sha256": "../hunter2"}), "`sha256` is 64 hexadecimal digits"),
            (
                json!({"url": "https://h/m", "headers": {"Authorization": "Bearer hunter2"}}),
                "it is a reference",
            ),
            (json!({"url": "https://h/m", "headers": {"x-api-key": "hunter2"}}), "it is a reference"),
            (json!({"url": "https://h/m", "headers": {"range": "bytes=0-1"}}), "not for a project to say"),
            (json!({"url": "https://h/m", "headers": {"no name": "1"}}), "no name of a header"),
            (json!({"url": "https://h/m", "headers": many}), "`headers` has more than 64"),
            #[cfg(not(feature = "cloud"))]
            (json!({"url": "s3://hunter2/m.onnx"}), "build it with the feature `cloud`"),
        ] {
            let error = read(spec.clone()).err().unwrap_or_else(|| panic!("{spec}"));
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{spec}: {error}");
        }
        for spec in [
            json!({"path": "m.onnx"}),
            json!({"path": "m.onnx", "url": "https://h/m"}),
            json!({"url": "https://h/m?sig=1", "headers": {"accept": "*/*", "authorization": "env:CARGO_PKG_NAME"}}),
        ] {
            assert_eq!(read(spec.clone()).unwrap().is_some(), spec.get("path").is_none(), "{spec}");
        }
    }
}
