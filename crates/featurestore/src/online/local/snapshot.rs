//! Snapshots: all rows in one file, so that older segments of the log are not needed any more.
//!
//! Snapshot n is the state at the beginning of segment n, but rows may be newer: they are written while the store goes on.
//! Reading the log from segment n on brings every row to the same state, because a row that its key has seen changes nothing.

use std::{io, sync::Arc};

use super::{
    files::Files,
    frames::{Frames, Next, put_frame},
    log::{SNAPSHOT, put_header},
    shards::{ShardRows, Shards},
    writer::Writer,
};
use crate::{
    Ledger,
    online::{bytes::Cursor, row::Row},
};

/// Rows; in a set with windows each has its ledger behind it.
const ROWS: u8 = 1;
const END: u8 = 2;
/// The beginning of what the next frame goes on with.
const PART: u8 = 3;

/// Bytes of the largest frame that is written. A ledger may have more.
const MOST: usize = 4 << 20;

/// Bytes of rows in one frame, about.
const BLOCK: usize = 1 << 20;

/// The payload of a snapshot's first frame: all of the state but its rows. `frame` is the number of the first frame of the log
/// that is not in it.
pub(crate) fn head(definition: &str, frame: u64, writer: &Writer) -> Vec<u8> {
    let mut out = Vec::new();
    put_header(&mut out, SNAPSHOT, definition);
    out.extend_from_slice(&frame.to_le_bytes());
    writer.encode(&mut out);
    out
}

/// Writes a snapshot, and makes it safe under the name `name`, which is not yet a snapshot's; its bytes.
pub(crate) fn write(files: &Arc<dyn Files>, name: &str, head: &[u8], shards: &Shards) -> io::Result<u64> {
    let mut file = files.create(name)?;
    let (mut frame, mut number, mut rows, mut bytes) = (Vec::new(), 0, 0_u64, 0);
    let mut put = |payload: &[u8]| {
        frame.clear();
        put_frame(&mut frame, number, 0, |out| out.extend_from_slice(payload))?;
        number += 1;
        bytes += frame.len() as u64;
        file.append(&frame)
    };
    put(head)?;
    for shard in shards.each_shard() {
        let (blocks, there) = blocks(&shard, shards);
        rows += there;
        // Writing waits for the disk; the shard must not.
        drop(shard);
        for block in blocks.iter().filter(|block| block.len() > 1) {
            let mut rest = &block[1..];
            while let Some((part, more)) = rest.split_at_checked(MOST) {
                put(&[&[PART], part].concat())?;
                rest = more;
            }
            if rest.len() + 1 == block.len() { put(block)? } else { put(&[&[ROWS], rest].concat())? }
        }
    }
    let mut end = vec![END];
    end.extend_from_slice(&rows.to_le_bytes());
    put(&end)?;
    file.sync()?;
    Ok(bytes)
}

/// The rows of a shard as the payloads of frames, and how many there are.
fn blocks(shard: &ShardRows<'_>, shards: &Shards) -> (Vec<Vec<u8>>, u64) {
    let (mut blocks, mut rows) = (Vec::new(), 0);
    let mut block = vec![ROWS];
    for (row, windows) in shard.entries() {
        rows += 1;
        if block.len() >= BLOCK {
            blocks.push(std::mem::replace(&mut block, vec![ROWS]));
        }
        row.encode(&mut block);
        if let (Some(of), Some(windows)) = (shards.windows(), windows) {
            let ledger = windows.ledger.encode(of);
            block.extend_from_slice(&(ledger.len() as u64).to_le_bytes());
            block.extend_from_slice(&ledger);
        }
    }
    blocks.push(block);
    (blocks, rows)
}

/// Puts the next row of a block where it belongs; `None` if it is none.
fn restore(from: &mut Cursor<'_>, shards: &Shards) -> Option<()> {
    let row = Row::decode(from, shards.fixed())?;
    let ledger = match shards.windows() {
        Some(of) => {
            let len = usize::try_from(from.u64()?).ok()?;
            Some(Ledger::decode(of, from.take(len)?).ok()?)
        }
        None => None,
    };
    shards.restore(&row, ledger);
    Some(())
}

/// Why a snapshot cannot be read: what is wrong with it, and the byte.
pub(crate) type Broken = (String, u64);

/// Reads the rows of a snapshot whose first frame has been read; how many.
pub(crate) fn read_rows<R: io::Read>(
    frames: &mut Frames<R>,
    shards: &Shards,
) -> io::Result<Result<u64, Broken>> {
    let (mut rows, mut number, mut parts) = (0_u64, 1, Vec::new());
    loop {
        let at = frames.at;
        let frame = match frames.next()? {
            Next::Frame(frame) if frame.number == number => frame,
            Next::Frame(frame) => {
                return Ok(Err((format!("frame {} where {number} must be", frame.number), at)));
            }
            Next::Bad => return Ok(Err(("no whole frame".to_owned(), at))),
            Next::End => return Ok(Err(("the file ends too soon".to_owned(), at))),
        };
        number += 1;
        let mut from = Cursor(&frame.payload);
        match from.u8() {
            Some(PART) => parts.extend_from_slice(from.0),
            Some(ROWS) => {
                let mut whole = std::mem::take(&mut parts);
                if !whole.is_empty() {
                    whole.extend_from_slice(from.0);
                    from = Cursor(&whole);
                }
                while !from.0.is_empty() {
                    if restore(&mut from, shards).is_none() {
                        return Ok(Err(("a row that is none".to_owned(), at)));
                    }
                    rows += 1;
                }
            }
            Some(END)
                if parts.is_empty() && from.u64() == Some(rows) && matches!(frames.next()?, Next::End) =>
            {
                return Ok(Ok(rows));
            }
            _ => return Ok(Err(("its end does not fit its rows".to_owned(), at))),
        }
    }
}
