//! What is known of a graph, over HTTP.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use millstream_graph::suggest;
use millstream_monitor::{
    alert::{Alerts, Matchers, NewSilence, Silence, State as AlertState},
    predictions::{Outcome, Truth},
    report::Report,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ask, time::now};
use crate::{http::refused, service::json_answer, snapshot::Shared};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/graphs/{graph}/monitor", get(as_json))
        .route("/v1/graphs/{graph}/monitor/report", get(as_page))
        .route("/v1/graphs/{graph}/monitor/mlrun", get(as_mlrun))
        .route("/v1/graphs/{graph}/labels", post(labels))
        .route("/v1/alerts", get(alerts))
        .route("/v1/alerts/silences", get(silences).post(silence))
        .route("/v1/alerts/silences/{id}", axum::routing::delete(unsilence))
        .route("/v1/alerts/{alert}/reset", post(reset))
}

async fn as_json(State(shared): State<Arc<Shared>>, Path(graph): Path<String>) -> Response {
    match report(&shared, &graph) {
        Ok(report) => Json(&*report).into_response(),
        Err(answer) => *answer,
    }
}

async fn as_mlrun(State(shared): State<Arc<Shared>>, Path(graph): Path<String>) -> Response {
    match report(&shared, &graph) {
        Ok(report) => Json(super::mlrun::exported(&report)).into_response(),
        Err(answer) => *answer,
    }
}

async fn as_page(State(shared): State<Arc<Shared>>, Path(graph): Path<String>) -> Response {
    match report(&shared, &graph) {
        Ok(report) => {
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            let fresh = HeaderValue::from_static("no-store");
            ([(CONTENT_TYPE, html), (CACHE_CONTROL, fresh)], report.to_html()).into_response()
        }
        Err(answer) => *answer,
    }
}

/// What is known of a graph, or what is wrong with asking.
fn report(shared: &Shared, graph: &str) -> Result<Arc<Report>, Box<Response>> {
    let refuse = |status, code, message: &str| Err(Box::new(refused(status, code, message).into_response()));
    let served = shared.live.load();
    if served.graph(graph).is_none() {
        let known = served.graphs.iter().map(|(name, _)| name.as_str());
        return refuse(StatusCode::NOT_FOUND, "unknown_graph", &suggest::unknown("graph", graph, known));
    }
    if !served.watches.iter().any(|watch| watch.graph == graph && watch.monitor.is_some()) {
        let message = format!("graph `{graph}` is not watched; its `monitor` says what is to be");
        return refuse(StatusCode::NOT_FOUND, "not_watched", &message);
    }
    let report = shared.monitoring.report(graph);
    report.map_or_else(|| refuse(StatusCode::NOT_FOUND, "no_pane", "no pane has ended yet"), Ok)
}

/// Labels of predictions that were made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    /// The edge that has the predictions, where there are several.
    edge: Option<String>,
    labels: Vec<Label>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    /// What the prediction is called: a text or a whole number.
    id: serde_json::Value,
    /// What turned out to be true: a number, yes or no, or the name of a class.
    label: Option<serde_json::Value>,
    /// What it led to, by the names of the `outcomes`.
    #[serde(default)]
    measures: BTreeMap<String, f64>,
    /// When, as RFC 3339 or in microseconds since 1970 UTC; now by default.
    at: Option<serde_json::Value>,
}

/// Labels in one request.
const MOST_LABELS: usize = 100_000;

async fn labels(State(shared): State<Arc<Shared>>, Path(graph): Path<String>, body: Bytes) -> Response {
    let refuse =
        |message: String| refused(StatusCode::BAD_REQUEST, "invalid_labels", &message).into_response();
    let served = shared.live.load_full();
    let Some(watch) = served.watches.iter().find(|watch| watch.graph == graph).map(Arc::clone) else {
        return report(&shared, &graph)
            .map_or_else(|answer| *answer, |_| refuse("the graph is not watched".to_owned()));
    };
    let asked: Labels = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refuse(error.to_string()),
    };
    if asked.labels.len() > MOST_LABELS {
        return refuse(format!("a request has at most {MOST_LABELS} labels"));
    }
    let now = now();
    let read: Result<Vec<_>, String> = asked
        .labels
        .iter()
        .enumerate()
        .map(|(at, label)| label.read(now).map_err(|text| format!("label {at}: {text}")))
        .collect();
    let read = match read {
        Ok(read) => read,
        Err(text) => return refuse(text),
    };
    match ask(&shared, move |keeper| keeper.label(&watch, asked.edge.as_deref(), &read, now)).await {
        Some(Ok(counts)) => Json(counts).into_response(),
        Some(Err(text)) => refuse(text),
        None => answered(None),
    }
}

impl Label {
    fn read(&self, now: i64) -> Result<Outcome, String> {
        let id = match &self.id {
            Value::String(id) => id.clone(),
            Value::Number(id) if !id.is_f64() => id.to_string(),
            _ => return Err("`id` is a text or a whole number".to_owned()),
        };
        let label = match &self.label {
            None => None,
            Some(Value::Bool(label)) => Some(Truth::Flag(*label)),
            Some(Value::String(label)) => Some(Truth::Class(label.clone())),
            Some(label) => {
                let number = label.as_f64().ok_or("`label` is a number, true or false, or a class")?;
                Some(Truth::Number(number))
            }
        };
        let measures = self.measures.iter().map(|(name, value)| (name.clone(), *value)).collect();
        let at = match &self.at {
            None => None,
            Some(Value::String(at)) => Some(super::time::read(at, now)?),
            Some(at) => Some(at.as_i64().ok_or("`at` is a time, or microseconds since 1970 UTC")?),
        };
        Ok(Outcome { id, at, label, measures })
    }
}

async fn alerts(State(shared): State<Arc<Shared>>) -> Response {
    json_answer(StatusCode::OK, &shared.monitoring.alerts()).into_response()
}

/// Every series that an alert looks at.
pub(super) fn series(alerts: &Alerts) -> Value {
    let series: Vec<_> = alerts
        .series()
        .map(|series| {
            json!({
                "alert": series.alert.name(),
                "severity": series.alert.severity().word(),
                "labels": series.labels,
                "state": match series.state {
                    AlertState::Inactive => "inactive",
                    AlertState::Pending => "pending",
                    AlertState::Active => "active",
                    AlertState::Waiting => "waiting",
                },
                "since": series.since,
                "value": series.activation.map(|activation| activation.last),
                "peak": series.activation.map(|activation| activation.peak),
                "evidence": series.activation.and_then(|activation| activation.evidence.as_deref()),
            })
        })
        .collect();
    let names: Vec<&str> = alerts.alerts().map(|alert| alert.name()).collect();
    json!({ "alerts": names, "series": series })
}

/// The answer to a question of the keeper, which is there as long as the server is.
fn answered(answer: Option<Response>) -> Response {
    let gone =
        || refused(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping").into_response();
    answer.unwrap_or_else(gone)
}

async fn silences(State(shared): State<Arc<Shared>>) -> Response {
    let listed = ask(&shared, |keeper| {
        let silence = |silence: Silence| {
            let NewSilence { matchers, from, to, author, comment } = silence.silence;
            let matchers: BTreeMap<_, _> =
                matchers.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            json!({ "id": silence.id, "matchers": matchers, "from": from, "to": to, "author": author, "comment": comment })
        };
        let silences: Vec<Value> = keeper.alerts().silences().map(silence).collect();
        json_answer(StatusCode::OK, &json!({ "silences": silences })).into_response()
    });
    answered(listed.await)
}

/// What is silenced: alerts whose labels match, for a time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Silenced {
    matchers: BTreeMap<String, String>,
    /// Microseconds since 1970 UTC; now by default.
    from: Option<i64>,
    to: i64,
    author: String,
    comment: String,
}

async fn silence(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let refuse =
        |message: String| refused(StatusCode::BAD_REQUEST, "invalid_silence", &message).into_response();
    let asked: Silenced = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refuse(error.to_string()),
    };
    let Silenced { matchers, from, to, author, comment } = asked;
    let silence =
        NewSilence { matchers: Matchers::new(matchers), from: from.unwrap_or_else(now), to, author, comment };
    match ask(&shared, |keeper| keeper.alerts().silence(silence)).await {
        Some(Ok(id)) => json_answer(StatusCode::OK, &json!({ "id": id })).into_response(),
        Some(Err(error)) => refuse(error.to_string()),
        None => answered(None),
    }
}

async fn unsilence(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Response {
    let ended = ask(&shared, move |keeper| match keeper.alerts().unsilence(id) {
        true => json_answer(StatusCode::OK, &json!({})).into_response(),
        false => {
            refused(StatusCode::NOT_FOUND, "unknown_silence", &format!("no silence {id}")).into_response()
        }
    });
    answered(ended.await)
}

async fn reset(State(shared): State<Arc<Shared>>, Path(alert): Path<String>) -> Response {
    let reset = ask(&shared, move |keeper| {
        let alerts = keeper.alerts();
        let known: Vec<String> = alerts.alerts().map(|known| known.name().to_owned()).collect();
        if !known.contains(&alert) {
            let message = suggest::unknown("alert", &alert, known.iter().map(String::as_str));
            return refused(StatusCode::NOT_FOUND, "unknown_alert", &message).into_response();
        }
        let reset = alerts.reset(&alert, None, now());
        json_answer(StatusCode::OK, &json!({ "reset": reset })).into_response()
    });
    answered(reset.await)
}
