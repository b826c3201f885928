//! One feature set over HTTP: bodies into writes and lookups, and what they come to.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use millstream_featurestore::{
    Changes, Gap, LookupError, Pick, Positions, ProfileError, Read, Receipt, Selection, StoredSet,
    WritableSet, WriteError, Written,
};
use millstream_graph::{SchemaError, spec::type_text};
use serde_json::{Value, json};

use super::{
    statistics::{profiles, told as told_profiles},
    wrong_method,
};
use crate::{
    http::refused,
    project::chain,
    reload::blocking,
    service::{ARROW_START, Answer, JSON, json_answer, undecoded, written},
    wire::{
        DecodeError, DecodeLimits, Form, ipc,
        json::{Decoder, Encoder},
    },
};

/// The field that tells events apart, unless the set has a column of that name.
const EVENT_ID: &str = "event_id";
/// Refused rows that an answer tells of; the rest is counted.
const TOLD: usize = 100;

/// A feature set, ready to be served.
pub(crate) struct FeatureService {
    set: StoredSet,
    rows: Option<Bodies>,
    keys: Bodies,
    selection: Selection,
    encoder: Encoder,
    reply: SchemaRef,
    /// Whoever asks for statistics takes turns: each reads all rows.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What reads bodies of one schema.
pub(crate) struct Bodies {
    json: Decoder,
    arrow: ipc::Decoder,
}

impl Bodies {
    pub(crate) fn new(schema: Schema, limits: DecodeLimits) -> Result<Self, SchemaError> {
        let schema = Arc::new(schema);
        Ok(Self {
            json: Decoder::new(Arc::clone(&schema), limits)?,
            arrow: ipc::Decoder::new(schema, limits)?,
        })
    }

    pub(crate) fn read(&self, body: Bytes) -> Result<(RecordBatch, Form), DecodeError> {
        if body.starts_with(&ARROW_START) {
            return Ok((self.arrow.decode(body)?, Form::Array));
        }
        let decoded = self.json.decode(&body)?;
        Ok((decoded.batch, decoded.form))
    }
}

impl FeatureService {
    pub(crate) fn new(set: &StoredSet, limits: DecodeLimits) -> Result<Self, SchemaError> {
        let of = set.set();
        let field = |column: &millstream_featurestore::Column| {
            Field::new(&column.name, column.data_type.clone(), true)
        };
        let keys: Vec<Field> = of.keys().iter().map(field).collect();
        let all = keys.iter().cloned().chain(of.features().iter().map(field));
        let reply = Arc::new(Schema::new(all.collect::<Vec<_>>()));
        let picks = (0..of.features().len())
            .map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null })
            .collect();
        let places: Vec<usize> = (0..keys.len()).collect();
        let selection =
            Selection::new(of, &places, picks).map_err(|error| SchemaError::new(error.to_string()))?;
        let rows = match set.writable() {
            Some(set) => Some(Bodies::new(with_ids(set.schema()), limits)?),
            None => None,
        };
        Ok(Self {
            set: set.clone(),
            rows,
            keys: Bodies::new(Schema::new(keys), limits)?,
            selection,
            encoder: Encoder::new(Arc::clone(&reply))?,
            reply,
            turn: Arc::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        self.set.set().name()
    }

    /// The columns of a row that is written, if the set takes rows.
    pub(crate) fn row_schema(&self) -> Option<&SchemaRef> {
        self.rows.as_ref().map(|rows| rows.json.schema())
    }

    /// The set, if it takes rows.
    pub(crate) fn writable(&self) -> Option<&Arc<WritableSet>> {
        self.set.writable()
    }

    pub(crate) fn key_schema(&self) -> &SchemaRef {
        self.keys.json.schema()
    }

    /// The columns of a row that is read.
    pub(crate) fn reply_schema(&self) -> &SchemaRef {
        &self.reply
    }

    pub(crate) fn description(&self) -> Value {
        let columns = |schema: &SchemaRef| -> Value {
            let column = |field: &Arc<Field>| json!({ "name": field.name(), "type": type_text(field) });
            schema.fields().iter().map(column).collect()
        };
        let set = self.set.set();
        json!({
            "name": set.name(),
            "version": self.set.version(),
            "description": set.description(),
            "tags": set.tags(),
            "keys": columns(self.key_schema()),
            "features": columns(&Arc::new(Schema::new(self.reply.fields()[set.keys().len()..].to_vec()))),
            "takes_rows": self.rows.is_some(),
            "through": self.writable().and_then(|set| set.passes()),
            // What rows are that pass a graph is told by the graph, where it runs.
            "row": self.row_schema().filter(|_| self.writable().is_none_or(|set| set.is_bound())).map(columns),
        })
    }

    /// Writes the rows of a body; `from` is where the first of them stands in its source.
    pub(crate) async fn write(&self, body: Bytes, from: Option<From>) -> Result<Answer, Answer> {
        let (Some(rows), Some(set)) = (&self.rows, self.set.writable()) else {
            return Err(self.takes_none());
        };
        let (batch, _) = rows.read(body).map_err(|error| undecoded(&error))?;
        let changes = changes(set, batch, from).map_err(|error| unwritten(self.name(), &error))?;
        let written = set.write(changes).get().await;
        written.map(|written| told(&written)).map_err(|error| unwritten(self.name(), &error))
    }

    /// Keys with their features, which are null where there are none.
    pub(crate) async fn lookup(&self, keys: &RecordBatch) -> Result<RecordBatch, LookupError> {
        let table = self.set.table();
        let found = match table.read(keys, &self.selection) {
            Read::Ready(found) => found?,
            Read::Waits(found) => found.await?,
        };
        let columns: Vec<ArrayRef> = keys.columns().iter().cloned().chain(found.columns).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(keys.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.reply), columns, &options)
            .map_err(|error| LookupError::Unavailable(Box::new(error)))
    }

    /// Reads the features of the keys of a body.
    pub(crate) async fn read(&self, body: Bytes) -> Result<Answer, Answer> {
        let (keys, form) = self.keys.read(body).map_err(|error| undecoded(&error))?;
        let found = self.lookup(&keys).await.map_err(|error| unread(self.name(), &error))?;
        let body = written(|body| self.encoder.encode(&found, form, body)).map_err(|error| {
            tracing::error!(set = self.name(), %error, "features cannot be written");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the features cannot be written")
        })?;
        let mut answer = Answer::new(Full::new(body));
        answer.headers_mut().insert(http::header::CONTENT_TYPE, JSON);
        Ok(answer)
    }

    /// Erases the keys of a body.
    pub(crate) async fn erase(&self, body: Bytes) -> Result<Answer, Answer> {
        let Some(set) = self.set.writable() else { return Err(self.takes_none()) };
        let (keys, _) = self.keys.read(body).map_err(|error| undecoded(&error))?;
        let receipt = set.erase(keys).await.map_err(|error| unwritten(self.name(), &error))?;
        Ok(json_answer(StatusCode::OK, &receipt_text(&receipt)))
    }

    /// What the features look like in the rows that are there now.
    pub(crate) async fn statistics(&self) -> Result<Answer, Answer> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let set = self.set.clone();
        let found = blocking(move || {
            // With the work, not with who waits for it: one who goes away lets no other in before it is done.
            let _turn = turn;
            profiles(&set)
        });
        match found.await {
            Ok(Ok(profiles)) => {
                let told = json!({ "name": self.name(), "version": self.set.version(), "features": told_profiles(&profiles) });
                Ok(json_answer(StatusCode::OK, &told))
            }
            Ok(Err(error @ ProfileError::Unavailable(_))) => Err(unavailable(self.name(), &error)),
            Ok(Err(error)) => {
                let message = format!("feature set `{}` has no statistics: {error}", self.name());
                Err(refused(StatusCode::NOT_IMPLEMENTED, "no_statistics", &message))
            }
            Err(error) => Err(unavailable(self.name(), &error)),
        }
    }

    fn takes_none(&self) -> Answer {
        let message =
            format!("feature set `{}` is its file and takes no rows; give it `online`", self.name());
        wrong_method(&message, "GET, HEAD")
    }
}

/// Where the first row of a body stands in its source; the others follow.
pub(crate) struct From {
    pub(crate) source: String,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

fn with_ids(schema: &SchemaRef) -> Schema {
    let mut fields = schema.fields().to_vec();
    if schema.index_of(EVENT_ID).is_err() {
        fields.push(Arc::new(Field::new(EVENT_ID, DataType::Utf8, true)));
    }
    Schema::new(fields)
}

fn changes(set: &WritableSet, batch: RecordBatch, from: Option<From>) -> Result<Changes, WriteError> {
    let ids = match set.schema().index_of(EVENT_ID) {
        Ok(_) => None,
        Err(_) => batch.column_by_name(EVENT_ID).and_then(|ids| ids.as_string_opt::<i32>()).cloned(),
    };
    let rows = batch.num_rows() as u64;
    let mut changes = set.changes(batch)?;
    if let Some(ids) = ids.filter(|ids| arrow::array::Array::null_count(ids) < arrow::array::Array::len(ids))
    {
        changes = changes.ids(ids.iter().map(|id| id.map(str::to_owned)));
    }
    if let Some(From { source, partition, offset }) = from {
        let offsets = (0..rows).map(|row| offset.saturating_add(row)).collect();
        changes = changes.at(Positions::new(source, partition, offsets));
    }
    Ok(changes)
}

/// What became of each row, counted; refused ones with their reason.
fn told(written: &Written) -> Answer {
    let counts = written.counts().into_iter();
    let mut body: Value = counts.map(|(name, rows)| (name.to_owned(), Value::from(rows))).collect();
    let problem = |(row, problem): (usize, &millstream_featurestore::RowProblem)| json!({ "row": row, "field": problem.column(), "error": problem.to_string() });
    if !written.broken.is_empty() {
        let rules = written.broken.iter().map(|(rule, rows)| (rule.to_string(), Value::from(*rows)));
        body["rules"] = rules.collect();
    }
    body["problems"] = written.refused().take(TOLD).map(problem).collect();
    json_answer(StatusCode::OK, &body)
}

/// A receipt as answers and the command line have it.
pub(crate) fn receipt_text(receipt: &Receipt) -> Value {
    json!({
        "removed": receipt.removed,
        "unknown": receipt.unknown,
        "files_deleted": receipt.files_deleted,
        "files_written": receipt.files_written,
        "set_aside": receipt.set_aside,
        "log_rows": receipt.log_rows,
        "beyond": receipt.beyond,
    })
}

pub(crate) fn unread(set: &str, error: &LookupError) -> Answer {
    match error {
        LookupError::Unavailable(_) => unavailable(set, error),
        other => refused(StatusCode::BAD_REQUEST, "wrong_type", &other.to_string()),
    }
}

fn unwritten(set: &str, error: &WriteError) -> Answer {
    match error {
        WriteError::Columns { .. } | WriteError::Lookup(_) => {
            refused(StatusCode::BAD_REQUEST, "wrong_type", &error.to_string())
        }
        WriteError::TooLarge { .. } => {
            refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &error.to_string())
        }
        WriteError::Full { .. } => refused(StatusCode::INSUFFICIENT_STORAGE, "full", &error.to_string()),
        other => unavailable(set, other),
    }
}

/// What went wrong in a store is for the log.
fn unavailable(set: &str, error: &dyn std::error::Error) -> Answer {
    tracing::error!(set, error = chain(error), "a feature set does not answer");
    let message = format!("feature set `{set}` takes no rows or gives none at present; the log says why");
    refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message)
}
