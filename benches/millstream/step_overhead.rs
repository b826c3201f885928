//! A chain of steps that do nothing, beside bare calls of the same steps.

use std::{hint::black_box, time::Instant};

use criterion::Criterion;
use millstream::{Graph, Input, Request, Rows, RunCx, RunId, Step, Token, Work, fields, rows};
use smallvec::smallvec;

use crate::{NoOp, inline_engine, now};

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("step_overhead");
    for length in [1, 8, 64] {
        let mut graph = Graph::new("chain", fields! { id: Int64 });
        let mut port = graph.input();
        for at in 0..length {
            port = graph.step(&format!("s{at}"), &port, NoOp);
        }
        graph.respond(&port);
        let engine = inline_engine(&graph);
        let batch = now(engine.run(rows! { id: [1i64] })).unwrap().into_rows();
        group.bench_function(format!("engine/{length}"), |b| {
            b.iter(|| black_box(now(engine.run(batch.clone())).unwrap()));
        });
        let steps: Vec<Box<dyn Step>> = (0..length).map(|_| Box::new(NoOp) as Box<dyn Step>).collect();
        let cx = RunCx::new(RunId(0), Request::default(), 1, Instant::now);
        group.bench_function(format!("bare_calls/{length}"), |b| {
            b.iter(|| {
                let mut rows = Rows::whole(batch.clone());
                for step in &steps {
                    let Work::Done(Ok(output)) = step.call(Input::new(smallvec![Token::Rows(rows)]), &cx)
                    else {
                        unreachable!()
                    };
                    rows = output.into_parts().0.pop().unwrap().1;
                }
                black_box(rows)
            });
        });
    }
    group.finish();
}
