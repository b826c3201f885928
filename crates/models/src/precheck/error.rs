//! Why a model file is refused.

use std::path::PathBuf;

/// What is wrong with a model file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrecheckError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {}", path.display(), source.kind())]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The path leaves the folder that models may come from.
    #[error("`{}` leaves the project's folder", path.display())]
    OutsideRoot {
        /// The path as it was given.
        path: PathBuf,
    },
    /// It is a folder, a device or a pipe.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The file is larger than a model file may be.
    #[error("the file has more than {limit} bytes")]
    TooLarge {
        /// The most bytes a model file may have.
        limit: u64,
    },
    /// The file is no protobuf message, or is cut short, or nests deeper than protobuf allows.
    #[error("the file is not an ONNX model: {reason}")]
    Malformed {
        /// What the decoder says.
        reason: String,
    },
    /// A part that every model has is missing.
    #[error("the file is not an ONNX model: it has no {part}")]
    Missing {
        /// Which part.
        part: &'static str,
    },
    /// The version of the file format is not supported.
    #[error("the model has ir_version {got}; supported are {least} to {most}")]
    IrVersion {
        /// The model's.
        got: i64,
        /// The oldest supported.
        least: i64,
        /// The newest supported.
        most: i64,
    },
    /// The version of an operator set is not supported.
    #[error("the model has opset {got} of `{}`; supported are {least} to {most}", shown(domain))]
    Opset {
        /// The operator set.
        domain: String,
        /// The model's.
        got: i64,
        /// The oldest supported.
        least: i64,
        /// The newest supported.
        most: i64,
    },
    /// An operator of a domain that needs native code of its own, or that reads files.
    #[error("the model uses `{}` of `{}`; custom operators are refused", shown(operator), shown(domain))]
    CustomOperator {
        /// The operator's domain.
        domain: String,
        /// The operator.
        operator: String,
    },
    /// The model carries a training graph.
    #[error("the model carries a training graph; export it for inference")]
    Training,
    /// Graphs within graphs, deeper than allowed.
    #[error("graphs are nested more than {limit} deep")]
    TooDeep {
        /// How deep they may be.
        limit: usize,
    },
    /// The model's functions call each other in a circle, or unfold into too many operators.
    #[error("function `{}` calls itself, or unfolds into more than {limit} operators", shown(function))]
    Unfolds {
        /// Where it was noticed.
        function: String,
        /// How many operators a model may unfold into.
        limit: u64,
    },
    /// A function is written or called in a way by which it could be another than it seems.
    #[error("function `{}` {problem}", shown(function))]
    Function {
        /// The function.
        function: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An operator has an attribute twice, of which the runtime would take another than was looked at; or one whose value only
    /// the runtime would know.
    #[error("operator `{}`: attribute `{}` {problem}", shown(operator), shown(attribute))]
    Attribute {
        /// The operator.
        operator: String,
        /// The attribute.
        attribute: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A tree of an ensemble is deeper than a stack bears, or leads in a circle.
    #[error("a tree is more than {limit} levels deep, or two ways lead to one of its nodes")]
    Tree {
        /// How deep it may be.
        limit: usize,
    },
    /// A tensor's shape is impossible.
    #[error("tensor `{}` has an impossible shape {}", shown(tensor), shown_dims(dims))]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        dims: Vec<i64>,
    },
    /// A tensor says it has more values than there are bytes, or raw bytes that are not its values.
    #[error("tensor `{}` of shape {} needs {needed} bytes but has {got}", shown(tensor), shown_dims(dims))]
    Data {
        /// The tensor.
        tensor: String,
        /// Its shape.
        dims: Vec<i64>,
        /// The bytes its shape and type need.
        needed: u64,
        /// The bytes there are.
        got: u64,
    },
    /// A tensor's data lies in another file, in a way that is refused.
    #[error("tensor `{}` has its data in `{}`: {reason}", shown(tensor), shown(location))]
    External {
        /// The tensor.
        tensor: String,
        /// The other file, as the model names it.
        location: String,
        /// Why it is refused.
        reason: String,
    },
}

/// Characters of a name, and sizes of a shape, that are told.
const TOLD: usize = 80;
const TOLD_DIMS: usize = 8;

/// A name out of a file, which may be long, and hold what a terminal or a log would act on.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(TOLD).flat_map(char::escape_debug).collect();
    if name.chars().nth(TOLD).is_some() {
        shown.push_str("...");
    }
    shown
}

fn shown_dims(dims: &[i64]) -> String {
    let mut shown: Vec<String> = dims.iter().take(TOLD_DIMS).map(i64::to_string).collect();
    if dims.len() > TOLD_DIMS {
        shown.push(format!("... {} in all", dims.len()));
    }
    format!("[{}]", shown.join(", "))
}
