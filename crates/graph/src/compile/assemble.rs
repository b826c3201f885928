//! From a graph that is known to be right to its plan: steps, slots and edges with their ids.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::datatypes::SchemaRef;

use super::{From, Typed, port_index};
use crate::{
    Edge, EdgeId, Effect, Narrow, Phase, Plan, PlanPort, PlanStep, RowFlow, Signature, Source, StepId,
    failure::failed_schema,
    graph::{ERROR_PORT, Graph, INPUT, Node, ON_ERROR, PortRef, Tapped},
};

/// Everything is known to be right: give steps, slots and edges their ids. Per step, how it is made anew for fewer columns.
pub(super) fn assemble(
    graph: &Graph,
    names: &HashMap<&str, usize>,
    links: &[Vec<From>],
    order: &[usize],
    mut typed: Vec<Option<Typed>>,
    respond: usize,
) -> (Plan, Vec<Option<Narrow>>) {
    let phases = phases(links, order, respond);
    let mut order = order.to_vec();
    order.sort_by_key(|&at| phases[at]);
    let mut id_of = vec![StepId(0); links.len()];
    for (id, &at) in order.iter().enumerate() {
        id_of[at] = StepId(id as u32);
    }
    let mut plan = Plan {
        name: graph.name.clone(),
        input: Arc::clone(&graph.input),
        carried: Arc::clone(&graph.input),
        carried_at: (0..graph.input.fields().len()).collect(),
        steps: Vec::with_capacity(order.len()),
        edges: Vec::new(),
        input_edges: Vec::new(),
        handler_edges: Vec::new(),
        handler_schema: failed_schema(&graph.input),
        respond: id_of[respond],
        reply: Arc::clone(&graph.input),
        reply_in_order: true,
        stream: None,
        slots: 0,
    };
    let source_of = |port: &PortRef| match (&*port.step, names.get(&*port.step)) {
        (ON_ERROR, _) => Source::Handler,
        (INPUT, _) | (_, None) => Source::Input,
        (_, Some(&at)) if port.port.as_deref() == Some(ERROR_PORT) => Source::Error(id_of[at]),
        (_, Some(&at)) => {
            Source::Port(id_of[at], typed[at].as_ref().and_then(|typed| port_index(typed, port)).unwrap_or(0))
        }
    };
    let sources: Vec<Vec<_>> =
        order.iter().map(|&at| graph.nodes[at].inputs.iter().map(source_of).collect()).collect();
    let mut taps = Taps::new();
    for tapped in &graph.taps {
        taps.entry(key(source_of(&tapped.port))).or_default().push(tapped.clone());
    }
    let mut ways = Vec::with_capacity(order.len());
    for &at in &order {
        let Some(mut done) = typed[at].take() else { continue };
        ways.push(done.signature.narrow.take());
        if at == respond {
            plan.reply = Arc::clone(&done.signature.outputs[0].schema);
            plan.reply_in_order = done.in_order[0];
        }
        let node = &graph.nodes[at];
        plan.steps.push(plan_step(node, done, phases[at], plan.slots));
        plan.slots += node.inputs.len();
    }
    connect(&mut plan, &sources, &taps);
    mark_behind_handler(&mut plan);
    (plan, ways)
}

/// Steps the reply depends on come first, then those of the error handler, then the tail; each part in Kahn's order.
fn phases(links: &[Vec<From>], order: &[usize], respond: usize) -> Vec<Phase> {
    let mut phases = vec![Phase::Tail; links.len()];
    let mut todo = vec![respond];
    while let Some(at) = todo.pop() {
        if phases[at] == Phase::Tail {
            phases[at] = Phase::Main;
            todo.extend(
                links[at].iter().filter_map(|from| if let From::Node(up) = from { Some(*up) } else { None }),
            );
        }
    }
    for &at in order {
        let behind_handler = links[at].iter().any(|from| match from {
            From::Handler => true,
            From::Node(up) => phases[*up] == Phase::Handler,
            From::Input | From::Unknown => false,
        });
        if behind_handler && phases[at] == Phase::Main {
            phases[at] = Phase::Handler;
        }
    }
    phases
}

type Taps = BTreeMap<(u8, u32, usize), Vec<Tapped>>;

fn connect(plan: &mut Plan, sources: &[Vec<Source>], taps: &Taps) {
    for (id, froms) in sources.iter().enumerate() {
        for (in_port, &from) in froms.iter().enumerate() {
            let slot = plan.steps[id].first_slot + in_port;
            let edge = EdgeId(plan.edges.len() as u32);
            let of_port = match from {
                Source::Input => &mut plan.input_edges,
                Source::Handler => &mut plan.handler_edges,
                Source::Port(step, port) => &mut plan.steps[step.index()].outputs[port].edges,
                Source::Error(step) => &mut plan.steps[step.index()].error.edges,
            };
            let first = of_port.is_empty();
            of_port.push(edge);
            let tapped = taps.get(&key(from)).map(Vec::as_slice).unwrap_or_default();
            let tapped = tapped.iter().filter(|tapped| first || tapped.columns.is_none());
            let (taps, read) = tapped.map(|tapped| (Arc::clone(&tapped.tap), tapped.columns.clone())).unzip();
            plan.edges.push(Edge { from, to: StepId(id as u32), slot, taps, read });
            plan.steps[id].in_edges.push(edge);
        }
    }
}

fn mark_behind_handler(plan: &mut Plan) {
    for id in 0..plan.steps.len() {
        let behind = plan.steps[id].in_edges.iter().any(|edge| match plan.edges[edge.index()].from {
            Source::Handler => true,
            Source::Input => false,
            Source::Port(step, _) | Source::Error(step) => plan.steps[step.index()].behind_handler,
        });
        plan.steps[id].behind_handler = behind;
    }
}

/// A source as a key: where it begins, which step, which port.
fn key(source: Source) -> (u8, u32, usize) {
    match source {
        Source::Input => (0, 0, 0),
        Source::Handler => (1, 0, 0),
        Source::Port(step, port) => (2, step.0, port),
        Source::Error(step) => (3, step.0, 0),
    }
}

fn plan_step(node: &Node, typed: Typed, phase: Phase, first_slot: usize) -> PlanStep {
    let port = |name: String, schema: SchemaRef, flow| PlanPort {
        name,
        declared: Arc::clone(&schema),
        schema,
        flow,
        passing: Vec::new(),
        edges: Vec::new(),
    };
    let Signature { outputs, effect, .. } = typed.signature;
    PlanStep {
        name: node.name.as_str().into(),
        kind: node.kind,
        step: Arc::clone(&node.step),
        phase,
        behind_handler: false,
        effect: if node.respond { Effect::None } else { effect },
        first_slot,
        in_edges: Vec::new(),
        outputs: outputs.into_iter().map(|out| port(out.name, out.schema, out.flow)).collect(),
        error: port(ERROR_PORT.into(), typed.failed, RowFlow::Subset),
        fallbacks: typed.fallbacks,
    }
}
