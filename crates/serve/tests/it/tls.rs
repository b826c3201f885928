//! Certificates and host names are checked.

use std::sync::Arc;

use axum::{Json, Router, routing::any};
use millstream_graph::{ErrorKind, fields, rows};
use millstream_serve::{
    Outside,
    remote::{Endpoint, Remote},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use crate::server::{engine, listen};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A server's side of TLS, with a certificate for `localhost` that `authority` signed.
fn acceptor(authority: &Authority) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn only_a_certificate_of_a_trusted_authority_for_this_host_is_good() {
    let (good, other) = (authority(), authority());
    let answer = |request: axum::extract::Request| async move {
        Json(json!({ "version": format!("{:?}", request.version()) }))
    };
    let server = listen(Router::new().fallback(any(answer)), Some(acceptor(&good))).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.pem"), good.pem()).unwrap();
    std::fs::write(folder.path().join("other.pem"), other.pem()).unwrap();
    let outside = Outside::new(folder.path());
    let port = server.address.port();
    let cases = [
        ("localhost", "good.pem", Ok(r#"[{"id":1,"version":"HTTP/2.0"}]"#)),
        ("localhost", "other.pem", Err("invalid peer certificate")),
        ("127.0.0.1", "good.pem", Err("invalid peer certificate")),
    ];
    for (host, ca, wanted) in cases {
        let endpoint = Endpoint::new("POST", format!("https://{host}:{port}/")).ca(ca);
        let remote = Remote::new(&outside, endpoint).output(&fields! { version: Utf8 });
        let got = engine(fields! { id: Int64 }, remote).run(rows! { id: [1_i64] }).await;
        match (got, wanted) {
            (Ok(reply), Ok(wanted)) => assert_eq!(crate::server::json(reply.rows()), wanted),
            (Err(error), Err(wanted)) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(error.to_string().contains(wanted), "{host} by {ca}: {error}");
            }
            (got, _) => panic!("{host} by {ca}: {got:?}"),
        }
    }
}
