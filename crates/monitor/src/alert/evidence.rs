//! Evidence: JSON of anybody's making, held within bounds.

use std::sync::Arc;

use serde_json::Value;

use super::{Activation, Counts, state::increase};

/// Bytes of one evidence as JSON, how deep it nests, and bytes of all that is kept. What is larger, or one too many, is
/// left out and counted; the alert fires without it.
const MAX_EVIDENCE: usize = 16 << 10;
const MAX_EVIDENCE_DEPTH: usize = 64;
pub(super) const MAX_ALL_EVIDENCE: usize = 64 << 20;

/// The bytes of the evidence that an activation holds.
pub(super) fn held(activation: &Activation) -> usize {
    activation.evidence.as_deref().and_then(size).unwrap_or(0)
}

/// Takes evidence if there is room for it.
pub(super) fn keep(evidence: &Value, held: &mut usize, counts: &mut Counts) -> Option<Arc<Value>> {
    let size = size(evidence).filter(|size| *held + size <= MAX_ALL_EVIDENCE);
    let Some(size) = size else {
        increase(&mut counts.evidence_left_out);
        return None;
    };
    *held += size;
    Some(Arc::new(evidence.clone()))
}

/// The bytes of a value as JSON; `None` when it is too large or nests too deeply to be read back.
fn size(value: &Value) -> Option<usize> {
    struct Room(usize);
    impl std::io::Write for Room {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    fn shallow(value: &Value, depth: usize) -> bool {
        depth > 0
            && match value {
                Value::Array(items) => items.iter().all(|item| shallow(item, depth - 1)),
                Value::Object(map) => map.values().all(|item| shallow(item, depth - 1)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
            }
    }
    if !shallow(value, MAX_EVIDENCE_DEPTH) {
        return None;
    }
    let mut room = Room(MAX_EVIDENCE);
    serde_json::to_writer(&mut room, value).ok()?;
    Some(MAX_EVIDENCE - room.0)
}
