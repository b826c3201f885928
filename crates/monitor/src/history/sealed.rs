//! Panes, packed.

use std::{collections::BTreeMap, io::Read};

use super::{HistoryError, file::MOST_BYTES};
use crate::{multivariate::RebuiltBy, pane::Pane};

/// A pane that nothing is added to any more, packed.
pub(super) struct Sealed {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) bytes: Vec<u8>,
}

impl Sealed {
    pub(super) fn of(pane: &Pane) -> Result<Self, HistoryError> {
        let packed = packed(pane)?;
        let bytes = zstd::bulk::compress(&packed, 1).map_err(|_| postcard::Error::SerializeBufferFull)?;
        Ok(Self { from: pane.from, to: pane.to, bytes })
    }

    pub(super) fn open(&self) -> Result<Pane, HistoryError> {
        unpack(&self.bytes)
    }
}

/// A pane, and behind it what of its edges was rebuilt, if anything was: a pane without is as it always was.
fn packed(pane: &Pane) -> Result<Vec<u8>, HistoryError> {
    let packed = postcard::to_stdvec(pane)?;
    let edges = pane.edges.iter().filter(|(_, edge)| !edge.rebuilt.is_empty());
    let rebuilt: BTreeMap<&String, &RebuiltBy> = edges.map(|(name, edge)| (name, &edge.rebuilt)).collect();
    match rebuilt.is_empty() {
        true => Ok(packed),
        false => Ok(postcard::to_extend(&rebuilt, packed)?),
    }
}

/// The pane that [`Sealed::of`] has packed.
pub(super) fn unpack(bytes: &[u8]) -> Result<Pane, HistoryError> {
    let broken = |_| postcard::Error::DeserializeUnexpectedEnd;
    let mut packed = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(bytes).map_err(broken)?;
    decoder.take(MOST_BYTES as u64).read_to_end(&mut packed).map_err(broken)?;
    let (mut pane, behind) = postcard::take_from_bytes::<Pane>(&packed)?;
    if !behind.is_empty() {
        let rebuilt: BTreeMap<String, RebuiltBy> = postcard::from_bytes(behind)?;
        for (edge, rebuilt) in rebuilt {
            pane.edges.entry(edge).or_default().rebuilt = rebuilt;
        }
    }
    Ok(pane)
}
