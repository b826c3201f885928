//! Labels that come later find their predictions, within bounds.

use millstream_monitor::performance::{
    Accumulator, BinaryMetrics, BinaryPrediction, JoinConfig, JoinError, LabelJoin, LabelReply,
    MulticlassMetrics, MulticlassPrediction, Number, PredictReply, RegressionMetrics,
};

pub(super) const MINUTE: i64 = 60_000_000;

pub(super) fn join(change: impl FnOnce(&mut JoinConfig)) -> LabelJoin<BinaryMetrics> {
    let mut config = JoinConfig::new(MINUTE, 10 * MINUTE);
    change(&mut config);
    LabelJoin::new(BinaryMetrics::default(), config, 0).unwrap()
}

fn sure() -> BinaryPrediction {
    BinaryPrediction { positive: true, probability: 0.9 }
}

/// (Predictions, labelled, true positives, false positives, version) of the open window that starts at `start`.
fn window_at(join: &LabelJoin<BinaryMetrics>, start: i64) -> (u64, u64, u64, u64, u64) {
    let window = join.open_windows().find(|window| window.start() == start).unwrap();
    let total = window.total();
    let confusion = total.metrics.confusion();
    (total.predictions, total.labelled, confusion.true_positives, confusion.false_positives, window.version())
}

#[test]
fn labels_find_their_predictions() {
    use LabelReply::*;
    let mut join = join(|_| {});
    assert_eq!(join.predict("a", MINUTE + 1, "s", sure()), PredictReply::Added);
    // (id, date, label, reply), one after the other.
    for (id, at, label, reply) in [
        ("a", 2 * MINUTE, true, Joined),
        ("a", 2 * MINUTE, true, Repeated),
        ("a", MINUTE, false, Repeated),
        ("a", 3 * MINUTE, false, Corrected),
        ("a", 3 * MINUTE, true, Corrected),
        ("a", 3 * MINUTE, false, Repeated),
        ("a", 4 * MINUTE, true, Repeated),
        ("b", 2 * MINUTE, false, Waiting),
        ("b", 2 * MINUTE, false, Repeated),
        ("c", 11 * MINUTE, true, TooEarly),
    ] {
        assert_eq!(join.label(id, at, label), reply, "{id} {at} {label}");
    }
    assert_eq!(window_at(&join, MINUTE), (1, 1, 1, 0, 2));
    assert_eq!(join.predict("b", MINUTE, "s", sure()), PredictReply::Joined);
    assert_eq!(window_at(&join, MINUTE), (2, 2, 1, 1, 2));
    assert_eq!(join.predict("a", MINUTE, "s", sure()), PredictReply::Repeated);

    let counts = join.counts();
    assert_eq!((counts.predictions, counts.predictions_repeated), (2, 1));
    assert_eq!((counts.joined, counts.corrected, counts.labels_repeated), (2, 2, 5));
    assert_eq!((counts.labels_too_early, counts.unknown, join.waiting_labels()), (1, 0, 0));
    // `a` after three minutes less a microsecond, `b` after exactly one.
    assert_eq!(join.delays().counts(), [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn lateness_is_judged_by_dates_and_by_the_closing_of_windows() {
    use LabelReply::*;
    let mut join = join(|_| {});
    join.predict("a", 0, "s", sure());
    join.predict("b", 0, "s", sure());
    join.predict("c", 0, "s", sure());
    join.advance(MINUTE);
    assert_eq!(join.label("a", 10 * MINUTE + 1, true), TooLate);
    assert_eq!(join.label("a", 10 * MINUTE, true), Joined);
    // The window ends after one minute and closes ten minutes later.
    join.advance(11 * MINUTE);
    assert_eq!(join.label("b", MINUTE, true), Joined);
    join.advance(11 * MINUTE + 1);
    assert_eq!(join.label("c", MINUTE, true), TooLate);
    assert_eq!(join.open_windows().len(), 0);
    assert_eq!(join.label("a", -20 * MINUTE, true), TooEarly);

    let closed = join.take_closed();
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].start(), closed[0].total().predictions, closed[0].total().labelled), (0, 3, 2));
    assert!(join.take_closed().is_empty());

    // Predictions are remembered for 22 minutes.
    join.advance(22 * MINUTE);
    assert_eq!(join.label("c", 12 * MINUTE, true), TooLate);
    join.advance(22 * MINUTE + 1);
    assert_eq!(join.held_predictions(), 0);
    assert_eq!(join.label("c", MINUTE, true), Unknown);
    assert_eq!((join.counts().unlabelled, join.counts().labels_too_late, join.counts().unknown), (1, 3, 1));

    assert_eq!(join.predict("d", 12 * MINUTE, "s", sure()), PredictReply::TooLate);
    assert_eq!(join.predict("d", 33 * MINUTE, "s", sure()), PredictReply::TooEarly);
    assert_eq!(join.predict(&"x".repeat(257), 20 * MINUTE, "s", sure()), PredictReply::Refused);
    assert_eq!(join.open_windows().len(), 0);
}

#[test]
fn the_clock_never_goes_back() {
    let mut join = join(|_| {});
    join.advance(100 * MINUTE);
    join.advance(0);
    assert_eq!(join.predict("a", 0, "s", sure()), PredictReply::TooLate);
    join.advance(i64::MAX);
    assert_eq!(join.predict("a", i64::MIN, "s", sure()), PredictReply::TooLate);
    assert_eq!(join.predict("a", i64::MAX, "s", sure()), PredictReply::Added);
    assert_eq!(join.label("a", i64::MAX, true), LabelReply::Joined);
    assert_eq!(join.label("b", i64::MIN, true), LabelReply::Unknown);
}

#[test]
fn a_label_whose_prediction_never_comes_is_unknown() {
    let mut join = join(|_| {});
    assert_eq!(join.label("a", 5, true), LabelReply::Waiting);
    join.advance(20 * MINUTE + 5);
    assert_eq!((join.waiting_labels(), join.counts().unknown), (1, 0));
    join.advance(20 * MINUTE + 6);
    assert_eq!((join.waiting_labels(), join.counts().unknown), (0, 1));
}

#[test]
fn full_tables_give_up_the_oldest() {
    let mut join = join(|config| {
        config.capacity = 2;
        config.waiting = 2;
    });
    for (id, at) in [("b", 2), ("a", 1), ("c", 3)] {
        assert_eq!(join.predict(id, at, "s", sure()), PredictReply::Added);
    }
    assert_eq!((join.held_predictions(), join.counts().evicted), (2, 1));
    assert_eq!(join.label("b", 9, true), LabelReply::Joined);
    join.predict("d", 4, "s", sure());
    assert_eq!((join.counts().evicted, join.counts().evicted_labelled), (1, 1));
    assert_eq!(window_at(&join, 0), (4, 1, 1, 0, 0), "what is evicted still counts");

    assert_eq!(join.label("x", 7, true), LabelReply::Waiting);
    assert_eq!(join.label("y", 6, true), LabelReply::Waiting);
    assert_eq!(join.label("z", 5, true), LabelReply::Unknown, "it is the oldest itself");
    assert_eq!(join.label("z", 8, true), LabelReply::Waiting);
    assert_eq!((join.waiting_labels(), join.counts().waiting_evicted, join.counts().unknown), (2, 1, 1));
}

#[test]
fn windows_that_nobody_takes_are_dropped() {
    let mut join = join(|config| config.closed_windows = 2);
    for minute in 0..5 {
        join.predict(&minute.to_string(), minute * MINUTE, "s", sure());
    }
    join.advance(60 * MINUTE);
    assert_eq!(join.counts().windows_dropped, 3);
    let starts: Vec<_> = join.take_closed().iter().map(|window| window.start()).collect();
    assert_eq!(starts, [3 * MINUTE, 4 * MINUTE]);
}

#[test]
fn segments_beyond_the_cap_are_counted_together() {
    let fed = |names: &[&str]| {
        let mut join = join(|config| config.segments = 2);
        for (index, name) in names.iter().enumerate() {
            let id = format!("{name}{}", names[..index].iter().filter(|n| *n == name).count());
            join.predict(&id, 5, name, sure());
            join.label(&id, 6, *name < "c");
        }
        join.open_windows().next().unwrap().clone()
    };
    let window = fed(&["d", "c", "a", "d", "b", "a"]);
    let kept: Vec<_> = window.segments().map(|(name, segment)| (name, segment.predictions)).collect();
    assert_eq!(kept, [("a", 2), ("b", 1)]);
    assert_eq!((window.other().predictions, window.other().metrics.confusion().false_positives), (3, 3));
    assert_eq!(window.total().labelled, 6);
    assert_eq!(fed(&["a", "a", "b", "c", "d", "d"]), window);

    let none = LabelJoin::new(
        BinaryMetrics::default(),
        JoinConfig { segments: 0, ..JoinConfig::new(MINUTE, MINUTE) },
        0,
    );
    let mut none = none.unwrap();
    none.predict("a", 0, "s", sure());
    assert_eq!(none.open_windows().next().unwrap().other().predictions, 1);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let good = JoinConfig::new(MINUTE, MINUTE);
    for (config, message) in [
        (JoinConfig { window: 0, ..good.clone() }, "`window` is 0 us: give a length of time above 0"),
        (JoinConfig { lateness: -1, ..good.clone() }, "`lateness` is -1 us: give a length of time above 0"),
        (
            JoinConfig { memory: 0, ..good.clone() },
            "`memory` is 0 us: give at least `window + lateness`, 120000000 us",
        ),
        (
            JoinConfig::new(1, MINUTE),
            "`lateness` of 60000000 us spans more than 10000 windows of 1 us: give longer windows",
        ),
    ] {
        let error: JoinError = LabelJoin::new(BinaryMetrics::default(), config, 0).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn other_kinds_of_metrics_survive_a_restart_too() {
    fn check<A>(empty: A, rows: &[(A::Prediction, A::Label)])
    where
        A: Accumulator + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
        A::Prediction: serde::Serialize + serde::de::DeserializeOwned,
        A::Label: serde::Serialize + serde::de::DeserializeOwned,
    {
        let mut join = LabelJoin::new(empty, JoinConfig::new(MINUTE, MINUTE), 0).unwrap();
        for (index, (prediction, label)) in rows.iter().enumerate() {
            join.predict(&index.to_string(), 1, "s", prediction.clone());
            join.label(&index.to_string(), 2, *label);
            join.label(&format!("waiting {index}"), 2, *label);
        }
        let file = serde_json::to_string(&join.state()).unwrap();
        let read = LabelJoin::<A>::restore(serde_json::from_str(&file).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&read.state()).unwrap(), file);
        assert_eq!(read.waiting_labels(), rows.len());
    }
    check(
        RegressionMetrics::default(),
        &[(Number(1.0), Number(2.0)), (Number(f64::NAN), Number(f64::INFINITY))],
    );
    let of = |class, probabilities| MulticlassPrediction { class, probabilities };
    check(
        MulticlassMetrics::new(2),
        &[(of(0, vec![0.6, 0.4]), 1), (of(1, vec![f64::NAN, 0.4]), 1), (of(0, vec![]), 0)],
    );
}

#[test]
fn windows_of_two_replicas_are_one() {
    let fed = |ids: std::ops::Range<u32>| {
        let mut join = join(|config| config.segments = 2);
        for id in ids {
            let segment = ["c", "a", "b"][id as usize % 3];
            join.predict(&id.to_string(), 1, segment, sure());
            join.label(&id.to_string(), 2, id % 4 == 0);
        }
        join.open_windows().next().unwrap().clone()
    };
    let mut merged = fed(0..1);
    merged.merge(&fed(1..20), 2, &BinaryMetrics::default());
    assert_eq!(merged, fed(0..20));
}
