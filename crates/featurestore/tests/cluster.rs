//! Training sets and queries on a Ballista cluster of one scheduler and two executors: what they answer is what one machine does.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::{num::NonZero, path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::{DataType, Float64Type},
};
use futures_util::TryStreamExt;
use millstream_featurestore::{
    AggregateSpec, Condition, Conditions, FeatureSet, FeatureSetBuilder, Policy, Predicate,
    offline::{
        AsOf, Cluster, Executor, HistoryError, Log, LogSchema, OfflineLimits, OfflineSet, OfflineStore,
        Scheduler, Spine, Vector,
    },
};
use parquet::arrow::ArrowWriter;

const HOUR: i64 = 3_600_000_000;

/// A number that looks like chance, the same each time.
fn scattered(row: usize, salt: u64) -> i64 {
    let bits = (row as u64 + 1).wrapping_add(salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20) as i64
}

fn ints(rows: usize, value: impl Fn(usize) -> Option<i64>) -> ArrayRef {
    Arc::new((0..rows).map(value).collect::<Int64Array>())
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// A set in a log of its own.
async fn set(folder: &Path, set: FeatureSetBuilder, rows: &RecordBatch, as_of: AsOf) -> OfflineSet {
    let set = set.build_with(&|text| Ok(Arc::new(large(text)))).unwrap();
    let log = Log::local(folder.join(set.name()), LogSchema::of(&set).unwrap()).await.unwrap();
    let half = rows.num_rows() / 2;
    log.append(0, &rows.slice(0, half)).await.unwrap();
    log.append(half as u64, &rows.slice(half, rows.num_rows() - half)).await.unwrap();
    OfflineSet::of(&set, log.table()).unwrap().as_of(as_of)
}

/// The one condition there is: that an amount is large.
fn large(text: &str) -> impl Predicate + use<> {
    assert_eq!(text, "amount > 1000");
    |rows: &RecordBatch| {
        let amounts = rows.column_by_name("amount").unwrap().as_primitive::<Float64Type>();
        Ok(amounts.iter().map(|amount| Some(amount.is_some_and(|amount| amount > 1000.0))).collect())
    }
}

fn conditions() -> Conditions {
    Conditions::new(|text, columns| {
        Ok(Condition { reads: vec![columns.index_of("amount").unwrap()], predicate: Arc::new(large(text)) })
    })
}

/// Cards, which know their shop; shops; and what the cards spent over windows.
async fn sets(folder: &Path) -> [OfflineSet; 3] {
    let rows = 6000;
    let texts: StringArray =
        (0..rows).map(|row| (row % 7 > 0).then(|| format!("s{}", scattered(row, 1) % 40))).collect();
    let amounts: Float64Array =
        (0..rows).map(|row| (row % 11 > 0).then_some(scattered(row, 2) as f64 / 7.0)).collect();
    let cards = batch([
        ("card", ints(rows, |row| Some(scattered(row, 3) % 300))),
        ("shop", Arc::new(texts)),
        ("amount", Arc::new(amounts)),
        ("_event", ints(rows, |row| Some(scattered(row, 4) % 500 * HOUR))),
        ("_created", ints(rows, |row| Some(scattered(row, 5) % 500 * HOUR))),
    ]);
    let names: StringArray = (0..900).map(|row| Some(format!("s{}", row % 40))).collect();
    let shops = batch([
        ("shop", Arc::new(names)),
        ("rank", ints(900, |row| (row % 5 > 0).then_some(scattered(row, 6) % 1000))),
        ("_event", ints(900, |row| Some(scattered(row, 7) % 500 * HOUR))),
    ]);
    let of_cards = FeatureSet::builder("cards")
        .key("card", DataType::Int64)
        .feature("shop", DataType::Utf8)
        .feature("amount", DataType::Float64);
    let of_shops = FeatureSet::builder("shops").key("shop", DataType::Utf8).feature("rank", DataType::Int64);
    let ttl = AsOf { ttl: Some(Duration::from_secs(40 * 3600)), ..AsOf::default() };
    let aggregates: Vec<AggregateSpec> = serde_json::from_str(
        r#"[{"column": "amount", "functions": ["count", "sum", "p50"], "windows": ["6h", "2d"]},
            {"column": "amount", "functions": ["avg"], "windows": ["3d"], "where": "amount > 1000", "name": "large"}]"#,
    )
    .unwrap();
    let spent = FeatureSet::builder("spent")
        .key("card", DataType::Int64)
        .event_column("amount", DataType::Float64)
        .aggregates(aggregates, Duration::from_secs(3600 * 1000));
    let events = cards.project(&[0, 2, 3, 4]).unwrap();
    [
        set(folder, of_cards, &cards, ttl).await,
        set(folder, of_shops, &shops, AsOf::default()).await,
        set(folder, spent, &events, AsOf::default()).await,
    ]
}

fn spine() -> RecordBatch {
    let rows = 5000;
    batch([
        ("card", ints(rows, |row| (row % 13 > 0).then(|| scattered(row, 8) % 320))),
        ("at", ints(rows, |row| (row % 17 > 0).then(|| scattered(row, 9) % 600 * HOUR))),
        ("note", ints(rows, |row| Some(row as i64))),
    ])
}

fn vector() -> Vector {
    Vector::new("all")
        .features(["cards.*", "shops.rank AS rank", "spent.*"])
        .by("shops", ["cards.shop"])
        .missing_of("amount", Policy::Default(serde_json::json!(-1.5)))
        .label("shops.rank AS later", Duration::from_secs(3600))
}

async fn answer(store: &OfflineStore, vector: &Vector, spine: &Spine) -> Result<RecordBatch, HistoryError> {
    let mut set = store.history(vector, spine).await?;
    let mut batches = Vec::new();
    while let Some(batch) = set.next().await? {
        batches.push(batch);
    }
    Ok(concat_batches(&set.schema(), &batches).unwrap())
}

async fn rows(store: &OfflineStore, text: &str) -> RecordBatch {
    let stream = store.query(text).await.unwrap();
    let schema = stream.schema();
    concat_batches(&schema, &stream.try_collect::<Vec<_>>().await.unwrap()).unwrap()
}

fn store(partitions: usize, sets: &[OfflineSet]) -> OfflineStore {
    let limits = OfflineLimits { partitions: NonZero::new(partitions).unwrap(), ..OfflineLimits::default() };
    let mut store = OfflineStore::new(&limits).unwrap();
    for set in sets {
        store.insert(set.clone());
    }
    store
}

/// Runs `body` beside a cluster.
fn on_a_cluster<F: Future<Output = ()>>(body: impl FnOnce(Cluster) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let scheduler = Scheduler::bind("127.0.0.1:0".parse().unwrap(), conditions()).await.unwrap();
        let address = scheduler.address();
        let folder = tempfile::tempdir().unwrap();
        let executor = |name: &str| Executor {
            scheduler: address.into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            host: None,
            tasks: 2,
            memory: None,
            folder: Some(folder.path().join(name)),
            conditions: conditions(),
        };
        let (first, second) = (executor("first"), executor("second"));
        tokio::select! {
            ended = scheduler.serve() => panic!("{ended:?}"),
            ended = first.serve() => panic!("{ended:?}"),
            ended = second.serve() => panic!("{ended:?}"),
            () = body(Cluster::at(address)) => {}
        }
    });
}

/// Compares column by column, since all of it is too much to print.
fn same(got: &RecordBatch, expected: &RecordBatch, case: &str) {
    assert_eq!(got.schema(), expected.schema(), "{case}");
    assert_eq!(got.num_rows(), expected.num_rows(), "{case}");
    for (at, field) in expected.schema().fields().iter().enumerate() {
        let (got, expected) = (got.column(at), expected.column(at));
        let differs = (0..expected.len()).find(|&row| got.slice(row, 1) != expected.slice(row, 1));
        if let Some(row) = differs {
            panic!(
                "{case}: {} of row {row} is {:?}, not {:?}",
                field.name(),
                got.slice(row, 1),
                expected.slice(row, 1)
            );
        }
    }
}

#[test]
fn a_cluster_answers_what_one_machine_does() {
    on_a_cluster(|cluster| async move {
        let folder = tempfile::tempdir().unwrap();
        let sets = sets(folder.path()).await;
        let file = folder.path().join("spine.parquet");
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(&file).unwrap(), spine().schema(), None).unwrap();
        writer.write(&spine()).unwrap();
        writer.close().unwrap();
        let query =
            "SELECT count(*) AS rows, max(amount) AS most, shop FROM cards GROUP BY shop ORDER BY shop";
        let batches = (0..10).map(|part| spine().slice(part * 500, 500)).collect();
        let spines = [
            Spine::file(&file, "at"),
            Spine::batches(spine().schema(), batches, "at"),
            Spine::sql(
                "SELECT card, _event AS at, amount AS was FROM cards WHERE amount > 1000 ORDER BY _sequence",
                "at",
            ),
        ];
        for partitions in [1, 3, 4] {
            let (here, there) = (store(partitions, &sets), store(partitions, &sets).on(cluster.clone()));
            for spine in &spines {
                let expected = answer(&here, &vector(), spine).await.unwrap();
                assert!(expected.num_rows() > 1000);
                same(
                    &answer(&there, &vector(), spine).await.unwrap(),
                    &expected,
                    &format!("{partitions} {spine:?}"),
                );
            }
            assert_eq!(rows(&there, query).await, rows(&here, query).await);
        }
        let strict = Vector::new("strict").features(["cards.amount"]).missing(Policy::Fail);
        let error = answer(&store(2, &sets).on(cluster), &strict, &spines[0]).await.unwrap_err();
        assert!(format!("{error:?}").contains("no row"), "{error:?}");
    });
}

/// What a store says that asks a cluster where nobody answers.
fn refused(body: impl AsyncFnOnce(&Path, Cluster) -> HistoryError) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = body(folder.path(), Cluster::at(address)).await.to_string();
        error.replace(&address.to_string(), "ADDRESS")
    })
}

#[test]
fn a_cluster_that_is_not_there_is_named() {
    let error = refused(async |folder, cluster| {
        let store = store(2, &sets(folder).await).on(cluster);
        answer(&store, &vector(), &Spine::batches(spine().schema(), vec![spine()], "at")).await.unwrap_err()
    });
    assert_eq!(error, "no scheduler of a cluster answers at ADDRESS");
}

#[test]
fn what_only_this_process_has_is_refused_before_anything_is_sent() {
    let spine = || Spine::batches(spine().schema(), vec![spine()], "at");
    let elsewhere = refused(async |_, cluster| {
        let of_cards = FeatureSet::builder("cards").key("card", DataType::Int64);
        let set = of_cards.feature("amount", DataType::Float64).build().unwrap();
        let files = Arc::new(object_store::memory::InMemory::new());
        let log = Log::open(files, "cards".into(), LogSchema::of(&set).unwrap()).await.unwrap();
        let rows = batch([
            ("card", ints(1, |_| Some(7))),
            ("amount", Arc::new(Float64Array::from(vec![1.0]))),
            ("_event", ints(1, |_| Some(0))),
        ]);
        log.append(0, &rows).await.unwrap();
        let store = store(2, &[OfflineSet::of(&set, log.table()).unwrap()]).on(cluster);
        answer(&store, &Vector::new("amounts").features(["cards.*"]), &spine()).await.unwrap_err()
    });
    assert_eq!(
        elsewhere,
        "the log of feature set `cards` lies in an object store that this process alone knows; give a cluster logs in folders that \
         its machines share"
    );
    let tables = refused(async |folder, cluster| {
        let store = store(2, &sets(folder).await).on(cluster);
        store.query("SELECT * FROM information_schema.tables").await.err().unwrap()
    });
    assert_eq!(tables, "`information_schema` is read in this process alone; ask without a cluster");
    let large = refused(async |folder, cluster| {
        let store = store(2, &sets(folder).await).on(cluster);
        let spine = vec![self::spine(); 200];
        answer(&store, &vector(), &Spine::batches(spine[0].schema(), spine, "at")).await.unwrap_err()
    });
    assert!(large.contains("bytes with the rows that lie in memory, and 16777216 are sent"), "{large}");
}
