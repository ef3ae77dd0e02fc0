//! Step 7, publish: outcomes and emitted events go to Kafka after the commit, in
//! order of settlement.

use super::commit::Durable;
use super::decide::Owed;
use crate::outcome::Publication;

/// Everything that a settled batch owes, in order: each
/// outcome before its events; a repeat without events.
pub fn publications(durable: &Durable) -> impl Iterator<Item = Publication<'_>> {
    let decision = durable.decision();
    let source = durable.claimed().source();
    let entity_type = durable.entity_type();
    decision.owed.iter().flat_map(move |owed| {
        let (outcome, events) = match owed {
            Owed::Outcome(outcome) => (Some(outcome.outcome()), Some(outcome.events())),
            Owed::Repeat(outcome) => (Some(outcome.outcome()), None),
            Owed::Dead(n) => (decision.dead[*n].outcome(source, entity_type), None),
        };
        outcome.into_iter().chain(events.into_iter().flatten())
    })
}
