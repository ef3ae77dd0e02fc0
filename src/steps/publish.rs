//! Step 7, publish: outcomes and emitted events go to Kafka after the commit, in
//! order of settlement.

use super::commit::Durable;
use super::decide::Owed;
use crate::outcome::Publication;

/// Everything that a settled batch owes, in order: each outcome before its
/// events; a repeat without events.
pub fn publications(durable: &Durable) -> Vec<Publication> {
    let decision = durable.decision();
    let source = durable.claimed().source();
    let mut publications = Vec::with_capacity(decision.owed.len() * 2);
    for owed in &decision.owed {
        match owed {
            Owed::Outcome(outcome) => {
                publications.push(outcome.outcome());
                publications.extend(outcome.events());
            }
            Owed::Repeat(outcome) => publications.push(outcome.outcome()),
            Owed::Dead(n) => {
                let letter = &decision.dead[*n];
                publications.extend(letter.outcome(source, durable.entity_type()));
            }
        }
    }
    publications
}
