//! Drift kernels against scipy, numpy, Evidently, NannyML and MLRun's formulas.
//!
//! Distances agree to 1e-9 and p-values to 1e-7, both relative to the value where it is above 1 and absolute below it for
//! distances, always relative for p-values down to 1e-300.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use millstream_monitor::drift::{
    Bins, DriftError, Ends, Frozen, Gate, KsMethod, MAX_BINS, Measure, Minimum, Shares, Side, Sizes, Verdict,
    Zeros, align, benjamini_hochberg, bonferroni, chi_square_contingency, chi_square_fit, ks_binned,
    ks_two_sample,
    profile::{evidently, mlrun, nannyml},
    psi_chi_square_limit, psi_normal_limit, wasserstein, wasserstein_of_bins, wasserstein_of_centres,
    wasserstein_scaled,
};
use proptest::{collection::vec, prelude::*};
use serde_json::Value;

const DISTANCE: f64 = 1e-9;
const P_VALUE: f64 = 1e-7;

fn oracle(name: &str) -> Value {
    let path = format!("{}/tests/oracles/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn counts(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

/// Compares one value with that of an entry, and says whether the entry has it.
#[track_caller]
fn same(got: f64, entry: &Value, key: &str) -> bool {
    let Some(wanted) = entry[key].as_f64() else { return false };
    near(got, wanted, DISTANCE * wanted.abs().max(1.0), key);
    true
}

#[track_caller]
fn same_p(got: f64, entry: &Value, key: &str) -> bool {
    let Some(wanted) = entry[key].as_f64() else { return false };
    near(got, wanted, (P_VALUE * wanted).max(1e-300), key);
    true
}

#[track_caller]
fn near(got: f64, wanted: f64, tolerance: f64, what: &str) {
    assert!(
        (got - wanted).abs() <= tolerance,
        "{what}: {got:e} is not {wanted:e}, by {:e}",
        (got - wanted).abs()
    );
}

/// The generator of the fixtures' script.
struct Uniforms(u64);

impl Uniforms {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn value(&mut self, kind: &str) -> f64 {
        match kind {
            "uniform" => self.next(),
            "eighths" => (self.next() * 100.0).floor() / 8.0,
            "bell" => self.next() + self.next() + self.next() + self.next() - 2.0,
            "few" => (self.next() * 8.0).floor(),
            "skewed" => {
                let x = self.next();
                x * x * x * 1000.0
            }
            "coin" => (self.next() * 2.0).floor(),
            "tiny" => self.next() * 1e-6,
            "constant" => self.next() * 0.0 + 3.0,
            other => panic!("the fixtures' script makes no sample `{other}`"),
        }
    }

    fn sample(seed: u64, kind: &str, size: usize, scale: f64, shift: f64) -> Vec<f64> {
        let mut uniforms = Self(seed);
        (0..4).for_each(|_| _ = uniforms.next());
        (0..size).map(|_| uniforms.value(kind) * scale + shift).collect()
    }
}

/// The two samples of an entry.
fn pair(entry: &Value) -> (Vec<f64>, Vec<f64>) {
    let (kind, seed) = (entry["kind"].as_str().unwrap(), entry["seed"].as_u64().unwrap());
    let size = |key: &str| entry[key].as_u64().unwrap() as usize;
    let number = |key: &str| entry[key].as_f64().unwrap();
    (
        Uniforms::sample(seed, kind, size("n"), 1.0, 0.0),
        Uniforms::sample(seed + 1, kind, size("m"), number("scale"), number("shift")),
    )
}

fn q10(reference: &[f64]) -> Frozen {
    Frozen::new(Bins::quantiles(reference, 10).unwrap(), reference).unwrap()
}

fn by_category(values: &[f64]) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    values.iter().for_each(|value| *counts.entry(value.to_bits()).or_default() += 1);
    counts
}

#[test]
fn real_columns_have_the_values_of_the_oracle() {
    let (wanted, samples) = (oracle("drift.json"), oracle("drift_samples.json"));
    let mut compared = 0;
    for (name, sides) in samples.as_object().unwrap() {
        let (r, c, entry) = (numbers(&sides[0]), numbers(&sides[1]), &wanted[name]);
        assert_eq!(
            (r.len() as u64, c.len() as u64),
            (entry["n_ref"].as_u64().unwrap(), entry["n_cur"].as_u64().unwrap())
        );
        let exact = ks_two_sample(&r, &c, KsMethod::Exact).unwrap();
        assert!(same(exact.statistic, entry, "ks_D") && same_p(exact.p_value, entry, "ks_p"));
        assert!(same_p(ks_two_sample(&r, &c, KsMethod::Asymptotic).unwrap().p_value, entry, "ks_p_asymp"));
        assert!(same(wasserstein(&r, &c).unwrap(), entry, "w1"));
        assert!(same(wasserstein_scaled(&r, &c).unwrap(), entry, "w1_norm"));

        let (frozen, of_q10) = (q10(&r), &entry["q10"]);
        let mut edges = numbers(&of_q10["edges"]);
        edges.dedup();
        assert_eq!(frozen.bins().edges(), edges);
        let live = frozen.bins().count(&c);
        let filled = |counts: Vec<u64>| counts.into_iter().filter(|count| *count > 0).collect::<Vec<_>>();
        assert_eq!(filled(frozen.reference().to_vec()), filled(counts(&of_q10["ref_counts"])), "{name}");
        assert_eq!(filled(live.bins.clone()), filled(counts(&of_q10["cur_counts"])), "{name}");
        let shares = frozen.shares(&live).unwrap();
        assert!(same(shares.psi(Zeros::default()), of_q10, "psi"));
        assert!(same(shares.kl(Zeros::default()), of_q10, "kl_ref_cur"));
        assert!(same(shares.js_distance_base2(), of_q10, "js_base2"));
        assert!(same(shares.js_distance(), of_q10, "js_nat"));
        assert!(same(shares.hellinger(), of_q10, "hellinger"));
        assert!(same(shares.tvd(), of_q10, "tvd") && same(shares.l_infinity(), of_q10, "linf"));

        let (shares, of_evidently) = (evidently::shares(&r, &c).unwrap(), &entry["evidently"]);
        assert_eq!(shares.live().len() as u64, of_evidently["n_bins"].as_u64().unwrap());
        assert!(same(shares.psi(Zeros::Evidently), of_evidently, "psi"));
        assert!(same(shares.kl(Zeros::Evidently), of_evidently, "kl"));
        assert!(same(shares.js_distance(), of_evidently, "js_nat"));

        let (fitted, of_nannyml) = (nannyml::Continuous::fit(&r).unwrap(), &entry["nannyml"]);
        assert_eq!(Bins::doane(&r).unwrap().bins() as u64, of_nannyml["n_bins"].as_u64().unwrap());
        assert!(same(fitted.jensen_shannon(&c).unwrap(), of_nannyml, "js_base2"));
        assert!(same(fitted.hellinger(&c).unwrap(), of_nannyml, "hellinger"));

        let (feature, of_mlrun) = (mlrun::FeatureDrift::of_samples(&r, &c).unwrap(), &entry["mlrun"]);
        assert!(same(feature.tvd, of_mlrun, "tvd") && same(feature.hellinger, of_mlrun, "hellinger"));
        assert!(same(feature.kld, of_mlrun, "kld"));
        compared += 1;
    }
    assert_eq!(compared, 8);
}

#[test]
fn real_categories_have_the_values_of_the_oracle() {
    let wanted = oracle("drift.json");
    let categories: Vec<&Value> =
        wanted.as_object().unwrap().values().filter(|entry| entry["keys"].is_array()).collect();
    assert_eq!(categories.len(), 4);
    for entry in categories {
        let (reference, live) = (counts(&entry["ref"]), counts(&entry["cur"]));
        let test = chi_square_contingency(&reference, &live).unwrap();
        assert!(
            same(test.statistic, entry, "chi2_contingency_stat")
                && same_p(test.p_value, entry, "chi2_contingency_p")
        );
        assert_eq!(test.degrees_of_freedom, entry["dof"].as_u64().unwrap());
        let fit = chi_square_fit(&reference, &live).unwrap();
        assert!(
            same(fit.statistic, entry, "chisquare_gof_stat") && same_p(fit.p_value, entry, "chisquare_gof_p")
        );
        let shares = Shares::new(&reference, &live).unwrap();
        assert!(same(shares.psi(Zeros::default()), entry, "psi") && same(shares.tvd(), entry, "tvd"));
        assert!(same(shares.l_infinity(), entry, "linf") && same(shares.hellinger(), entry, "hellinger"));
        assert!(same(shares.js_distance_base2(), entry, "js_base2"));
    }
}

#[test]
fn random_pairs_have_scipys_values() {
    let fixture = oracle("drift_pairs.json");
    let pairs = fixture["pairs"].as_array().unwrap();
    assert!(pairs.len() >= 200);
    let (mut contingencies, mut fits, mut smallest) = (0, 0, 1.0_f64);
    for entry in pairs {
        let (r, c) = pair(entry);
        assert!(
            (r.iter().sum::<f64>() - entry["sums"][0].as_f64().unwrap()).abs() <= 1e-9 * r.len() as f64 * 1e3
        );
        let exact = ks_two_sample(&r, &c, KsMethod::Exact).unwrap();
        assert!(same(exact.statistic, entry, "ks") && same_p(exact.p_value, entry, "p"));
        smallest = smallest.min(exact.p_value);
        same_p(ks_two_sample(&r, &c, KsMethod::Asymptotic).unwrap().p_value, entry, "p_asymp");
        assert!(same(wasserstein(&r, &c).unwrap(), entry, "w1"));
        assert!(same(wasserstein_scaled(&r, &c).unwrap(), entry, "w1_scaled"));

        let of_counts = &entry["counts"];
        let frozen = q10(&r);
        let live = frozen.bins().count(&c);
        assert_eq!(frozen.bins().edges(), numbers(&of_counts["edges"]), "{entry}");
        assert_eq!(frozen.reference(), counts(&of_counts["ref"]));
        assert_eq!(live.bins, counts(&of_counts["live"]));
        let shares = frozen.shares(&live).unwrap();
        for (got, key) in [
            (shares.psi(Zeros::default()), "psi"),
            (shares.kl(Zeros::default()), "kl"),
            (shares.psi(Zeros::Epsilon(1e-6)), "psi_epsilon"),
            (shares.js_divergence_with(Zeros::Epsilon(1e-6)), "js_epsilon"),
            (shares.js_distance(), "js"),
            (shares.js_distance_base2(), "js2"),
            (shares.hellinger(), "hellinger"),
            (shares.tvd(), "tvd"),
            (shares.l_infinity(), "linf"),
            (ks_binned(frozen.reference(), &live.bins).unwrap().statistic, "ks"),
        ] {
            // scipy's root of a rounding error may be none.
            assert!(same(got, of_counts, key) || of_counts[key].as_f64().is_none_or(f64::is_nan), "{key}");
        }
        let test = chi_square_contingency(frozen.reference(), &live.bins).unwrap();
        if same(test.statistic, of_counts, "chi2") {
            same_p(test.p_value, of_counts, "chi2_p");
            assert_eq!(test.degrees_of_freedom, of_counts["dof"].as_u64().unwrap());
            contingencies += 1;
        } else {
            assert_eq!((test.statistic, test.p_value), (0.0, 1.0));
        }
        let fit = chi_square_fit(frozen.reference(), &live.bins).unwrap();
        fits += usize::from(same(fit.statistic, of_counts, "fit") && same_p(fit.p_value, of_counts, "fit_p"));

        let both = Bins::equal_width(&[r.as_slice(), c.as_slice()].concat(), 7).unwrap();
        let (of_r, of_c) = (both.count(&r).bins, both.count(&c).bins);
        let width7 = &of_counts["width7"];
        assert_eq!((&of_r, &of_c), (&counts(&width7["ref"]), &counts(&width7["live"])));
        assert!(same(wasserstein_of_centres(&both, &of_r, &of_c).unwrap(), width7, "centres"));
        assert!(same(wasserstein_of_bins(&both, &of_r, &of_c).unwrap(), width7, "bins"));

        let sturges = Bins::sturges(&[r.as_slice(), c.as_slice()].concat()).unwrap();
        let of_sturges = &entry["sturges"];
        assert_eq!(sturges.bins() as u64, of_sturges["bins"].as_u64().unwrap());
        let shares = Shares::new(&sturges.count(&r).bins, &sturges.count(&c).bins).unwrap();
        assert!(
            same(shares.psi(Zeros::Evidently), of_sturges, "psi")
                && same(shares.kl(Zeros::Evidently), of_sturges, "kl")
        );
        assert!(same(shares.js_distance(), of_sturges, "js"));
        let (doane, of_doane) = (Bins::doane(&r).unwrap(), &entry["doane"]);
        assert_eq!(doane.bins() as u64, of_doane["bins"].as_u64().unwrap());
        assert_eq!(
            (doane.count(&r).bins, doane.count(&c).bins),
            (counts(&of_doane["ref"]), counts(&of_doane["live"]))
        );
        let (feature, of_mlrun) = (mlrun::FeatureDrift::of_samples(&r, &c).unwrap(), &entry["mlrun"]);
        assert!(same(feature.tvd, of_mlrun, "tvd") && same(feature.kld, of_mlrun, "kld"));
        assert!(same(
            feature.hellinger.powi(2),
            &serde_json::json!({ "square": of_mlrun["hellinger"].as_f64().unwrap().powi(2) }),
            "square"
        ));
    }
    assert!(contingencies > 200 && fits > 100, "{contingencies} {fits}");
    assert!(smallest < 1e-90, "{smallest:e}");
}

#[test]
fn tails_and_quantiles_have_scipys_values() {
    let fixture = oracle("drift_pairs.json");
    let list = |key: &str| fixture[key].as_array().unwrap().clone();
    for entry in list("levels") {
        let p = numbers(&entry["p"]);
        for (got, wanted) in benjamini_hochberg(&p).unwrap().into_iter().zip(numbers(&entry["bh"])) {
            near(got, wanted, 1e-14, "bh");
        }
    }
    for entry in list("limits") {
        let (alpha, bins) = (entry["alpha"].as_f64().unwrap(), entry["bins"].as_u64().unwrap() as usize);
        let one = Sizes { reference: None, live: 1 };
        assert!(same(psi_chi_square_limit(alpha, bins, one), &entry, "chi2"));
        assert!(same(psi_normal_limit(alpha, bins, one), &entry, "normal"));
    }
    for entry in list("tails") {
        let test =
            chi_square_contingency(&counts(&entry["counts"][0]), &counts(&entry["counts"][1])).unwrap();
        assert!(same_p(test.p_value, &entry, "p"), "{entry}");
    }
}

/// Of 2n and 2n values nm/(n+m) is n, and k of them in the first bin make D = k/2n.
#[test]
fn the_asymptotic_tail_has_scipys_values() {
    let fixture = oracle("drift_pairs.json");
    let entries = fixture["kstwo"].as_array().unwrap();
    assert!(entries.len() > 120);
    for entry in entries {
        let (all, k) = (2 * entry["n"].as_u64().unwrap(), entry["k"].as_u64().unwrap());
        assert!(same_p(ks_binned(&[k, all - k], &[0, all]).unwrap().p_value, entry, "p"), "{entry}");
    }
}

#[test]
fn the_profile_of_evidently_has_its_scores_and_verdicts() {
    let fixture = oracle("drift_evidently.json");
    let (mut tests, mut compared) = (BTreeMap::new(), 0);
    for entry in fixture.as_array().unwrap() {
        let (r, c) = pair(entry);
        let aligned = align(by_category(&r), by_category(&c));
        let columns = [
            ("numeric", evidently::numeric(&r, &c).unwrap()),
            ("categorical", evidently::categorical(&aligned.reference, &aligned.live).unwrap()),
        ];
        for (key, column) in columns {
            let wanted = &entry[key];
            // It has no score where a category is on one side only and its test fails.
            if wanted["score"].is_null() {
                continue;
            }
            let name = match column.test {
                evidently::Test::KolmogorovSmirnov => "ks",
                evidently::Test::ChiSquare => "chisquare",
                evidently::Test::ZTest => "z",
                evidently::Test::Wasserstein => "wasserstein",
                evidently::Test::JensenShannon => "jensenshannon",
            };
            assert_eq!(wanted["test"], name, "{entry}");
            assert_eq!(
                (wanted["drifted"].as_bool(), wanted["threshold"].as_f64()),
                (Some(column.drifted), Some(column.threshold))
            );
            // Its test of proportions subtracts from 1, which costs small p-values their digits.
            near(column.score, wanted["score"].as_f64().unwrap(), DISTANCE, key);
            *tests.entry(name).or_insert(0) += 1;
        }
        let shares = evidently::shares(&r, &c).unwrap();
        for (got, key) in [
            (shares.psi(Zeros::Evidently), "psi"),
            (shares.kl(Zeros::Evidently), "kl"),
            (shares.js_distance(), "js"),
        ] {
            compared += usize::from(same(got, entry, key));
        }
        // The root of 1 - 1 + 1e-16 is 1e-8.
        near(
            evidently::hellinger(&r, &c).unwrap().powi(2),
            entry["hellinger"].as_f64().unwrap().powi(2),
            DISTANCE,
            "hellinger",
        );
    }
    assert_eq!(tests.len(), 5, "{tests:?}");
    assert!(compared > 150, "{compared}");
    let column =
        |drifted| evidently::Column { test: evidently::Test::ZTest, score: 0.1, threshold: 0.1, drifted };
    assert!(evidently::dataset_drifted(&[column(true), column(false)]));
    assert!(!evidently::dataset_drifted(&[column(true), column(false), column(false)]));
    assert!(!evidently::dataset_drifted(&[]));
}

#[test]
fn the_profile_of_nannyml_has_its_values_and_thresholds() {
    let fixture = oracle("drift_nannyml.json");
    let (mut large, mut categorical) = (0, 0);
    for entry in fixture.as_array().unwrap() {
        let (r, c) = pair(entry);
        let fitted = nannyml::Continuous::fit(&r).unwrap();
        type Method<'a> = &'a dyn Fn(&[f64]) -> Result<f64, DriftError>;
        let methods: [(&str, Method<'_>); 4] = [
            ("jensen_shannon", &|live| fitted.jensen_shannon(live)),
            ("hellinger", &|live| fitted.hellinger(live)),
            ("kolmogorov_smirnov", &|live| fitted.kolmogorov_smirnov(live)),
            ("wasserstein", &|live| fitted.wasserstein(live)),
        ];
        for (key, method) in methods {
            assert!(same(method(&c).unwrap(), &entry[key], "value"), "{key}");
            let chunks: Vec<f64> = nannyml::chunks(r.len()).map(|chunk| method(&r[chunk]).unwrap()).collect();
            let upper = nannyml::upper_threshold(&chunks).unwrap();
            assert!(
                same(if key == "kolmogorov_smirnov" { upper.min(1.0) } else { upper }, &entry[key], "upper"),
                "{key}"
            );
        }
        large += usize::from(r.len() >= 10_000);
        let wanted = &entry["categorical"];
        if wanted.is_object() {
            let (fitted, live) = (nannyml::Categorical::fit(by_category(&r)), by_category(&c));
            assert!(same(fitted.jensen_shannon(&live).unwrap(), wanted, "jensen_shannon"));
            assert!(same(fitted.hellinger(&live).unwrap(), wanted, "hellinger"));
            assert!(same(fitted.l_infinity(&live).unwrap(), wanted, "l_infinity"));
            assert!(same(fitted.chi_square(&live).unwrap().statistic, wanted, "chi2"));
            categorical += 1;
        }
    }
    assert!(large == 4 && categorical > 5, "{large} {categorical}");
}

/// The vectors of MLRun's own tests.
#[test]
fn the_profile_of_mlrun_has_its_values_and_verdicts() {
    let u = [
        0.07101131, 0.25138296, 0.03700347, 0.06843929, 0.11482246, 0.1339393, 0.0503426, 0.05639414,
        0.13406714, 0.08259733,
    ];
    let t = [
        0.17719221, 0.0949423, 0.02982267, 0.19927063, 0.19288318, 0.00137802, 0.07398598, 0.05829106,
        0.06771774, 0.10451622,
    ];
    for (reference, live, tvd, hellinger, kld) in [
        (&u[..], &t[..], 0.3625321, 0.338189, 1.097619),
        (&[0.0, 1.0 / 6.0, 1.0 / 3.0, 0.5], &[0.5, 1.0 / 3.0, 1.0 / 6.0, 0.0], 0.666666, 0.727045, 8.748242),
    ] {
        let feature = mlrun::FeatureDrift::of_shares(&Shares::of_fractions(reference, live).unwrap());
        near(feature.tvd, tvd, 1e-6, "tvd");
        near(feature.hellinger, hellinger, 1e-6, "hellinger");
        near(feature.kld, kld, 1e-6, "kld");
    }
    let feature = |tvd, hellinger| mlrun::FeatureDrift { tvd, hellinger, kld: 3.0 };
    let general = mlrun::general_drift(&[feature(0.5, 0.7), feature(0.7, 0.9)]).unwrap();
    near(general.value, 0.7, 1e-12, "general_drift");
    assert_eq!(general.kld_mean, 3.0);
    assert_eq!(mlrun::general_drift(&[]), None);
    // More than 1 by rounding is drift, not an error.
    assert_eq!(mlrun::general_drift(&[feature(1.0 + 1e-15, 1.0 + 1e-15)]).unwrap().value, 1.0);
    for (value, status) in [
        (0.2, mlrun::Status::NoDetection),
        (0.5, mlrun::Status::PotentialDetection),
        (0.6, mlrun::Status::PotentialDetection),
        (0.7, mlrun::Status::Detected),
        (1.0, mlrun::Status::Detected),
    ] {
        assert_eq!(mlrun::Classifier::default().status(value), status, "{value}");
    }
    for (potential, detected) in [(0.4, 0.2), (0.0, 0.5), (0.7, 1.0), (-1.0, 2.0), (f64::NAN, 0.7)] {
        assert!(mlrun::Classifier::new(potential, detected).is_err());
    }
    // The largest value of the reference lies in its last bin, and live in the one above: the tool does it so.
    let sample: Vec<f64> = (0..=20).map(f64::from).collect();
    near(mlrun::FeatureDrift::of_samples(&sample, &sample).unwrap().tvd, 1.0 / 21.0, 1e-12, "tvd");
}

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

const MEASURES: [Measure; 7] = [
    Measure::Psi,
    Measure::Kl,
    Measure::JsDivergence,
    Measure::JsDistance,
    Measure::JsDistanceBase2,
    Measure::Hellinger,
    Measure::Tvd,
];

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

/// New pairs on each platform's own scipy, where there is one.
#[test]
fn seeded_pairs_have_the_values_of_the_scipy_that_is_here() {
    let kinds = ["uniform", "eighths", "bell", "few", "skewed"];
    let mut uniforms = Uniforms(99);
    let pairs: Vec<[Vec<f64>; 2]> = (0..60)
        .map(|i| {
            let mut size = || 1 + (uniforms.next() * 120.0) as usize;
            let (kind, shift) = (kinds[i % kinds.len()], (i % 3) as f64 / 8.0);
            let seed = 90_000 + 2 * i as u64;
            [
                Uniforms::sample(seed, kind, size(), 1.0, 0.0),
                Uniforms::sample(seed + 1, kind, size(), 1.0, shift),
            ]
        })
        .collect();
    let Some(values) = live_scipy(&serde_json::to_vec(&pairs).unwrap()) else {
        eprintln!("skipped: python3 cannot import scipy; `make test` brings it");
        return;
    };
    assert_eq!(values.len(), pairs.len());
    for ([r, c], entry) in pairs.iter().zip(&values) {
        let exact = ks_two_sample(r, c, KsMethod::Exact).unwrap();
        assert!(same(exact.statistic, entry, "ks") && same_p(exact.p_value, entry, "p"));
        same_p(ks_two_sample(r, c, KsMethod::Asymptotic).unwrap().p_value, entry, "p_asymp");
        assert!(same(wasserstein(r, c).unwrap(), entry, "w1"));
        let frozen = q10(r);
        let live = frozen.bins().count(c);
        assert_eq!((frozen.reference(), &live.bins), (&counts(&entry["ref"])[..], &counts(&entry["live"])));
        same(frozen.shares(&live).unwrap().js_distance(), entry, "js");
        let test = chi_square_contingency(frozen.reference(), &live.bins).unwrap();
        assert!(same(test.statistic, entry, "chi2") && same_p(test.p_value, entry, "chi2_p"));
        assert_eq!(Bins::sturges(r).unwrap().bins() as u64, entry["sturges"].as_u64().unwrap());
        assert_eq!(Bins::doane(r).unwrap().bins() as u64, entry["doane"].as_u64().unwrap());
    }
}

/// What scipy says; none where there is no scipy, which is status 3.
fn live_scipy(pairs: &[u8]) -> Option<Vec<Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracles/live_scipy.py");
    let mut process =
        Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    // A script that ends before it reads is asked for its status below.
    _ = process.stdin.take().unwrap().write_all(pairs);
    let ended = process.wait_with_output().unwrap();
    if ended.status.code() == Some(3) {
        return None;
    }
    assert!(ended.status.success(), "live_scipy.py ended with {}", ended.status);
    Some(serde_json::from_slice(&ended.stdout).unwrap())
}
