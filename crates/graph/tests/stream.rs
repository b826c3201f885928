//! Replies in parts: what a graph may declare, what is said about every mistake, and how a plan tells of it.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test fails loudly")]

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use expect_test::{Expect, expect};
use millstream_graph::{
    Graph, Plan, PortRef, StepError, Stream, fields,
    spec::{Document, GraphSpec, Kinds, kinds},
};

/// A step that would answer `schema`; compile never calls it.
fn map(graph: &mut Graph, input: &PortRef, schema: SchemaRef) -> PortRef {
    graph.map("next", input, schema, |_| Err(StepError::internal("never called")))
}

fn graph_of(input: SchemaRef, reply: SchemaRef, stream: Stream) -> Graph {
    let mut graph = Graph::new("g", input);
    let input = graph.input();
    let next = map(&mut graph, &input, reply);
    graph.respond(&next);
    graph.stream(stream);
    graph
}

/// What is said about a stream of a graph of `token: Int64, state: Float32, note: Utf8?`.
fn refused(stream: Stream, wanted: Expect) {
    let input = fields! { token: Int64, state: Float32, note: Utf8? };
    let reply = fields! { next: Int64, wide: Float64, state_out: Float32?, done: Boolean, note: Utf8? };
    let errors = graph_of(input, reply, stream).compile().expect_err("the stream is wrong");
    wanted.assert_eq(&errors.to_string());
    assert!(errors.errors().iter().all(|error| error.step().is_none()));
}

#[test]
fn every_mistake_of_a_stream_is_said_at_once_with_the_closest_name() {
    refused(
        Stream::until("dne").feed("tokn", "next").feed("token", "nxt").feed("elsewhere", "nowhere").most(0),
        expect![[r#"
            `stream`: `most` is 0, but a stream has 1 to 65536 parts
            `stream`: the input has no column `tokn`; did you mean `token`?
            `stream`: the reply has no column `nxt`; did you mean `next`?
            `stream`: the input has no column `elsewhere`; there is `token`, `state`, `note`
            `stream`: the reply has no column `nowhere`; there is `next`, `wide`, `state_out`, `done`, `note`
            `stream`: the reply has no column `dne`; did you mean `done`?"#]],
    );
    refused(
        Stream::until("next")
            .feed("state", "wide")
            .feed("state", "state_out")
            .feed("note", "note")
            .most(70_000),
        expect![[r#"
            `stream`: `most` is 70000, but a stream has 1 to 65536 parts
            `stream`: column `wide` of the reply is Float64 where column `state` of the input is Float32; cast it
            `stream`: column `state_out` of the reply may be null where column `state` of the input may not; let the input be null, or fill the gaps before the reply
            `stream`: `until` names column `next` of the reply, which is Int64 and not Boolean"#]],
    );
    refused(
        Stream::until("done").feed("token", "next").feed("token", "next"),
        expect!["`stream`: `feed` names column `token` of the input twice"],
    );
    refused(
        Stream::until("done"),
        expect!["`stream`: `feed` is empty: every part would be the first one again"],
    );
}

#[test]
fn rows_that_lost_their_place_cannot_be_run_again() {
    let mut graph = Graph::new("g", fields! { token: Int64 });
    let input = graph.input();
    let free = graph.transform("free", &input, fields! { next: Int64, done: Boolean }, |_| {
        Err(StepError::internal("never called"))
    });
    graph.respond(&free);
    graph.stream(Stream::until("done").feed("token", "next"));
    expect!["`stream`: the rows of the reply no longer know their place in the request, so that none can be run again"]
        .assert_eq(&graph.compile().unwrap_err().to_string());
}

#[test]
fn what_is_wrong_elsewhere_is_said_beside_it() {
    let mut graph = Graph::new("g", fields! { token: Int64 });
    let input = graph.input();
    let error = input.error();
    let broken = graph.merge("broken", [&input, &error]);
    graph.respond(&broken);
    graph.stream(Stream::until("done").feed("tken", "next"));
    expect![[r#"
        step `broken`: input `input` has no port `error`; there is none
        `stream`: the input has no column `tken`; did you mean `token`?"#]]
    .assert_eq(&graph.compile().unwrap_err().to_string());
}

fn counted() -> Plan {
    let graph = graph_of(
        fields! { token: Int64, topic: Utf8 },
        fields! { next: Int64, done: Boolean },
        Stream::until("done").feed("token", "next").most(20),
    );
    graph.compile().unwrap()
}

#[test]
fn a_plan_tells_of_its_stream() {
    let plan = counted();
    let stream = plan.stream().unwrap();
    let fed: Vec<_> = stream.feed().iter().map(|feed| (feed.input(), feed.carried(), feed.reply())).collect();
    assert_eq!((fed, stream.until(), stream.most()), (vec![(0, 0, 0)], 1, 20));
    let text = plan.to_string();
    expect!["  stream: token <- next; until done, 20 parts at most"].assert_eq(text.lines().last().unwrap());
    assert!(plan.svg().contains("stream: token &lt;- next; until done, 20 parts at most"));
    assert!(plan.mermaid().contains("-. next part .-> input"));
}

#[test]
fn whether_items_of_lists_may_be_null_is_no_matter_of_types() {
    let list = |name: &str, nullable, size| {
        let item = Arc::new(Field::new("item", DataType::Float32, nullable));
        Field::new(name, DataType::FixedSizeList(item, size), false)
    };
    let compiled = |size| {
        let reply = Schema::new(vec![list("next", true, size), Field::new("done", DataType::Boolean, false)]);
        let input = Arc::new(Schema::new(vec![list("state", false, 2)]));
        graph_of(input, Arc::new(reply), Stream::until("done").feed("state", "next")).compile()
    };
    assert!(compiled(2).is_ok());
    assert!(compiled(3).unwrap_err().to_string().contains("cast it"));
}

#[test]
fn fed_columns_travel_though_no_step_reads_them() {
    // What is not read of a request is left out where steps say what they read.
    let text = "
input: {token: int64, kept: int64, other: int64}
steps:
  inner: {graph: {use: inner}}
respond: inner
stream: {feed: {kept: next}, until: done}
";
    let inner =
        graph_of(fields! { token: Int64 }, fields! { next: Int64, done: Boolean }, Stream::until("done"));
    let kinds = Kinds::default().with(kinds());
    let document = Document::read(text).unwrap();
    let spec = GraphSpec::read(&document, &[], &kinds).unwrap();
    let graph = spec.graph("outer", &kinds, &|_| Some(inner.clone()), &document, &[]).unwrap();
    let plan = graph.compile().unwrap();
    let carried: Vec<&str> =
        plan.carried_schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(carried, ["token", "kept"]);
    let [fed] = plan.stream().unwrap().feed() else { panic!("one column is fed") };
    assert_eq!((fed.input(), fed.carried()), (1, 1));
    assert_eq!(GraphSpec::try_from(&graph).unwrap().stream, spec.stream, "it is written as it was read");
}

#[test]
fn mistakes_of_a_file_have_their_place() {
    let kinds = Kinds::default().with(kinds());
    let said = |stream: &str| {
        let text = format!(
            "input: {{a: int64, b: bool}}\nsteps:\n  same: {{from: [input, input], merge: }}\nrespond: same\nstream: {stream}\n"
        );
        let read = || {
            let document = Document::read(&text)?;
            let spec = GraphSpec::read(&document, &[], &kinds)?;
            let graph = spec.graph("test", &kinds, &|_| None, &document, &[])?;
            graph.compile().map_err(|errors| GraphSpec::place_errors(&errors, &document, &[]))
        };
        read().map_or_else(|errors| errors.to_string(), |plan| plan.to_string())
    };
    expect!["5:1: `stream`: the input has no column `token`; there is `a`, `b`"]
        .assert_eq(&said("{feed: {token: a}, until: b}"));
    assert!(said("{feed: {a: a}, untl: b}").contains("untl"));
    assert!(said("{feed: {a: a}, until: b, most: -1}").contains("5:"));
    assert!(said("{feed: {a: a}, until: b}").ends_with("stream: a <- a; until b, 256 parts at most"));
}
