//! From a graph to a plan: names resolved, steps ordered and typed, every mistake collected.

mod assemble;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::datatypes::{Schema, SchemaRef};

use crate::{
    CompileError, CompileErrors, Fallback, Fallbacks, Plan, RowFlow, Signature,
    failure::{ERROR_COLUMN, failed_schema},
    fallback::fallbacks,
    graph::{ERROR_PORT, Graph, INPUT, Node, ON_ERROR, PortRef, Tapped},
    narrow,
    policy::with_substitutes,
    stream, suggest,
};
use assemble::assemble;

pub(crate) fn compile(graph: &Graph) -> Result<Plan, CompileErrors> {
    let graph = &*with_substitutes(graph);
    let mut errors = graph.early.clone();
    let names = names(graph, &mut errors);
    let links = resolve(graph, &names, &mut errors);
    let order = order(graph, &links, &mut errors);
    let respond = respond(graph, &mut errors);
    let typed = type_steps(graph, &links, &order, &mut errors);
    check_taps(graph, &names, &typed, &mut errors);
    let reply = respond.and_then(|at| typed[at].as_ref()).and_then(reply_of);
    let stream = stream::resolve(graph, reply, &mut errors);
    match (respond, errors.is_empty()) {
        (Some(respond), true) => {
            let (mut plan, ways) = assemble(graph, &names, &links, &order, typed, respond);
            plan.stream = stream;
            Ok(narrow::narrow(plan, &ways))
        }
        _ => Err(CompileErrors::new(&graph.name, errors)),
    }
}

/// Where an in-port's rows come from, before steps have ids: a node index, or the graph itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Input,
    Handler,
    Node(usize),
    /// The name is unknown; said once, and everything that depends on it stays silent.
    Unknown,
}

/// What typing a node gave, by node index.
struct Typed {
    signature: Signature,
    /// The schema of in-port 0 with the column `error`.
    failed: SchemaRef,
    /// Whether the rows of each in-port still know their place in the request.
    in_order: Vec<bool>,
    fallbacks: Fallbacks,
}

fn names<'g>(graph: &'g Graph, errors: &mut Vec<CompileError>) -> HashMap<&'g str, usize> {
    let mut names = HashMap::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        let reserved = [INPUT, ON_ERROR].contains(&node.name.as_str());
        let usable = |c: char| c.is_alphanumeric() || "_-/ ".contains(c);
        if reserved || node.name.is_empty() || !node.name.chars().all(usable) {
            errors.push(CompileError::BadName { step: node.name.clone() });
        }
        if names.insert(node.name.as_str(), at).is_some() {
            errors.push(CompileError::DuplicateName { step: node.name.clone() });
        }
    }
    names
}

fn resolve(graph: &Graph, names: &HashMap<&str, usize>, errors: &mut Vec<CompileError>) -> Vec<Vec<From>> {
    let mut resolve_one = |node: &Node, port: &PortRef| match &*port.step {
        INPUT => From::Input,
        ON_ERROR => From::Handler,
        step => names.get(step).map_or_else(
            || {
                let known = graph.nodes.iter().map(|n| n.name.as_str()).filter(|name| *name != node.name);
                let message = suggest::unknown("step named", step, known.chain([INPUT]));
                errors.push(CompileError::UnknownInput {
                    step: node.name.clone(),
                    wanted: step.into(),
                    message,
                });
                From::Unknown
            },
            |&at| From::Node(at),
        ),
    };
    let links =
        graph.nodes.iter().map(|node| node.inputs.iter().map(|port| resolve_one(node, port)).collect());
    let links: Vec<Vec<From>> = links.collect();
    for node in graph.nodes.iter().filter(|node| node.inputs.is_empty()) {
        errors.push(CompileError::Unreachable { step: node.name.clone() });
    }
    links
}

/// Kahn's order, ties by the order of writing; nodes on a cycle are left out and the cycle is reported with its path.
fn order(graph: &Graph, links: &[Vec<From>], errors: &mut Vec<CompileError>) -> Vec<usize> {
    let mut readers = vec![Vec::new(); links.len()];
    let mut missing = vec![0usize; links.len()];
    for (at, froms) in links.iter().enumerate() {
        for from in froms {
            if let From::Node(upstream) = from {
                readers[*upstream].push(at);
                missing[at] += 1;
            }
        }
    }
    let ready = |missing: &[usize]| (0..links.len()).filter(|&at| missing[at] == 0).collect::<Vec<_>>();
    let mut heap: std::collections::BinaryHeap<_> =
        ready(&missing).into_iter().map(std::cmp::Reverse).collect();
    let mut order = Vec::with_capacity(links.len());
    while let Some(std::cmp::Reverse(at)) = heap.pop() {
        order.push(at);
        for &reader in &readers[at] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                heap.push(std::cmp::Reverse(reader));
            }
        }
    }
    if order.len() < links.len() {
        errors.push(CompileError::Cycle { path: cycle(graph, links, &missing) });
    }
    order
}

/// One cycle among the nodes that still miss a token: walk upstream until a node comes again.
fn cycle(graph: &Graph, links: &[Vec<From>], missing: &[usize]) -> Vec<String> {
    let upstream_on_cycle = |at: usize| {
        links[at].iter().find_map(|from| match from {
            From::Node(upstream) if missing[*upstream] > 0 => Some(*upstream),
            _ => None,
        })
    };
    let mut walked: Vec<usize> = (0..links.len()).find(|&at| missing[at] > 0).into_iter().collect();
    let mut place: HashMap<usize, usize> = walked.iter().map(|&at| (at, 0)).collect();
    while let Some(next) = walked.last().and_then(|&at| upstream_on_cycle(at)) {
        if let Some(start) = place.insert(next, walked.len()) {
            walked.drain(..start);
            break;
        }
        walked.push(next);
    }
    // In the direction of the rows, from the step that was written first.
    walked.reverse();
    let first = (0..walked.len()).min_by_key(|&at| walked[at]).unwrap_or(0);
    walked.rotate_left(first);
    walked.extend(walked.first().copied());
    walked.into_iter().map(|at| graph.nodes[at].name.clone()).collect()
}

fn respond(graph: &Graph, errors: &mut Vec<CompileError>) -> Option<usize> {
    let responders: Vec<_> = (0..graph.nodes.len()).filter(|&at| graph.nodes[at].respond).collect();
    match responders[..] {
        [one] => Some(one),
        [] => {
            errors.push(CompileError::NoReply);
            None
        }
        _ => {
            let steps = responders.iter().map(|&at| graph.nodes[at].name.clone()).collect();
            errors.push(CompileError::SeveralReplies { steps });
            None
        }
    }
}

/// The columns of the reply, and whether its rows know their place in the request.
fn reply_of(respond: &Typed) -> Option<(&Schema, bool)> {
    Some((&*respond.signature.outputs.first()?.schema, *respond.in_order.first()?))
}

/// Types every node whose in-ports could be typed; a node behind a mistake stays `None` and silent.
fn type_steps(
    graph: &Graph,
    links: &[Vec<From>],
    order: &[usize],
    errors: &mut Vec<CompileError>,
) -> Vec<Option<Typed>> {
    let handler = failed_schema(&graph.input);
    // What a policy brings reads error ports too; it is no reader of the user's.
    let read = graph
        .nodes
        .iter()
        .filter(|node| !node.substitutes)
        .flat_map(|node| &node.inputs)
        .filter(|port| port.port.as_deref() == Some(ERROR_PORT));
    let error_read: HashSet<&str> = read.map(|port| &*port.step).collect();
    let mut typed: Vec<Option<Typed>> = links.iter().map(|_| None).collect();
    for &at in order {
        let node = &graph.nodes[at];
        let mut inputs = Vec::new();
        for (port, from) in node.inputs.iter().zip(&links[at]) {
            inputs.extend(in_port(node, port, *from, graph, &handler, &typed, errors));
        }
        if inputs.len() == node.inputs.len() && !inputs.is_empty() {
            typed[at] = type_step(node, inputs, error_read.contains(node.name.as_str()), errors);
        }
    }
    typed
}

/// The schema of one in-port, and whether its rows know their place in the request.
fn in_port(
    node: &Node,
    port: &PortRef,
    from: From,
    graph: &Graph,
    handler: &SchemaRef,
    typed: &[Option<Typed>],
    errors: &mut Vec<CompileError>,
) -> Option<(SchemaRef, bool)> {
    let unknown_port = |known: &mut dyn Iterator<Item = &str>| CompileError::UnknownPort {
        step: node.name.clone(),
        from: port.step.to_string(),
        message: suggest::unknown("port", port.port.as_deref().unwrap_or_default(), known),
    };
    match from {
        From::Unknown => None,
        From::Input | From::Handler if port.port.is_some() => {
            errors.push(unknown_port(&mut std::iter::empty()));
            None
        }
        From::Input => Some((Arc::clone(&graph.input), true)),
        From::Handler => {
            if graph.input.column_with_name(ERROR_COLUMN).is_some() {
                errors.push(CompileError::ErrorColumn { step: ON_ERROR.into() });
                return None;
            }
            Some((Arc::clone(handler), true))
        }
        From::Node(at) => {
            let source = typed[at].as_ref()?;
            let first_in_order = source.in_order.first().copied().unwrap_or(false);
            if port.port.as_deref() == Some(ERROR_PORT) {
                if source.failed.fields().iter().filter(|field| field.name() == ERROR_COLUMN).count() > 1 {
                    errors.push(CompileError::ErrorColumn { step: port.step.to_string() });
                    return None;
                }
                return Some((Arc::clone(&source.failed), first_in_order));
            }
            let outputs = &source.signature.outputs;
            let Some(output) = port_index(source, port).and_then(|at| outputs.get(at)) else {
                errors
                    .push(unknown_port(&mut outputs.iter().map(|out| out.name.as_str()).chain([ERROR_PORT])));
                return None;
            };
            let in_order = match output.flow {
                RowFlow::Same | RowFlow::Subset => first_in_order,
                RowFlow::Merged => source.in_order.iter().all(|in_order| *in_order),
                RowFlow::Free => false,
            };
            Some((Arc::clone(&output.schema), in_order))
        }
    }
}

/// Which out-port a reference means: the named one, or the first.
fn port_index(source: &Typed, port: &PortRef) -> Option<usize> {
    match port.port.as_deref() {
        None => Some(0),
        Some(name) => source.signature.outputs.iter().position(|out| out.name == name),
    }
}

fn type_step(
    node: &Node,
    inputs: Vec<(SchemaRef, bool)>,
    error_read: bool,
    errors: &mut Vec<CompileError>,
) -> Option<Typed> {
    let (schemas, in_order): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
    let before = errors.len();
    let problem = |problem: String| CompileError::Schema { step: node.name.clone(), problem };
    let signature = match node.step.signature(&schemas) {
        Ok(signature) => signature,
        Err(error) => {
            errors.extend(error.problems().iter().cloned().map(problem));
            return None;
        }
    };
    for (at, output) in signature.outputs.iter().enumerate() {
        if output.name == ERROR_PORT || signature.outputs[..at].iter().any(|other| other.name == output.name)
        {
            errors.push(CompileError::DuplicatePort { step: node.name.clone(), port: output.name.clone() });
        }
        let mut seen = HashSet::new();
        if let Some(twice) = output.schema.fields().iter().find(|field| !seen.insert(field.name())) {
            errors.push(problem(format!("column `{}` would be there twice", twice.name())));
        }
    }
    let lines_up = signature.lines_up || signature.outputs.iter().any(|out| out.flow == RowFlow::Merged);
    if lines_up {
        for (port, _) in node.inputs.iter().zip(&in_order).filter(|(_, in_order)| !**in_order) {
            errors.push(CompileError::OutOfOrder { step: node.name.clone(), input: port.to_string() });
        }
    }
    if node.policies.declared() && error_read {
        errors.push(CompileError::TwoPolicies { step: node.name.clone() });
    }
    let fallbacks = fallbacks(&node.policies, error_read, &signature, &schemas).unwrap_or_else(|error| {
        errors.extend(error.problems().iter().cloned().map(problem));
        Fallbacks::all(|| Fallback::None)
    });
    let failed = failed_schema(schemas.first()?);
    (errors.len() == before).then_some(Typed { signature, failed, in_order, fallbacks })
}

fn check_taps(
    graph: &Graph,
    names: &HashMap<&str, usize>,
    typed: &[Option<Typed>],
    errors: &mut Vec<CompileError>,
) {
    let failed = failed_schema(&graph.input);
    for Tapped { port, columns, .. } in &graph.taps {
        let schema = match (&*port.step, names.get(&*port.step)) {
            (INPUT, _) if port.port.is_none() => Some(&graph.input),
            (ON_ERROR, _) if port.port.is_none() => Some(&failed),
            (INPUT | ON_ERROR, _) | (_, None) => None,
            (_, Some(&at)) => {
                // What could not be typed has been told of.
                let Some(typed) = &typed[at] else { continue };
                match port.port.as_deref() {
                    Some(ERROR_PORT) => Some(&typed.failed),
                    _ => port_index(typed, port).map(|at| &typed.signature.outputs[at].schema),
                }
            }
        };
        let port = port.to_string();
        let Some(schema) = schema else {
            errors.push(CompileError::UnknownTap { port });
            continue;
        };
        for column in columns.iter().flat_map(|columns| columns.iter()) {
            if schema.index_of(column).is_err() {
                let known = schema.fields().iter().map(|field| field.name().as_str());
                let problem = suggest::unknown("column", column, known);
                errors.push(CompileError::UnknownTapColumn { port: port.clone(), problem });
            }
        }
    }
}
