//! What a model file is made of, for people: without a runtime, from the file alone.

use std::collections::BTreeMap;

use prost::Message;

use super::{
    CheckedModel, PrecheckError, domain,
    onnx::{
        DimensionValue, GraphProto, ModelProto, NodeProto, TensorTypeProto, TypeProto, TypeValue,
        ValueInfoProto,
    },
};

/// The parts of a model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// The program that wrote it, with its version.
    pub producer: String,
    /// The version of the file format.
    pub ir_version: i64,
    /// The operator sets, with their versions.
    pub opsets: Vec<(String, i64)>,
    /// What the graph takes, without what it has itself.
    pub inputs: Vec<Value>,
    /// What the graph answers.
    pub outputs: Vec<Value>,
    /// How often each operator stands in the graph, and in the graphs and functions in it.
    pub operators: BTreeMap<String, usize>,
    /// Numbers that the model was trained to, as far as they are tensors.
    pub parameters: u64,
    /// Bytes of the file and of those that its data lies in.
    pub bytes: u64,
}

/// An input or output, as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Its type and shape, such as `float [N, 28]`.
    pub kind: String,
}

impl CheckedModel {
    /// What the file is made of.
    ///
    /// # Errors
    /// Never in practice: a file that was checked can be read.
    pub fn structure(&self) -> Result<Structure, PrecheckError> {
        let malformed = |error: prost::DecodeError| PrecheckError::Malformed { reason: error.to_string() };
        let model = ModelProto::decode(self.bytes.clone()).map_err(malformed)?;
        let graph = model.graph.as_ref().ok_or(PrecheckError::Missing { part: "graph" })?;
        let mut count = Count::default();
        count.graph(graph);
        model.functions.iter().for_each(|function| count.nodes(&function.node));
        let own = |input: &&ValueInfoProto| graph.initializer.iter().any(|tensor| tensor.name == input.name);
        Ok(Structure {
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            ir_version: model.ir_version.unwrap_or_default(),
            opsets: model
                .opset_import
                .iter()
                .map(|set| (domain(&set.domain).to_owned(), set.version.unwrap_or_default()))
                .collect(),
            inputs: graph.input.iter().filter(|input| !own(input)).map(Value::of).collect(),
            outputs: graph.output.iter().map(Value::of).collect(),
            operators: count.operators,
            parameters: count.parameters,
            bytes: self.size(),
        })
    }
}

#[derive(Default)]
struct Count {
    operators: BTreeMap<String, usize>,
    parameters: u64,
}

impl Count {
    /// As deep as the check has allowed.
    fn graph(&mut self, graph: &GraphProto) {
        let dense = graph.initializer.iter().map(|tensor| &tensor.dims);
        for dims in dense.chain(graph.sparse_initializer.iter().map(|tensor| &tensor.dims)) {
            let elements = dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(0));
            let elements = elements.fold(1_u64, u64::saturating_mul);
            self.parameters = self.parameters.saturating_add(elements);
        }
        self.nodes(&graph.node);
    }

    fn nodes(&mut self, nodes: &[NodeProto]) {
        for node in nodes {
            let name = match domain(&node.domain) {
                "ai.onnx" => node.op_type.clone(),
                other => format!("{other}.{}", node.op_type),
            };
            *self.operators.entry(name).or_default() += 1;
            for attribute in &node.attribute {
                attribute.g.iter().chain(&attribute.graphs).for_each(|graph| self.graph(graph));
            }
        }
    }
}

impl Value {
    fn of(value: &ValueInfoProto) -> Self {
        Self { name: value.name.clone(), kind: value.r#type.as_ref().map_or_else(|| "?".into(), kind) }
    }
}

fn kind(of: &TypeProto) -> String {
    let element = |element: Option<&TypeProto>| element.map_or_else(|| "?".to_owned(), kind);
    match &of.value {
        None => "?".into(),
        Some(TypeValue::Tensor(tensor)) => tensor_kind(tensor),
        Some(TypeValue::SparseTensor(tensor)) => format!("sparse {}", tensor_kind(tensor)),
        Some(TypeValue::Sequence(sequence)) => {
            format!("sequence of {}", element(sequence.elem_type.as_deref()))
        }
        Some(TypeValue::Optional(optional)) => format!("optional {}", element(optional.elem_type.as_deref())),
        Some(TypeValue::Map(map)) => format!("map by {}", type_name(map.key_type)),
    }
}

fn tensor_kind(tensor: &TensorTypeProto) -> String {
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| match &dim.value {
        Some(DimensionValue::Size(size)) => size.to_string(),
        Some(DimensionValue::Name(name)) if !name.is_empty() => name.clone(),
        _ => "?".to_owned(),
    });
    let shape = match &tensor.shape {
        Some(_) => format!(" [{}]", dims.collect::<Vec<_>>().join(", ")),
        None => String::new(),
    };
    format!("{}{shape}", type_name(tensor.elem_type))
}

/// The names that ONNX has for the types of elements, by their numbers.
fn type_name(number: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "?",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
    ];
    usize::try_from(number).ok().and_then(|number| NAMES.get(number)).copied().unwrap_or("another type")
}
