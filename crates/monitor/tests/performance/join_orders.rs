//! Predictions and labels in any order, and any input at all.

use millstream_monitor::performance::{
    Accumulator, BinaryMetrics, BinaryPrediction, JoinConfig, LabelJoin, Window,
};
use proptest::prelude::*;

use super::{
    any_probability,
    join::{MINUTE, join},
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_predictions_and_labels_gives_equal_windows(
        (events, shuffled) in any_events().prop_flat_map(|events| {
            (Just(events.clone()), Just(events).prop_shuffle())
        }),
        restart in 0_usize..80,
    ) {
        let cap = |config: &mut JoinConfig| config.segments = 3;
        let (mut straight, mut other) = (join(cap), join(cap));
        straight.advance(7 * MINUTE);
        for event in &events {
            feed(&mut straight, event);
        }
        other.advance(7 * MINUTE);
        for (index, event) in shuffled.iter().enumerate() {
            if index == restart {
                let file = serde_json::to_string(&other.state()).unwrap();
                other = LabelJoin::restore(serde_json::from_str(&file).unwrap()).unwrap();
            }
            feed(&mut other, event);
        }
        prop_assert_eq!(contents(&straight), contents(&other));
        prop_assert_eq!(straight.delays(), other.delays());
        prop_assert_eq!(straight.counts().joined, other.counts().joined);

        // And equal to what is true of each prediction in the end, without any table.
        let mut total = BinaryMetrics::default();
        for event in &events {
            let Event::Predict { id, at, prediction, .. } = event else { continue };
            let labels = events.iter().filter_map(|event| match event {
                Event::Label { id: of, at: dated, label }
                    if of == id && (dated - at).abs() <= 10 * MINUTE && *dated <= 17 * MINUTE =>
                {
                    Some((*dated, *label))
                }
                _ => None,
            });
            if let Some((_, label)) = labels.max() {
                total.observe(prediction, label);
            }
        }
        let mut joined = BinaryMetrics::default();
        for window in straight.open_windows() {
            joined.merge(&window.total().metrics);
        }
        prop_assert_eq!(joined, total);
    }

    #[test]
    fn no_input_breaks_a_join(
        events in prop::collection::vec((any::<bool>(), 0_u8..6, any::<i64>(), any::<bool>(), any::<i64>()), 0..40),
    ) {
        let mut join = join(|config| {
            config.capacity = 3;
            config.waiting = 2;
            config.segments = 1;
        });
        for (predict, id, at, label, now) in events {
            let at = if label { at } else { at % (20 * MINUTE) };
            if predict {
                join.predict(&id.to_string(), at, "s", BinaryPrediction { positive: label, probability: 0.5 });
            } else {
                join.label(&id.to_string(), at, label);
            }
            join.advance(now % (30 * MINUTE));
            prop_assert!(join.held_predictions() <= 3 && join.waiting_labels() <= 2);
            prop_assert!(join.open_windows().len() <= 33);
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Predict { id: u8, at: i64, segment: u8, prediction: BinaryPrediction },
    Label { id: u8, at: i64, label: bool },
}

/// Predictions with unique ids, and up to three labels for each, dated so that every order has them in time.
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let label = (-3 * MINUTE..12 * MINUTE, any::<bool>());
    let one = (0..5 * MINUTE, 0_u8..5, any::<bool>(), any_probability(), prop::collection::vec(label, 0..4));
    prop::collection::vec(one, 0..20).prop_map(|rows| {
        let mut events = Vec::new();
        for (id, (at, segment, positive, probability, labels)) in (0..).zip(rows) {
            events.push(Event::Predict {
                id,
                at,
                segment,
                prediction: BinaryPrediction { positive, probability },
            });
            events.extend(labels.into_iter().map(|(delay, label)| Event::Label {
                id,
                at: at + delay,
                label,
            }));
        }
        events
    })
}

fn feed(join: &mut LabelJoin<BinaryMetrics>, event: &Event) {
    match event {
        Event::Predict { id, at, segment, prediction } => {
            join.predict(&id.to_string(), *at, &segment.to_string(), *prediction);
        }
        Event::Label { id, at, label } => {
            join.label(&id.to_string(), *at, *label);
        }
    }
}

/// Windows as the order of events must not change them: all but the version.
fn contents(join: &LabelJoin<BinaryMetrics>) -> Vec<String> {
    let window = |window: &Window<BinaryMetrics>| {
        let mut json = serde_json::to_value(window).unwrap();
        assert!(json.as_object_mut().unwrap().remove("version").is_some());
        json.to_string()
    };
    join.open_windows().map(window).collect()
}
