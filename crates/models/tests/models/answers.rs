//! Every fixture answers what Python's ONNX Runtime answers for it: in one batch, row by row, and from many threads.

use std::sync::Arc;

use millstream_graph::Waiting;
use millstream_models::{Data, Model, Tensor, Value};
use serde_json::Value as Json;

use crate::harness::{DATA, EXPECTED, Owned, assert_close, load, model};

/// Runs `model` on `inputs` and compares with the expected outputs, of which `row` is one row.
fn check(model: &dyn Model, inputs: &[Owned], row: Option<usize>) {
    let info = model.info();
    let expected = &EXPECTED[&info.name]["outputs"];
    let wanted: Vec<usize> = (0..info.outputs.len()).collect();
    let tensors: Vec<Tensor<'_>> = inputs.iter().map(Owned::tensor).collect();
    let mut read = |values: &[Value<'_>]| {
        for (value, output) in values.iter().zip(&info.outputs) {
            let what = format!("output `{}` of `{}`", output.name, info.name);
            match value {
                Value::Tensor(got) => {
                    let whole = Owned::of(&expected[&output.name]);
                    let one = row.map(|row| whole.row(row));
                    assert_close(got, &one.as_ref().unwrap_or(&whole).tensor(), &what);
                }
                Value::Maps(maps) => {
                    let rows = expected[&output.name]["maps"].as_array().unwrap();
                    let rows = row.map_or(&rows[..], |row| &rows[row..=row]);
                    let all = || rows.iter().flat_map(|row| row.as_array().unwrap());
                    let values: Vec<f32> = all().map(|entry| entry[1].as_f64().unwrap() as f32).collect();
                    let shape = [values.len()];
                    let got = Tensor { shape: &shape, data: Data::F32(&maps.values) };
                    assert_close(&got, &Tensor { shape: &shape, data: Data::F32(&values) }, &what);
                    let keys: Vec<Json> = match &maps.keys {
                        millstream_models::Keys::Ints(keys) => keys.iter().map(|&key| key.into()).collect(),
                        millstream_models::Keys::Strings(keys) => {
                            keys.iter().map(|key| key.as_str().into()).collect()
                        }
                    };
                    assert_eq!(
                        keys,
                        all().take(keys.len()).map(|entry| entry[0].clone()).collect::<Vec<_>>()
                    );
                }
            }
        }
        Ok(())
    };
    model.run(&tensors, &wanted, &mut read).unwrap_or_else(|error| panic!("{}: {error}", info.name));
}

fn inputs(model: &dyn Model) -> Vec<Owned> {
    let inputs = &EXPECTED[&model.info().name]["inputs"];
    model.info().inputs.iter().map(|input| Owned::of(&inputs[&input.name])).collect()
}

#[test]
fn every_model_answers_as_in_python() {
    for name in EXPECTED.as_object().unwrap().keys() {
        let model = model(name);
        let whole = inputs(&model);
        check(&model, &whole, None);
        if name.starts_with("fixed") {
            continue;
        }
        // One row at a time goes through tensors that are kept from run to run.
        for row in (0..whole[0].shape[0]).chain([0]) {
            let one: Vec<Owned> = whole.iter().map(|input| input.row(row)).collect();
            check(&model, &one, Some(row));
        }
        check(&model, &whole, None);
    }
}

#[test]
fn one_instance_serves_eight_threads() {
    for name in ["lgbm", "several", "zip_ints", "labels"] {
        let folder = if name == "lgbm" {
            format!("{DATA}/../../../../examples/fraud/models")
        } else {
            DATA.to_owned()
        };
        let model = load(&folder, name, 1).unwrap_or_else(|error| panic!("{error}"));
        let whole = inputs(&model);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (model, whole) = (&model, &whole);
                scope.spawn(move || {
                    for turn in 0..50 {
                        let row = (thread + turn) % whole[0].shape[0];
                        let one: Vec<Owned> = whole.iter().map(|input| input.row(row)).collect();
                        check(model, &one, Some(row));
                        if turn % 10 == 0 {
                            check(model, whole, None);
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn only_what_is_wanted_is_read_and_in_that_order() {
    let model = model("several");
    let inputs = inputs(&model);
    let tensors: Vec<Tensor<'_>> = inputs.iter().map(Owned::tensor).collect();
    for wanted in [&[2][..], &[1, 0], &[0, 1, 2], &[]] {
        let mut lengths = Vec::new();
        let mut read = |values: &[Value<'_>]| {
            lengths = values
                .iter()
                .map(|value| match value {
                    Value::Tensor(tensor) => tensor.data.len(),
                    Value::Maps(maps) => maps.values.len(),
                })
                .collect();
            Ok(())
        };
        model.run(&tensors, wanted, &mut read).unwrap();
        assert_eq!(lengths, wanted.iter().map(|&output| [12, 4, 4][output]).collect::<Vec<usize>>());
    }
    assert!(model.run(&tensors, &[3], &mut |_| Ok(())).is_err());
    assert!(model.run(&tensors[..1], &[0], &mut |_| Ok(())).is_err());
}

#[test]
fn a_failed_run_leaves_the_instance_usable() {
    let model = load(DATA, "picky", 1).unwrap_or_else(|error| panic!("{error}"));
    let run = |at: &[i64]| {
        let shape = [at.len()];
        let mut found = Vec::new();
        let read = &mut |values: &[Value<'_>]| {
            if let [Value::Tensor(Tensor { data: Data::F32(values), .. })] = values {
                found = values.to_vec();
            }
            Ok(())
        };
        model.run(&[Tensor { shape: &shape, data: Data::I64(at) }], &[0], read).map(|()| found)
    };
    for at in [&[1][..], &[0, 1, 1]] {
        assert!(run(&[7]).is_err());
        assert!(run(&[0, 7]).is_err());
        assert_eq!(run(at).unwrap(), at.iter().map(|&at| [0.25, 0.75][at as usize]).collect::<Vec<f32>>());
    }
}

/// A model that goes round and round is ended when nobody waits for its answer, before it starts or in the middle of it, and
/// its session is as good as before.
#[test]
fn a_run_that_nobody_waits_for_is_ended() {
    let model = load(DATA, "rounds", 1).unwrap_or_else(|error| panic!("{error}"));
    let run = |rounds: f32| {
        let mut seen = Vec::new();
        // Two rows, so that nothing is bound in advance.
        let x = Tensor { shape: &[2, 1], data: Data::F32(&[rounds, 0.0]) };
        let answer = model.run(&[x], &[0], &mut |values| {
            if let [Value::Tensor(Tensor { data: Data::F32(y), .. })] = values {
                seen.extend(y.iter().copied());
            }
            Ok(())
        });
        answer.map(|()| seen)
    };
    // Some hours, if nothing ended it.
    let hours = 1e12;
    let waiting = Arc::new(Waiting::default());
    waiting.gone();
    assert!(waiting.during(|| run(hours)).is_err());
    let waiting = Arc::new(Waiting::default());
    let (started, start) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ended = waiting.during(|| {
                started.send(()).unwrap();
                run(hours)
            });
            assert!(ended.is_err());
        });
        start.recv().unwrap();
        waiting.gone();
    });
    let waiting = Arc::new(Waiting::default());
    assert_eq!(waiting.during(|| run(3.0)).unwrap(), [24.0, 0.0]);
    assert_eq!(run(3.0).unwrap(), [24.0, 0.0]);
}
