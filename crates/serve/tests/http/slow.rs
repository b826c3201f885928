//! Clients that take their time.

use std::{io::Write, net::TcpStream};

use millstream_serve::ConnectionLimits;

use super::{PATIENCE, ask, served, short};

#[test]
fn a_head_that_does_not_end_is_not_waited_for() {
    served(ConnectionLimits { idle: PATIENCE, ..short() }, PATIENCE, |serving| {
        let mut served_once = serving.client();
        assert_eq!(served_once.get("/livez").status, 200);
        for (client, bytes) in [
            (&mut serving.client(), &b""[..]),
            (&mut serving.client(), b"PO"),
            (&mut serving.client(), b"POST /v1/graphs/ask HTTP/1.1\r\nhost: te"),
            (&mut served_once, b"POST /v1/gra"),
        ] {
            client.write(bytes);
            assert!(client.is_closed(), "{}", String::from_utf8_lossy(bytes));
        }
        serving.await_refused("slow_head", 4);
    });
}

#[test]
fn a_body_that_does_not_end_is_answered_and_not_waited_for() {
    served(short(), PATIENCE, |serving| {
        for head in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
            let mut client = serving.client();
            client.write(ask(head).as_bytes());
            client.write(b"1\r\n{\r\n");
            let answer = client.read();
            assert_eq!((answer.status, &answer.json()["code"]), (408, &"too_slow".into()), "{head}");
            assert!(client.is_closed());
        }
        serving.await_refused("too_slow", 2);
    });
}

#[test]
fn a_connection_without_requests_is_closed_and_one_with_them_is_not() {
    served(short(), PATIENCE, |serving| {
        let mut client = serving.client();
        for _ in 0..3 {
            assert_eq!(client.get("/livez").status, 200);
        }
        assert!(client.is_closed());
        assert_eq!(serving.refused("slow_head"), 0, "that it is closed is no refusal");
    });
}

#[test]
fn a_client_that_does_not_read_its_replies_is_let_go() {
    served(short(), PATIENCE, |serving| {
        let mut stream = TcpStream::connect(serving.address).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let request = b"GET /openapi.json HTTP/1.1\r\nhost: test\r\n\r\n";
        // Until the server takes no more, then until it closes.
        let refused = (0..1_000_000).find_map(|_| stream.write_all(request).err()).expect("an end");
        assert!(
            matches!(refused.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
            "{refused}"
        );
        serving.await_refused("slow_client", 1);
    });
}
