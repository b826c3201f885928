//! The store in Redis, against real servers on free ports: one, and a cluster of three.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::datatypes::DataType;
use millstream_featurestore::{
    Changes, Clock, Column, Enrich, FeatureSet, FeatureSetSpec, FeatureSets, Gap, LoadError, LoadOptions,
    LookupError, OnlineTable, Pick, Policy, Positions, ProfileError, Read, RedisOptions, RedisServer,
    RedisTable, Selection, StoredSet, Stores, TimeColumns, WritableSet, WritableTable, wait,
};
use millstream_graph::{Step as _, rows};

use super::{NOW, Subject, count, counts, ids, runtime};

/// Long, for machines that do much else at the same time.
const WAIT: Duration = Duration::from_secs(30);

/// A server, which ends when its standard input does: with this value, or with this process.
struct Server {
    port: u16,
    _shell: Child,
}

/// `None`, said loudly, where there is no `redis-server`.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn server(more: &[&str]) -> Option<Server> {
    if Command::new("redis-server").arg("--version").output().is_err() {
        println!("SKIPPED: there is no `redis-server` here; apt-get install redis-server");
        return None;
    }
    let dir = tempfile::tempdir().unwrap().keep();
    let port = free_port();
    let mut args = vec!["redis-server".to_owned(), "--port".into(), port.to_string()];
    args.extend(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"].map(String::from));
    args.push(dir.to_str().unwrap().to_owned());
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    let script = r#""$@" & pid=$!; cat >/dev/null; kill $pid; wait $pid; rm -rf "$DIR""#;
    let mut shell = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(&args)
        .env("DIR", &dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(shell.stdout.take().unwrap());
    let ready = log.lines().map_while(Result::ok).any(|line| line.contains("eady to accept connections"));
    assert!(ready, "redis-server did not start");
    Some(Server { port, _shell: shell })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The port of the one server that tests share.
fn shared() -> Option<u16> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| server(&[])).as_ref().map(|server| server.port)
}

/// The ports of the nodes of a cluster.
fn shared_cluster() -> Option<Vec<u16>> {
    static NODES: OnceLock<Option<Vec<Server>>> = OnceLock::new();
    let nodes = NODES.get_or_init(|| {
        let node = || {
            let bus = free_port().to_string();
            server(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "15000"])
        };
        let nodes = vec![node()?, node()?, node()?];
        let made = Command::new("redis-cli")
            .args(["--cluster", "create", "--cluster-yes"])
            .args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stdout);
        assert!(made.status.success() && said.contains("All 16384 slots covered"), "{said}");
        Some(nodes)
    });
    nodes.as_ref().map(|nodes| nodes.iter().map(|node| node.port).collect())
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

fn options(ttl: Option<Duration>) -> RedisOptions {
    static TABLES: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("test-{}", TABLES.fetch_add(1, SeqCst));
    RedisOptions { ttl, clock: Clock::new(|| NOW), prefix, wait: WAIT, ..RedisOptions::default() }
}

fn subject(connect: impl Future<Output = RedisServer>, set: FeatureSet, options: RedisOptions) -> Subject {
    let runtime = runtime();
    let table = runtime.block_on(async { RedisTable::open(&connect.await, set, options).await.unwrap() });
    Subject { table: Arc::new(table), runtime, _keep: Box::new(()) }
}

pub(super) fn single(set: FeatureSet, ttl: Option<Duration>) -> Option<Subject> {
    let url = url(shared()?);
    Some(subject(async { RedisServer::single(&url, WAIT).await.unwrap() }, set, options(ttl)))
}

pub(super) fn cluster(set: FeatureSet, ttl: Option<Duration>) -> Option<Subject> {
    let urls = shared_cluster()?.into_iter().map(url);
    Some(subject(async { RedisServer::cluster(urls, WAIT).await.unwrap() }, set, options(ttl)))
}

#[test]
fn the_rows_of_a_set_lie_on_all_nodes_and_are_read_in_the_order_asked() {
    let Some(store) = cluster(counts().build().unwrap(), None) else { return };
    let keys: Vec<i64> = (0..500).collect();
    let all: Vec<_> = keys.iter().map(|&key| (key, key * 2, 1)).collect();
    assert_eq!(store.write(count(&all)), vec!["taken"; 500].join(" "));
    let asked: Vec<i64> = keys.iter().rev().copied().chain([-1, 3, 3]).collect();
    let rows = asked.iter().map(|key| if *key < 0 { "-".to_owned() } else { (key * 2).to_string() });
    assert_eq!(store.read(&ids(&asked)), rows.collect::<Vec<_>>().join(" | "));
    for port in shared_cluster().unwrap() {
        let size = Command::new("redis-cli").args(["-p", &port.to_string(), "dbsize"]).output().unwrap();
        let size: u64 = String::from_utf8_lossy(&size.stdout).trim().parse().unwrap();
        assert!(size > 5, "port {port} has {size} keys");
    }
}

#[test]
fn writers_of_several_processes_agree() {
    let Some(port) = shared() else { return };
    let options = options(None);
    let writer = || {
        let url = url(port);
        let server = async move { RedisServer::single(&url, WAIT).await.unwrap() };
        subject(server, counts().build().unwrap(), options.clone())
    };
    let events: Vec<Vec<i64>> =
        vec![(0..100).collect(), (0..100).rev().collect(), (0..100).map(|i| i * 37 % 100).collect()];
    std::thread::scope(|scope| {
        for events in &events {
            scope.spawn(move || {
                let store = writer();
                for &event in events {
                    store.write(count(&[(1, event, event), (2, -event, event)]));
                }
            });
        }
    });
    assert_eq!(writer().read(&ids(&[1, 2])), "99 | -99");
}

#[test]
fn offsets_and_times_of_64_bits_are_compared_as_such() {
    let Some(store) = single(counts().build().unwrap(), None) else { return };
    let at = |offset: u64| Positions::new("s", 0, vec![offset]);
    let (high, big) = (u64::MAX - 1, 1_i64 << 61);
    assert_eq!(store.write(count(&[(1, 1, big)]).at(at(high))), "taken");
    assert_eq!(store.write(count(&[(1, 2, big)]).at(at(high))), "repeated");
    assert_eq!(store.write(count(&[(1, 3, big - 1)]).at(at(high + 1))), "older");
    assert_eq!(store.write(count(&[(1, 4, big + 1)])), "taken");
    assert_eq!(store.write(count(&[(2, 1, -big), (2, 2, -big - 1), (2, 3, 0)])), "taken older taken");
    assert_eq!(store.read(&ids(&[1, 2])), "4 | 3");
}

#[test]
fn another_definition_is_refused_and_what_is_no_row_is_an_error() {
    let Some(port) = shared() else { return };
    let options = options(None);
    let url = url(port);
    let runtime = runtime();
    let server = runtime.block_on(RedisServer::single(&url, WAIT)).unwrap();
    let open = |set: FeatureSet| runtime.block_on(RedisTable::open(&server, set, options.clone()));
    let table = open(counts().build().unwrap()).unwrap();
    let other = FeatureSet::builder("counts").key("id", DataType::Int64).feature("n", DataType::Utf8);
    let error = open(other.build().unwrap()).unwrap_err().to_string();
    assert!(error.contains("it had feature `n` Int64 where there is feature `n` Utf8 now"), "{error}");

    runtime.block_on(table.write(count(&[(7, 1, 1)])).get()).unwrap();
    let script = "local n = 0; for _, k in ipairs(redis.call('KEYS', ARGV[1])) do for _, f in ipairs(redis.call('HKEYS', k)) do redis.call('HSET', k, f, 'short'); n = n + 1 end end; return n";
    let pattern = format!("{}:*:rows", options.prefix);
    let spoilt = Command::new("redis-cli")
        .args(["-p", &port.to_string(), "eval", script, "0", &pattern])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&spoilt.stdout).trim(), "1");
    assert_eq!(read(&runtime, &table, 7), "a row of 5 bytes that is none");
    assert!(runtime.block_on(table.write(count(&[(7, 1, 1)])).get()).is_err());
    assert_eq!(read(&runtime, &table, 8), "missing [0]");
}

/// What a lookup of one key says: which rows are missing, or why there is no answer.
fn read(runtime: &tokio::runtime::Runtime, table: &RedisTable, key: i64) -> String {
    let pick = Pick { feature: 0, missing: Gap::Null, null: Gap::Null };
    let selection = Selection::new(table.set(), &[0], vec![pick]).unwrap();
    let Read::Waits(found) = table.read(&ids(&[key]), &selection) else { panic!("it is not local") };
    match runtime.block_on(found) {
        Ok(found) => format!("missing {:?}", found.missing),
        Err(LookupError::Unavailable(why)) => why.to_string(),
        Err(other) => other.to_string(),
    }
}

#[test]
fn a_server_that_does_not_answer_is_waited_for_no_longer_than_asked() {
    let Some(server) = server(&[]) else { return };
    let runtime = runtime();
    let connected = runtime.block_on(RedisServer::single(&url(server.port), WAIT)).unwrap();
    let options = RedisOptions { wait: Duration::from_millis(200), ..options(None) };
    let table = runtime.block_on(RedisTable::open(&connected, counts().build().unwrap(), options)).unwrap();
    assert_eq!(read(&runtime, &table, 1), "missing [0]");
    let paused = Command::new("redis-cli")
        .args(["-p", &server.port.to_string(), "client", "pause", "600000", "ALL"])
        .status();
    assert!(paused.unwrap().success());
    assert_eq!(read(&runtime, &table, 1), "no answer within 200ms");
    let error = runtime.block_on(table.write(count(&[(1, 1, 1)])).get()).unwrap_err();
    assert_eq!(error.to_string(), "the store did not answer");

    // Somebody who accepts connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url(silent.local_addr().unwrap().port());
    assert!(runtime.block_on(RedisServer::single(&url, Duration::from_millis(50))).is_err());
}

/// A set of a project file in the server at `url`.
fn of_file(stores: &Stores, url: &str, prefix: &str) -> Result<Arc<WritableSet>, LoadError> {
    let spec = serde_json::json!({
        "keys": ["id"], "types": { "id": "int64" }, "features": { "n": "int64" }, "timestamp": "at",
        "online": { "redis": { "url": url, "prefix": prefix, "wait": "30s" } },
    });
    let spec: FeatureSetSpec = serde_json::from_value(spec).unwrap();
    let opened = spec.open("cards", std::path::Path::new("."), stores, &LoadOptions::default());
    opened.map(|set| Arc::clone(set.writable().unwrap()))
}

#[test]
fn a_set_of_a_project_file_is_written_and_read_where_no_runtime_is() {
    let Some(port) = shared() else { return };
    let stores = Stores::new();
    let written = |set: &WritableSet, at: i64| {
        let changes = Changes::new(millstream_graph::rows! { id: [7_i64], n: [at] }, vec![at]);
        wait(set.write(changes).get()).unwrap().rows[0].name()
    };
    let set = of_file(&stores, &url(port), "file").unwrap();
    assert_eq!([written(&set, 5), written(&set, 4)], ["taken", "older"]);
    // The connection lasts as long as anybody has the set, on whichever runtime it is asked.
    assert!(Arc::ptr_eq(set.table(), of_file(&stores, &url(port), "file").unwrap().table()));
    drop(stores);
    runtime().block_on(async { assert_eq!(set.table().mark("s", 0).get().await.unwrap(), None) });
    drop(set);
    assert_eq!(written(&of_file(&Stores::new(), &url(port), "file").unwrap(), 4), "older");
}

#[test]
fn a_wrong_password_is_told_without_it() {
    let secret = std::env::var("CARGO_PKG_NAME").unwrap();
    let Some(server) = server(&["--requirepass", &secret]) else { return };
    let url = |variable: &str| format!("redis://:${{{variable}}}@127.0.0.1:{}", server.port);
    of_file(&Stores::new(), &url("CARGO_PKG_NAME"), "a").unwrap();
    let error = of_file(&Stores::new(), &url("CARGO_PKG_VERSION"), "a").unwrap_err().to_string();
    let wrong = std::env::var("CARGO_PKG_VERSION").unwrap();
    assert!(error.contains("`online`: redis: redis://:${CARGO_PKG_VERSION}@127.0.0.1"), "{error}");
    assert!(!error.contains(&wrong), "{error}");
}

/// The set of a table, with its time under a name.
fn writable(store: &Subject) -> WritableSet {
    let event = Column { name: "at".into(), data_type: DataType::Int64 };
    let times = TimeColumns { event, created: None, valid_to: None };
    WritableSet::new(Arc::clone(&store.table), times)
}

#[test]
fn its_rows_are_not_read_for_statistics_and_a_policy_says_what_to_do() {
    let Some(store) = single(counts().build().unwrap(), None) else { return };
    store.write(count(&[(1, 1, 1)]));
    assert!(matches!(store.table.profile(0), Err(ProfileError::Elsewhere)));
    let mut sets = FeatureSets::new();
    sets.insert(StoredSet::Writable(Arc::new(writable(&store))));
    let step = Enrich::new(Arc::new(sets), "counts").missing(Policy::Median);
    let error = step.signature(&[rows! { id: [1_i64] }.schema()]).unwrap_err().to_string();
    expect_test::expect!["feature `n` has no median: its rows lie outside of this process, in a store that gives rows by key; give gaps a value with `{default: VALUE}`, and ask for statistics where the rows come from"].assert_eq(&error);
}

/// Equal versions count in the order in which they were taken first.
#[cfg(feature = "offline")]
#[test]
fn a_set_is_filled_from_a_log_again_and_again() {
    use millstream_featurestore::offline::{Log, LogSchema};
    let Some(store) = single(counts().build().unwrap(), None) else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = wait(Log::local(dir.path(), LogSchema::of(store.table.set()).unwrap())).unwrap();
    let rows = rows! { id: [1_i64, 1, 2, 2], n: [1_i64, 2, 3, 4], _event: [5_i64, 5, 9, 8] };
    let set = writable(&store);
    store.runtime.block_on(log.append(1, &rows)).unwrap();
    for _ in 0..2 {
        store.runtime.block_on(async {
            let mut filled = set.materialize(&log, None).await.unwrap();
            while filled.next().await.unwrap().is_some() {}
        });
        assert_eq!(store.read(&ids(&[1, 2, 3])), "2 | 3 | -");
    }
}
