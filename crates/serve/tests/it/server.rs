//! HTTP servers on ports of their own, and graphs that call them.

use std::{net::SocketAddr, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use millstream_graph::{Graph, Request, Step};
use millstream_runtime::{Engine, Limits, RunError};
use millstream_serve::{
    Outside,
    remote::{Endpoint, Remote},
    wire::{Form, json::Encoder},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// A server, which ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

pub(crate) async fn serve(router: Router) -> Server {
    listen(router, None).await
}

pub(crate) async fn listen(router: Router, tls: Option<TlsAcceptor>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (service, tls) = (TowerToHyperService::new(router.clone()), tls.clone());
            connections.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A client that refuses the certificate, or goes away, ends its connection.
                match tls {
                    None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            drop(server.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                }
            });
        }
    });
    Server { address, _tasks: tasks }
}

/// An engine of a graph in which one step reads the input and its rows are the reply.
pub(crate) fn engine(input: SchemaRef, step: impl Step) -> Engine {
    let mut graph = Graph::new("test", input);
    let reply = graph.step("asked", graph.input(), step);
    graph.respond(&reply);
    engine_of(&graph)
}

pub(crate) fn engine_of(graph: &Graph) -> Engine {
    let plan = graph.compile().unwrap_or_else(|errors| panic!("{errors}"));
    Engine::new(plan, Limits::default()).expect("threads")
}

/// Asks an endpoint about rows and answers the reply as JSON.
pub(crate) async fn ask(
    endpoint: Endpoint,
    output: &SchemaRef,
    rows: RecordBatch,
) -> Result<String, RunError> {
    let remote = Remote::new(&outside(), endpoint).output(output);
    let engine = engine(rows.schema(), remote);
    let reply = engine.run_request(Request::default(), rows).await?;
    Ok(json(reply.rows()))
}

pub(crate) fn outside() -> Arc<Outside> {
    Outside::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn json(rows: &RecordBatch) -> String {
    let mut text = Vec::new();
    let encoder = Encoder::new(rows.schema()).expect("columns that JSON can carry");
    encoder.encode(rows, Form::Array, &mut text).expect("rows of their own schema");
    String::from_utf8(text).expect("JSON is UTF-8")
}
