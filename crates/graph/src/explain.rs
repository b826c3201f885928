//! A plan as text and as a Mermaid diagram.

use std::fmt;

use arrow::datatypes::Schema;

use crate::{Fallback, Fallbacks, Phase, Plan, PlanStep, Source, StepId};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph `{}`", self.name)?;
        writeln!(f, "  input: {}", columns(&self.input))?;
        let left = left_out(&self.input, &self.carried).collect::<Vec<_>>();
        if !left.is_empty() {
            writeln!(f, "    not read: {}", left.join(", "))?;
        }
        let width = self.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
        let only_on_error = self.only_on_error();
        for (id, step) in self.steps.iter().enumerate() {
            let phase = match (only_on_error[id], step.phase) {
                (true, Phase::Tail) => "  [on error, tail]",
                (true, _) => "  [on error]",
                (false, Phase::Tail) => "  [tail]",
                (false, _) => "",
            };
            let from: Vec<_> =
                step.in_edges.iter().map(|edge| self.source_name(self.edges[edge.index()].from)).collect();
            writeln!(f, "  {id:>2} {:width$}  {} <- {}{phase}", step.name, step.kind, from.join(", "))?;
            for port in &step.outputs {
                writeln!(f, "     {:width$}    {}: {}", "", port.name, columns(&port.declared))?;
                let left = left_out(&port.declared, &port.schema).filter(|name| self.comes_to(step, name));
                let left: Vec<_> = left.collect();
                if !left.is_empty() {
                    writeln!(f, "     {:width$}      not read: {}", "", left.join(", "))?;
                }
            }
            for line in policies(&step.fallbacks) {
                writeln!(f, "     {:width$}    {line}", "")?;
            }
        }
        let sharing = if self.row_wise() { "; requests may share a run" } else { "" };
        write!(f, "  reply: {}{sharing}", columns(&self.reply))?;
        match &self.stream {
            Some(stream) => write!(f, "\n  stream: {}", stream.told(&self.input, &self.reply)),
            None => Ok(()),
        }
    }
}

/// What is declared for failures; one line when it is the same for all.
fn policies(fallbacks: &Fallbacks) -> Vec<String> {
    let word = |fallback: &Fallback| match fallback {
        Fallback::None => Some("fail"),
        Fallback::Skip => Some("skip"),
        Fallback::Fill(_) => Some("default values"),
        Fallback::Step => Some("another step"),
        // The edges say so.
        Fallback::Port => None,
    };
    let [error, timeout, overload] = fallbacks.each().map(word);
    let mut lines: Vec<_> =
        error.iter().filter(|word| **word != "fail").map(|word| format!("when it fails: {word}")).collect();
    for (when, word) in [("is late", timeout), ("refuses", overload)] {
        lines.extend(word.filter(|_| word != error).map(|word| format!("when it {when}: {word}")));
    }
    lines
}

/// The columns that do not travel, because nothing reads them.
fn left_out<'s>(declared: &'s Schema, carried: &Schema) -> impl Iterator<Item = &'s str> {
    let names = declared.fields().iter().map(|field| field.name().as_str());
    names.filter(|name| carried.column_with_name(name).is_none())
}

fn columns(schema: &Schema) -> String {
    let field = |field: &arrow::datatypes::FieldRef| {
        format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "?" } else { "" })
    };
    schema.fields().iter().map(field).collect::<Vec<_>>().join(", ")
}

impl Plan {
    /// The plan as a Mermaid flowchart: error edges dotted, the tail dashed.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n  input([input])\n");
        if !self.handler_edges.is_empty() {
            text += "  on_error{{on_error}}\n";
        }
        for (id, step) in self.steps.iter().enumerate() {
            let label = format!("{}<br/><small>{}</small>", escaped(&step.name), step.kind);
            let (open, close) = match step.kind {
                "respond" => ("([\"", "\"])"),
                _ if step.routes() => ("{\"", "\"}"),
                _ => ("[\"", "\"]"),
            };
            text += &format!("  s{id}{open}{label}{close}\n");
        }
        for edge in &self.edges {
            let to = edge.to.index();
            text += &match edge.from {
                Source::Input => format!("  input --> s{to}\n"),
                Source::Handler => format!("  on_error -.-> s{to}\n"),
                Source::Error(StepId(from)) => format!("  s{from} -. error .-> s{to}\n"),
                Source::Port(StepId(from), port) => {
                    let outputs = &self.steps[from as usize].outputs;
                    match outputs.len() {
                        1 => format!("  s{from} --> s{to}\n"),
                        _ => format!("  s{from} -- {} --> s{to}\n", escaped(&outputs[port].name)),
                    }
                }
            };
        }
        if self.stream.is_some() {
            text += &format!("  s{} -. next part .-> input\n", self.respond.index());
        }
        let tail: Vec<_> = (0..self.steps.len())
            .filter(|&id| self.steps[id].phase == Phase::Tail)
            .map(|id| format!("s{id}"))
            .collect();
        if !tail.is_empty() {
            text += &format!("  classDef tail stroke-dasharray: 4 4\n  class {} tail\n", tail.join(","));
        }
        text
    }

    /// Per step, whether it sees nothing but the rows of failed runs.
    pub(crate) fn only_on_error(&self) -> Vec<bool> {
        let mut only = vec![false; self.steps.len()];
        for (id, step) in self.steps.iter().enumerate() {
            only[id] = step.in_edges.iter().all(|edge| match self.edges[edge.index()].from {
                Source::Handler => true,
                Source::Input => false,
                Source::Port(from, _) | Source::Error(from) => only[from.index()],
            });
        }
        only
    }

    /// Whether a column that a step does not hand on is there up to it, or made by it, rather than left out before.
    fn comes_to(&self, step: &PlanStep, name: &str) -> bool {
        step.in_edges.iter().all(|edge| match self.edges[edge.index()].from {
            Source::Input | Source::Handler => !left_out(&self.input, &self.carried).any(|left| left == name),
            Source::Port(step, port) => {
                let port = &self.steps[step.index()].outputs[port];
                !left_out(&port.declared, &port.schema).any(|left| left == name)
            }
            Source::Error(_) => true,
        })
    }

    pub(crate) fn source_name(&self, from: Source) -> String {
        match from {
            Source::Input => crate::graph::INPUT.into(),
            Source::Handler => crate::graph::ON_ERROR.into(),
            Source::Error(step) => format!("{}.error", self.steps[step.index()].name),
            Source::Port(step, port) => {
                let step = &self.steps[step.index()];
                if step.outputs.len() == 1 {
                    step.name.to_string()
                } else {
                    format!("{}.{}", step.name, step.outputs[port].name)
                }
            }
        }
    }
}

/// A name inside a quoted Mermaid label.
fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}
