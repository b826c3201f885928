//! Stores against a plain map, and against each other.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    task::{Context, Waker},
};

use arrow::array::Int64Array;
use millstream_featurestore::{Answer, Changes, Durability, LocalOptions, LocalTable, Positions, Version};
use millstream_graph::rows;
use proptest::{collection::vec, option, prelude::*};

use super::{Subject, counts, ids, memory, on_each};

/// A row: key, value, event, created, id.
type Row = (i64, i64, i64, Option<i64>, Option<u8>);

#[derive(Clone, Debug)]
enum Op {
    /// Rows, and where in partition 0 they stand.
    Write(Vec<Row>, Option<u64>),
    Erase(i64),
    Purge,
    /// Of a folder: a snapshot that is begun and not waited for.
    Snapshot,
    /// Of a folder: closed and opened.
    Reopen,
}

const KEYS: std::ops::Range<i64> = 0..6;

fn row() -> impl Strategy<Value = Row> {
    let row = (KEYS, any::<i64>(), 0..4_i64, option::of(0..3_i64), option::of(0..4_u8));
    // An event that is sent again has the same keys.
    row.prop_map(|(key, n, event, created, id)| (key, n, event, created, id.map(|id| id * 10 + key as u8)))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (vec(row(), 0..6), option::of(0..12_u64)).prop_map(|(rows, at)| Op::Write(rows, at)),
        1 => KEYS.prop_map(Op::Erase),
        1 => Just(Op::Purge),
    ]
}

fn op_of_a_folder() -> impl Strategy<Value = Op> {
    prop_oneof![10 => op(), 2 => Just(Op::Snapshot), 1 => Just(Op::Reopen)]
}

fn changes(rows: &[Row], at: Option<u64>) -> Changes {
    let column = |of: fn(&Row) -> i64| rows.iter().map(of).collect::<Vec<_>>();
    let batch = rows! { id: column(|row| row.0), n: column(|row| row.1) };
    let created: Int64Array = rows.iter().map(|row| row.3).collect();
    let changes = Changes::new(batch, column(|row| row.2)).created(created);
    let changes = changes.ids(rows.iter().map(|row| row.4.map(|id| id.to_string())).collect::<Vec<_>>());
    match at {
        Some(at) => changes.at(Positions::new("s", 0, (at..at + rows.len() as u64).collect())),
        None => changes,
    }
}

/// What a store must do, as plainly as it can be said.
#[derive(Default)]
struct Model {
    rows: BTreeMap<i64, (Version, i64)>,
    mark: Option<u64>,
    ids: HashSet<u8>,
    sequence: u64,
}

impl Model {
    fn write(&mut self, rows: &[Row], at: Option<u64>) -> String {
        let mark = self.mark;
        let mut outcomes = Vec::new();
        for (i, &(key, value, event, created, id)) in rows.iter().enumerate() {
            let offset = at.map(|at| at + i as u64);
            self.mark = self.mark.max(offset);
            if offset.is_some() && offset <= mark || id.is_some_and(|id| !self.ids.insert(id)) {
                outcomes.push("repeated");
                continue;
            }
            self.sequence += 1;
            let version = Version { event, created, sequence: self.sequence };
            let newer = self.rows.get(&key).is_none_or(|(known, _)| version > *known);
            outcomes.push(if newer { "taken" } else { "older" });
            if newer {
                self.rows.insert(key, (version, value));
            }
        }
        outcomes.join(" ")
    }

    fn read(&self) -> String {
        let row = |key| self.rows.get(&key).map_or("-".to_owned(), |(_, value)| value.to_string());
        KEYS.map(row).collect::<Vec<_>>().join(" | ")
    }
}

/// Does the same to a store and to the model, and compares all that can be seen.
fn step(store: &Subject, model: &mut Model, op: &Op) {
    match op {
        Op::Write(rows, at) => {
            assert_eq!(store.write(changes(rows, *at)), model.write(rows, *at), "{op:?}");
        }
        Op::Erase(key) => {
            let removed = model.rows.remove(key).is_some();
            let receipt = store.get(store.table.erase(ids(&[*key]))).unwrap();
            assert_eq!(receipt.removed, u64::from(removed));
        }
        Op::Purge => {
            let receipt = store.get(store.table.purge()).unwrap();
            assert_eq!(receipt.removed, model.rows.len() as u64);
            *model = Model { sequence: model.sequence, ..Model::default() };
        }
        Op::Snapshot | Op::Reopen => unreachable!("only of a folder"),
    }
    assert_eq!(read(store), model.read(), "after {op:?}");
    assert_eq!(store.get(store.table.mark("s", 0)).unwrap(), model.mark, "after {op:?}");
}

fn read(store: &Subject) -> String {
    store.read(&ids(&KEYS.collect::<Vec<_>>()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_store_does_what_a_map_does(ops in vec(op(), 1..24)) {
        on_each(&counts(), None, |store| {
            let mut model = Model::default();
            ops.iter().for_each(|op| step(store, &mut model, op));
        });
    }

    #[test]
    fn a_folder_that_is_opened_again_has_what_it_had(ops in vec(op_of_a_folder(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let options = LocalOptions { segment_bytes: 700, durability: Durability::System, ..LocalOptions::default() };
            Arc::new(LocalTable::open(dir.path(), counts().build().unwrap(), options).unwrap())
        };
        let (mut table, mut model) = (open(), Model::default());
        for op in &ops {
            match op {
                Op::Snapshot => {
                    let Answer::Waits(mut begun) = table.snapshot() else { panic!("it is kept") };
                    let _ = begun.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
                Op::Reopen => {
                    drop(table);
                    table = open();
                }
                op => step(&Subject::over(Arc::clone(&table) as _, ()), &mut model, op),
            }
        }
        drop(table);
        let store = Subject::over(open(), ());
        assert_eq!(read(&store), model.read());
        assert_eq!(store.get(store.table.mark("s", 0)).unwrap(), model.mark);
    }

    #[test]
    fn rows_that_differ_in_time_lead_to_the_same_state_in_any_order_and_any_parts(
        rows in Just((0..24_i64).collect::<Vec<_>>()).prop_shuffle(), cuts in vec(1..6_usize, 24),
    ) {
        // Every row has an event or a created time of its own.
        let row = |i: &i64| (i % 5, *i, i / 10, Some(i % 10), None);
        let (sorted, shuffled) = (memory(counts().build().unwrap(), None), memory(counts().build().unwrap(), None));
        let in_order: Vec<_> = (0..24).map(|i| row(&i)).collect();
        sorted.write(changes(&in_order, None));
        let mut rest: Vec<Row> = rows.iter().map(row).collect();
        for cut in cuts {
            let part: Vec<_> = rest.drain(..cut.min(rest.len())).collect();
            shuffled.write(changes(&part, None));
        }
        prop_assert_eq!(read(&sorted), read(&shuffled));
    }
}
