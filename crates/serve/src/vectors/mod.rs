//! Feature vectors over HTTP: keys in, features out; and the same as Feast's feature server has it.

mod columns;
mod feast;
mod routes;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, new_null_array},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::Full;
use millstream_featurestore::{
    Clock, FeatureSets, LookupError, OnlineVector, Status, Vector, VectorError, VectorRows,
};
use millstream_graph::{ErrorKind, SchemaError, spec::type_text};
use serde_json::{Value, json};

use crate::{
    features::{Bodies, unread},
    http::refused,
    service::{ARROW_STREAM, Answer, JSON, json_answer, undecoded, written},
    wire::{DecodeError, DecodeLimits, Form, ipc, json::Encoder},
};
pub(crate) use routes::routes;

/// Rows at fault that an answer tells of.
const TOLD: usize = 100;

/// A feature vector, ready to be served.
pub(crate) struct VectorService {
    vector: OnlineVector,
    bodies: Bodies,
    limits: DecodeLimits,
    encoder: Encoder,
    /// With what is known of each feature beside it.
    explained: Encoder,
}

/// One service per vector.
///
/// # Errors
/// When a vector has columns that JSON cannot carry, with its name.
pub(crate) fn services(
    sets: &FeatureSets,
    limits: DecodeLimits,
) -> Result<Vec<Arc<VectorService>>, (String, SchemaError)> {
    let service = |vector: &Arc<Vector>| {
        let name = || vector.name().to_owned();
        let online = OnlineVector::new(Arc::clone(vector), sets).map_err(|problems| {
            let problems: Vec<_> = problems.into_iter().map(|problem| problem.text).collect();
            (name(), SchemaError::new(problems.join("; ")))
        })?;
        VectorService::new(online, limits).map(Arc::new).map_err(|error| (name(), error))
    };
    sets.vectors().map(service).collect()
}

impl VectorService {
    pub(crate) fn new(vector: OnlineVector, limits: DecodeLimits) -> Result<Self, SchemaError> {
        let bodies = Bodies::new(Schema::clone(vector.input()), limits)?;
        let encoder = Encoder::new(Arc::clone(vector.schema()))?;
        let explained = Encoder::new(explained(&vector))?;
        Ok(Self { vector, bodies, limits, encoder, explained })
    }

    pub(crate) fn name(&self) -> &str {
        self.vector.vector().name()
    }

    pub(crate) fn input(&self) -> &SchemaRef {
        self.vector.input()
    }

    pub(crate) fn reply(&self) -> &SchemaRef {
        self.vector.schema()
    }

    pub(crate) fn description(&self) -> Value {
        let column = |field: &Arc<Field>| json!({ "name": field.name(), "type": type_text(field) });
        let columns = |fields: &[Arc<Field>]| -> Value { fields.iter().map(column).collect() };
        let vector = self.vector.vector();
        let sets = self.vector.sets().map(Some).chain(std::iter::repeat(None));
        let features = self.reply().fields()[self.input().fields().len()..].iter().zip(sets);
        let features = features.map(|(field, set)| {
            let mut feature = column(field);
            feature["set"] = json!(set);
            feature
        });
        json!({
            "name": vector.name(),
            "description": vector.description(),
            "tags": vector.tags(),
            "input": columns(self.input().fields()),
            "features": features.collect::<Value>(),
        })
    }

    /// Reads the features of the rows of a body; with what is known of each if `statuses`, as an Arrow stream if `arrow` says so for
    /// a body that was one or was none.
    pub(crate) async fn read(
        &self,
        body: Bytes,
        statuses: bool,
        arrow: impl FnOnce(bool) -> bool,
    ) -> Result<Answer, Answer> {
        let was_arrow = body.starts_with(&crate::service::ARROW_START);
        let (rows, form) = self.decode(body).map_err(|error| undecoded(&error))?;
        let rows = self.look_up(&rows).await.map_err(|error| unreadable(self.name(), &error))?;
        let (batch, encoder) = if statuses {
            (explain(&self.vector, &rows, self.explained.schema()), &self.explained)
        } else {
            (Ok(rows.rows().clone()), &self.encoder)
        };
        let arrow = arrow(was_arrow);
        let body = batch.map_err(|error| error.to_string()).and_then(|batch| match arrow {
            true => ipc::encode(&batch).map(Bytes::from).map_err(|error| error.to_string()),
            false => written(|body| encoder.encode(&batch, form, body)).map_err(|error| error.to_string()),
        });
        let body = body.map_err(|error| {
            tracing::error!(vector = self.name(), error, "a vector cannot be written");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the vector cannot be written")
        })?;
        let mut answer = Answer::new(Full::new(body));
        let media = if arrow { HeaderValue::from_static(ARROW_STREAM) } else { JSON };
        answer.headers_mut().insert(http::header::CONTENT_TYPE, media);
        Ok(answer)
    }

    /// The features of rows with the columns of [`VectorService::input`], as of now.
    pub(crate) async fn look_up(&self, rows: &RecordBatch) -> Result<VectorRows, VectorError> {
        self.vector.read(rows, Clock::default().now()).await
    }

    /// One row, several, or columns of several.
    pub(crate) fn decode(&self, body: Bytes) -> Result<(RecordBatch, Form), DecodeError> {
        if body.first().is_some_and(|first| *first != 0xFF)
            && body.len() <= self.limits.body_bytes
            && let Some(columns) = columns::columns(&body)
        {
            let rows = columns::rows(&columns, &self.limits, |_, text| text.into())?;
            let (batch, _) = self.bodies.read(rows.into())?;
            return Ok((batch, Form::Array));
        }
        self.bodies.read(body)
    }
}

/// The columns of an answer, with those that say what is known of each feature.
fn explained(vector: &OnlineVector) -> SchemaRef {
    let input = vector.input().fields().len();
    let mut fields = vector.schema().fields().to_vec();
    for (field, _) in vector.schema().fields()[input..].iter().zip(vector.sets()) {
        let name = field.name();
        fields.push(Arc::new(Field::new(format!("{name}.status"), DataType::Utf8, false)));
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        fields.push(Arc::new(Field::new(format!("{name}.event"), micros, true)));
    }
    Arc::new(Schema::new(fields))
}

fn explain(
    vector: &OnlineVector,
    rows: &VectorRows,
    schema: &SchemaRef,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let batch = rows.rows();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    let first = vector.input().fields().len();
    for column in first..first + vector.sets().count() {
        let statuses = (0..batch.num_rows()).map(|row| status(rows.status(row, column)));
        columns.push(Arc::new(statuses.map(Some).collect::<StringArray>()));
        let data_type = schema.field(columns.len()).data_type();
        columns.push(match rows.events(column) {
            Some(events) => arrow::compute::cast(events, data_type)?,
            None => new_null_array(data_type, batch.num_rows()),
        });
    }
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Present => "present",
        Status::Null => "null",
        Status::Stale => "stale",
        _ => "missing",
    }
}

/// What a vector that was not read is answered with.
fn unreadable(vector: &str, error: &VectorError) -> Answer {
    match error {
        VectorError::Lookup { set, source } => unread(set, source),
        VectorError::Rows { problems } => {
            let told =
                problems.iter().take(TOLD).map(|(row, problem)| json!({ "row": row, "error": problem }));
            let first = problems.first().map_or("", |(_, problem)| problem);
            let message = format!("{} rows cannot be answered; the first: {first}", problems.len());
            let told = json!({ "error": message, "code": "rows", "problems": told.collect::<Value>() });
            json_answer(StatusCode::BAD_REQUEST, &told)
        }
        VectorError::Expression(error) if error.kind() == ErrorKind::Rows => {
            refused(StatusCode::BAD_REQUEST, "rows", error.message())
        }
        other => {
            tracing::error!(vector, error = crate::project::chain(other), "a vector was not read");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "an expression of the vector failed")
        }
    }
}

/// Whether the fault is the caller's.
fn is_callers(error: &VectorError) -> bool {
    match error {
        VectorError::Lookup { source, .. } => !matches!(source, LookupError::Unavailable(_)),
        VectorError::Rows { .. } => true,
        VectorError::Expression(error) => error.kind() == ErrorKind::Rows,
        _ => false,
    }
}
