//! The report's page in a browser: light and dark, narrow and wide. Needs Chromium, and says so when it is not there.

mod browser;

use millstream_monitor::report::{
    Activation, AlertReport, AlertState, ColumnKind, ColumnReport, EdgeReport, LatencyPoint, Measure,
    MetricSeries, Point, Quantile, Report, RuleOutcome, SegmentReport, Severity, Shape, ShiftedBin,
};

const HOUR: i64 = 3_600_000_000;
/// 2026-11-24T00:00Z.
const FROM: i64 = 1_795_478_400_000_000;
const DAYS: i64 = 7;

#[test]
fn the_page_fits_every_width_in_light_and_dark_without_errors() {
    let Some(browser) = browser::Browser::find() else { return };
    let page = browser.write("report.html", &sample().to_html());
    for (theme, dark) in [("light", false), ("dark", true)] {
        let messages = browser.screenshot(&page, &format!("report-{theme}-1280.png"), (1280, 4200), dark);
        assert_eq!(messages, Vec::<String>::new(), "{theme}");
    }
    let cases = [
        (320, "light"),
        (360, "dark"),
        (390, "light"),
        (768, "dark"),
        (1280, "light"),
        (1280, "dark"),
        (1600, "light"),
    ];
    let seen = browser.inspect("widths", &sample().to_html(), &cases);
    assert_eq!(seen.len(), cases.len());
    for ((width, theme), seen) in cases.into_iter().zip(seen) {
        assert_eq!(seen["width"], width, "the browser did not take the width");
        assert_eq!(seen["dark"], theme == "dark", "{theme} at {width}: the toggle does not choose the theme");
        assert_eq!(seen["wider"].to_string(), "[]", "{theme} at {width}: wider than the window");
        assert_eq!(seen["violations"].to_string(), "[]", "{theme} at {width}");
        assert_eq!(seen["errors"].to_string(), "[]", "{theme} at {width}");
    }
    browser.screenshot_in_frame(&sample().to_html(), "report-light-390.png", (390, 6000), "light");
    browser.screenshot_in_frame(&sample().to_html(), "report-dark-390.png", (390, 6000), "dark");
}

#[test]
fn the_script_sorts_filters_and_opens() {
    let Some(browser) = browser::Browser::find() else { return };
    let seen = &browser.inspect("script", &sample().to_html(), &[(1280, "light")])[0];
    assert_eq!(seen["by_name"], "age", "sorted by name, the first row");
    assert_eq!(seen["order"], "ascending");
    assert_eq!(seen["drifted_shown"], 3);
    assert_eq!(seen["found"], "1 of 12 shown");
    assert_eq!(seen["opened"], 12);
    assert_eq!(seen["closed"], 0);
    assert_eq!(seen["revealed"], true, "a link to a card opens it");
}

#[test]
fn names_from_outside_run_nothing() {
    let Some(browser) = browser::Browser::find() else { return };
    let attack = "</title></style></script><script>parent.attacked = true</script><img src=x onerror='parent.attacked=true'>\"'><svg onload=parent.attacked=true>\u{202e}";
    let mut report = sample();
    report.project = attack.into();
    report.graph = attack.into();
    report.version = attack.into();
    report.reference = Some(attack.into());
    report.alerts[0].name = attack.into();
    report.alerts[0].summary = attack.into();
    report.performance[0].name = attack.into();
    report.performance[0].segment = Some(attack.into());
    for edge in &mut report.edges {
        edge.edge = attack.into();
        for column in &mut edge.columns {
            column.column = attack.into();
            column.note = Some(attack.into());
            column.measures.iter_mut().for_each(|measure| measure.name = attack.into());
            column.quality.iter_mut().for_each(|rule| rule.rule = attack.into());
            column.segments.iter_mut().for_each(|segment| segment.segment = attack.into());
            column.shifted.iter_mut().for_each(|bin| bin.bin = attack.into());
            if let Shape::Categorical { counts, .. } = &mut column.live {
                counts[0].0 = attack.into();
            }
        }
    }
    let cases = [(360, "light"), (1280, "light")];
    let all = browser.inspect("names", &report.to_html(), &cases);
    assert_eq!(all.len(), cases.len());
    for ((width, _), seen) in cases.into_iter().zip(all) {
        assert_eq!(seen["attacked"], false);
        assert_eq!(seen["scripts"], 1);
        assert_eq!(seen["violations"].to_string(), "[]");
        assert_eq!(seen["wider"].to_string(), "[]", "at {width}: wider than the window");
    }
}

#[test]
fn the_policy_holds_against_what_gets_in_all_the_same() {
    let Some(browser) = browser::Browser::find() else { return };
    let planted = "<script>parent.attacked = true</script><style>body{display:none}</style></body>";
    let page = sample().to_html().replace("</body>", planted);
    let seen = &browser.inspect("policy", &page, &[(1280, "light")])[0];
    assert_eq!(seen["attacked"], false);
    assert_eq!(seen["violations"].to_string(), r#"["script-src-elem","style-src-elem"]"#);
}

/// A week of a made-up graph, the same in each run.
fn sample() -> Report {
    let columns = vec![
        numeric("income", Some(true), 2.84, 31_000.0, 9_000.0),
        numeric("age", Some(true), 1.31, 42.0, 13.0),
        categorical("region", Some(true), 1.12),
        numeric("balance", Some(false), 0.62, 1_850.0, 1_200.0),
        numeric("months_as_customer", Some(false), 0.44, 37.0, 20.0),
        categorical("channel", Some(false), 0.37),
        numeric("transactions_7d", Some(false), 0.31, 12.0, 6.0),
        numeric("fraud_rate_90d", Some(false), 0.22, 0.0041, 0.0012),
        categorical("device", Some(false), 0.19),
        numeric("distance_km", Some(false), 0.11, 8.4, 5.1),
        ColumnReport {
            note: Some("12 rows in the window; a verdict needs 200.".into()),
            ..numeric("rare_flag", None, 0.0, 0.0, 1.0)
        },
    ];
    let score = ColumnReport {
        reference: None,
        measures: Vec::new(),
        series: Vec::new(),
        shifted: Vec::new(),
        segments: Vec::new(),
        note: Some("The reference has no column of this name.".into()),
        ..numeric("score", None, 0.0, 0.31, 0.12)
    };
    Report {
        project: "bank".into(),
        graph: "churn-score".into(),
        version: "v14 (9c2f1ab)".into(),
        reference: Some("training set churn-2026-10, 412,000 rows".into()),
        from: FROM,
        to: FROM + DAYS * 24 * HOUR,
        made: FROM + DAYS * 24 * HOUR + 95_000_000,
        requests: 1_204_331,
        failed: 312,
        lost: 1_024,
        degraded: 4_870,
        latency: (0..DAYS * 24).map(latency).collect(),
        edges: vec![
            EdgeReport { edge: "enrich → model".into(), columns, ..EdgeReport::default() },
            EdgeReport { edge: "model → reply".into(), columns: vec![score], ..EdgeReport::default() },
        ],
        performance: vec![metric("roc_auc", None, 0.81), metric("precision", Some("region = north"), 0.64)],
        alerts: alerts(),
        ..Report::default()
    }
    .counted()
}

/// Between −1 and 1, without a generator of random numbers.
fn wave(seed: f64) -> f64 {
    ((seed * 12.989_8).sin() * 43_758.545_3).fract()
}

fn latency(hour: i64) -> LatencyPoint {
    let day = (hour as f64 / 24.0 * std::f64::consts::TAU).sin();
    let requests = (7_168.0 - 3_900.0 * day + 420.0 * wave(hour as f64)).max(0.0) as u64;
    let slow = if (100..108).contains(&hour) { 26_000.0 } else { 0.0 };
    let gap = (60..63).contains(&hour);
    LatencyPoint {
        at: FROM + hour * HOUR,
        p50: (!gap).then_some(3_100.0 - 500.0 * day + 120.0 * wave(hour as f64 + 0.3)),
        p99: (!gap).then_some(14_200.0 - 3_000.0 * day + 1_500.0 * wave(hour as f64 + 0.7) + slow),
        requests: if gap { 0 } else { requests },
        failed: if slow > 0.0 { 39 } else { 0 },
    }
}

fn bell(mean: f64, std: f64, by: f64, rows: f64) -> Shape {
    let edges: Vec<_> = (0..=24).map(|at| mean + std * (f64::from(at) / 4.0 - 3.0)).collect();
    let middles = edges.windows(2).map(|edge| (edge[0] + edge[1]) / 2.0);
    let density = middles.map(|x| (-0.5 * ((x - mean - by * std) / std).powi(2)).exp());
    let counts = density.map(|density| (density * rows / 10.0) as u64).collect();
    Shape::Numeric { edges, counts, below: 0, above: (rows / 800.0 * (1.0 + 40.0 * by)) as u64 }
}

fn measures(times: f64, drifted: bool) -> Vec<Measure> {
    let measure = |name: &str, value: f64, threshold: f64, p_value| Measure {
        name: name.into(),
        value,
        threshold: Some(threshold),
        p_value,
        drifted: value > threshold,
    };
    vec![
        measure("psi", 0.1 * times, 0.1, None),
        measure("ks", 0.05 * times, 0.05, Some(if drifted { 3.1e-9 } else { 0.271 })),
        measure("jensen_shannon", 0.1 * times.sqrt(), 0.1, None),
    ]
}

fn column(name: &str, drifted: Option<bool>, times: f64) -> ColumnReport {
    let days = |day: i64| Point {
        at: FROM + day * 12 * HOUR,
        value: 0.1 * times * (0.35 + 0.65 * (day as f64 / 14.0).powi(2) + 0.06 * wave(day as f64 + times)),
    };
    let segment = |segment: &str, rows, value: Option<f64>, drifted| SegmentReport {
        segment: segment.into(),
        rows,
        value,
        drifted,
    };
    ColumnReport {
        column: name.into(),
        rows: 1_203_007,
        nulls: (21_000.0 * times.fract()) as u64,
        distinct: Some(48_211),
        measures: if drifted.is_some() { measures(times, drifted == Some(true)) } else { Vec::new() },
        drifted,
        series: if drifted.is_some() { (0..=14).map(days).collect() } else { Vec::new() },
        quality: vec![
            RuleOutcome {
                rule: "at most 5 % null".into(),
                broken: (21_000.0 * times.fract()) as u64,
                checked: 1_203_007,
                ok: true,
            },
            RuleOutcome {
                rule: "between 0 and 250,000".into(),
                broken: 2_210,
                checked: 1_203_007,
                ok: drifted != Some(true),
            },
        ],
        segments: if drifted == Some(true) {
            vec![
                segment("region = north", 402_114, Some(0.14 * times), Some(true)),
                segment("region = south", 388_470, Some(0.06 * times), Some(times > 2.0)),
                segment("region = islands", 87, None, None),
            ]
        } else {
            Vec::new()
        },
        ..ColumnReport::default()
    }
}

fn numeric(name: &str, drifted: Option<bool>, times: f64, mean: f64, std: f64) -> ColumnReport {
    let quantile = |at: f64, by: f64| Quantile { at, value: mean + std * (by + 0.2 * times) };
    ColumnReport {
        kind: ColumnKind::Numeric,
        nans: 41,
        mean: Some(mean + std * 0.2 * times),
        std: Some(std * 1.04),
        min: Some((mean - 3.1 * std).max(0.0)),
        max: Some(mean + 6.0 * std),
        quantiles: vec![
            quantile(0.01, -2.33),
            quantile(0.25, -0.67),
            quantile(0.5, 0.0),
            quantile(0.75, 0.67),
            quantile(0.99, 2.33),
        ],
        reference: Some(bell(mean, std, 0.0, 412_000.0)),
        live: bell(mean, std, 0.2 * times, 1_203_007.0),
        shifted: vec![
            ShiftedBin { bin: "38,500 to 41,000".into(), reference: 0.062, live: 0.062 + 0.03 * times },
            ShiftedBin {
                bin: "22,000 to 24,250".into(),
                reference: 0.081,
                live: (0.081 - 0.021 * times).max(0.004),
            },
            ShiftedBin { bin: "above 58,000".into(), reference: 0.001_2, live: 0.001_2 + 0.01 * times },
        ],
        ..column(name, drifted, times)
    }
}

fn categorical(name: &str, drifted: Option<bool>, times: f64) -> ColumnReport {
    let shape = |by: f64, rows: f64| Shape::Categorical {
        counts: ["north", "south", "east", "west", "centre", "islands"]
            .iter()
            .enumerate()
            .map(|(at, name)| {
                (
                    (*name).to_owned(),
                    (rows * (0.34 - 0.06 * at as f64 + by * wave(at as f64 + 0.2)).max(0.01)) as u64,
                )
            })
            .collect(),
        other: (rows * 0.004) as u64,
    };
    ColumnReport {
        kind: ColumnKind::Categorical,
        distinct: Some(9),
        unseen: 3_308,
        reference: Some(shape(0.0, 412_000.0)),
        live: shape(0.06 * times, 1_203_007.0),
        shifted: vec![
            ShiftedBin { bin: "islands".into(), reference: 0.041, live: 0.083 },
            ShiftedBin { bin: "north".into(), reference: 0.342, live: 0.321 },
        ],
        ..column(name, drifted, times)
    }
}

fn metric(name: &str, segment: Option<&str>, level: f64) -> MetricSeries {
    let point = |day: i64, shift: f64| Point {
        at: FROM + day * 12 * HOUR,
        value: level + shift + 0.012 * wave(day as f64 + level),
    };
    MetricSeries {
        name: name.into(),
        segment: segment.map(str::to_owned),
        realised: (0..9).map(|day| point(day, 0.002 * day as f64)).collect(),
        estimated: (0..14).map(|day| point(day, -0.000_4 * (day * day) as f64)).collect(),
        lower: Some(level - 0.045),
        upper: Some(level + 0.045),
    }
}

fn alerts() -> Vec<AlertReport> {
    let at = |hour: i64| FROM + hour * HOUR;
    vec![
        AlertReport {
            name: "input-drift".into(),
            severity: Severity::High,
            state: AlertState::Firing,
            summary: "psi of income is 0.284, more than 0.1, in 3 of the last 4 windows.".into(),
            since: Some(at(122)),
            activations: vec![
                Activation { at: at(31), cleared: Some(at(38)), value: Some(0.117) },
                Activation { at: at(122), cleared: None, value: Some(0.284) },
            ],
        },
        AlertReport {
            name: "p99-latency".into(),
            severity: Severity::Medium,
            state: AlertState::Pending,
            summary: "p99 above 30 ms for 5 minutes.".into(),
            since: Some(at(167)),
            activations: vec![Activation { at: at(100), cleared: Some(at(108)), value: Some(41.2) }],
        },
        AlertReport {
            name: "labels-late".into(),
            summary: "Fewer than half of the labels within two days.".into(),
            ..AlertReport::default()
        },
    ]
}
