//! `post`: what is sent after the reply.

use arrow::datatypes::Schema;
use axum::{Router, body::Bytes, http::HeaderMap, routing::any};
use millstream_graph::{Graph, fields, rows};
use millstream_serve::{
    DecodeLimits,
    remote::{Endpoint, Post},
    wire::ipc,
};
use tokio::sync::mpsc;

use crate::server::{engine_of, json, outside, serve};

type Received = (String, Bytes);

/// Everything that is sent to it.
fn receiver() -> (Router, mpsc::Receiver<Received>) {
    let (sent, received) = mpsc::channel(64);
    let take = move |headers: HeaderMap, body: Bytes| {
        let sent = sent.clone();
        async move {
            let media = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let _ = sent.send((media.to_owned(), body)).await;
        }
    };
    (Router::new().fallback(any(take)), received)
}

async fn posted(endpoint: impl FnOnce(String) -> Endpoint) -> Vec<Received> {
    let (router, mut received) = receiver();
    let server = serve(router).await;
    let mut graph = Graph::new("test", fields! { id: Int64, name: Utf8 });
    let reply = graph.respond(&graph.input());
    graph.step("told", &reply, Post::new(&outside(), endpoint(server.url("/hook")).in_flight(1)));
    let engine = engine_of(&graph);
    assert!(engine.plan().has_tail());
    let reply = engine.run(rows! { id: [1_i64, 2, 3], name: ["a", "b", "c"] }).await.expect("a reply");
    assert_eq!(reply.rows().num_rows(), 3);
    engine.close().await;
    drop(server);
    let mut all = Vec::new();
    while let Ok(one) = received.try_recv() {
        all.push(one);
    }
    all
}

#[tokio::test]
async fn rows_are_sent_as_an_array_after_the_reply() {
    let all = posted(|url| Endpoint::new("POST", url).rows(2)).await;
    let texts: Vec<_> =
        all.iter().map(|(media, body)| (media.as_str(), std::str::from_utf8(body).unwrap())).collect();
    let media = "application/json";
    assert_eq!(
        texts,
        [(media, r#"[{"id":1,"name":"a"},{"id":2,"name":"b"}]"#), (media, r#"[{"id":3,"name":"c"}]"#)]
    );
}

#[tokio::test]
async fn rows_are_sent_as_an_arrow_stream() {
    let all = posted(|url| Endpoint::new("POST", url).arrow().columns(["name"])).await;
    assert_eq!((all.len(), all[0].0.as_str()), (1, "application/vnd.apache.arrow.stream"));
    let schema: Schema = (*fields! { name: Utf8 }).clone();
    let decoder = ipc::Decoder::new(schema.into(), DecodeLimits::default()).unwrap();
    let rows = decoder.decode(all[0].1.to_vec()).unwrap();
    assert_eq!(json(&rows), r#"[{"name":"a"},{"name":"b"},{"name":"c"}]"#);
}
