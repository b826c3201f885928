//! Graphs as YAML: [`Document`] reads a file, [`GraphSpec`] is a graph in it, [`Kinds`] are the kinds of step it may name.
//!
//! ```
//! use millstream_graph::spec::{kinds, Document, GraphSpec, Kinds};
//!
//! let text = "
//! input: {id: int64, name: string?}
//! steps:
//!   same: {from: [input, input], merge: }
//! respond: same
//! ";
//! let (document, kinds) = (Document::read(text)?, Kinds::default().with(kinds()));
//! let spec = GraphSpec::read(&document, &[], &kinds)?;
//! let graph = spec.graph("twice", &kinds, &|_| None, &document, &[])?;
//! assert_eq!(graph.compile()?.reply_schema().fields().len(), 2);
//! assert_eq!(GraphSpec::try_from(&graph)?, spec);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod document;
mod graph_spec;
mod kind;
mod schema;
mod size;
mod step_spec;
mod stream_spec;
mod time;
mod types;

pub use document::{Document, MAX_BYTES, Place, SpecError, SpecErrors};
pub use graph_spec::{GraphSpec, NotWritable, kinds};
pub use kind::{Kinds, LayerKind, SettingsError, StepKind};
pub use schema::graph_schema;
pub use size::Size;
pub use step_spec::{PolicySpec, StepSpec};
pub use stream_spec::StreamSpec;
pub use time::Time;
pub use types::{JSON_COLUMN, column, type_text};
