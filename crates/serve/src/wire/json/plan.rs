//! What a schema asks of a body: one node per column, resolved once.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use millstream_graph::SchemaError;

use crate::wire::is_free_form;

/// Deeper schemas are refused: reading and building recurse along the schema.
const MAX_DEPTH: usize = 60;

/// The longest object in which an unexpected key is looked for one by one rather than in a map.
const FEW_FIELDS: usize = 16;

/// How one column, or one nested level of it, is read and where its values go.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) slot: usize,
    pub(super) nullable: bool,
    /// What an absent value costs in bytes of columns.
    pub(super) absent_bytes: usize,
    pub(super) data_type: DataType,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    Int(Int),
    Float(Float),
    Text,
    FreeForm,
    /// Base64; the length when it is fixed.
    Binary(Option<i32>),
    Timestamp(TimeUnit),
    Date,
    Decimal {
        precision: u8,
        scale: i8,
    },
    List(Box<Node>),
    /// A list of a fixed length.
    Tensor(Box<Node>, usize),
    Struct(Record),
}

/// An integer type: its width in bytes and its range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Int {
    pub(super) width: usize,
    pub(super) min: i64,
    pub(super) max: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Float {
    F16,
    F32,
    F64,
}

/// How a slot's values lie in memory once they are an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As they were pushed, or not at all.
    Plain,
    /// One bit each.
    Bits,
    /// Between offsets of 32 bits.
    Offsets32,
    /// Between offsets of 64 bits.
    Offsets64,
    /// Nowhere: they were checked, and nothing reads them.
    Nowhere,
}

/// What becomes of a column of a body that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Carried,
    /// Made, because that can fail, and let go.
    Made,
    /// Never made.
    Left,
}

impl Node {
    /// What becomes of the column when nothing reads it.
    pub(super) fn unread(&self) -> Fate {
        let inner = match &self.kind {
            // A dictionary's keys can run out.
            Kind::Text if matches!(self.data_type, DataType::Dictionary(..)) => return Fate::Made,
            Kind::List(item) | Kind::Tensor(item, _) => std::slice::from_ref(item.as_ref()),
            Kind::Struct(record) => &record.nodes,
            _ => &[],
        };
        if inner.iter().any(|node| node.unread() == Fate::Made) { Fate::Made } else { Fate::Left }
    }

    /// Lets the values of the column, and of what it consists of, lie nowhere.
    pub(super) fn leave(&self, layouts: &mut [Layout]) {
        layouts[self.slot] = Layout::Nowhere;
        match &self.kind {
            Kind::List(item) | Kind::Tensor(item, _) => item.leave(layouts),
            Kind::Struct(record) => record.nodes.iter().for_each(|node| node.leave(layouts)),
            _ => {}
        }
    }
}

/// The fields of an object.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) slot: usize,
    pub(super) fields: Fields,
    pub(super) nodes: Vec<Node>,
    index: HashMap<Box<str>, usize>,
}

impl Record {
    /// Finds a field, looking first where it is when keys come in the order of the schema.
    pub(super) fn position(&self, key: &str, expected: usize) -> Option<usize> {
        if self.fields.get(expected).is_some_and(|field| field.name() == key) {
            return Some(expected);
        }
        if self.fields.len() <= FEW_FIELDS {
            return self.fields.iter().position(|field| field.name() == key);
        }
        self.index.get(key).copied()
    }

    /// The known names, for errors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name().as_str())
    }
}

/// Resolves schemas into nodes, handing out slots and keeping every problem.
#[derive(Default)]
pub(super) struct Planner {
    pub(super) layouts: Vec<Layout>,
    problems: Vec<SchemaError>,
}

impl Planner {
    /// The plan of an object with these fields.
    pub(super) fn record(&mut self, fields: &Fields, path: &str, depth: usize) -> Record {
        let slot = self.slot(Layout::Plain);
        let mut index = HashMap::with_capacity(fields.len());
        let mut nodes = Vec::with_capacity(fields.len());
        for (position, field) in fields.iter().enumerate() {
            let path =
                if path.is_empty() { field.name().clone() } else { format!("{path}.{}", field.name()) };
            if index.insert(field.name().as_str().into(), position).is_some() {
                self.problem(&path, "there are two fields of this name");
            }
            nodes.push(self.node(field, &path, depth + 1));
        }
        Record { slot, fields: fields.clone(), nodes, index }
    }

    /// Every problem met, or nothing.
    pub(super) fn finish(self) -> Result<Vec<Layout>, SchemaError> {
        SchemaError::collect(self.problems)?;
        Ok(self.layouts)
    }

    fn node(&mut self, field: &Field, path: &str, depth: usize) -> Node {
        if depth > MAX_DEPTH {
            self.problem(path, "the type nests too deep to be read from JSON");
            return self.leaf(field, Kind::Bool, Layout::Bits, 1);
        }
        match field.data_type() {
            DataType::Boolean => self.leaf(field, Kind::Bool, Layout::Bits, 1),
            DataType::Int8 => self.int(field, 1, i64::from(i8::MIN), i8::MAX as u64),
            DataType::Int16 => self.int(field, 2, i64::from(i16::MIN), i16::MAX as u64),
            DataType::Int32 => self.int(field, 4, i64::from(i32::MIN), i32::MAX as u64),
            DataType::Int64 => self.int(field, 8, i64::MIN, i64::MAX as u64),
            DataType::UInt8 => self.int(field, 1, 0, u64::from(u8::MAX)),
            DataType::UInt16 => self.int(field, 2, 0, u64::from(u16::MAX)),
            DataType::UInt32 => self.int(field, 4, 0, u64::from(u32::MAX)),
            DataType::UInt64 => self.int(field, 8, 0, u64::MAX),
            DataType::Float16 => self.leaf(field, Kind::Float(Float::F16), Layout::Plain, 2),
            DataType::Float32 => self.leaf(field, Kind::Float(Float::F32), Layout::Plain, 4),
            DataType::Float64 => self.leaf(field, Kind::Float(Float::F64), Layout::Plain, 8),
            DataType::Timestamp(unit, _) => self.leaf(field, Kind::Timestamp(*unit), Layout::Plain, 8),
            DataType::Date32 => self.leaf(field, Kind::Date, Layout::Plain, 4),
            &DataType::Decimal128(precision, scale) => {
                self.leaf(field, Kind::Decimal { precision, scale }, Layout::Plain, 16)
            }
            DataType::Utf8 | DataType::Utf8View => self.text(field, Layout::Offsets32),
            DataType::LargeUtf8 => self.text(field, Layout::Offsets64),
            DataType::Dictionary(_, value) if **value == DataType::Utf8 => {
                self.text(field, Layout::Offsets32)
            }
            DataType::Binary | DataType::BinaryView => {
                self.leaf(field, Kind::Binary(None), Layout::Offsets32, 8)
            }
            DataType::LargeBinary => self.leaf(field, Kind::Binary(None), Layout::Offsets64, 8),
            &DataType::FixedSizeBinary(size) if size > 0 => {
                self.leaf(field, Kind::Binary(Some(size)), Layout::Plain, size as usize)
            }
            DataType::List(item) => self.list(field, item, Layout::Offsets32, path, depth),
            DataType::LargeList(item) => self.list(field, item, Layout::Offsets64, path, depth),
            &DataType::FixedSizeList(ref item, size) if size > 0 => {
                self.tensor(field, item, size as usize, path, depth)
            }
            DataType::Struct(fields) if !fields.is_empty() => self.nested(field, fields, path, depth),
            other => {
                self.problem(path, &format!("type {other} cannot be read from JSON"));
                self.leaf(field, Kind::Bool, Layout::Bits, 1)
            }
        }
    }

    fn leaf(&mut self, field: &Field, kind: Kind, layout: Layout, absent_bytes: usize) -> Node {
        Node {
            slot: self.slot(layout),
            nullable: field.is_nullable(),
            absent_bytes,
            data_type: field.data_type().clone(),
            kind,
        }
    }

    fn int(&mut self, field: &Field, width: usize, min: i64, max: u64) -> Node {
        self.leaf(field, Kind::Int(Int { width, min, max }), Layout::Plain, width)
    }

    fn text(&mut self, field: &Field, layout: Layout) -> Node {
        let kind = if is_free_form(field) { Kind::FreeForm } else { Kind::Text };
        self.leaf(field, kind, layout, 8)
    }

    fn list(&mut self, field: &Field, item: &FieldRef, layout: Layout, path: &str, depth: usize) -> Node {
        let item = self.node(item, &format!("{path}[]"), depth + 1);
        self.leaf(field, Kind::List(Box::new(item)), layout, 8)
    }

    fn tensor(&mut self, field: &Field, item: &FieldRef, size: usize, path: &str, depth: usize) -> Node {
        let item = self.node(item, &format!("{path}[]"), depth + 1);
        let absent_bytes = item.absent_bytes.saturating_mul(size);
        self.leaf(field, Kind::Tensor(Box::new(item), size), Layout::Plain, absent_bytes)
    }

    fn nested(&mut self, field: &Field, fields: &Fields, path: &str, depth: usize) -> Node {
        let record = self.record(fields, path, depth);
        let absent_bytes =
            record.nodes.iter().fold(0, |sum: usize, node| sum.saturating_add(node.absent_bytes));
        Node {
            slot: record.slot,
            nullable: field.is_nullable(),
            absent_bytes,
            data_type: field.data_type().clone(),
            kind: Kind::Struct(record),
        }
    }

    fn slot(&mut self, layout: Layout) -> usize {
        self.layouts.push(layout);
        self.layouts.len() - 1
    }

    fn problem(&mut self, path: &str, problem: &str) {
        self.problems.push(SchemaError::new(format!("field `{path}`: {problem}")));
    }
}
