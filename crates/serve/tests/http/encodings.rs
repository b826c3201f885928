//! Bodies that come compressed.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use millstream_serve::ConnectionLimits;
use serde_json::json;

use super::{PATIENCE, served};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn bodies_are_unpacked_up_to_the_bound_of_bodies() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let plain = br#"{"k":1}"#;
        let mut client = serving.client();
        let mut post = |encoding: &str, body: &[u8]| {
            client.send("POST", "/v1/graphs/ask", &[("content-encoding", encoding)], body)
        };
        for (encoding, body) in [
            ("gzip", gzip(plain)),
            ("zstd", zstd::encode_all(&plain[..], 3).unwrap()),
            ("identity", plain.to_vec()),
        ] {
            assert_eq!(
                post(encoding, &body).json(),
                json!({ "k": 1, "fact": 1, "constant": 1 }),
                "{encoding}"
            );
        }
        let unknown = post("br", plain);
        assert_eq!((unknown.status, &unknown.json()["code"]), (415, &"unknown_encoding".into()));
        assert_eq!(unknown.headers["accept-encoding"], "gzip, deflate, zstd");
        assert_eq!(post("gzip", br#"{"k":1,"k":2,"k":3}"#).json()["code"], "malformed");
        // 2 GiB of spaces in 2 MB.
        let bomb = gzip(&vec![b' '; 64 << 20]).repeat(32);
        let answer = post("gzip", &bomb);
        assert_eq!((answer.status, &answer.json()["code"]), (413, &"too_large".into()));
        assert_eq!((serving.refused("too_large"), serving.refused("unknown_encoding")), (1, 1));
    });
}

#[test]
fn a_deadline_comes_in_either_header() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let mut client = serving.client();
        for (headers, status, text) in [
            (&[("grpc-timeout", "5S")][..], 200, ""),
            (&[("grpc-timeout", "0n")], 504, "deadline"),
            (&[("x-request-timeout-ms", "5000"), ("grpc-timeout", "0m")], 504, "deadline"),
            (&[("grpc-timeout", "5s")], 400, "header `grpc-timeout` must be"),
            (&[("x-request-timeout-ms", "5S")], 400, "header `x-request-timeout-ms` must be"),
        ] {
            let answer = client.send("POST", "/v1/graphs/ask", headers, br#"{"k":1}"#);
            assert_eq!(answer.status, status, "{headers:?}");
            assert!(answer.text().contains(text), "{headers:?}: {}", answer.text());
        }
    });
}
