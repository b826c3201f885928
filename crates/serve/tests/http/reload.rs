//! Replacing the project while it is served.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use millstream_serve::{ConnectionLimits, Outcome, Project, watch};
use serde_json::{Value, json};

use super::{Client, PATIENCE, Serving, ask, replace, served, token, write, write_graphs};

/// How often the project is swapped under load: `MILLSTREAM_TEST_SWAPS`, for those who have the time for more.
fn swaps() -> i64 {
    std::env::var("MILLSTREAM_TEST_SWAPS").map_or(20, |swaps| swaps.parse().expect("a number of swaps"))
}

fn serves(body: impl FnOnce(&mut Serving)) {
    served(ConnectionLimits::default(), PATIENCE, body);
}

/// What one request sees: the feature, the constant, and the version that the answer names.
fn seen(client: &mut Client) -> (i64, i64, String) {
    let answer = client.send("POST", "/v1/graphs/ask", &[], br#"{"k":7}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let number = |name: &str| body[name].as_i64().unwrap();
    (number("fact"), number("constant"), answer.headers["x-millstream-version"].clone())
}

#[test]
fn no_request_fails_or_sees_two_versions_while_the_project_is_swapped() {
    serves(|serving| {
        let (done, asked) = (AtomicBool::new(false), AtomicU64::new(0));
        let folder = serving.folder.clone();
        let serving = &*serving;
        // The version that every value has, written down before it is served.
        let versions = std::sync::Mutex::new(vec![Project::load(&folder).unwrap().version().to_owned()]);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = serving.client();
                    let mut last = 0;
                    while !done.load(SeqCst) {
                        let (fact, constant, version) = seen(&mut client);
                        asked.fetch_add(1, SeqCst);
                        assert_eq!(fact, constant, "one request, two versions");
                        assert_eq!(versions.lock().unwrap()[constant as usize - 1], version);
                        assert!(constant >= last, "{constant} after {last}");
                        last = constant;
                    }
                });
            }
            let _done = Done(&done);
            for value in 2..=swaps() + 1 {
                write(&folder, value);
                versions.lock().unwrap().push(Project::load(&folder).unwrap().version().to_owned());
                let (before, start) = (asked.load(SeqCst), Instant::now());
                assert_eq!(serving.reload().outcome, Outcome::Swapped);
                // Every version answers something before the next takes its place.
                while asked.load(SeqCst) < before + 16 {
                    assert!(start.elapsed() < PATIENCE, "clients have stopped asking");
                    thread::yield_now();
                }
            }
        });
        // Old and new engines of a graph count in one place.
        let asked = asked.load(SeqCst);
        assert_eq!(serving.metric("millstream_runs_total{graph=\"ask\",outcome=\"ok\"}"), asked);
        assert_eq!(serving.metric("millstream_runs_in_flight{graph=\"ask\"}"), 0);
        assert_eq!(serving.metric("millstream_reloads_total{outcome=\"swapped\"}"), swaps() as u64);
        assert_eq!(serving.refused("truncated"), 0);
        // Every version but the last is given back.
        let start = Instant::now();
        while serving.admin("GET", "/admin/status").json()["retiring"] != 0 {
            assert!(start.elapsed() < PATIENCE, "an old version is still there");
        }
    });
}

/// Ends the clients however the swaps end.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_request_keeps_the_version_it_began_with() {
    serves(|serving| {
        let mut client = serving.client();
        let (_, _, first) = seen(&mut client);
        // The head is enough to begin: the body comes after the swap.
        client.write(ask("content-length: 7\r\nexpect: 100-continue\r\n").as_bytes());
        client.read_continue();
        write(&serving.folder, 2);
        let second = serving.reload().version.clone();
        assert_ne!(first, second);
        assert_eq!(seen(&mut serving.client()), (2, 2, second));
        assert_eq!(serving.admin("GET", "/admin/status").json()["retiring"], 1);
        client.write(br#"{"k":1}"#);
        let answer = client.read();
        assert_eq!(answer.json(), json!({ "k": 1, "fact": 1, "constant": 1 }));
        assert_eq!(answer.headers["x-millstream-version"], first);
    });
}

#[test]
fn a_request_that_outstays_its_version_is_cut_off() {
    served(ConnectionLimits::default(), Duration::ZERO, |serving| {
        let mut client = serving.client();
        client.write(ask("content-length: 7\r\nexpect: 100-continue\r\n").as_bytes());
        client.read_continue();
        write(&serving.folder, 2);
        assert_eq!(serving.reload().outcome, Outcome::Swapped);
        let answer = client.read();
        assert_eq!((answer.status, &answer.json()["code"]), (503, &Value::from("unavailable")));
    });
}

#[test]
fn a_project_with_mistakes_is_not_served_and_the_old_one_is() {
    serves(|serving| {
        let file = serving.folder.join("millstream.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        replace(&file, &text.replace("[k, fact,", "[k, fcat,"));
        let answer = serving.admin("POST", "/admin/reload");
        let mistakes = Project::load(&serving.folder).err().unwrap().mistakes();
        assert!(mistakes[0].ends_with("in `fcat`: no column `fcat`; did you mean `fact`?"), "{mistakes:?}");
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["code"], &body["outcome"]),
            (422, &"reload_failed".into(), &"failed".into())
        );
        assert_eq!(body["mistakes"], json!(mistakes));
        assert_eq!(body["error"], mistakes.join("\n"));
        assert_eq!(seen(&mut serving.client()).0, 1);
        let status = serving.admin("GET", "/admin/status").json();
        assert_eq!(status["reloads"], json!({ "swapped": 0, "unchanged": 0, "failed": 1 }));
        assert_eq!(status["last_reload"]["mistakes"], json!(mistakes));

        std::fs::remove_file(&file).unwrap();
        assert_eq!(serving.admin("POST", "/admin/reload").status, 422);
        replace(&file, &text);
        let answer = serving.admin("POST", "/admin/reload");
        assert_eq!((answer.status, &answer.json()["outcome"]), (200, &"unchanged".into()));
    });
}

#[test]
fn reloads_that_come_together_take_turns() {
    serves(|serving| {
        write(&serving.folder, 2);
        let serving = &*serving;
        let outcomes: Vec<Value> = thread::scope(|scope| {
            let call = || serving.admin("POST", "/admin/reload").json()["outcome"].clone();
            let calls: Vec<_> = (0..6).map(|_| scope.spawn(call)).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let swapped = outcomes.iter().filter(|outcome| *outcome == "swapped").count();
        assert_eq!((swapped, outcomes.len()), (1, 6), "{outcomes:?}");
        assert_eq!(serving.admin("GET", "/admin/status").json()["reloads"]["unchanged"], 5);
    });
}

#[test]
fn graphs_come_and_go_with_the_project() {
    serves(|serving| {
        write_graphs(&serving.folder, 2, &["tell", "more"]);
        let version = serving.reload().version.clone();
        let mut client = serving.client();
        let list = client.get("/v1/graphs").json();
        let names: Vec<_> = list["graphs"].as_array().unwrap().iter().map(|graph| &graph["name"]).collect();
        assert!(names == ["tell", "more"] && list["version"] == version, "{list}");
        let paths = client.get("/openapi.json").json()["paths"].clone();
        assert!(paths["/v1/graphs/tell"].is_object() && paths["/v1/graphs/ask"].is_null(), "{paths}");
        assert_eq!(client.get("/v1/graphs/more").json()["name"], "more");
        let gone = client.send("POST", "/v1/graphs/ask", &[], br#"{"k":1}"#);
        assert_eq!((gone.status, &gone.json()["code"]), (404, &"unknown_graph".into()));
        assert_eq!(client.send("POST", "/v1/graphs/tell", &[], br#"{"k":1}"#).status, 200);
        assert_eq!(client.get("/readyz").status, 200);
    });
}

#[test]
fn admin_routes_are_for_those_who_have_the_token() {
    serves(|serving| {
        let wrong = format!("Bearer {}", token().replace('t', "T"));
        for headers in [vec![], vec![("authorization", wrong.as_str())], vec![("authorization", "Bearer ")]] {
            for (method, path) in [("POST", "/admin/reload"), ("GET", "/admin/status"), ("GET", "/else")] {
                let answer = Client::connect(serving.admin).send(method, path, &headers, b"");
                assert_eq!((answer.status, &*answer.headers["www-authenticate"]), (401, "Bearer"), "{path}");
                assert!(!answer.text().contains(&token()));
            }
        }
        assert_eq!(
            serving.admin("GET", "/admin/status").json()["last_reload"],
            Value::Null,
            "nothing was reloaded"
        );
        assert_eq!(serving.admin("GET", "/admin/reload").status, 405);
        assert_eq!(serving.client().get("/admin/status").status, 404, "on the graphs' own port");
    });
}

#[test]
fn files_that_are_replaced_or_written_to_are_noticed() {
    serves(|serving| {
        let runtime = std::sync::Arc::clone(&serving.runtime);
        let folder = serving.folder.clone();
        let mut last = serving.reloader.last();
        let watched = runtime.block_on(async {
            let changes = async {
                let mut outcomes = Vec::new();
                let facts = folder.join("data/facts.csv");
                let yaml = folder.join("millstream.yaml");
                let text = std::fs::read_to_string(&yaml).unwrap();
                for change in 0..4 {
                    match change {
                        // By another file, a feature set's too; then in place; then by one with a mistake; then in another folder.
                        0 => replace(&facts, "k,fact\n7,5\n"),
                        1 => std::fs::write(&facts, "k,fact\n7,6\n").unwrap(),
                        2 => replace(&yaml, "name: broken\n"),
                        _ => {
                            std::fs::create_dir(folder.join("other")).unwrap();
                            std::fs::rename(&facts, folder.join("other/facts.csv")).unwrap();
                            replace(&yaml, &text.replace("data/facts.csv", "other/facts.csv"));
                        }
                    }
                    let version = serving.reloader.last().borrow().as_ref().map(|reload| reload.version.clone());
                    let outcome = loop {
                        last.changed().await.unwrap();
                        let reload = last.borrow_and_update().clone().unwrap();
                        // A file that is being written may be read before it is whole.
                        let is_last = change == 2 || (reload.outcome == Outcome::Swapped && Some(&reload.version) != version.as_ref());
                        if is_last && (change != 1 || seen(&mut serving.client()).0 == 6) {
                            break reload.outcome.name();
                        }
                    };
                    outcomes.push((outcome, seen(&mut serving.client()).0));
                }
                outcomes
            };
            tokio::select! {
                ended = watch(serving.reloader.clone()) => panic!("{ended:?}"),
                outcomes = tokio::time::timeout(PATIENCE, changes) => outcomes.expect("a change was not noticed"),
            }
        });
        assert_eq!(watched, [("swapped", 5), ("swapped", 6), ("failed", 6), ("swapped", 6)]);
    });
}
