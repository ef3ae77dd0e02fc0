//! One partition's commands, run again in the shadow as its writer would run them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::heard::Body;
use super::report::{Difference, Forgotten, KEPT_MAX, PartitionReport, WouldHalt};
use crate::dead_letter::DeadCode;
use crate::halt::{Halt, HaltCode};
use crate::horizon::Horizon;
use crate::outcome::FinalOutcome;
use crate::parked_keys::ParkedKeys;
use crate::postgres::{self, PublishedRow, Refusal, Store};
use crate::record::Record;
use crate::replay::ReplayError;
use crate::replay::partition::ShadowPartition;
use crate::replay::verify::Ended;
use crate::steps::commit::{Due, Durable};
use crate::steps::decide::{Basis, Decision, Judgement, Routed, Undecided, decide, record_of};
use crate::steps::deduplicate::Deduplicator;
use crate::writer::batch::{self, Batch};
use crate::writer::flood::Flood;
use crate::writer::judged::delivery_of;
use crate::writer::prefetch;

/// Keys whose first difference is told from later ones.
const KEYS_MAX: usize = 100_000;
/// What is left of a partition, rows at a time.
const LEFT_ROWS: i64 = 1_000;

/// A partition on its way.
pub(super) struct Again {
    pub live: Store,
    pub partition: ShadowPartition,
    pub parked: ParkedKeys,
    pub flood: Flood,
    pub horizon: Horizon,
    /// The database's clock when the copy was made: milliseconds since 1970.
    pub database_time_ms: i64,
    pub found: Compared,
}

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

/// What an outcome that would be published says.
struct Publishes {
    body: Option<Body>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Final,
    Repeat,
    Dead(DeadCode),
}

impl Again {
    /// Decides and settles these records. False: the partition would halt, and goes no further.
    pub async fn chunk(&mut self, mut records: Vec<Record>) -> Result<bool, ReplayError> {
        if records.is_empty() {
            return Ok(true);
        }
        let mut again = batch::Again::default();
        again.push_back(Batch::receive(&mut records, &self.partition.rules));
        while let Some(mut batch) = again.take(self.partition.batch_size.commands_max()) {
            let decision = match self.decide(&batch, &again.caution).await? {
                Ok(decision) => Arc::new(decision),
                Err(Undecided::Unstorable) => {
                    again.caution.encode_each = true;
                    again.push_front(batch);
                    continue;
                }
                Err(Undecided::Halts(0, halt)) => {
                    self.halts(&halt, batch.items.first().map_or(0, |item| record_of(item).offset));
                    return Ok(false);
                }
                Err(Undecided::Halts(n, _)) => {
                    // what lies before is settled first
                    again.push_front(batch.split_off(n));
                    again.push_front(batch);
                    self.partition.batch_size.halve(n * 2);
                    continue;
                }
            };
            let count = batch.items.len();
            let refusal = match self.partition.settle(&decision, count == 1).await? {
                Ok(durable) => {
                    self.parked = decision.parked.clone();
                    self.compare(&batch, &durable).await?;
                    again.settled();
                    self.partition.batch_size.settled(count);
                    if let Err(halt) = self.flood.settled(&decision) {
                        self.halts(&halt, self.partition.cursor.next_offset);
                        return Ok(false);
                    }
                    continue;
                }
                Err(refusal) => refusal,
            };
            match refusal {
                // as a writer gives it up, if later: what ran in the database may never be done in time
                Refusal::TimedOut(why) if count == 1 && decision.runs_in_database() => {
                    self.partition.forget(&decision);
                    let why = format!("its statements time out: {why}");
                    let dead = Judgement::Dead(DeadCode::HandlerFailed, why);
                    again.caution.judged.extend(batch.items.first().map(|item| (delivery_of(item), dead)));
                }
                refusal => self.partition.refused(refusal, &batch, &decision, &mut again.caution)?,
            }
            again.push_front(batch);
        }
        Ok(true)
    }

    async fn decide(
        &mut self,
        batch: &Batch,
        caution: &crate::steps::decide::Caution,
    ) -> Result<Result<Decision, Undecided>, ReplayError> {
        let mut ids: Vec<Uuid> = batch.ids().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        // what was settled before is in the live tables, what is settled here in the shadow
        let mut known = self.live.outcomes_of(&ids).await?;
        known.extend(self.partition.shadow.outcomes_of(&ids).await.map_err(ReplayError::Shadow)?);
        let ShadowPartition { shadow, rules, claimed, cache, .. } = &mut self.partition;
        let entities = prefetch::entities(batch, cache, shadow, rules, claimed).await;
        let mut entities = match entities {
            Err(postgres::Error::Refused(Refusal::WrongHome(home))) => {
                let halt = Halt::new(HaltCode::PartitionsChanged, format!("{home}, and a command for it came here"));
                return Ok(Err(Undecided::Halts(0, halt)));
            }
            entities => entities.map_err(ReplayError::Shadow)?,
        };
        let mut deduplicator = Deduplicator::new(known, self.horizon, self.database_time_ms);
        let mut basis = Basis { rules, deduplicator: &mut deduplicator, entities: &mut entities, caution };
        let decided = decide(&batch.items, &mut basis, self.parked.clone());
        if decided.is_ok() {
            cache.put_back(entities);
        }
        Ok(decided)
    }

    fn halts(&mut self, halt: &Halt, offset: i64) {
        self.found.report.would_halt =
            Some(WouldHalt { code: halt.code.to_string(), offset, detail: halt.detail.clone() });
    }

    /// Sets what would be published against what was.
    async fn compare(&mut self, batch: &Batch, durable: &Durable) -> Result<(), ReplayError> {
        let source = self.partition.rules.source.clone();
        let offsets: Vec<i64> = batch.items.iter().map(|item| record_of(item).offset).collect();
        let published = self.partition.shadow.take_published(&source, &offsets).await.map_err(ReplayError::Shadow)?;
        let mut published: HashMap<i64, PublishedRow> =
            published.into_iter().map(|row| (row.log_offset, row)).collect();
        for (item, due) in batch.items.iter().zip(durable.due()) {
            let (publication, kind) = match due {
                Due::Outcome(outcome) => (Some(outcome.outcome()), Kind::Final),
                Due::Repeat(outcome) => (Some(outcome.outcome()), Kind::Repeat),
                Due::Dead(letter, _) => (letter.outcome(&source, durable.entity_type()), Kind::Dead(letter.code)),
            };
            let value = publication.and_then(|publication| publication.value);
            let again = Publishes { body: value.and_then(|value| Body::read(&value)), kind };
            let published = published.remove(&record_of(item).offset);
            self.found.compare(item, published.as_ref(), &again);
        }
        Ok(())
    }

    /// What was published of deliveries that did not run here: below the cursor, and of records that are not in the
    /// log.
    pub async fn finish(mut self, from: i64) -> Result<Compared, ReplayError> {
        let source = self.partition.rules.source.clone();
        let (mut behind, end) = (i64::MIN, self.partition.cursor.next_offset);
        loop {
            let rows = self
                .partition
                .shadow
                .published_behind(&source, behind, LEFT_ROWS)
                .await
                .map_err(ReplayError::Shadow)?;
            let Some(last) = rows.last() else { return Ok(self.found) };
            behind = last.log_offset;
            let ids: Vec<Uuid> = rows.iter().map(|row| row.command_id).collect();
            let offsets: Vec<i64> = rows.iter().map(|row| row.log_offset).collect();
            let known = self.live.outcomes_of(&ids).await?;
            let letters = self.live.letters_at(&source, &offsets).await?;
            for row in rows {
                if row.log_offset >= from {
                    // behind a halt nothing has run
                    if self.found.report.would_halt.is_none() || row.log_offset < end {
                        self.found.vanished(&row);
                    }
                    continue;
                }
                let letter = letters.iter().rfind(|letter| letter.log_offset == row.log_offset);
                let letter = letter.map(|letter| (letter.dead_letter_id, &*letter.state));
                let is_forgotten = self.horizon.is_below(&row.command_id);
                self.found.before(&row, known.get(&row.command_id), letter, is_forgotten);
            }
        }
    }
}

impl Compared {
    /// Nothing yet.
    pub fn of(report: PartitionReport) -> Self {
        Self { report, ..Self::default() }
    }

    fn compare(&mut self, item: &Routed, published: Option<&PublishedRow>, again: &Publishes) {
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
    fn vanished(&mut self, row: &PublishedRow) {
        let Some(published) = row.ended.as_deref().or(row.dead.as_deref()).and_then(Body::read) else { return };
        self.note_difference(self.difference(&published, None));
    }

    /// An outcome of a record below the cursor.
    fn before(
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
