//! One member of the group and its partition writer: what it remembers, and how it reads an answer.
//!
//! ```text
//!   Idle --assigned--> Claiming --claimed--> Working --decide, send--> Settling
//!    ^                    ^                     ^                       |     |
//!    |                    |                     +-- every other answer -+  fenced
//!    |                    +---- still owner ----+                             |
//!    +------ no longer owner -------------------+---- asks the broker ---- Fenced
//! ```
//!
//! Assigned and crashed lead out of every phase; lower than known leads to a halt.

use crate::faults::{Fault, Protocol};
use crate::log;
use crate::log::{Entity, Offset, Outcomes};
use crate::store::{Answer, Claim, ClaimId, Database, Debt, DecisionId, Row, Settle};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not running: never assigned, or crashed.
    #[default]
    Down,
    Idle,
    Claiming,
    Working,
    Settling,
    Fenced,
}

/// Where a writer stands: the newest token and cursor that it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    pub token: u8,
    pub cursor: Offset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    pub phase: Phase,
    /// How many claim ids it has drawn. Stands for randomness, so it outlives a crash.
    claims_drawn: u8,
    decisions_drawn: u8,
    pub claim: Claim,
    pub cursor: Offset,
    batch_seq: usize,
    /// The decision of its batch `batch_seq`.
    decision: Option<DecisionId>,
    cache: Option<Entity>,
    /// Ids it need not run again: settled by itself under this claim, or looked up after *duplicate*.
    known: Outcomes,
    /// Durable, not published; the oldest first.
    pub debts: Vec<Debt>,
    /// Published, not yet marked in the database nor acknowledged: the newest.
    pub unmarked: Option<Debt>,
    /// For the auditor: the highest that this process has ever known, by itself or by the witness.
    pub highest: Seen,
}

impl Writer {
    /// Begins to claim, and forgets all but what it knows of the past and what it owes.
    pub fn draw_claim_id(&mut self, member: usize, rules: Protocol) -> ClaimId {
        self.stop(Phase::Claiming, rules);
        self.claims_drawn += 1;
        ClaimId(member, self.claims_drawn)
    }

    pub fn crash(&mut self) {
        *self = Writer { claims_drawn: self.claims_drawn, ..Writer::default() };
    }

    pub fn stop(&mut self, phase: Phase, rules: Protocol) {
        self.phase = phase;
        self.decisions_drawn = 0;
        self.known = [None; 2];
        if !rules.has(Fault::CacheKeptOverClaim) {
            self.cache = None;
        }
    }

    /// Decides the next `count` commands on cached state. What is not cached is read first, in one snapshot with
    /// the row: an entity read by a fenced writer could be of a history that a failover then undoes.
    pub fn decide(&mut self, count: usize, db: &mut Database, rules: Protocol) -> Option<Settle> {
        if self.cache.is_none() && !rules.has(Fault::ReadUnfenced) && !self.stands(db, rules) {
            return None;
        }
        let base = *self.cache.get_or_insert(db.entity);
        let (records, after) = log::decide(base, self.known, self.cursor, count);
        self.phase = Phase::Settling;
        self.decisions_drawn += 1;
        Some(Settle {
            claim: self.claim,
            cursor: self.cursor,
            batch_seq: self.batch_seq,
            follows: self.decision,
            decision: DecisionId(self.claim.id, self.cursor, self.decisions_drawn),
            base,
            records,
            after,
        })
    }

    /// A claim was answered. `witness` is the group's committed offset, read *before* the claim was sent:
    /// read after it, a newer owner's progress would look like a database that went back.
    pub fn claimed(&mut self, claim: Claim, witness: Offset, db: &mut Database, rules: Protocol) {
        // The claim itself added 1: a token that only equals mine was lower before.
        let lower = claim.token <= self.claim.token || self.knows_better_than(&db.row, rules);
        let behind_witness = db.row.cursor < witness && !rules.has(Fault::NoWitness);
        if (lower || behind_witness) && !rules.has(Fault::PastBelieved) {
            db.row.halted = true;
            return;
        }
        self.claim = claim;
        let cache = self.cache; // Empty, but for a fault.
        self.go_on_from(db, rules);
        self.cache = cache;
        self.highest.cursor = self.highest.cursor.max(witness);
    }

    /// The settle call it was waiting for was answered.
    pub fn settled(&mut self, call: &Settle, answer: Answer, db: &mut Database, rules: Protocol) {
        self.phase = Phase::Working;
        match answer {
            Answer::Committed => self.advance(call),
            Answer::Conflict => self.cache = None,
            Answer::Duplicate => {
                for record in &call.records {
                    self.known[record.id()] = db.settled[record.id()];
                }
            }
            Answer::ZeroRows => self.zero_rows(call, db, rules),
        }
    }

    /// What zero rows mean: the row is read and compared with what I know, with whose it is, with my decision.
    fn zero_rows(&mut self, call: &Settle, db: &mut Database, rules: Protocol) {
        if !self.stands(db, rules) {
            return;
        }
        let one_further = db.row.batch_seq == self.batch_seq + 1;
        let mine = if rules.has(Fault::NoDecisionId) { one_further } else { db.row.decision == Some(call.decision) };
        if mine {
            self.advance(call);
        } else if one_further || rules.has(Fault::NoHistory) || rules.has(Fault::PastBelieved) {
            self.go_on_from(db, rules); // An earlier attempt of mine won.
        } else {
            db.row.halted = true; // The row went back, and rose again without me.
        }
    }

    /// A lower token or cursor, or at my own batch a decision that is not mine: the row is of another history.
    pub fn knows_better_than(&self, row: &Row, rules: Protocol) -> bool {
        let lower = row.owner.token < self.claim.token || row.cursor < self.cursor;
        let other =
            row.batch_seq < self.batch_seq || (row.batch_seq == self.batch_seq && row.decision != self.decision);
        lower || (other && !rules.has(Fault::NoHistory))
    }

    /// Halts when the row is lower than known, stops when another owns it, and is true otherwise.
    /// In this order: a fenced writer that knows better must not just leave.
    fn stands(&mut self, db: &mut Database, rules: Protocol) -> bool {
        let owner = db.is_owned_by(self.claim, rules);
        let lower = self.knows_better_than(&db.row, rules);
        if lower && !rules.has(Fault::PastBelieved) {
            db.row.halted = true;
            return false;
        }
        if !owner {
            self.stop(Phase::Fenced, rules);
        }
        owner
    }

    fn advance(&mut self, call: &Settle) {
        self.decisions_drawn = 0;
        self.cursor += call.records.len();
        self.batch_seq += 1;
        self.decision = Some(call.decision);
        self.cache = Some(call.after);
        for record in &call.records {
            self.known[record.id()] = Some(record.outcome);
        }
        self.debts.push(Debt { batch_seq: self.batch_seq, decision: call.decision, records: call.records.clone() });
        self.remember();
    }

    fn go_on_from(&mut self, db: &Database, rules: Protocol) {
        self.phase = Phase::Working;
        self.cursor = db.row.cursor;
        self.batch_seq = db.row.batch_seq;
        self.decision = db.row.decision;
        self.decisions_drawn = 0;
        self.cache = None;
        self.unmarked = None;
        self.debts.clear();
        if !rules.has(Fault::DebtsForgotten) {
            let stored = db.batches.iter().enumerate().skip(db.row.published_seq);
            self.debts.extend(stored.map(|(index, batch)| Debt {
                batch_seq: index + 1,
                decision: batch.decision,
                records: batch.records.clone(),
            }));
        }
        self.remember();
    }

    fn remember(&mut self) {
        self.highest.token = self.highest.token.max(self.claim.token);
        self.highest.cursor = self.highest.cursor.max(self.cursor);
    }
}
