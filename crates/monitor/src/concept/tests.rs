use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Algorithm, Detector, DetectorError, DetectorSettings, Signal};

/// What river 0.26.1 does, written by `tests/oracles/concept.py`.
#[derive(Deserialize)]
struct Oracle {
    length: usize,
    streams: BTreeMap<String, Stream>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Stream {
    kind: String,
    seed: u64,
    p: Vec<f64>,
    sum: f64,
    last: f64,
}

#[derive(Deserialize)]
struct Case {
    stream: String,
    settings: DetectorSettings,
    drifts: Indexes,
    warnings: Indexes,
    /// Of ADWIN at the end: its width, sum, and squared deviations, which river calls its variance.
    window: Option<(u64, f64, f64)>,
}

/// A list of places in a stream, in short.
#[derive(Debug, PartialEq, Deserialize)]
struct Indexes {
    first: Vec<usize>,
    count: usize,
    digest: u64,
}

impl Indexes {
    fn of(all: &[usize]) -> Self {
        let digest =
            all.iter().fold(0_u64, |digest, &i| digest.wrapping_mul(1_000_003).wrapping_add(i as u64));
        Self { first: all.iter().copied().take(6).collect(), count: all.len(), digest }
    }
}

fn oracle() -> Oracle {
    serde_json::from_str(include_str!("../../tests/oracles/concept.json")).unwrap()
}

fn lcg(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn values(stream: &Stream, length: usize) -> Vec<f64> {
    let (p, mut u) = (&stream.p, lcg(stream.seed));
    let bit = |one: bool| if one { 1.0 } else { 0.0 };
    let value = |i: usize| {
        let a = u();
        let rate = p[i * p.len() / length];
        let ramp = ((i as f64 - 1000.0) / 2000.0).clamp(0.0, 1.0);
        match stream.kind.as_str() {
            "bernoulli" => bit(a < rate),
            "bernoulli_ramp" => bit(a < p[0] + (p[1] - p[0]) * ramp),
            "bernoulli_mix" => bit(a < if u() < ramp { p[1] } else { p[0] }),
            "shift" => a + rate,
            "scale" => a * rate,
            "ramp" => a + p[0] * ramp,
            "squares" => a * a * rate,
            "bell" => a + (0..11).fold(0.0, |sum, _| sum + u()) - 6.0 + rate,
            "heavy" => 1.0 / (a + 0.01) + rate,
            "constant" => rate,
            "saw" => i as f64 % p[0] / p[0],
            "pattern" => bit((i as f64) % rate == 0.0),
            other => panic!("no stream is called {other}"),
        }
    };
    (0..length).map(value).collect()
}

fn detector(settings: &Value) -> Detector {
    Detector::new(serde_json::from_value(settings.clone()).unwrap()).unwrap()
}

/// The indexes of drifts, and those of warnings.
fn fire(detector: &mut Detector, values: &[f64]) -> (Vec<usize>, Vec<usize>) {
    let signals: Vec<Signal> = values.iter().map(|&value| detector.update(value)).collect();
    let at = |wanted| (0..signals.len()).filter(|&i| signals[i] == wanted).collect();
    (at(Signal::Drift), at(Signal::Warning))
}

/// One of each kind, with parameters under which all of them fire.
fn one_of_each() -> [Value; 6] {
    [
        json!({"adwin": {}}),
        json!({"page_hinkley": {"threshold": 10.0}}),
        json!({"ddm": {}}),
        json!({"eddm": {}}),
        json!({"hddm_a": {"two_sided_test": true}}),
        json!({"hddm_w": {"two_sided_test": true}}),
    ]
}

fn errors() -> Vec<f64> {
    let stream = Stream { kind: "bernoulli".into(), seed: 12345, p: vec![0.1, 0.25], sum: 0.0, last: 0.0 };
    values(&stream, 4000)
}

#[test]
fn detectors_fire_where_river_fires() {
    let oracle = oracle();
    let mut fired = BTreeMap::<String, (usize, usize)>::new();
    let mut wrong = Vec::new();
    for case in &oracle.cases {
        let values = values(&oracle.streams[&case.stream], oracle.length);
        let mut detector = Detector::new(case.settings).unwrap();
        let (drifts, warnings) = fire(&mut detector, &values);
        let name = format!("{:?} on {}", case.settings, case.stream);
        if Indexes::of(&drifts) != case.drifts {
            wrong.push(format!("{name}: drifts {drifts:?}, river {:?}", case.drifts));
        }
        if Indexes::of(&warnings) != case.warnings {
            wrong.push(format!("{name}: warnings {warnings:?}, river {:?}", case.warnings));
        }
        if let (Algorithm::Adwin(adwin), Some(window)) = (&detector.algorithm, case.window) {
            let ours = (adwin.width, adwin.total, adwin.squares);
            if ours != window {
                wrong.push(format!("{name}: window {ours:?}, river {:?}", case.window));
            }
        }
        let kind = name.split('(').next().unwrap_or_default().to_owned();
        let count = fired.entry(kind).or_default();
        *count = (count.0 + drifts.len(), count.1 + warnings.len());
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(fired.len(), 6);
    assert!(fired.values().all(|&(drifts, _)| drifts > 20), "{fired:?}");
    assert_eq!(fired.values().filter(|&&(_, warnings)| warnings > 20).count(), 4, "{fired:?}");
}

#[test]
fn streams_are_those_of_the_oracle() {
    let oracle = oracle();
    assert!(oracle.streams.len() > 20);
    for (name, stream) in &oracle.streams {
        let values = values(stream, oracle.length);
        let sum = values.iter().fold(0.0, |sum, value| sum + value);
        assert_eq!((sum, values.last()), (stream.sum, Some(&stream.last)), "{name}");
    }
}

#[test]
fn published_indexes_of_a_shift_and_of_a_rising_error_rate() {
    let shift = Stream { kind: "shift".into(), seed: 12345, p: vec![0.0, 0.35], sum: 0.0, last: 0.0 };
    let (shift, errors) = (values(&shift, 4000), errors());
    let eddm = [360, 696, 1067, 1454, 2070, 2175, 2294, 2436, 2777, 2912, 3047, 3201, 3381, 3746, 3892];
    let cases: [(Value, &[f64], &[usize]); 8] = [
        (json!({"adwin": {"delta": 0.002}}), &shift, &[2047]),
        (json!({"page_hinkley": {}}), &shift, &[2122]),
        (json!({"page_hinkley": {"threshold": 10.0}}), &shift, &[797, 945, 1098, 2014, 2480, 3173, 3596]),
        (json!({"ddm": {}}), &errors, &[2158]),
        (json!({"eddm": {}}), &errors, &eddm),
        (json!({"hddm_a": {}}), &errors, &[2162]),
        (json!({"hddm_w": {}}), &errors, &[2164, 3397]),
        (json!({"adwin": {}}), &errors, &[2175]),
    ];
    for (settings, values, expected) in cases {
        assert_eq!(fire(&mut detector(&settings), values).0, expected, "{settings}");
    }
}

#[test]
fn a_detector_survives_a_restart_at_any_place() {
    let errors = errors();
    for settings in one_of_each() {
        let whole = fire(&mut detector(&settings), &errors);
        let mut restarted = detector(&settings);
        let mut drifts = Vec::new();
        for (i, &value) in errors.iter().enumerate() {
            if restarted.update(value) == Signal::Drift {
                drifts.push(i);
            }
            // Each place for a while, the rest by samples: a state before its first value, within, and after a drift.
            if i < 100 || i % 97 == 0 || drifts.last() == Some(&i) {
                let saved = serde_json::to_string(&restarted).unwrap();
                let read: Detector = serde_json::from_str(&saved).unwrap();
                assert_eq!(read, restarted);
                restarted = read;
            }
        }
        assert!(!drifts.is_empty(), "{settings}");
        assert_eq!(drifts, whole.0, "{settings}");
        assert_eq!(restarted.seen(), 4000);
    }
}

#[test]
fn values_without_meaning_are_counted_and_change_nothing() {
    let errors = errors();
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1e101];
    for settings in one_of_each() {
        let mut plain = detector(&settings);
        let mut disturbed = detector(&settings);
        for (i, &value) in errors.iter().enumerate() {
            assert_eq!(disturbed.update(odd[i % odd.len()]), Signal::None);
            assert_eq!(disturbed.update(value), plain.update(value), "{settings} at {i}");
        }
        assert_eq!((disturbed.seen(), disturbed.ignored()), (4000, 4000));
        assert_eq!(disturbed.algorithm, plain.algorithm);
    }
}

#[test]
fn ddm_ignores_what_is_no_error_rate() {
    let mut ddm = detector(&json!({"ddm": {}}));
    for value in [-0.1, 1.1, 7.0] {
        assert_eq!(ddm.update(value), Signal::None);
    }
    assert_eq!((ddm.seen(), ddm.ignored()), (0, 3));
}

#[test]
fn extreme_values_do_not_poison() {
    let errors = errors();
    for settings in one_of_each() {
        let mut detector = detector(&settings);
        for i in 0..1000 {
            detector.update(if i % 2 == 0 { 1e100 } else { -1e100 });
            detector.update(f64::MIN_POSITIVE);
        }
        assert!(detector.algorithm.check().is_ok(), "{settings}: {detector:?}");
        detector.reset();
        let mut fresh = Detector::new(detector.settings()).unwrap();
        assert_eq!(fire(&mut detector, &errors), fire(&mut fresh, &errors));
        assert_eq!(detector, fresh);
    }
}

#[test]
fn adwin_keeps_a_window_in_memory_of_its_logarithm() {
    let mut adwin = detector(&json!({"adwin": {}}));
    let mut u = lcg(99);
    for _ in 0..200_000 {
        assert_eq!(adwin.update(u()), Signal::None);
    }
    let Algorithm::Adwin(window) = &adwin.algorithm else { panic!("{adwin:?}") };
    assert_eq!(window.width, 200_000);
    // log2(200 000 / 5) rows of at most 5 buckets of two numbers.
    assert!(serde_json::to_string(&adwin).unwrap().len() < 16 * 5 * 80);
}

#[test]
fn adwin_tells_what_came_after_a_change() {
    let mut adwin = detector(&json!({"adwin": {}}));
    assert_eq!(adwin.window(), None);
    let mut signals = (0..2000).map(|i| adwin.update(if i < 1000 { 0.25 } else { 1.0 }));
    assert_eq!(signals.position(|signal| signal == Signal::Drift), Some(1023));
    let window = adwin.window().unwrap();
    assert!(window.values < 100 && window.mean > 0.4, "{window:?}");
    assert_eq!(detector(&json!({"ddm": {}})).window(), None);
}

#[test]
fn settings_read_with_defaults_and_refuse_unknown_fields() {
    let read = |text: &str| serde_json::from_str::<DetectorSettings>(text);
    for text in [r#"{"adwin": {}}"#, r#"{"page_hinkley": {}}"#, r#"{"ddm": {}}"#, r#"{"hddm_w": {}}"#] {
        let settings = read(text).unwrap();
        let written = serde_json::to_string(&settings).unwrap();
        assert_eq!(read(&written).unwrap(), settings);
    }
    let error = read(r#"{"adwin": {"detla": 0.1}}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `detla`") && error.contains("max_buckets"), "{error}");
    assert!(read(r#"{"kswin": {}}"#).is_err());
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let cases = [
        (json!({"adwin": {"delta": 0.0}}), "`adwin.delta` is 0, but must be between 0 and 1"),
        (json!({"adwin": {"clock": 0}}), "`adwin.clock` is 0, but must be at least 1"),
        (json!({"adwin": {"max_buckets": 1}}), "`adwin.max_buckets` is 1, but must be from 2 to 1000"),
        (json!({"adwin": {"max_buckets": 1001}}), "`adwin.max_buckets` is 1001, but must be from 2 to 1000"),
        (
            json!({"adwin": {"min_window_length": 0}}),
            "`adwin.min_window_length` is 0, but must be at least 1",
        ),
        (
            json!({"page_hinkley": {"alpha": 1.5}}),
            "`page_hinkley.alpha` is 1.5, but must be above 0 and at most 1",
        ),
        (json!({"page_hinkley": {"delta": -1.0}}), "`page_hinkley.delta` is -1, but must be zero or more"),
        (
            json!({"ddm": {"drift_threshold": 1.0}}),
            "`ddm.drift_threshold` is 1, but must be finite and at least `warning_threshold`",
        ),
        (json!({"eddm": {"beta": 0.99}}), "`eddm.beta` is 0.99, but must be above 0 and at most `alpha`"),
        (json!({"hddm_w": {"lambda": 1.0}}), "`hddm_w.lambda` is 1, but must be between 0 and 1"),
        (
            json!({"hddm_a": {"warning_confidence": 0.0001}}),
            "`hddm_a.warning_confidence` is 0.0001, but must be at least `drift_confidence` and below 1",
        ),
    ];
    for (settings, expected) in cases {
        let error = Detector::new(serde_json::from_value(settings).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn damaged_states_are_refused() {
    let saved = |settings: Value| {
        let mut detector = detector(&settings);
        for value in errors().into_iter().take(300) {
            detector.update(value);
        }
        serde_json::to_value(&detector).unwrap()
    };
    let adwin = saved(json!({"adwin": {}}));
    let hddm = saved(json!({"hddm_a": {}}));
    let eddm = saved(json!({"eddm": {}}));
    let cases = [
        (&adwin, "/algorithm/adwin/width", json!(17), "adwin"),
        (&adwin, "/algorithm/adwin/rows", json!(vec![json!([]); 70]), "adwin"),
        (&adwin, "/algorithm/adwin/rows/0", json!([]), "adwin"),
        (&hddm, "/algorithm/hddm_a/low/n", json!(u64::MAX), "hddm_a"),
        (&hddm, "/algorithm/hddm_a/low/n", json!(0), "hddm_a"),
        (&eddm, "/algorithm/eddm/last_error", json!(4000), "eddm"),
    ];
    for (state, place, value, detector) in cases {
        let mut state = state.clone();
        assert!(serde_json::from_value::<Detector>(state.clone()).is_ok());
        *state.pointer_mut(place).unwrap() = value;
        let error = serde_json::from_value::<Detector>(state).unwrap_err().to_string();
        assert_eq!(error, DetectorError::DamagedState { detector }.to_string(), "{place}");
    }
}
