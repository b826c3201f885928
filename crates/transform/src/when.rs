//! `when`: each row leaves on the port of the first condition that holds.

use std::sync::Arc;

use arrow::{
    array::{Array, RecordBatch},
    datatypes::SchemaRef,
};
use indexmap::IndexMap;
use millstream_graph::{
    FailedRows, Input, OutPort, Output, RowFlow, Rows, RunCx, SchemaError, Signature, Step, StepError,
    StepResult, Work,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    CompiledExpr,
    deep::deep,
    expr::Compiler,
    prepared::{Failure, Kernel, Prepared, isolate},
    select::unnamed,
};

/// Sends each row out on the port of the first condition that holds for it, else on the port for the rest.
///
/// Every row leaves on exactly one port, in order, and remembers where it stood: a merge brings the rows back together.
/// A row for which a condition fails (before another one held) leaves on the error port.
///
/// ```
/// use millstream_transform::When;
/// let step = When::new().port("big", "amount > 1000").port("foreign", "country <> 'US'").otherwise("rest");
/// ```
#[derive(Clone, Debug)]
pub struct When {
    ports: Vec<(String, String)>,
    otherwise: String,
    prepared: Prepared<WhenKernel>,
}

/// Sends each row out on the port of the first condition that holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhenSettings {
    /// Ports and their conditions, in the order in which they are tried; null counts as false.
    ports: IndexMap<String, String>,
    /// The port of the rows for which no condition holds.
    #[serde(default = "otherwise")]
    otherwise: String,
}

fn otherwise() -> String {
    "otherwise".to_owned()
}

impl Default for When {
    fn default() -> Self {
        Self { ports: Vec::new(), otherwise: otherwise(), prepared: Prepared::default() }
    }
}

impl When {
    /// No ports yet but `otherwise`, which takes all rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a port for the rows for which `condition` holds and none before it.
    #[must_use]
    pub fn port(mut self, name: impl Into<String>, condition: impl Into<String>) -> Self {
        self.ports.push((name.into(), condition.into()));
        self
    }

    /// Names the port of the rows for which no condition holds.
    #[must_use]
    pub fn otherwise(mut self, name: impl Into<String>) -> Self {
        self.otherwise = name.into();
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<WhenKernel, SchemaError> {
        let mut problems = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        if self.ports.is_empty() {
            problems.push(SchemaError::new("it names no port with a condition"));
        }
        for name in self.ports.iter().map(|(name, _)| name).chain([&self.otherwise]) {
            if name == "error" {
                problems
                    .push(SchemaError::new("the port `error` is for rows that fail; choose another name"));
            } else if names.contains(&name.as_str()) {
                problems.push(SchemaError::new(format!("two ports are named `{name}`")));
            }
            names.push(name);
        }
        let compiler = Compiler::new(schema)?;
        let mut conditions = Vec::new();
        for (_, text) in &self.ports {
            let condition = unnamed(text)
                .and_then(|expr| compiler.compile(&expr))
                .and_then(|condition| condition.check_condition().map(|()| condition));
            match condition {
                Ok(condition) => conditions.push(condition),
                Err(error) => problems.push(error),
            }
        }
        SchemaError::collect(problems)?;
        let names = names.into_iter().map(str::to_owned).collect();
        Ok(WhenKernel { names, conditions, schema: Arc::clone(schema) })
    }
}

impl From<WhenSettings> for When {
    fn from(settings: WhenSettings) -> Self {
        let ports = settings.ports.into_iter().collect();
        Self { ports, otherwise: settings.otherwise, prepared: Prepared::default() }
    }
}

impl Step for When {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| deep(|| self.prepare(schema)))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

/// Port `i` belongs to condition `i`; the last port takes the rest.
#[derive(Debug)]
struct WhenKernel {
    names: Vec<String>,
    conditions: Vec<CompiledExpr>,
    schema: SchemaRef,
}

impl WhenKernel {
    /// The port of every row.
    fn ports(&self, batch: &RecordBatch) -> Result<Vec<usize>, StepError> {
        let rest = self.conditions.len();
        let mut ports = vec![rest; batch.num_rows()];
        let mut open = batch.num_rows();
        for (port, condition) in self.conditions.iter().enumerate() {
            if open == 0 {
                break;
            }
            let holds = condition.holds(batch)?;
            for (row, chosen) in ports.iter_mut().enumerate() {
                if *chosen == rest && holds.is_valid(row) && holds.value(row) {
                    *chosen = port;
                    open -= 1;
                }
            }
        }
        Ok(ports)
    }
}

impl Kernel for WhenKernel {
    fn signature(&self) -> Signature {
        let port = |name: &String| OutPort::new(name, Arc::clone(&self.schema), RowFlow::Subset);
        Signature::ports(self.names.iter().map(port).collect())
    }

    fn reads(&self) -> Vec<usize> {
        self.conditions.iter().flat_map(CompiledExpr::columns).collect()
    }

    fn run(&self, rows: Rows) -> StepResult {
        let isolated = isolate(rows.batch(), |batch| self.ports(batch))?;
        let ports = isolated.pieces.into_iter().flatten();
        let mut at: Vec<Vec<u32>> = vec![Vec::new(); self.names.len()];
        let mut failures = isolated.failures.iter().map(|failure| failure.row).peekable();
        let mut row = 0;
        for port in ports {
            while failures.next_if_eq(&row).is_some() {
                row += 1;
            }
            if let Some(rows) = at.get_mut(port) {
                rows.push(row);
            }
            row += 1;
        }
        let mut output = Output::none();
        for (port, indices) in at.iter().enumerate() {
            if indices.len() == rows.len() {
                return Ok(output.with(port, rows));
            }
            if !indices.is_empty() {
                output = output.with(port, rows.take(indices)?);
            }
        }
        failed(output, &rows, isolated.failures)
    }
}

fn failed(output: Output, rows: &Rows, failures: Vec<Failure>) -> StepResult {
    if failures.is_empty() {
        return Ok(output);
    }
    let (at, messages): (Vec<u32>, Vec<String>) =
        failures.into_iter().map(|failure| (failure.row, failure.message)).unzip();
    Ok(output.with_failed(FailedRows { rows: rows.take(&at)?, messages }))
}
