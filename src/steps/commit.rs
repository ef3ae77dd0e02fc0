//! Step 6, commit: one call writes everything or nothing.
//!
//! A [`Settlement`] is the call's arguments: the decision, and what its writer
//! believes of the partition's row. The database compares and sets, and answers;
//! only the answer *committed* turns a settlement into [`Durable`].
//!
//! A lost connection or a time-out after sending is answered by sending the same
//! settlement again. Its decision id tells the second sending of one decision
//! from the second decision of one batch, so a slow first attempt is never
//! mistaken for the second.

use std::sync::Arc;

use uuid::Uuid;

use super::Rules;
use super::decide::{Decision, Owed, Settles, part_bytes_max};
use super::fence::Claimed;
use crate::cursor::Cursor;
use crate::dead_letter::DeadLetter;
use crate::fencing_token::FencingToken;
use crate::outcome::{Ending, FinalOutcome};

/// A decision on its way to the database. Cheap to clone: sent again as it is.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Who writes.
    pub claimed: Claimed,
    /// The cursor that the decision starts from.
    pub cursor: Cursor,
    /// Random, one per decision of a batch.
    pub decision_id: Uuid,
    /// The partition's entity type.
    pub entity_type: Arc<str>,
    /// What to write.
    pub decision: Arc<Decision>,
    /// How what runs in the database is run.
    pub running: Running,
}

/// How a team's own statements are run in the commit.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// The function that runs the numbered functions, in order; `None`: nothing runs.
    pub runner: Option<Arc<str>>,
    /// Each command that raises is undone by itself and named, instead of the batch
    /// being undone. A subtransaction, so it is done only after a batch that raised.
    pub careful: bool,
    /// The longest reply, event or detail: bytes.
    pub part_bytes_max: i32,
}

impl Running {
    /// How what a decision leaves to the database is run.
    pub fn of(decision: &Decision, rules: &Rules, careful: bool) -> Self {
        let runner = decision.runs_in_database().then(|| rules.handlers.in_database.runner(decision.serializable));
        Self {
            runner: runner.flatten().cloned(),
            careful,
            part_bytes_max: i32::try_from(part_bytes_max(rules.outcome_bytes_max)).unwrap_or(i32::MAX),
        }
    }
}

/// What the row held when it did not hold what the writer believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The row's token.
    pub token: FencingToken,
    /// The row's cursor.
    pub cursor: Cursor,
}

/// The database's answer to a settlement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// This decision is durable, by this sending or an earlier one.
    Committed {
        /// The numbers of its dead letters, in order.
        dead_letter_ids: Vec<i64>,
        /// How the commands ended that the database decided, in order: version and ending.
        ended: Vec<(i64, Ending)>,
    },
    /// The token or the claim is stale.
    Fenced(Held),
    /// An earlier attempt of the same writer, with another decision, won.
    Superseded(Held),
    /// The row's history is not the writer's: the database went back in time.
    Behind(Held),
    /// The partition is halted.
    Halted,
}

/// A settlement that the database has confirmed. Needed to publish and to
/// acknowledge; nothing but the answer *committed* makes one.
///
/// ```compile_fail
/// # use solewriter::steps::{commit::{Durable, Settlement}, publish::publications};
/// fn publish_before_durable(settlement: &Settlement) {
///     let _ = publications(settlement, None);
/// }
/// ```
/// ```compile_fail
/// # use solewriter::steps::{acknowledge::acknowledge, decide::Decision};
/// fn acknowledge_before_durable(decision: &Decision) {
///     let _ = acknowledge(decision);
/// }
/// ```
/// ```compile_fail
/// # use solewriter::steps::commit::{Durable, Settlement};
/// fn forge(settlement: Settlement) -> Durable {
///     Durable { settlement, called: Vec::new(), dead_letter_ids: Vec::new() }
/// }
/// ```
/// And with the proof, both compile:
/// ```
/// # use solewriter::steps::{acknowledge::acknowledge, commit::Durable, publish::publications};
/// fn after_durable(durable: &Durable) {
///     let _ = publications(durable, None);
///     let _ = acknowledge(durable);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Durable {
    settlement: Settlement,
    /// The outcomes of the commands that the database decided, in order.
    called: Vec<Arc<FinalOutcome>>,
    /// The numbers of the dead letters, in order.
    dead_letter_ids: Vec<i64>,
}

/// What a settled batch owes for one record.
#[derive(Clone, Copy, Debug)]
pub enum Due<'d> {
    /// A final outcome, with its events.
    Outcome(&'d FinalOutcome),
    /// A stored outcome again, without the events.
    Repeat(&'d FinalOutcome),
    /// A dead delivery, with the number of its letter.
    Dead(&'d DeadLetter, i64),
}

/// What an answer means for the settlement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Settled {
    /// It stands.
    Durable(Durable),
    /// Stop: another owner has claimed the partition, or an operator has acted.
    Fenced(Held),
    /// Publish from the database and go on from its cursor.
    Superseded(Held),
    /// Stop: the database went back in time.
    Behind(Held),
    /// Stop: the partition is halted.
    Halted,
}

impl Settlement {
    /// What the database's answer means.
    pub fn answered(self, answer: Answer) -> Settled {
        match answer {
            Answer::Committed { ended, dead_letter_ids }
                if ended.len() == self.decision.called.len() && dead_letter_ids.len() == self.decision.dead.len() =>
            {
                let called = self.decision.called.iter().zip(ended);
                let called =
                    called.map(|(called, (version, ending))| Arc::new(called.ended(version, ending))).collect();
                Settled::Durable(Durable { settlement: self, called, dead_letter_ids })
            }
            // it stands, and what became of it is in the database only
            Answer::Committed { .. } => {
                Settled::Superseded(Held { token: self.claimed.token(), cursor: self.next_cursor() })
            }
            Answer::Fenced(held) => Settled::Fenced(held),
            Answer::Superseded(held) => Settled::Superseded(held),
            Answer::Behind(held) => Settled::Behind(held),
            Answer::Halted => Settled::Halted,
        }
    }

    /// The cursor that the partition has once this is durable.
    pub fn next_cursor(&self) -> Cursor {
        Cursor {
            next_offset: match &self.decision.settles {
                Settles::Log { last, .. } => last.offset + 1,
                Settles::Letters(_) => self.cursor.next_offset,
            },
            batch_seq: self.cursor.batch_seq + 1,
            decision_id: Some(self.decision_id),
        }
    }
}

impl Durable {
    /// What was settled.
    pub fn decision(&self) -> &Decision {
        &self.settlement.decision
    }

    /// The new final outcomes, decided here or by the database; each kind in order.
    pub fn outcomes(&self) -> impl Iterator<Item = &Arc<FinalOutcome>> {
        self.settlement.decision.outcomes.iter().chain(&self.called)
    }

    /// What it owes, in order of settlement.
    pub fn due(&self) -> impl Iterator<Item = Due<'_>> {
        let decision = &self.settlement.decision;
        decision.owed.iter().map(|owed| match owed {
            Owed::Outcome(outcome) => Due::Outcome(outcome),
            Owed::Repeat(outcome) => Due::Repeat(outcome),
            Owed::Called(n) => Due::Outcome(&self.called[*n]),
            Owed::CalledRepeat(n) => Due::Repeat(&self.called[*n]),
            Owed::Dead(n) => Due::Dead(&decision.dead[*n], self.dead_letter_ids[*n]),
        })
    }

    /// Whether dead letters of it were run with another payload than their records have.
    pub fn corrects(&self) -> bool {
        match &self.settlement.decision.settles {
            Settles::Log { .. } => false,
            Settles::Letters(changes) => changes.letters.iter().any(|letter| letter.edited_value.is_some()),
        }
    }

    /// The partition's entity type.
    pub fn entity_type(&self) -> &str {
        &self.settlement.entity_type
    }

    /// By whom.
    pub fn claimed(&self) -> &Claimed {
        &self.settlement.claimed
    }

    /// The partition's cursor since.
    pub fn cursor(&self) -> Cursor {
        self.settlement.next_cursor()
    }
}
