//! Metrics under the names of other servers.

use millstream_serve::{CompatMetrics, ConnectionLimits, Server};
use serde_json::json;

use super::{
    super::{PATIENCE, Serving, served_as},
    clients::{has_clients, run},
    inputs, write,
};

/// A server that was asked three times for rows of `sum`, and once for what it could not answer.
fn asked(set: impl FnOnce(Server) -> Server, body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    served_as(folder.path(), ConnectionLimits::default(), PATIENCE, set, |serving| {
        let infer = |path: &str, body: &str| serving.client().send("POST", path, &[], body.as_bytes()).status;
        let rows = json!({ "inputs": inputs(&[1, 2], &[0.5, 1.0]) }).to_string();
        for _ in 0..3 {
            assert_eq!(infer("/v2/models/sum/infer", &rows), 200);
        }
        assert_eq!(infer("/v1/graphs/slow", r#"{"a": 5}"#), 400, "there is no fact about it");
        body(serving);
    });
}

#[test]
fn dashboards_of_other_servers_find_what_they_chart() {
    if !has_clients() {
        return;
    }
    for (names, called) in [(CompatMetrics::Triton, "triton"), (CompatMetrics::KServe, "kserve")] {
        asked(
            |server| server.compat_metrics(names),
            |serving| run("metrics.py", &[&serving.address.to_string(), called]),
        );
    }
}

#[test]
fn nobody_s_names_are_there_unless_they_are_asked_for() {
    asked(
        |server| server,
        |serving| {
            let text = serving.client().get("/metrics").text();
            assert!(text.contains("millstream_runs_total"), "{text}");
            assert!(!text.contains("nv_") && !text.contains("\nrequest_"), "{text}");
        },
    );
}
