//! One call: its rows in, its answer out.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, header};
use http_body_util::Full;
use millstream_graph::{
    Effect, Input, Output, Request, Rows, RunCx, SchemaError, Signature, Step, StepError, Work,
};

use super::{
    body::{Answer, Body},
    client::Client,
    template::{Part, Template, text_of},
    url::Url,
};
use crate::service::JSON;

/// A step that makes one call for all its rows, and answers the columns of the answer.
pub(super) struct Call {
    pub(super) client: Client,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, Template)>,
    pub(super) body: Body,
    pub(super) answer: Answer,
    /// The longest answer, in bytes.
    pub(super) most: usize,
    pub(super) timeout: Duration,
    pub(super) effect: Effect,
}

impl Step for Call {
    fn signature(&self, _: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(self.answer.schema()).with_effect(self.effect))
    }

    fn call<'a>(&'a self, mut input: Input, cx: &'a RunCx) -> Work<'a> {
        let request = input.rows(0).and_then(|rows| Ok((self.request(&rows, cx)?, rows)));
        match request {
            Err(error) => Work::Done(Err(error)),
            Ok((request, rows)) => Work::Io(Box::pin(async move {
                let answer = self.client.call(request, self.most).await?;
                let answer = self.answer.read(&answer, rows.len())?;
                Ok(Output::one(rows.replace(answer)?))
            })),
        }
    }
}

impl Call {
    fn request(&self, rows: &Rows, cx: &RunCx) -> Result<HttpRequest<Full<Bytes>>, StepError> {
        let mut request = HttpRequest::new(Full::new(self.body.write(rows.batch())?));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.fill(rows.batch(), 0).map_err(StepError::rows)?;
        self.write_headers(request.headers_mut(), rows, cx)?;
        Ok(request)
    }

    /// The run's own headers first: those that the graph sets take their place.
    fn write_headers(&self, headers: &mut HeaderMap, rows: &Rows, cx: &RunCx) -> Result<(), StepError> {
        headers.insert(header::ACCEPT, JSON);
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("millstream/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(media) = self.body.media_type() {
            headers.insert(header::CONTENT_TYPE, media);
        }
        let time = cx.remaining().map_or(self.timeout, |left| left.min(self.timeout)).as_millis();
        headers.insert("x-request-timeout-ms", HeaderValue::from(u64::try_from(time).unwrap_or(u64::MAX)));
        if let Some(request) = asker(rows, cx) {
            for (name, value) in [("x-request-id", &request.id), ("traceparent", &request.trace)] {
                if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                    headers.insert(name, value);
                }
            }
        }
        for (name, template) in &self.headers {
            let mut text = String::new();
            for part in &template.parts {
                match part {
                    Part::Text(literal) => text.push_str(literal),
                    Part::Column(name, at) => {
                        text += &text_of(rows.batch(), 0, name, *at).map_err(StepError::rows)?;
                    }
                }
            }
            let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
                StepError::rows(format!("header `{name}` cannot hold a line break or a control character"))
            })?;
            value.set_sensitive(template.secret);
            headers.insert(name, value);
        }
        Ok(())
    }
}

/// The request that all rows of a call belong to; none where several requests share it.
fn asker<'c>(rows: &Rows, cx: &'c RunCx) -> Option<&'c Request> {
    if !cx.is_shared() {
        return cx.requests().next().map(|(request, _)| request);
    }
    let places = || (0..rows.len()).map(|row| rows.origin().place(row));
    let first = places().next().flatten()? as usize;
    let (request, share) = cx.requests().find(|(_, share)| share.contains(&first))?;
    places().all(|place| place.is_some_and(|place| share.contains(&(place as usize)))).then_some(request)
}
