//! What an entity's state and an outcome have to keep to, so that they can be
//! stored and published.

use crate::dead_letter::DeadCode;
use crate::handlers::State;
use crate::steps::receive::Fault;

/// What an outcome's envelope takes beside its parts, generously: bytes. An entity
/// id alone is up to 512 bytes in the key and in `ce_subject`, and six times that
/// in JSON, if all of it must be escaped.
const OUTCOME_OVERHEAD_BYTES: usize = 8192;

/// The longest part, in bytes, of an outcome or event that still fits.
pub fn part_bytes_max(outcome_bytes_max: usize) -> usize {
    outcome_bytes_max.saturating_sub(OUTCOME_OVERHEAD_BYTES)
}

/// An outcome that the broker would refuse would block the partition's
/// publications for ever; so it is refused here, before it is durable.
pub(super) fn fits(part_bytes: usize, outcome_bytes_max: usize) -> Result<(), Fault> {
    if part_bytes <= part_bytes_max(outcome_bytes_max) {
        return Ok(());
    }
    let why = format!("its outcome or an event has {part_bytes} bytes; the outcomes topic takes {outcome_bytes_max}");
    Err((DeadCode::HandlerFailed, why))
}

/// The state as Postgres will store it. jsonb cannot hold U+0000.
pub(super) fn storable(state: &dyn State) -> Result<String, String> {
    let encoded = state.encode().map_err(|why| format!("its state cannot be encoded: {why}"))?;
    if holds_nul(&encoded) {
        return Err("its state holds U+0000, which Postgres cannot store".into());
    }
    Ok(encoded)
}

/// Whether JSON text has the escape `\u0000` (and not an escaped backslash
/// before `u0000`).
fn holds_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let backslashes = json[..at].bytes().rev().take_while(|b| *b == b'\\').count();
        backslashes % 2 == 0
    })
}
