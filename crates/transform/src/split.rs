//! `split`: each row leaves on the port that its key falls to, as often as the port's weight says.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{
    Input, OutPort, Output, RowFlow, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    deal::{Dealer, Keys},
    prepared::{Kernel, Layout, LayoutBuilder, Prepared},
};

/// Sends each row out on one of several ports by its key: the same key always on the same port, and of many keys as many as the
/// port's weight says. For canaries, and for tests of one model against another.
///
/// A key's place is a fraction from 0 to 1: the first 53 bits of the SHA-256 of the salt and of the key's values as text, with a
/// byte 0x1f between them. The ports have their parts of that range in their order. So it is the same on all machines; when
/// weights move, only keys between the old bounds and the new ones change ports; and another salt deals the keys anew.
///
/// ```
/// use millstream_transform::Split;
/// let step = Split::by(["card_id"]).port("champion", 95.0).port("canary", 5.0).named("arm");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Split {
    by: Vec<String>,
    ports: Vec<(String, f64)>,
    salt: String,
    name: Option<String>,
    prepared: Prepared<SplitKernel>,
}

/// Sends each row out on one of several ports by its key, the same key always on the same port.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitSettings {
    /// The column whose value decides, or a list of columns: whole numbers, texts or truth values.
    by: Keys,
    /// Ports and their weights, in the order in which they have their parts.
    ports: IndexMap<String, f64>,
    /// Another text deals the keys anew.
    #[serde(default)]
    salt: String,
    /// A column that is added, with the name of the port.
    #[serde(default)]
    r#as: Option<String>,
}

impl Split {
    /// A split by these columns.
    pub fn by<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { by: columns.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Adds a port, which takes so much of all keys as its weight has of all weights.
    #[must_use]
    pub fn port(mut self, name: impl Into<String>, weight: f64) -> Self {
        self.ports.push((name.into(), weight));
        self
    }

    /// Deals keys in another way than other splits do.
    #[must_use]
    pub fn salt(mut self, salt: impl Into<String>) -> Self {
        self.salt = salt.into();
        self
    }

    /// Adds a column of this name, which says on which port a row left.
    #[must_use]
    pub fn named(mut self, column: impl Into<String>) -> Self {
        self.name = Some(column.into());
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<SplitKernel, SchemaError> {
        let mut problems = Vec::new();
        let dealer = Dealer::new(&self.by, &self.salt, schema, &mut problems);
        if self.ports.len() < 2 {
            problems.push(SchemaError::new("it names fewer than two ports with weights"));
        }
        for (at, (name, weight)) in self.ports.iter().enumerate() {
            if name == "error" {
                problems
                    .push(SchemaError::new("the port `error` is for rows that fail; choose another name"));
            } else if self.ports[..at].iter().any(|(known, _)| known == name) {
                problems.push(SchemaError::new(format!("two ports are named `{name}`")));
            }
            if !(weight.is_finite() && *weight >= 0.0) {
                problems.push(SchemaError::new(format!("port `{name}`: a weight is a number from 0 on")));
            }
        }
        let all: f64 = self.ports.iter().map(|(_, weight)| weight).sum();
        if problems.is_empty() && !(all.is_finite() && all > 0.0) {
            problems.push(SchemaError::new("the weights come to nothing"));
        }
        let mut layout = LayoutBuilder::new(schema);
        if let Some(name) = &self.name {
            layout.append(Arc::new(Field::new(name, DataType::Utf8, false)));
        }
        let layout = layout.finish().map_err(|error| problems.push(error)).ok();
        SchemaError::collect(problems)?;
        let layout = layout.ok_or_else(|| SchemaError::new("no column goes out"))?;
        let mut sum = 0.0;
        let bounds = self.ports.iter().map(|(_, weight)| {
            sum += weight;
            sum / all
        });
        let names = self.ports.iter().map(|(name, _)| name.clone()).collect();
        Ok(SplitKernel { bounds: bounds.collect(), names, dealer, named: self.name.is_some(), layout })
    }
}

impl From<SplitSettings> for Split {
    fn from(settings: SplitSettings) -> Self {
        let ports = settings.ports.into_iter().collect();
        Self {
            by: settings.by.into(),
            ports,
            salt: settings.salt,
            name: settings.r#as,
            prepared: Prepared::default(),
        }
    }
}

impl Step for Split {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

#[derive(Debug)]
struct SplitKernel {
    names: Vec<String>,
    /// Where each port's part ends.
    bounds: Vec<f64>,
    dealer: Dealer,
    named: bool,
    layout: Layout,
}

impl SplitKernel {
    /// The port of every row.
    fn ports(&self, batch: &RecordBatch) -> Result<Vec<usize>, StepError> {
        let places = self.dealer.places(batch)?.into_iter();
        let port =
            |place: f64| self.bounds.iter().position(|bound| place < *bound).unwrap_or(self.bounds.len() - 1);
        Ok(places.map(port).collect())
    }
}

impl Kernel for SplitKernel {
    fn signature(&self) -> Signature {
        let port = |name: &String| OutPort::new(name, Arc::clone(self.layout.schema()), RowFlow::Subset);
        Signature::ports(self.names.iter().map(port).collect())
    }

    fn reads(&self) -> Vec<usize> {
        self.dealer.keys().to_vec()
    }

    fn run(&self, rows: Rows) -> StepResult {
        let ports = self.ports(rows.batch())?;
        let name = self.named.then(|| {
            let names = ports.iter().map(|port| self.names[*port].as_str());
            Arc::new(StringArray::from_iter_values(names)) as ArrayRef
        });
        Output::routed(self.layout.rows(&rows, name.as_slice())?, self.names.len(), &ports)
    }
}
