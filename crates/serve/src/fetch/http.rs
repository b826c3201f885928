//! Files from HTTP servers: asked for by their marks, and followed elsewhere only as far as nobody is deceived.

use ::http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    header::{
        self, CONTENT_ENCODING, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
        TRANSFER_ENCODING,
    },
    uri::Authority,
};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::{
    Answer, FetchError, New, PATIENCE,
    cache::{Marks, hex, mark},
    order::Order,
};
use crate::{outside::Outside, project::chain, remote::Trust};

/// How often a server may send us on.
const REDIRECTS: usize = 5;

/// Asks for the file of `order` at `url`.
///
/// Where the server sends us on: within its own scheme, host and port as it likes; elsewhere only by https, only where the project
/// pins the file, and without the headers of the project.
pub(super) async fn open(
    order: &Order,
    url: &Uri,
    outside: &Outside,
    known: Option<&Marks>,
) -> Result<Answer, FetchError> {
    let mut at = url.clone();
    for _ in 0..=REDIRECTS {
        let own = same_place(url, &at);
        let trust = match (at.scheme_str(), &order.ca) {
            (Some("https"), Some(ca)) if own => Trust::File(
                outside.inside(ca).map_err(|problem| FetchError::Settings(format!("`ca`: {problem}")))?,
            ),
            (Some("https"), _) => Trust::Machine,
            _ => Trust::Nobody,
        };
        let client = outside.client(trust).map_err(|problem| FetchError::Settings(problem.to_string()))?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = Method::GET;
        *request.uri_mut() = at.clone();
        let place = place(&at);
        let known = known.filter(|known| known.at == place);
        *request.headers_mut() = headers(order, own, known);
        let answer = timeout(PATIENCE, client.open(request)).await;
        let answer = answer.map_err(|_| FetchError::Stalled(PATIENCE))?;
        let answer = answer.map_err(|error| FetchError::Unreachable(error.to_string()))?;
        match answer.status() {
            StatusCode::OK => return taken(order, place, answer),
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Answer::Same),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let next = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let next = next.and_then(|next| behind(&at, next));
                at = next.ok_or(FetchError::Answered(answer.status()))?;
                let is_sure = order.sha256.is_some() && at.scheme_str() == Some("https");
                if !same_place(url, &at) && !is_sure {
                    return Err(FetchError::LeadsAway);
                }
            }
            status => return Err(FetchError::Answered(status)),
        }
    }
    Err(FetchError::LeadsOn(REDIRECTS))
}

/// The headers of a call; those of the project go to the place that it names, and nowhere else.
fn headers(order: &Order, own: bool, known: Option<&Marks>) -> HeaderMap {
    let mut headers = if own { order.headers.clone() } else { HeaderMap::new() };
    let identity = ::http::HeaderValue::from_static("identity");
    headers.insert(header::ACCEPT_ENCODING, identity);
    let marks = known.into_iter().flat_map(|known| {
        [(IF_NONE_MATCH, known.etag.as_ref()), (IF_MODIFIED_SINCE, known.last_modified.as_ref())]
    });
    for (name, value) in marks {
        if let Some(value) = value.and_then(|value| value.parse().ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A place as what it tells is kept: it may have a signature.
fn place(at: &Uri) -> String {
    hex(&Sha256::digest(at.to_string()))
}

fn taken(order: &Order, at: String, answer: Response<Incoming>) -> Result<Answer, FetchError> {
    let headers = answer.headers();
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding.as_bytes() != b"identity") {
        return Err(FetchError::Broken("it comes packed, although that was not asked for".to_owned()));
    }
    let bytes = answer.body().size_hint().exact();
    let ends = bytes.is_some()
        || headers
            .get(TRANSFER_ENCODING)
            .is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || answer.version() == Version::HTTP_2
        || order.sha256.is_some();
    if !ends {
        // It would end where the connection does, which it also does when the server dies.
        let problem = "the server does not say where it ends; pin the file by `sha256`";
        return Err(FetchError::Broken(problem.to_owned()));
    }
    let marks = Marks {
        etag: headers.get(ETAG).and_then(mark),
        last_modified: headers.get(LAST_MODIFIED).and_then(mark),
        at,
    };
    let body = answer.into_body().into_data_stream();
    let body = body.map(|part| part.map_err(|error| FetchError::Broken(chain(&error)))).boxed();
    Ok(Answer::New(New { bytes, marks, body }))
}

/// Where `location`, told by `at`, is.
fn behind(at: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (at.scheme_str()?, at.authority()?);
    let location = location.split('#').next().unwrap_or_default();
    let is_whole = location.starts_with("https://") || location.starts_with("http://");
    let text = if is_whole {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", at.path())
    } else if location.is_empty() || location.split(['/', '?']).next().is_some_and(|part| part.contains(':'))
    {
        // Of another scheme.
        return None;
    } else {
        let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = text.parse().ok()?;
    uri.authority().is_some_and(|authority| !authority.as_str().contains('@')).then_some(uri)
}

fn same_place(one: &Uri, other: &Uri) -> bool {
    let port =
        |uri: &Uri| uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) });
    let host = |uri: &Uri| uri.authority().map(Authority::host).map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_from_where_it_was_told() {
        let at: Uri = "https://h/a/b.onnx?c=1".parse().unwrap();
        for (location, wanted, own) in [
            ("https://other/x", Some("https://other/x"), false),
            ("http://h/x", Some("http://h/x"), false),
            ("//h:443/x", Some("https://h:443/x"), true),
            ("/x?y=1", Some("https://h/x?y=1"), true),
            ("?y=1", Some("https://h/a/b.onnx?y=1"), true),
            ("x.onnx", Some("https://h/a/x.onnx"), true),
            ("x.onnx#part", Some("https://h/a/x.onnx"), true),
            ("https://H/x", Some("https://H/x"), true),
            ("https://me:pass@h/x", None, false),
            ("file:///etc/passwd", None, false),
            ("data:,x", None, false),
            ("", None, false),
        ] {
            let got = behind(&at, location);
            assert_eq!(got.as_ref().map(ToString::to_string).as_deref(), wanted, "{location}");
            assert_eq!(got.is_some_and(|got| same_place(&at, &got)), own, "{location}");
        }
    }
}
