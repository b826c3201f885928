//! Requests that are too much of something.

use std::fmt::Write;

use millstream_serve::ConnectionLimits;

use super::{PATIENCE, ask, served};

#[test]
fn heads_are_bounded_in_bytes_and_headers() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let headers = |count: usize, length: usize| {
            (0..count).fold(String::new(), |mut text, at| {
                write!(text, "h{at}: {}\r\n", "x".repeat(length)).unwrap();
                text
            })
        };
        for (head, status) in [
            (format!("GET /livez HTTP/1.1\r\n{}\r\n", headers(99, 10)), 200),
            (format!("GET /livez HTTP/1.1\r\n{}\r\n", headers(101, 10)), 431),
            (format!("GET /livez HTTP/1.1\r\n{}\r\n", headers(1, 30 << 10)), 200),
            (format!("GET /livez HTTP/1.1\r\n{}\r\n", headers(1, 33 << 10)), 431),
            // Never ends, and is not waited for.
            (format!("GET /livez HTTP/1.1\r\n{}", headers(90, 10 << 10)), 431),
            (format!("GET /livez?{} HTTP/1.1\r\n\r\n", "x".repeat(8000)), 200),
            (format!("GET /livez?{} HTTP/1.1\r\n\r\n", "x".repeat(9000)), 414),
            (format!("POST /v1/graphs/ask?{} HTTP/1.1\r\n\r\n", "x".repeat(9000)), 414),
            // Beyond the whole head's bound it does not matter which part is too long.
            (format!("GET /livez?{} HTTP/1.1\r\n\r\n", "x".repeat(200_000)), 431),
            ("GET /livez HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
            ("what is this?\r\n\r\n".to_owned(), 400),
        ] {
            let mut client = serving.client();
            client.write(head.as_bytes());
            assert_eq!(client.read().status, status, "{}", &head[..head.len().min(60)]);
        }
        serving.await_refused("head_too_large", 4);
        serving.await_refused("malformed_head", 2);
        serving.await_refused("uri_too_long", 2);
    });
}

/// `body` as chunks of a byte each, with `extension` on every one.
fn chunks(body: &str, extension: &str) -> String {
    let chunks: String = body.chars().map(|byte| format!("1{extension}\r\n{byte}\r\n")).collect();
    format!("{}{chunks}0\r\n\r\n", ask("transfer-encoding: chunked\r\n"))
}

#[test]
fn bodies_in_tiny_chunks_are_read_and_floods_of_extensions_are_not() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let body = format!("[{}{{\"k\":1}}]", r#"{"k":1},"#.repeat(5000));
        let mut client = serving.client();
        for extension in ["", ";a=b"] {
            let body = if extension.is_empty() { &body } else { r#"{"k":1}"# };
            client.write(chunks(body, extension).as_bytes());
            let answer = client.read();
            assert_eq!(answer.status, 200, "{extension}: {}", answer.text());
        }
        // With or without an answer: nobody can tell where such a body ends.
        let said = client.rest_after(chunks(&body, &format!(";{}", "x".repeat(100))).as_bytes());
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
        serving.await_refused("truncated", 1);

        // A chunk without a byte ends the body; what follows is a request, and none that anybody would make.
        let mut client = serving.client();
        client.write(
            format!("{}0\r\n\r\n{}", ask("transfer-encoding: chunked\r\n"), "0\r\n\r\n".repeat(1000))
                .as_bytes(),
        );
        assert_eq!(client.read().status, 400, "an empty body");
        assert_eq!(client.read().status, 400, "no request");
        assert!(client.is_closed());
    });
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_sent() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let mut client = serving.client();
        client.write(ask("content-length: 1000000000\r\n").as_bytes());
        // Part of it is on the way already; the answer arrives all the same.
        client.write(&vec![b' '; 300_000]);
        let answer = client.read();
        assert_eq!((answer.status, &answer.json()["code"]), (413, &"too_large".into()));
        assert!(client.is_closed());
        serving.await_refused("too_large", 1);
    });
}
