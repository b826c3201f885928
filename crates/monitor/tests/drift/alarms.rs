//! How often a limit is passed, with drift and without.

use millstream_monitor::drift::{
    Bins, Ends, Gate, KsMethod, Measure, Minimum, Shares, Sizes, Verdict, Zeros, chi_square_contingency,
    ks_binned, ks_two_sample, psi_chi_square_limit, psi_normal_limit,
};

use super::{MEASURES, Uniforms, near, numbers, oracle, q10};

#[test]
fn without_drift_one_pair_in_twenty_alarms() {
    let even = [0.1; 10];
    let uneven = [0.02, 0.03, 0.05, 0.1, 0.3, 0.5];
    let coin = [0.5, 0.5];
    for (shares, sizes) in
        [(&even[..], (2000, 600)), (&uneven, (1500, 1500)), (&coin, (500, 800)), (&even, (500, 500))]
    {
        let alarms = alarms(shares, shares, sizes, Gate::default());
        assert!(alarms.iter().all(|share| (0.033..0.067).contains(share)), "{sizes:?}: {alarms:?}");
    }
    // A fixed limit of a small sample alarms most of the time.
    assert!(alarms(&even, &even, (100, 100), Gate::Fixed(0.1))[0] > 0.7);
}

#[test]
fn drift_alarms() {
    let alarms = alarms(
        &[0.1; 10],
        &[0.06, 0.06, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.14, 0.14],
        (2000, 1000),
        Gate::default(),
    );
    assert!(alarms.iter().all(|share| *share > 0.95), "{alarms:?}");
}

#[test]
fn p_values_without_drift_are_as_rare_as_they_say() {
    let (mut ks, mut chi_square, mut bound) = (0, 0, 0);
    for seed in 0..1000 {
        let (r, c) = (
            Uniforms::sample(seed, "uniform", 80, 1.0, 0.0),
            Uniforms::sample(seed + 5000, "uniform", 60, 1.0, 0.0),
        );
        ks += u32::from(ks_two_sample(&r, &c, KsMethod::Exact).unwrap().p_value < 0.05);
        let bins = Bins::from_edges(vec![0.25, 0.5, 0.75], Ends::Open).unwrap();
        let (r, c) = (bins.count(&r).bins, bins.count(&c).bins);
        chi_square += u32::from(chi_square_contingency(&r, &c).unwrap().p_value < 0.05);
        bound += u32::from(ks_binned(&r, &c).unwrap().p_value < 0.05);
    }
    assert!((25..70).contains(&ks) && (30..70).contains(&chi_square), "{ks} {chi_square}");
    assert!(bound < 40, "{bound}");
}

#[test]
fn limits_of_psi_are_those_of_others() {
    let known = |live| Sizes { reference: None, live };
    for (bins, live, limit) in
        [(10, 100, 0.169), (10, 200, 0.085), (10, 400, 0.042), (10, 1000, 0.017), (20, 1000, 0.0301)]
    {
        near(psi_chi_square_limit(0.05, bins, known(live)), limit, 6e-4, "chi-square");
    }
    near(psi_normal_limit(0.05, 10, known(400)), 0.0400, 6e-5, "normal");
    near(
        psi_chi_square_limit(0.05, 10, Sizes { reference: Some(285), live: 284 }),
        0.119,
        5e-4,
        "two samples",
    );
    // Above 0.1, which a rule of thumb calls drift; below the limit of samples of this size.
    let samples = oracle("drift_samples.json");
    let even_odd = &samples["breast_cancer.mean_smoothness even vs odd"];
    let frozen = q10(&numbers(&even_odd[0]));
    let shares = frozen.shares(&frozen.bins().count(&numbers(&even_odd[1]))).unwrap();
    let judge = |gate: Gate| gate.judge(Measure::Psi, Zeros::default(), &shares, Minimum::default());
    assert_eq!(judge(Gate::Fixed(0.1)).verdict, Verdict::Drifted);
    assert_eq!(judge(Gate::default()).verdict, Verdict::Steady);
    let few = Minimum { reference: 50, live: 1000 };
    assert_eq!(Gate::Fixed(0.1).judge(Measure::Psi, Zeros::default(), &shares, few).verdict, Verdict::TooFew);
}

/// The share of 2000 pairs that each measure calls drift. Its standard error without drift is 0.005.
fn alarms(reference: &[f64], live: &[f64], sizes: (u64, u64), gate: Gate) -> Vec<f64> {
    let mut uniforms = Uniforms(7);
    let mut draw = |shares: &[f64], size: u64| {
        let mut counts = vec![0; shares.len()];
        for _ in 0..size {
            let mut rest = uniforms.next();
            let bin = shares.iter().position(|share| {
                rest -= share;
                rest < 0.0
            });
            counts[bin.unwrap_or(shares.len() - 1)] += 1;
        }
        counts
    };
    let mut alarms = vec![0.0; MEASURES.len()];
    for _ in 0..2000 {
        let shares = Shares::new(&draw(reference, sizes.0), &draw(live, sizes.1)).unwrap();
        for (alarm, measure) in alarms.iter_mut().zip(MEASURES) {
            let drifted = measure.of(&shares, Zeros::default()) > gate.limit(measure, &shares);
            *alarm += f64::from(u8::from(drifted)) / 2000.0;
        }
    }
    alarms
}
