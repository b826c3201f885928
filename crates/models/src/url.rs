//! URLs of model files, and the headers that are sent there, which never show what may be secret in them.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// Where a model's file is: a URL that begins with `https://` or `http://` or, with the feature `cloud`, with `s3://`, `gs://`,
/// `az://` or `abfss://`; or a reference to one that is secret: `env:NAME` or `file:PATH`.
///
/// Shown without a login and a query, which may be a signature. What is wrong with it is said by whoever asks there.
///
/// ```
/// # use millstream_models::ModelUrl;
/// let url = ModelUrl::new("https://me:hunter2@models.example/fraud.onnx?sig=abc");
/// assert_eq!(url.to_string(), "https://models.example/fraud.onnx");
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ModelUrl(String);

/// The text of a header, or a reference to one that is secret: `env:NAME` or `file:PATH`.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HeaderText(String);

impl ModelUrl {
    /// A URL, or a reference to one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as the project has it: never show it.
    pub fn written(&self) -> &str {
        &self.0
    }
}

impl HeaderText {
    /// The text as the project has it: never show it.
    pub fn written(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for ModelUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelUrl({self})")
    }
}

impl fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderText(..)")
    }
}

fn shown(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_reference = text.starts_with("env:") || text.starts_with("file:");
        return if is_reference { text.to_owned() } else { "no URL".to_owned() };
    };
    if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric()) {
        return "no URL".to_owned();
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // In Azure, what stands in front of the host is the container.
    let host = match authority.rsplit_once('@') {
        Some((container, _)) if scheme.starts_with("abfs") && !container.contains(':') => authority,
        Some((_, host)) => host,
        None => authority,
    };
    // A password with a slash or a question mark ends the host too early: of such a text nothing is sure.
    let port = host.rsplit_once(':').filter(|_| !host.ends_with(']')).map_or("", |(_, port)| port);
    if !port.chars().all(|c| c.is_ascii_digit()) || (host.contains(':') && path.contains('@')) {
        return format!("{scheme}://..");
    }
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        for (text, wanted) in [
            ("https://h/a/b.onnx", "https://h/a/b.onnx"),
            ("https://h:8443/a@b.onnx", "https://.."),
            ("https://h/a@b.onnx", "https://h/a@b.onnx"),
            ("https://h/a.onnx?X-Amz-Signature=hunter2", "https://h/a.onnx"),
            ("https://h/a.onnx#hunter2", "https://h/a.onnx"),
            ("https://me:hunter2@h/a.onnx", "https://h/a.onnx"),
            ("https://hunter2@h/a.onnx", "https://h/a.onnx"),
            ("https://me:hunter/2@h/a.onnx", "https://.."),
            ("https://me:hunter?2@h/a.onnx", "https://.."),
            ("https://me:1/hunter2@h/a.onnx", "https://.."),
            ("http://[::1]:80/a.onnx", "http://[::1]:80/a.onnx"),
            ("http://[::1]/a.onnx", "http://[::1]/a.onnx"),
            ("s3://key:hunter2@bucket/a.onnx", "s3://bucket/a.onnx"),
            ("abfss://box@account.example/a.onnx", "abfss://box@account.example/a.onnx"),
            ("abfss://box:hunter2@account.example/a.onnx", "abfss://account.example/a.onnx"),
            ("env:FRAUD_URL", "env:FRAUD_URL"),
            ("file:secrets/url", "file:secrets/url"),
            ("hunter2", "no URL"),
            ("hunter2 https://h/", "no URL"),
        ] {
            let url = ModelUrl::new(text);
            assert_eq!(url.to_string(), wanted, "{text}");
            assert!(!format!("{url:?}").contains("hunter"), "{text}");
        }
    }
}
