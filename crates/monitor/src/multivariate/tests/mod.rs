//! The method against scikit-learn and NannyML, and what it makes of odd rows.

mod oracle;
mod refused;
mod rows;

use serde::Deserialize;

use super::{Keep, Reconstruction, ReconstructionSettings, ReconstructionWindow};

#[derive(Clone, Copy, Deserialize)]
struct Matrix {
    seed: u64,
    rows: usize,
    columns: usize,
    factors: usize,
    missing: f64,
}

fn lcg(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Columns that share hidden factors, each with a scale and an offset of its own.
fn entries(matrix: Matrix) -> Vec<f64> {
    let Matrix { seed, rows, columns, factors, missing } = matrix;
    let mut u = lcg(seed);
    let weights: Vec<f64> = (0..columns * factors).map(|_| u() - 0.5).collect();
    let mut out = Vec::new();
    for _ in 0..rows {
        let hidden: Vec<f64> = (0..factors).map(|_| u() - 0.5).collect();
        for j in 0..columns {
            let noise = 0.2 * (u() - 0.5);
            let weights = &weights[j * factors..];
            let value = hidden.iter().zip(weights).fold(noise, |value, (h, w)| value + w * h);
            let value = value * (1.0 + (j * j) as f64) + 10.0 * j as f64;
            out.push(if u() < missing { f64::NAN } else { value });
        }
    }
    out
}

fn names(columns: usize) -> Vec<String> {
    (0..columns).map(|i| format!("c{i}")).collect()
}

fn keeping(keep: f64) -> ReconstructionSettings {
    let keep = if keep < 1.0 { Keep::Variance(keep) } else { Keep::Components(keep as usize) };
    ReconstructionSettings { keep, ..Default::default() }
}

/// Six columns of two factors, fitted as by default.
fn six() -> (Vec<f64>, Reconstruction) {
    let rows = entries(Matrix { seed: 1, rows: 400, columns: 6, factors: 2, missing: 0.0 });
    let fitted = Reconstruction::fit(&names(6), &rows, &keeping(0.65)).unwrap();
    (rows, fitted)
}

fn window(fitted: &Reconstruction, rows: &[f64]) -> (ReconstructionWindow, Vec<f64>) {
    let mut window = ReconstructionWindow::new();
    let rows = rows.chunks_exact(fitted.columns().len());
    let errors = rows.map(|row| window.add(fitted, row).unwrap()).collect();
    (window, errors)
}

#[track_caller]
fn near(what: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!(
            (ours - theirs).abs() <= tolerance * theirs.abs().max(1.0),
            "{what}: {ours}, oracle {theirs}"
        );
    }
}
