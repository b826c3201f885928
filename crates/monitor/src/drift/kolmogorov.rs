//! The distribution of the one-sample Kolmogorov statistic, on which the asymptotic p-value of two samples rests.

use std::f64::consts::{LN_2, PI, TAU};

use super::special::stirling_error;

/// From here on the one-sided tail is its expansion (Maag and Dicaire, 1971): the sum would have as many terms as values.
const LARGE_SAMPLE: f64 = 1e6;
/// Terms that stand for the whole sum where it has more than four times as many.
const TERMS: f64 = 4096.0;
/// Up to here a small statistic's probability is computed by Durbin's matrix.
const MATRIX_SAMPLE: f64 = 1e5;

/// P(D ≥ x) for a sample of `n` values, n whole. The parts and the borders between them are those that Simard and
/// L'Ecuyer (2011) found to be right to ten digits or more, which is also how `scipy.stats.kstwo` chooses.
pub(super) fn kolmogorov_sf(n: f64, x: f64) -> f64 {
    if x >= 1.0 {
        return 0.0;
    }
    if x.is_nan() || n < 1.0 || n * x <= 0.5 {
        return 1.0;
    }
    let square = n * x * x;
    let tail = || (2.0 * one_sided_sf(n, x)).clamp(0.0, 1.0);
    let p = if x >= 0.5 || n * x >= n - 1.0 {
        tail()
    } else if n <= 140.0 {
        if square > 4.0 { tail() } else { 1.0 - durbin(n, x) }
    } else if square >= 370.0 {
        0.0
    } else if square >= 2.2 {
        tail()
    } else if n <= MATRIX_SAMPLE && n * x * x.sqrt() <= 1.4 {
        1.0 - durbin(n, x)
    } else {
        1.0 - pelz_good(n, x)
    };
    p.clamp(0.0, 1.0)
}

/// P(D⁺ ≥ x), Smirnov's sum over j of C(n,j) x (x + j/n)^(j-1) (1 - x - j/n)^(n-j).
///
/// A term is a binomial probability at p = x + j/n, times x/p. Written by Stirling's formula its logarithm is
/// j ln(1 + t/j) + (n-j) ln(1 - t/(n-j)) with t = nx, where nothing large cancels: tiny tails keep their digits.
fn one_sided_sf(n: f64, x: f64) -> f64 {
    if n > LARGE_SAMPLE {
        let scaled = 6.0 * n * x + 1.0;
        return (-scaled * scaled / (18.0 * n)).exp();
    }
    let t = n * x;
    let of_n = stirling_error(n);
    // The terms lie on a smooth curve that is flat at both ends. Every tenth of many sums to a tenth, to the last digits.
    let stride = if n > 4.0 * TERMS { n / TERMS } else { 1.0 };
    let mut sum = 0.0;
    for j in (1..).map(|i| f64::from(i) * stride).take_while(|j| *j < n && *j <= n - t) {
        let rest = n - j;
        let exponent = j * (t / j).ln_1p() + rest * (-t / rest).max(-1.0).ln_1p();
        let stirling = of_n - stirling_error(j) - stirling_error(rest);
        sum += (n / (TAU * j * rest)).sqrt() * (exponent + stirling).exp() * t / (t + j);
    }
    (n * (-x).ln_1p()).exp() + stride * sum
}

/// P(D < x) by Durbin's matrix (Durbin 1973, as Marsaglia, Tsang and Wang use it): n!/nⁿ times the middle element of the
/// n-th power of a matrix of 2⌈nx⌉ - 1 rows.
fn durbin(n: f64, x: f64) -> f64 {
    let k = (n * x).ceil();
    let h = k - n * x;
    let k = k as usize;
    let size = 2 * k - 1;
    let mut matrix = durbin_matrix(size, h);
    // Only one row of the power is wanted: a row is carried along, the matrix is squared. Both are scaled by powers of
    // two, which loses nothing.
    let mut row = vec![0.0; size];
    row[k - 1] = 1.0;
    let (mut row_scale, mut matrix_scale) = (0_i64, 0_i64);
    let mut power = n as u64;
    while power > 0 {
        if power & 1 == 1 {
            row = times(&row, &matrix, size);
            row_scale += matrix_scale + rescale(&mut row);
        }
        power >>= 1;
        if power > 0 {
            matrix = times(&matrix, &matrix, size);
            matrix_scale = 2 * matrix_scale + rescale(&mut matrix);
        }
    }
    let factorial = (TAU * n).ln() / 2.0 - n + stirling_error(n);
    let middle = row[k - 1];
    if middle > 0.0 { (middle.ln() + row_scale as f64 * LN_2 + factorial).exp().min(1.0) } else { 0.0 }
}

fn durbin_matrix(size: usize, h: f64) -> Vec<f64> {
    let mut inverse = vec![1.0; size + 1];
    for i in 1..=size {
        inverse[i] = inverse[i - 1] / i as f64;
    }
    let mut matrix = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..size.min(i + 2) {
            matrix[i * size + j] = inverse[i + 1 - j];
        }
    }
    for i in 0..size {
        // First column and last row mirror each other.
        let border = (1.0 - h.powi(i as i32 + 1)) * inverse[i + 1];
        matrix[i * size] = border;
        matrix[size * size - 1 - i] = border;
    }
    let corner = 1.0 - 2.0 * h.powi(size as i32) + (2.0 * h - 1.0).max(0.0).powi(size as i32);
    matrix[(size - 1) * size] = corner * inverse[size];
    matrix
}

/// The product of `left`, any number of rows, and a square matrix.
fn times(left: &[f64], matrix: &[f64], size: usize) -> Vec<f64> {
    let mut product = vec![0.0; left.len()];
    for (row, out) in left.chunks_exact(size).zip(product.chunks_exact_mut(size)) {
        for (factor, line) in row.iter().zip(matrix.chunks_exact(size)) {
            for (sum, cell) in out.iter_mut().zip(line) {
                *sum += factor * cell;
            }
        }
    }
    product
}

/// Divides all by the power of two of the largest, and returns its exponent.
fn rescale(values: &mut [f64]) -> i64 {
    let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if largest <= 0.0 || !largest.is_finite() {
        return 0;
    }
    let exponent = largest.log2().floor() as i32;
    let factor = 2.0_f64.powi(-exponent);
    values.iter_mut().for_each(|value| *value *= factor);
    i64::from(exponent)
}

/// P(D < x) by the expansion of Pelz and Good (1976), K₀ + K₁/√n + K₂/n + K₃/n√n at z = x√n.
fn pelz_good(n: f64, x: f64) -> f64 {
    let z2 = n * x * x;
    let z = z2.sqrt();
    let (z4, z6) = (z2 * z2, z2 * z2 * z2);
    // Below, the largest term is less than the smallest number.
    if PI * PI / (8.0 * z2) > 708.0 {
        return 0.0;
    }
    let terms = (16.0 * z / PI).ceil() as u32;
    let (mut k0, mut k1, mut k2, mut k3) = (0.0, 0.0, 0.0, 0.0);
    for k in (0..terms).rev() {
        let a = (PI * (f64::from(k) + 0.5)).powi(2);
        let weight = (-a / (2.0 * z2)).exp();
        k0 += weight;
        k1 += weight * (a - z2);
        k2 += weight * (6.0 * z6 + 2.0 * z4 + a * (2.0 * z4 - 5.0 * z2) + a * a * (1.0 - 2.0 * z2));
        k3 += weight
            * (a * a * a * (5.0 - 30.0 * z2)
                + a * a * (212.0 * z4 - 60.0 * z2)
                + a * (135.0 * z4 - 96.0 * z6)
                - (30.0 * z6 + 90.0 * z4 * z4));
    }
    let (mut even2, mut even3) = (0.0, 0.0);
    for k in (1..=terms).rev() {
        let a = (PI * f64::from(k)).powi(2);
        let weight = (-a / (2.0 * z2)).exp();
        even2 += weight * a;
        even3 += weight * (3.0 * a * z2 - a * a);
    }
    // The sums above run over half of all whole numbers, the other half is the same.
    let root = TAU.sqrt();
    let k0 = root * k0 / z;
    let k1 = root * k1 / (6.0 * z4);
    let k2 = root * (k2 / (72.0 * z6 * z) - even2 / (36.0 * z2 * z));
    let k3 = root * (k3 / (6480.0 * z6 * z4) + even3 / (216.0 * z6));
    (k0 + k1 / n.sqrt() + k2 / n + k3 / (n * n.sqrt())).clamp(0.0, 1.0)
}
