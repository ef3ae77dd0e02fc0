//! What of the log ran, and in which order: what only the tables know, put together for one chunk of records.
//!
//! A record whose delivery settled its command runs, whatever the log looks like around it. A redriven letter
//! runs where its version says: the versions of an entity's outcomes are the order of its commands.

use std::collections::HashMap;
use std::sync::Arc;

use crate::command::Command;
use crate::dead_letter::{DeadCode, LetterState};
use crate::outcome::{Ending, FinalOutcome};
use crate::postgres::CutLetter;
use crate::record::{Record, TopicPartition};
use crate::steps::Rules;
use crate::steps::decide::Routed;
use crate::steps::receive::receive;
use crate::steps::route::route;

/// What the tables say of a command that runs.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// Its final outcome.
    Outcome(Arc<FinalOutcome>),
    /// Its id is older than the horizon, and its outcome is no longer kept.
    Forgotten,
    /// Nothing, although it was settled: what it leaves is a difference, unless it repeats another.
    Nothing,
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Due {
    pub command: Command,
    pub expected: Expected,
}

/// What a record is to the rebuild.
#[derive(Debug)]
pub(super) enum Role {
    /// It runs here.
    Runs(Due),
    /// It was a dead letter and ran later, where the version says.
    RanLater(Due),
    /// It was a dead letter and ran later, nobody knows when: it is run here.
    RanSometime(Due),
    /// It had no effect: dead, a repeat, or skipped by an operator.
    Passes,
    /// The tables have an outcome of this delivery, and it is no command (why).
    Unreadable(Arc<FinalOutcome>, DeadCode),
    /// It is no command (why), and the tables have no dead letter of it.
    LetterMissing(DeadCode),
}

/// What is known of one record.
pub(super) struct Known<'a> {
    pub rules: &'a Rules,
    /// Its dead letter at the cut.
    pub letter: Option<&'a CutLetter>,
    /// The final outcome of its command's id.
    pub outcome: Option<&'a Arc<FinalOutcome>>,
    /// Its id is below the horizon, which was read after the outcome was.
    pub is_below_horizon: bool,
    /// Some batch has settled its offset, or may have.
    pub is_settled: bool,
}

impl Known<'_> {
    /// The role of this record.
    pub fn role(&self, record: Record) -> Role {
        let state = self.letter.and_then(|letter| LetterState::parse(&letter.state));
        match (self.letter, state) {
            (Some(letter), Some(LetterState::Redriven)) => self.redriven(record, letter),
            (Some(_), _) => Role::Passes,
            (None, _) if self.is_here(&record, self.rules) => self.runs(record),
            (None, _) if !self.is_settled => Role::Passes,
            (None, _) => self.undocumented(record),
        }
    }

    fn is_here(&self, record: &Record, rules: &Rules) -> bool {
        self.outcome.is_some_and(|outcome| is_of(outcome, record, &rules.source))
    }

    /// The tables say that this delivery settled its command.
    fn runs(&self, record: Record) -> Role {
        let Some(outcome) = self.outcome else { return Role::Passes };
        // not routed: the partition was its key's when it was settled
        match receive(record, self.rules) {
            Ok(command) => Role::Runs(Due { command, expected: Expected::Outcome(outcome.clone()) }),
            Err(dead) => Role::Unreadable(outcome.clone(), dead.code),
        }
    }

    fn redriven(&self, record: Record, letter: &CutLetter) -> Role {
        let is_here = self.is_here(&record, self.rules);
        let routed = match letter.edited_value.as_deref() {
            Some(value) => corrected(record, value, self.rules),
            None => receive(record, self.rules),
        };
        match (routed, self.outcome) {
            (Err(dead), Some(outcome)) if is_here => Role::Unreadable(outcome.clone(), dead.code),
            // its copy is what ran
            (Err(_), _) => Role::Passes,
            (Ok(command), Some(outcome)) if is_here => {
                Role::RanLater(Due { command, expected: Expected::Outcome(outcome.clone()) })
            }
            (Ok(_), Some(_)) => Role::Passes,
            // produced again, to the partition of its key: its copy ran, or is forgotten there
            (Ok(_), None) if letter.code == DeadCode::Misrouted.as_str() => Role::Passes,
            (Ok(command), None) if self.is_below_horizon => {
                let due = Due { command, expected: Expected::Forgotten };
                // a letter that held its key ran before anything behind it did
                if held_its_key(letter) { Role::Runs(due) } else { Role::RanSometime(due) }
            }
            (Ok(command), None) => Role::Runs(Due { command, expected: Expected::Nothing }),
        }
    }

    /// It was settled, and neither an outcome nor a letter says how.
    fn undocumented(&self, record: Record) -> Role {
        if self.outcome.is_some() {
            return Role::Passes; // another delivery of its command was settled
        }
        match receive(record, self.rules).and_then(|command| route(command, self.rules)) {
            Ok(command) if self.is_below_horizon => Role::Runs(Due { command, expected: Expected::Forgotten }),
            Ok(command) => Role::Runs(Due { command, expected: Expected::Nothing }),
            Err(dead) => Role::LetterMissing(dead.code),
        }
    }
}

fn is_of(outcome: &FinalOutcome, record: &Record, source: &TopicPartition) -> bool {
    let delivery = &outcome.delivery;
    delivery.source == *source && delivery.offset == record.offset && delivery.record_time_ms == record.time_ms()
}

fn held_its_key(letter: &CutLetter) -> bool {
    let codes = [DeadCode::HandlerFailed, DeadCode::DataError, DeadCode::ParkedKey];
    codes.iter().any(|code| code.as_str() == letter.code)
}

/// A command with its payload corrected: it keeps the fingerprint of the original, if that is a command.
fn corrected(record: Record, value: &[u8], rules: &Rules) -> Routed {
    let edited = receive(record.with_value(value), rules)?;
    match receive(record, rules) {
        Ok(original) => Ok(Command { fingerprint: original.fingerprint, ..edited }),
        Err(_) => Ok(edited),
    }
}

/// Letters that ran later than their records came, until their turn.
#[derive(Debug, Default)]
pub(super) struct Later {
    of_key: HashMap<String, Vec<Due>>,
}

impl Later {
    /// Keeps one until its turn comes.
    pub fn keep(&mut self, due: Due) {
        self.of_key.entry(due.command.entity_id().to_owned()).or_default().push(due);
    }

    /// Those of the key that ran before this command did, in their order.
    pub fn before(&mut self, due: &Due) -> Vec<Due> {
        let (Some(place), Some(kept)) = (place(due), self.of_key.get_mut(due.command.entity_id())) else {
            return Vec::new();
        };
        let mut before: Vec<Due> = kept.extract_if(.., |later| self::place(later) < Some(place)).collect();
        if kept.is_empty() {
            self.of_key.remove(due.command.entity_id());
        }
        before.sort_by_key(self::place);
        before
    }

    /// All that are left, those of each key in their order.
    pub fn rest(&mut self) -> Vec<Due> {
        let mut rest: Vec<Due> = self.of_key.drain().flat_map(|(_, kept)| kept).collect();
        rest.sort_by_key(place);
        rest
    }
}

/// Where a command stood among those of its entity: the version that it found, and of those that found the same
/// one the one that was applied last. `None`: the tables do not tell.
fn place(due: &Due) -> Option<(i64, bool)> {
    match &due.expected {
        Expected::Outcome(outcome) => match outcome.ending {
            Ending::Applied { .. } => Some((outcome.version - 1, true)),
            Ending::Rejected { .. } => Some((outcome.version, false)),
        },
        Expected::Forgotten | Expected::Nothing => None,
    }
}
