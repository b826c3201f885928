//! The fraud graph for one request, bytes to bytes, whole and stage by stage, beside the same in straight-line Rust.

use std::{collections::HashMap, hint::black_box, path::Path, sync::Arc, time::Instant};

use criterion::Criterion;
use millstream::{
    DecodeLimits, EdgeId, Engine, Input, Limits, Output, Plan, Project, Request, Rows, RunCx, RunId, StepId,
    Token, Work,
    wire::{
        Form,
        json::{Decoder, Encoder},
    },
};

use crate::{hand::Hand, now};

pub(crate) fn bench(c: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fraud");
    let text = std::fs::read_to_string(folder.join("data/requests.jsonl")).unwrap();
    let bodies: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
    let constant = with_constant_models(&folder);
    let mut group = c.benchmark_group("one_row");
    for (name, project, with_models) in
        [("models", folder.as_path(), true), ("constant", constant.path(), false)]
    {
        let project = Project::load(project).unwrap();
        let engine = project.engine("fraud", Limits { compute_threads: 0, ..Limits::default() }).unwrap();
        let served = Served::new(&engine);
        let mut requests = bodies.iter().cycle();
        group.bench_function(format!("{name}/engine"), |b| {
            b.iter(|| black_box(served.score(requests.next().unwrap())));
        });
        let mut hand = Hand::new(&folder, with_models);
        group.bench_function(format!("{name}/by_hand"), |b| {
            b.iter(|| black_box(hand.score(requests.next().unwrap())));
        });
        if with_models {
            stages(&mut group, &served, bodies[0]);
        }
    }
    group.finish();
}

pub(crate) struct Served<'e> {
    engine: &'e Engine,
    decoder: Decoder,
    encoder: Encoder,
}

impl<'e> Served<'e> {
    pub(crate) fn new(engine: &'e Engine) -> Self {
        let plan = engine.plan();
        let decoder = Decoder::new(Arc::clone(plan.input_schema()), DecodeLimits::default()).unwrap();
        Self { engine, decoder, encoder: Encoder::new(Arc::clone(plan.reply_schema())).unwrap() }
    }

    pub(crate) fn score(&self, body: &[u8]) -> Vec<u8> {
        let decoded = self.decoder.decode(body).unwrap();
        let reply = now(self.engine.run(decoded.batch)).unwrap();
        let mut answer = Vec::with_capacity(256);
        self.encoder.encode(reply.rows(), Form::Object, &mut answer).unwrap();
        answer
    }
}

/// Each part of a run alone: what stands between the parts is the engine's own.
fn stages(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    served: &Served<'_>,
    body: &[u8],
) {
    group.bench_function("stage/0 decode", |b| b.iter(|| black_box(served.decoder.decode(body).unwrap())));
    let batch = served.decoder.decode(body).unwrap().batch;
    group.bench_function("stage/1 run", |b| {
        b.iter(|| black_box(now(served.engine.run(batch.clone())).unwrap()))
    });
    let plan = served.engine.plan();
    let cx = RunCx::new(RunId(0), Request::default(), 1, Instant::now);
    let mut edges: HashMap<EdgeId, Token> = HashMap::new();
    plan.input_edges()
        .iter()
        .for_each(|edge| drop(edges.insert(*edge, Token::Rows(Rows::whole(plan.carry(batch.clone()))))));
    for id in (0..plan.steps().len() as u32).map(StepId) {
        let step = &plan.steps()[id.index()];
        let given: Vec<Token> = step.in_edges().iter().map(|edge| edges[edge].clone()).collect();
        group.bench_function(format!("stage/1.{} {}", id.0, step.name()), |b| {
            b.iter(|| black_box(call(plan, id, given.clone(), &cx)));
        });
        for (port, rows) in call(plan, id, given, &cx).into_parts().0 {
            for edge in step.outputs()[port].edges() {
                edges.insert(*edge, Token::Rows(rows.clone()));
            }
        }
    }
    let reply = now(served.engine.run(batch)).unwrap();
    let mut answer = Vec::with_capacity(256);
    group.bench_function("stage/2 encode", |b| {
        b.iter(|| {
            answer.clear();
            served.encoder.encode(reply.rows(), Form::Object, &mut answer).unwrap();
            black_box(&answer);
        });
    });
}

fn call(plan: &Plan, id: StepId, given: Vec<Token>, cx: &RunCx) -> Output {
    match plan.steps()[id.index()].step().call(Input::new(given.into()), cx) {
        Work::Done(result) => result.unwrap(),
        Work::Compute(job) => job().unwrap(),
        Work::Io(_) => unreachable!("no step of the graph waits"),
    }
}

/// The same project with constants where the models are: what is left is everything else.
fn with_constant_models(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("data")).unwrap();
    std::fs::copy(folder.join("data/cards.parquet"), copy.path().join("data/cards.parquet")).unwrap();
    let text = std::fs::read_to_string(folder.join("millstream.yaml")).unwrap();
    let lines =
        text.lines().filter(|line| !line.contains("{ path: models/") && *line != "models:").map(|line| {
            let model = ["lgbm", "lr", "mlp"]
                .into_iter()
                .find(|name| line.contains(&format!("model: {{ use: {name},")));
            match model {
                Some(name) => format!("        select: [\"CAST(0.125 AS FLOAT) AS {name}\"]"),
                None => line.to_owned(),
            }
        });
    std::fs::write(copy.path().join("millstream.yaml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    copy
}
