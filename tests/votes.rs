//! A quorum that votes, and the ensemble behind it: whoever answers first, and however early the quorum ends, the vote is that of all.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    task::Poll,
    time::Instant,
};

use millstream::{
    ErrorKind, FailedRows, Input, Output, Request, Rows, RunCx, RunId, SchemaError, Signature, Step,
    StepError, StepResult, Token, Work,
    arrow::{
        array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema, SchemaRef},
        util::display::array_value_to_string,
    },
    models::{Ensemble, Missing},
    testkit::{assert_freed, poll_once},
    transform::Quorum,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use smallvec::smallvec;
use tokio::sync::Semaphore;

/// What a member says of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    Class(i64),
    Nothing,
    Fails,
}

/// A member that waits for its gate, and then says of each row what is planned, or fails.
#[derive(Clone)]
struct Member {
    column: String,
    says: Option<Vec<Says>>,
    texts: bool,
    gate: Arc<Semaphore>,
    /// What its waiting holds.
    held: Weak<()>,
    holds: Arc<Mutex<Option<Arc<()>>>>,
}

impl Member {
    fn new(at: usize, says: Option<Vec<Says>>, texts: bool) -> Self {
        let held = Arc::new(());
        Self {
            column: format!("m{at}"),
            says,
            texts,
            gate: Arc::new(Semaphore::new(0)),
            held: Arc::downgrade(&held),
            holds: Arc::new(Mutex::new(Some(held))),
        }
    }

    fn field(&self) -> Field {
        Field::new(&self.column, if self.texts { DataType::Utf8 } else { DataType::Int64 }, true)
    }

    fn classes(&self, says: impl Iterator<Item = Says>) -> ArrayRef {
        let classes = says.map(|says| if let Says::Class(class) = says { Some(class) } else { None });
        match self.texts {
            // In the order of the numbers.
            true => {
                Arc::new(classes.map(|class| Some(format!("class {}", class? + 5))).collect::<StringArray>())
            }
            false => Arc::new(classes.collect::<Int64Array>()),
        }
    }

    fn answer(&self, rows: &Rows) -> StepResult {
        let Some(says) = &self.says else {
            return Err(StepError::new(ErrorKind::Unavailable, "planted"));
        };
        let (bad, good): (Vec<u32>, Vec<u32>) =
            (0..rows.len() as u32).partition(|row| says[*row as usize] == Says::Fails);
        let (good, bad) = (rows.take(&good)?, rows.take(&bad)?);
        let mut columns = good.batch().columns().to_vec();
        columns.push(self.classes(says.iter().copied().filter(|says| *says != Says::Fails)));
        let made = RecordBatch::try_new(beside(rows.schema(), [self.field()]), columns)?;
        let messages = vec!["planted".to_owned(); bad.len()];
        Ok(Output::one(good.replace(made)?).with_failed(FailedRows { rows: bad, messages }))
    }
}

impl Step for Member {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        Ok(Signature::row_wise(beside(&inputs[0], [self.field()])))
    }

    fn call<'a>(&'a self, mut input: Input, _: &'a RunCx) -> Work<'a> {
        let held = self.holds.lock().unwrap().take();
        Work::Io(Box::pin(async move {
            let _held = held;
            self.gate.acquire().await.unwrap().forget();
            self.answer(&input.rows(0)?)
        }))
    }
}

fn beside(schema: &SchemaRef, more: impl IntoIterator<Item = Field>) -> SchemaRef {
    let fields = schema.fields().iter().cloned().chain(more.into_iter().map(Arc::new));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn ids(rows: usize) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

fn cx(rows: usize) -> RunCx {
    RunCx::new(RunId(0), Request::default(), rows, Instant::now)
}

/// How many members have answered when a quorum has, while they do in an order, and what it has answered.
fn asked(quorum: Quorum, members: &[Member], order: &[usize], rows: usize) -> (usize, StepResult) {
    let quorum = members.iter().fold(quorum, |quorum, member| quorum.step(&*member.column, member.clone()));
    let input = Rows::whole(ids(rows));
    quorum.signature(&[Arc::clone(input.schema())]).unwrap_or_else(|error| panic!("{error}"));
    let cx = cx(rows);
    let Work::Io(mut answer) = quorum.call(Input::new(smallvec![Token::Rows(input)]), &cx) else {
        panic!("a quorum waits");
    };
    assert!(poll_once(&mut answer).is_pending(), "no member has answered");
    for (answered, at) in order.iter().enumerate() {
        members[*at].gate.add_permits(1);
        if let Poll::Ready(answer) = poll_once(&mut answer) {
            // Nothing is held by those who were not waited for, although the future is still there.
            members.iter().for_each(|member| assert_freed(&member.held));
            return (answered + 1, answer);
        }
    }
    panic!("all have answered, but not the quorum");
}

/// The vote of an ensemble on rows, by their ids. Rows that cannot be voted on are not there.
fn voted(ensemble: &Ensemble, rows: Rows) -> BTreeMap<String, String> {
    ensemble.signature(&[Arc::clone(rows.schema())]).unwrap_or_else(|error| panic!("{error}"));
    let cx = cx(rows.len());
    let answer = match ensemble.call(Input::new(smallvec![Token::Rows(rows)]), &cx) {
        Work::Done(answer) => answer.unwrap(),
        Work::Compute(job) => job().unwrap(),
        Work::Io(_) => panic!("an ensemble does not wait"),
    };
    let (ports, ..) = answer.into_parts();
    let told = |rows: &Rows| {
        let (ids, votes) = (rows.batch().column(0), rows.batch().columns().last().unwrap());
        let text = |column: &ArrayRef, row| array_value_to_string(column, row).unwrap();
        (0..rows.len()).map(|row| (text(ids, row), text(votes, row))).collect::<Vec<_>>()
    };
    ports.iter().flat_map(|(_, rows)| told(rows)).collect()
}

/// The ids and what all members say of them, of those rows that one has answered.
fn all(members: &[Member], rows: usize) -> Rows {
    let says = |member: &Member, row: usize| member.says.as_ref().map_or(Says::Fails, |says| says[row]);
    let answered = |row: &usize| members.iter().any(|member| says(member, *row) != Says::Fails);
    let kept: Vec<usize> = (0..rows).filter(answered).collect();
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(kept.iter().map(|row| Some(*row as i64)).collect::<Int64Array>())];
    columns.extend(members.iter().map(|member| member.classes(kept.iter().map(|row| says(member, *row)))));
    let schema = beside(&ids(0).schema(), members.iter().map(Member::field));
    Rows::whole(RecordBatch::try_new(schema, columns).unwrap())
}

fn weighed(members: &[Member], weights: &[f64]) -> Vec<(String, f64)> {
    members.iter().map(|member| member.column.clone()).zip(weights.iter().copied()).collect()
}

/// A vote of several members on several rows.
#[derive(Clone, Debug)]
struct Case {
    weights: Vec<f64>,
    /// By member, what it says of each row; `None` when it fails as a whole.
    says: Vec<Option<Vec<Says>>>,
    order: Vec<usize>,
    texts: bool,
    replaced: Option<i64>,
}

fn any_says() -> impl Strategy<Value = Says> {
    prop_oneof![8 => (-1i64..3).prop_map(Says::Class), 1 => Just(Says::Nothing), 1 => Just(Says::Fails)]
}

/// Weights with sums that draw level although their last bits differ, and weights that are nearly so.
fn any_weights(members: usize) -> impl Strategy<Value = Vec<f64>> {
    let odd = vec![0.1, 0.2, 0.3, 0.6, 0.7, 0.0, 1.0 / 3.0, 1e-12, 0.2 + 1e-12, 0.3 - 4e-13];
    prop_oneof![
        Just(vec![1.0; members]),
        vec((0..4_i32).prop_map(f64::from), members),
        vec(select(odd), members)
    ]
    .prop_filter("some weight", |weights| weights.iter().sum::<f64>() > 0.0)
}

fn any_case() -> impl Strategy<Value = Case> {
    (1usize..7, 1usize..4).prop_flat_map(|(members, rows)| {
        let says = prop_oneof![9 => vec(any_says(), rows).prop_map(Some), 1 => Just(None)];
        let order = Just((0..members).collect::<Vec<_>>()).prop_shuffle();
        let replaced = option::of(-2i64..4);
        (any_weights(members), vec(says, members), order, any::<bool>(), replaced).prop_map(
            |(weights, says, order, texts, replaced)| Case { weights, says, order, texts, replaced },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").map_or(512, |cases| cases.parse().unwrap()), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_vote_that_ends_early_is_the_vote_of_all_who_answer(case in any_case(), need in any::<bool>()) {
        let rows = case.says.iter().flatten().map(Vec::len).next().unwrap_or(1);
        let members: Vec<Member> =
            case.says.iter().enumerate().map(|(at, says)| Member::new(at, says.clone(), case.texts)).collect();
        let weights = weighed(&members, &case.weights);
        let missing = match (case.replaced, case.texts) {
            (None, _) => Missing::Renormalise,
            (Some(class), false) => Missing::Replace(class.into()),
            (Some(class), true) => Missing::Replace(format!("class {}", class + 5).into()),
        };
        let ensemble = || Ensemble::majority_vote("vote", weights.clone()).missing(missing.clone());
        let of_all = voted(&ensemble(), all(&members, rows));
        // All are needed, or as many as answer.
        let quorum = if need { Quorum::of(members.len()) } else { Quorum::default() };
        let (answered, answer) = asked(quorum.vote(weights.clone()), &members, &case.order, rows);
        let rows = answer.ok().and_then(|output| output.rows(0).cloned());
        let early = rows.map(|rows| voted(&ensemble(), rows)).unwrap_or_default();
        if !need || answered < members.len() {
            prop_assert_eq!(early, of_all);
        } else {
            // A row that was not answered by all has failed, unless the vote on it is decided.
            prop_assert!(early.iter().all(|(id, vote)| of_all.get(id) == Some(vote)), "{:?} {:?}", early, of_all);
        }
    }

    #[test]
    fn a_vote_is_over_exactly_when_nothing_can_change_it(
        (weights, classes, order) in (1usize..6).prop_flat_map(|members| (
            vec(0..4_i32, members).prop_filter("some weight", |weights| weights.iter().any(|weight| *weight > 0)),
            vec(0..3_i64, members),
            Just((0..members).collect::<Vec<_>>()).prop_shuffle(),
        )),
    ) {
        let member = |(at, class): (usize, &i64)| Member::new(at, Some(vec![Says::Class(*class)]), false);
        let members: Vec<Member> = classes.iter().enumerate().map(member).collect();
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let weights = weighed(&members, &weights);
        let (answered, _) = asked(Quorum::voting(weights.clone()), &members, &order, 1);
        // Whatever those say who have not answered: a class of others, a lower one, a higher one, or nothing.
        let outcomes = |answered: usize| {
            let any = [-1, 0, 1, 2, 3].map(Says::Class).into_iter().chain([Says::Nothing]).collect::<Vec<_>>();
            let ways = any.len().pow((members.len() - answered) as u32);
            let mut says: Vec<Option<Vec<Says>>> = vec![None; members.len()];
            for (place, at) in order.iter().enumerate() {
                let says = &mut says[*at];
                let open = place.checked_sub(answered).map(|place| any.len().pow(place as u32));
                let said = |way: usize| open.map_or(Says::Class(classes[*at]), |unit| any[way / unit % any.len()]);
                *says = Some((0..ways).map(said).collect());
            }
            let planned: Vec<Member> = says.into_iter().enumerate().map(|(at, says)| Member::new(at, says, false)).collect();
            let ensemble = Ensemble::majority_vote("vote", weights.clone()).missing(Missing::Renormalise);
            let votes = voted(&ensemble, all(&planned, ways));
            votes.len() == ways && votes.values().all(|vote| Some(vote) == votes.values().next())
        };
        let first = (1..members.len()).find(|answered| outcomes(*answered)).unwrap_or(members.len());
        prop_assert_eq!(answered, first);
    }
}

#[test]
fn three_of_five_decide_in_whatever_order_they_answer() {
    let says = [1, 0, 1, 0, 1].map(|class| Some(vec![Says::Class(class)]));
    for (order, wanted) in [([0, 2, 4, 1, 3], 3), ([0, 1, 2, 4, 3], 4), ([1, 3, 0, 2, 4], 5)] {
        let members: Vec<Member> =
            says.iter().enumerate().map(|(at, says)| Member::new(at, says.clone(), true)).collect();
        let quorum = Quorum::of(5).vote(weighed(&members, &[1.0; 5]));
        let (answered, answer) = asked(quorum, &members, &order, 1);
        assert_eq!(answered, wanted, "{order:?}");
        let rows = answer.unwrap().rows(0).unwrap().clone();
        let unanswered = rows.batch().columns().iter().map(|column| column.null_count()).sum::<usize>();
        assert_eq!(unanswered, 5 - wanted, "{order:?}");
        let ensemble = Ensemble::majority_vote("vote", weighed(&members, &[1.0; 5]));
        let votes = voted(&ensemble.missing(Missing::Renormalise), rows);
        assert_eq!(votes.into_values().collect::<Vec<_>>(), ["class 6"]);
    }
}
