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

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;
    use crate::outcome::{Delivery, ENCODING};
    use crate::steps::decide::tests::rules;

    fn record(offset: i64, id: u128) -> Record {
        let id = Uuid::from_u128(id).to_string();
        let headers = [(&b"ce_id"[..], Some(id.as_bytes())), (b"ce_type", Some(b"account.open"))];
        Record::copied(offset, 5, Some(b"a"), Some(br#"{"by":1}"#), &headers)
    }

    fn outcome(offset: i64, version: i64, code: Option<&'static str>) -> Arc<FinalOutcome> {
        let rules = rules();
        let command = receive(record(offset, 7), &rules).expect("a command");
        let delivery = Delivery {
            command_id: command.id,
            command_type: "account.open".into(),
            entity_type: "account".into(),
            entity_id: "a".into(),
            fingerprint: command.fingerprint,
            source: rules.source,
            offset,
            record_time_ms: 5,
            traceparent: None,
        };
        let reply = || RawValue::NULL.to_owned();
        let ending = match code {
            None => Ending::Applied { reply: reply(), events: Vec::new() },
            Some(code) => Ending::Rejected { code: code.into(), detail: None },
        };
        Arc::new(FinalOutcome { delivery, version, ending, encoding: ENCODING })
    }

    fn letter(state: &str, code: &str) -> CutLetter {
        CutLetter {
            dead_letter_id: 1,
            log_offset: 20,
            record_time_ms: 5,
            code: code.into(),
            state: state.into(),
            edited_value: None,
            command_id: None,
        }
    }

    fn role(letter: Option<&CutLetter>, outcome: Option<&Arc<FinalOutcome>>, below: bool, settled: bool) -> Role {
        let rules = rules();
        let known = Known { rules: &rules, letter, outcome, is_below_horizon: below, is_settled: settled };
        known.role(record(20, 7))
    }

    #[test]
    fn a_record_has_the_role_that_the_tables_give_it() {
        let (here, elsewhere) = (outcome(20, 1, None), outcome(30, 1, None));
        assert!(matches!(role(None, Some(&here), false, true), Role::Runs(Due { expected: Expected::Outcome(_), .. })));
        assert!(matches!(role(None, Some(&elsewhere), false, true), Role::Passes), "a repeat");
        assert!(matches!(role(None, None, false, true), Role::Runs(Due { expected: Expected::Nothing, .. })));
        assert!(matches!(role(None, None, true, true), Role::Runs(Due { expected: Expected::Forgotten, .. })));
        assert!(matches!(role(None, None, true, false), Role::Passes), "skipped");
        let parked = letter("parked", "handler-failed");
        assert!(matches!(role(Some(&parked), Some(&here), false, true), Role::Passes), "it ran after the cut");
        let redriven = letter("redriven", "handler-failed");
        assert!(matches!(role(Some(&redriven), Some(&here), false, true), Role::RanLater(_)));
        assert!(matches!(role(Some(&redriven), None, true, true), Role::Runs(_)), "it held its key");
        let expired = letter("redriven", "expired");
        assert!(matches!(role(Some(&expired), None, true, true), Role::RanSometime(_)));
    }

    #[test]
    fn a_letter_that_ran_later_runs_where_its_version_says() {
        let due = |offset, version, code| Due {
            command: receive(record(offset, 7), &rules()).expect("a command"),
            expected: Expected::Outcome(outcome(offset, version, code)),
        };
        let offsets = |dues: Vec<Due>| dues.iter().map(|due| due.command.record.offset).collect::<Vec<_>>();
        let mut later = Later::default();
        later.keep(due(3, 4, None));
        later.keep(due(1, 3, None));
        later.keep(due(2, 3, Some("no")));
        later.keep(due(4, 9, None));
        assert_eq!(offsets(later.before(&due(10, 2, None))), [] as [i64; 0]);
        assert_eq!(offsets(later.before(&due(11, 5, None))), [1, 2, 3], "the rejected one saw version 3");
        assert_eq!(offsets(later.rest()), [4]);
    }
}
