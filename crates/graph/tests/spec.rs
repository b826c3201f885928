//! Graphs as YAML: what is read, what is refused and where, and what is written again.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use expect_test::{Expect, expect};
use millstream_graph::{
    Graph, OnError, fields, rows,
    spec::{Document, GraphSpec, Kinds, column, graph_schema, kinds, type_text},
};

/// The mistakes of a file whose root is a graph, or its reply's columns.
fn check(text: &str, expected: Expect) {
    let kinds = Kinds::default().with(kinds());
    let read = || {
        let document = Document::read(text)?;
        let spec = GraphSpec::read(&document, &[], &kinds)?;
        let inner = |name: &str| (name == "inner").then(inner_graph);
        let graph = spec.graph("test", &kinds, &inner, &document, &[])?;
        graph.compile().map_err(|errors| GraphSpec::place_errors(&errors, &document, &[]))
    };
    let said = match read() {
        Ok(plan) => plan.reply_schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", "),
        Err(errors) => errors.to_string(),
    };
    expected.assert_eq(&said);
}

/// A graph that another file's step may put in its place.
fn inner_graph() -> Graph {
    let text = "input: {id: int64}\nsteps:\n  twice: {from: [input, input], merge: }\nrespond: twice\n";
    let (document, kinds) = (Document::read(text).unwrap(), Kinds::default().with(kinds()));
    let spec = GraphSpec::read(&document, &[], &kinds).unwrap();
    spec.graph("inner", &kinds, &|_| None, &document, &[]).unwrap()
}

#[test]
fn a_graph_is_read_and_typed() {
    let text = "
input: {id: int64, name: string?}
steps:
  again: {from: [input, input], merge: }
  joined: {from: [input, again], join: }
respond: joined
";
    check(text, expect!["id, name"]);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place_and_the_closest_name() {
    let text = "
input: {id: int46, name: string}
steps:
  first: {mrge: }
  second: {from: input, join: {onn: [id]}}
  third: {from: 7, merge: }
  fourth: {merge: , join: }
  fifth: {from: input}
respond: first
";
    check(text, expect![[""]]);
}

#[test]
fn mistakes_of_a_step_stand_at_the_step() {
    let cases = [
        ("unknown input", "a: {from: inptu, merge: }", expect![[""]]),
        ("unknown port", "a: {from: input.odd, merge: }", expect![[""]]),
        ("cycle", "a: {from: b, merge: }\n  b: {from: a, merge: }", expect![[""]]),
        ("settings of the wrong type", "a: {from: [input, input], join: {on: id}}", expect![[""]]),
        ("unknown choice", "a: {from: [input, input], join: {how: outer}}", expect![[""]]),
        ("unknown policy", "a: {merge: , on_error: ignore}", expect![[""]]),
        ("default of the wrong type", "a: {merge: , on_error: {default: {id: x}}}", expect![[""]]),
        ("unknown graph", "a: {graph: {use: outer}}", expect![[""]]),
    ];
    for (_, step, expected) in cases {
        check(&format!("input: {{id: int64}}\nsteps:\n  {step}\nrespond: a\n"), expected);
    }
}

#[test]
fn texts_that_are_no_graph_are_refused() {
    let cases = [
        ("", expect![[""]]),
        ("input: {id: int64", expect![[""]]),
        ("input: {}\ninput: {}\n", expect![[""]]),
        ("input: {id: .nan}\nsteps: {}\nrespond: input", expect![[""]]),
        ("input: {id: int64}\nstep: {}\nrespond: input", expect![[""]]),
        ("input: {id: int64}\nsteps: {}", expect![[""]]),
        ("--- {}\n--- {}\n", expect![[""]]),
    ];
    for (text, expected) in cases {
        check(text, expected);
    }
    let deep = format!("input: {}1{}", "[".repeat(100), "]".repeat(100));
    assert!(Document::read(&deep).is_err());
    assert!(Document::read(&"a".repeat(5 << 20)).is_err());
}

#[test]
fn what_is_written_reads_the_same() {
    let text = "
input: {id: int64, at: timestamp, x: \"tensor<float32, 2, 3>\", j: json?, s: \"struct<a: int64, b: list<string?>>\"}
steps:
  again: {description: the same rows, from: [input, input], merge: {}, on_error: skip}
  joined: {from: [again, input], join: {on: [id], how: inner}, on_error: {default: {id: 7}}}
respond: joined
";
    let (document, kinds) = (Document::read(text).unwrap(), Kinds::default().with(kinds()));
    let spec = GraphSpec::read(&document, &[], &kinds).unwrap();
    let graph = spec.graph("test", &kinds, &|_| None, &document, &[]).unwrap();
    let written = GraphSpec::try_from(&graph).unwrap();
    assert_eq!(written, spec);
    let again = Document::read(&serde_json::to_string(&written).unwrap()).unwrap();
    assert_eq!(GraphSpec::read(&again, &[], &kinds).unwrap(), spec);
    assert!(matches!(spec.steps["again"].on_error, OnError::Skip));
}

#[test]
fn an_embedded_graph_is_written_as_the_step_it_stands_for() {
    let text = "
input: {id: int64, name: string}
steps:
  sub: {from: [input], graph: {use: inner}}
  both: {from: [sub, sub], merge: {}}
respond: both
";
    let (document, kinds) = (Document::read(text).unwrap(), Kinds::default().with(kinds()));
    let spec = GraphSpec::read(&document, &[], &kinds).unwrap();
    let inner = |name: &str| (name == "inner").then(inner_graph);
    let graph = spec.graph("test", &kinds, &inner, &document, &[]).unwrap();
    let plan = graph.compile().unwrap();
    assert!(plan.step_named("sub/twice").is_some());
    assert_eq!(GraphSpec::try_from(&graph).unwrap(), spec);
}

#[test]
fn a_step_made_in_rust_cannot_be_written() {
    let mut graph = Graph::new("rust", fields! { id: Int64 });
    let same = graph.map("same", graph.input(), fields! { id: Int64 }, |_| Ok(rows! { id: [1i64] }));
    graph.respond(&same);
    let error = GraphSpec::try_from(&graph).unwrap_err();
    assert_eq!(error.to_string(), "step `same` was made in Rust and has no settings that a file could hold");
}

#[test]
fn types_are_written_as_they_are_read() {
    for text in [
        "bool", "int8", "uint64?", "float16", "string", "binary", "date", "timestamp", "timestamp_ns?", "json",
        "list<int32?>", "tensor<float32, 3, 224, 224>?", "struct<a: struct<b: list<float64>>, c: date?>",
    ] {
        assert_eq!(type_text(&column("c", text).unwrap()), text);
    }
    for text in ["", "int46", "list<", "tensor<float32>", "tensor<float32, 0>", "struct<a>", "list<list<lst<int8>>>"] {
        assert!(column("c", text).is_err(), "{text}");
    }
    assert!(column("c", &("list<".repeat(40) + "int8" + &">".repeat(40))).is_err());
}

#[test]
fn the_schema_knows_every_kind() {
    let kinds = Kinds::default().with(kinds());
    let schema = graph_schema(&kinds, &mut schemars::SchemaGenerator::default()).to_value();
    let step = &schema["properties"]["steps"]["additionalProperties"];
    for key in ["merge", "join", "graph", "from", "on_error", "description"] {
        assert!(step["properties"].get(key).is_some(), "{key}");
    }
    assert_eq!(step["additionalProperties"], serde_json::json!(false));
}
