//! Values of scipy, numpy and the other tools: kept ones, and those of the scipy that is here.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use millstream_monitor::drift::{
    Bins, KsMethod, Shares, Sizes, Zeros, benjamini_hochberg, chi_square_contingency, chi_square_fit,
    ks_binned, ks_two_sample,
    profile::{evidently, mlrun, nannyml},
    psi_chi_square_limit, psi_normal_limit, wasserstein, wasserstein_of_bins, wasserstein_of_centres,
    wasserstein_scaled,
};
use serde_json::Value;

use super::{Uniforms, counts, near, numbers, oracle, pair, q10, same, same_p};

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
