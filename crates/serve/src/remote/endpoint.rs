//! Where calls go and how: what `remote` and `post` have in common.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::SchemaRef;
use http::{HeaderName, HeaderValue, Method, header};
use millstream_graph::{Effect, SchemaError, Step};
use millstream_runtime::layers::Layers;

use super::{
    body::{Answer, Body, Output, Sent},
    call::Call,
    calls::Calls,
    client::Trust,
    template::{Part, Template},
    url::Url,
};
use crate::outside::Outside;

/// Calls under way when nothing is said.
const IN_FLIGHT: usize = 64;
/// The time that a call has when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer when nothing is said, in bytes.
const MAX_ANSWER: usize = 4 << 20;
/// The most calls that may be under way, and the most further attempts.
const MOST_IN_FLIGHT: usize = 4096;
const MOST_RETRIES: u32 = 10;

/// Headers that say where a call goes or how it travels, which is not for a template to say.
const OURS: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
];

/// The text of a header, which may be a secret that somebody wrote into it.
#[derive(Clone)]
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// Where calls go and how they are made.
///
/// In the URL's path and query and in headers, `{column}` stands for the value of a row and `${NAME}` for a variable of the
/// environment, where secrets belong. What is wrong with any of it is said when the graph is compiled.
///
/// ```
/// use std::time::Duration;
/// use millstream_serve::remote::Endpoint;
///
/// let users = Endpoint::new("GET", "https://users.example/v1/users/{user_id}?country={country}")
///     .header("authorization", "Bearer ${USERS_TOKEN}")
///     .timeout(Duration::from_millis(200))
///     .retries(2);
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint {
    method: String,
    url: String,
    headers: Vec<(String, Hidden)>,
    columns: Option<Vec<String>>,
    body: Option<String>,
    rows: Option<usize>,
    arrow: bool,
    in_flight: usize,
    timeout: Duration,
    retries: u32,
    idempotent: bool,
    breaker: Option<u32>,
    max_answer: usize,
    ca: Option<String>,
}

impl Endpoint {
    /// Calls of a method (`GET`, `HEAD`, `POST`, `PUT`, `PATCH` or `DELETE`) to a URL, one per row.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            columns: None,
            body: None,
            rows: None,
            arrow: false,
            in_flight: IN_FLIGHT,
            timeout: TIMEOUT,
            retries: 0,
            idempotent: false,
            breaker: None,
            max_answer: MAX_ANSWER,
            ca: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), Hidden(value.into())));
        self
    }

    /// The columns that are sent; by default all.
    #[must_use]
    pub fn columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// The column whose value is the body, in place of an object of columns.
    #[must_use]
    pub fn body(mut self, column: impl Into<String>) -> Self {
        self.body = Some(column.into());
        self
    }

    /// Sends up to `rows` rows per call, as an array, in place of one.
    #[must_use]
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Sends rows as an Arrow IPC stream in place of JSON; see [`Endpoint::rows`].
    #[must_use]
    pub fn arrow(mut self) -> Self {
        self.arrow = true;
        self.rows.get_or_insert(usize::MAX);
        self
    }

    /// How many calls may be under way at once, over all runs; 64 by default. Further ones wait for their turn.
    #[must_use]
    pub fn in_flight(mut self, calls: usize) -> Self {
        self.in_flight = calls;
        self
    }

    /// The time that each attempt at a call has; 10 s by default. The run's deadline holds in any case.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often a call is made again when it was not answered; see [`Retry`](millstream_runtime::layers::Retry).
    #[must_use]
    pub fn retries(mut self, times: u32) -> Self {
        self.retries = times;
        self
    }

    /// Declares that making a call again is harmless, and that rows of several requests may stand in one call. Without it, that
    /// holds for `GET`, `HEAD`, `PUT` and `DELETE`.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Stops calling for a while after so many failures in a row; see [`Breaker`](millstream_runtime::layers::Breaker).
    #[must_use]
    pub fn breaker(mut self, failures: u32) -> Self {
        self.breaker = Some(failures);
        self
    }

    /// The longest answer that is read, in bytes; 4 MiB by default.
    #[must_use]
    pub fn max_answer(mut self, bytes: usize) -> Self {
        self.max_answer = bytes;
        self
    }

    /// Trusts the certificate authorities of a PEM file in the project's folder, in place of those that the machine trusts.
    #[must_use]
    pub fn ca(mut self, file: impl Into<String>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Types the calls for rows of `input`; every problem at once.
    pub(super) fn typed(
        &self,
        outside: &Outside,
        input: &SchemaRef,
        output: &Output,
    ) -> Result<Calls, SchemaError> {
        let mut problems = self.bounds();
        let mut keep = |error| problems.push(error);
        let method = self.method().map_err(&mut keep).ok();
        let url = Url::read(&self.url).and_then(|url| url.typed(input)).map_err(&mut keep).ok();
        let headers = self.typed_headers(input).map_err(&mut keep).ok();
        let reads_rows = url.as_ref().is_some_and(Url::reads_rows)
            || headers.iter().flatten().any(|(_, value)| value.reads_rows());
        if self.rows.is_some() && reads_rows {
            let problem =
                "a call of several rows has no value of its own for `{column}` in its url or its headers";
            keep(SchemaError::new(problem));
        }
        let body = method.as_ref().and_then(|method| {
            let body = self.sent(method).and_then(|sent| Body::new(&sent, input));
            body.map_err(&mut keep).ok()
        });
        let answer = Answer::new(output, self.rows.is_some(), self.max_answer).map_err(&mut keep).ok();
        let client = self.trust(url.as_ref(), outside).and_then(|trust| outside.client(trust));
        let client = client.map_err(&mut keep).ok();
        let effect = method.as_ref().map(|method| self.effect(method).map_err(&mut keep));
        SchemaError::collect(problems)?;
        let (
            Some(method),
            Some(url),
            Some(headers),
            Some(body),
            Some(answer),
            Some(client),
            Some(Ok(effect)),
        ) = (method, url, headers, body, answer, client, effect)
        else {
            return Err(SchemaError::new("the call cannot be made"));
        };
        let schema = answer.schema();
        let (most, timeout) = (self.max_answer, self.timeout);
        let call = Call { client, method, url, headers, body, answer, most, timeout, effect };
        Ok(Calls {
            input: Arc::clone(input),
            answer: schema,
            effect,
            rows: self.rows.unwrap_or(1),
            in_flight: self.in_flight,
            call: self.layered(call),
        })
    }

    /// The numbers that are out of bounds.
    fn bounds(&self) -> Vec<SchemaError> {
        let checks = [
            ((1..=MOST_IN_FLIGHT).contains(&self.in_flight), format!("`in_flight` is 1 to {MOST_IN_FLIGHT}")),
            (self.rows != Some(0), "`rows` is at least 1".to_owned()),
            (self.retries <= MOST_RETRIES, format!("`retries` is at most {MOST_RETRIES}")),
            (self.breaker != Some(0), "`breaker` is at least 1".to_owned()),
            (!self.timeout.is_zero(), "`timeout` is longer than nothing".to_owned()),
        ];
        checks.into_iter().filter(|(good, _)| !good).map(|(_, problem)| SchemaError::new(problem)).collect()
    }

    fn effect(&self, method: &Method) -> Result<Effect, SchemaError> {
        match (self.idempotent || method.is_idempotent(), self.retries) {
            (true, _) => Ok(Effect::Repeatable),
            (false, 0) => Ok(Effect::Once),
            (false, _) => Err(SchemaError::new(format!(
                "a {method} may not be made again; if it may, say `idempotent: true`, else leave out `retries`"
            ))),
        }
    }

    /// Each attempt has its time and takes its turn. What waits for a turn is bounded by the runs of the engine, each of which
    /// waits with at most as many calls as may be under way.
    fn layered(&self, call: Call) -> Arc<dyn Step> {
        let call = call.timeout(self.timeout).limit(self.in_flight).queue(usize::MAX);
        let call: Arc<dyn Step> = match self.retries {
            0 => Arc::new(call),
            times => Arc::new(call.retry(times)),
        };
        match self.breaker {
            None => call,
            Some(failures) => Arc::new(call.breaker().after(failures)),
        }
    }

    fn method(&self) -> Result<Method, SchemaError> {
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let wanted = self.method.to_ascii_uppercase();
        known.iter().find(|method| method.as_str() == wanted).cloned().ok_or_else(|| {
            let known = known.iter().map(Method::as_str);
            SchemaError::new(millstream_graph::suggest::unknown("method", &wanted, known))
        })
    }

    fn typed_headers(&self, input: &SchemaRef) -> Result<Vec<(HeaderName, Template)>, SchemaError> {
        let mut typed = Vec::new();
        let mut problems = Vec::new();
        for (name, value) in &self.headers {
            let read = || {
                let header: HeaderName = name
                    .to_ascii_lowercase()
                    .parse()
                    .map_err(|_| SchemaError::new(format!("`{name}` cannot be a header's name")))?;
                if OURS.contains(&header) {
                    return Err(SchemaError::new(format!(
                        "header `{name}` follows from the url and the body"
                    )));
                }
                let template = Template::read(&value.0)?.typed(input)?;
                let sent = template.parts.iter().all(|part| match part {
                    Part::Text(text) => HeaderValue::from_str(text).is_ok(),
                    Part::Column(..) => true,
                });
                if !sent {
                    let problem =
                        format!("header `{name}` cannot hold what stands in it or in the environment");
                    return Err(SchemaError::new(problem));
                }
                Ok((header, template))
            };
            match read() {
                Ok(header) => typed.push(header),
                Err(error) => problems.push(error),
            }
        }
        SchemaError::collect(problems)?;
        Ok(typed)
    }

    fn sent(&self, method: &Method) -> Result<Sent, SchemaError> {
        if matches!(*method, Method::GET | Method::HEAD | Method::DELETE) {
            return match (&self.columns, &self.body, self.rows) {
                (None, None, None) => Ok(Sent::Nothing),
                _ => Err(SchemaError::new(format!("a {method} has no body that rows could stand in"))),
            };
        }
        match (&self.columns, &self.body) {
            (Some(_), Some(_)) => {
                Err(SchemaError::new("either `columns` or `body` says what is sent; keep one"))
            }
            (_, Some(_)) if self.rows.is_some() => {
                Err(SchemaError::new("the value of one column cannot be the body of a call of several rows"))
            }
            (_, Some(column)) => Ok(Sent::Value(column.clone())),
            (columns, _) if self.arrow => Ok(Sent::Arrow(columns.clone())),
            (columns, _) if self.rows.is_some() => Ok(Sent::Array(columns.clone())),
            (columns, _) => Ok(Sent::Object(columns.clone())),
        }
    }

    fn trust(&self, url: Option<&Url>, outside: &Outside) -> Result<Trust, SchemaError> {
        match &self.ca {
            Some(file) => outside.inside(file).map(Trust::File),
            None if url.is_some_and(Url::is_https) => Ok(Trust::Machine),
            None => Ok(Trust::Nobody),
        }
    }
}
