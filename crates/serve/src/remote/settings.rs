//! `remote` and `post` as they stand in project files.

use std::sync::Arc;

use arrow::datatypes::Schema;
use indexmap::IndexMap;
use millstream_graph::{SchemaError, spec, spec::StepKind};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Endpoint, Post, Remote};
use crate::{
    outside::Outside,
    units::{Size, Time},
};

/// How calls are made.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Asks a service over HTTP and adds the columns of its answer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoteSettings {
    /// Where calls go. `{column}` in the path or the query is a row's value, `${NAME}` a variable of the environment.
    url: String,
    /// `POST` by default. `GET`, `HEAD` and `DELETE` send no body.
    method: Option<Verb>,
    /// Headers by name, written like the url. Secrets stand in the environment: `Bearer ${TOKEN}`.
    #[serde(default)]
    headers: IndexMap<String, String>,
    /// The columns that are sent as a JSON object; by default all.
    columns: Option<Vec<String>>,
    /// The column whose value is the body, in place of an object of columns.
    body: Option<String>,
    /// Whether all rows are sent in one call, as a JSON array, and answered by one.
    #[serde(default)]
    batch: bool,
    /// As `batch`, with at most so many rows per call.
    rows: Option<usize>,
    /// The columns that the answer has, and their types. Without it only the status counts.
    #[serde(default)]
    output: IndexMap<String, String>,
    /// Whether an answer is the value of the one column of `output`, such as `[0.2, 0.8]`, and not an object that has it.
    #[serde(default)]
    bare: bool,
    /// Calls that may be under way at once, over all runs; 64 by default.
    in_flight: Option<usize>,
    /// The time of each attempt, such as `200ms`; `10s` by default.
    timeout: Option<Time>,
    /// Further attempts when a call is not answered; 0 by default. Only for calls that may be repeated.
    #[serde(default)]
    retries: u32,
    /// Whether a call may be repeated, and hold rows of several requests; so by default for all methods but `POST` and `PATCH`.
    #[serde(default)]
    idempotent: bool,
    /// No call is made for five seconds after so many failures in a row; by default calls never stop.
    breaker: Option<u32>,
    /// The longest answer, such as `64KiB`; `4MiB` by default.
    max_answer: Option<Size>,
    /// A PEM file of the certificate authorities to trust, inside the project's folder; by default those of the machine.
    ca: Option<String>,
}

/// Sends rows over HTTP, and answers nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PostSettings {
    /// Where calls go. `${NAME}` is a variable of the environment.
    url: String,
    /// `POST` by default.
    method: Option<PostVerb>,
    /// Headers by name, written like the url. Secrets stand in the environment: `Bearer ${TOKEN}`.
    #[serde(default)]
    headers: IndexMap<String, String>,
    /// The columns that are sent; by default all.
    columns: Option<Vec<String>>,
    /// Whether rows are sent as a JSON array or as an Arrow IPC stream; `json` by default.
    #[serde(default)]
    format: Format,
    /// Rows per call; by default all that there are.
    rows: Option<usize>,
    /// Calls that may be under way at once, over all runs; 64 by default.
    in_flight: Option<usize>,
    /// The time of each attempt, such as `200ms`; `10s` by default.
    timeout: Option<Time>,
    /// Further attempts when a call is not answered; 0 by default. Only for calls that may be repeated.
    #[serde(default)]
    retries: u32,
    /// Whether a call may be repeated; so by default for `PUT`.
    #[serde(default)]
    idempotent: bool,
    /// No call is made for five seconds after so many failures in a row; by default calls never stop.
    breaker: Option<u32>,
    /// A PEM file of the certificate authorities to trust, inside the project's folder; by default those of the machine.
    ca: Option<String>,
}

/// How rows are sent.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum PostVerb {
    Post,
    Put,
    Patch,
}

/// The form of what is sent.
#[derive(Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Arrow,
}

/// `remote` and `post`.
pub(crate) fn kinds(outside: &Arc<Outside>) -> Vec<StepKind> {
    let (asks, posts) = (Arc::clone(outside), Arc::clone(outside));
    vec![
        StepKind::new("remote", move |settings: RemoteSettings| {
            let (output, bare) = (columns(&settings.output)?, settings.bare);
            let step = Remote::new(&asks, settings.endpoint()?).output(&output);
            Ok(Arc::new(if bare { step.bare() } else { step }) as _)
        }),
        StepKind::new("post", move |settings: PostSettings| {
            Ok(Arc::new(Post::new(&posts, settings.endpoint())) as _)
        }),
    ]
}

fn columns(output: &IndexMap<String, String>) -> Result<Schema, SchemaError> {
    let mut fields = Vec::new();
    let mut problems = Vec::new();
    for (name, text) in output {
        match spec::column(name, text) {
            Ok(field) => fields.push(field),
            Err(problem) => problems.push(SchemaError::new(format!("column `{name}`: {problem}"))),
        }
    }
    SchemaError::collect(problems)?;
    Ok(Schema::new(fields))
}

impl RemoteSettings {
    fn endpoint(self) -> Result<Endpoint, SchemaError> {
        let method = self.method.unwrap_or(Verb::Post).name();
        let mut endpoint = with_headers(Endpoint::new(method, self.url), self.headers).retries(self.retries);
        match (self.batch, self.rows) {
            (true, Some(_)) => {
                return Err(SchemaError::new(
                    "`rows` says already that a call takes several rows; leave out `batch`",
                ));
            }
            (true, None) => endpoint = endpoint.rows(usize::MAX),
            (false, Some(rows)) => endpoint = endpoint.rows(rows),
            (false, None) => {}
        }
        endpoint = maybe(endpoint, self.columns, |endpoint, columns| endpoint.columns(columns));
        endpoint = maybe(endpoint, self.body, |endpoint, column| endpoint.body(column));
        endpoint = maybe(endpoint, self.in_flight, Endpoint::in_flight);
        endpoint = maybe(endpoint, self.timeout, |endpoint, time| endpoint.timeout(time.0));
        endpoint = maybe(endpoint, self.breaker, Endpoint::breaker);
        endpoint = maybe(endpoint, self.max_answer, |endpoint, size| endpoint.max_answer(size.0));
        endpoint = maybe(endpoint, self.ca, |endpoint, file| endpoint.ca(file));
        Ok(if self.idempotent { endpoint.idempotent() } else { endpoint })
    }
}

impl PostSettings {
    fn endpoint(self) -> Endpoint {
        let method = match self.method.unwrap_or(PostVerb::Post) {
            PostVerb::Post => "POST",
            PostVerb::Put => "PUT",
            PostVerb::Patch => "PATCH",
        };
        let mut endpoint = with_headers(Endpoint::new(method, self.url), self.headers).retries(self.retries);
        endpoint = endpoint.rows(self.rows.unwrap_or(usize::MAX));
        endpoint = maybe(endpoint, self.columns, |endpoint, columns| endpoint.columns(columns));
        endpoint = maybe(endpoint, self.in_flight, Endpoint::in_flight);
        endpoint = maybe(endpoint, self.timeout, |endpoint, time| endpoint.timeout(time.0));
        endpoint = maybe(endpoint, self.breaker, Endpoint::breaker);
        endpoint = maybe(endpoint, self.ca, |endpoint, file| endpoint.ca(file));
        endpoint = if self.format == Format::Arrow { endpoint.arrow() } else { endpoint };
        if self.idempotent { endpoint.idempotent() } else { endpoint }
    }
}

fn with_headers(endpoint: Endpoint, headers: IndexMap<String, String>) -> Endpoint {
    headers.into_iter().fold(endpoint, |endpoint, (name, value)| endpoint.header(name, value))
}

/// The endpoint changed by a setting, where there is one.
fn maybe<T>(
    endpoint: Endpoint,
    setting: Option<T>,
    change: impl FnOnce(Endpoint, T) -> Endpoint,
) -> Endpoint {
    match setting {
        Some(setting) => change(endpoint, setting),
        None => endpoint,
    }
}
