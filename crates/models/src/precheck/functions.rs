//! Functions that a model brings along: they may not call in circles, nor unfold without bound.

use std::collections::{HashMap, HashSet};

use super::{
    PrecheckError, domain,
    onnx::{GraphProto, ModelProto, NodeProto},
};

/// A domain and a name.
pub(super) type Key<'a> = (&'a str, &'a str);

/// The functions that a model brings along.
pub(super) type Own<'a> = HashSet<Key<'a>>;

pub(super) fn own(model: &ModelProto) -> Own<'_> {
    model.functions.iter().map(|function| (domain(&function.domain), function.name.as_str())).collect()
}

/// The name by which a node calls a function or an operator.
pub(super) fn key(node: &NodeProto) -> Key<'_> {
    (domain(&node.domain), node.op_type.as_str())
}

/// Counts the operators that the model unfolds into; the runtime inlines every call.
pub(super) fn check(model: &ModelProto, graph: &GraphProto, limit: u64) -> Result<(), PrecheckError> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let mut names = HashSet::new();
    for function in &model.functions {
        let refused = |problem| PrecheckError::Function { function: function.name.clone(), problem };
        if !function.overload.is_empty() {
            return Err(refused("has an overload; give it a name of its own"));
        }
        if !names.insert((domain(&function.domain), &function.name)) {
            return Err(refused("is there twice"));
        }
    }
    let bodies =
        model.functions.iter().map(|f| ((domain(&f.domain), f.name.as_str()), f.node.as_slice())).collect();
    let mut unfolding = Unfolding { bodies, sizes: HashMap::new(), depth: 0, limit };
    unfolding.size_of(&graph.node, "").map(|_| ())
}

struct Unfolding<'a> {
    bodies: HashMap<Key<'a>, &'a [NodeProto]>,
    /// Operators per function; `None` while it is being counted.
    sizes: HashMap<Key<'a>, Option<u64>>,
    /// How many are being counted.
    depth: usize,
    limit: u64,
}

impl<'a> Unfolding<'a> {
    fn size_of(&mut self, nodes: &'a [NodeProto], within: &str) -> Result<u64, PrecheckError> {
        let mut size = 0_u64;
        for node in nodes {
            size = size.saturating_add(self.size_of_node(node, within)?);
            if size > self.limit {
                return Err(self.unfolds(within));
            }
        }
        Ok(size)
    }

    fn size_of_node(&mut self, node: &'a NodeProto, within: &str) -> Result<u64, PrecheckError> {
        let mut size = 1_u64;
        for graph in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
            size = size.saturating_add(self.size_of(&graph.node, within)?);
        }
        let key = key(node);
        let Some(&body) = self.bodies.get(&key) else { return Ok(size) };
        let refused = |problem| PrecheckError::Function { function: key.1.to_owned(), problem };
        if !node.overload.is_empty() {
            return Err(refused("is called by an overload"));
        }
        // The body may copy such a graph as often as it likes, and so may what is in it.
        if node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty()) {
            return Err(refused("is given a graph"));
        }
        let called = match self.sizes.get(&key) {
            Some(Some(known)) => *known,
            Some(None) => return Err(self.unfolds(key.1)),
            None => {
                self.sizes.insert(key, None);
                self.depth += 1;
                // The chain of calls is at most as long as there are functions; the stack must not grow with it.
                if self.depth > MAX_CALLS {
                    return Err(self.unfolds(key.1));
                }
                let counted = self.size_of(body, key.1)?;
                self.depth -= 1;
                self.sizes.insert(key, Some(counted));
                counted
            }
        };
        Ok(size.saturating_add(called))
    }

    fn unfolds(&self, function: &str) -> PrecheckError {
        PrecheckError::Unfolds { function: function.to_owned(), limit: self.limit }
    }
}

/// How many functions may be inside one another.
const MAX_CALLS: usize = 64;
