//! The columns of a log: those of every request, then those of each watched edge.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use millstream_graph::suggest;

use super::{
    encode,
    error::Mistake,
    personal::{Hmac, has_texts},
    sample::Sample,
    settings::RecordSettings,
};

/// The caller's name for the request.
pub(super) const REQUEST_ID: &str = "request_id";
/// When the request came.
pub(super) const AT: &str = "at";
/// Columns of every log before those of versions.
pub(super) const HEAD: usize = 8;
/// The edge that every row of a request travels, by which its rows are counted.
pub(super) const INPUT: &str = "input";
/// Says in the metadata of a column that it has digests in the place of values: `true`.
const HASHED: &str = "millstream.hashed";
/// Says in the metadata of `{edge}__seen` which columns of the edge are dropped: their names as a JSON array.
const DROPPED: &str = "millstream.dropped";

/// An edge whose rows are logged.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What its columns are called after: `score` gives `score__probability`.
    pub name: String,
    /// The rows that travel it.
    pub schema: SchemaRef,
}

/// Where everything of a request goes in a row of the log.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) schema: SchemaRef,
    /// Columns of versions, `graph_version` included.
    pub(super) versions: usize,
    pub(super) edges: Vec<Edge>,
    /// The edge that every row of a request travels.
    pub(super) input: Option<usize>,
    pub(super) sample: Sample,
    /// The edge and its column whose values choose the rows that are logged.
    pub(super) key: Option<(usize, usize)>,
    pub(super) hmac: Option<Hmac>,
}

#[derive(Debug)]
pub(super) struct Edge {
    /// What its batches must look like.
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<Column>,
}

#[derive(Debug)]
pub(super) struct Column {
    /// Where it stands in the edge's batches.
    pub(super) source: usize,
    pub(super) hashed: bool,
    /// The edge's type without dictionaries and runs: those of two batches cannot be put together without loss.
    pub(super) plain: DataType,
}

impl Layout {
    pub(super) fn new(
        settings: &RecordSettings,
        edges: &[Watched],
        hmac: Option<Hmac>,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let names = Names { settings, edges };
        names.check(mistakes);
        let mut fields = head(&settings.versions);
        let mut laid = Vec::with_capacity(edges.len());
        for edge in edges {
            let (seen, mut dropped) = (fields.len(), BTreeSet::new());
            fields.push(Field::new(seen_name(&edge.name), DataType::Boolean, false));
            let mut columns = Vec::with_capacity(edge.schema.fields().len());
            for (source, field) in edge.schema.fields().iter().enumerate() {
                let own = format!("{}__{}", edge.name, field.name());
                if named(&settings.drop, field.name(), &own) {
                    dropped.insert(field.name().clone());
                    continue;
                }
                let hashed = named(&settings.hash, field.name(), &own);
                let plain = plain(field.data_type());
                if hashed && !has_texts(&plain) {
                    let data_type = field.data_type().clone();
                    mistakes.push(Mistake::NotHashable { setting: "hash", column: own.clone(), data_type });
                }
                let logged = if hashed { DataType::Utf8 } else { plain.clone() };
                let mut logged = Field::new(own, logged, true).with_metadata(field.metadata().clone());
                if hashed {
                    logged.metadata_mut().insert(HASHED.to_owned(), "true".to_owned());
                }
                if !encode::holds(logged.data_type()) {
                    let (column, data_type) = (logged.name().clone(), field.data_type().clone());
                    mistakes.push(Mistake::NotParquet { column, data_type });
                }
                fields.push(logged);
                columns.push(Column { source, hashed, plain });
            }
            mark_dropped(&mut fields[seen], &dropped);
            laid.push(Edge { schema: Arc::clone(&edge.schema), columns });
        }
        let mut seen = HashSet::new();
        for field in fields.iter().filter(|field| !seen.insert(field.name().as_str())) {
            mistakes.push(Mistake::SameName(field.name().clone()));
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            versions: 1 + settings.versions.len(),
            edges: laid,
            input: edges.iter().position(|edge| edge.name == INPUT),
            sample: Sample::new(settings.sample),
            key: names.key(mistakes),
            hmac,
        }
    }
}

/// The columns of every log.
fn head(versions: &[String]) -> Vec<Field> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let outcome = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let degraded = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, false)));
    let mut fields = vec![
        text(REQUEST_ID),
        Field::new("run", DataType::Utf8, false),
        Field::new("row", DataType::UInt32, false),
        Field::new("rows", DataType::UInt32, true),
        Field::new(AT, time, false),
        Field::new("took_us", DataType::Int64, false),
        Field::new("outcome", outcome, false),
        Field::new("degraded", degraded, false),
        text("graph_version"),
    ];
    fields.extend(versions.iter().map(|name| text(name)));
    fields
}

/// The column that says whether a row came over an edge.
pub(super) fn seen_name(edge: &str) -> String {
    format!("{edge}__seen")
}

/// Whether a column has digests in the place of values.
pub(super) fn is_hashed(field: &Field) -> bool {
    field.metadata().get(HASHED).is_some_and(|value| value == "true")
}

/// The dropped columns of an edge, of its column `{edge}__seen`.
pub(super) fn dropped(seen: &Field) -> BTreeSet<String> {
    let names = seen.metadata().get(DROPPED).and_then(|names| serde_json::from_str(names).ok());
    names.unwrap_or_default()
}

fn mark_dropped(seen: &mut Field, dropped: &BTreeSet<String>) {
    if !dropped.is_empty() {
        seen.metadata_mut().insert(DROPPED.to_owned(), serde_json::json!(dropped).to_string());
    }
}

/// A column that is hashed or dropped in some files of a log is so in all of it: nobody may take a digest for a value.
pub(super) fn add_marks(field: &mut Field, other: &Field) {
    if is_hashed(other) {
        field.metadata_mut().insert(HASHED.to_owned(), "true".to_owned());
    }
    let mut names = dropped(field);
    names.extend(dropped(other));
    mark_dropped(field, &names);
}

/// A type with the values of dictionaries and runs in their place, at any depth.
fn plain(data_type: &DataType) -> DataType {
    let inside = |field: &Arc<Field>| Arc::new(Field::clone(field).with_data_type(plain(field.data_type())));
    match data_type {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::List(field) => DataType::List(inside(field)),
        DataType::LargeList(field) => DataType::LargeList(inside(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(inside(field), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inside).collect::<Fields>()),
        other => other.clone(),
    }
}

fn named(names: &[String], column: &str, own: &str) -> bool {
    names.iter().any(|name| name == column || name == own)
}

/// The columns that settings name.
struct Names<'a> {
    settings: &'a RecordSettings,
    edges: &'a [Watched],
}

impl Names<'_> {
    /// Every column with its edge, its own name and its name in the log.
    fn all(&self) -> impl Iterator<Item = (usize, usize, &Field, String)> {
        self.edges.iter().enumerate().flat_map(|(e, edge)| {
            let fields = edge.schema.fields().iter().enumerate();
            fields.map(move |(c, field)| (e, c, &**field, format!("{}__{}", edge.name, field.name())))
        })
    }

    fn check(&self, mistakes: &mut Vec<Mistake>) {
        let RecordSettings { drop, hash, .. } = self.settings;
        for (setting, names) in [("drop", drop), ("hash", hash)] {
            for name in names {
                self.known(setting, name, mistakes);
            }
        }
        for (_, _, field, own) in self.all() {
            if named(drop, field.name(), &own) && named(hash, field.name(), &own) {
                mistakes.push(Mistake::DroppedAndHashed(own));
            }
        }
    }

    fn known(&self, setting: &'static str, wanted: &str, mistakes: &mut Vec<Mistake>) -> bool {
        if self.all().any(|(_, _, field, own)| wanted == field.name() || wanted == own) {
            return true;
        }
        let mut known: Vec<String> = self.all().map(|(_, _, field, _)| field.name().clone()).collect();
        known.sort_unstable();
        known.dedup();
        let problem = suggest::unknown("column of a watched edge", wanted, known.iter().map(String::as_str));
        mistakes.push(Mistake::Unknown { setting, problem });
        false
    }

    /// The first column that is called like the setting `key`.
    fn key(&self, mistakes: &mut Vec<Mistake>) -> Option<(usize, usize)> {
        let wanted = self.settings.key.as_deref()?;
        if !self.known("key", wanted, mistakes) {
            return None;
        }
        let found = self.all().find(|(_, _, field, own)| wanted == field.name() || wanted == own);
        let (edge, column, field, own) = found?;
        if !has_texts(&plain(field.data_type())) {
            let data_type = field.data_type().clone();
            mistakes.push(Mistake::NotHashable { setting: "key", column: own, data_type });
        }
        Some((edge, column))
    }
}
