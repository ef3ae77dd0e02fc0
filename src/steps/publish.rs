//! Step 7, publish: outcomes and emitted events go to Kafka after the commit, in
//! order of settlement.

use super::commit::{Due, Durable};
use crate::outcome::Publication;

/// Everything that a settled batch owes, in order: each
/// outcome before its events; a repeat without events.
pub fn publications(durable: &Durable) -> impl Iterator<Item = Publication<'_>> {
    let source = durable.claimed().source();
    let entity_type = durable.entity_type();
    durable.due().flat_map(move |due| {
        let (outcome, events) = match due {
            Due::Outcome(outcome) => (Some(outcome.outcome()), Some(outcome.events())),
            Due::Repeat(outcome) => (Some(outcome.outcome()), None),
            Due::Dead(letter) => (letter.outcome(source, entity_type), None),
        };
        outcome.into_iter().chain(events.into_iter().flatten())
    })
}
