//! The log read from a place on, for whoever keeps elsewhere what it says.

use std::{io, path::PathBuf, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt64Array},
    datatypes::{Field, Schema},
};

use super::{
    files::Files,
    frames::{Frame, Frames, Next},
    log::{SEGMENT, segment_name},
    record::Record,
};
use crate::{
    Column, FeatureSet, Gap, Pick, Selection,
    gather::{PackedRow, gather},
    key::{self, KeyKind},
    layout::Layout,
    offline::LogSchema,
    online::{
        bytes::Cursor,
        row::{Head, Row, raw_definition},
    },
};

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    /// How many bytes of the segment were read.
    pub(crate) at: u64,
    /// The number of the next frame, once one was read.
    frame: Option<u64>,
}

impl Place {
    /// The beginning of a segment, of which no frame is known.
    pub(crate) fn at_segment(segment: u64) -> Self {
        Self { segment, at: 0, frame: None }
    }

    /// The beginning of the segment behind this one, which has been read.
    pub(crate) fn next(self) -> Self {
        Self { segment: self.segment + 1, at: 0, frame: self.frame }
    }
}

/// Why the log cannot be read again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TailError {
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged at byte {at}: {problem}", path.display())]
    Damaged { path: PathBuf, at: u64, problem: &'static str },
    #[error("{} was written for other event columns; open it with the definition that it was written for", path.display())]
    OtherColumns { path: PathBuf },
}

/// Reads the log of one set.
pub(crate) struct Tail {
    files: Arc<dyn Files>,
    set: Arc<FeatureSet>,
    kinds: Box<[KeyKind]>,
    /// Bytes of a row's fixed part.
    fixed: usize,
    own: Selection,
    raw: Selection,
}

impl Tail {
    pub(crate) fn new(files: Arc<dyn Files>, set: Arc<FeatureSet>) -> Self {
        let kinds = set.keys().iter().filter_map(|key| KeyKind::of(&key.data_type)).collect();
        let every = |columns: &[Column]| {
            let picks = 0..columns.len();
            let picks = picks.map(|feature| Pick { feature, missing: Gap::Null, null: Gap::Null });
            Selection::over(columns, &[], picks.collect())
        };
        let fixed = Head::BYTES + Layout::of(set.own_features()).stride();
        let (own, raw) = (every(set.own_features()), every(set.raw_columns()));
        Self { files, set, kinds, fixed, own, raw }
    }

    /// Hands over what is said from `place` on, up to byte `until` of the segment or to its end, and moves the place behind it.
    pub(crate) fn read<E: From<TailError>>(
        &self,
        place: &mut Place,
        until: Option<u64>,
        mut each: impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let name = segment_name(place.segment);
        let io = |source| TailError::Io { path: self.files.path(&name), source };
        let (file, len) = self.files.read_from(&name, place.at).map_err(io)?;
        let begun = place.at;
        let mut frames = Frames::new(file, until.unwrap_or(len).saturating_sub(begun));
        loop {
            let damaged =
                |problem| TailError::Damaged { path: self.files.path(&name), at: place.at, problem };
            let frame = match frames.next().map_err(io)? {
                Next::End => return Ok(()),
                Next::Bad => return Err(damaged("no whole frame").into()),
                Next::Frame(frame) => frame,
            };
            if place.frame.is_some_and(|wanted| wanted != frame.number) {
                return Err(damaged("a frame that does not follow the one before it").into());
            }
            if place.at == 0 {
                self.check_head(&name, &frame)?;
            } else {
                let mut from = Cursor(&frame.payload);
                while !from.0.is_empty() {
                    let record = Record::decode(&mut from, self.fixed, self.set.windows().map(AsRef::as_ref));
                    each(&record.ok_or_else(|| damaged("a record that is none"))?)?;
                }
            }
            place.at = begun + frames.at;
            place.frame = Some(frame.number + 1);
        }
    }

    /// Rows of a segment have the raw columns that its head names.
    fn check_head(&self, name: &str, frame: &Frame) -> Result<(), TailError> {
        let path = || self.files.path(name);
        let mut from = Cursor(&frame.payload);
        if from.take(2) != Some(&SEGMENT[..]) || from.text().is_none() {
            return Err(TailError::Damaged { path: path(), at: 0, problem: "its head says what it cannot" });
        }
        // A segment that was begun without a log elsewhere names none, and has no rows for it.
        match from.text() {
            Some(raw) if raw != raw_definition(&self.set) => Err(TailError::OtherColumns { path: path() }),
            _ => Ok(()),
        }
    }

    /// Keys as columns by the names of the set's.
    pub(crate) fn keys(&self, keys: &[&[u8]]) -> Option<RecordBatch> {
        let columns = key::decode(keys, self.set.keys(), &self.kinds)?;
        let fields = self.set.keys().iter().map(|key| Field::new(&key.name, key.data_type.clone(), false));
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).ok()
    }

    /// Rows in the form of the log elsewhere.
    pub(crate) fn batch(&self, rows: &Rows, schema: &LogSchema) -> Option<RecordBatch> {
        let keys: Vec<&[u8]> = rows.rows.iter().map(|row| &*row.key).collect();
        let mut columns = key::decode(&keys, self.set.keys(), &self.kinds)?;
        let own = rows.rows.iter().map(|row| Some(PackedRow::new(&row.fixed[Head::BYTES..], &row.text)));
        columns.extend(gather(&self.own, own).columns);
        let raw = rows.rows.iter().map(|row| Some(PackedRow::new(&row.raw, &row.raw_text)));
        columns.extend(gather(&self.raw, raw).columns);
        let heads: Vec<Head> = rows.rows.iter().map(|row| Head::read(&row.fixed)).collect();
        let times = |time: fn(&Head) -> Option<i64>| -> ArrayRef {
            Arc::new(heads.iter().map(time).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        columns.push(times(|head| Some(head.event)));
        columns.push(times(|head| head.version().created));
        columns.push(times(|head| (head.ends != i64::MAX).then_some(head.ends)));
        columns.push(Arc::new(UInt64Array::from_iter_values(heads.iter().map(|head| head.sequence))));
        RecordBatch::try_new(Arc::clone(schema.arrow()), columns).ok()
    }

    /// Bytes of the raw columns of a row.
    pub(crate) fn raw_bytes(&self) -> usize {
        Layout::of(self.set.raw_columns()).stride()
    }
}

/// Rows that were read, until there are enough for a batch.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    rows: Vec<Held>,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    key: Box<[u8]>,
    fixed: Box<[u8]>,
    text: Box<str>,
    raw: Box<[u8]>,
    raw_text: Box<str>,
}

impl Rows {
    pub(crate) fn push(&mut self, row: &Row<'_>, (raw, raw_text): (&[u8], &str)) {
        self.bytes +=
            size_of::<Held>() + row.key.len() + row.fixed.len() + row.text.len() + raw.len() + raw_text.len();
        self.rows.push(Held {
            key: row.key.into(),
            fixed: row.fixed.into(),
            text: row.text.into(),
            raw: raw.into(),
            raw_text: raw_text.into(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
