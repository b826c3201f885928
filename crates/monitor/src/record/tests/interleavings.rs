//! Whatever the order in which runs are seen, end and are written: nothing is lost, and nothing is there twice.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    /// A run, an edge, and the places of the rows.
    Observe(u64, usize, Vec<Option<u32>>),
    /// A run, and when its request came, in minutes.
    Finish(u64, i64),
    Abandon(u64),
    /// Minutes go by first.
    Drain(i64),
    Flush,
    /// The process ends in good order and another goes on.
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let run = 0..6u64;
    let places = prop_oneof![
        (1..5u32).prop_map(|rows| (0..rows).map(Some).collect()),
        prop::collection::vec(prop::option::weighted(0.9, 0..8u32), 0..5),
    ];
    prop_oneof![
        8 => (run.clone(), 0..2usize, places).prop_map(|(run, edge, places)| Act::Observe(run, edge, places)),
        5 => (run.clone(), 0..240i64).prop_map(|(run, minute)| Act::Finish(run, minute)),
        1 => run.prop_map(Act::Abandon),
        3 => (0..90i64).prop_map(Act::Drain),
        1 => Just(Act::Flush),
        1 => Just(Act::Restart),
    ]
}

/// What a row must be in the log: the value on each edge that it came over.
type Row = [Option<f64>; 2];

#[derive(Default)]
struct Model {
    open: BTreeMap<u64, BTreeMap<u32, Row>>,
    ended: BTreeMap<(String, u32), Row>,
    observed: usize,
    finished: usize,
}

impl Model {
    fn apply(&mut self, act: &Act, recorder: &Recorder) {
        match act {
            Act::Observe(run, edge, places) => {
                // Each observed row has a value of its own.
                let values: Vec<f64> = places
                    .iter()
                    .map(|_| {
                        self.observed += 1;
                        self.observed as f64
                    })
                    .collect();
                recorder.observe(RunId(*run), *edge, &batch(*edge, &values), |row| places[row]);
                for (place, value) in places.iter().zip(values) {
                    if let Some(place) = place {
                        self.open.entry(*run).or_default().entry(*place).or_default()[*edge]
                            .get_or_insert(value);
                    }
                }
            }
            Act::Finish(run, minute) => {
                self.finished += 1;
                let id = format!("{}", self.finished);
                recorder.finish(finished(RunId(*run), Some(&id), START + minute * 60 * SECOND));
                let rows = self.open.remove(run).unwrap_or_default();
                self.ended.extend(rows.into_iter().map(|(row, values)| ((id.clone(), row), values)));
            }
            Act::Abandon(run) => {
                recorder.abandon(RunId(*run));
                self.open.remove(run);
            }
            Act::Drain(_) | Act::Flush | Act::Restart => {}
        }
    }
}

fn batch(edge: usize, values: &[f64]) -> RecordBatch {
    let values: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
    let columns = match edge {
        INPUT => vec![Arc::new(StringArray::from(vec!["c"; values.len()])) as ArrayRef, values],
        _ => vec![values],
    };
    RecordBatch::try_new(Arc::clone(&edges()[edge].schema), columns).unwrap()
}

/// Runs the acts; answers the log, what it must have, and what was counted.
fn run(acts: &[Act], settings: serde_json::Value) -> (Log, Model, crate::record::Counts) {
    let log = Log::new(settings);
    let (mut writer, mut model, mut now) = (log.writer(), Model::default(), START);
    for act in acts {
        model.apply(act, &log.recorder);
        match act {
            Act::Drain(minutes) => {
                now += minutes * 60 * SECOND;
                writer.drain(now).unwrap();
            }
            Act::Flush => drop(writer.flush(now).unwrap()),
            Act::Restart => {
                writer.flush(now).unwrap();
                drop(writer);
                writer = log.writer();
            }
            _ => {}
        }
    }
    writer.flush(now).unwrap();
    drop(writer);
    let counts = log.recorder.counts();
    (log, model, counts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_is_there_twice(acts in prop::collection::vec(act(), 1..60)) {
        let (log, model, counts) = run(&acts, json!({"open_for": "365d"}));
        let rows = log.rows();
        if rows.num_rows() == 0 {
            // An empty log has no columns.
            prop_assert!(model.ended.is_empty());
            return Ok(());
        }
        let values = [floats(&rows, "input__amount"), floats(&rows, "score__probability")];
        let seen = [booleans(&rows, "input__seen"), booleans(&rows, "score__seen")];
        let mut logged = BTreeMap::new();
        for (i, name) in names(&rows).into_iter().enumerate() {
            let row: Row = [values[0][i], values[1][i]];
            prop_assert_eq!([seen[0][i], seen[1][i]], row.map(|value| value.is_some()));
            prop_assert!(logged.insert(name.clone(), row).is_none(), "{:?} is there twice", name);
        }
        prop_assert_eq!(&logged, &model.ended);
        prop_assert_eq!(counts.rows_written as usize, logged.len());
        prop_assert_eq!((counts.rows_dropped, counts.observations_dropped, log.recorder.waiting_rows()), (0, 0, 0));
    }

    #[test]
    fn what_has_no_room_is_counted_to_the_row(acts in prop::collection::vec(act(), 1..80)) {
        let (log, model, counts) = run(&acts, json!({"buffer_rows": 4, "flush": "1h", "open_for": "365d"}));
        let logged = log.logged();
        prop_assert!(logged.values().all(|count| *count == 1));
        let unknown: BTreeSet<_> = logged.keys().filter(|row| !model.ended.contains_key(row)).collect();
        prop_assert!(unknown.is_empty(), "{:?}", unknown);
        prop_assert_eq!(counts.rows_written as usize, logged.len());
        // A request is there whole or not at all.
        for (id, _) in logged.keys() {
            let of = |rows: &mut dyn Iterator<Item = &(String, u32)>| rows.filter(|(other, _)| other == id).count();
            prop_assert_eq!(of(&mut logged.keys()), of(&mut model.ended.keys()));
        }
        let dropped_runs: BTreeSet<&String> = model.ended.keys().map(|(id, _)| id).collect();
        prop_assert!(counts.runs_dropped as usize <= dropped_runs.len());
        if counts.runs_dropped == 0 {
            prop_assert_eq!(logged.len() + counts.rows_dropped as usize, model.ended.len());
        }
    }
}

#[test]
fn threads_that_observe_end_and_write_at_once_lose_nothing() {
    const THREADS: usize = 4;
    const REQUESTS: usize = 300;
    let log = Log::new(json!({"open_for": "365d"}));
    let mut writer = log.writer();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let log = &log;
                scope.spawn(move || {
                    (0..REQUESTS).for_each(|i| log.request(&format!("{thread}-{i}"), START + i as i64, 2))
                })
            })
            .collect();
        let mut drains = 0;
        while !threads.iter().all(|thread| thread.is_finished()) {
            drains += 1;
            writer.flush(START + drains).unwrap();
        }
    });
    writer.flush(START).unwrap();
    let logged = log.logged();
    assert_eq!((logged.len(), logged.values().all(|count| *count == 1)), (THREADS * REQUESTS * 2, true));
}
