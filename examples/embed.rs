//! A serving graph inside a service of one's own: built in code, with a step that Millstream does not have.
//!
//! ```sh
//! cargo run --example embed
//! curl -d '{"amount": 120.0, "usual": 40.0, "country": "FR"}' http://127.0.0.1:8080/score
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    error::Error,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use axum::{Router, routing::get};
use millstream::{
    Input, Output, RunCx, SchemaError, Signature, StepResult, Work,
    arrow::{
        array::{AsArray, Float64Array, RecordBatch},
        datatypes::{Float64Type, Schema, SchemaRef},
    },
    prelude::*,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A step of our own: the column `logit` becomes the column `score`, between 0 and 1.
#[derive(Default)]
struct Sigmoid {
    /// Where `logit` stands and what goes out: known once the graph is compiled, so that a call looks nothing up.
    typed: OnceLock<(usize, SchemaRef)>,
}

impl Step for Sigmoid {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let [schema] = inputs else { return Err(SchemaError::new("takes one input")) };
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let at = schema.index_of("logit").map_err(|_| SchemaError::unknown_column("logit", names))?;
        let fields =
            schema.fields().iter().chain(fields! { score: Float64 }.fields()).cloned().collect::<Vec<_>>();
        let (_, output) = self.typed.get_or_init(|| (at, Arc::new(Schema::new(fields))));
        Ok(Signature::row_wise(Arc::clone(output)))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| self.score(&rows)))
    }
}

impl Sigmoid {
    fn score(&self, rows: &millstream::Rows) -> StepResult {
        let Some((at, schema)) = self.typed.get() else { return Ok(Output::none()) };
        let logits = rows.batch().column(*at).as_primitive::<Float64Type>();
        let scores: Float64Array = logits.unary(|logit| 1.0 / (1.0 + (-logit).exp()));
        let columns = rows.batch().columns().iter().cloned().chain([Arc::new(scores) as _]).collect();
        Ok(Output::one(rows.replace(RecordBatch::try_new(Arc::clone(schema), columns)?)?))
    }
}

#[derive(Deserialize)]
struct Scored {
    score: f64,
    country: String,
}

#[derive(Serialize)]
struct Decided {
    score: f64,
    decision: &'static str,
}

/// Rules that are easier to say in Rust than in SQL. An error would send this row alone to the error port.
fn decide(Scored { score, country }: Scored) -> Result<Decided, String> {
    let limit = if country == "US" { 0.8 } else { 0.6 };
    Ok(Decided { score, decision: if score > limit { "review" } else { "approve" } })
}

fn graph() -> Graph {
    let mut graph = Graph::new("score", fields! { amount: Float64, usual: Float64, country: Utf8 });
    let features =
        With::new().column("ratio", "amount / (usual + 1.0)").column("logit", "1.5 * ln(ratio + 0.01)");
    let features = graph.step("features", graph.input(), features);
    let scored = graph.step("scored", &features, Sigmoid::default());
    let decided = graph.map_rows("decided", &scored, fields! { score: Float64, decision: Utf8 }, decide);
    graph.respond(&decided);
    graph
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let once = std::env::args().any(|argument| argument == "--once");
    let engine = Engine::new(graph().compile()?, Limits::default())?;
    let score = GraphService::new(engine, DecodeLimits::default())?;
    let app = Router::new().route("/", get(|| async { "our own route" })).nest("/score", score.router());
    let listener = TcpListener::bind(if once { "127.0.0.1:0" } else { "127.0.0.1:8080" }).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}: POST /score");
    tokio::select! {
        served = async { axum::serve(listener, app).await } => served?,
        answer = ask(address), if once => println!("{}", answer?),
    }
    Ok(())
}

/// Sends one request, as a client would.
async fn ask(address: SocketAddr) -> Result<String, Box<dyn Error>> {
    let body = r#"{"amount": 120.0, "usual": 40.0, "country": "FR"}"#;
    let mut stream = TcpStream::connect(address).await?;
    let head =
        format!("POST /score HTTP/1.1\r\nhost: us\r\nconnection: close\r\ncontent-length: {}", body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
}
