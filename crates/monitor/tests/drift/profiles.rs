//! Other tools' own scores, verdicts and thresholds.

use std::collections::BTreeMap;

use millstream_monitor::drift::{
    DriftError, Shares, Zeros, align,
    profile::{evidently, mlrun, nannyml},
};

use super::{DISTANCE, by_category, near, oracle, pair, same};

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
