//! The HTTP client: connections that steps share, and what an answer or its absence means for a step.
//!
//! It is hyper's own client, on which others are built, because the server brings hyper already, and because it does nothing that
//! would have to be forbidden it: it follows no redirect, asks the environment for no proxy and keeps no cookies. It makes a call
//! again by itself only when a connection that had been kept turns out to be closed before any of the call was sent.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use millstream_graph::{ErrorKind, SchemaError, StepError};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::project::chain;

/// A host that does not take the connection by then is not there. The call's own limit holds in any case; this one ends
/// connections whose call has gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was not used for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Whose certificates are good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Nobody's: calls are made without TLS only.
    Nobody,
    /// Those that the machine trusts.
    Machine,
    /// Those of the authorities in a PEM file, and no others.
    File(PathBuf),
}

/// Connections that are kept and used again. Cheap to clone; all clones share them.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    pub(crate) fn new(trust: &Trust) -> Result<Self, SchemaError> {
        // The provider is named here rather than installed for the whole process, which may have another one.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| SchemaError::new(error.to_string()))?
            .with_root_certificates(authorities(trust)?)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(connector);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self { pool })
    }

    /// Makes one call and reads its answer, of at most `most` bytes. Redirects are not followed.
    ///
    /// Dropped before it has answered, it takes its connection with it.
    pub(crate) async fn call(&self, request: Request<Full<Bytes>>, most: usize) -> Result<Bytes, StepError> {
        let answer = self.open(request).await?;
        refuse(answer.status())?;
        match Limited::new(answer.into_body(), most).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(StepError::internal(format!("the answer has more than {most} bytes")))
            }
            Err(error) => Err(unavailable(format!("the answer broke off: {}", chain(&*error)))),
        }
    }

    /// Makes one call and answers its head, whatever status that has; the body is still to be read.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, StepError> {
        self.pool.request(request).await.map_err(|error| {
            let what = if error.is_connect() { "no connection" } else { "no answer" };
            unavailable(format!("{what}: {}", chain(&error)))
        })
    }
}

fn unavailable(message: String) -> StepError {
    StepError::new(ErrorKind::Unavailable, message)
}

/// What a status that is no success says.
fn refuse(status: StatusCode) -> Result<(), StepError> {
    let kind = match status.as_u16() {
        200..=299 => return Ok(()),
        // A service that has moved has to be named anew: whoever it sends us to may be anybody.
        100..=399 => {
            return Err(StepError::internal(format!("answered {status}; redirects are not followed")));
        }
        429 => ErrorKind::Overloaded,
        400..=499 => ErrorKind::Rows,
        _ => ErrorKind::Unavailable,
    };
    Err(StepError::new(kind, format!("answered {status}")))
}

fn authorities(trust: &Trust) -> Result<RootCertStore, SchemaError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Nobody => {}
        Trust::Machine => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let problem = "this machine trusts no certificate authority; name a file of them by `ca`";
                return Err(SchemaError::new(problem));
            }
        }
        Trust::File(path) => {
            let read = |problem: String| SchemaError::new(format!("`ca`: {problem}"));
            let text = read_bounded(path).map_err(|error| read(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.map_err(|error| read(error.to_string()))?;
                roots.add(certificate).map_err(|error| read(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(read("no certificate is in it".to_owned()));
            }
        }
    }
    Ok(roots)
}

/// The largest file of authorities, in bytes; that of a whole system has a fifth of it.
const MAX_CA_BYTES: u64 = 1 << 20;

fn read_bounded(path: &PathBuf) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > MAX_CA_BYTES {
        return Err(io::Error::other(format!("a file of authorities has at most {MAX_CA_BYTES} bytes")));
    }
    std::fs::read(path)
}
