//! What stands in the rows.

use arrow::{
    array::{
        BooleanArray, Decimal128Array, DictionaryArray, Float32Array, Int64Array, ListBuilder, StringBuilder,
        StructArray, TimestampNanosecondArray, UInt64Array,
    },
    datatypes::{Int8Type, Int64Type, TimestampMicrosecondType},
};
use serde_json::json;

use super::*;

#[test]
fn a_request_is_logged_with_what_was_asked_answered_and_replied() {
    let log = Log::new(json!({"versions": ["model_version", "rules_version"]}));
    let run = RunId(0xab);
    log.recorder.observe(run, INPUT, &input("a", 3), |row| Some(row as u32));
    // A filter lets rows 2 and 0 pass, in that order.
    log.recorder.observe(run, SCORE, &score("a", 2), |row| Some([2, 0][row]));
    let degraded = ["enrich".to_owned(), "score".to_owned()];
    let versions = Arc::from(["v7".to_owned(), "m3".to_owned()]);
    let ended =
        Finished { outcome: "timed_out", degraded: &degraded, versions, ..finished(run, Some("a"), START) };
    log.recorder.finish(ended);
    assert_eq!(log.writer().flush(START).unwrap(), Drained { rows: 3, files: 1, ..Drained::default() });

    let rows = log.rows();
    assert_eq!(rows.schema().fields().len(), log.recorder.schema().fields().len());
    assert_eq!(names(&rows), [("a".into(), 0), ("a".into(), 1), ("a".into(), 2)]);
    let all = |name: &str, value: Option<&str>| {
        assert_eq!(texts(&rows, name), vec![value.map(str::to_owned); 3], "{name}");
    };
    all("run", Some("00000000000000ab"));
    all("outcome", Some("timed_out"));
    all("graph_version", Some("v7"));
    all("model_version", Some("m3"));
    all("rules_version", None);
    assert_eq!(column(&rows, "at").as_primitive::<TimestampMicrosecondType>().values(), &[START; 3]);
    assert_eq!(column(&rows, "took_us").as_primitive::<Int64Type>().values(), &[250; 3]);
    let degraded = column(&rows, "degraded").as_list::<i32>().value(1);
    assert_eq!(degraded.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["enrich", "score"]);
    assert_eq!(booleans(&rows, "input__seen"), [true; 3]);
    assert_eq!(floats(&rows, "input__amount"), [Some(0.0), Some(1.0), Some(2.0)]);
    assert_eq!(booleans(&rows, "score__seen"), [true, false, true]);
    let scores = floats(&score("a", 2), "probability");
    assert_eq!(floats(&rows, "score__probability"), [scores[1], None, scores[0]]);
}

#[test]
fn rows_that_lost_their_place_are_counted_and_those_of_others_logged() {
    let log = Log::new(json!({}));
    let run = RunId(1);
    log.recorder.observe(run, INPUT, &input("a", 2), |row| Some(row as u32));
    log.recorder.observe(run, SCORE, &score("a", 5), |_| None);
    log.recorder.observe(run, SCORE, &score("a", 2), |row| (row == 1).then_some(1));
    // Row 1 came already.
    log.recorder.observe(run, SCORE, &score("b", 1), |_| Some(1));
    // Another schema than the edge has.
    log.recorder.observe(run, SCORE, &input("a", 2), |row| Some(row as u32));
    log.recorder.observe(run, 99, &input("a", 2), |row| Some(row as u32));
    log.recorder.finish(finished(run, Some("a"), START));
    log.writer().flush(START).unwrap();
    let rows = log.rows();
    assert_eq!(booleans(&rows, "score__seen"), [false, true]);
    assert_eq!(floats(&rows, "score__probability")[1], floats(&score("a", 2), "probability")[1]);
    let counts = log.recorder.counts();
    assert_eq!((counts.rows_lost, counts.rows_repeated, counts.rows_mismatched), (6, 1, 4));
    assert_eq!((counts.rows_written, log.recorder.open_rows(), log.recorder.waiting_rows()), (2, 0, 0));
}

#[test]
fn runs_without_rows_leave_none_and_are_counted() {
    let log = Log::new(json!({}));
    log.recorder.finish(finished(RunId(1), Some("never observed"), START));
    log.recorder.observe(RunId(2), INPUT, &input("a", 2), |_| None);
    log.recorder.finish(finished(RunId(2), Some("lost"), START));
    log.recorder.observe(RunId(3), INPUT, &input("a", 2), |row| Some(row as u32));
    log.recorder.abandon(RunId(3));
    log.recorder.observe(RunId(4), INPUT, &input("a", 2), |row| Some(row as u32));
    log.recorder.finish(finished(RunId(4), None, i64::MAX));
    log.recorder.observe(RunId(5), INPUT, &input("a", 0), |row| Some(row as u32));
    log.recorder.finish(finished(RunId(5), Some("empty"), START));
    assert_eq!(log.writer().flush(START).unwrap(), Drained::default());
    let counts = log.recorder.counts();
    assert_eq!((counts.runs_unseen, counts.runs_abandoned, counts.runs_untimed), (3, 1, 1));
    assert_eq!((log.rows().num_rows(), log.recorder.open_rows()), (0, 0));
}

/// One column of each kind, with nulls, and floats that are no numbers in several ways.
fn every_kind() -> RecordBatch {
    let mut lists = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    for texts in [&["a", "b"][..], &[], &["", "ü"]] {
        texts.iter().for_each(|text| lists.values().values().append_value(text));
        lists.values().append(true);
        lists.values().append(false);
        lists.append(true);
    }
    lists.append(false);
    let nan = |payload: u64| Some(f64::from_bits(0x7ff8_0000_0000_0000 | payload));
    let floats = Float64Array::from(vec![nan(1), nan(0xdead), Some(-0.0), None]);
    let halves = Float32Array::from(vec![
        Some(f32::from_bits(0xffc0_0001)),
        Some(f32::NEG_INFINITY),
        Some(1e-45),
        None,
    ]);
    let point = StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(0), Some(i64::MAX)])) as ArrayRef,
    )]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("double", Arc::new(floats)),
        ("single", Arc::new(halves)),
        ("nested", Arc::new(lists.finish())),
        ("point", Arc::new(point)),
        ("unsigned", Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(0), None, Some(1)]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), None]))),
        (
            "when",
            Arc::new(TimestampNanosecondArray::from(vec![1, -1, i64::MAX, 0]).with_timezone("Europe/Paris")),
        ),
        (
            "money",
            Arc::new(
                Decimal128Array::from(vec![1, -1, i128::from(i64::MAX), 0])
                    .with_precision_and_scale(30, 4)
                    .unwrap(),
            ),
        ),
        ("nothing", arrow::array::new_null_array(&DataType::Null, 4)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

/// As `==`, but floats by their bits.
fn same_bits(a: &ArrayRef, b: &ArrayRef) -> bool {
    if a.data_type() == &DataType::Float64 {
        let bits = |array: &ArrayRef| {
            array.as_primitive::<Float64Type>().iter().map(|x| x.map(f64::to_bits)).collect::<Vec<_>>()
        };
        return bits(a) == bits(b);
    }
    if a.data_type() == &DataType::Float32 {
        let bits = |array: &ArrayRef| {
            array
                .as_primitive::<arrow::datatypes::Float32Type>()
                .iter()
                .map(|x| x.map(f32::to_bits))
                .collect::<Vec<_>>()
        };
        return bits(a) == bits(b);
    }
    a == b
}

#[test]
fn values_and_types_are_kept_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let settings = json!({"path": folder.path()});
    let settings: RecordSettings = serde_json::from_value(settings).unwrap();
    let rows = every_kind();
    let edges = [Watched { name: "all".to_owned(), schema: rows.schema() }];
    let recorder = Arc::new(Recorder::new("kinds", &settings, &edges, |_| None).unwrap());
    let mut writer = Writer::open(Arc::clone(&recorder)).unwrap();
    // Twice, so that files are put together too.
    for id in ["a", "b"] {
        recorder.observe(RunId(1), 0, &rows, |row| Some(row as u32));
        recorder.finish(finished(RunId(1), Some(id), START));
        writer.flush(START).unwrap();
    }
    let check = |what: &str| {
        for id in ["a", "b"] {
            let found = Reader::open(recorder.folder()).unwrap().request(id).unwrap().unwrap();
            for field in rows.schema().fields() {
                let logged = column(&found, &format!("all__{}", field.name()));
                assert_eq!(logged.data_type(), field.data_type(), "{what}: {}", field.name());
                assert!(
                    same_bits(&logged, &column(&rows, field.name())),
                    "{what}: {} is {logged:?}",
                    field.name()
                );
            }
        }
    };
    check("as written");
    assert_eq!(writer.drain(START + 2 * HOUR).unwrap().compacted, 2);
    check("compacted");
}

#[test]
fn dictionaries_are_logged_as_their_values_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let settings: RecordSettings = serde_json::from_value(json!({"path": folder.path()})).unwrap();
    let batch = |id: usize| {
        let values: DictionaryArray<Int8Type> =
            [Some(format!("value {id}")), None].iter().map(|x| x.as_deref()).collect();
        RecordBatch::try_from_iter_with_nullable([("d", Arc::new(values) as ArrayRef, true)]).unwrap()
    };
    let edges = [Watched { name: "e".to_owned(), schema: batch(0).schema() }];
    let recorder = Arc::new(Recorder::new("g", &settings, &edges, |_| None).unwrap());
    // More values together than one dictionary of this type can have.
    for id in 0..300 {
        recorder.observe(RunId(1), 0, &batch(id), |row| Some(row as u32));
        recorder.finish(finished(RunId(1), Some(&format!("{id:03}")), START));
    }
    assert_eq!(Writer::open(Arc::clone(&recorder)).unwrap().flush(START).unwrap().rows, 600);
    let reader = Reader::open(recorder.folder()).unwrap();
    for id in [0, 127, 128, 299] {
        let found = reader.request(&format!("{id:03}")).unwrap().unwrap();
        assert_eq!(texts(&found, "e__d"), [Some(format!("value {id}")), None]);
        assert_eq!(column(&found, "e__d").data_type(), &DataType::Utf8);
    }
}

#[test]
fn personal_columns_never_reach_the_disk() {
    let log = Log::new(json!({"drop": ["score__probability"], "hash": ["customer"], "secret": "env:SECRET"}));
    log.request("alice", START, 2);
    log.writer().flush(START).unwrap();
    let rows = log.rows();
    assert!(rows.column_by_name("score__probability").is_none());
    assert_eq!(booleans(&rows, "score__seen"), [true; 2]);
    let hashed = super::super::personal::Hmac::new(b"0123456789abcdef")
        .column(&column(&input("alice", 2), "customer"));
    assert_eq!(column(&rows, "input__customer").as_ref(), hashed.unwrap().as_ref());
    for path in log.files() {
        // Statistics are not compressed, so a value would stand there as it is.
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"alice-0"), "{path:?}");
        assert!(bytes.windows(5).any(|window| window == b"alice"), "the request's id is no personal column");
    }
}

#[test]
fn every_replica_samples_the_same_requests() {
    let sampled = |replica: &str, first: u64| {
        let log = Log::new(json!({"sample": 0.2, "replica": replica, "buffer_rows": 10_000}));
        for i in 0..2000 {
            let (id, run) = (format!("r{i}"), RunId(first + i));
            log.recorder.observe(run, INPUT, &input(&id, 1), |_| Some(0));
            log.recorder.finish(finished(run, Some(&id), START));
        }
        log.writer().flush(START).unwrap();
        let logged: Vec<String> = log.logged().into_keys().map(|(id, _)| id).collect();
        assert_eq!(log.recorder.counts().runs_unsampled as usize, 2000 - logged.len());
        logged
    };
    let one = sampled("one", 0);
    // 0.2 of 2000, within four standard deviations.
    assert!(one.len().abs_diff(400) < 72, "{}", one.len());
    assert_eq!(one, sampled("two", 1 << 40));
}

#[test]
fn a_key_samples_rows_and_all_requests_of_a_value() {
    let log = Log::new(json!({"sample": 0.5, "key": "customer", "buffer_rows": 100_000}));
    let customers = |ids: &[Option<&str>]| {
        let amounts = Float64Array::from(vec![0.0; ids.len()]);
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(ids.to_vec())), Arc::new(amounts)];
        RecordBatch::try_new(input("", 0).schema(), columns).unwrap()
    };
    let names: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
    for request in 0..5 {
        let mut ids: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        ids.push(None);
        ids.rotate_left(request * 7);
        log.recorder.observe(RunId(1), INPUT, &customers(&ids), |row| Some(row as u32));
        log.recorder.finish(finished(RunId(1), Some(&format!("r{request}")), START));
    }
    log.writer().flush(START).unwrap();
    let mut counts = BTreeMap::<Option<String>, usize>::new();
    for customer in texts(&log.rows(), "input__customer") {
        *counts.entry(customer).or_default() += 1;
    }
    let of_none = counts.remove(&None).unwrap_or(0);
    let sample = super::super::sample::Sample::new(0.5);
    let by_name = (0..5).filter(|request| sample.keeps(format!("r{request}").as_bytes())).count();
    assert_eq!(of_none, by_name, "a row without a key is chosen by its request");
    assert!(counts.len().abs_diff(50) < 20 && counts.values().all(|count| *count == 5), "{counts:?}");
    let kept = names.iter().filter(|name| sample.keeps(name.as_bytes())).cloned().map(Some);
    assert_eq!(counts.into_keys().collect::<Vec<_>>(), {
        let mut kept: Vec<_> = kept.collect();
        kept.sort();
        kept
    });
}
