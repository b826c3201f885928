//! Tails and quantiles of the chi-square and the normal distribution.

use statrs::function::{
    erf::{erfc, erfc_inv},
    gamma::checked_gamma_ur,
};

/// From here on the chi-square distribution is taken from the normal one (Wilson and Hilferty): the continued fraction of
/// the gamma function gets slow and loses digits, the approximation's quantiles have seven or more.
const LARGE_FREEDOM: f64 = 1e6;

/// P(X > x) of a chi-square distribution of `freedom` degrees, which need not be whole.
pub(super) fn chi_square_sf(x: f64, freedom: f64) -> f64 {
    if x.is_nan() || freedom.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if x == f64::INFINITY || freedom <= 0.0 {
        return 0.0;
    }
    if freedom > LARGE_FREEDOM {
        let spread = 2.0 / (9.0 * freedom);
        return normal_sf(((x / freedom).cbrt() - (1.0 - spread)) / spread.sqrt());
    }
    checked_gamma_ur(freedom / 2.0, x / 2.0).unwrap_or(f64::NAN).clamp(0.0, 1.0)
}

/// The x with P(X > x) = `alpha`.
pub(super) fn chi_square_quantile(alpha: f64, freedom: f64) -> f64 {
    if alpha.is_nan() || freedom.is_nan() {
        return f64::NAN;
    }
    if alpha >= 1.0 || freedom <= 0.0 {
        return 0.0;
    }
    if alpha <= 0.0 {
        return f64::INFINITY;
    }
    let mut high = freedom + 1.0;
    while chi_square_sf(high, freedom) > alpha && high < f64::MAX / 4.0 {
        high *= 2.0;
    }
    let mut low = 0.0;
    // Halving ends when no number lies between the two.
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return middle;
        }
        if chi_square_sf(middle, freedom) > alpha {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// P(Z > z) of the standard normal distribution.
pub(super) fn normal_sf(z: f64) -> f64 {
    erfc(z / std::f64::consts::SQRT_2) / 2.0
}

/// The z with P(Z > z) = `alpha`.
pub(super) fn normal_quantile(alpha: f64) -> f64 {
    std::f64::consts::SQRT_2 * erfc_inv(2.0 * alpha.clamp(0.0, 1.0))
}

/// What Stirling's formula lacks: ln n! - (n ln n - n + ln(2πn)/2), for whole n above zero.
pub(super) fn stirling_error(n: f64) -> f64 {
    if n < 16.0 {
        let factorial: f64 = (1..=n as u32).map(f64::from).product();
        return factorial.ln() - (n * n.ln() - n + (std::f64::consts::TAU * n).ln() / 2.0);
    }
    let square = n * n;
    // The terms 1/12n - 1/360n³ + 1/1260n⁵ - 1/1680n⁷ + 1/1188n⁹: the next is below 1e-16 from 16 on.
    let inner = 1.0 / 1680.0 - 1.0 / (1188.0 * square);
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - inner / square) / square) / square) / n
}
