//! What one row costs. Ignored: run it in a release build, with `--ignored --nocapture`, on a quiet machine.

use std::{hint::black_box, time::Instant};

use millstream_graph::{Input, Request, Rows, RunCx, RunId, Step, Token, Work};
use smallvec::smallvec;

use crate::{Filter, OneHot, Pack, When, With, testing::batch};

/// Nanoseconds per call, the best of a few rounds.
fn cost(step: &dyn Step, batch: &arrow::array::RecordBatch) -> f64 {
    step.signature(&[batch.schema()]).unwrap();
    let cx = RunCx::new(RunId(0), Request::default(), batch.num_rows(), Instant::now);
    let rows = Rows::whole(batch.clone());
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        const CALLS: u32 = 2000;
        let start = Instant::now();
        for _ in 0..CALLS {
            let input = Input::new(smallvec![Token::Rows(rows.clone())]);
            match step.call(input, &cx) {
                Work::Done(result) => drop(black_box(result.unwrap())),
                _ => panic!("one row is answered at once"),
            }
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    best
}

#[test]
#[ignore = "measures time"]
fn one_row() {
    let batch = batch! {
        amount: [197.64], ts: [1_760_770_293i64], country: ["US"], category: ["fuel"],
        avg30: [51.2f32], std30: [12.5f32], n1: [2.0f32], n24: [4.0f32], limit: [1000.0f32], max30: [99.0f32],
    };
    let seven = With::new()
        .column("log_amount", "log1p(amount)")
        .column("ratio", "amount / (avg30 + 1)")
        .column("z", "(amount - avg30) / (std30 + 1)")
        .column("burst", "n1 / (n24 + 1)")
        .column("used", "amount / (limit + 1)")
        .column("hour", "(ts / 3600 % 24) / 24.0")
        .column("foreign_card", "CASE WHEN country = 'US' THEN 0.0 ELSE 1.0 END");
    let hot = OneHot::new().column(
        "category",
        ["grocery", "fuel", "electronics", "travel", "restaurant", "fashion", "gaming", "jewelry"],
    );
    let names = ["amount", "avg30", "std30", "n1", "n24", "limit", "max30"];
    let table: Vec<(&str, Box<dyn Step>)> = vec![
        ("with, seven expressions", Box::new(seven)),
        ("with, one column", Box::new(With::new().column("x", "amount"))),
        ("with, a + b", Box::new(With::new().column("x", "n1 + n24"))),
        ("with, log1p", Box::new(With::new().column("x", "log1p(amount)"))),
        ("with, case", Box::new(With::new().column("x", "CASE WHEN country = 'US' THEN 0.0 ELSE 1.0 END"))),
        ("with, hour", Box::new(With::new().column("x", "(ts / 3600 % 24) / 24.0"))),
        ("filter", Box::new(Filter::new("amount > 0"))),
        ("when, two ports", Box::new(When::new().port("a", "amount > 1000").port("b", "country <> 'US'"))),
        ("one_hot, eight categories", Box::new(hot)),
        ("pack, seven columns", Box::new(Pack::new("x", names))),
    ];
    for (name, step) in table {
        eprintln!("{name:30} {:7.0} ns", cost(step.as_ref(), &batch));
    }
}
