//! Several requests over one HTTP/1.1 connection, and how it ends.

use std::time::Duration;

use millstream_serve::{ConnectionLimits, Ending};

use super::{PATIENCE, ask, served};

#[test]
fn requests_that_are_sent_ahead_are_answered_in_order() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let mut client = serving.client();
        let requests: String = (0..50)
            .map(|id| match id % 3 {
                0 => format!("{}{{\"k\":1}}", ask(&format!("x-request-id: {id}\r\ncontent-length: 7\r\n"))),
                1 => format!("{}nonsense", ask(&format!("x-request-id: {id}\r\ncontent-length: 8\r\n"))),
                _ => format!("GET /v1/graphs/ask HTTP/1.1\r\nhost: test\r\nx-request-id: {id}\r\n\r\n"),
            })
            .collect();
        client.write(requests.as_bytes());
        for id in 0..50 {
            let answer = client.read();
            assert_eq!(answer.headers["x-request-id"], id.to_string());
            assert_eq!(answer.status, if id % 3 == 1 { 400 } else { 200 });
        }
    });
}

#[test]
fn a_body_that_nobody_asked_for_is_not_taken_for_the_next_request() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let hidden = "GET /v1/graphs/ask HTTP/1.1\r\nhost: test\r\n\r\n";
        for (request, status) in [
            ("POST /nowhere", 404),
            ("POST /livez", 405),
            ("PUT /v1/graphs/ask", 405),
            ("POST /v1/graphs/aks", 404),
        ] {
            for late in [false, true] {
                let mut client = serving.client();
                let head =
                    format!("{request} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", hidden.len());
                if late {
                    client.write(head.as_bytes());
                    assert_eq!(client.read().status, status, "{request}");
                    // The body was not there to be read over, so the connection ends.
                    assert_eq!(client.rest_after(hidden.as_bytes()), "", "{request}");
                } else {
                    client
                        .write(format!("{head}{hidden}GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes());
                    assert_eq!(client.read().status, status, "{request}");
                    assert_eq!(client.read().text(), "ok", "{request}");
                }
            }
        }
        serving.await_refused("method_not_allowed", 4);
        serving.await_refused("unknown_route", 2);
        serving.await_refused("unknown_graph", 2);
    });
}

#[test]
fn a_server_that_stops_says_so_and_answers_what_still_comes() {
    served(ConnectionLimits::default(), PATIENCE, |serving| {
        let mut clients: Vec<_> = (0..4).map(|_| serving.client()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/readyz").text(), "ready");
        }
        let mut slow = serving.client();
        slow.write(ask("content-length: 7\r\nexpect: 100-continue\r\n").as_bytes());
        slow.read_continue();
        let ending = Ending { drain_delay: Duration::from_secs(2), grace: PATIENCE };
        serving.stop.take().unwrap().send(ending).unwrap();
        // On a new connection, which is still accepted.
        let start = std::time::Instant::now();
        let answer = loop {
            let answer = serving.client().get("/readyz");
            if answer.status != 200 {
                break answer;
            }
            assert!(start.elapsed() < Duration::from_secs(1), "still ready");
        };
        assert_eq!((answer.status, &*answer.text()), (503, "stopping"));
        assert_eq!(answer.headers["connection"], "close");
        for client in &mut clients {
            let answer = client.send("POST", "/v1/graphs/ask", &[], br#"{"k":1}"#);
            assert_eq!((answer.status, &*answer.headers["connection"]), (200, "close"));
            assert!(client.is_closed());
        }
        // As long as this one is under way, others are answered too.
        slow.write(br#"{"k":1}"#);
        assert_eq!(slow.read().status, 200);
        assert!(slow.is_closed());
    });
}
