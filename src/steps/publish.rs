//! Step 7, publish: outcomes, emitted events and mirrored dead letters go to Kafka
//! after the commit, in order of settlement.

use super::commit::{Due, Durable};
use crate::dead_letter::Mirror;
use crate::outcome::Publication;

/// Everything that a settled batch owes, in order: each outcome before its events, and before the
/// dead letter that it speaks of; a repeat without events. Letters go nowhere without a mirror.
pub fn publications<'d>(
    durable: &'d Durable,
    mirror: Option<&'d Mirror>,
) -> impl Iterator<Item = Publication<'d>> + use<'d> {
    let source = durable.claimed().source();
    let entity_type = durable.entity_type();
    durable.due().flat_map(move |due| {
        let (outcome, events, mirrored) = match due {
            Due::Outcome(outcome) => (Some(outcome.outcome()), Some(outcome.events()), None),
            Due::Repeat(outcome) => (Some(outcome.outcome()), None, None),
            Due::Dead(letter, number) => {
                let mirrored = mirror.and_then(|mirror| letter.mirrored(source, entity_type, number, mirror));
                (letter.outcome(source, entity_type), None, mirrored)
            }
        };
        outcome.into_iter().chain(events.into_iter().flatten()).chain(mirrored)
    })
}
