//! What a command would publish now, set against what was published of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::heard::{Body, Heard};
use super::report::{Difference, Forgotten, KEPT_MAX, PartitionReport};
use crate::config::Topic;
use crate::dead_letter::DeadCode;
use crate::outcome::{FinalOutcome, Headers, event_id};
use crate::postgres::{EmittedEvent, PublishedRow};
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
    /// The first offset of [`PartitionReport::events_missing`].
    pub first_missing_event: Option<i64>,
    /// The first of [`PartitionReport::events_left`].
    pub first_left: Option<Uuid>,
    pub forgotten: Vec<Forgotten>,
}

/// What a record would lead to on the outcomes topic and the events topic now.
pub(super) struct Publishes {
    body: Option<Body>,
    kind: Kind,
    events: Vec<EmittedEvent>,
}

/// What was published of a record.
#[derive(Default)]
pub(super) struct Published {
    /// On the outcomes topic.
    pub row: Option<PublishedRow>,
    /// On the events topic, of its command.
    pub events: Vec<EmittedEvent>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Final,
    Repeat,
    Dead(DeadCode),
}

impl Publishes {
    /// A final outcome, with the events.
    pub fn outcome(outcome: &FinalOutcome) -> Self {
        let command_id = outcome.delivery.command_id;
        let events = outcome.events().filter_map(|event| match event.headers {
            Headers::Envelope(envelope) => Some(EmittedEvent {
                command_id,
                event_id: envelope.id,
                event_type: envelope.event_type.to_owned(),
                data: event.value?.into_owned(),
            }),
            Headers::Listed(_) => None,
        });
        Self { kind: Kind::Final, events: events.collect(), ..Self::repeat(outcome) }
    }

    /// A stored outcome again, without the events.
    pub fn repeat(outcome: &FinalOutcome) -> Self {
        let value = outcome.outcome().value;
        Self { body: value.and_then(|value| Body::read(&value)), kind: Kind::Repeat, events: Vec::new() }
    }

    /// That of a dead delivery: the record's value, if it publishes one.
    pub fn dead(code: DeadCode, outcome: Option<&[u8]>) -> Self {
        Self { body: outcome.and_then(Body::read), kind: Kind::Dead(code), events: Vec::new() }
    }

    /// The command, if its outcome goes with events.
    pub fn emitted_by(&self) -> Option<Uuid> {
        self.body.as_ref().filter(|_| self.kind == Kind::Final).map(|body| body.command_id)
    }

    /// How the record ends.
    fn ended(&self) -> Ended {
        let ended = match (self.kind, &self.body) {
            (Kind::Dead(code), _) => Ended::dead(code.as_str()),
            (Kind::Final, Some(body)) => body.ended(),
            (Kind::Repeat, Some(body)) => Ended { outcome: "duplicate", ..body.ended() },
            (_, None) => Ended::dead("unreadable"),
        };
        Ended { events: shown(&self.events), ..ended }
    }
}

/// How many of the events that are emitted now are on the topic, and how many are not. `None`: another is on it, which
/// is not emitted now.
fn set_against(emitted: &[EmittedEvent], published: &[EmittedEvent]) -> Option<(u64, u64)> {
    let emitted_now: HashMap<Uuid, &EmittedEvent> = emitted.iter().map(|event| (event.event_id, event)).collect();
    let is_emitted = |event: &EmittedEvent| emitted_now.get(&event.event_id) == Some(&event);
    let count = |events: usize| events as u64;
    let are_emitted = published.iter().all(is_emitted);
    are_emitted.then(|| (count(published.len()), count(emitted.len() - published.len())))
}

/// As they were emitted, and whatever else there is behind them.
fn in_order(mut events: Vec<EmittedEvent>) -> Vec<EmittedEvent> {
    let ids = |command_id| (0..events.len()).map(move |n| event_id(command_id, n));
    let places: HashMap<Uuid, usize> =
        events.first().into_iter().flat_map(|event| ids(&event.command_id)).zip(0..).collect();
    events.sort_by_key(|event| places.get(&event.event_id).copied().unwrap_or(usize::MAX));
    events
}

/// Events as a report shows them.
fn shown(events: &[EmittedEvent]) -> Vec<Value> {
    let data = |event: &EmittedEvent| {
        serde_json::from_slice(&event.data)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&event.data).into_owned()))
    };
    events.iter().map(|event| json!({ "type": event.event_type, "data": data(event) })).collect()
}

impl Compared {
    /// Nothing yet.
    pub fn of(report: PartitionReport) -> Self {
        Self { report, ..Self::default() }
    }

    /// Sets one record against what was published of it.
    pub fn compare(&mut self, item: &Routed, published: &Published, again: &Publishes) {
        self.report.records += 1;
        let row = published.row.as_ref();
        let body = |value: &Option<Vec<u8>>| value.as_deref().and_then(Body::read);
        let (ended, dead) = (row.and_then(|row| body(&row.ended)), row.and_then(|row| body(&row.dead)));
        let has_code =
            |code: DeadCode| row.is_some_and(|row| row.dead_codes.split(',').any(|known| known == code.as_str()));
        let offset = record_of(item).offset;
        let events = set_against(&again.events, &published.events);
        match (again.kind, ended, dead) {
            (Kind::Final, Some(ended), _) if again.body.as_ref().is_some_and(|again| again.is_like(&ended)) => {
                match events {
                    Some((alike, missing)) => {
                        self.report.alike += 1;
                        self.report.events_alike += alike;
                        self.miss_events(offset, missing);
                    }
                    None => self.differs(item, Some(&ended), published, again),
                }
            }
            (Kind::Repeat, None, None) => self.report.repeats += 1,
            (Kind::Final, None, None) => match events {
                Some((alike, new)) => {
                    self.is_new(offset);
                    self.report.events_alike += alike;
                    self.report.events_new += new;
                }
                None => self.differs(item, None, published, again),
            },
            (Kind::Dead(_), None, None) if again.body.is_none() => self.report.silent += 1,
            (Kind::Dead(_), None, None) => self.is_new(offset),
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
            (_, Some(body), _) | (_, None, Some(body)) => self.differs(item, Some(&body), published, again),
        }
    }

    /// The outcome is on its topic, and these events, which follow it, are not.
    fn miss_events(&mut self, offset: i64, missing: u64) {
        if missing > 0 {
            self.report.events_missing += missing;
            self.first_missing_event = self.first_missing_event.or(Some(offset));
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

    /// Without a published outcome it is the events that differ.
    fn differs(&mut self, item: &Routed, outcome: Option<&Body>, published: &Published, again: &Publishes) {
        // only who is applied emits
        let applied = || Ended { outcome: "applied", code: None, version: None, reply: None, events: Vec::new() };
        let ended =
            Ended { events: shown(&in_order(published.events.clone())), ..outcome.map_or_else(applied, Body::ended) };
        let id_of_event = published.events.first().map(|event| event.command_id);
        let (command_type, entity_id) = match item {
            Ok(command) => (Some(command.command_type.name.to_string()), Some(command.entity_id().to_owned())),
            Err(letter) => (letter.command_type.clone(), letter.entity_id().map(str::to_owned)),
        };
        self.note_difference(Difference {
            topic: self.report.topic.clone(),
            partition: self.report.partition,
            offset: record_of(item).offset,
            command_id: outcome.map(|outcome| outcome.command_id).or(id_of_event),
            command_type: command_type.or_else(|| outcome.and_then(|outcome| outcome.command_type.clone())),
            entity_id,
            published: ended,
            again: Some(again.ended()),
        });
    }

    /// These have emitted, and that is all that is known of them.
    pub fn left_with_events(&mut self, ids: &[Uuid]) {
        self.report.events_left += ids.len() as u64;
        self.first_left = self.first_left.or(ids.first().copied());
    }

    /// What could not be proven of the partition, and why.
    pub fn unproven(&self, topic: &Topic, heard: &Heard) -> Vec<String> {
        let Self { report, .. } = self;
        let place = format!("{}:{}", report.topic, report.partition);
        let mut unproven = Vec::new();
        if report.new > 0 {
            // what is new may have been published all the same
            unproven.extend(heard.unheard.clone());
        }
        if report.events_missing > 0 {
            unproven.extend(heard.unheard_events.clone());
        }
        if let Some(first) = self.first_missing {
            unproven.push(format!(
                "{place}: {} outcomes, the first of offset {first}, are not on {}, where later ones are: was it compacted or \
                 truncated, has it other partitions than it had, or was another topic used before?",
                report.missing,
                topic.outcomes_topic()
            ));
        } else if report.new > 0 && report.outcomes_end.is_none() {
            unproven.push(format!(
                "{place}: {} says nothing of it behind the cursor: {} commands were settled that may have been published \
                 elsewhere, or not at all",
                topic.outcomes_topic(),
                report.new
            ));
        }
        if let Some(first) = self.first_missing_event {
            unproven.push(format!(
                "{place}: {} events, the first of offset {first}, are not on {}, while the outcomes of their commands are \
                 published: do the handlers emit more than they did, was it truncated, or did a worker die between the two?",
                report.events_missing,
                topic.events_topic()
            ));
        }
        if let Some(first) = self.first_left {
            unproven.push(format!(
                "{place}: {} commands, one of them {first}, have events on {} and no outcome on {}, and end as nothing that emits",
                report.events_left,
                topic.events_topic(),
                topic.outcomes_topic()
            ));
        }
        unproven
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
