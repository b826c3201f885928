//! The eigenvalues of a symmetric matrix, by Jacobi's rotations.

/// Far more sweeps than any matrix needs: convergence is quadratic, and a hundred columns take about eight.
const MAX_SWEEPS: usize = 60;

/// The eigenvalues of a symmetric matrix with `n * n` entries, in falling order, and their unit vectors, one in a row.
///
/// Each rotation makes one entry beside the diagonal zero, until all of them are. That is slower than a reduction to three
/// diagonals by a factor that does not matter for a fit, and needs a page less of code.
pub(super) fn symmetric(mut matrix: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    // Well below the rounding of the largest entry.
    let largest = matrix.iter().fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
    let zero = 1e-3 * f64::EPSILON * largest;
    for _ in 0..MAX_SWEEPS {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                if matrix[p * n + q].abs() > zero {
                    rotate(&mut matrix, &mut vectors, n, p, q);
                    rotated = true;
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| matrix[b * n + b].total_cmp(&matrix[a * n + a]));
    let values = order.iter().map(|&i| matrix[i * n + i]).collect();
    let sorted = order.iter().flat_map(|&i| vectors[i * n..(i + 1) * n].iter().copied()).collect();
    (values, sorted)
}

/// Makes the entry at `p, q` zero, where `p < q` and it is not zero yet.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) {
    let (on_p, on_q, beside) = (matrix[p * n + p], matrix[q * n + q], matrix[p * n + q]);
    // The smaller of the two angles that do it: `tan(2 angle) = 2 beside / (on_q - on_p)`.
    let cotangent = (on_q - on_p) / (2.0 * beside);
    let tangent = cotangent.signum() / (cotangent.abs() + cotangent.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let turn = |a: f64, b: f64| (cosine * a - sine * b, sine * a + cosine * b);

    for rows in [&mut *matrix, vectors] {
        let (upper, lower) = rows.split_at_mut(q * n);
        for (a, b) in upper[p * n..(p + 1) * n].iter_mut().zip(&mut lower[..n]) {
            (*a, *b) = turn(*a, *b);
        }
    }
    // What turning the columns would do to the other rows is known by symmetry, and costs no more than a copy.
    for i in 0..n {
        (matrix[i * n + p], matrix[i * n + q]) = (matrix[p * n + i], matrix[q * n + i]);
    }
    // Where the two rows and the two columns cross, both turns meet.
    (matrix[p * n + p], matrix[q * n + q]) = (on_p - tangent * beside, on_q + tangent * beside);
    (matrix[p * n + q], matrix[q * n + p]) = (0.0, 0.0);
}
