//! What a command would publish now, set against what was published of it.

use std::collections::HashSet;
use std::sync::Arc;

use super::heard::Body;
use super::report::{Difference, Forgotten, KEPT_MAX, PartitionReport};
use crate::dead_letter::DeadCode;
use crate::outcome::FinalOutcome;
use crate::postgres::PublishedRow;
use crate::replay::verify::Ended;
use crate::steps::decide::{Routed, record_of};

/// Keys whose first difference is told from later ones.
const KEYS_MAX: usize = 100_000;

/// What was found of one partition.
#[derive(Default)]
pub(super) struct Compared {
    pub report: PartitionReport,
    /// Of each key the first.
    pub differences: Vec<Difference>,
    keys: HashSet<Option<String>>,
    /// The first offset of [`PartitionReport::missing`].
    pub first_missing: Option<i64>,
    pub forgotten: Vec<Forgotten>,
}

/// What a record would lead to on the outcomes topic now.
pub(super) struct Publishes {
    body: Option<Body>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Final,
    Repeat,
    Dead(DeadCode),
}

impl Publishes {
    /// A final outcome.
    pub fn outcome(outcome: &FinalOutcome) -> Self {
        Self { kind: Kind::Final, ..Self::repeat(outcome) }
    }

    /// A stored outcome again.
    pub fn repeat(outcome: &FinalOutcome) -> Self {
        let value = outcome.outcome().value;
        Self { body: value.and_then(|value| Body::read(&value)), kind: Kind::Repeat }
    }

    /// That of a dead delivery: the record's value, if it publishes one.
    pub fn dead(code: DeadCode, outcome: Option<&[u8]>) -> Self {
        Self { body: outcome.and_then(Body::read), kind: Kind::Dead(code) }
    }
}

impl Compared {
    /// Nothing yet.
    pub fn of(report: PartitionReport) -> Self {
        Self { report, ..Self::default() }
    }

    /// Sets one record against what was published of it.
    pub fn compare(&mut self, item: &Routed, published: Option<&PublishedRow>, again: &Publishes) {
        self.report.records += 1;
        let body = |value: &Option<Vec<u8>>| value.as_deref().and_then(Body::read);
        let (ended, dead) = (published.and_then(|row| body(&row.ended)), published.and_then(|row| body(&row.dead)));
        let has_code =
            |code: DeadCode| published.is_some_and(|row| row.dead_codes.split(',').any(|known| known == code.as_str()));
        match (again.kind, ended, dead) {
            (Kind::Final, Some(ended), _) if again.body.as_ref().is_some_and(|again| again.is_like(&ended)) => {
                self.report.alike += 1;
            }
            (Kind::Repeat, None, None) => self.report.repeats += 1,
            (Kind::Final, None, None) => self.is_new(record_of(item).offset),
            (Kind::Dead(_), None, None) if again.body.is_none() => self.report.silent += 1,
            (Kind::Dead(_), None, None) => self.is_new(record_of(item).offset),
            // it was dead at first, and then an operator has had it run
            // (or it waits behind one that was; behind one that differs it is part of that difference)
            (Kind::Dead(code), Some(ended), _)
                if has_code(code) || (code == DeadCode::ParkedKey && !self.differs_before(item)) =>
            {
                self.forgotten(item, &ended, again.kind, "redrive");
            }
            (Kind::Dead(code), None, Some(dead)) if has_code(code) => {
                match dead.code.as_deref() == Some(DeadCode::Discarded.as_str()) {
                    true => self.forgotten(item, &dead, again.kind, "discard"),
                    false => self.report.alike += 1,
                }
            }
            (_, Some(published), _) | (_, None, Some(published)) => self.differs(item, &published, again),
        }
    }

    /// The outcomes of a partition are published in the order in which they are settled.
    fn is_new(&mut self, offset: i64) {
        self.report.new += 1;
        if self.report.outcomes_end.is_some_and(|end| offset < end) {
            self.report.missing += 1;
            self.first_missing = self.first_missing.or(Some(offset));
        }
    }

    fn differs(&mut self, item: &Routed, published: &Body, again: &Publishes) {
        let ended = match (again.kind, &again.body) {
            (Kind::Dead(code), _) => Ended::dead(code.as_str()),
            (Kind::Final, Some(body)) => body.ended(),
            (Kind::Repeat, Some(body)) => Ended { outcome: "duplicate", ..body.ended() },
            (_, None) => Ended::dead("unreadable"),
        };
        let (command_type, entity_id) = match item {
            Ok(command) => (Some(command.command_type.name.to_string()), Some(command.entity_id().to_owned())),
            Err(letter) => (letter.command_type.clone(), letter.entity_id().map(str::to_owned)),
        };
        self.note_difference(Difference {
            topic: self.report.topic.clone(),
            partition: self.report.partition,
            offset: record_of(item).offset,
            command_id: Some(published.command_id),
            command_type: command_type.or_else(|| published.command_type.clone()),
            entity_id,
            published: published.ended(),
            again: Some(ended),
        });
    }

    fn differs_before(&self, item: &Routed) -> bool {
        item.as_ref().is_ok_and(|command| self.keys.contains(&Some(command.entity_id().to_owned())))
    }

    /// Counts it; what follows the first difference of a key may come of that one.
    fn note_difference(&mut self, difference: Difference) {
        self.report.differing += 1;
        let is_first = difference.entity_id.is_none() || !self.keys.contains(&difference.entity_id);
        if is_first && self.keys.len() < KEYS_MAX {
            self.keys.insert(difference.entity_id.clone());
        }
        if is_first && self.differences.len() < KEPT_MAX {
            self.differences.push(difference);
        }
    }

    /// What an operator has done with a dead letter that the database will only have.
    fn forgotten(&mut self, item: &Routed, published: &Body, kind: Kind, verb: &str) {
        let key = record_of(item).key().map(|key| String::from_utf8_lossy(key).into_owned());
        let again = match kind {
            Kind::Dead(code) => Some(Ended::dead(code.as_str())),
            Kind::Final | Kind::Repeat => None,
        };
        self.note_forgotten(published, key, again, None, verb);
    }

    fn note_forgotten(
        &mut self,
        published: &Body,
        entity_id: Option<String>,
        again: Option<Ended>,
        dead_letter_id: Option<i64>,
        verb: &str,
    ) {
        self.report.forgotten += 1;
        if self.forgotten.len() >= KEPT_MAX {
            return;
        }
        let PartitionReport { topic, partition, .. } = &self.report;
        let which = match (dead_letter_id, &entity_id) {
            (Some(number), _) => format!("--letter {number}"),
            (None, Some(key)) => format!("--topic {topic} --partition {partition} --key {}", shell_word(key)),
            (None, None) => format!("--topic {topic} --partition {partition}"),
        };
        self.forgotten.push(Forgotten {
            topic: topic.clone(),
            partition: *partition,
            offset: published.offset,
            command_id: published.command_id,
            entity_id,
            published: published.ended(),
            again,
            dead_letter_id,
            resolve: format!("solewriter dead-letters {verb} {which} --reason … --execute"),
        });
    }

    /// An outcome of a record behind the cursor that the log does not have.
    pub fn vanished(&mut self, row: &PublishedRow) {
        let Some(published) = row.ended.as_deref().or(row.dead.as_deref()).and_then(Body::read) else { return };
        self.note_difference(self.difference(&published, None));
    }

    /// An outcome of a record below the cursor.
    pub fn before(
        &mut self,
        row: &PublishedRow,
        known: Option<&Arc<FinalOutcome>>,
        letter: Option<(i64, &str)>,
        may_be_dropped: bool,
    ) {
        let body = |value: &Option<Vec<u8>>| value.as_deref().and_then(Body::read);
        match (known, body(&row.ended), body(&row.dead)) {
            (Some(known), Some(published), _) => {
                let stored = known.outcome().value.and_then(|value| Body::read(&value));
                if let Some(stored) = stored.filter(|stored| !stored.is_like(&published)) {
                    self.note_difference(self.difference(&published, Some(stored.ended())));
                }
            }
            (None, Some(published), _) if !may_be_dropped => {
                let key = published.entity_id.clone();
                self.note_forgotten(&published, key, None, letter.map(|(number, _)| number), "redrive");
            }
            (None, None, Some(dead)) if dead.code.as_deref() == Some(DeadCode::Discarded.as_str()) => {
                // it has ended in the database too, unless the letter is still open
                if let Some((number, "dead" | "parked" | "waiting")) = letter {
                    let key = dead.entity_id.clone();
                    self.note_forgotten(&dead, key, None, Some(number), "discard");
                }
            }
            _ => {}
        }
    }

    fn difference(&self, published: &Body, again: Option<Ended>) -> Difference {
        Difference {
            topic: self.report.topic.clone(),
            partition: self.report.partition,
            offset: published.offset,
            command_id: Some(published.command_id),
            command_type: published.command_type.clone(),
            entity_id: published.entity_id.clone(),
            published: published.ended(),
            again,
        }
    }
}

/// As a shell reads it back.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_typed_as_a_shell_reads_it() {
        assert_eq!(shell_word("acct-42"), "acct-42");
        assert_eq!(shell_word("two words"), "'two words'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }
}
