//! A plan as a picture: well-formed, every step once, nothing on top of anything else, always the same.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

use std::sync::Arc;

use arrow::{
    array::BooleanArray,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_graph::{Graph, JoinOn, Plan, PortRef, StepError, fields};
use proptest::prelude::*;

fn column(name: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, false)]))
}

fn map(graph: &mut Graph, name: &str, input: &PortRef, output: SchemaRef) -> PortRef {
    graph.map(name, input, output, |_| Err(StepError::internal("never called")))
}

fn no_rows(_: &arrow::array::RecordBatch) -> Result<BooleanArray, StepError> {
    Ok(BooleanArray::new_null(0))
}

/// The graph of the README: features, three models, one decision.
fn fraud() -> Plan {
    let mut graph = Graph::new("fraud", fields! { card: Int64, amount: Float64 });
    let input = graph.input();
    let enriched = map(&mut graph, "enrich", &input, column("e"));
    let features = map(&mut graph, "features", &enriched, column("f"));
    let models = ["lgbm", "lr", "mlp"].map(|name| map(&mut graph, name, &features, column(name)));
    let ensemble = graph.join("ensemble", models.to_vec(), JoinOn::Rows);
    let decision = map(&mut graph, "decision", &ensemble, column("blocked"));
    graph.respond(&decision);
    graph.compile().unwrap()
}

/// Routes, an error edge, a handler and a tail.
fn everything() -> Plan {
    let mut graph = Graph::new("claims & \"more\"", fields! { id: Int64, amount: Float64 });
    let input = graph.input();
    let [large, small, odd] = graph.choose("by size", &input, ["large", "small", "odd"], |_| Ok(vec![]));
    let enriched = map(&mut graph, "enrich", &large, column("x"));
    let deep = map(&mut graph, "deep model", &enriched, column("score"));
    let quick = map(&mut graph, "quick", &small, column("score"));
    let constant = map(&mut graph, "constant", &odd, column("score"));
    let rescued = map(&mut graph, "rescue", &deep.error(), column("score"));
    let failed = graph.on_error();
    let sorry = map(&mut graph, "sorry", &failed, column("score"));
    graph.step("page", graph.on_error(), Pass);
    let merged = graph.merge("merge", [&deep, &quick, &constant, &rescued, &sorry]);
    let reply = graph.respond(&merged);
    let sampled = graph.filter("sampled", &reply, no_rows);
    graph.step("audit", &sampled, Pass);
    graph.step("request log", &input, Pass);
    graph.compile().unwrap()
}

/// A step that hands its rows on.
struct Pass;

impl millstream_graph::Step for Pass {
    fn signature(
        &self,
        inputs: &[SchemaRef],
    ) -> Result<millstream_graph::Signature, millstream_graph::SchemaError> {
        Ok(millstream_graph::Signature::row_wise(Arc::clone(&inputs[0])))
    }
    fn call<'a>(
        &'a self,
        _: millstream_graph::Input,
        _: &'a millstream_graph::RunCx,
    ) -> millstream_graph::Work<'a> {
        millstream_graph::Work::Done(Ok(millstream_graph::Output::none()))
    }
}

/// The text between the tags of an SVG, and its boxes as left, top, right, bottom.
struct Drawn {
    names: Vec<String>,
    boxes: Vec<[f64; 4]>,
    size: [f64; 2],
}

fn attribute(tag: &str, name: &str) -> Option<f64> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    tag[start..].split('"').next()?.parse().ok()
}

/// Reads an SVG, and refuses one that is not well-formed.
fn read(svg: &str) -> Drawn {
    let mut drawn = Drawn { names: Vec::new(), boxes: Vec::new(), size: [0.0; 2] };
    let mut open: Vec<String> = Vec::new();
    let mut rest = svg;
    let mut tag = String::new();
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        assert!(!text.contains('>'), "a bare > in {text:?}");
        for entity in text.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;", "quot;"].iter().any(|known| entity.starts_with(known)),
                "{text:?}"
            );
        }
        if tag.contains("class=\"name\"") && !text.is_empty() {
            drawn.names.push(text.to_owned());
        }
        let end = start + rest[start..].find('>').expect("an open tag ends");
        tag = rest[start + 1..end].to_owned();
        assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "{tag}");
        rest = &rest[end + 1..];
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => assert_eq!(open.pop().as_deref(), Some(name)),
            (None, false) => open.push(tag.split(' ').next().unwrap().to_owned()),
            (None, true) => {}
        }
        if let Some(width) = attribute(&tag, "width").filter(|_| tag.starts_with("rect")) {
            let [x, y, height] = ["x", "y", "height"].map(|name| attribute(&tag, name).unwrap());
            drawn.boxes.push([x, y, x + width, y + height]);
        } else if tag.starts_with("svg") {
            drawn.size = ["width", "height"].map(|name| attribute(&tag, name).unwrap());
        } else if tag.starts_with("path class=\"box") {
            let numbers =
                tag.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|n| n.parse::<f64>().ok());
            // M left+point top H right-point L right middle L .. bottom H .. L left middle
            let n: Vec<_> = numbers.collect();
            drawn.boxes.push([n[8], n[1], n[3], n[6]]);
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    drawn
}

fn check(plan: &Plan) {
    let svg = plan.svg();
    assert_eq!(svg, plan.svg(), "the same plan gives the same picture");
    let drawn = read(&svg);
    let mut names = drawn.names.clone();
    names.sort();
    let mut wanted: Vec<_> = plan.steps().iter().map(|step| step.name().to_string()).collect();
    wanted.push("input".into());
    wanted.extend((!plan.handler_edges().is_empty()).then(|| "on_error".into()));
    wanted.sort();
    assert_eq!(names, wanted, "every step is named once");
    assert_eq!(drawn.boxes.len(), wanted.len());
    for (at, a) in drawn.boxes.iter().enumerate() {
        assert!(a[0] >= 0.0 && a[1] >= 0.0 && a[2] <= drawn.size[0] && a[3] <= drawn.size[1], "{a:?}");
        for b in &drawn.boxes[..at] {
            assert!(a[0] >= b[2] || b[0] >= a[2] || a[1] >= b[3] || b[1] >= a[3], "{a:?} is on top of {b:?}");
        }
    }
}

#[test]
fn pictures_are_well_formed_and_complete() {
    check(&fraud());
    check(&everything());
}

#[test]
fn text_is_escaped() {
    let svg = everything().svg();
    assert!(svg.contains("<title>claims &amp; &quot;more&quot;</title>"), "{svg}");
}

#[test]
fn errors_are_dotted_and_the_tail_is_dashed() {
    let svg = everything().svg();
    let count = |class: &str| svg.matches(&format!("class=\"{class}\"")).count();
    assert_eq!((count("box tail"), count("box end"), count("box fault")), (3, 2, 2));
    assert!(count("edge tail") > 0 && count("edge fails") > 0 && count("port fails") == 1);
    assert!(!fraud().svg().contains("class=\"edge tail\""));
}

#[test]
fn large_plans_are_drawn() {
    let mut graph = Graph::new("large", column("id"));
    let mut port = graph.input();
    for at in 0..1000 {
        graph.step(&format!("wide_{at}"), graph.input(), Pass);
        port = graph.join(&format!("deep_{at}"), [&port, &graph.input()], JoinOn::Rows);
    }
    graph.respond(&port);
    let svg = graph.compile().unwrap().svg();
    assert_eq!(read(&svg).names.len(), 2002);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_plan_is_drawn_without_overlap(
        steps in proptest::collection::vec((0..6u8, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..40),
        reply in any::<prop::sample::Index>(),
    ) {
        let mut graph = Graph::new("any", column("id"));
        let mut ports = vec![graph.input()];
        for (at, (kind, first, second)) in steps.into_iter().enumerate() {
            let name = format!("{}{at}", "step_".repeat(at % 4));
            let (first, second) = (first.get(&ports).clone(), second.get(&ports).clone());
            match kind {
                0 => ports.push(graph.step(&name, &first, Pass)),
                1 => ports.push(graph.filter(&name, &first, no_rows)),
                2 => ports.push(graph.merge(&name, [&first, &second])),
                3 => ports.extend(graph.choose(&name, &first, ["left", "right"], |_| Ok(vec![]))),
                _ => {
                    let routed = kind == 4 && first != graph.input();
                    let input = if routed { first.error() } else { graph.on_error() };
                    let mended = map(&mut graph, &name, &input, column("id"));
                    // A reader of failed rows has a column `error` of its own, so its error port cannot be read.
                    ports.push(graph.step(&format!("{name} behind"), &mended, Pass));
                }
            }
        }
        let reply = reply.get(&ports).clone();
        graph.respond(&reply);
        check(&graph.compile().unwrap());
    }
}

#[test]
#[ignore = "writes the pictures to look at: WRITE_TO=folder"]
fn pictures_to_look_at() {
    let Some(folder) = std::env::var_os("WRITE_TO") else { return };
    for plan in [fraud(), everything()] {
        let name: String = plan.name().chars().filter(char::is_ascii_alphabetic).collect();
        std::fs::write(std::path::Path::new(&folder).join(name + ".svg"), plan.svg()).unwrap();
    }
}
