//! The database: the partitions row, the tables around it, and the transactions on them, each atomic.

use crate::faults::{Fault, Protocol};
use crate::log::{Entity, Offset, Outcomes, Record};

/// Random in reality; here the writer and how many it has drawn, so that none is drawn twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(pub usize, pub u8);

/// Ownership of the partition, as the row and a claimant write it down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    pub token: u8,
    pub id: ClaimId,
}

/// Random in reality; here the claim, and how many decisions at one cursor were made under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(pub ClaimId, pub Offset, pub u8);

/// One call of `settle_batch`: what was decided, and everything that the decision was based on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Settle {
    pub claim: Claim,
    pub cursor: Offset,
    pub batch_seq: usize,
    /// The decision that the row must hold: another one at the same cursor is another history.
    pub follows: Option<DecisionId>,
    pub decision: DecisionId,
    pub base: Entity,
    pub records: Vec<Record>,
    pub after: Entity,
}

/// What the database answers to a settle call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Committed,
    ZeroRows,
    Conflict,
    Duplicate,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    pub owner: Claim,
    pub cursor: Offset,
    pub batch_seq: usize,
    pub decision: Option<DecisionId>,
    pub published_seq: usize,
    pub halted: bool,
}

/// A durable batch, as the publisher knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Debt {
    pub batch_seq: usize,
    pub decision: DecisionId,
    pub records: Vec<Record>,
}

/// A settled batch. `owner`, `before` and `after` are for the auditor: what was true at the commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    pub claim: Claim,
    pub records: Vec<Record>,
    pub decision: DecisionId,
    pub follows: Option<DecisionId>,
    pub owner: Claim,
    pub before: Entity,
    pub after: Entity,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    pub row: Row,
    pub entity: Entity,
    pub settled: Outcomes,
    pub batches: Vec<Batch>,
}

impl Database {
    pub fn new() -> Database {
        Database { row: Row::default(), entity: Entity::OPENED, settled: [None; 2], batches: Vec::new() }
    }

    pub fn claim(&mut self, id: ClaimId) -> Claim {
        let token = self.row.owner.token + 1;
        self.row.owner = Claim { token, id };
        self.row.owner
    }

    pub fn is_owned_by(&self, claim: Claim, protocol: Protocol) -> bool {
        if protocol.has(Fault::NoFence) {
            return true;
        }
        let same_id = claim.id == self.row.owner.id || protocol.has(Fault::NoClaimId);
        claim.token == self.row.owner.token && same_id
    }

    /// Everything or nothing: every check comes before the first write.
    pub fn settle(&mut self, call: &Settle, protocol: Protocol) -> Answer {
        let here =
            (call.cursor, call.batch_seq) == (self.row.cursor, self.row.batch_seq) || protocol.has(Fault::NoCursor);
        let same_history =
            call.follows == self.row.decision || protocol.has(Fault::NoHistory) || protocol.has(Fault::NoCursor);
        let in_place = here && same_history;
        if self.row.halted || !self.is_owned_by(call.claim, protocol) || !in_place {
            return Answer::ZeroRows;
        }
        let unchecked = call.after == call.base && protocol.has(Fault::RejectionsUnchecked);
        if call.base.version != self.entity.version && !unchecked {
            return Answer::Conflict;
        }
        let unique = |r: &Record| r.repeat || self.settled[r.id()].is_none();
        if !call.records.iter().all(unique) && !protocol.has(Fault::NoIdempotency) {
            return Answer::Duplicate;
        }
        self.commit(call);
        Answer::Committed
    }

    fn commit(&mut self, call: &Settle) {
        let before = self.entity;
        if call.after != call.base {
            self.entity = call.after;
        }
        for record in call.records.iter().filter(|r| !r.repeat) {
            self.settled[record.id()] = Some(record.outcome);
        }
        self.batches.push(Batch {
            claim: call.claim,
            records: call.records.clone(),
            decision: call.decision,
            follows: call.follows,
            owner: self.row.owner,
            before,
            after: self.entity,
        });
        self.row.cursor = call.cursor + call.records.len();
        self.row.batch_seq += 1;
        self.row.decision = Some(call.decision);
    }

    /// Could this call still commit here, now or after others did?
    pub fn may_accept(&self, call: &Settle, protocol: Protocol) -> bool {
        let ahead = call.cursor >= self.row.cursor || protocol.has(Fault::NoCursor);
        self.is_owned_by(call.claim, protocol) && ahead
    }

    /// Raises the watermark: as owner only, and only to a batch that this database holds as it was published.
    pub fn mark_published(&mut self, claim: Claim, debt: &Debt, protocol: Protocol) {
        let batch = self.batches.get(debt.batch_seq - 1);
        let held =
            batch.is_some_and(|batch| batch.decision == debt.decision) || protocol.has(Fault::WatermarkUnchecked);
        if held && self.is_owned_by(claim, protocol) {
            self.row.published_seq = self.row.published_seq.max(debt.batch_seq);
        }
    }
}
