//! What a step and its canary answer, typed as one.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_graph::{Effect, OutPort, Output, RowFlow, Rows, SchemaError, Signature, Step, StepResult};

use super::Canary;
use crate::{
    deal::Dealer,
    prepared::{Layout, LayoutBuilder},
};

/// What the two steps answer, typed.
pub(super) struct Plan {
    pub(super) dealer: Dealer,
    /// The columns of the answer of either.
    answer: SchemaRef,
    /// The same with the column that names the step.
    pub(super) layout: Layout,
    named: bool,
    /// The part of the keys that the new step takes, from 0 to 1.
    pub(super) part: f64,
}

impl Canary {
    /// Types both steps, or says all that is wrong with them and with how keys are dealt.
    pub(super) fn prepare(&self, inputs: &[SchemaRef]) -> Result<(Plan, Signature), SchemaError> {
        let [input] = inputs else {
            return Err(SchemaError::new(format!("a canary takes one input, not {}", inputs.len())));
        };
        let mut problems = Vec::new();
        if !(0.0..=100.0).contains(&self.percent) {
            problems.push(SchemaError::new(format!("{} is no percentage from 0 to 100", self.percent)));
        }
        let dealer = Dealer::new(&self.by, &self.salt, input, &mut problems);
        let mut typed = |step: &Arc<dyn Step>, who: &str| match step.signature(inputs) {
            Ok(signature) => Some(signature),
            Err(error) => {
                problems.extend(
                    error.problems().iter().map(|problem| SchemaError::new(format!("{who}{problem}"))),
                );
                None
            }
        };
        let (old, new) = (typed(&self.old, ""), typed(&self.new, "the canary: "));
        let (Some(old), Some(new)) = (old, new) else {
            return Err(SchemaError::collect(problems)
                .err()
                .unwrap_or_else(|| SchemaError::new("it cannot be typed")));
        };
        let (answer, flow) = match same(&old, &new) {
            Ok(same) => same,
            Err(error) => {
                problems.push(error);
                (Arc::clone(input), RowFlow::Same)
            }
        };
        let mut layout = LayoutBuilder::new(&answer);
        if let Some(name) = &self.name {
            layout.append(Arc::new(Field::new(name, DataType::Utf8, false)));
        }
        let layout = layout.finish().map_err(|error| problems.push(error)).ok();
        SchemaError::collect(problems)?;
        let layout = layout.ok_or_else(|| SchemaError::new("no column goes out"))?;
        let out = OutPort::new("out", Arc::clone(layout.schema()), flow);
        let effect = if old.effect == Effect::None { new.effect } else { old.effect };
        let signature = Signature::ports(vec![out]).with_effect(effect).lining_up();
        let (named, part) = (self.name.is_some(), self.percent / 100.0);
        Ok((Plan { dealer, answer, layout, named, part }, signature))
    }
}

impl Plan {
    /// The answer of one of the two steps, as that of both.
    pub(super) fn told(&self, output: Output, who: &str) -> StepResult {
        let (ports, failed, degraded) = output.into_parts();
        let mut told = Output::none();
        for (_, rows) in ports {
            let (batch, origin) = rows.into_parts();
            // Whatever the two say of their columns beside names and types.
            let batch = RecordBatch::try_new(Arc::clone(&self.answer), batch.columns().to_vec())?;
            let rows = Rows::with_origin(batch, origin);
            let name = self.named.then(|| {
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(who, rows.len()))) as ArrayRef
            });
            told = told.with(0, self.layout.rows(&rows, name.as_slice())?);
        }
        if let Some(failed) = failed {
            told = told.with_failed(*failed);
        }
        Ok(match degraded {
            Some(reason) => told.degraded(reason),
            None => told,
        })
    }
}

/// What both steps answer; they must be alike.
fn same(old: &Signature, new: &Signature) -> Result<(SchemaRef, RowFlow), SchemaError> {
    let ([old_out], [new_out]) = (&old.outputs[..], &new.outputs[..]) else {
        return Err(SchemaError::new("a canary stands beside a step with one port, and has one itself"));
    };
    let mut problems = Vec::new();
    for (signature, who) in [(old, "the step"), (new, "its canary")] {
        if signature.effect == Effect::Once {
            let problem = format!("{who} must happen once per request, and a row may be given to both");
            problems.push(SchemaError::new(problem));
        }
    }
    let row_wise = |flow| matches!(flow, RowFlow::Same | RowFlow::Subset);
    if !(row_wise(old_out.flow) && row_wise(new_out.flow)) {
        problems.push(SchemaError::new("a canary and its step answer row by row"));
    }
    let (old_fields, new_fields) = (old_out.schema.fields(), new_out.schema.fields());
    let told = |schema: &Schema| {
        let fields = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
        fields.collect::<Vec<_>>().join(", ")
    };
    let alike = old_fields.len() == new_fields.len()
        && old_fields
            .iter()
            .zip(new_fields)
            .all(|(old, new)| old.name() == new.name() && old.data_type() == new.data_type());
    if !alike {
        let (old, new) = (told(&old_out.schema), told(&new_out.schema));
        problems.push(SchemaError::new(format!("the step answers {old}, but its canary {new}")));
    }
    SchemaError::collect(problems)?;
    let fields = old_fields.iter().zip(new_fields).map(|(old, new)| {
        let nullable = old.is_nullable() || new.is_nullable();
        Arc::new(old.as_ref().clone().with_nullable(nullable))
    });
    let fields: Vec<_> = fields.collect();
    let schema = Schema::new_with_metadata(fields, old_out.schema.metadata().clone());
    let flow = if old_out.flow == new_out.flow { old_out.flow } else { RowFlow::Subset };
    Ok((Arc::new(schema), flow))
}
