//! Columns that nothing reads are left out, and nobody can tell: for any graph and any rows, the plan answers, fails and is seen
//! as one in which every column travels.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::{sync::Arc, time::Instant};

use expect_test::expect;
use millstream::{
    DecodeLimits, Engine, Graph, Input, JoinOn, Limits, OnError, Plan, PortRef, Reply, Request, RunCx,
    RunError, RunId, SchemaError, Seen, Signature, Step, Tap, Work,
    arrow::{
        array::{BooleanArray, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    features::{self, FeatureSet, MemoryStore, MemoryTable},
    fields,
    models::Ensemble,
    rows, run_serially,
    testkit::Record,
    transform,
    wire::json::Decoder,
};
use proptest::{collection::vec, option, prelude::*, sample::Index};
use serde_json::{Value, json};

// ---- What is left out -------------------------------------------------------------------------------------------------------

/// The columns of the request that travel in a graph, in which the reply has only column `reply` of what `build` makes.
fn check(build: impl Fn(&mut Graph, &PortRef) -> PortRef, reply: &str, carried: &str) {
    let mut graph = Graph::new("g", request_schema());
    let input = graph.input();
    let made = build(&mut graph, &input);
    let few = graph.add("reply", "select", (&made).into(), step("select", &json!([reply]), "").unwrap());
    graph.respond(&few);
    let plan = graph.compile().unwrap();
    let names: Vec<_> = plan.carried_schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names.join(" "), carried, "{plan}");
}

fn add(graph: &mut Graph, name: &str, input: &PortRef, kind: &'static str, settings: &Value) -> PortRef {
    graph.add(name, kind, input.into(), step(kind, settings, "").unwrap())
}

#[test]
fn each_kind_of_step_needs_what_it_reads_and_what_is_read_of_what_it_hands_on() {
    let kinds = [
        ("with", json!({ "x": "a + b", "n": "1" }), "id a b n"),
        ("select", json!(["*", "a + b AS x"]), "id a b"),
        ("select", json!(["id", "a"]), "id a"),
        ("filter", json!("a > b"), "id a b"),
        ("when", json!({ "ports": { "first": "s = 'x'" } }), "id s"),
        ("validate", json!({ "columns": { "t": [{ "set": ["x"] }] } }), "id t"),
        ("drop", json!(["a", "s"]), "id"),
        ("rename", json!({ "a": "x" }), "id a"),
        ("impute", json!({ "columns": { "a": { "method": "constant", "value": 0.5 } } }), "id a"),
        ("one_hot", json!({ "columns": { "t": ["x", "y"] } }), "id t"),
        ("ordinal", json!({ "columns": { "t": ["x", "y"] } }), "id t"),
        ("cast", json!({ "columns": { "b": "int64" } }), "id b"),
        ("pack", json!({ "columns": ["b", "n + 1"], "as": "x", "drop": true }), "id b n"),
        ("bucketize", json!({ "columns": { "b": { "edges": [0.0] } } }), "id b"),
        ("map", json!({ "columns": { "t": { "values": { "x": 1 }, "unmapped": "null" } } }), "id t"),
        ("date_parts", json!({ "columns": { "n": ["hour"] } }), "id n"),
        ("enrich", json!({ "set": "users", "by": "key" }), "id key"),
    ];
    for (kind, settings, carried) in kinds {
        check(|graph, input| add(graph, "made", input, kind, &settings), "id", carried);
    }
}

#[test]
fn what_an_error_port_a_tap_a_handler_or_a_closure_reads_travels() {
    let failing = |graph: &mut Graph, input: &PortRef| add(graph, "f", input, "filter", &json!("6 / n > 0"));
    check(failing, "id", "id n");
    let read = |graph: &mut Graph, input: &PortRef| {
        let kept = failing(graph, input);
        add(graph, "log", &kept.error(), "with", &json!({ "x": "upper(t)" }));
        kept
    };
    check(read, "id", "id n t");
    let tapped = |graph: &mut Graph, input: &PortRef| {
        let some = add(graph, "some", input, "select", &json!(["id", "n", "t"]));
        let kept = failing(graph, &some);
        graph.tap(&kept, Arc::new(Watch));
        kept
    };
    check(tapped, "id", "id n t");
    let tapped_in_part = |graph: &mut Graph, input: &PortRef| {
        let some = add(graph, "some", input, "drop", &json!(["a", "b"]));
        let kept = failing(graph, &some);
        graph.tap_columns(&kept, ["t".to_owned()], Arc::new(Watch));
        kept
    };
    check(tapped_in_part, "id", "id n t");
    let handled = |graph: &mut Graph, input: &PortRef| {
        add(graph, "log", &graph.on_error(), "with", &json!({ "x": "upper(t)" }));
        failing(graph, input)
    };
    check(handled, "id", "id n t");
    let opaque = |graph: &mut Graph, input: &PortRef| {
        let some = add(graph, "some", input, "select", &json!(["id", "a", "t"]));
        graph.step("opaque", &some, Opaque)
    };
    check(opaque, "id", "id a t");
    let filled = |graph: &mut Graph, input: &PortRef| {
        let kept = add(graph, "w", input, "with", &json!({ "x": "6 / n" }));
        graph.when_failed(&kept, OnError::Default([("x".to_owned(), json!(0))].into()));
        kept
    };
    check(filled, "x", "id key a b n s t");
}

#[test]
fn branches_that_meet_need_the_same() {
    let ways = |graph: &mut Graph, input: &PortRef| {
        let when = add(graph, "w", input, "when", &json!({ "ports": { "first": "s = 'x'" } }));
        let more = add(graph, "more", &when.port("first"), "with", &json!({ "b": "a + b" }));
        graph.tap(&more, Arc::new(Watch));
        let fewer = add(graph, "fewer", &when.port("otherwise"), "with", &json!({ "b": "b + 1" }));
        graph.merge("merged", [&more, &fewer])
    };
    check(ways, "b", "id key a b n s t");
    let joined = |graph: &mut Graph, input: &PortRef| {
        let left = add(graph, "left", input, "select", &json!(["id", "a", "s"]));
        let right = add(graph, "right", input, "select", &json!(["id", "b", "t"]));
        graph.join("joined", [&left, &right], JoinOn::Keys(vec!["id".to_owned()]))
    };
    check(joined, "b", "id a b s t");
    let best = |graph: &mut Graph, input: &PortRef| {
        let left = graph.step("left", input, transform::With::new().column("x", "a * 2.0"));
        graph.step("best", &left, Ensemble::max("best", ["x", "b"]))
    };
    check(best, "best", "a b");
}

/// A step around a step answers its signature, and is not replaced by it.
#[test]
fn a_layer_is_not_lost() {
    struct Layer(transform::With);
    impl Step for Layer {
        fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
            self.0.signature(inputs)
        }
        fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
            self.0.call(input, cx)
        }
    }
    let layered = |graph: &mut Graph, input: &PortRef| {
        let some = add(graph, "some", input, "select", &json!(["id", "a", "t"]));
        graph.step("layered", &some, Layer(transform::With::new().column("x", "a + 1.0")))
    };
    check(layered, "x", "id a t");
}

#[test]
fn a_plan_says_what_is_not_read() {
    let mut graph = Graph::new("g", fields! { id: Int64, key: Int64, s: Utf8 });
    let input = graph.input();
    let rich = add(&mut graph, "rich", &input, "enrich", &json!({ "set": "users" }));
    let few = add(&mut graph, "few", &rich, "select", &json!(["id", "mean"]));
    graph.respond(&few);
    expect![[r#"
        graph `g`
          input: id Int64, key Int64, s Utf8
            not read: s
           0 rich     enrich <- input
                        out: id Int64, key Int64, s Utf8, mean Float64?, count Int64?, tier Utf8?
                          not read: key, count, tier
           1 few      select <- rich
                        out: id Int64, mean Float64?
           2 respond  respond <- few
                        out: id Int64, mean Float64?
          reply: id Int64, mean Float64?; requests may share a run
    "#]]
    .assert_eq(&format!("{}\n", graph.compile().unwrap()));
}

// ---- Any graph --------------------------------------------------------------------------------------------------------------

fn request_schema() -> SchemaRef {
    let plain = fields! { id: Int64, key: Int64, a: Float64, b: Float64, n: Int64, s: Utf8, t: Utf8 };
    let nullable = |name: &str| ["key", "a", "s"].contains(&name);
    let fields = plain.fields().iter().map(|field| {
        let nullable = nullable(field.name());
        field.as_ref().clone().with_nullable(nullable)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn any_rows() -> impl Strategy<Value = RecordBatch> {
    let float = || prop_oneof![3 => -4.0f64..4.0, 1 => Just(0.0), 1 => Just(f64::NAN)];
    let text = || prop_oneof![Just("x"), Just("y"), Just("z")];
    let row = (option::of(0i64..6), option::of(float()), float(), -2i64..3, option::of(text()), text());
    vec(row, 1..7).prop_map(|rows| {
        let batch = rows! {
            id: (0..rows.len() as i64).collect::<Vec<_>>(),
            key: rows.iter().map(|row| row.0).collect::<Vec<_>>(),
            a: rows.iter().map(|row| row.1).collect::<Vec<_>>(),
            b: rows.iter().map(|row| row.2).collect::<Vec<_>>(),
            n: rows.iter().map(|row| row.3).collect::<Vec<_>>(),
            s: rows.iter().map(|row| row.4).collect::<Vec<_>>(),
            t: rows.iter().map(|row| row.5).collect::<Vec<_>>(),
        };
        RecordBatch::try_new(request_schema(), batch.columns().to_vec()).unwrap()
    })
}

fn store() -> Arc<MemoryStore> {
    let set = FeatureSet::builder("users")
        .key("key", DataType::Int64)
        .feature("mean", DataType::Float64)
        .feature("count", DataType::Int64)
        .feature("tier", DataType::Utf8);
    let rows = rows! {
        key: [0i64, 1, 2, 3],
        mean: [Some(1.5f64), None, Some(-2.0), Some(0.25)],
        count: [Some(3i64), Some(0), None, Some(7)],
        tier: [Some("x"), Some("y"), Some("w"), None],
    };
    let mut store = MemoryStore::new();
    store.insert(MemoryTable::from_batches(set.build().unwrap(), &[rows]).unwrap());
    Arc::new(store)
}

/// One step to be; `a`, `b` and `c` pick columns among those that fit.
#[derive(Clone, Debug)]
struct Verb {
    what: usize,
    from: Index,
    other: Index,
    picks: [Index; 3],
    policy: u8,
    tapped: bool,
    read_errors: bool,
}

fn any_verb() -> impl Strategy<Value = Verb> {
    let picks = [any::<Index>(), any::<Index>(), any::<Index>()];
    (
        0..26usize,
        any::<Index>(),
        any::<Index>(),
        picks,
        0..8u8,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(what, from, other, picks, policy, tapped, read_errors)| Verb {
            what,
            from,
            other,
            picks,
            policy,
            tapped,
            read_errors,
        })
}

/// A step by its kind and settings, whose new columns end in `name`.
fn step(kind: &str, settings: &Value, name: &str) -> Option<Arc<dyn Step>> {
    let text = settings.to_string().replace('#', name);
    let kinds = [transform::kinds(), features::kinds(store())].concat();
    let kind = kinds.iter().find(|known| known.name() == kind)?;
    kind.build(&serde_json::from_str(&text).unwrap()).ok()
}

/// The step of a verb for rows of `schema`.
fn step_of(verb: &Verb, name: &str, schema: &Schema) -> Option<Arc<dyn Step>> {
    let pick = |wanted: &[DataType], at: usize| {
        let fields: Vec<_> =
            schema.fields().iter().filter(|field| wanted.contains(field.data_type())).collect();
        (!fields.is_empty()).then(|| fields[verb.picks[at].index(fields.len())].name().clone())
    };
    let float = |at| pick(&[DataType::Float64], at);
    let int = |at| pick(&[DataType::Int64], at);
    let text = |at| pick(&[DataType::Utf8], at);
    let any = |at| pick(&[DataType::Float64, DataType::Int64, DataType::Utf8], at);
    let (kind, settings) = match verb.what {
        0 | 1 => ("with", json!({ "f#": format!("{} / ({} + 1.0)", float(0)?, float(1)?) })),
        2 => {
            ("with", json!({ "i#": format!("{} / {}", int(0)?, int(1)?), "j#": format!("i# + {}", int(2)?) }))
        }
        3 => (
            "with",
            json!({ float(0)?: format!("{} * 2.0", float(1)?), "k#": format!("{} - 1.0", float(0)?) }),
        ),
        4 => ("select", json!(["*", format!("{} + 1.0 AS g#", float(0)?)])),
        5 => {
            let (first, second) = (any(0)?, any(1)?);
            let mut items = vec![format!("{first} AS u#"), format!("{} * 0.5 AS h#", float(2)?)];
            items.extend((first != second).then_some(second));
            ("select", json!(items))
        }
        6 => ("filter", json!(format!("{} > 0.0", float(0)?))),
        7 => ("filter", json!(format!("6 / {} > 0 AND {} <> 'x'", int(0)?, text(1)?))),
        8 => ("when", json!({ "ports": { "first": format!("{} = 'x'", text(0)?) } })),
        9 => ("validate", json!({ "columns": { text(0)?: [{ "set": ["x", "y"] }, "not_null"] } })),
        10 => ("drop", json!([any(0)?])),
        11 => ("rename", json!({ any(0)?: "r#" })),
        12 => ("impute", json!({ "columns": { float(0)?: { "method": "constant", "value": 0.5 } } })),
        13 => {
            ("one_hot", json!({ "columns": { text(0)?: ["x", "y"] }, "keep": verb.policy.is_multiple_of(2) }))
        }
        14 => ("ordinal", json!({ "columns": { text(0)?: ["x", "y"] } })),
        15 => ("cast", json!({ "columns": { float(0)?: "int64" } })),
        16 => (
            "pack",
            json!({ "columns": [float(0)?, format!("{} + 1.0", float(1)?), int(2)?], "as": "p#", "drop": verb.policy.is_multiple_of(2) }),
        ),
        17 => ("bucketize", json!({ "columns": { float(0)?: { "edges": [0.0, 1.0] } } })),
        18 => (
            "map",
            json!({ "columns": { text(0)?: { "values": { "x": "xx" }, "unmapped": "keep", "to": "m#" } } }),
        ),
        19 => ("date_parts", json!({ "columns": { int(0)?: ["hour", "is_weekend"] } })),
        20 => ("enrich", json!({ "set": "users", "by": int(0)?, "prefix": "e#_", "missing": "null" })),
        21 => {
            let policies = json!({ "mean": { "nulls": "fail" }, "tier": { "missing": { "default": "w" } } });
            ("enrich", json!({ "set": "users", "by": int(0)?, "prefix": "e#_", "policies": policies }))
        }
        22 => {
            let members = [float(0)?, float(1)?];
            return (members[0] != members[1])
                .then(|| Arc::new(Ensemble::max(format!("best{name}"), members)) as _);
        }
        // A step that says nothing of what it reads.
        23 => return Some(Arc::new(Opaque)),
        _ => return None,
    };
    step(kind, &settings, name)
}

/// Hands its rows on, and does not say that it reads none of them.
struct Opaque;

impl Step for Opaque {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(Arc::clone(&inputs[0])))
    }
    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).map(millstream::Output::one))
    }
}

/// Sees every edge, so that every column is read.
struct Watch;

impl Tap for Watch {
    fn observe(&self, _: &Seen<'_>) {}
}

/// A graph that grows as long as it compiles.
struct Growing {
    graph: Graph,
    ports: Vec<(PortRef, SchemaRef)>,
    record: Record,
}

impl Growing {
    fn new(verbs: &[Verb], reply: &Index) -> Self {
        let graph = Graph::new("any", request_schema());
        let ports = vec![(graph.input(), request_schema())];
        let mut growing = Self { graph, ports, record: Record::default() };
        for (at, verb) in verbs.iter().enumerate() {
            growing.grow(verb, &at.to_string());
        }
        // Mostly a few columns of what was made last; what is not asked for is what can be left out.
        let (from, schema) = growing.recent(reply).clone();
        let columns = schema.fields().len();
        let names = [reply.index(columns), reply.index(columns + 1) % columns]
            .map(|at| json!(schema.field(at).name()));
        let few = step("select", &json!(names[..1 + usize::from(names[0] != names[1])]), "").unwrap();
        let reply = match reply.index(7) {
            0 => from,
            _ => growing.graph.add("reply", "select", (&from).into(), few),
        };
        growing.graph.respond(&reply);
        growing
    }

    /// One of all ports, but mostly one of the last.
    fn recent(&self, index: &Index) -> &(PortRef, SchemaRef) {
        let few = if index.index(4) == 0 { self.ports.len() } else { self.ports.len().min(3) };
        &self.ports[self.ports.len() - few..][index.index(few)]
    }

    fn grow(&mut self, verb: &Verb, name: &str) {
        let ((from, schema), (other, _)) = (self.recent(&verb.from), self.recent(&verb.other));
        // Rows that failed before have a column `error` already.
        let reads_errors = verb.read_errors && schema.index_of("error").is_err();
        let mut graph = self.graph.clone();
        let named = format!("s{name}");
        let port = match verb.what {
            24 => graph.merge(&named, [from, other]),
            25 if verb.policy < 3 => graph.join(&named, [from, other], JoinOn::Keys(vec!["id".to_owned()])),
            25 => graph.join(&named, [from, other], JoinOn::Rows),
            23 if verb.policy < 3 => graph.filter(&named, from, |batch: &RecordBatch| {
                Ok(BooleanArray::from((0..batch.num_rows()).map(|row| row % 3 != 1).collect::<Vec<_>>()))
            }),
            _ => match step_of(verb, name, schema) {
                Some(step) => graph.add(&named, "step", from.into(), step),
                None => return,
            },
        };
        match verb.policy {
            6 if !verb.read_errors => graph.when_failed(&port, OnError::Skip),
            7 if !verb.read_errors => graph.when_failed(&port, OnError::Default(Default::default())),
            _ => {}
        }
        if verb.tapped {
            graph.tap(&port, Arc::new(self.record.clone()));
        }
        let mut whole = watched(&graph, &self.ports);
        whole.respond(&port);
        let Ok(plan) = whole.compile() else { return };
        let made = &plan.steps()[plan.step_named(&named).unwrap().index()];
        for out in made.outputs() {
            self.ports.push((port.port(out.name()), Arc::clone(out.schema())));
        }
        if reads_errors {
            self.ports.push((port.error(), Arc::clone(made.error().schema())));
        }
        self.graph = graph;
    }

    fn plan(&self) -> Plan {
        self.graph.compile().unwrap()
    }

    /// The same graph, in which every column is read.
    fn whole(&self) -> Plan {
        watched(&self.graph, &self.ports).compile().unwrap()
    }
}

fn watched(graph: &Graph, ports: &[(PortRef, SchemaRef)]) -> Graph {
    tapped(graph, ports, &(Arc::new(Watch) as Arc<dyn Tap>))
}

fn tapped(graph: &Graph, ports: &[(PortRef, SchemaRef)], tap: &Arc<dyn Tap>) -> Graph {
    let mut graph = graph.clone();
    for (port, _) in ports {
        graph.tap(port, Arc::clone(tap));
    }
    graph
}

/// What a caller and the taps see of one run.
fn told(plan: &Plan, record: &Record, run: u64, result: &Result<Reply, RunError>) -> (String, Vec<String>) {
    let said = match result {
        Ok(reply) => {
            assert_eq!(reply.rows().schema(), *plan.reply_schema());
            let degraded: Vec<_> =
                reply.degraded().iter().map(|d| format!("{}: {}", d.step, d.reason)).collect();
            let places: Vec<_> = (0..reply.rows().num_rows()).map(|row| reply.place(row)).collect();
            format!(
                "{:?} {:?} {degraded:?} {places:?}",
                reply.rows().schema().fields(),
                reply.rows().columns()
            )
        }
        Err(error) => format!("{:?} {error:?}", error.kind()),
    };
    let seen = record.seen().into_iter().filter(|(_, by, _)| *by == RunId(run));
    let mut seen: Vec<_> =
        seen.map(|(at, _, batch)| format!("{}: {:?}", plan.edge_name(at), batch)).collect();
    seen.sort();
    (said.replace(&format!("RunId({run})"), "run"), seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").map_or(128, |cases| cases.parse().unwrap()), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_without_unread_columns_answers_as_the_whole_one(
        verbs in vec(any_verb(), 1..10), reply in any::<Index>(), rows in any_rows(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let growing = Growing::new(&verbs, &reply);
        let (whole, narrowed) = (growing.whole(), growing.plan());
        prop_assert_eq!(whole.input_schema(), narrowed.input_schema());
        prop_assert_eq!(whole.reply_schema(), narrowed.reply_schema());
        let engine = Engine::new(growing.plan(), Limits { compute_threads: 0, ..Limits::default() }).unwrap();
        let tell = |plan: &Plan, run: u64| {
            let cx = RunCx::new(RunId(run), Request::default(), rows.num_rows(), Instant::now);
            let result = runtime.block_on(run_serially(plan, &cx, rows.clone()));
            told(plan, &growing.record, run, &result)
        };
        let wanted = tell(&whole, 1 << 40);
        prop_assert_eq!(&wanted, &tell(&narrowed, 1 << 41), "{}", narrowed);
        let result = runtime.block_on(engine.run(rows.clone()));
        let run = result.as_ref().map_or(1, |reply| reply.run().0);
        let (said, _) = told(engine.plan(), &growing.record, run, &result);
        prop_assert_eq!(&wanted.0, &said, "{}", narrowed);
    }

    #[test]
    fn a_column_that_came_from_a_port_before_has_the_rows_that_it_had_there(
        verbs in vec(any_verb(), 1..10), reply in any::<Index>(), rows in any_rows(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (growing, record) = (Growing::new(&verbs, &reply), Record::default());
        let plan = tapped(&growing.graph, &growing.ports, &(Arc::new(record.clone()) as Arc<dyn Tap>));
        let plan = plan.compile().unwrap();
        let cx = RunCx::new(RunId(1), Request::default(), rows.num_rows(), Instant::now);
        if runtime.block_on(run_serially(&plan, &cx, rows)).is_err() {
            return Ok(());
        }
        let seen = record.seen();
        for (edge, _, here) in &seen {
            for (field, column) in here.schema().fields().iter().zip(here.columns()) {
                let Some(before) = plan.came_from(plan.edges()[edge.index()].from(), field.name()) else { continue };
                let there = seen.iter().find(|(edge, ..)| plan.edges()[edge.index()].from() == before);
                let (.., there) = there.unwrap_or_else(|| panic!("{plan}"));
                prop_assert_eq!(column, &there[&**field.name()], "{} of {}", field.name(), plan.edge_name(*edge));
            }
        }
    }

    #[test]
    fn a_tap_sees_the_columns_that_it_asks_for_whatever_else_is_left_out(
        verbs in vec(any_verb(), 1..8), reply in any::<Index>(), pick in any::<Index>(), rows in any_rows(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let growing = Growing::new(&verbs, &reply);
        let (port, schema) = growing.recent(&pick).clone();
        let column = schema.field(pick.index(schema.fields().len())).name().clone();
        let told = |graph: &Graph, columns: Option<&String>| {
            let (mut graph, record) = (graph.clone(), Record::default());
            match columns {
                Some(column) => graph.tap_columns(&port, [column.clone()], Arc::new(record.clone())),
                None => graph.tap(&port, Arc::new(record.clone())),
            }
            let cx = RunCx::new(RunId(1), Request::default(), rows.num_rows(), Instant::now);
            let result = runtime.block_on(run_serially(&graph.compile().unwrap(), &cx, rows.clone()));
            // Who asks for columns sees one edge of the port, its first.
            let seen = record.seen();
            let first = seen.iter().map(|(edge, ..)| *edge).min();
            let seen = seen.iter().filter(|(edge, ..)| Some(*edge) == first);
            (result.is_ok(), seen.map(|(.., batch)| batch[&*column].to_data()).collect::<Vec<_>>())
        };
        prop_assert_eq!(told(&growing.graph, Some(&column)), told(&growing.graph, None));
    }
}

#[test]
fn a_tap_that_asks_for_columns_sees_what_leaves_a_port_once_however_many_steps_read_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let seen = |columns: Option<&[&str]>| {
        let (mut graph, record) = (Graph::new("g", fields! { id: Int64, a: Float64 }), Record::default());
        let input = graph.input();
        let made: Vec<PortRef> = ["x", "y", "z"]
            .iter()
            .map(|name| add(&mut graph, name, &input, "select", &json!([format!("a AS {name}")])))
            .collect();
        graph.respond(&made[2]);
        let tap = Arc::new(record.clone());
        match columns {
            Some(columns) => graph.tap_columns(&input, columns.iter().map(|name| (*name).to_owned()), tap),
            None => graph.tap(&input, tap),
        }
        let cx = RunCx::new(RunId(1), Request::default(), 2, Instant::now);
        let rows = rows! { id: [1_i64, 2], a: [0.5, 1.5] };
        runtime.block_on(run_serially(&graph.compile().unwrap(), &cx, rows)).unwrap();
        record.seen().len()
    };
    for (columns, times) in [(None, 3), (Some(&["a"][..]), 1), (Some(&[][..]), 1)] {
        assert_eq!(seen(columns), times, "{columns:?}");
    }
}

#[test]
fn a_column_passes_a_step_that_does_not_make_it_anew_where_nobody_takes_rows_that_fail() {
    // The ports at which `s` was before it came to the reply of these steps, the last first.
    let came = |build: &dyn Fn(&mut Graph, &PortRef) -> PortRef| {
        let mut graph = Graph::new("g", request_schema());
        let input = graph.input();
        let made = build(&mut graph, &input);
        graph.respond(&made);
        let plan = graph.compile().unwrap();
        let respond = &plan.steps()[plan.step_named("respond").unwrap().index()];
        let mut at = plan.edges()[respond.in_edges()[0].index()].from();
        let mut hops = 0;
        while let Some(before) = plan.came_from(at, "s") {
            (at, hops) = (before, hops + 1);
        }
        hops
    };
    let kinds = [
        ("with", json!({ "x": "a + b" }), 1),
        ("with", json!({ "x": "upper(s)" }), 1),
        ("with", json!({ "s": "upper(t)" }), 0),
        ("select", json!(["a", "s"]), 1),
        ("select", json!(["a", "t AS s"]), 0),
        ("validate", json!({ "columns": { "s": [{ "set": ["x"] }] } }), 1),
        ("map", json!({ "columns": { "s": { "values": { "x": "y" }, "unmapped": "keep" } } }), 0),
        ("filter", json!("a > b"), 0),
        ("drop", json!(["a"]), 1),
        ("enrich", json!({ "set": "users", "by": "key" }), 1),
        ("rename", json!({ "s": "t", "t": "s" }), 0),
    ];
    for (kind, settings, hops) in kinds {
        let step = |graph: &mut Graph, input: &PortRef| add(graph, "made", input, kind, &settings);
        assert_eq!(came(&step), hops, "{kind} {settings}");
        let twice = |graph: &mut Graph, input: &PortRef| {
            let with = add(graph, "first", input, "with", &json!({ "y": "n + 1" }));
            add(graph, "made", &with, kind, &settings)
        };
        assert_eq!(came(&twice), if hops == 0 { 0 } else { 2 }, "{kind} {settings}");
    }
    let bad_rows_leave = |graph: &mut Graph, input: &PortRef| {
        let checked =
            add(graph, "checked", input, "validate", &json!({ "columns": { "t": [{ "set": ["x"] }] } }));
        add(graph, "log", &checked.error(), "with", &json!({ "x": "upper(t)" }));
        checked
    };
    assert_eq!(came(&bad_rows_leave), 0);
    let bad_rows_vanish = |graph: &mut Graph, input: &PortRef| {
        let made = add(graph, "made", input, "with", &json!({ "x": "6 / n" }));
        graph.when_failed(&made, OnError::Skip);
        made
    };
    assert_eq!(came(&bad_rows_vanish), 0);
    assert_eq!(came(&|graph: &mut Graph, input: &PortRef| graph.step("opaque", input, Opaque)), 0);
}

#[test]
fn a_tap_of_a_column_that_is_not_there_is_refused() {
    let mut graph = Graph::new("g", request_schema());
    let input = graph.input();
    graph.tap_columns(&input, ["id".to_owned(), "kay".to_owned()], Arc::new(Watch));
    graph.respond(&input);
    let error = graph.compile().unwrap_err().to_string();
    assert_eq!(error, "a tap of `input`: no column `kay`; did you mean `key`?");
}

// ---- Bodies -----------------------------------------------------------------------------------------------------------------

/// A body is refused for what is wrong in a column that nothing reads, and otherwise has only the others.
#[test]
fn a_body_is_checked_whole_and_carried_in_part() {
    let plain = fields! { a: Float64, n: Int8, s: Utf8 };
    let list = Field::new("list", DataType::new_list(DataType::Int64, false), false);
    let schema = Arc::new(Schema::new([plain.fields().to_vec(), vec![Arc::new(list)]].concat()));
    let carried = fields! { n: Int8 };
    let whole = Decoder::new(Arc::clone(&schema), DecodeLimits::default()).unwrap();
    let part = Decoder::new(schema, DecodeLimits::default()).unwrap().carrying(&carried);
    for body in [
        r#"{"a": 1.5, "n": 3, "s": "x", "list": [1, 2]}"#,
        r#"[{"n": 3, "a": 1, "list": [], "s": ""}, {"a": 1.5, "n": 4, "s": "y", "list": [7]}]"#,
        r#"{"a": "1.5", "n": 3, "s": "x", "list": [1]}"#,
        r#"{"a": 1e999, "n": 3, "s": "x", "list": [1]}"#,
        r#"{"a": 1.5, "n": 3, "list": [1]}"#,
        r#"{"a": 1.5, "n": 3, "s": "x", "list": [1, "2"]}"#,
        r#"{"a": 1.5, "n": 3, "s": "x", "s": "y", "list": []}"#,
        r#"{"a": 1.5, "n": 300, "s": "x", "list": []}"#,
    ] {
        match (whole.decode(body.as_bytes()), part.decode(body.as_bytes())) {
            (Ok(whole), Ok(part)) => {
                assert_eq!(part.batch.schema(), carried);
                assert_eq!(part.batch.column(0), whole.batch.column_by_name("n").unwrap());
            }
            (Err(whole), Err(part)) => assert_eq!(whole.to_string(), part.to_string(), "{body}"),
            (whole, part) => panic!("{body}: {whole:?}, but {part:?}"),
        }
    }
}
