//! Step 5, decide: handlers run in offset order over prefetched state.
//! Synchronous, deterministic, no I/O. A command in SQL is decided as *in the
//! database*: a function and its arguments, which the commit completes.

mod encode;
mod handle;
mod redrive;

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

pub use self::encode::part_bytes_max;
use self::encode::storable;
#[cfg(feature = "cli")]
pub(crate) use self::handle::called;
use self::handle::{Handled, handle};
pub use self::redrive::{Action, LetterChange, LetterChanges, RequestedLetter, redrive};
use super::Rules;
use super::deduplicate::{Deduplicator, Verdict};
use super::receive::Fault;
use crate::command::Command;
use crate::config::OnFailure;
use crate::cursor::LastSettled;
use crate::dead_letter::{DeadCode, DeadLetter, LetterState};
use crate::halt::{Halt, HaltCode};
use crate::handlers::State;
use crate::handlers::sql::Write;
use crate::outcome::{Delivery, ENCODING, Ending, FinalOutcome};
use crate::parked_keys::ParkedKeys;
use crate::record::{Record, TopicPartition};

/// A received record: a command on its own partition, or a dead letter.
pub type Routed = Result<Command, Box<DeadLetter>>;

/// An entity as a batch works on it.
pub struct Entity {
    /// The version that the decisions rest on: what the database holds. `None`:
    /// there is no row.
    pub base: Option<i64>,
    /// The version after the batch: how many commands have been applied.
    pub version: i64,
    /// The state after the batch, or why the stored one does not decode.
    pub state: Result<Box<dyn State>, String>,
}

/// The entities that a batch's commands address, by id. Empty for commands in
/// SQL: the database counts their versions.
pub type Entities = HashMap<Arc<str>, Entity>;

/// What a batch does to one entity, or rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityChange {
    /// The entity's id.
    pub entity_id: Arc<str>,
    /// The version that must still be there; `None`: no row may be there.
    pub base: Option<i64>,
    /// The next version and state; `None`: only read, but still checked.
    pub change: Option<(i64, String)>,
}

/// A command that the database decides inside the commit.
#[derive(Clone, Debug)]
pub struct Called {
    /// What is known of it already.
    pub delivery: Delivery,
    /// The number of the function that decides.
    pub function: i16,
    /// The function's arguments: a JSON array of texts.
    pub arguments: String,
}

impl Called {
    /// The final outcome, once the database has decided.
    pub fn ended(&self, version: i64, ending: Ending) -> FinalOutcome {
        FinalOutcome { delivery: self.delivery.clone(), version, ending, encoding: ENCODING }
    }
}

/// A write that a handler in Rust asked for, with the command that it belongs to.
#[derive(Clone, Debug)]
pub struct OwnWrite {
    /// The function and its arguments.
    pub write: Write,
    /// The command's id.
    pub command_id: Uuid,
    /// The entity's id.
    pub entity_id: Arc<str>,
    /// The command's offset.
    pub offset: i64,
    /// Its record's time, milliseconds since 1970.
    pub record_time_ms: i64,
}

/// A record of the batch that owes a publication, in order of settlement.
#[derive(Clone, Debug)]
pub enum Owed {
    /// A final outcome, with its events.
    Outcome(Arc<FinalOutcome>),
    /// A stored outcome again, without the events.
    Repeat(Arc<FinalOutcome>),
    /// The outcome of the n-th command that the database decides, with its events.
    Called(usize),
    /// The same again, without the events: a repeat in the batch.
    CalledRepeat(usize),
    /// The outcome of the n-th dead letter of the batch.
    Dead(usize),
}

/// What is decided of a batch: a value. Nothing has happened yet.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What it settles.
    pub settles: Settles,
    /// The new final outcomes, in order. Empty, or else `called` is.
    pub outcomes: Vec<Arc<FinalOutcome>>,
    /// The commands that the database decides, in order.
    pub called: Vec<Called>,
    /// What handlers write in the commit, in order.
    pub writes: Vec<OwnWrite>,
    /// What runs in the database runs at isolation level serializable.
    pub serializable: bool,
    /// The dead letters, in order.
    pub dead: Vec<DeadLetter>,
    /// What is to be published, in order.
    pub owed: Vec<Owed>,
    /// Every entity that a decision rests on, sorted by id.
    pub entities: Vec<EntityChange>,
    /// The parked keys after it.
    pub parked: ParkedKeys,
}

/// What a batch settles.
#[derive(Clone, Debug)]
pub enum Settles {
    /// Records of the log.
    Log {
        /// Offset of the first.
        first_offset: i64,
        /// The record that the cursor will stand behind.
        last: LastSettled,
    },
    /// Dead letters, again. The cursor stays.
    Letters(LetterChanges),
}

impl Decision {
    fn new(settles: Settles, batch: &[Routed], parked: ParkedKeys) -> Self {
        Self {
            settles,
            outcomes: Vec::with_capacity(batch.len()),
            called: Vec::new(),
            writes: Vec::new(),
            serializable: batch.iter().flatten().any(|command| command.command_type.is_serializable()),
            dead: Vec::new(),
            owed: Vec::with_capacity(batch.len()),
            entities: Vec::new(),
            parked,
        }
    }

    /// Whether a team's own statements run in its commit.
    pub fn runs_in_database(&self) -> bool {
        !self.called.is_empty() || !self.writes.is_empty()
    }

    /// The delivery, by offset and command id, of the n-th command, or write, that runs in the
    /// database.
    pub fn delivery_in_database(&self, n: usize) -> Option<(i64, Uuid)> {
        let called = self.called.get(n).map(|called| (called.delivery.offset, called.delivery.command_id));
        called.or_else(|| self.writes.get(n).map(|write| (write.offset, write.command_id)))
    }

    /// The ids of its final outcomes.
    pub fn final_ids(&self) -> impl Iterator<Item = Uuid> {
        let outcomes = self.outcomes.iter().map(|outcome| outcome.delivery.command_id);
        outcomes.chain(self.called.iter().map(|called| called.delivery.command_id))
    }
}

/// What only the database could tell of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its delivery is dead.
    Dead(DeadCode, String),
    /// One of its writes broke a rule: rejected, with code and detail.
    Rejected(String, Option<String>),
}

/// How carefully to decide.
#[derive(Clone, Debug, Default)]
pub struct Caution {
    /// Encode the state after each command, to find the one whose state cannot
    /// be stored. Ordinarily it is encoded once per entity and batch.
    pub encode_each: bool,
    /// What the database has told of deliveries: by offset and command id, as letters of several
    /// partitions may stand in one batch.
    pub judged: HashMap<(i64, Uuid), Judgement>,
}

/// What a batch is decided on.
pub struct Basis<'b> {
    /// The partition's rules.
    pub rules: &'b Rules,
    /// What is known of the ids.
    pub deduplicator: &'b mut Deduplicator,
    /// The entities that the commands address.
    pub entities: &'b mut Entities,
    /// How carefully.
    pub caution: &'b Caution,
}

/// Why a batch is not decided.
#[derive(Debug)]
pub enum Undecided {
    /// An entity's new state cannot be stored: decide again, carefully.
    Unstorable,
    /// The partition halts at the n-th item of the batch; those before it may be settled.
    Halts(usize, Halt),
}

/// Decides a batch, which is not empty.
///
/// # Errors
/// [`Undecided`]: nothing is decided; the entities are spent.
pub fn decide(batch: &[Routed], basis: &mut Basis<'_>, parked: ParkedKeys) -> Result<Decision, Undecided> {
    let last = record_of(batch.last().expect("a batch is not empty"));
    let settles = Settles::Log {
        first_offset: record_of(&batch[0]).offset,
        last: LastSettled { offset: last.offset, timestamp_ms: last.timestamp_ms, checksum: last.checksum() },
    };
    let mut decision = Decision::new(settles, batch, parked);
    for (n, routed) in batch.iter().enumerate() {
        match routed {
            Ok(command) => decision.judge(command, basis).map_err(|halt| Undecided::Halts(n, halt))?,
            Err(letter) => decision.die((**letter).clone()),
        }
    }
    decision.entities = changes(basis.entities)?;
    Ok(decision)
}

/// The record behind a received item.
pub fn record_of(routed: &Routed) -> &Record {
    match routed {
        Ok(command) => &command.record,
        Err(letter) => &letter.record,
    }
}

impl Decision {
    fn judge(&mut self, command: &Command, basis: &mut Basis<'_>) -> Result<(), Halt> {
        match basis.deduplicator.judge(command) {
            Verdict::Duplicate(outcome) => self.owed.push(Owed::Repeat(outcome)),
            Verdict::DuplicateOfCalled(n) => self.owed.push(Owed::CalledRepeat(n)),
            Verdict::Dead(fault) => self.die(command.dead(fault)),
            Verdict::Fresh if self.parked.contains(command.entity_id()) => return self.wait(command, basis.rules),
            Verdict::Fresh => match handle(command, basis) {
                Ok(handled) => self.handled(handled, basis.deduplicator),
                Err(fault) => return self.fail(command, fault, basis.rules),
            },
        }
        Ok(())
    }

    fn handled(&mut self, handled: Handled, deduplicator: &mut Deduplicator) {
        match handled {
            Handled::Decided(outcome, writes) => {
                self.writes.extend(writes);
                let outcome = Arc::new(outcome);
                deduplicator.settled(outcome.clone());
                self.owed.push(Owed::Outcome(outcome.clone()));
                self.outcomes.push(outcome);
            }
            Handled::InDatabase(called) => {
                deduplicator.called(&called.delivery, self.called.len());
                self.owed.push(Owed::Called(self.called.len()));
                self.called.push(called);
            }
        }
    }

    /// The delivery is dead. A command that has failed on its own account parks its key.
    fn fail(&mut self, command: &Command, fault: Fault, rules: &Rules) -> Result<(), Halt> {
        let letter = command.dead(fault);
        if !letter.code.parks() {
            self.die(letter);
            return Ok(());
        }
        match rules.parking.on_failure {
            OnFailure::Skip => self.die(letter),
            OnFailure::ParkKey => {
                self.has_room(rules)?;
                self.parked.park(command.entity_id());
                self.die(DeadLetter { state: LetterState::Parked, ..letter });
            }
            OnFailure::HaltPartition => {
                let at = format_args!("{}:{}", rules.source, command.record.offset);
                let detail = format!(
                    "the command at {at} failed, {}: {}; it is {} of {:?}; on_failure is halt-partition, so nothing behind \
                     it runs: mend the cause, and it runs again when the partition is resumed, or give it up with --skip-to {}",
                    letter.code,
                    letter.detail,
                    command.command_type.name,
                    command.entity_id(),
                    command.record.offset + 1
                );
                return Err(Halt::new(HaltCode::HandlerFailed, detail));
            }
        }
        Ok(())
    }

    /// The command waits behind a parked one of its key.
    fn wait(&mut self, command: &Command, rules: &Rules) -> Result<(), Halt> {
        let key = command.entity_id();
        if self.parked.waiting(key) >= rules.parking.waiting_per_key_max {
            let held = format!("{} commands wait behind the parked key {key:?}", self.parked.waiting(key));
            return Err(parked_limit(&held, "worker.waiting_per_key_max", rules));
        }
        self.has_room(rules)?;
        self.parked.add(key, 1);
        let letter = command.dead((DeadCode::ParkedKey, "its key waits behind a dead letter".to_owned()));
        self.die(DeadLetter { state: LetterState::Waiting, ..letter });
        Ok(())
    }

    /// Whether one more command may be parked, or wait.
    fn has_room(&self, rules: &Rules) -> Result<(), Halt> {
        let (keys, waiting) = (self.parked.len() as u64, self.parked.waiting_in_all());
        if keys + waiting < rules.parking.waiting_max {
            return Ok(());
        }
        let held = format!("{keys} keys are parked and {waiting} commands wait behind them");
        Err(parked_limit(&held, "worker.waiting_max", rules))
    }

    fn die(&mut self, letter: DeadLetter) {
        self.owed.push(Owed::Dead(self.dead.len()));
        self.dead.push(letter);
    }
}

fn parked_limit(held: &str, setting: &str, rules: &Rules) -> Halt {
    let TopicPartition { topic, partition } = &rules.source;
    let detail = format!(
        "{held}, no more may ({setting}), so nothing of the partition is settled: first mend what failed (solewriter \
         dead-letters list --topic {topic} --partition {partition} --state parked), then redrive or discard: solewriter \
         dead-letters redrive --topic {topic} --partition {partition} --reason … --execute; that is done when the \
         partition is resumed"
    );
    Halt::new(HaltCode::ParkedLimit, detail)
}

fn changes(entities: &Entities) -> Result<Vec<EntityChange>, Undecided> {
    let mut changes = Vec::with_capacity(entities.len());
    for (entity_id, entity) in entities {
        let change = match &entity.state {
            Ok(state) if entity.version > entity.base.unwrap_or(0) => {
                Some((entity.version, storable(&**state).map_err(|_| Undecided::Unstorable)?))
            }
            _ => None,
        };
        changes.push(EntityChange { entity_id: entity_id.clone(), base: entity.base, change });
    }
    // sorted, so that two batches that touch the same rows cannot deadlock
    changes.sort_by(|a, b| a.entity_id.cmp(&b.entity_id));
    Ok(changes)
}

#[cfg(test)]
pub(crate) mod tests;
