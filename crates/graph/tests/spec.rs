//! Graphs as YAML: what is read, what is refused and where, and what is written again.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test fails loudly, and tables own their rows"
)]

use std::sync::Arc;

use expect_test::{Expect, expect};
use millstream_graph::{
    Graph, SchemaError, Step, fields, rows,
    spec::{Document, GraphSpec, Kinds, LayerKind, PolicySpec, column, graph_schema, kinds, type_text},
};

/// The mistakes of a file whose root is a graph, or its reply's columns.
fn check(text: &str, expected: Expect) {
    let kinds = layered();
    let read = || {
        let document = Document::read(text)?;
        let spec = GraphSpec::read(&document, &[], &kinds)?;
        let inner = |name: &str| (name == "inner").then(inner_graph);
        let graph = spec.graph("test", &kinds, &inner, &document, &[])?;
        graph.compile().map_err(|errors| GraphSpec::place_errors(&errors, &document, &[]))
    };
    let said = match read() {
        Ok(plan) => {
            plan.reply_schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
        }
        Err(errors) => errors.to_string(),
    };
    expected.assert_eq(&said);
}

/// The kinds, and a layer that refuses some settings and changes nothing.
fn layered() -> Kinds {
    let slow = LayerKind::new("slow", |seconds: u8, step: Arc<dyn Step>| match seconds {
        0 => Err(SchemaError::new("slower than nothing")),
        _ => Ok(step),
    });
    Kinds::default().with(kinds()).with_layers([slow])
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
    check(
        text,
        expect![[r#"
            2:9: column `id`: no type `int46`; did you mean `int16`?
            4:11: step `first`: no kind of step `mrge`; did you mean `merge`?
            5:32: step `second`: no key `onn`; did you mean `on`?
            6:11: `from` is a step, a `step.port`, or a list of them
            7:21: step `fourth`: is both `merge` and `join`; make it two steps
            8:3: step `fifth`: says no kind of step"#]],
    );
}

#[test]
fn mistakes_of_a_step_stand_at_the_step() {
    let cases = [
        (
            "unknown input",
            "a: {from: inptu, merge: }",
            expect!["3:3: step `a`: no step named `inptu`; did you mean `input`?"],
        ),
        (
            "unknown port",
            "a: {from: input.odd, merge: }",
            expect!["3:3: step `a`: input `input` has no port `odd`; there is none"],
        ),
        (
            "cycle",
            "a: {from: b, merge: }\n  b: {from: a, merge: }",
            expect!["3:3: steps form a cycle: `a` -> `b` -> `a`"],
        ),
        (
            "settings of the wrong type",
            "a: {from: [input, input], join: {on: id}}",
            expect![[r#"3:36: step `a`: invalid type: string "id", expected a sequence"#]],
        ),
        (
            "unknown choice",
            "a: {from: [input, input], join: {how: outer}}",
            expect!["3:36: step `a`: no choice `outer`; there is `left`, `inner`"],
        ),
        (
            "unknown policy",
            "a: {merge: , on_error: ignore}",
            expect!["3:16: no choice `ignore`; there is `fail`, `skip`, `default`, `step`"],
        ),
        (
            "default of the wrong type",
            "a: {merge: , on_error: {default: {id: x}}}",
            expect!["3:3: step `a`: default values need a step that keeps its rows"],
        ),
        (
            "unknown graph",
            "a: {graph: {use: outer}}",
            expect!["3:3: step `a`: no graph `outer` that could stand here"],
        ),
    ];
    for (_, step, expected) in cases {
        check(&format!("input: {{id: int64}}\nsteps:\n  {step}\nrespond: a\n"), expected);
    }
}

#[test]
fn texts_that_are_no_graph_are_refused() {
    let cases = [
        ("", expect!["1:1: invalid type: null, expected a map of `input`, `steps` and `respond`"]),
        ("input: {id: int64", expect!["2:1: while parsing a flow mapping, did not find expected ',' or '}'"]),
        ("input: {}\ninput: {}\n", expect!["2:1: duplicated key in mapping"]),
        ("input: {id: .nan}\nsteps: {}\nrespond: input", expect!["1:13: a number must be finite"]),
        (
            "input: {id: int64}\nstep: {}\nrespond: input",
            expect!["2:1: no key `step`; did you mean `steps`?"],
        ),
        ("input: {id: int64}\nsteps: {}", expect!["1:1: key `respond` is missing"]),
        ("--- {}\n--- {}\n", expect!["2:5: a file holds one document"]),
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
  guarded: {from: [joined], merge: {}, slow: 3, on_error: {step: {merge: {}}}, on_timeout: skip, on_overload: fail}
respond: guarded
";
    let (document, kinds) = (Document::read(text).unwrap(), layered());
    let spec = GraphSpec::read(&document, &[], &kinds).unwrap();
    let graph = spec.graph("test", &kinds, &|_| None, &document, &[]).unwrap();
    let written = GraphSpec::try_from(&graph).unwrap();
    assert_eq!(written, spec);
    let again = Document::read(&serde_json::to_string(&written).unwrap()).unwrap();
    assert_eq!(GraphSpec::read(&again, &[], &kinds).unwrap(), spec);
    assert!(matches!(spec.steps["again"].on_error, PolicySpec::Skip));
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
        "bool",
        "int8",
        "uint64?",
        "float16",
        "string",
        "binary",
        "date",
        "timestamp",
        "timestamp_ns?",
        "json",
        "list<int32?>",
        "tensor<float32, 3, 224, 224>?",
        "struct<a: struct<b: list<float64>>, c: date?>",
    ] {
        assert_eq!(type_text(&column("c", text).unwrap()), text);
    }
    for text in
        ["", "int46", "list<", "tensor<float32>", "tensor<float32, 0>", "struct<a>", "list<list<lst<int8>>>"]
    {
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

#[test]
fn what_happens_to_a_failed_step_is_checked_with_the_rest() {
    let step = |keys: &str| {
        format!(
            "input: {{id: int64}}\nsteps:\n  one:\n    from: [input, input]\n    merge:\n    {keys}\nrespond: one\n"
        )
    };
    let cases = [
        (
            "on_timeout: {step: {merge: }}",
            expect![
                "3:3: step `one`: another step can stand in for one with one in-port and one out-port whose rows keep their place in the request"
            ],
        ),
        (
            "on_error: {step: {mrge: }}",
            expect!["6:23: step `one`: no kind of step `mrge`; did you mean `merge`?"],
        ),
        (
            "on_error: {step: {}}",
            expect!["6:16: step `one`: a step that stands in is a map of its kind to its settings"],
        ),
        ("on_overload: {stp: {merge: }}", expect!["6:5: no choice `stp`; did you mean `step`?"]),
        ("on_timeout: retry", expect!["6:5: no choice `retry`; there is `fail`, `skip`, `default`, `step`"]),
        ("slow: 0", expect!["6:5: step `one`: slower than nothing"]),
        ("slow: [1]", expect!["6:5: step `one`: invalid type: sequence, expected u8"]),
        ("slw: 1", expect!["6:5: step `one`: no kind of step `slw`; did you mean `slow`?"]),
    ];
    for (keys, expected) in cases {
        check(&step(keys), expected);
    }
    let text =
        "input: {id: int64}\nsteps:\n  sub: {graph: {use: inner}, slow: 1, on_error: skip}\nrespond: sub\n";
    check(
        text,
        expect![[r#"
        3:30: step `sub`: a graph takes no `slow`; give it to a step inside
        3:39: step `sub`: a graph takes no `on_error`; give it to a step inside"#]],
    );
}
