//! What is watched of a graph: which edges, which of their columns, and by which bins, categories and segments.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{DataType, Schema};

use crate::{
    multivariate::Reconstruction,
    quality::RuleSpec,
    reference::{Reference, ReferenceColumn},
    sketch::{Bounds, Labels, Numbers, Presence, Sketch, Times},
};

/// What is watched of one edge.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The edge's name: that of the port whose rows it carries, such as `input`, `score` or `split.high`.
    pub edge: Arc<str>,
    /// The columns.
    pub columns: Vec<Column>,
    /// The columns whose values divide the rows into segments.
    pub segments: Vec<Segment>,
    /// What the numeric columns are compared with together, if they are.
    pub reconstruction: Option<Arc<Reconstruction>>,
}

/// A column that is watched.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// How its values are counted.
    pub kind: Kind,
}

/// How a column's values are counted.
#[derive(Clone, Debug)]
pub enum Kind {
    /// As numbers.
    Numeric {
        /// The edges that cut their bins.
        edges: Arc<[f64]>,
        /// What lies outside of these is counted, too.
        bounds: Bounds,
    },
    /// As categories, these of which are known before.
    Categorical(Arc<[String]>),
    /// As times, which are dated and not compared.
    Time,
    /// Only whether there is one.
    Presence,
}

/// A column whose values divide the rows.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its name.
    pub name: Arc<str>,
    /// The values that have a segment in any case.
    pub known: Arc<[String]>,
    /// How many further values have a segment of their own; the others share one.
    pub most: usize,
}

/// How the columns of an edge are to be watched.
#[derive(Clone, Debug, Default)]
pub struct Watching<'w> {
    /// These columns; all if there are none.
    pub columns: &'w [String],
    /// Columns that are counted where they come from, and not here.
    pub elsewhere: &'w [&'w str],
    /// Whole numbers that are categories.
    pub categorical: &'w [String],
    /// Columns whose values divide the rows.
    pub segments: &'w [String],
    /// Segments of a column.
    pub most_segments: usize,
    /// What the columns are compared with.
    pub reference: Option<&'w Reference>,
    /// What is expected of columns, by their names: the bounds of numbers.
    pub rules: Option<&'w BTreeMap<String, RuleSpec>>,
}

/// Bins of a column that has no reference.
const NO_EDGES: [f64; 0] = [];

impl Layout {
    /// What is watched of rows of a schema.
    ///
    /// # Errors
    /// Every column that is named and is not there, or cannot be what it is said to be.
    pub fn new(edge: &str, schema: &Schema, watching: &Watching<'_>) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let names: Vec<&str> = schema.fields().iter().map(|field| &**field.name()).collect();
        let mut place = |name: &String| {
            let found = names.iter().position(|known| known == name);
            if found.is_none() {
                problems.push(millstream_graph::suggest::unknown("column", name, names.iter().copied()));
            }
            found
        };
        let wanted: Vec<usize> = match watching.columns {
            [] => (0..names.len()).filter(|at| !watching.elsewhere.contains(&names[*at])).collect(),
            columns => columns.iter().filter_map(&mut place).collect(),
        };
        let categorical: Vec<usize> = watching.categorical.iter().filter_map(&mut place).collect();
        let dividing: Vec<usize> = watching.segments.iter().filter_map(&mut place).collect();
        let column = |at: usize| {
            let field = schema.field(at);
            let reference = watching.reference.and_then(|reference| reference.column(field.name()));
            let mut kind = kind(field.data_type(), categorical.contains(&at), reference);
            if let Kind::Numeric { bounds, .. } = &mut kind
                && let Some(rule) = watching.rules.and_then(|rules| rules.get(field.name()))
            {
                *bounds = rule.bounds();
            }
            Column { name: field.name().as_str().into(), kind }
        };
        for &at in categorical.iter().chain(&dividing) {
            if !matches!(kind(schema.field(at).data_type(), true, None), Kind::Categorical(_)) {
                let field = schema.field(at);
                problems.push(format!(
                    "column `{}` of type {} has no categories",
                    field.name(),
                    field.data_type()
                ));
            }
        }
        let segment = |at: usize| Segment {
            name: schema.field(at).name().as_str().into(),
            known: match watching.reference.and_then(|reference| reference.column(schema.field(at).name())) {
                Some(reference) => reference.frequent(watching.most_segments).into(),
                None => Arc::default(),
            },
            most: watching.most_segments,
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            edge: edge.into(),
            columns: wanted.into_iter().map(column).collect(),
            segments: dividing.into_iter().map(segment).collect(),
            reconstruction: None,
        })
    }

    /// The columns that a tap has to see: those that are counted, and those whose values divide the rows.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        let dividing = self.segments.iter().map(|segment| &*segment.name);
        self.columns.iter().map(|column| &*column.name).chain(dividing)
    }

    /// The names of its numeric columns.
    pub fn numeric(&self) -> Vec<&str> {
        let numeric = |column: &&Column| matches!(column.kind, Kind::Numeric { .. });
        self.columns.iter().filter(numeric).map(|column| &*column.name).collect()
    }

    /// A layout's columns, having counted nothing.
    pub(crate) fn sketches(&self) -> Vec<Sketch> {
        self.columns.iter().map(|column| column.kind.sketch()).collect()
    }
}

impl Kind {
    /// What cuts the bins of its numbers, if it has any.
    pub(crate) fn edges(&self) -> &[f64] {
        match self {
            Self::Numeric { edges, .. } => edges,
            Self::Categorical(_) | Self::Time | Self::Presence => &NO_EDGES,
        }
    }

    /// A column of this kind that has counted nothing.
    pub fn sketch(&self) -> Sketch {
        match self {
            Self::Numeric { edges, bounds } => Sketch::Numbers(Numbers::within(edges, *bounds)),
            Self::Categorical(known) => Sketch::Labels(Labels::new(known.iter().map(String::as_str))),
            Self::Time => Sketch::Times(Times::default()),
            Self::Presence => Sketch::Presence(Presence::default()),
        }
    }
}

/// How values of a type are counted. A reference that has the column as categories makes them categories here, too.
pub(crate) fn kind(data_type: &DataType, categorical: bool, reference: Option<&ReferenceColumn>) -> Kind {
    let known = || match reference {
        Some(ReferenceColumn::Categorical { known }) => known.as_slice().into(),
        _ => Arc::default(),
    };
    let counted_by_name = categorical || matches!(reference, Some(ReferenceColumn::Categorical { .. }));
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean => {
            Kind::Categorical(known())
        }
        DataType::Dictionary(_, values) => kind(values, categorical, reference),
        integer if integer.is_integer() && counted_by_name => Kind::Categorical(known()),
        number if number.is_integer() || number.is_floating() => {
            let edges = match reference {
                Some(ReferenceColumn::Numeric { edges }) => edges.as_slice(),
                _ => &NO_EDGES,
            };
            Kind::Numeric { edges: edges.into(), bounds: Bounds::default() }
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Kind::Time,
        _ => Kind::Presence,
    }
}
