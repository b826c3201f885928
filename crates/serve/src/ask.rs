//! One HTTP request to a server that need not be trusted: one connection, a bound in time and in bytes.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::security::API_KEY;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("`{0}` is not an address such as http://127.0.0.1:8080")]
    Url(Uri),
    #[error("{0} cannot be reached")]
    Unreachable(String, #[source] std::io::Error),
    #[error("{0} broke off")]
    Broken(String, #[source] hyper::Error),
    #[error("{0} answered with more than {1} bytes, or not to the end")]
    Body(String, usize),
    #[error("{0} did not answer within {1:?}")]
    Late(String, Duration),
}

/// What is asked.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) media: &'static str,
    pub(crate) body: Bytes,
    /// A key of the server's, where it asks for one.
    pub(crate) key: Option<HeaderValue>,
    /// The time for all of it.
    pub(crate) within: Duration,
    /// Bytes of an answer.
    pub(crate) most: usize,
}

impl Ask {
    /// Sends it, and waits for the whole answer.
    pub(crate) async fn send(self) -> Result<(StatusCode, Bytes), AskError> {
        let place = place(&self.url).ok_or_else(|| AskError::Url(self.url.clone()))?;
        let within = self.within;
        timeout(within, self.exchange(&place)).await.unwrap_or(Err(AskError::Late(place, within)))
    }

    async fn exchange(self, place: &str) -> Result<(StatusCode, Bytes), AskError> {
        let unreachable = |error| AskError::Unreachable(place.to_owned(), error);
        let broken = |error| AskError::Broken(place.to_owned(), error);
        let stream = TcpStream::connect(place).await.map_err(unreachable)?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let request = Request::builder()
            .method(self.method)
            .uri(path)
            .header(HOST, place)
            .header(CONTENT_TYPE, self.media);
        let request = self.key.into_iter().fold(request, |request, key| request.header(API_KEY, key));
        let request = request.body(Full::new(self.body)).map_err(|_| AskError::Url(self.url.clone()))?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), self.most).collect().await;
            let body = body.map_err(|_| AskError::Body(place.to_owned(), self.most))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // What it has received by then is still to be read.
            _ = connection => answer.await,
        }
    }
}

/// Where a URL's server is; `None` for URLs that have none, or one that needs TLS.
pub(crate) fn place(url: &Uri) -> Option<String> {
    let host = url.host().filter(|host| !host.is_empty() && url.scheme_str() == Some("http"))?;
    Some(format!("{host}:{}", url.port_u16().unwrap_or(80)))
}
