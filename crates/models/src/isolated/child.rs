//! The process that has the model.

use std::{
    io::{self, Read, Write},
    num::NonZeroUsize,
};

use super::wire::{self, Answer, Ask, Info, Sent};
use crate::{CheckedModel, LoadOptions, Model, OnnxModel};

/// Loads one model, and runs it for whoever is at the other end until that closes.
///
/// A server that is asked to stop still answers what it has taken, by this process: a program that calls this does well to outlive
/// signals to stop, as `millstream isolated` does, since they may go to all processes of a service at once.
///
/// # Errors
/// When the other end does not say what [`Isolated`](super::Isolated) says.
pub fn run_isolated(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let (ask, bytes): (Ask, Vec<u8>) = wire::receive(&mut from)?;
    let Ask::Load { name, folder, warm_up } = ask else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no model yet"));
    };
    let options = LoadOptions { instances: NonZeroUsize::new(1), warm_up, ..LoadOptions::default() };
    let loaded =
        CheckedModel::of_bytes(bytes, folder, &options.limits).map_err(|error| error.to_string()).and_then(
            |checked| OnnxModel::from_checked(&name, &checked, &options).map_err(|error| error.to_string()),
        );
    let model = match loaded {
        Ok(model) => model,
        Err(error) => return wire::send(&mut to, &Answer::Failed(error), &[]),
    };
    wire::send(&mut to, &Answer::Loaded(Info::of(model.info())), &[])?;
    loop {
        let (ask, bytes): (Ask, Vec<u8>) = match wire::receive(&mut from) {
            Ok(asked) => asked,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let Ask::Run { inputs, wanted } = ask else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is a model already"));
        };
        match run(&model, inputs, &wanted, &bytes) {
            Ok((answer, behind)) => wire::send(&mut to, &answer, &[&behind])?,
            Err(error) => wire::send(&mut to, &Answer::Failed(error), &[])?,
        }
    }
}

fn run(
    model: &OnnxModel,
    inputs: Vec<Sent>,
    wanted: &[usize],
    mut bytes: &[u8],
) -> Result<(Answer, Vec<u8>), String> {
    let got = inputs.into_iter().map(|sent| wire::take(sent, &mut bytes)).collect::<io::Result<Vec<_>>>();
    let got = got.map_err(|error| error.to_string())?;
    let tensors: Vec<_> = got.iter().map(wire::Got::tensor).collect();
    if let Some(at) = wanted.iter().find(|at| **at >= model.info().outputs.len()) {
        return Err(format!("there is no output {at}"));
    }
    let (mut sent, mut behind) = (Vec::new(), Vec::new());
    let read = &mut |values: &[crate::model::Value<'_>]| {
        sent = values.iter().map(|value| wire::put_value(value, &mut behind)).collect();
        Ok(())
    };
    model.run(&tensors, wanted, read).map_err(|error| error.to_string())?;
    Ok((Answer::Ran(sent), behind))
}
