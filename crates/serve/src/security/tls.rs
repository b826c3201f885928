//! TLS of the listener: its certificate, which may be replaced while it is used, and whose certificates clients must have.

use std::{io, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{LOOK, stamp};

/// What is spoken behind TLS; clients choose.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
const MOST_BYTES: u64 = 1 << 20;

/// Where a listener's certificate is. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and an authority, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The authorities whose certificates clients must have, in PEM; without it, clients need none.
    pub clients: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct TlsError {
    file: PathBuf,
    problem: String,
}

/// TLS by the files as they are now.
pub(crate) struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

impl Tls {
    /// # Errors
    /// When a file cannot be read, or does not go with the others.
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let config = ArcSwap::from_pointee(config(&files)?);
        Ok(Self { files, config })
    }

    /// Shakes hands.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }

    /// Reads the files again whenever they change, until it is dropped.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut seen = self.stamps();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.stamps();
            if now == seen {
                continue;
            }
            seen = now;
            match config(&self.files) {
                Ok(config) => {
                    self.config.store(Arc::new(config));
                    tracing::info!(file = %self.files.certificate.display(), "the certificate was read again");
                }
                // The key may come after the certificate: then the next look finds both.
                Err(error) => {
                    tracing::error!(%error, "the certificate was not read again; the old one is used")
                }
            }
        }
    }

    fn stamps(&self) -> [Option<(std::time::SystemTime, u64, u64)>; 3] {
        let TlsFiles { certificate, key, clients } = &self.files;
        [stamp(certificate), stamp(key), clients.as_deref().and_then(stamp)]
    }
}

fn config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let wrong = |file: &PathBuf| {
        let file = file.clone();
        move |problem: String| TlsError { file, problem }
    };
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.certificate).map_err(wrong(&files.certificate))?;
    let key = read(&files.key).map_err(wrong(&files.key))?;
    // What is wrong with a key is not told by its content.
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| wrong(&files.key)("no private key is in it".into()))?;
    let clients = match &files.clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file).map_err(wrong(file))? {
                roots.add(certificate).map_err(|error| wrong(file)(error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            verifier.build().map_err(|error| wrong(file)(error.to_string()))? as Arc<dyn ClientCertVerifier>
        }
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.certificate)(error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key);
    let mut config = config.map_err(|error| wrong(&files.certificate)(error.to_string()))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn certificates(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err("no certificate is in it".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn read(file: &PathBuf) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > MOST_BYTES {
        return Err(format!("it has more than {MOST_BYTES} bytes"));
    }
    std::fs::read(file).map_err(|error| error.to_string())
}
