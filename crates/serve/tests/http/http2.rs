//! HTTP/2 by prior knowledge: requests through a real client, and frames by hand for what no client sends.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use millstream_serve::{ConnectionLimits, Ending};
use serde_json::{Value, json};

use super::{PATIENCE, Serving, served, short};

#[test]
fn requests_share_a_connection_and_see_its_bounds() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        serving.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(serving.address).await.unwrap();
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            let request = |k: usize, filler: usize| {
                let request =
                    Request::post(format!("http://test/v1/graphs/ask?{k}")).version(Version::HTTP_2);
                request
                    .header("x-filler", "x".repeat(filler))
                    .body(Full::new(Bytes::from(format!(r#"{{"k":{}}}"#, k % 10))))
                    .unwrap()
            };
            let asked = async {
                let answers = (0..300).map(|k| {
                    let mut sender = sender.clone();
                    async move {
                        let answer = sender.send_request(request(k, 10)).await.unwrap();
                        assert_eq!(answer.status(), StatusCode::OK);
                        let body = answer.into_body().collect().await.unwrap().to_bytes();
                        let body: Value = serde_json::from_slice(&body).unwrap();
                        assert_eq!(body, json!({ "k": k % 10, "fact": 1, "constant": 1 }));
                    }
                });
                futures_util::future::join_all(answers).await;
                let mut sender = sender.clone();
                let refused = sender.send_request(request(1, 40_000)).await;
                assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status() == 431));
            };
            tokio::select! {
                ended = connection => panic!("{ended:?}"),
                asked = tokio::time::timeout(PATIENCE, asked) => asked.unwrap(),
            }
        });
    });
}

#[test]
fn those_who_watch_health_hear_of_the_end_and_do_not_hold_it_up() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let (runtime, stop) = (Arc::clone(&serving.runtime), serving.stop.take().unwrap());
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(serving.address).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            let watched = async {
                let watch = Request::post("http://test/grpc.health.v1.Health/Watch")
                    .header("content-type", "application/grpc")
                    .body(Full::new(Bytes::from_static(&[0; 5])))
                    .unwrap();
                let mut told = sender.send_request(watch).await.unwrap().into_body();
                let mut next = async || told.frame().await.map(|frame| frame.unwrap().into_data());
                let status = |status: u8| Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
                assert_eq!(next().await.unwrap().unwrap(), status(1), "serving");
                stop.send(Ending { grace: PATIENCE, ..Ending::default() }).unwrap();
                assert_eq!(next().await.unwrap().unwrap(), status(2), "not serving");
                // Trailers, and nothing behind them.
                assert!(next().await.is_none_or(|frame| frame.is_err()));
            };
            // The connection may end before what it brought is read.
            let (ended, watched) =
                futures_util::future::join(connection, tokio::time::timeout(PATIENCE / 2, watched)).await;
            watched.unwrap();
            assert!(ended.is_ok(), "{ended:?}");
        });
    });
}

#[test]
fn answers_to_calls_are_packed_where_their_messages_are() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        serving.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(serving.address).await.unwrap();
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            let asked = async {
                for (headers, is_packed) in [
                    (&[("grpc-accept-encoding", "identity, deflate, gzip")][..], false),
                    (&[("grpc-encoding", "identity"), ("grpc-accept-encoding", "gzip")], false),
                    (&[("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity, deflate, gzip")], true),
                    (&[("grpc-encoding", "deflate"), ("grpc-accept-encoding", "deflate, gzip")], true),
                    (&[("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity")], false),
                ] {
                    let call = Request::post("http://test/inference.GRPCInferenceService/ServerMetadata")
                        .header("content-type", "application/grpc");
                    let call = headers.iter().fold(call, |call, (name, value)| call.header(*name, *value));
                    let call = call.body(Full::new(Bytes::from_static(&[0; 5]))).unwrap();
                    let answer = sender.clone().send_request(call).await.unwrap();
                    let encoding = answer.headers().get("grpc-encoding").cloned();
                    let body = answer.into_body().collect().await.unwrap().to_bytes();
                    let said = encoding.as_ref().map(|encoding| encoding.to_str().unwrap());
                    assert_eq!(
                        (said, body[0]),
                        (is_packed.then_some("gzip"), u8::from(is_packed)),
                        "{headers:?}"
                    );
                }
            };
            tokio::select! {
                ended = connection => panic!("{ended:?}"),
                asked = tokio::time::timeout(PATIENCE, asked) => asked.unwrap(),
            }
        });
    });
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://x/`, packed.
const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 1, b'x'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends `frames` behind the beginning of a connection; what the server says until it closes, as kinds and payloads.
fn said(serving: &Serving, frames: impl Iterator<Item = Vec<u8>>) -> Vec<(u8, Vec<u8>)> {
    let mut stream = TcpStream::connect(serving.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    for frame in frames {
        // The server may have enough before all of it is sent.
        if stream.write_all(&frame).is_err() {
            break;
        }
    }
    let mut said = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        said.push((head[3], payload));
    }
    said
}

fn was_sent_away(said: &[(u8, Vec<u8>)]) -> bool {
    said.iter().any(|(kind, payload)| *kind == GOAWAY && payload[4..8] != [0; 4])
}

#[test]
fn a_client_that_resets_what_it_asks_is_sent_away() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let streams = (0..10_000_u32).map(|at| 2 * at + 1);
        let frames = streams.map(|stream| {
            let headers = frame(HEADERS, END_STREAM | END_HEADERS, stream, &GET);
            [headers, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        });
        // All in one write, so that the server finds resets that it has not looked at.
        let all = frames.collect::<Vec<_>>().concat();
        let said = said(serving, std::iter::once(all));
        assert!(was_sent_away(&said), "{said:?}");
        assert_eq!(serving.client().get("/livez").status, 200);
    });
}

#[test]
fn a_head_in_endless_frames_is_not_read_to_its_end() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        // A header without indexing, its name `a`, its value of 100 bytes.
        let header = [&[0, 1, b'a', 100][..], &[b'x'; 100]].concat();
        let begin = std::iter::once(frame(HEADERS, 0, 1, &GET));
        let frames = begin.chain((0..100_000).map(|_| frame(CONTINUATION, 0, 1, &header)));
        said(serving, frames);
        assert_eq!(serving.client().get("/livez").status, 200);
        // One frame of them that ends well.
        let whole =
            [frame(HEADERS, END_STREAM, 1, &GET), frame(CONTINUATION, END_HEADERS, 1, &header)].concat();
        let away = frame(GOAWAY, 0, 0, &[0; 8]);
        let said = said(serving, [whole, away].into_iter());
        assert!(said.iter().any(|(kind, _)| *kind == HEADERS), "{said:?}");
    });
}

#[test]
fn a_client_that_is_gone_or_idle_is_let_go() {
    // One answers no ping, so it is gone; the other is never asked, so it is idle.
    let never = Duration::from_secs(600);
    for limits in [
        ConnectionLimits { idle: never, head: never, ..short() },
        ConnectionLimits { http2_ping: never, ..short() },
    ] {
        served(limits, PATIENCE, |serving| {
            said(serving, std::iter::empty());
        });
    }
}
