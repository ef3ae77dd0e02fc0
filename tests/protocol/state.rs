//! The state of the whole, and what each step does to it.

use crate::faults::{Fault, Protocol};
use crate::kafka::Kafka;
use crate::log::Offset;
use crate::store::{Answer, ClaimId, Database, Settle};
use crate::writer::{Phase, Writer};

pub type Member = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Claim { id: ClaimId, witness: Offset },
    Settle(Settle),
}

/// A call on its way to the database. It outlives the patience, and the life, of its sender.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InFlight {
    pub sender: Member,
    /// False once the sender has given up or died: its answer will reach nobody.
    pub awaited: bool,
    pub call: Call,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The end of the log.
    pub end: Offset,
    pub db: Database,
    /// Where a failover would go back to: a standby that no longer follows.
    pub standby: Option<Database>,
    pub kafka: Kafka,
    pub writers: [Writer; 2],
    /// Sorted: two orders of sending are one state.
    pub in_flight: Vec<InFlight>,
    pub disturbances_left: u8,
    pub deposited: bool,
    pub failed_over: bool,
    /// The failover lost a committed batch: an outcome may differ from its older copy if nobody knows better.
    pub batch_lost: bool,
}

impl State {
    pub fn claim(&mut self, member: Member, protocol: Protocol) {
        self.forget_answers(member);
        let id = self.writers[member].draw_claim_id(member, protocol);
        let witness = self.kafka.committed;
        self.send(member, Call::Claim { id, witness });
    }

    pub fn send(&mut self, sender: Member, call: Call) {
        self.in_flight.push(InFlight { sender, awaited: true, call });
    }

    pub fn forget_answers(&mut self, sender: Member) {
        let own = |flight: &&mut InFlight| flight.sender == sender;
        for flight in self.in_flight.iter_mut().filter(own) {
            flight.awaited = false;
        }
    }

    pub fn remove(&mut self, flight: &InFlight) {
        let at = self.in_flight.iter().position(|other| other == flight);
        self.in_flight.remove(at.expect("the call is in flight"));
    }

    pub fn give_up(&mut self, member: Member, protocol: Protocol) {
        if self.writers[member].phase == Phase::Claiming {
            return self.claim(member, protocol);
        }
        let own = |flight: &&InFlight| flight.sender == member && flight.awaited;
        let sent = self.in_flight.iter().find(own).cloned();
        self.forget_answers(member);
        self.in_flight.extend(sent);
    }

    /// None where a call changes nothing and nobody waits: it may as well arrive later, or never.
    pub fn execute(&mut self, flight: InFlight, protocol: Protocol) -> Option<()> {
        self.remove(&flight);
        let (db, writer) = (&mut self.db, &mut self.writers[flight.sender]);
        match flight.call {
            Call::Claim { id, witness } => {
                let claim = db.claim(id);
                if flight.awaited {
                    writer.claimed(claim, witness, db, protocol);
                }
            }
            Call::Settle(call) => {
                let answer = db.settle(&call, protocol);
                if flight.awaited {
                    writer.settled(&call, answer, db, protocol);
                } else if answer != Answer::Committed {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Calls that nobody waits for, and that neither this database nor the standby could still accept.
    pub fn forget_dead_calls(&mut self, protocol: Protocol) {
        let (db, standby) = (&self.db, &self.standby);
        self.in_flight.retain(|flight| match &flight.call {
            Call::Settle(call) if !flight.awaited => {
                let may_accept = |db: &Database| db.may_accept(call, protocol);
                may_accept(db) || standby.as_ref().is_some_and(may_accept)
            }
            _ => true,
        });
    }

    pub fn disturb(&mut self) -> Option<()> {
        self.disturbances_left = self.disturbances_left.checked_sub(1)?;
        Some(())
    }

    pub fn decide(&mut self, member: Member, count: usize, protocol: Protocol) {
        let Some(call) = self.writers[member].decide(count, &mut self.db, protocol) else {
            return;
        };
        if protocol.has(Fault::PublishBeforeCommit) {
            self.kafka.publish(&call.records);
        }
        if protocol.has(Fault::AcknowledgeBeforeCommit) {
            self.kafka.commit(member, call.cursor + count);
        }
        self.send(member, Call::Settle(call));
    }

    pub fn publish(&mut self, member: Member) {
        let writer = &mut self.writers[member];
        for debt in writer.debts.drain(..) {
            self.kafka.publish(&debt.records);
            writer.unmarked = Some(debt);
        }
    }

    pub fn mark_and_acknowledge(&mut self, member: Member, protocol: Protocol) {
        let writer = &mut self.writers[member];
        if let Some(debt) = writer.unmarked.take() {
            self.db.mark_published(writer.claim, &debt, protocol);
            let end = debt.records.last().map_or(0, |r| r.offset + 1);
            self.kafka.commit(member, end);
        }
    }

    pub fn ask_broker(&mut self, member: Member, protocol: Protocol) {
        let owner = self.kafka.owner == member || protocol.has(Fault::FencedClaimsAgain);
        if owner && !protocol.has(Fault::FencedGivesUp) {
            self.claim(member, protocol);
        } else {
            self.writers[member].stop(Phase::Idle, protocol);
        }
    }

    pub fn fail_over(&mut self) {
        if let Some(standby) = self.standby.take() {
            self.batch_lost = standby.batches != self.db.batches;
            self.failed_over = true;
            self.db = standby;
        }
    }
}
