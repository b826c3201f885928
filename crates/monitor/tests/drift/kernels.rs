//! Distances, bins and levels by hand, and what has none.

use millstream_monitor::drift::{
    Bins, DriftError, Ends, Frozen, KsMethod, MAX_BINS, Shares, Side, Zeros, benjamini_hochberg, bonferroni,
    ks_binned, ks_two_sample, wasserstein, wasserstein_of_bins, wasserstein_of_centres,
};

use super::near;

/// Two and three bins by hand, as in Hopsworks' tests.
#[test]
fn distances_are_those_of_a_pencil() {
    let two = Shares::new(&[4, 6], &[8, 2]).unwrap();
    near(two.psi(Zeros::Floor(1e-4)), 0.4 * 2.0_f64.ln() + 0.4 * 3.0_f64.ln(), 1e-12, "psi");
    near(two.kl(Zeros::default()), 0.4 * 0.5_f64.ln() + 0.6 * 3.0_f64.ln(), 1e-12, "kl");
    near(ks_binned(&[4, 6], &[8, 2]).unwrap().statistic, 0.4, 1e-12, "D");
    near(ks_binned(&[2, 5, 3], &[5, 3, 2]).unwrap().statistic, 0.3, 1e-12, "D");
    let bins = Bins::from_edges(vec![-0.5, 0.5, 1.5, 2.5, 3.5, 4.5], Ends::Closed).unwrap();
    for distance in [wasserstein_of_centres, wasserstein_of_bins] {
        near(distance(&bins, &[0, 0, 0, 0, 1], &[1, 0, 0, 0, 0]).unwrap(), 4.0, 1e-12, "W1");
    }
    // Each rule of an empty bin, for p = (1, 0) and q = (1/2, 1/2).
    let empty = Shares::new(&[2, 0], &[1, 1]).unwrap();
    let ln2 = 2.0_f64.ln();
    for (zeros, psi) in [
        (Zeros::Floor(1e-4), 0.5 * ln2 + (1e-4 - 0.5) * (2e-4_f64).ln()),
        (Zeros::Evidently, 0.5 * ln2 + (1e-4 - 0.5) * (2e-4_f64).ln()),
        (Zeros::MlRun, ln2 + 0.5 * 0.5_f64.ln() + 0.5 * 5e3_f64.ln()),
        (Zeros::Epsilon(1.0), 0.25 * 1.5_f64.ln() + 0.25 * ln2),
        (Zeros::Floor(0.0), f64::INFINITY),
    ] {
        let got = empty.psi(zeros);
        assert!(got == psi || (got - psi).abs() < 1e-12, "{zeros:?}: {got} is not {psi}");
    }
    near(empty.symmetric_kl(), empty.psi(Zeros::MlRun), 0.0, "kld");
}

#[test]
fn bins_hold_what_their_ends_say() {
    let closed = Bins::from_edges(vec![0.0, 1.0, 2.0], Ends::Closed).unwrap();
    let open = Bins::from_edges(vec![0.0, 1.0, 2.0], Ends::Open).unwrap();
    for (value, of_closed, of_open) in [
        (-0.1, None, Some(0)),
        (-0.0, Some(0), Some(1)),
        (1.0, Some(1), Some(2)),
        (2.0, Some(1), Some(3)),
        (2.1, None, Some(3)),
        (f64::INFINITY, None, Some(3)),
        (f64::NEG_INFINITY, None, Some(0)),
        (f64::NAN, None, None),
    ] {
        assert_eq!((closed.bin(value), open.bin(value)), (of_closed, of_open), "{value}");
    }
    let counts = closed.count(&[-1.0, 0.5, 2.0, 7.0, f64::INFINITY, f64::NAN]);
    assert_eq!((counts.bins, counts.below, counts.above, counts.missing), (vec![1, 1], 1, 2, 1));
    // A constant sample.
    assert_eq!(Bins::equal_width(&[5.0; 3], 2).unwrap().edges(), [4.5, 5.0, 5.5]);
    assert_eq!(Bins::doane(&[5.0; 3]).unwrap().edges(), [4.5, 5.5]);
    assert_eq!(Bins::sturges(&[5.0; 3]).unwrap().edges(), [4.5, 5.5]);
    assert_eq!(Bins::quantiles(&[5.0; 3], 10).unwrap().edges(), [5.0]);
    let mlrun = Frozen::mlrun(&[0.0, 20.0]).unwrap();
    assert_eq!(
        (mlrun.bins().bins(), mlrun.reference().first(), mlrun.reference().last()),
        (22, Some(&0), Some(&0))
    );
    // What lies beyond the bins is one bin more.
    let frozen = Frozen::new(closed.clone(), &[0.5, 1.5]).unwrap();
    assert_eq!(frozen.shares_with_leftover(&closed.count(&[9.0, 0.5])).unwrap().live(), [0.5, 0.0, 0.5]);
    assert_eq!(frozen.shares_with_leftover(&closed.count(&[0.5])).unwrap().live(), [1.0, 0.0]);
}

#[test]
fn what_has_no_distance_is_refused_by_name() {
    let (live, reference) = (Side::Live, Side::Reference);
    for (got, wanted) in [
        (ks_two_sample(&[1.0], &[], KsMethod::Exact).err(), DriftError::Empty { side: live }),
        (wasserstein(&[1.0], &[0.0, f64::NAN]).err(), DriftError::NotANumber { side: live, index: 1 }),
        (wasserstein(&[f64::INFINITY], &[0.0]).err(), DriftError::Infinite { side: reference, index: 0 }),
        (Shares::new(&[0, 0], &[1, 2]).err(), DriftError::Empty { side: reference }),
        (Shares::new(&[1], &[1, 2]).err(), DriftError::BinsDiffer { reference: 1, live: 2 }),
        (
            Shares::of_fractions(&[1.0], &[-0.5]).err(),
            DriftError::BadShare { side: live, index: 0, value: -0.5 },
        ),
        (ks_binned(&[1, 1], &[0, 0]).err(), DriftError::Empty { side: live }),
        (Bins::equal_width(&[1.0, 2.0], 0).err(), DriftError::TooManyBins { bins: 0 }),
        (Bins::equal_width(&[1.0, 2.0], MAX_BINS + 1).err(), DriftError::TooManyBins { bins: MAX_BINS + 1 }),
        (Bins::equal_width(&[1.0, 1.0 + f64::EPSILON], 9).err(), DriftError::TooManyBins { bins: 9 }),
        (Bins::equal_width(&[-f64::MAX, f64::MAX], 2).err(), DriftError::TooManyBins { bins: 2 }),
        (Bins::from_edges(vec![0.0, 1.0, 1.0], Ends::Closed).err(), DriftError::EdgesNotRising { index: 2 }),
        (Bins::from_edges(vec![f64::NAN], Ends::Open).err(), DriftError::EdgesNotRising { index: 0 }),
        (benjamini_hochberg(&[0.5, 1.5]).err(), DriftError::BadProbability { index: 1, value: 1.5 }),
    ] {
        assert_eq!(got, Some(wanted));
    }
    assert_eq!(
        DriftError::Empty { side: live }.to_string(),
        "the live sample has no values; wait until there are some"
    );
}

#[test]
fn many_tests_are_held_to_one_level() {
    assert_eq!(bonferroni(&[0.01, 0.4]).unwrap(), [0.02, 0.8]);
    assert_eq!(bonferroni(&[0.9, 0.9]).unwrap(), [1.0, 1.0]);
    assert!(benjamini_hochberg(&[]).unwrap().is_empty());
    // Of a hundred columns without drift, no adjusted p-value is small where a raw one is.
    let p: Vec<f64> = (1..=100).map(|i| f64::from(i) / 100.5).collect();
    assert!(p[0] < 0.05 && benjamini_hochberg(&p).unwrap().iter().all(|adjusted| *adjusted > 0.9));
}
