//! Streams of a real NATS server, which is killed and started again.

#[path = "../../../../../tests/nats/mod.rs"]
mod server;

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex, mpsc},
};

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use millstream_featurestore::{
    WritableSet,
    stream::{
        AtGap, Decode, Decoded, Intake, Left, NatsFeed, NatsSpec, Phase, PutAside, Stream, StreamSpec,
        Streams,
    },
};

use self::server::{Server, publish};
use super::{Json, Kept, Watch, catch_up, event, events, in_folder, in_memory, known, mark, sums};

const CHILD: &str = "MILLSTREAM_TEST_STREAM_CHILD";

impl Server {
    fn spec(&self) -> NatsSpec {
        serde_json::from_value(serde_json::json!({ "url": self.url(), "stream": "TX" })).unwrap()
    }

    fn intake(&self, set: &Arc<WritableSet>) -> Intake<NatsFeed> {
        self.intake_of(&self.spec(), set)
    }

    fn intake_of(&self, spec: &NatsSpec, set: &Arc<WritableSet>) -> Intake<NatsFeed> {
        let feed = NatsFeed::new(spec, Path::new("."), "nats:TX".into()).unwrap();
        Intake::new("tx", feed, Arc::clone(set), Arc::new(Json))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs a test over a server that has the stream, in a folder for its files and others.
fn served<T: Future<Output = ()>>(
    config: stream::Config,
    test: impl FnOnce(Arc<Server>, jetstream::Context) -> T,
) {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Server::start(dir.path(), &[]).map(Arc::new) else { return };
    runtime().block_on(async {
        let context = server.stream(config).await;
        test(server, context).await;
    });
}

#[test]
fn messages_come_in_order_and_a_stream_goes_on_where_the_set_stands() {
    let dir = tempfile::tempdir().unwrap();
    served(stream::Config::default(), async |server, context| {
        for (from, to) in [(0, 5_000), (5_000, 5_001), (5_001, 5_001), (5_001, 7_000)] {
            publish(&context, "tx.a", (from..to).map(|n| event(1, n))).await;
            let set = in_folder(dir.path());
            catch_up(server.intake(&set)).await;
            assert_eq!(known(&set, 1), sums(0..to));
            assert_eq!(mark(&set, "nats:TX", 0), Some(to as u64));
        }
    });
}

#[test]
fn what_is_published_while_a_stream_runs_arrives_without_being_asked_for() {
    served(stream::Config::default(), async |server, context| {
        let (set, watch) = (in_memory(), Watch::new());
        let intake = server.intake(&set).meter(Arc::clone(&watch) as _);
        let progress = intake.progress();
        let publishing = async {
            for round in 1..=20 {
                publish(&context, "tx.a", (0..100).map(|n| event(1, n))).await;
                watch.dealt(round * 100).await;
                if round == 10 {
                    // Another administrator removes what this reader has on the server.
                    let stream = context.get_stream("TX").await.unwrap();
                    let names: Vec<_> = stream.consumer_names().collect().await;
                    for name in names {
                        stream.delete_consumer(&name.unwrap()).await.unwrap();
                    }
                }
            }
            let standing = progress.standing();
            let partition = standing.partitions[0];
            assert_eq!((standing.phase, standing.written), (Phase::Reading, 2_000));
            assert_eq!((partition.position, partition.lag), (Some(2_000), 0));
        };
        tokio::select! { never = intake.run() => match never {}, () = publishing => {} }
    });
}

#[test]
fn a_subject_chooses_messages_and_others_are_no_gap() {
    served(stream::Config::default(), async |server, context| {
        for n in 0..300 {
            publish(&context, if n % 3 == 0 { "tx.a" } else { "tx.b" }, [event(1, n)]).await;
        }
        context.get_stream("TX").await.unwrap().delete_message(151).await.unwrap();
        let set = in_memory();
        let spec = NatsSpec { subject: Some("tx.a".into()), ..server.spec() };
        // What comes of other subjects is no lag, neither at once nor when the stream is read again.
        catch_up(server.intake_of(&spec, &set)).await;
        catch_up(server.intake_of(&spec, &set)).await;
        assert_eq!(known(&set, 1), sums((0..300).filter(|n| n % 3 == 0 && *n != 150)));
        let all = in_memory();
        catch_up(server.intake(&all)).await;
        assert_eq!(known(&all, 1), sums((0..300).filter(|n| *n != 150)));
    });
}

/// Refuses to decode until its door is open.
#[derive(Default)]
struct Door {
    open: Mutex<bool>,
    opens: Condvar,
    waits: Mutex<Option<mpsc::Sender<()>>>,
}

impl Decode for Door {
    fn decode(&self, messages: &[Bytes]) -> Decoded {
        if let Some(waits) = self.waits.lock().unwrap().take() {
            waits.send(()).unwrap();
        }
        drop(self.opens.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        Json.decode(messages)
    }
}

#[test]
fn messages_that_are_deleted_while_a_stream_lags_are_a_gap() {
    for at_gap in [AtGap::Fail, AtGap::Continue] {
        let config = stream::Config { max_messages: 100, ..stream::Config::default() };
        served(config, async |server, context| {
            let (waits, waiting) = mpsc::channel();
            let door = Arc::new(Door { waits: Mutex::new(Some(waits)), ..Door::default() });
            let set = in_memory();
            publish(&context, "tx.a", [event(1, 0)]).await;
            let feed = NatsFeed::new(&server.spec(), Path::new("."), "nats:TX".into()).unwrap();
            let intake = Intake::new("tx", feed, Arc::clone(&set), Arc::clone(&door) as _);
            let intake = intake.at_gap(at_gap);
            let progress = intake.progress();
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(async { match intake.run().await {} });
            tokio::task::block_in_place(|| waiting.recv().unwrap());
            // More than are on their way to a stream that does not take them.
            publish(&context, "tx.a", (1..4_000).map(|n| event(1, n))).await;
            *door.open.lock().unwrap() = true;
            door.opens.notify_all();
            if at_gap == AtGap::Continue {
                while mark(&set, "nats:TX", 0) != Some(4_000) {
                    tokio::task::yield_now().await;
                }
                let text = known(&set, 1);
                let numbers: Vec<i64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
                assert!(numbers[0] == 3_999 && (100..4_000).contains(&numbers[1]), "{text}");
                return;
            }
            let trouble = loop {
                if let Some(trouble) =
                    progress.standing().trouble.filter(|trouble| trouble.contains("are gone"))
                {
                    break trouble;
                }
                tokio::task::yield_now().await;
            };
            assert!(
                trouble.contains("of partition 0 of nats:TX are gone; with `gap: continue`"),
                "{trouble}"
            );
            let taken = mark(&set, "nats:TX", 0).unwrap() as i64;
            assert_eq!(known(&set, 1), sums(0..taken), "all before the gap, and nothing behind it");
        });
    }
}

#[test]
fn a_stream_that_deletes_what_is_acknowledged_is_refused() {
    let config =
        stream::Config { retention: stream::RetentionPolicy::WorkQueue, ..stream::Config::default() };
    served(config, async |server, _| {
        check_trouble(server.intake(&in_memory()), "its retention must be `limits`").await;
        let none = NatsSpec { stream: "TXX".into(), ..server.spec() };
        check_trouble(server.intake_of(&none, &in_memory()), "has no stream `TXX`").await;
    });
}

/// Runs an intake until something is wrong.
async fn check_trouble(intake: Intake<NatsFeed>, sentence: &str) {
    let progress = intake.progress();
    let troubled = async {
        loop {
            if let Some(trouble) = progress.standing().trouble {
                break trouble;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        never = intake.run() => match never {},
        trouble = troubled => assert!(trouble.contains(sentence), "{trouble}"),
    }
}

#[test]
fn logins_come_from_the_environment_and_are_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Server::start(dir.path(), &["--user", "reader", "--pass", env!("CARGO_PKG_NAME")])
    else {
        return;
    };
    runtime().block_on(async {
        let spec = |password: &str| NatsSpec {
            user: Some("reader".into()),
            password: Some(format!("${{{password}}}")),
            ..server.spec()
        };
        // The login is taken; only the stream is missing.
        check_trouble(server.intake_of(&spec("CARGO_PKG_NAME"), &in_memory()), "has no stream `TX`").await;
        let wrong = spec("CARGO_PKG_VERSION");
        let refused = server.intake_of(&wrong, &in_memory());
        check_trouble(refused, "cannot be read: authorization violation").await;
        for text in [format!("{:?}", server.intake_of(&wrong, &in_memory())), format!("{wrong:?}")] {
            assert!(!text.contains(env!("CARGO_PKG_VERSION")), "{text}");
        }
    });
}

#[test]
fn settings_are_checked_all_at_once() {
    let check = |spec: &str, expected: &[&str]| {
        let spec: NatsSpec = serde_json::from_str(spec).unwrap();
        let problems = NatsFeed::new(&spec, Path::new("."), "s".into()).err().unwrap_or_default();
        assert_eq!(problems, expected);
    };
    check(r#"{"url": "nats://a:4222, tls://b", "stream": "TX"}"#, &[]);
    check(
        r#"{"url": "nats://me:secret@a", "stream": "a.b", "password": "x", "ca": "../ca.pem"}"#,
        &[
            "`password` stands in the environment: write `${NAME}` here, and its value there",
            "`../ca.pem` leaves the project's folder",
            "`url` has a login in it; name `user` and `password`, or `token`",
            "`a.b` is no name of a stream",
            "a login is `user` and `password`, or `token`, or `creds`",
        ],
    );
    check(r#"{"url": "http://a", "stream": "TX"}"#, &["`url` is `nats://host:port` or `tls://host:port`"]);
}

/// What the child does: reads the stream into the folder, and says how far it has come.
#[test]
#[ignore = "the child of the test below, which kills it"]
fn reads_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let spec: StreamSpec = serde_json::from_str(&std::env::var("STREAM").unwrap()).unwrap();
    struct Told;
    impl millstream_featurestore::stream::Meter for Told {
        fn messages(&self, _: &str, _: &'static str, _: u64) {}
        fn ended(&self, _: &str) {}
        fn lag(&self, _: &str, messages: u64) {
            let _ = writeln!(std::io::stderr(), "lag {messages}");
        }
    }
    struct Lost;
    impl PutAside for Lost {
        fn put_aside(&self, _: &WritableSet, left: &[Left]) -> Result<(), String> {
            left.iter().for_each(|left| drop(writeln!(std::io::stderr(), "panicked at {left:?}")));
            Ok(())
        }
    }
    let set = in_folder(Path::new(&dir));
    let aside: Option<Arc<dyn PutAside>> = Some(Arc::new(Lost));
    let stream = Stream { name: "tx".into(), spec, root: ".".into(), set, decode: Arc::new(Json), aside };
    let streams = Streams::new().meter(Arc::new(Told));
    streams.keep(vec![stream]).unwrap();
    // Until the parent ends, if it does not kill this one before.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn every_event_counts_once_though_reader_and_server_are_killed() {
    let rounds = std::env::var("MILLSTREAM_KILLS").map_or(30, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let Some(mut server) = Server::start(dir.path(), &[]) else { return };
    let runtime = runtime();
    let context = runtime.block_on(server.stream(stream::Config::default()));
    let stream =
        serde_json::json!({ "nats": { "url": server.url(), "stream": "TX" }, "into": "events", "rows": 50 });
    let folder = dir.path().join("set");
    let (mut random, mut sent) = (0x2545_f491_4f6c_dd1d_u64, 0);
    for round in 0..rounds {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stream::nats::reads_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, &folder)
            .env("STREAM", stream.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let more = (random % 700) as i64;
        runtime.block_on(publish(&context, "tx.a", (sent..sent + more).map(|n| event(n % 5, n))));
        sent += more;
        if round % 5 == 4 {
            // The reader finds it gone, and comes again.
            server.kill();
            server.begin();
        }
        let (acks, spins) = (random >> 20 & 0xf, random >> 32 & 0x3ff);
        let mut other = String::new();
        for (seen, line) in BufReader::new(child.stderr.take().unwrap()).lines().enumerate() {
            let line = line.unwrap();
            if seen as u64 == acks || line == "lag 0" {
                (0..spins * 2_000).for_each(|_| std::hint::spin_loop());
                let _ = child.kill();
            }
            if !line.starts_with("lag ") {
                other.push_str(&line);
            }
        }
        child.wait().unwrap();
        assert!(!other.contains("panicked"), "round {round}: {other}");
        let set = in_folder(&folder);
        let taken = mark(&set, "nats:TX", 0).unwrap_or(0) as i64;
        for id in 0..5 {
            assert_eq!(
                known(&set, id),
                sums((0..taken).filter(|n| n % 5 == id)),
                "round {round}, {taken} of {sent}"
            );
        }
    }
    let set = in_folder(&folder);
    runtime.block_on(catch_up(server.intake(&set)));
    for id in 0..5 {
        assert_eq!(known(&set, id), sums((0..sent).filter(|n| n % 5 == id)), "in the end");
    }
}

#[test]
fn streams_begin_go_on_and_end_as_they_are_asked_to() {
    served(stream::Config::default(), async |server, context| {
        let watch = Watch::new();
        let streams = Streams::new().meter(Arc::clone(&watch) as _);
        let stream = |name: &str, set: &Arc<WritableSet>| Stream {
            name: name.into(),
            spec: serde_json::from_value(
                serde_json::json!({ "nats": { "url": server.url(), "stream": "TX" }, "into": "events" }),
            )
            .unwrap(),
            root: ".".into(),
            set: Arc::clone(set),
            decode: Arc::new(Json),
            aside: Some(Arc::new(Kept::default())),
        };
        let (one, two) = (in_memory(), in_memory());
        streams.keep(vec![stream("one", &one)]).unwrap();
        publish(&context, "tx.a", (0..10).map(|n| event(1, n))).await;
        watch.dealt(10).await;
        let first = Arc::clone(&streams.progress()[0].0);
        // One goes on, another begins at the beginning.
        streams.keep(vec![stream("one", &one), stream("two", &two)]).unwrap();
        watch.dealt(20).await;
        let running = streams.progress();
        assert!(Arc::ptr_eq(&running[0].0, &first) && running[0].1 == events().name());
        assert_eq!((known(&one, 1), known(&two, 1)), (sums(0..10), sums(0..10)));
        let wrong = StreamSpec {
            nats: Some(NatsSpec { url: "x y".into(), ..server.spec() }),
            ..stream("two", &two).spec
        };
        let problems = streams.keep(vec![Stream { spec: wrong, ..stream("two", &two) }]).unwrap_err();
        assert!(problems[0].starts_with("stream `two`: `url`"), "{problems:?}");
        streams.stop().await;
        assert_eq!(
            (Arc::strong_count(&one), Arc::strong_count(&two)),
            (1, 1),
            "nothing has the sets any more"
        );
        assert_eq!(first.standing().phase, Phase::Stopped);
        streams.keep(vec![stream("one", &one)]).unwrap();
        assert!(streams.progress().is_empty(), "none begins after the end");
    });
}
