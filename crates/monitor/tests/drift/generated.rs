//! Any sample and any counts.

use millstream_monitor::drift::{
    Bins, Frozen, Gate, KsMethod, Shares, Zeros, align, chi_square_contingency, chi_square_fit, ks_binned,
    ks_two_sample,
    profile::{evidently, mlrun, nannyml},
    wasserstein, wasserstein_scaled,
};
use proptest::{collection::vec, prelude::*};

use super::{MEASURES, q10};

proptest! {
    #[test]
    fn no_sample_panics(r in vec(number(), 0..40), c in vec(number(), 0..40), k in 0_usize..30) {
        for method in [KsMethod::Exact, KsMethod::Asymptotic] {
            if let Ok(test) = ks_two_sample(&r, &c, method) {
                prop_assert!((0.0..=1.0).contains(&test.statistic) && (0.0..=1.0).contains(&test.p_value));
                let other = ks_two_sample(&c, &r, method).unwrap();
                prop_assert_eq!(test.statistic, other.statistic);
                prop_assert!((test.p_value - other.p_value).abs() <= 1e-12);
            }
        }
        if let Ok(distance) = wasserstein(&r, &c) {
            prop_assert!(distance >= 0.0);
            prop_assert_eq!(wasserstein(&r, &r).unwrap(), 0.0);
        }
        _ = wasserstein_scaled(&r, &c);
        for bins in [Bins::quantiles(&r, k), Bins::equal_width(&r, k), Bins::sturges(&r), Bins::doane(&r)].into_iter().flatten() {
            let counts = bins.count(&c);
            let all: u64 = counts.bins.iter().sum::<u64>() + counts.below + counts.above + counts.missing;
            prop_assert_eq!(all, c.len() as u64);
            prop_assert_eq!(bins.count(&r).bins.iter().sum::<u64>(), r.len() as u64);
            let frozen = Frozen::new(bins, &r).unwrap();
            if let Ok(shares) = frozen.shares_with_leftover(&counts) {
                prop_assert!((shares.live().iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
        _ = mlrun::FeatureDrift::of_samples(&r, &c);
        _ = evidently::numeric(&r, &c);
        _ = evidently::shares(&r, &c);
        _ = evidently::hellinger(&r, &c);
        if let Ok(fitted) = nannyml::Continuous::fit(&r) {
            _ = (fitted.jensen_shannon(&c), fitted.hellinger(&c), fitted.kolmogorov_smirnov(&c), fitted.wasserstein(&c));
        }
        _ = nannyml::upper_threshold(&r);
    }

    #[test]
    fn no_counts_panic(cells in vec((count(), count()), 0..12), alpha in -0.5..1.5_f64) {
        let (r, c): (Vec<u64>, Vec<u64>) = cells.into_iter().unzip();
        if let Ok(shares) = Shares::new(&r, &c) {
            for zeros in [Zeros::default(), Zeros::Evidently, Zeros::MlRun, Zeros::Epsilon(1e-6)] {
                for measure in MEASURES {
                    let value = measure.of(&shares, zeros);
                    prop_assert!(value.is_finite() && value >= -2e-3, "{:?} {}", measure, value);
                    for gate in [Gate::ChiSquare { alpha }, Gate::Normal { alpha }] {
                        prop_assert!(!gate.limit(measure, &shares).is_nan());
                    }
                }
                let back = Shares::new(&c, &r).unwrap();
                prop_assert!((shares.psi(zeros) - back.psi(zeros)).abs() <= 1e-9);
            }
            for value in [shares.tvd(), shares.hellinger(), shares.l_infinity(), shares.js_distance_base2()] {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&value));
            }
            prop_assert!(shares.l_infinity() <= 2.0 * shares.tvd() + 1e-12);
            // Pinsker's chain: H² ≤ TVD ≤ √2 H.
            let (tvd, hellinger) = (shares.tvd(), shares.hellinger());
            prop_assert!(hellinger.powi(2) <= tvd + 1e-12 && tvd <= 2.0_f64.sqrt() * hellinger + 1e-12);
        }
        for test in [chi_square_contingency(&r, &c), chi_square_fit(&r, &c)].into_iter().flatten() {
            prop_assert!(test.statistic >= 0.0 && (0.0..=1.0).contains(&test.p_value));
        }
        if let Ok(test) = ks_binned(&r, &c) {
            prop_assert!((0.0..=1.0 + 1e-12).contains(&test.statistic) && (0.0..=1.0).contains(&test.p_value));
        }
        _ = evidently::categorical(&r, &c);
        let aligned = align(r.iter().map(|count| (count % 3, *count)), c.iter().map(|count| (count % 5, *count)));
        prop_assert!(aligned.keys.len() == aligned.live.len() && aligned.keys.is_sorted());
    }

    #[test]
    fn one_sample_has_no_drift(r in vec(prop_oneof![-3.0..3.0_f64, (-3_i8..3).prop_map(f64::from)], 1..60)) {
        let frozen = q10(&r);
        let shares = frozen.shares(&frozen.bins().count(&r)).unwrap();
        for measure in MEASURES {
            prop_assert_eq!(measure.of(&shares, Zeros::default()), 0.0);
        }
        let test = ks_two_sample(&r, &r, KsMethod::Exact).unwrap();
        prop_assert_eq!((test.statistic, test.p_value), (0.0, 1.0));
        prop_assert_eq!(chi_square_contingency(frozen.reference(), frozen.reference()).unwrap().p_value, 1.0);
    }
}

/// Any number, and often one of few.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -3.0..3.0_f64,
        4 => (-3_i8..3).prop_map(f64::from),
        1 => any::<f64>(),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-f64::MAX), Just(f64::MAX), Just(5e-324)],
    ]
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0_u64..20, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}
