//! Feast's feature server, as its clients speak with it: a feature view is a set, a feature service a vector, a push source a set.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, UInt64Type},
    util::display::array_value_to_string,
};
use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, SubsecRound};
use http::{Request, StatusCode};
use millstream_featurestore::{
    OnlineVector, Status, Vector, VectorError, VectorRows, WritableSet, WriteError,
};
use millstream_graph::suggest;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    VectorService,
    columns::{self, Columns},
    is_callers,
};
use crate::{
    features::body,
    project::chain,
    service::{Answer, json_answer},
    snapshot::{Shared, Snapshot},
    wire::{DecodeLimits, UnknownFields, json::Decoder},
};

/// The columns of times in the frames that Feast's own client sends.
const EVENT: &str = "event_timestamp";
const CREATED: &str = "created";
/// When what has no time happened.
const NEVER: &str = "1970-01-01T00:00:00Z";
/// Refused rows that an answer tells of.
const TOLD: usize = 10;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/get-online-features", post(get_online_features))
        .route("/push", post(push))
        .route("/write-to-online-store", post(write_to_online_store))
        .route("/health", get(health))
}

async fn health(State(shared): State<Arc<Shared>>) -> StatusCode {
    if shared.is_stopping() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// Why there is no answer, as Feast's client makes an exception of it.
struct Refusal {
    status: StatusCode,
    /// A class of `feast.errors`.
    class: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, class: &'static str, message: String) -> Self {
        Self { status, class, message }
    }

    fn of_caller(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "FeastError", message.into())
    }

    /// What went wrong inside is for the log.
    fn of_store(set: &str, error: &dyn std::error::Error) -> Self {
        tracing::error!(set, error = chain(error), "a feature set does not answer");
        let message = format!("feature set `{set}` does not answer at present; the log says why");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "FeastError", message)
    }
}

impl From<Refusal> for Answer {
    /// A JSON text within a JSON text.
    fn from(Refusal { status, class, message }: Refusal) -> Self {
        let detail = json!({ "module": "feast.errors", "class": class, "message": message });
        json_answer(status, &Value::from(detail.to_string()))
    }
}

/// Answers a request whose body is JSON.
async fn answered<'s>(
    shared: &'s Shared,
    request: Request<Body>,
    answer: impl AsyncFnOnce(&[u8], &Snapshot) -> Result<Answer, Refusal> + 's,
) -> Response {
    let served = shared.live.load_full();
    let body = match body(shared, request).await {
        Ok(body) => body,
        Err(refused) => return refused.into_response(),
    };
    answer(&body, &served).await.unwrap_or_else(Answer::from).into_response()
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::of_caller(format!("the body is not as asked: {error}")))
}

#[derive(Deserialize)]
struct GetOnlineFeatures<'a> {
    #[serde(borrow)]
    entities: Columns<'a>,
    #[serde(default)]
    feature_service: Option<String>,
    #[serde(default)]
    features: Option<Vec<String>>,
    #[serde(default)]
    full_feature_names: bool,
}

async fn get_online_features(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let limits = DecodeLimits { unknown_fields: UnknownFields::Refuse, ..shared.terms.decode };
    answered(&shared, request, async move |body, served| {
        let asked: GetOnlineFeatures<'_> = parsed(body)?;
        let (vector, names) = match &asked.feature_service {
            Some(service) => of_service(served, service, asked.full_feature_names)?,
            None => of_features(served, &asked, limits)?,
        };
        let known = |name: &str| vector.input().index_of(name).is_ok();
        if let Some(unknown) = asked.entities.keys().find(|name| !known(name)) {
            let problem = suggest::unknown("entity", unknown, names_of(vector.input()));
            return Err(Refusal::new(StatusCode::NOT_FOUND, "EntityNotFoundException", problem));
        }
        let lacking = names_of(vector.input()).filter(|name| !asked.entities.contains_key(*name));
        let lacking: Vec<_> = lacking.map(|name| format!("`{name}`")).collect();
        if !lacking.is_empty() {
            return Err(Refusal::of_caller(format!("the entities lack {}", lacking.join(", "))));
        }
        let rows = decoded(&asked.entities, vector.input(), limits)?;
        let read = vector.look_up(&rows).await.map_err(|error| unread(&error))?;
        Ok(json_answer(StatusCode::OK, &reply(&asked.entities, &vector, &names, &read)))
    })
    .await
}

fn names_of(schema: &SchemaRef) -> impl Iterator<Item = &str> {
    schema.fields().iter().map(|field| field.name().as_str())
}

/// A vector of the project, and the names of its features.
fn of_service(
    served: &Snapshot,
    service: &str,
    full: bool,
) -> Result<(Arc<VectorService>, Vec<String>), Refusal> {
    let Some(vector) = served.vectors.iter().find(|vector| vector.name() == service) else {
        let known = served.vectors.iter().map(|vector| vector.name());
        let problem = suggest::unknown("feature service", service, known);
        return Err(Refusal::new(StatusCode::NOT_FOUND, "FeatureServiceNotFoundException", problem));
    };
    // What is computed belongs to the vector itself.
    let sets = vector.vector.sets().chain(std::iter::repeat(service));
    let features = names_of(vector.reply()).skip(vector.input().fields().len()).zip(sets);
    let named = |(feature, set): (&str, &str)| {
        if full { format!("{set}__{feature}") } else { feature.to_owned() }
    };
    Ok((Arc::clone(vector), features.map(named).collect()))
}

/// A vector made of a list such as `cards:amount`.
fn of_features(
    served: &Snapshot,
    asked: &GetOnlineFeatures<'_>,
    limits: DecodeLimits,
) -> Result<(Arc<VectorService>, Vec<String>), Refusal> {
    let mut names: Vec<String> = Vec::new();
    let mut vector = Vector::new("features");
    for reference in asked.features.iter().flatten() {
        let Some((set, feature)) = reference.split_once(':') else {
            return Err(Refusal::of_caller(format!("`{reference}` is no feature; write `view:feature`")));
        };
        if served.sets.get(set).is_none() {
            let known = served.sets.iter().map(|set| set.set().name());
            let problem = suggest::unknown("feature view", set, known);
            return Err(Refusal::new(StatusCode::NOT_FOUND, "FeatureViewNotFoundException", problem));
        }
        let full = format!("{set}__{feature}");
        let name = if asked.full_feature_names { full.clone() } else { feature.to_owned() };
        if names.contains(&name) {
            let problem = format!("two features are named `{name}`; ask for full_feature_names");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "FeatureNameCollisionError", problem));
        }
        names.push(name);
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        // Full names are different where the names that go out need not be: a key may be named as a feature is.
        vector = vector.features([format!("{set}.{} AS {}", quoted(feature), quoted(&full))]);
    }
    let online = OnlineVector::new(Arc::new(vector), served.sets.as_ref()).map_err(|problems| {
        let problems: Vec<_> = problems.into_iter().map(|problem| problem.text).collect();
        Refusal::of_caller(problems.join("; "))
    })?;
    let service =
        VectorService::new(online, limits).map_err(|error| Refusal::of_caller(error.to_string()))?;
    Ok((Arc::new(service), names))
}

fn unread(error: &VectorError) -> Refusal {
    match error {
        error if is_callers(error) => Refusal::of_caller(chain(error)),
        VectorError::Lookup { set, source } => Refusal::of_store(set, source),
        other => {
            tracing::error!(error = chain(other), "a vector was not read");
            let message = "an expression of the feature service failed".to_owned();
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "FeastError", message)
        }
    }
}

/// Entities and features, column by column.
fn reply(entities: &Columns<'_>, vector: &VectorService, names: &[String], read: &VectorRows) -> Value {
    let rows = read.rows().num_rows();
    let entity = |values: &Vec<&RawValue>| {
        let values: Vec<Value> =
            values.iter().map(|value| serde_json::from_str(value.get()).unwrap_or(Value::Null)).collect();
        json!({ "values": values, "statuses": vec!["PRESENT"; rows], "event_timestamps": vec![NEVER; rows] })
    };
    let first = vector.input().fields().len();
    let feature = |column: usize| {
        let statuses: Vec<_> = (0..rows).map(|row| status(read.status(row, column))).collect();
        let times: Vec<_> = (0..rows).map(|row| time(read.events(column), row)).collect();
        json!({ "values": values(read.rows().column(column)), "statuses": statuses, "event_timestamps": times })
    };
    let results = entities.values().map(entity).chain((first..first + names.len()).map(feature));
    json!({
        "metadata": { "feature_names": entities.keys().chain(names).collect::<Vec<_>>() },
        "results": results.collect::<Value>(),
        "status": true,
    })
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Present => "PRESENT",
        Status::Null => "NULL_VALUE",
        Status::Stale => "OUTSIDE_MAX_AGE",
        _ => "NOT_FOUND",
    }
}

fn time(events: Option<&Int64Array>, row: usize) -> String {
    let micros = events.filter(|events| events.is_valid(row)).map(|events| events.value(row));
    let Some(time) = micros.and_then(DateTime::from_timestamp_micros) else { return NEVER.to_owned() };
    let places = if time == time.trunc_subsecs(0) {
        chrono::SecondsFormat::Secs
    } else {
        chrono::SecondsFormat::Micros
    };
    time.to_rfc3339_opts(places, true)
}

/// Values as protobuf's JSON has them: timestamps are seconds, floats as wide as doubles, what is no number a word.
fn values(column: &ArrayRef) -> Vec<Value> {
    let rows = || (0..column.len()).map(|row| column.is_valid(row).then_some(row));
    let as_type = |data_type: &DataType| cast(column, data_type).ok();
    let each = |value: &dyn Fn(usize) -> Value| rows().map(|row| row.map_or(Value::Null, value)).collect();
    match column.data_type() {
        DataType::Boolean => each(&|row| column.as_boolean().value(row).into()),
        DataType::UInt64 => each(&|row| column.as_primitive::<UInt64Type>().value(row).into()),
        integer if integer.is_integer() => as_type(&DataType::Int64).map_or_else(Vec::new, |column| {
            each(&|row| column.as_primitive::<Int64Type>().value(row).into())
        }),
        float if float.is_floating() => as_type(&DataType::Float64).map_or_else(Vec::new, |column| {
            each(&|row| number(column.as_primitive::<Float64Type>().value(row)))
        }),
        DataType::Timestamp(..) => {
            let seconds = as_type(&DataType::Timestamp(TimeUnit::Microsecond, None));
            seconds.and_then(|column| cast(&column, &DataType::Int64).ok()).map_or_else(Vec::new, |column| {
                each(&|row| column.as_primitive::<Int64Type>().value(row).div_euclid(1_000_000).into())
            })
        }
        DataType::Utf8 => each(&|row| column.as_string::<i32>().value(row).into()),
        _ => each(&|row| array_value_to_string(column, row).map_or(Value::Null, Value::from)),
    }
}

fn number(value: f64) -> Value {
    match value {
        nan if nan.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => value.into(),
    }
}

#[derive(Deserialize)]
struct Push<'a> {
    push_source_name: String,
    #[serde(borrow)]
    df: Columns<'a>,
    #[serde(default)]
    to: Option<String>,
}

#[derive(Deserialize)]
struct Write<'a> {
    feature_view_name: String,
    #[serde(borrow)]
    df: Columns<'a>,
}

async fn push(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let limits = shared.terms.decode;
    answered(&shared, request, async move |body, served| {
        let Push { push_source_name, df, to } = parsed(body)?;
        match to.as_deref() {
            None | Some("online" | "online_and_offline") => {}
            Some("offline") => {
                return Err(Refusal::of_caller(
                    "rows go to the online store of a set, and from there into its log; push them `online`",
                ));
            }
            Some(other) => {
                let ways = ["online", "online_and_offline"];
                return Err(Refusal::of_caller(suggest::unknown("way `to` push", other, ways)));
            }
        }
        let unknown =
            |problem| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "PushSourceNotFoundException", problem);
        write(served, &push_source_name, &df, limits, unknown).await?;
        Ok(Answer::default())
    })
    .await
}

async fn write_to_online_store(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let limits = shared.terms.decode;
    answered(&shared, request, async move |body, served| {
        let Write { feature_view_name, df } = parsed(body)?;
        let unknown = |problem| Refusal::new(StatusCode::NOT_FOUND, "FeatureViewNotFoundException", problem);
        write(served, &feature_view_name, &df, limits, unknown).await?;
        Ok(json_answer(StatusCode::OK, &Value::Null))
    })
    .await
}

/// Writes the rows of a frame into a set. Columns that the set does not have are left: a push source may feed others, too.
async fn write(
    served: &Snapshot,
    name: &str,
    frame: &Columns<'_>,
    limits: DecodeLimits,
    unknown: impl Fn(String) -> Refusal,
) -> Result<(), Refusal> {
    let Some(service) = served.features.iter().find(|set| set.name() == name) else {
        return Err(unknown(suggest::unknown(
            "feature view",
            name,
            served.features.iter().map(|set| set.name()),
        )));
    };
    let Some(set) = service.writable() else {
        let problem = format!("feature set `{name}` is its file and takes no rows; give it `online`");
        return Err(Refusal::of_caller(problem));
    };
    let (frame, schema) = fitted(set, frame);
    let rows = decoded(&frame, &schema, DecodeLimits { unknown_fields: UnknownFields::Ignore, ..limits })?;
    let failed = |error: WriteError| match &error {
        WriteError::Unavailable(_) | WriteError::ReadOnly { .. } | WriteError::Closed => {
            Refusal::of_store(name, &error)
        }
        WriteError::Full { .. } => {
            Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "FeastError", error.to_string())
        }
        WriteError::TooLarge { .. } => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "FeastError", error.to_string())
        }
        _ => Refusal::of_caller(error.to_string()),
    };
    let written = set.write(set.changes(rows).map_err(failed)?).get().await.map_err(failed)?;
    let refused: Vec<_> = written.refused().map(|(row, problem)| format!("row {row}: {problem}")).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let told = refused.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    let (count, all) = (refused.len(), written.rows.len());
    Err(Refusal::of_caller(format!("{count} of {all} rows were refused, the others were taken: {told}")))
}

/// A frame with the set's own names of its times, and the columns to read of it.
fn fitted<'a>(set: &WritableSet, frame: &Columns<'a>) -> (Columns<'a>, SchemaRef) {
    let schema = set.schema();
    let times = set.times();
    let rename = |name: &str| match (name, &times.created) {
        _ if schema.index_of(name).is_ok() => name.to_owned(),
        (EVENT, _) => times.event.name.clone(),
        (CREATED, Some(created)) => created.name.clone(),
        (other, _) => other.to_owned(),
    };
    let frame: Columns<'a> = frame.iter().map(|(name, values)| (rename(name), values.clone())).collect();
    let is_time = |name: &str| {
        let times = [Some(&times.event), times.created.as_ref(), times.valid_to.as_ref()];
        times.into_iter().flatten().any(|column| column.name == name)
    };
    // Feast writes times as text, whatever type they have here.
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = |field: &Arc<Field>| match is_time(field.name()) {
        true => Field::new(field.name(), micros.clone(), true),
        false => Field::clone(field),
    };
    let schema = Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()));
    (frame, schema)
}

/// Columns as Feast sends them, as rows of a schema.
fn decoded(columns: &Columns<'_>, schema: &SchemaRef, limits: DecodeLimits) -> Result<RecordBatch, Refusal> {
    let zeros = |name: &String| match schema.field_with_name(name).map(Field::data_type) {
        Ok(DataType::Timestamp(unit, _)) => Some(match unit {
            TimeUnit::Second => "",
            TimeUnit::Millisecond => "000",
            TimeUnit::Microsecond => "000000",
            TimeUnit::Nanosecond => "000000000",
        }),
        _ => None,
    };
    let zeros: Vec<Option<&str>> = columns.keys().map(zeros).collect();
    let text = |column: usize, text| zeros[column].map_or(Cow::Borrowed(text), |zeros| instant(text, zeros));
    let refused = |error: crate::wire::DecodeError| Refusal::of_caller(error.to_string());
    let body = columns::rows(columns, &limits, text).map_err(refused)?;
    let decoder =
        Decoder::new(Arc::clone(schema), limits).map_err(|error| Refusal::of_caller(error.to_string()))?;
    Ok(decoder.decode(&body).map_err(refused)?.batch)
}

/// A time as bodies here have it: Feast's numbers are seconds, which `zeros` make units of the column, and its texts may have a blank
/// for the `T`.
fn instant<'t>(text: &'t str, zeros: &str) -> Cow<'t, str> {
    const BLANK: usize = "\"2026-01-01".len();
    match text.as_bytes() {
        [b'"', ..] if text.as_bytes().get(BLANK) == Some(&b' ') => {
            Cow::Owned(format!("{}T{}", &text[..BLANK], &text[BLANK + 1..]))
        }
        digits if digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') && text != "0" => {
            Cow::Owned(format!("{text}{zeros}"))
        }
        _ => Cow::Borrowed(text),
    }
}
