//! Ensembles of trees: the runtime walks down a tree by calling itself while it loads, so a tree may not be deeper than a stack.

use std::collections::HashMap;

use super::{PrecheckError, onnx::NodeProto};

/// How deep a tree may be. Trees that are grown from data are some tens of levels deep.
const DEPTH: usize = 1000;

/// A tree and a node in it.
type Place = (i64, i64);

/// Refuses a tree that is too deep, or that leads back to where it came from.
pub(super) fn check(node: &NodeProto) -> Result<(), PrecheckError> {
    if !node.op_type.starts_with("TreeEnsemble") {
        return Ok(());
    }
    let tree = Tree::of(node);
    let mut seen = 0;
    for root in tree.roots() {
        let mut ways = vec![(root, 1)];
        while let Some((place, depth)) = ways.pop() {
            seen += 1;
            // More steps than there are nodes: some node has two ways to it.
            if depth > DEPTH || seen > tree.nodes.len() + 1 {
                return Err(PrecheckError::Tree { limit: DEPTH });
            }
            ways.extend(tree.below(place).map(|below| (below, depth + 1)));
        }
    }
    Ok(())
}

/// Which nodes are below which.
struct Tree {
    nodes: HashMap<Place, [Option<i64>; 2]>,
    roots: Vec<Place>,
}

impl Tree {
    fn of(node: &NodeProto) -> Self {
        let ints = |name: &str| {
            let attribute = node.attribute.iter().find(|attribute| attribute.name == name);
            attribute.map_or(&[][..], |attribute| &attribute.ints)
        };
        let (yes, no) = (ints("nodes_truenodeids"), ints("nodes_falsenodeids"));
        if node.op_type == "TreeEnsemble" {
            // Its nodes are counted through, and leaves are counted apart.
            let (yes_leaf, no_leaf) = (ints("nodes_trueleafs"), ints("nodes_falseleafs"));
            let way = |ids: &[i64], leaves: &[i64], at: usize| {
                ids.get(at).copied().filter(|_| leaves.get(at).is_none_or(|leaf| *leaf == 0))
            };
            let nodes = (0..yes.len().max(no.len()))
                .map(|at| ((0, at as i64), [way(yes, yes_leaf, at), way(no, no_leaf, at)]));
            let roots = ints("tree_roots").iter().map(|root| (0, *root)).collect();
            return Self { nodes: nodes.collect(), roots };
        }
        let (trees, ids) = (ints("nodes_treeids"), ints("nodes_nodeids"));
        let leaf = |at: usize| {
            let modes = node.attribute.iter().find(|attribute| attribute.name == "nodes_modes");
            modes.and_then(|modes| modes.strings.get(at)).is_some_and(|mode| mode == b"LEAF")
        };
        let mut roots: Vec<Place> = Vec::new();
        let mut nodes = HashMap::new();
        for (at, place) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
            if roots.last().is_none_or(|(tree, _)| *tree != place.0) {
                roots.push(place);
            }
            let way = |ids: &[i64]| ids.get(at).copied().filter(|_| !leaf(at));
            nodes.insert(place, [way(yes), way(no)]);
        }
        Self { nodes, roots }
    }

    fn roots(&self) -> impl Iterator<Item = Place> {
        self.roots.iter().copied()
    }

    fn below(&self, (tree, node): Place) -> impl Iterator<Item = Place> {
        let ways = self.nodes.get(&(tree, node)).copied().unwrap_or_default();
        ways.into_iter().flatten().map(move |below| (tree, below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precheck::onnx::AttributeProto;

    fn ensemble(op: &str, attributes: &[(&str, Vec<i64>)], modes: &[&str]) -> NodeProto {
        let ints = attributes.iter().map(|(name, ints)| AttributeProto {
            name: (*name).to_owned(),
            ints: ints.clone(),
            ..AttributeProto::default()
        });
        let modes = AttributeProto {
            name: "nodes_modes".to_owned(),
            strings: modes.iter().map(|mode| mode.as_bytes().to_vec()).collect(),
            ..AttributeProto::default()
        };
        NodeProto { op_type: op.to_owned(), attribute: ints.chain([modes]).collect(), ..NodeProto::default() }
    }

    /// A tree of `depth` levels, each with a leaf beside the way down.
    fn chain(depth: i64) -> NodeProto {
        let down = (1..depth).chain([0]);
        let nodes: Vec<i64> = (0..2 * depth).collect();
        let mut modes = vec!["BRANCH_LEQ"; depth as usize - 1];
        modes.extend(vec!["LEAF"; depth as usize + 1]);
        let yes = down.chain(vec![0; depth as usize]).collect();
        let no = (0..depth).map(|at| depth + at).chain(vec![0; depth as usize]).collect();
        let trees = vec![0; 2 * depth as usize];
        let attributes = [
            ("nodes_treeids", trees),
            ("nodes_nodeids", nodes),
            ("nodes_truenodeids", yes),
            ("nodes_falsenodeids", no),
        ];
        ensemble("TreeEnsembleRegressor", &attributes, &modes)
    }

    #[test]
    fn trees_are_as_deep_as_a_stack_bears_and_lead_nowhere_twice() {
        let depth = DEPTH as i64;
        let circle = |a: i64, b: i64| {
            let attributes = [
                ("nodes_truenodeids", vec![a, 0]),
                ("nodes_falsenodeids", vec![b, 0]),
                ("nodes_trueleafs", vec![0, 1]),
                ("nodes_falseleafs", vec![1, 1]),
                ("tree_roots", vec![0]),
            ];
            ensemble("TreeEnsemble", &attributes, &[])
        };
        for (node, good) in [
            (chain(3), true),
            (chain(depth), true),
            (chain(depth + 1), false),
            (circle(1, 0), true),
            (circle(0, 0), false),
            (ensemble("Other", &[("nodes_truenodeids", vec![0])], &[]), true),
            (ensemble("TreeEnsembleClassifier", &[], &[]), true),
        ] {
            assert_eq!(check(&node).is_ok(), good, "{node:?}");
        }
    }
}
