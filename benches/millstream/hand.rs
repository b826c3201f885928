//! The floor: the fraud graph in straight-line Rust, one row per model call, with nothing in between.

use std::path::Path;

use millstream::arrow::{
    array::AsArray,
    datatypes::{Float32Type, Int64Type},
};
use ort::{
    session::{Session, builder::GraphOptimizationLevel},
    value::TensorRef,
};
use serde::{Deserialize, Serialize};

const CATEGORIES: [&str; 8] =
    ["grocery", "fuel", "electronics", "travel", "restaurant", "fashion", "gaming", "jewelry"];

#[derive(Deserialize)]
struct Transaction<'a> {
    card_id: u32,
    amount: f64,
    category: &'a str,
    country: &'a str,
    ts: i64,
}

#[derive(Serialize)]
struct Scores {
    lgbm: f64,
    lr: f64,
    mlp: f64,
}

#[derive(Serialize)]
struct Answer {
    score: f64,
    decision: &'static str,
    models: Scores,
}

/// Twelve features per card, and three sessions unless the models are constant.
pub(crate) struct Hand {
    cards: Vec<[f32; 12]>,
    sessions: Option<[Session; 3]>,
}

impl Hand {
    pub(crate) fn new(project: &Path, with_models: bool) -> Self {
        let sessions = with_models.then(|| {
            let environment = millstream::models::environment().unwrap();
            ["lgbm", "lr", "mlp"].map(|name| {
                Session::builder(&environment)
                    .unwrap()
                    .with_intra_threads(1)
                    .unwrap()
                    .with_inter_threads(1)
                    .unwrap()
                    .with_optimization_level(GraphOptimizationLevel::All)
                    .unwrap()
                    .commit_from_file(project.join(format!("models/{name}.onnx")))
                    .unwrap()
            })
        });
        Self { cards: cards(project), sessions }
    }

    /// A request's bytes into a reply's bytes.
    pub(crate) fn score(&mut self, body: &[u8]) -> Vec<u8> {
        let transaction: Transaction<'_> = serde_json::from_slice(body).unwrap();
        let features = derive(&transaction, &self.cards[transaction.card_id as usize]);
        let mut scores = [0.125f64; 3];
        for (score, session) in scores.iter_mut().zip(self.sessions.iter_mut().flatten()) {
            let x = TensorRef::from_array_view(([1usize, 28], &features[..])).unwrap();
            let outputs = session.run(ort::inputs!["X" => x]).unwrap();
            *score = f64::from(outputs[0].try_extract_tensor::<f32>().unwrap().1[1]);
        }
        std::hint::black_box(&features);
        let [lgbm, lr, mlp] = scores;
        let score = 0.5 * lgbm + 0.2 * lr + 0.3 * mlp;
        let decision = match score {
            score if score >= 0.6 => "decline",
            score if score >= 0.3 => "review",
            _ => "approve",
        };
        serde_json::to_vec(&Answer { score, decision, models: Scores { lgbm, lr, mlp } }).unwrap()
    }
}

fn derive(t: &Transaction<'_>, stored: &[f32; 12]) -> [f32; 28] {
    let (a, s) = (t.amount, stored.map(f64::from));
    let mut x = [0f32; 28];
    x[0] = a as f32;
    x[1..13].copy_from_slice(stored);
    let derived = [
        a.ln_1p(),
        a / (s[3] + 1.0),
        (a - s[3]) / (s[4] + 1.0),
        s[6] / (s[7] + 1.0),
        a / (s[11] + 1.0),
        (t.ts / 3600 % 24) as f64 / 24.0,
        f64::from(u8::from(t.country != "US")),
    ];
    x[13..20].iter_mut().zip(derived).for_each(|(place, value)| *place = value as f32);
    x[20 + CATEGORIES.iter().position(|category| *category == t.category).unwrap()] = 1.0;
    x
}

/// The feature file as a plain table; the card is the row.
fn cards(project: &Path) -> Vec<[f32; 12]> {
    let file = std::fs::File::open(project.join("data/cards.parquet")).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let mut cards = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let ids = batch.column(0).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            assert_eq!(ids.value(row) as usize, cards.len());
            cards.push(std::array::from_fn(|at| {
                batch.column(at + 1).as_primitive::<Float32Type>().value(row)
            }));
        }
    }
    cards
}
