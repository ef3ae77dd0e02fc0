//! A settlement that no database sees: steps 6 and 7 of a decided batch, so that their instructions
//! can be counted (`./dev instructions`).
//!
//! A `Claimed` and a `Durable` are made here, and neither is given out: elsewhere both still prove
//! what they prove.

use std::sync::Arc;

use sqlx::postgres::PgArguments;
use uuid::Uuid;

use crate::cursor::{Cursor, Published};
use crate::fencing_token::{ClaimId, FencingToken};
use crate::outcome::Publication;
use crate::postgres::{Progress, arguments};
use crate::steps::Rules;
use crate::steps::commit::{Answer, Durable, Running, Settled, Settlement};
use crate::steps::decide::{Decision, Settles};
use crate::steps::fence::Claimed;
use crate::steps::publish::publications;

/// A decided batch that is not sent.
pub struct Rehearsal {
    settlement: Settlement,
    progress: Progress,
}

impl Rehearsal {
    /// Of this decision, as the first writer of its partition would send it.
    pub fn of(decision: Decision, rules: &Rules) -> Self {
        let next_offset = match &decision.settles {
            Settles::Log { first_offset, .. } => *first_offset,
            Settles::Letters(_) => 0,
        };
        let settlement = Settlement {
            claimed: Claimed::by_the_database(rules.source.clone(), FencingToken(1), ClaimId(Uuid::from_u128(1))),
            cursor: Cursor { next_offset, batch_seq: 0, decision_id: None },
            decision_id: Uuid::from_u128(2),
            entity_type: rules.handlers.entity_type.clone(),
            decision: Arc::new(decision),
            running: Running::default(),
        };
        let published = Published { batch_seq: 0, next_offset };
        Self { settlement, progress: Progress { published, log_time_ms: None } }
    }

    /// Step 6: the arguments of the call, encoded as they would be sent.
    ///
    /// # Errors
    /// If a value cannot be encoded.
    pub fn arguments(&self) -> sqlx::Result<PgArguments> {
        arguments(&self.settlement, self.progress, |_| 1)
    }

    /// As if the database had answered *committed*. `None`: it is left to the database how its
    /// commands end, and so unknown here.
    pub fn committed(self) -> Option<Rehearsed> {
        let dead_letter_ids = (1..).take(self.settlement.decision.dead.len()).collect();
        if !self.settlement.decision.called.is_empty() {
            return None;
        }
        match self.settlement.answered(Answer::Committed { dead_letter_ids, ended: Vec::new() }) {
            Settled::Durable(durable) => Some(Rehearsed(durable)),
            _ => None,
        }
    }
}

/// A batch that counts as settled, here and nowhere else.
pub struct Rehearsed(Durable);

impl Rehearsed {
    /// Step 7: what it would publish, in order.
    pub fn publications(&self) -> impl Iterator<Item = Publication<'_>> {
        publications(&self.0, None)
    }
}
