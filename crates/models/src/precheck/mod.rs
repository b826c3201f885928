//! Checks a model file before the runtime sees it.
//!
//! A model is code from elsewhere: the runtime parses it in C++, and its past holes were files that point outside
//! their folder, sizes that overflow and nesting without end. What is refused here never reaches it.

mod error;
mod external;
mod functions;
mod onnx;
mod structure;
mod trees;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

use prost::{Message, bytes::Bytes};

pub use error::PrecheckError;
use onnx::{
    AttributeProto, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto, TypeValue,
};
pub use structure::{Structure, Value as StructureValue};

/// What a model file may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most bytes of the model file itself; data in other files comes on top. Default: 2 GiB, as in protobuf.
    pub bytes: u64,
    /// How deep graphs may lie within graphs (`If`, `Loop`, `Scan`). Default: 16.
    pub graph_depth: usize,
    /// How many operators a model with functions may unfold into. Default: 30,000, for which the runtime takes some seconds.
    pub operators: u64,
    /// The most bytes that the model's sparse tensors may have once they are dense, and one row of its inputs. Default: 2 GiB.
    pub dense_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: (1 << 31) - 1, graph_depth: 16, operators: 30_000, dense_bytes: 1 << 31 }
    }
}

/// A model file that has been checked: these bytes, and nothing else, go to the runtime.
#[derive(Clone, Debug)]
pub struct CheckedModel {
    bytes: Bytes,
    folder: PathBuf,
    classes: Vec<(String, Classes)>,
    data_files: BTreeSet<PathBuf>,
}

/// The classes of a `ZipMap`: the keys of the maps that it puts out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Classes {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

impl CheckedModel {
    /// Reads and checks the file at `path`, relative to `root` and inside it, whatever links there are on the way.
    ///
    /// # Errors
    /// When the file cannot be read, leaves `root`, or is not a model that `limits` allows.
    pub fn read(root: &Path, path: &Path, limits: &Limits) -> Result<Self, PrecheckError> {
        let file = inside(root, path)?;
        let unreadable = |source| PrecheckError::Unreadable { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(PrecheckError::NotAFile { path: path.to_owned() });
        }
        if metadata.len() > limits.bytes {
            return Err(PrecheckError::TooLarge { limit: limits.bytes });
        }
        let open = File::open(&file).map_err(unreadable)?;
        // Another file may have come in its place.
        if !open.metadata().map_err(unreadable)?.is_file() {
            return Err(PrecheckError::NotAFile { path: path.to_owned() });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        open.take(limits.bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
        let folder = file.parent().unwrap_or(root).to_owned();
        Self::of_bytes(bytes, folder, limits)
    }

    /// Checks a model that is in memory already. Data in other files is looked for in `folder`.
    ///
    /// # Errors
    /// When it is not a model that `limits` allows.
    pub fn of_bytes(
        bytes: impl Into<Bytes>,
        folder: impl Into<PathBuf>,
        limits: &Limits,
    ) -> Result<Self, PrecheckError> {
        let (bytes, folder) = (bytes.into(), folder.into());
        if bytes.len() as u64 > limits.bytes {
            return Err(PrecheckError::TooLarge { limit: limits.bytes });
        }
        // By this mark the runtime knows files of a format of its own, which can be ONNX files as well: of another model.
        if bytes.get(4..8) == Some(b"ORTM") {
            let reason = "it is in the runtime's own format".to_owned();
            return Err(PrecheckError::Malformed { reason });
        }
        let model = ModelProto::decode(bytes.clone())
            .map_err(|error| PrecheckError::Malformed { reason: error.to_string() })?;
        let check = Check {
            model: &model,
            own: functions::own(&model),
            folder: &folder,
            limits,
            file: bytes.len() as u64,
            data_files: RefCell::default(),
            dense: Cell::new(0),
        };
        let classes = check.model()?;
        let data_files = check.data_files.into_inner();
        Ok(Self { bytes, folder, classes, data_files })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the file and of those that its tensors' data lies in.
    pub fn size(&self) -> u64 {
        let data = self.data_files.iter().map(|file| self.folder.join(file).metadata());
        data.filter_map(Result::ok).fold(self.bytes.len() as u64, |sum, file| sum.saturating_add(file.len()))
    }

    /// The folder that holds the model and the files its data may lie in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files beside the model that hold its tensors' data, relative to its folder.
    pub fn data_files(&self) -> impl Iterator<Item = &Path> {
        self.data_files.iter().map(PathBuf::as_path)
    }

    /// The classes of output `output`, when it comes from a `ZipMap`.
    pub(crate) fn classes(&self, output: &str) -> Option<&Classes> {
        self.classes.iter().find(|(name, _)| name == output).map(|(_, classes)| classes)
    }
}

/// The file that `path` leads to, which must lie inside `root` once all links are followed.
pub(crate) fn inside(root: &Path, path: &Path) -> Result<PathBuf, PrecheckError> {
    let outside = || PrecheckError::OutsideRoot { path: path.to_owned() };
    let unreadable = |source| PrecheckError::Unreadable { path: path.to_owned(), source };
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let root = root.canonicalize().map_err(unreadable)?;
    let file = root.join(path).canonicalize().map_err(unreadable)?;
    if file.starts_with(&root) { Ok(file) } else { Err(outside()) }
}

const IR_VERSIONS: (i64, i64) = (3, 14);
/// The operator sets whose operators the runtime itself brings, each with the versions it takes.
const OPSETS: [(&str, i64, i64); 3] = [("ai.onnx", 7, 28), ("ai.onnx.ml", 1, 6), ("com.microsoft", 1, 1)];

/// The full name of the standard domain, which files mostly leave empty.
fn domain(name: &str) -> &str {
    if name.is_empty() { "ai.onnx" } else { name }
}

struct Check<'a> {
    model: &'a ModelProto,
    own: functions::Own<'a>,
    folder: &'a Path,
    limits: &'a Limits,
    file: u64,
    /// Where tensors' data was found, beside the model.
    data_files: RefCell<BTreeSet<PathBuf>>,
    /// Bytes that sparse tensors have so far, once they are dense.
    dense: Cell<u64>,
}

impl Check<'_> {
    fn model(&self) -> Result<Vec<(String, Classes)>, PrecheckError> {
        let graph = self.model.graph.as_ref().ok_or(PrecheckError::Missing { part: "graph" })?;
        let (least, most) = IR_VERSIONS;
        let got = self.model.ir_version.ok_or(PrecheckError::Missing { part: "ir_version" })?;
        if !(least..=most).contains(&got) {
            return Err(PrecheckError::IrVersion { got, least, most });
        }
        if !self.model.training_info.is_empty() {
            return Err(PrecheckError::Training);
        }
        if self.model.opset_import.is_empty() {
            return Err(PrecheckError::Missing { part: "operator set" });
        }
        self.opsets(&self.model.opset_import)?;
        for function in &self.model.functions {
            self.opsets(&function.opset_import)?;
            self.nodes(&function.node, &function.opset_import, 0)?;
            self.attributes(&function.attribute_proto, &function.opset_import, 0)?;
        }
        self.inputs(graph)?;
        self.graph(graph, &self.model.opset_import, 0)?;
        if graph.output.is_empty() {
            return Err(PrecheckError::Missing { part: "output" });
        }
        functions::check(self.model, graph, self.limits.operators)?;
        Ok(zipped(graph))
    }

    fn opsets(&self, imports: &[OperatorSetIdProto]) -> Result<(), PrecheckError> {
        for import in imports {
            let name = domain(&import.domain);
            // Domains without a bound of their own are harmless as long as no operator comes from them.
            if let Some(&(_, least, most)) = OPSETS.iter().find(|(known, ..)| *known == name) {
                let got = import.version.unwrap_or(0);
                if !(least..=most).contains(&got) {
                    return Err(PrecheckError::Opset { domain: name.to_owned(), got, least, most });
                }
            }
        }
        Ok(())
    }

    /// Refuses inputs of which one row is more than there is room for.
    fn inputs(&self, graph: &GraphProto) -> Result<(), PrecheckError> {
        let mut bytes = 0_u64;
        for input in &graph.input {
            let Some(TypeValue::Tensor(tensor)) = input.r#type.as_ref().and_then(|it| it.value.as_ref())
            else {
                continue;
            };
            let sizes = tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| match dim.value {
                Some(DimensionValue::Size(size)) => size,
                _ => 1,
            });
            let dims: Vec<i64> = sizes.collect();
            let bits = value_bits(tensor.elem_type).unwrap_or(64);
            let needed = count(&input.name, &dims)?.checked_mul(bits).map(|bits| bits.div_ceil(8));
            bytes = bytes.saturating_add(needed.unwrap_or(u64::MAX));
            if bytes > self.limits.dense_bytes {
                return Err(PrecheckError::Shape { tensor: input.name.clone(), dims });
            }
        }
        Ok(())
    }

    fn graph(
        &self,
        graph: &GraphProto,
        imports: &[OperatorSetIdProto],
        depth: usize,
    ) -> Result<(), PrecheckError> {
        if depth > self.limits.graph_depth {
            return Err(PrecheckError::TooDeep { limit: self.limits.graph_depth });
        }
        graph.initializer.iter().try_for_each(|tensor| self.tensor(tensor))?;
        graph.sparse_initializer.iter().try_for_each(|tensor| self.sparse(tensor))?;
        self.nodes(&graph.node, imports, depth)
    }

    fn nodes(
        &self,
        nodes: &[NodeProto],
        imports: &[OperatorSetIdProto],
        depth: usize,
    ) -> Result<(), PrecheckError> {
        for node in nodes {
            let domain = domain(&node.domain);
            let known = OPSETS.iter().find(|(known, ..)| *known == domain);
            // `EPContext` names a compiled model in another file, and is meant for accelerators only.
            let own = self.own.contains(&functions::key(node));
            if node.op_type == "EPContext" || !(known.is_some() || own) {
                return Err(PrecheckError::CustomOperator {
                    domain: domain.to_owned(),
                    operator: node.op_type.clone(),
                });
            }
            // A version that is not said has not been looked at.
            if let Some(&(_, least, most)) = known
                && !own
                && !imports.iter().any(|import| self::domain(&import.domain) == domain)
            {
                return Err(PrecheckError::Opset { domain: domain.to_owned(), got: 0, least, most });
            }
            self.plain(node)?;
            trees::check(node)?;
            self.attributes(&node.attribute, imports, depth)?;
        }
        Ok(())
    }

    /// Refuses attributes of which the runtime would read something else than is looked at here.
    fn plain(&self, node: &NodeProto) -> Result<(), PrecheckError> {
        let refused = |attribute: &AttributeProto, problem| PrecheckError::Attribute {
            operator: node.op_type.clone(),
            attribute: attribute.name.clone(),
            problem,
        };
        let mut names = BTreeSet::new();
        for attribute in &node.attribute {
            if !names.insert(attribute.name.as_str()) {
                return Err(refused(attribute, "is there twice"));
            }
            if node.op_type.starts_with("TreeEnsemble") && !attribute.ref_attr_name.is_empty() {
                return Err(refused(attribute, "is given by a function; write it out"));
            }
        }
        Ok(())
    }

    fn attributes(
        &self,
        attributes: &[AttributeProto],
        imports: &[OperatorSetIdProto],
        depth: usize,
    ) -> Result<(), PrecheckError> {
        for attribute in attributes {
            attribute.t.iter().chain(&attribute.tensors).try_for_each(|tensor| self.tensor(tensor))?;
            attribute
                .sparse_tensor
                .iter()
                .chain(&attribute.sparse_tensors)
                .try_for_each(|tensor| self.sparse(tensor))?;
            let mut graphs = attribute.g.iter().chain(&attribute.graphs);
            graphs.try_for_each(|graph| self.graph(graph, imports, depth + 1))?;
        }
        Ok(())
    }

    fn tensor(&self, tensor: &TensorProto) -> Result<(), PrecheckError> {
        let values = count(&tensor.name, &tensor.dims)?;
        let overflow = || PrecheckError::Shape { tensor: tensor.name.clone(), dims: tensor.dims.clone() };
        let bits = value_bits(tensor.data_type.unwrap_or(0));
        let needed = values.checked_mul(bits.unwrap_or(1)).ok_or_else(overflow)?.div_ceil(8);
        let short =
            |got| PrecheckError::Data { tensor: tensor.name.clone(), dims: tensor.dims.clone(), needed, got };
        if external::is_external(tensor) {
            if bits.is_none() {
                return Err(external::refused(tensor, "values of this type cannot lie in another file"));
            }
            self.data_files.borrow_mut().insert(external::check(tensor, self.folder, needed)?);
            return Ok(());
        }
        match &tensor.raw_data {
            Some(raw) if bits.is_some() && raw.len() as u64 != needed => Err(short(raw.len() as u64)),
            // Typed fields were skipped unread; each value takes at least part of a byte of this file.
            _ if values.div_ceil(8) > self.file => Err(short(self.file)),
            _ => Ok(()),
        }
    }

    fn sparse(&self, tensor: &SparseTensorProto) -> Result<(), PrecheckError> {
        let name = tensor.values.as_ref().map_or("", |values| values.name.as_str());
        tensor.values.iter().chain(&tensor.indices).try_for_each(|part| self.tensor(part))?;
        let bits =
            tensor.values.as_ref().and_then(|values| value_bits(values.data_type.unwrap_or(0))).unwrap_or(64);
        let dense = count(name, &tensor.dims)?.checked_mul(bits).map(|bits| bits.div_ceil(8));
        let all = dense.and_then(|bytes| bytes.checked_add(self.dense.get()));
        match all {
            Some(bytes) if bytes <= self.limits.dense_bytes => {
                self.dense.set(bytes);
                Ok(())
            }
            _ => Err(PrecheckError::Shape { tensor: name.to_owned(), dims: tensor.dims.clone() }),
        }
    }
}

/// The number of values of a shape.
fn count(tensor: &str, dims: &[i64]) -> Result<u64, PrecheckError> {
    let impossible = || PrecheckError::Shape { tensor: tensor.to_owned(), dims: dims.to_vec() };
    let mut product = 1_u64;
    for &dim in dims {
        let dim = u64::try_from(dim).map_err(|_| impossible())?;
        // Signed, because the runtime counts in `int64`; a zero elsewhere in the shape does not excuse an overflow.
        let larger = product.checked_mul(dim.max(1)).filter(|&n| i64::try_from(n).is_ok());
        product = larger.ok_or_else(impossible)?;
    }
    Ok(if dims.contains(&0) { 0 } else { product })
}

/// The bits of one value of an ONNX element type; `None` for strings and types unknown here.
fn value_bits(data_type: i32) -> Option<u64> {
    match data_type {
        25 | 26 => Some(2),
        21..=23 => Some(4),
        2 | 3 | 9 | 17..=20 | 24 => Some(8),
        4 | 5 | 10 | 16 => Some(16),
        1 | 6 | 12 => Some(32),
        7 | 11 | 13 | 14 => Some(64),
        15 => Some(128),
        _ => None,
    }
}

/// The graph's outputs that come from a `ZipMap`, with its classes.
fn zipped(graph: &GraphProto) -> Vec<(String, Classes)> {
    let zips = graph.node.iter().filter(|node| node.op_type == "ZipMap" && node.domain == "ai.onnx.ml");
    zips.filter_map(|node| {
        let output = node.output.first()?;
        let classes = node.attribute.iter().find_map(|attribute| match attribute.name.as_str() {
            "classlabels_int64s" => Some(Classes::Ints(attribute.ints.clone())),
            "classlabels_strings" => {
                let texts = attribute.strings.iter().map(|text| String::from_utf8_lossy(text).into_owned());
                Some(Classes::Strings(texts.collect()))
            }
            _ => None,
        })?;
        graph.output.iter().any(|info| info.name == *output).then(|| (output.clone(), classes))
    })
    .collect()
}

#[cfg(test)]
mod tests;
