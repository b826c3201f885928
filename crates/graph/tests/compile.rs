//! What compile accepts, what it says about every mistake, and how a plan looks.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

use std::sync::Arc;

use arrow::{array::BooleanArray, datatypes::SchemaRef};
use expect_test::{Expect, expect};
use millstream_graph::{
    CompileError, Graph, Input, JoinOn, OnError, OutPort, Output, Phase, PortRef, RowFlow, RunCx,
    SchemaError, Signature, Step, StepError, Tap, Work, fields,
};
use serde_json::json;

/// The graph that `build` writes on a request of `id: Int64, amount: Float64, name: Utf8?`.
fn graph_of(build: impl FnOnce(&mut Graph)) -> Graph {
    let mut graph = Graph::new("g", fields! { id: Int64, amount: Float64, name: Utf8? });
    build(&mut graph);
    graph
}

/// Compiles a graph that is wrong and compares what is said about it, one line per mistake.
fn refused(build: impl FnOnce(&mut Graph), wanted: &Expect) -> Vec<CompileError> {
    let errors = graph_of(build).compile().expect_err("the graph is wrong");
    wanted.assert_eq(&errors.to_string());
    errors.errors().to_vec()
}

/// Adds a step that would answer `schema`; compile never calls it.
fn map(graph: &mut Graph, name: &str, input: &PortRef, schema: SchemaRef) -> PortRef {
    graph.map(name, input, schema, |_| Err(StepError::internal("never called")))
}

/// A step that hands its rows on under the given out-ports.
struct OutPorts(&'static [&'static str]);

impl Step for OutPorts {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let port = |name: &&str| OutPort::new(*name, Arc::clone(&inputs[0]), RowFlow::Same);
        Ok(Signature::ports(self.0.iter().map(port).collect()))
    }
    fn call<'a>(&'a self, _: Input, _: &'a RunCx) -> Work<'a> {
        Work::Done(Ok(Output::none()))
    }
}

/// A tap that looks away.
struct Blind;

impl Tap for Blind {
    fn observe(&self, _: &millstream_graph::Seen<'_>) {}
}

/// The place in a graph that has, or will have, a step of this name.
fn place(name: &str) -> PortRef {
    Graph::new("elsewhere", fields! {}).step(name, Vec::new(), OutPorts(&["out"]))
}

#[test]
fn names_that_cannot_be_told_apart_are_refused() {
    refused(
        |g| {
            let input = g.input();
            g.step("a", &input, OutPorts(&["out"]));
            let twice = g.step("a", &input, OutPorts(&["out"]));
            g.respond(&twice);
        },
        &expect!["step `a`: there is another step of this name; rename one"],
    );
    refused(
        |g| {
            let input = g.input();
            for name in ["input", "on_error", "", "a.b", "<b>"] {
                g.step(name, &input, OutPorts(&["out"]));
            }
            g.respond(&input);
        },
        &expect![[r#"
            step `input`: a step's name is letters, digits, spaces, `_`, `-` and `/`, and not `input` or `on_error`
            step `on_error`: a step's name is letters, digits, spaces, `_`, `-` and `/`, and not `input` or `on_error`
            step ``: a step's name is letters, digits, spaces, `_`, `-` and `/`, and not `input` or `on_error`
            step `a.b`: a step's name is letters, digits, spaces, `_`, `-` and `/`, and not `input` or `on_error`
            step `<b>`: a step's name is letters, digits, spaces, `_`, `-` and `/`, and not `input` or `on_error`"#]],
    );
}

#[test]
fn an_unknown_input_is_named_with_the_closest_name() {
    let errors = refused(
        |g| {
            let input = g.input();
            g.step("enrich", &input, OutPorts(&["out"]));
            let score = g.step("score", place("enrch"), OutPorts(&["out"]));
            g.respond(&score);
        },
        &expect!["step `score`: no step named `enrch`; did you mean `enrich`?"],
    );
    assert_eq!(errors[0].step(), Some("score"));
    refused(
        |g| {
            let port = place("models");
            g.respond(&port);
        },
        &expect!["step `respond`: no step named `models`; there is `input`"],
    );
    refused(
        |g| {
            let input = g.input();
            g.step("score", &input, OutPorts(&["out"]));
            g.when_failed(&place("scroe"), OnError::Skip);
            g.respond(&input);
        },
        &expect!["step `scroe`: no step `scroe`; did you mean `score`?"],
    );
}

#[test]
fn an_unknown_port_is_named_with_the_closest_name() {
    refused(
        |g| {
            let input = g.input();
            let [left, _] = g.choose("way", &input, ["left", "right"], |_| Ok(vec![]));
            g.step("a", left.port("rigth"), OutPorts(&["out"]));
            g.step("b", left.port("up"), OutPorts(&["out"]));
            g.step("c", input.port("up"), OutPorts(&["out"]));
            g.step("d", input.error(), OutPorts(&["out"]));
            g.respond(&left);
        },
        &expect![[r#"
            step `a`: input `way` has no port `rigth`; did you mean `right`?
            step `b`: input `way` has no port `up`; there is `left`, `right`, `error`
            step `c`: input `input` has no port `up`; there is none
            step `d`: input `input` has no port `error`; there is none"#]],
    );
    refused(
        |g| {
            let input = g.input();
            g.tap(&place("a"), Arc::new(Blind));
            g.tap(&input.port("out"), Arc::new(Blind));
            g.tap(&input, Arc::new(Blind));
            g.respond(&input);
        },
        &expect![[r#"
            a tap observes `a`, but there is no such port
            a tap observes `input.out`, but there is no such port"#]],
    );
}

#[test]
fn out_ports_are_told_apart() {
    refused(
        |g| {
            let input = g.input();
            let twice = g.step("twice", &input, OutPorts(&["a", "b", "a"]));
            g.step("taken", &input, OutPorts(&["error"]));
            g.respond(&twice);
        },
        &expect![[r#"
            step `twice`: port `a` is there twice or has the name of the error port
            step `taken`: port `error` is there twice or has the name of the error port"#]],
    );
}

#[test]
fn a_cycle_is_reported_with_its_path() {
    refused(
        |g| {
            let input = g.input();
            let a = g.merge("a", [&input, &place("c")]);
            let b = g.step("b", &a, OutPorts(&["out"]));
            let c = g.step("c", &b, OutPorts(&["out"]));
            let behind = g.step("behind", &c, OutPorts(&["out"]));
            g.respond(&behind);
        },
        &expect!["steps form a cycle: `a` -> `b` -> `c` -> `a`"],
    );
    refused(
        |g| {
            let own = g.step("own", place("own"), OutPorts(&["out"]));
            g.respond(&own);
        },
        &expect!["steps form a cycle: `own` -> `own`"],
    );
}

#[test]
fn rows_that_do_not_fit_are_refused_with_column_and_types() {
    refused(
        |g| {
            let a = map(g, "a", &g.input(), fields! { id: Int64 });
            let b = map(g, "b", &g.input(), fields! { id: Utf8 });
            let joined = g.join("join", [&a, &b], JoinOn::Keys(vec!["id".into()]));
            g.respond(&joined);
        },
        &expect!["step `join`: key `id` is Int64 on input 0 but Utf8 on input 1"],
    );
    refused(
        |g| {
            let a = map(g, "a", &g.input(), fields! { id: Int64, x: Int64 });
            let b = map(g, "b", &g.input(), fields! { ident: Int64, x: Int64 });
            g.join("unknown", [&a, &b], JoinOn::Keys(vec!["id".into(), "idd".into()]));
            g.join("none", [&a, &b], JoinOn::Keys(vec![]));
            let one = g.join("one", &a, JoinOn::Rows);
            g.respond(&one);
        },
        &expect![[r#"
            step `unknown`: key on input 1: no column `id`; there is `ident`, `x`
            step `unknown`: key on input 0: no column `idd`; did you mean `id`?
            step `unknown`: key on input 1: no column `idd`; there is `ident`, `x`
            step `unknown`: column `x` comes from inputs 0 and 1; rename or drop one
            step `none`: rows need a column to meet on; name a key
            step `none`: column `x` comes from inputs 0 and 1; rename or drop one
            step `one`: takes two inputs or more, not 1"#]],
    );
    refused(
        |g| {
            let a = map(g, "a", &g.input(), fields! { id: Int64, x: Int64 });
            let b = map(g, "b", &g.input(), fields! { id: Int64, x: Utf8 });
            let joined = g.join("join", [&a, &b], JoinOn::Rows);
            g.respond(&joined);
        },
        &expect!["step `join`: column `x` is Int64 on input 0 but Utf8 on input 1; rename one"],
    );
    refused(
        |g| {
            let a = map(g, "a", &g.input(), fields! { id: Int64, x: Int64 });
            let b = map(g, "b", &g.input(), fields! { id: Utf8, y: Int64 });
            let merged = g.merge("merge", [&a, &b]);
            g.respond(&merged);
        },
        &expect![[r#"
            step `merge`: input 1: column `id` is Utf8 where Int64 is wanted
            step `merge`: input 1: no column `x`; did you mean `y`?
            step `merge`: input 1: column `y` is not there on input 0; drop it"#]],
    );
    refused(
        |g| {
            let input = g.input();
            let two = g.filter("two", [&input, &input], |_| Ok(BooleanArray::new_null(0)));
            map(g, "twice", &input, fields! { x: Int64, x: Utf8 });
            g.respond(&two);
        },
        &expect![[r#"
            step `two`: takes one input, not 2
            step `twice`: column `x` would be there twice"#]],
    );
}

#[test]
fn rows_without_a_place_cannot_be_lined_up() {
    let free = |g: &mut Graph, name: &str| {
        let input = g.input();
        g.transform(name, &input, fields! { x: Int64 }, |_| Err(StepError::internal("never called")))
    };
    refused(
        |g| {
            let mixed = free(g, "mixed");
            let behind = map(g, "behind", &mixed, fields! { y: Int64 });
            let joined = g.join("join", [&g.input(), &behind], JoinOn::Rows);
            g.respond(&joined);
        },
        &expect![
            "step `join`: rows of input `behind` no longer know their place in the request, so they cannot be lined up; join them on a key"
        ],
    );
    refused(
        |g| {
            let (a, b) = (free(g, "a"), free(g, "b"));
            let merged = g.merge("merge", [&a, &b]);
            g.respond(&merged);
        },
        &expect![[r#"
            step `merge`: rows of input `a` no longer know their place in the request, so they cannot be lined up; join them on a key
            step `merge`: rows of input `b` no longer know their place in the request, so they cannot be lined up; join them on a key"#]],
    );
}

#[test]
fn a_graph_has_one_reply() {
    refused(
        |g| drop(g.step("a", g.input(), OutPorts(&["out"]))),
        &expect!["no step responds; make one the reply"],
    );
    refused(
        |g| {
            let input = g.input();
            g.respond(&input);
            g.respond_as("again", &input);
        },
        &expect!["2 steps respond (respond, again); merge them into one"],
    );
}

#[test]
fn a_step_that_reads_nothing_is_unreachable() {
    refused(
        |g| {
            g.step("source", Vec::new(), OutPorts(&["out"]));
            g.respond(&g.input());
        },
        &expect![[r#"step `source`: reads nothing, so no row ever reaches it; name its input"#]],
    );
}

#[test]
fn a_step_has_one_policy_for_its_errors() {
    refused(
        |g| {
            let score = g.step("score", g.input(), OutPorts(&["out"]));
            g.when_failed(&score, OnError::Skip);
            g.step("dead", score.error(), OutPorts(&["out"]));
            g.respond(&score);
        },
        &expect!["step `score`: has both a policy for errors and a reader of its error port; keep one"],
    );
}

#[test]
fn default_values_fit_the_columns_they_stand_in_for() {
    let with = |values: serde_json::Value, wanted: &Expect| {
        refused(
            |g| {
                let output = fields! { id: Int64, score: Float64, label: Utf8?, sure: Boolean };
                let score = map(g, "score", &g.input(), output);
                let values = values.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone()));
                g.when_failed(&score, OnError::Default(values.collect()));
                g.respond(&score);
            },
            wanted,
        );
    };
    with(
        json!({}),
        &expect![[r#"
        step `score`: column `score` has no default value
        step `score`: column `sure` has no default value"#]],
    );
    with(
        json!({ "score": "0.5", "sure": 1 }),
        &expect![[r#"
        step `score`: default of column `score` is "0.5", which is no Float64
        step `score`: default of column `sure` is 1, which is no Boolean"#]],
    );
    with(
        json!({ "score": null, "sure": true, "scroe": 1 }),
        &expect![[r#"
        step `score`: no output column `scroe`; did you mean `score`?
        step `score`: default of column `score` is null, which is no Float64"#]],
    );
    with(
        json!({ "score": 1, "sure": [true], "label": 3.5, "id": 1.5 }),
        &expect![[r#"
        step `score`: default of column `id` is 1.5, which is no Int64
        step `score`: default of column `label` is 3.5, which is no Utf8
        step `score`: default of column `sure` is [true], which is no Boolean"#]],
    );
    refused(
        |g| {
            let input = g.input();
            let [left, _] = g.choose("way", &input, ["left", "right"], |_| Ok(vec![]));
            let kept = g.filter("kept", &input, |_| Ok(BooleanArray::new_null(0)));
            for step in [&left, &kept] {
                g.when_failed(step, OnError::Default([].into()));
            }
            g.respond(&kept);
        },
        &expect![[r#"
            step `way`: default values need a step with one out-port
            step `kept`: default values need a step that keeps its rows"#]],
    );
}

#[test]
fn a_column_named_error_is_not_overwritten() {
    refused(
        |g| {
            let odd = map(g, "odd", &g.input(), fields! { error: Utf8 });
            let next = g.step("next", &odd, OutPorts(&["out"]));
            g.step("dead", next.error(), OutPorts(&["out"]));
            g.respond(&next);
        },
        &expect![
            "step `next`: its rows have a column `error`, which its error port would overwrite; rename the column"
        ],
    );
    let mut graph = Graph::new("g", fields! { error: Utf8 });
    graph.step("log", graph.on_error(), OutPorts(&["out"]));
    graph.respond(&graph.input());
    expect!["step `on_error`: its rows have a column `error`, which its error port would overwrite; rename the column"].assert_eq(&graph.compile().unwrap_err().to_string());
    // Nobody reads the error port, so nothing is overwritten.
    let mut graph = Graph::new("g", fields! { error: Utf8 });
    let same = graph.step("same", graph.input(), OutPorts(&["out"]));
    graph.respond(&same);
    assert!(graph.compile().is_ok());
}

#[test]
fn a_graph_that_cannot_be_a_step_is_refused() {
    let mut inner = Graph::new("inner", fields! { id: Int64 });
    let logged = inner.step("log", inner.on_error(), OutPorts(&["out"]));
    let merged = inner.step("same", inner.input(), OutPorts(&["out"]));
    inner.tap(&logged, Arc::new(Blind));
    inner.respond(&merged);
    refused(
        |g| {
            let embedded = g.embed("sub", &g.input(), &inner);
            g.respond(&embedded);
        },
        &expect![
            "step `sub`: graph `inner` handles its own errors and cannot be a step; route its errors outside"
        ],
    );
    let silent = Graph::new("silent", fields! { id: Int64 });
    let mut wants = Graph::new("wants", fields! { id: Utf8, nam: Utf8 });
    wants.respond(&wants.input());
    refused(
        |g| {
            let silent = g.embed("silent", &g.input(), &silent);
            g.embed("wants", &g.input(), &wants);
            g.respond(&silent);
        },
        &expect![[r#"
            step `silent`: graph `silent` has 0 replies where a step needs one
            step `wants/input`: column `id` is Int64 where Utf8 is wanted
            step `wants/input`: no column `nam`; did you mean `name`?"#]],
    );
}

#[test]
fn all_mistakes_are_reported_at_once_and_what_is_behind_them_is_silent() {
    refused(
        |g| {
            let input = g.input();
            let odd = g.step("od d!", &input, OutPorts(&["out"]));
            g.step("score", place("enrch"), OutPorts(&["out"]));
            // Behind a mistake: nothing is known of its rows, so nothing is said.
            g.filter("behind", [&place("enrch"), &place("score")], |_| Ok(BooleanArray::new_null(0)));
            let a = g.step("a", place("b"), OutPorts(&["out"]));
            g.step("b", &a, OutPorts(&["out"]));
            g.merge("merge", [&odd, &map(&mut Graph::new("x", fields! {}), "narrow", &input, fields! {})]);
            map(g, "narrow", &input, fields! { id: Utf8 });
            g.step("reads_nothing", Vec::new(), OutPorts(&["out"]));
            g.tap(&place("nowhere"), Arc::new(Blind));
        },
        &expect![[r#"
            step `od d!`: a step's name is letters, digits, spaces, `_`, `-` and `/`, and not `input` or `on_error`
            step `score`: no step named `enrch`; there is `od d!`, `behind`, `a`, `b`, `merge`, `narrow`, `reads_nothing`, `input`
            step `behind`: no step named `enrch`; there is `od d!`, `score`, `a`, `b`, `merge`, `narrow`, `reads_nothing`, `input`
            step `reads_nothing`: reads nothing, so no row ever reaches it; name its input
            steps form a cycle: `a` -> `b` -> `a`
            no step responds; make one the reply
            step `merge`: input 1: column `id` is Utf8 where Int64 is wanted
            step `merge`: input 1: no column `amount`; there is `id`
            step `merge`: input 1: no column `name`; there is `id`
            a tap observes `nowhere`, but there is no such port"#]],
    );
}

/// A graph with routing, an error edge, a handler and a tail.
fn everything() -> Graph {
    graph_of(|g| {
        let input = g.input();
        let [large, small] = g.choose("size", &input, ["large", "small"], |_| Ok(vec![]));
        let output = || fields! { id: Int64, score: Float64 };
        let large = map(g, "large_model", &large, output());
        let small = map(g, "small_model", &small, output());
        g.when_failed(&small, OnError::Default([("score".to_owned(), json!(0.5))].into()));
        let rescued = map(g, "rescue", &large.error(), output());
        let handled = map(g, "sorry", &g.on_error(), output());
        let merged = g.merge("merge", [&large, &small, &rescued, &handled]);
        g.respond(&merged);
        let audited = g.filter("audited", &merged, |_| Ok(BooleanArray::new_null(0)));
        g.step("audit", &audited, OutPorts(&["out"]));
        g.when_failed(&audited, OnError::Skip);
    })
}

#[test]
fn a_plan_explains_itself() {
    expect![[r#"
        graph `g`
          input: id Int64, amount Float64, name Utf8?
           0 size         choose <- input
                            large: id Int64, amount Float64, name Utf8?
                            small: id Int64, amount Float64, name Utf8?
           1 large_model  map <- size.large
                            out: id Int64, score Float64
           2 small_model  map <- size.small
                            out: id Int64, score Float64
                            when it fails: default values
           3 rescue       map <- large_model.error
                            out: id Int64, score Float64
           4 sorry        map <- on_error  [on error]
                            out: id Int64, score Float64
           5 merge        merge <- large_model, small_model, rescue, sorry
                            out: id Int64, score Float64
           6 respond      respond <- merge
                            out: id Int64, score Float64
           7 audited      filter <- merge  [tail]
                            out: id Int64, score Float64
                            when it fails: skip
           8 audit        step <- audited  [tail]
                            out: id Int64, score Float64
          reply: id Int64, score Float64; requests may share a run"#]]
    .assert_eq(&everything().compile().unwrap().to_string());
}

#[test]
fn a_plan_draws_itself_in_mermaid() {
    expect![[r#"
        flowchart LR
          input([input])
          on_error{{on_error}}
          s0{"size<br/><small>choose</small>"}
          s1["large_model<br/><small>map</small>"]
          s2["small_model<br/><small>map</small>"]
          s3["rescue<br/><small>map</small>"]
          s4["sorry<br/><small>map</small>"]
          s5["merge<br/><small>merge</small>"]
          s6(["respond<br/><small>respond</small>"])
          s7{"audited<br/><small>filter</small>"}
          s8["audit<br/><small>step</small>"]
          input --> s0
          s0 -- large --> s1
          s0 -- small --> s2
          s1 -. error .-> s3
          on_error -.-> s4
          s1 --> s5
          s2 --> s5
          s3 --> s5
          s4 --> s5
          s5 --> s6
          s5 --> s7
          s7 --> s8
          classDef tail stroke-dasharray: 4 4
          class s7,s8 tail
    "#]]
    .assert_eq(&everything().compile().unwrap().mermaid());
}

#[test]
fn an_embedded_graph_becomes_steps_under_its_name() {
    let mut inner = Graph::new("inner", fields! { amount: Float64, id: Int64 });
    let input = inner.input();
    let score = map(&mut inner, "score", &input, fields! { id: Int64, score: Float64 });
    inner.when_failed(&score, OnError::Skip);
    inner.tap(&input, Arc::new(Blind));
    inner.respond(&score);
    let mut middle = Graph::new("middle", fields! { id: Int64, amount: Float64 });
    let once = middle.embed("inner", &middle.input(), &inner);
    middle.respond(&once);
    let plan = graph_of(|g| {
        let first = g.embed("first", &g.input(), &middle);
        let second = g.embed("second", &g.input(), &inner);
        let joined = g.join("join", [&first, &second], JoinOn::Rows);
        g.respond(&joined);
    });
    let plan = plan.compile().unwrap();
    expect![[r#"
        graph `g`
          input: id Int64, amount Float64, name Utf8?
            not read: name
           0 first/input          graph <- input
                                    out: id Int64, amount Float64
           1 first/inner/input    graph <- first/input
                                    out: amount Float64, id Int64
           2 first/inner/score    map <- first/inner/input
                                    out: id Int64, score Float64
                                    when it fails: skip
           3 first/inner/respond  graph <- first/inner/score
                                    out: id Int64, score Float64
           4 first/respond        graph <- first/inner/respond
                                    out: id Int64, score Float64
           5 second/input         graph <- input
                                    out: amount Float64, id Int64
           6 second/score         map <- second/input
                                    out: id Int64, score Float64
                                    when it fails: skip
           7 second/respond       graph <- second/score
                                    out: id Int64, score Float64
           8 join                 join <- first/respond, second/respond
                                    out: id Int64, score Float64
           9 respond              respond <- join
                                    out: id Int64, score Float64
          reply: id Int64, score Float64; requests may share a run"#]]
    .assert_eq(&plan.to_string());
    let tapped = plan.edges().iter().filter(|edge| !edge.taps().is_empty()).count();
    assert_eq!(tapped, 2, "the taps of an embedded graph come with it");
}

#[test]
fn steps_stand_in_topological_order_with_the_tail_last() {
    let plan = graph_of(|g| {
        let input = g.input();
        g.step("aside", &input, OutPorts(&["out"]));
        let late = g.step("late", place("early"), OutPorts(&["out"]));
        g.step("early", &input, OutPorts(&["out"]));
        g.respond(&late);
        g.step("after", place("respond"), OutPorts(&["out"]));
    });
    let plan = plan.compile().unwrap();
    let steps: Vec<_> = plan.steps().iter().map(|step| (&**step.name(), step.phase())).collect();
    let (main, tail) = (Phase::Main, Phase::Tail);
    assert_eq!(steps, [("early", main), ("late", main), ("respond", main), ("aside", tail), ("after", tail)]);
}

/// Compiles a large graph and answers whether it was right. A pass over all pairs of steps shows as a test that drags.
fn compiles(build: impl FnOnce(&mut Graph)) -> bool {
    graph_of(build).compile().is_ok()
}

#[test]
fn large_graphs_compile() {
    let name = |at: usize| format!("a_step_with_a_rather_long_name_{at}");
    assert!(
        compiles(|g| {
            let mut port = g.input();
            for at in 0..10_000 {
                port = g.step(&name(at), &port, OutPorts(&["out"]));
            }
            g.respond(&port);
        }),
        "a chain"
    );
    assert!(
        compiles(|g| {
            let mut port = g.input();
            for at in 0..10_000 {
                port = g.step(&name(at), &port, OutPorts(&["out"]));
                g.when_failed(&port, OnError::Skip);
            }
            g.respond(&port);
        }),
        "a chain of policies"
    );
    assert!(
        compiles(|g| {
            let input = g.input();
            let ports: Vec<_> = (0..5_000).map(|at| g.step(&name(at), &input, OutPorts(&["out"]))).collect();
            let merged = g.merge("merge", ports);
            g.respond(&merged);
        }),
        "a fan-out, merged"
    );
    assert!(
        compiles(|g| {
            let input = g.input();
            let column = |at: usize| fields_of(&format!("column_{at}"));
            let ports: Vec<_> = (0..5_000).map(|at| map(g, &name(at), &input, column(at))).collect();
            let joined = g.join("join", ports, JoinOn::Rows);
            g.respond(&joined);
        }),
        "a fan-out, joined"
    );
    assert!(
        compiles(|g| {
            let input = g.input();
            let names: &'static [&'static str] =
                (0..5_000).map(|at| &*name(at).leak()).collect::<Vec<&'static str>>().leak();
            let wide = g.step("wide", &input, OutPorts(names));
            let ports: Vec<_> = names.iter().map(|name| wide.port(name)).collect();
            let merged = g.merge("merge", ports);
            g.respond(&merged);
        }),
        "many ports"
    );
    assert!(
        !compiles(|g| {
            let mut port = place(&name(9_999));
            for at in 0..10_000 {
                port = g.step(&name(at), &port, OutPorts(&["out"]));
            }
            g.respond(&port);
        }),
        "a long cycle"
    );
    assert!(
        !compiles(|g| {
            let input = g.input();
            for at in 0..5_000 {
                g.filter(&name(at), [&input, &input], |_| Ok(BooleanArray::new_null(0)));
            }
            g.respond(&input);
        }),
        "many mistakes"
    );
}

fn fields_of(name: &str) -> SchemaRef {
    use arrow::datatypes::{DataType, Field, Schema};
    Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, false)]))
}
