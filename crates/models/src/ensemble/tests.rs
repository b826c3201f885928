use std::time::Instant;

use arrow::{
    array::{AsArray, Float32Array, Float64Array, Int8Array, Int64Array, StringArray, UInt64Array},
    datatypes::{Float64Type, Int64Type},
};
use expect_test::{Expect, expect};
use millstream_graph::{Origin, Request, RunId};
use smallvec::SmallVec;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

fn f64s(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn whole(batch: RecordBatch) -> Token {
    Token::Rows(Rows::whole(batch))
}

/// What came out: the result column, where its rows stood, the failures, and what was degraded.
struct Outcome {
    column: Option<ArrayRef>,
    origin: Option<Origin>,
    failed: Vec<String>,
    degraded: String,
}

fn run(ensemble: &Ensemble, schemas: &[SchemaRef], tokens: Vec<Token>) -> Result<Outcome, StepError> {
    ensemble.signature(schemas).unwrap_or_else(|error| panic!("{error}"));
    let cx = RunCx::new(RunId(0), Request::default(), 1, Instant::now);
    let result = match ensemble.call(Input::new(SmallVec::from_vec(tokens)), &cx) {
        Work::Done(result) => result,
        Work::Compute(job) => job(),
        Work::Io(_) => panic!("an ensemble does not wait"),
    };
    let (mut ports, failed, degraded) = result?.into_parts();
    let rows = ports.pop().map(|(_, rows)| rows);
    Ok(Outcome {
        origin: rows.as_ref().map(|rows| rows.origin().clone()),
        column: rows.map(|rows| Arc::clone(rows.batch().columns().last().unwrap())),
        failed: failed.map(|failed| failed.messages).unwrap_or_default(),
        degraded: degraded.map(String::from).unwrap_or_default(),
    })
}

fn run_one(ensemble: &Ensemble, batch: RecordBatch) -> Outcome {
    run(ensemble, &[batch.schema()], vec![whole(batch)]).unwrap_or_else(|error| panic!("{error}"))
}

fn numbers(outcome: &Outcome) -> Vec<f64> {
    outcome
        .column
        .as_ref()
        .map(|column| column.as_primitive::<Float64Type>().values().to_vec())
        .unwrap_or_default()
}

fn three(a: &[Option<f64>], b: &[Option<f64>], c: &[Option<f64>]) -> RecordBatch {
    batch(vec![("a", f64s(a)), ("b", f64s(b)), ("c", f64s(c))])
}

fn blend() -> Ensemble {
    Ensemble::weighted_mean("score", [("a", 0.5), ("b", 0.2), ("c", 0.3)])
}

#[test]
fn a_weighted_mean_is_the_sum_written_out() {
    let (a, b, c) = (0.017_671_025_682_320_07, 0.032_752_111_554_145_81, 0.060_135_640_203_952_79);
    let rows = three(&[Some(a), Some(1.0)], &[Some(b), Some(1.0)], &[Some(c), Some(1.0)]);
    let outcome = run_one(&blend(), rows.clone());
    assert_eq!(numbers(&outcome)[0].to_bits(), (0.5 * a + 0.2 * b + 0.3 * c).to_bits());
    assert_eq!((outcome.failed.len(), outcome.degraded.as_str()), (0, ""));
    // Weights are scaled to a sum of 1, whatever sum they were given with.
    for weights in [[1.0, 1.0, 1.0], [7.0, 7.0, 7.0], [1e-3, 1e-3, 1e-3]] {
        let mean = Ensemble::weighted_mean("score", ["a", "b", "c"].into_iter().zip(weights));
        assert!((numbers(&run_one(&mean, rows.clone()))[1] - 1.0).abs() < 1e-15);
    }
    // 32-bit scores are widened, whole numbers too.
    let mixed = batch(vec![
        ("a", Arc::new(Float32Array::from(vec![0.25]))),
        ("b", Arc::new(Int8Array::from(vec![2]))),
        ("c", f64s(&[Some(4.0)])),
    ]);
    assert_eq!(numbers(&run_one(&blend(), mixed)), [0.5 * 0.25 + 0.2 * 2.0 + 0.3 * 4.0]);
}

#[test]
fn a_missing_member_is_dealt_with_as_declared() {
    let rows =
        || three(&[Some(1.0), Some(1.0), None], &[Some(2.0), None, None], &[Some(3.0), Some(3.0), None]);
    let failing = run_one(&blend(), rows());
    assert_eq!(numbers(&failing), [0.5 + 0.2 * 2.0 + 0.3 * 3.0]);
    assert_eq!(failing.failed, ["member `b` is missing", "member `a` is missing"]);
    assert_eq!(failing.degraded, "");

    let renormalised = run_one(&blend().missing(Missing::Renormalise), rows());
    assert_eq!(numbers(&renormalised), [0.5 + 0.2 * 2.0 + 0.3 * 3.0, (0.5 + 0.3 * 3.0) / (0.5 + 0.3)]);
    assert_eq!(renormalised.failed, ["every member is missing"]);
    assert_eq!(renormalised.degraded, "member `b` left out for 1 of 2 rows");

    let replaced = run_one(&blend().missing(Missing::Replace(0.5.into())), rows());
    let wanted =
        [0.5 + 0.2 * 2.0 + 0.3 * 3.0, 0.5 + 0.2 * 0.5 + 0.3 * 3.0, 0.5 * 0.5 + 0.2 * 0.5 + 0.3 * 0.5];
    assert_eq!(numbers(&replaced), wanted);
    expect!["member `a` replaced by 0.5 for 1 of 3 rows; member `b` replaced by 0.5 for 2 of 3 rows; member `c` replaced by 0.5 for 1 of 3 rows"]
        .assert_eq(&replaced.degraded);

    // What is left may have no weight at all.
    let lopsided = Ensemble::weighted_mean("score", [("a", 0.0), ("b", 1.0)]).missing(Missing::Renormalise);
    let outcome = run_one(&lopsided, three(&[Some(1.0)], &[None], &[None]));
    assert_eq!(
        (numbers(&outcome), outcome.failed),
        (vec![], vec!["the members that are left have no weight".to_owned()])
    );
}

#[test]
fn a_vote_goes_to_the_most_weight_and_draws_to_the_lowest_class() {
    let vote = |weights: [f64; 3], classes: [i64; 3]| {
        let column = |class: i64| Arc::new(Int64Array::from(vec![class])) as ArrayRef;
        let rows =
            batch(vec![("a", column(classes[0])), ("b", column(classes[1])), ("c", column(classes[2]))]);
        let outcome =
            run_one(&Ensemble::majority_vote("class", ["a", "b", "c"].into_iter().zip(weights)), rows);
        outcome.column.unwrap().as_primitive::<Int64Type>().value(0)
    };
    assert_eq!(vote([1.0, 1.0, 1.0], [4, 9, 9]), 9);
    assert_eq!(vote([1.0, 1.0, 1.0], [4, -9, 2]), -9);
    assert_eq!(vote([0.6, 0.2, 0.2], [4, 9, 9]), 4);
    // 0.1 + 0.2 against 0.3 is a draw, although the sum of the first two is a bit larger.
    assert_eq!(vote([0.1, 0.2, 0.3], [9, 9, 4]), 4);
    assert_eq!(vote([0.1, 0.2, 0.3], [4, 4, 9]), 4);

    let text = |text: &str| Arc::new(StringArray::from(vec![Some(text), None])) as ArrayRef;
    let rows = || batch(vec![("a", text("no")), ("b", text("yes")), ("c", text("no"))]);
    let vote = || Ensemble::majority_vote("class", [("a", 1.0), ("b", 3.0), ("c", 1.0)]);
    let outcome = run_one(&vote().missing(Missing::Replace("maybe".into())), rows());
    assert_eq!(
        outcome.column.unwrap().as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("yes"), Some("maybe")]
    );
    assert_eq!(run_one(&vote(), rows()).failed, ["member `a` is missing"]);
}

#[test]
fn the_largest_and_what_a_closure_says() {
    let rows = || three(&[Some(0.1), Some(f64::NAN)], &[Some(0.7), Some(0.2)], &[None, Some(0.9)]);
    let largest = run_one(&Ensemble::max("score", ["a", "b", "c"]).missing(Missing::Renormalise), rows());
    assert_eq!(numbers(&largest)[0], 0.7);
    assert!(numbers(&largest)[1].is_nan());
    assert_eq!(largest.degraded, "member `c` left out for 1 of 2 rows");

    let count = Ensemble::with("score", ["a", "b", "c"], |members| members.iter().flatten().count() as f64);
    assert_eq!(numbers(&run_one(&count.missing(Missing::Renormalise), rows())), [2.0, 3.0]);
    let product = Ensemble::with("score", ["a", "b"], |members| members.iter().flatten().product());
    assert_eq!(numbers(&run_one(&product, rows()))[0], 0.1 * 0.7);
}

/// Three branches of one request: `x` is carried along, and each brings a score.
fn branches(rows: usize) -> [RecordBatch; 3] {
    let x: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    ["a", "b", "c"].map(|name| {
        let score: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64)));
        batch(vec![("x", Arc::clone(&x)), (name, score)])
    })
}

fn schemas(branches: &[RecordBatch]) -> Vec<SchemaRef> {
    branches.iter().map(RecordBatch::schema).collect()
}

#[test]
fn branches_are_brought_together() {
    let branches = branches(3);
    let ensemble = blend();
    let signature = ensemble.signature(&schemas(&branches)).unwrap();
    let names: Vec<_> =
        signature.outputs[0].schema.fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["x", "a", "b", "c", "score"]);
    assert_eq!(signature.outputs[0].flow, RowFlow::Merged);
    let outcome = run(&blend(), &schemas(&branches), branches.iter().cloned().map(whole).collect()).unwrap();
    assert_eq!(numbers(&outcome), [0.0, 1.0, 2.0]);
    assert_eq!(outcome.origin, Some(Origin::Whole));
}

#[test]
fn a_skipped_branch_is_a_missing_member() {
    let branches = branches(2);
    let tokens = || vec![whole(branches[0].clone()), Token::Skip, whole(branches[2].clone())];
    let outcome = run(&blend().missing(Missing::Renormalise), &schemas(&branches), tokens()).unwrap();
    assert_eq!(outcome.degraded, "member `b` left out");
    assert!((numbers(&outcome)[1] - 1.0).abs() < 1e-15);
    let failing = run(&blend(), &schemas(&branches), tokens()).unwrap();
    assert_eq!(failing.failed, ["member `b` is missing", "member `b` is missing"]);
    // Without in-port 0 there is no row to fail as: the run fails.
    let tokens = vec![Token::Skip, whole(branches[1].clone()), whole(branches[2].clone())];
    let error = run(&blend(), &schemas(&branches), tokens).err().unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "member `a` is missing"));
}

#[test]
fn rows_are_matched_by_where_they_stood_in_the_request() {
    let branches = branches(4);
    let pick =
        |branch: &RecordBatch, rows: &[u32]| Token::Rows(Rows::whole(branch.clone()).take(rows).unwrap());
    let tokens =
        vec![pick(&branches[0], &[3, 1]), pick(&branches[1], &[1, 2, 3]), pick(&branches[2], &[3, 2, 1])];
    let ensemble = blend().missing(Missing::Renormalise);
    let outcome = run(&ensemble, &schemas(&branches), tokens).unwrap();
    assert_eq!(outcome.origin, Some(Origin::Picked(vec![1, 2, 3].into())));
    for (got, wanted) in numbers(&outcome).iter().zip([1.0, 2.0, 3.0]) {
        assert!((got - wanted).abs() < 1e-15, "{got} is not {wanted}");
    }
    assert_eq!(outcome.degraded, "member `a` left out for 1 of 3 rows");

    // Turned round alike on every branch, they still leave in the order of the request.
    let turned = branches.iter().map(|branch| pick(branch, &[2, 0])).collect();
    let outcome = run(&blend(), &schemas(&branches), turned).unwrap();
    assert_eq!(outcome.origin, Some(Origin::Picked(vec![0, 2].into())));
    assert_eq!(numbers(&outcome), [0.0, 2.0]);

    let free = |branch: &RecordBatch| Token::Rows(Rows::free(branch.slice(0, 3)));
    let lost = vec![whole(branches[0].clone()), free(&branches[1]), whole(branches[2].clone())];
    let error = run(&blend(), &schemas(&branches), lost).err().unwrap();
    assert_eq!(error.message(), "a branch's rows no longer know which rows of the request they are");
}

#[test]
fn a_column_that_differs_between_branches_is_no_carried_column() {
    let mut branches = branches(2);
    // Equal values in other memory are the same column.
    branches[1] =
        batch(vec![("x", Arc::new(Int64Array::from(vec![0, 1]))), ("b", f64s(&[Some(0.0), Some(1.0)]))]);
    let all = |branches: &[RecordBatch]| branches.iter().cloned().map(whole).collect::<Vec<_>>();
    assert_eq!(numbers(&run(&blend(), &schemas(&branches), all(&branches)).unwrap()), [0.0, 1.0]);
    branches[1] =
        batch(vec![("x", Arc::new(Int64Array::from(vec![0, 9]))), ("b", f64s(&[Some(0.0), Some(1.0)]))]);
    let wanted = "column `x` comes from several branches with different values; rename it in all but one";
    let error = run(&blend(), &schemas(&branches), all(&branches)).err().unwrap();
    assert_eq!(error.message(), wanted);
    let mut tokens = all(&branches);
    tokens[0] = Token::Rows(Rows::whole(branches[0].clone()).take(&[1]).unwrap());
    assert_eq!(run(&blend(), &schemas(&branches), tokens).err().unwrap().message(), wanted);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let rows = batch(vec![
        ("a", f64s(&[Some(1.0)])),
        ("b", Arc::new(StringArray::from(vec!["x"]))),
        ("u", Arc::new(UInt64Array::from(vec![1]))),
    ]);
    let check = |ensemble: Ensemble, wanted: Expect| {
        wanted.assert_eq(&ensemble.signature(&[rows.schema()]).unwrap_err().problems().join("\n"));
    };
    check(
        Ensemble::weighted_mean("score", [("a", f64::NAN), ("A", -1.0), ("a", 1.0)]),
        expect![[r#"
        the weight of member `a` is NaN; it must be finite and not negative
        the weight of member `A` is -1; it must be finite and not negative
        member `a` is named twice
        no column `A`; did you mean `a`?"#]],
    );
    check(
        Ensemble::weighted_mean("a", [("a", 0.0)]),
        expect![[r#"
            the weights add up to 0; the sum must be finite and above 0
            column `a` is there already; name the result otherwise"#]],
    );
    check(Ensemble::weighted_mean::<&str>("score", []), expect!["an ensemble needs at least one member"]);
    check(
        Ensemble::weighted_mean("score", [("a", f64::MAX), ("u", f64::MAX)]),
        expect!["the weights add up to inf; the sum must be finite and above 0"],
    );
    check(Ensemble::max("score", ["a", "b"]), expect!["member `b` is Utf8, but the ensemble takes numbers"]);
    check(
        Ensemble::majority_vote("score", [("a", 1.0), ("u", 1.0)]),
        expect![[r#"
        member `a` is Float64, but the ensemble takes whole numbers up to 63 bits, or texts
        member `u` is UInt64, but the ensemble takes whole numbers up to 63 bits, or texts"#]],
    );
    check(
        Ensemble::majority_vote("score", [("b", 1.0), ("a", 1.0)]),
        expect!["member `a` is Float64, but the ensemble takes texts, like the first member"],
    );
    check(
        Ensemble::max("score", ["a"]).missing(Missing::Replace("much".into())),
        expect![[r#"`missing` replaces a member by "much", which is not a number"#]],
    );
    let other = batch(vec![("a", Arc::new(Int64Array::from(vec![1])))]);
    let error = Ensemble::max("score", ["a"]).signature(&[rows.schema(), other.schema()]).unwrap_err();
    assert_eq!(error.to_string(), "column `a` is Float64 on input 0 but Int64 on input 1");
}

proptest::proptest! {
    /// The mean lies between the least and the largest member, whatever the weights and whoever is missing.
    #[test]
    fn a_mean_stays_between_its_members(
        members in proptest::collection::vec((proptest::option::weighted(0.8, -1e3..1e3), 0.01..10.0), 1..6)
    ) {
        let names: Vec<String> = (0..members.len()).map(|i| format!("m{i}")).collect();
        let columns = names.iter().zip(&members).map(|(name, (value, _))| (name.as_str(), f64s(&[*value]))).collect();
        let weights = names.iter().cloned().zip(members.iter().map(|(_, weight)| *weight));
        let outcome = run_one(&Ensemble::weighted_mean("mean", weights).missing(Missing::Renormalise), batch(columns));
        let present: Vec<f64> = members.iter().filter_map(|(value, _)| *value).collect();
        match numbers(&outcome).first() {
            Some(mean) => {
                let (least, most) = present.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
                proptest::prop_assert!(*mean >= least - 1e-9 && *mean <= most + 1e-9);
                proptest::prop_assert_eq!(outcome.degraded.is_empty(), present.len() == members.len());
            }
            None => proptest::prop_assert!(present.is_empty()),
        }
    }
}
