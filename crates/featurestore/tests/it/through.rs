//! Sets whose rows pass a graph first: what is stored, and what is told of the rows that came.

use std::{fs, sync::Arc};

use arrow::{
    array::{Array, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use millstream_featurestore::{
    FeatureSetSpec, Gap, LoadOptions, Passage, Passed, Passing, Pick, Positions, Read, Selection, Stores,
    WritableSet, WriteError, wait,
};
use millstream_graph::rows;
use serde_json::{Value, json};

/// A graph of which each event becomes as many rows as its text has words of digits: `7 8` is a count of 7, then one of 8. `-` is
/// no row, other text cannot pass.
struct Words {
    takes: SchemaRef,
    gives: SchemaRef,
    /// Answers the rows the last first.
    backwards: bool,
}

impl Words {
    fn new() -> Self {
        let of = |names: [(&str, DataType); 3]| {
            let field = |(name, data_type): (&str, DataType)| Field::new(name, data_type, true);
            Arc::new(Schema::new(names.map(field).to_vec()))
        };
        Self {
            takes: of([("card", DataType::Int64), ("text", DataType::Utf8), ("when", DataType::Int64)]),
            gives: of([("card_id", DataType::Int64), ("count", DataType::Int64), ("at", DataType::Int64)]),
            backwards: false,
        }
    }
}

impl Passage for Words {
    fn name(&self) -> &str {
        "words"
    }

    fn takes(&self) -> &SchemaRef {
        &self.takes
    }

    fn gives(&self) -> &SchemaRef {
        &self.gives
    }

    fn pass(&self, rows: RecordBatch) -> Passing<'_> {
        let (mut of, mut counts, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (row, text) in rows["text"].as_string::<i32>().iter().enumerate() {
            for word in text.unwrap_or("-").split(' ').filter(|word| *word != "-") {
                match word.parse::<i64>() {
                    Ok(count) => {
                        of.push(row);
                        counts.push(count);
                    }
                    Err(error) => refused.push((row, error.to_string())),
                }
            }
        }
        if self.backwards {
            of.reverse();
            counts.reverse();
        }
        let column = |name: &str| {
            let values = rows[name].as_primitive::<Int64Type>();
            Arc::new(
                of.iter().map(|&row| values.is_valid(row).then(|| values.value(row))).collect::<Int64Array>(),
            )
        };
        let columns: Vec<Arc<dyn Array>> =
            vec![column("card"), Arc::new(Int64Array::from(counts)), column("when")];
        let rows = RecordBatch::try_new(Arc::clone(&self.gives), columns).unwrap();
        Box::pin(async move { Ok(Passed { rows, of, refused }) })
    }
}

fn spec() -> Value {
    json!({
        "keys": ["card_id"], "types": { "card_id": "int64" }, "features": { "count": "int64" }, "timestamp": "at",
        "through": "words", "rules": { "small": "count < 100" }, "aside": { "path": "aside.jsonl" },
        "online": { "local": { "path": "cards" } },
    })
}

/// The condition `count < 100`.
fn options() -> LoadOptions {
    let conditions = millstream_featurestore::Conditions::new(|_, columns| {
        let at = columns.index_of("count").map_err(|error| error.to_string())?;
        let keep = move |rows: &RecordBatch| {
            let counts = rows.column(at).as_primitive::<Int64Type>();
            Ok(counts.iter().map(|count| count.map(|count| count < 100)).collect())
        };
        Ok(millstream_featurestore::Condition { reads: vec![at], predicate: Arc::new(keep) })
    });
    LoadOptions { conditions, ..LoadOptions::default() }
}

struct Opened {
    set: Arc<WritableSet>,
    /// Sets do not own it.
    passage: Arc<dyn Passage>,
    folder: tempfile::TempDir,
}

fn opened(words: Words) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let spec: FeatureSetSpec = serde_json::from_value(spec()).unwrap();
    let set = spec.open("cards", folder.path(), &Stores::new(), &options()).unwrap();
    let set = Arc::clone(set.writable().unwrap());
    let passage: Arc<dyn Passage> = Arc::new(words);
    set.bind(&passage).unwrap();
    Opened { set, passage, folder }
}

/// Events of card 7 with these texts, a microsecond after each other.
fn events(texts: &[&str]) -> RecordBatch {
    let rows = texts.len() as i64;
    let text: StringArray = texts.iter().map(|text| Some(*text)).collect();
    let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as Arc<dyn Array>;
    let columns = vec![column(vec![7; texts.len()]), Arc::new(text) as _, column((1..=rows).collect())];
    RecordBatch::try_new(Words::new().takes, columns).unwrap()
}

fn count(set: &WritableSet) -> Option<i64> {
    let picks = vec![Pick { feature: 0, missing: Gap::Null, null: Gap::Null }];
    let selection = Selection::new(set.set(), &[0], picks).unwrap();
    let Read::Ready(found) = set.table().read(&rows! { card_id: [7_i64] }, &selection) else {
        panic!("not local")
    };
    let counts = found.unwrap().columns[0].as_primitive::<Int64Type>().clone();
    counts.is_valid(0).then(|| counts.value(0))
}

/// What became of events, by name, and the count that card 7 has then.
#[track_caller]
fn check(words: Words, texts: &[&str], expected: &[&str], counted: Option<i64>) -> Opened {
    let opened = opened(words);
    let changes = opened.set.changes(events(texts)).unwrap();
    let written = wait(opened.set.write(changes).get()).unwrap();
    let outcomes: Vec<_> = written.rows.iter().map(|outcome| outcome.name()).collect();
    assert_eq!(outcomes, expected, "{written:?}");
    assert_eq!(count(&opened.set), counted);
    opened
}

#[test]
fn each_row_that_came_hears_what_became_of_what_the_graph_made_of_it() {
    check(Words::new(), &["3", "-", "5"], &["taken", "filtered", "taken"], Some(5));
    check(Words::new(), &["-"], &["filtered"], None);
    check(Words::new(), &["3", "x", "5 6"], &["taken", "refused", "taken"], Some(6));
    // Of several rows of an event the worst counts.
    check(Words::new(), &["3", "4 x"], &["taken", "refused"], Some(4));
    check(
        Words { backwards: true, ..Words::new() },
        &["3", "x", "5"],
        &["taken", "refused", "taken"],
        Some(5),
    );
}

#[test]
fn rows_are_told_of_and_set_aside_as_they_came() {
    let opened =
        check(Words::new(), &["3", "x", "-", "100"], &["taken", "refused", "filtered", "refused"], Some(3));
    let receipt = wait(opened.set.erase(rows! { card_id: [8_i64] })).unwrap();
    assert_eq!((receipt.set_aside, receipt.beyond.len()), (0, 1), "{receipt:?}");
    let aside = fs::read_to_string(opened.folder.path().join("aside.jsonl")).unwrap();
    let lines: Vec<Value> = aside.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (&line["row"], line["reason"].as_str().unwrap())).collect();
    assert_eq!([&lines[0]["keys"], &lines[1]["keys"]], [&json!([]), &json!([{ "card_id": 7 }])]);
    assert_eq!(
        told,
        [
            (&json!({ "card": 7, "text": "x", "when": 2 }), "graph `words`: invalid digit found in string"),
            (&json!({ "card": 7, "text": "100", "when": 4 }), "rule `small`: `count < 100` is not true"),
        ]
    );
    // What became of the row is known, of the one that did not pass it is not.
    let receipt = wait(opened.set.erase(rows! { card_id: [7_i64] })).unwrap();
    assert_eq!((receipt.removed, receipt.set_aside, receipt.beyond.len()), (1, 1, 1), "{receipt:?}");
}

#[test]
fn positions_and_ids_are_those_of_the_events_and_what_was_left_out_has_been_read() {
    let Opened { set, passage, folder } = opened(Words::new());
    let write = |texts: &[&str], first: u64| {
        let offsets = (first..).take(texts.len()).collect();
        let changes = set.changes(events(texts)).unwrap().at(Positions::new("tx", 0, offsets));
        let written = wait(set.write(changes).get()).unwrap();
        written.rows.iter().map(|outcome| outcome.name()).collect::<Vec<_>>()
    };
    assert_eq!(write(&["1", "2 3", "-"], 10), ["taken", "taken", "filtered"]);
    assert_eq!(wait(set.table().mark("tx", 0).get()).unwrap(), Some(12));
    assert_eq!(write(&["1", "2 3", "-", "4"], 10), ["repeated", "repeated", "filtered", "taken"]);

    let ids = |texts: &[&str]| {
        let changes = set.changes(events(texts)).unwrap();
        let changes = changes.ids((0..texts.len()).map(|row| Some(format!("event {row}"))));
        let written = wait(set.write(changes).get()).unwrap();
        written.rows.iter().map(|outcome| outcome.name()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["-", "5 6"])[0], "filtered");
    assert_eq!(count(&set), Some(4), "the events are older");
    assert_eq!(ids(&["-", "5 6"]), ["filtered", "repeated"]);
    drop((passage, folder));
}

#[test]
fn without_its_graph_a_set_takes_nothing_and_says_why() {
    let spec: FeatureSetSpec = serde_json::from_value(spec()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let set = spec.open("cards", folder.path(), &Stores::new(), &options()).unwrap();
    let set = set.writable().unwrap();
    let write = || wait(set.write(set.changes(events(&["1"])).unwrap()).get());
    let error = write().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "graph `words`, which its rows pass, does not run here");
    let passage: Arc<dyn Passage> = Arc::new(Words::new());
    set.bind(&passage).unwrap();
    assert!(write().is_ok());
    assert_eq!(set.bind(&passage).unwrap_err(), ["rows of feature set `cards` pass a graph already"]);
    drop(passage);
    assert!(matches!(write(), Err(WriteError::Closed)));
}

#[test]
fn a_graph_that_does_not_answer_the_columns_of_the_set_is_refused_with_every_problem() {
    let mut words = Words::new();
    words.gives = Arc::new(Schema::new(vec![
        Field::new("card_id", DataType::Binary, true),
        Field::new("counts", DataType::Int64, true),
        Field::new("at", DataType::Boolean, true),
    ]));
    let folder = tempfile::tempdir().unwrap();
    let spec: FeatureSetSpec = serde_json::from_value(spec()).unwrap();
    let set = spec.open("cards", folder.path(), &Stores::new(), &options()).unwrap();
    let passage: Arc<dyn Passage> = Arc::new(words);
    assert_eq!(
        set.writable().unwrap().bind(&passage).unwrap_err(),
        [
            "what graph `words` answers: column `card_id` is Binary, not Int64",
            "what graph `words` answers: no column `count`; did you mean `counts`?",
            "what graph `words` answers: column `at` is Boolean; a time is a timestamp, a date or a whole number of microseconds",
        ]
    );
}
