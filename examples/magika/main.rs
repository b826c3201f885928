//! What kind of file is this? The graph of `millstream.yaml`, behind a step of its own that cuts a file's ends out of its bytes.
//!
//! ```sh
//! python3 examples/magika/fetch.py
//! cargo run --example magika -- examples/magika README.md Cargo.toml
//! cargo run --example magika -- examples/magika --serve 127.0.0.1:8080
//! curl -d "{\"content\": \"$(base64 -w0 README.md)\"}" http://127.0.0.1:8080/magika
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

mod features;

use std::{env, error::Error, ffi::OsString, path::Path, process::ExitCode, sync::Arc};

use axum::Router;
use millstream::{
    arrow::array::{ArrayRef, BinaryArray},
    prelude::*,
    wire::{Form, json::Encoder},
};
use tokio::net::TcpListener;

use crate::features::{Cut, Features};

/// Files of one run, and rows of one body: what the model reads of so many has 8 MiB.
const ROWS: usize = 1024;

/// The graph of the project's file, as one that takes bytes.
fn graph(folder: &Path, cut: Cut) -> Result<Graph, Box<dyn Error>> {
    let project = Project::load(folder).map_err(|error| error.mistakes().join("\n"))?;
    let mut graph = Graph::new("magika", fields! { name: Utf8?, content: Binary });
    let features = graph.step("features", graph.input(), Features::new(cut));
    let answer = graph.embed("classify", &features, &project.graph("classify")?);
    graph.respond(&answer);
    Ok(graph)
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let done = match arguments.as_slice() {
        [folder, flag, address] if flag == "--serve" => serve(Path::new(folder), address).await,
        [folder, files @ ..] if !files.is_empty() => tell(Path::new(folder), files).await,
        _ => Err("magika PROJECT FILE...\n       magika PROJECT --serve ADDRESS".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn engine(folder: &Path) -> Result<(Engine, Cut), Box<dyn Error>> {
    let cut = Cut::of(&folder.join("model/config.json"))?;
    Ok((Engine::new(graph(folder, cut)?.compile()?, Limits::default())?, cut))
}

/// Prints a line of JSON for each file.
async fn tell(folder: &Path, files: &[OsString]) -> Result<(), Box<dyn Error>> {
    let (engine, cut) = engine(folder)?;
    let encoder = Encoder::new(Arc::clone(engine.plan().reply_schema()))?;
    for files in files.chunks(ROWS) {
        let (mut names, mut contents) = (Vec::new(), Vec::new());
        for path in files.iter().map(Path::new) {
            contents.push(cut.read(path).map_err(|error| format!("{}: {error}", path.display()))?);
            names.push(path.display().to_string());
        }
        let contents: ArrayRef = Arc::new(BinaryArray::from_iter_values(contents));
        let reply = engine.run(rows! { name: names, content: contents }).await?;
        for row in 0..reply.rows().num_rows() {
            let mut line = Vec::new();
            encoder.encode_rows(reply.rows(), row..row + 1, Form::Object, &mut line)?;
            println!("{}", String::from_utf8_lossy(&line));
        }
    }
    Ok(())
}

/// Answers `POST /magika`, in JSON with the bytes of files in base64.
async fn serve(folder: &Path, address: &OsString) -> Result<(), Box<dyn Error>> {
    let address = address.to_str().ok_or("the address is no text")?;
    let (engine, _) = engine(folder)?;
    let service = GraphService::new(engine, DecodeLimits { rows: ROWS, ..DecodeLimits::default() })?;
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}: POST /magika", listener.local_addr()?);
    axum::serve(listener, Router::new().nest("/magika", service.router())).await?;
    Ok(())
}
