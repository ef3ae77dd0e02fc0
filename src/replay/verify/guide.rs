//! What of the log ran, and in which order: what only the tables know, put together for one chunk of records.
//!
//! A record whose delivery settled its command runs, whatever the log looks like around it. A redriven letter
//! runs where its version says: the versions of an entity's outcomes are the order of its commands.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

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
    /// It was a dead letter that held its key: whatever came behind it has waited.
    pub held_its_key: bool,
}

/// How a partition came past an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Some batch has settled it, or may have.
    Settled,
    /// An operator has skipped it.
    Skipped,
    /// Nobody says.
    Unexplained,
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
    /// The cursor is behind it, no batch has settled it and no operator has skipped it.
    NeverSettled,
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
    /// How the cursor came past it.
    pub passed: Passed,
    /// A command that fails on its own account parks its key: the topic's policy.
    pub parks: bool,
}

impl Known<'_> {
    /// The role of this record.
    pub fn role(&self, record: Record) -> Role {
        let state = self.letter.and_then(|letter| LetterState::parse(&letter.state));
        match (self.letter, state) {
            (Some(letter), Some(LetterState::Redriven)) => self.redriven(record, letter),
            (Some(_), _) => Role::Passes,
            (None, _) if self.is_here(&record, self.rules) => self.runs(record),
            (None, _) => match self.passed {
                Passed::Settled => self.undocumented(record),
                Passed::Skipped => Role::Passes,
                Passed::Unexplained => Role::NeverSettled,
            },
        }
    }

    fn is_here(&self, record: &Record, rules: &Rules) -> bool {
        self.outcome.is_some_and(|outcome| is_of(outcome, record, &rules.source))
    }

    /// The tables say that this delivery settled its command.
    fn runs(&self, record: Record) -> Role {
        let Some(outcome) = self.outcome else { return Role::Passes };
        match receive(record, self.rules).and_then(|command| route(command, self.rules)) {
            Ok(command) => Role::Runs(due(command, Expected::Outcome(outcome.clone()))),
            Err(dead) => Role::Unreadable(outcome.clone(), dead.code),
        }
    }

    fn redriven(&self, record: Record, letter: &CutLetter) -> Role {
        let (is_here, held_its_key) = (self.is_here(&record, self.rules), self.held_its_key(letter));
        let routed = match letter.edited_value.as_deref() {
            Some(value) => corrected(record, value, self.rules),
            None => receive(record, self.rules),
        };
        match (routed, self.outcome) {
            (Err(dead), Some(outcome)) if is_here => Role::Unreadable(outcome.clone(), dead.code),
            // its copy is what ran
            (Err(_), _) => Role::Passes,
            (Ok(command), Some(outcome)) if is_here => {
                Role::RanLater(Due { command, expected: Expected::Outcome(outcome.clone()), held_its_key })
            }
            (Ok(_), Some(_)) => Role::Passes,
            // produced again, to the partition of its key: its copy ran, or is forgotten there
            (Ok(_), None) if letter.code == DeadCode::Misrouted.as_str() => Role::Passes,
            (Ok(command), None) if self.is_below_horizon => {
                let due = due(command, Expected::Forgotten);
                // a letter that held its key ran before anything behind it did
                if held_its_key { Role::Runs(due) } else { Role::RanSometime(due) }
            }
            (Ok(command), None) => Role::Runs(due(command, Expected::Nothing)),
        }
    }

    /// It was settled, and neither an outcome nor a letter says how.
    fn undocumented(&self, record: Record) -> Role {
        match (receive(record, self.rules).and_then(|command| route(command, self.rules)), self.outcome) {
            (Ok(command), Some(first)) if command.fingerprint != first.delivery.fingerprint => {
                Role::LetterMissing(DeadCode::IdReuse)
            }
            // another delivery of its command was settled
            (Ok(_), Some(_)) => Role::Passes,
            (Ok(command), None) if self.is_below_horizon => Role::Runs(due(command, Expected::Forgotten)),
            (Ok(command), None) => Role::Runs(due(command, Expected::Nothing)),
            (Err(dead), _) => Role::LetterMissing(dead.code),
        }
    }

    fn held_its_key(&self, letter: &CutLetter) -> bool {
        let failed = [DeadCode::HandlerFailed, DeadCode::DataError].iter().any(|code| code.as_str() == letter.code);
        letter.code == DeadCode::ParkedKey.as_str() || (failed && self.parks)
    }
}

/// A command that runs where its record is.
fn due(command: Command, expected: Expected) -> Due {
    Due { command, expected, held_its_key: false }
}

/// The delivery of this record is the one that settled its command.
pub(super) fn is_of(outcome: &FinalOutcome, record: &Record, source: &TopicPartition) -> bool {
    let delivery = &outcome.delivery;
    delivery.source == *source && delivery.offset == record.offset && delivery.record_time_ms == record.time_ms()
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
    /// The key of each command that was kept, also of those that are gone.
    key_of: HashMap<Uuid, String>,
}

impl Later {
    /// Keeps one until its turn comes.
    pub fn keep(&mut self, due: Due) {
        self.key_of.insert(due.command.id, due.command.entity_id().to_owned());
        self.of_key.entry(due.command.entity_id().to_owned()).or_default().push(due);
    }

    /// The one of this id, whose turn it is.
    pub fn take(&mut self, id: &Uuid) -> Option<Due> {
        let key = self.key_of.remove(id)?;
        let kept = self.of_key.get_mut(&key)?;
        let due = kept.extract_if(.., |due| due.command.id == *id).next();
        if kept.is_empty() {
            self.of_key.remove(&key);
        }
        due
    }

    /// Those of the key that ran before this command did, in their order.
    pub fn before(&mut self, due: &Due) -> Vec<Due> {
        let Some(kept) = self.of_key.get_mut(due.command.entity_id()) else { return Vec::new() };
        // the versions tell, where both have one; else a key that was held has let nothing pass
        let place = place(due);
        let ran_before = |later: &mut Due| match (self::place(later), place) {
            (Some(later_place), Some(place)) if later_place != place => later_place < place,
            _ => later.held_its_key,
        };
        let mut before: Vec<Due> = kept.extract_if(.., ran_before).collect();
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
        let passed = if settled { Passed::Settled } else { Passed::Skipped };
        let known = Known { rules: &rules, letter, outcome, is_below_horizon: below, passed, parks: true };
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
        let mut reused = (*elsewhere).clone();
        reused.delivery.fingerprint.0[0] ^= 1;
        let role_of_reused = role(None, Some(&Arc::new(reused)), false, true);
        assert!(matches!(role_of_reused, Role::LetterMissing(DeadCode::IdReuse)));
    }

    #[test]
    fn a_letter_that_ran_later_runs_where_its_version_says() {
        let due = |offset, version, code| Due {
            command: receive(record(offset, 7), &rules()).expect("a command"),
            expected: Expected::Outcome(outcome(offset, version, code)),
            held_its_key: false,
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
        later.keep(due(6, 2, None));
        let id = due(6, 2, None).command.id;
        assert_eq!((offsets(later.take(&id).into_iter().collect()), later.take(&id).is_none()), (vec![6], true));
        later.keep(Due { held_its_key: true, ..due(5, 9, None) });
        let unplaced = Due { expected: Expected::Forgotten, ..due(12, 1, None) };
        assert_eq!(offsets(later.before(&unplaced)), [5], "a held key lets nothing pass");
    }
}
