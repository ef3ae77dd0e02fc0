//! One partition is rebuilt in the shadow: the same steps, with the same handlers, on the records that were settled.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::VerifyError;
use super::change::Example;
use super::compare::{Ended, alike};
use super::guide::{Due, Expected, Known, Later, Passed, Role, is_of};
use super::report::{After, Difference, Differences, PartitionReport, What};
use crate::cursor::{Cursor, LastSettled};
use crate::dead_letter::DeadCode;
use crate::horizon::{self, Horizon};
use crate::outcome::FinalOutcome;
use crate::parked_keys::ParkedKeys;
use crate::postgres::{self, CutLetter, Refusal, Refused, Store};
use crate::record::Record;
use crate::replay::settle::{Unsettled, settle};
use crate::steps::commit::Durable;
use crate::steps::decide::{Basis, Caution, Decision, Judgement, Routed, Settles, Undecided, decide};
use crate::steps::deduplicate::Deduplicator;
use crate::steps::fence::Claimed;
use crate::steps::{Rules, receive};
use crate::writer::batch::{self, Batch};
use crate::writer::batch_size::BatchSize;
use crate::writer::cache::Cache;
use crate::writer::judged::{delivery_of, judgements};
use crate::writer::prefetch;

/// Ids of the future are refused by the clock of the day; which were is known from the tables.
const ANY_TIME_MS: i64 = i64::MAX / 2;

/// What a rebuilt partition leaves.
pub(super) struct Rebuilt {
    pub report: PartitionReport,
    /// Outcomes of the live tables that were met, by the day of their id.
    pub met: BTreeMap<Option<i64>, i64>,
    /// Letters that ran when nobody knows.
    pub sometime: u64,
}

/// Which offsets of a partition were settled, as far as the kept batches tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SettledOffsets {
    /// Below this one batches are no longer kept: all may have been settled.
    pub forgotten_below: i64,
    /// Stretches, in order: first offset and the one behind the last.
    pub stretches: Vec<(i64, i64)>,
    /// Offsets that an operator let the partition go on at, in order.
    pub skips_to: Vec<i64>,
}

impl SettledOffsets {
    /// How the cursor came past an offset.
    pub fn passed(&self, offset: i64) -> Passed {
        let n = self.stretches.partition_point(|(first, _)| *first <= offset);
        if offset < self.forgotten_below || n.checked_sub(1).is_some_and(|n| offset < self.stretches[n].1) {
            return Passed::Settled;
        }
        // a skip goes over what was not settled before it, up to its own offset
        let next_settled = self.stretches.get(n).map_or(i64::MAX, |(first, _)| *first);
        let is_skipped = self.skips_to.iter().any(|to| offset < *to && *to <= next_settled);
        if is_skipped { Passed::Skipped } else { Passed::Unexplained }
    }
}

/// A partition on its way through the shadow.
pub(super) struct Rebuild {
    pub live: Store,
    pub shadow: Store,
    pub rules: Rules,
    pub type_ids: Arc<dyn Fn(&str) -> i16 + Send + Sync>,
    pub claimed: Claimed,
    pub cursor: Cursor,
    pub settled: SettledOffsets,
    /// Batches up to this one lie before the beginning.
    pub batches_from: i64,
    pub cache: Cache,
    /// Commands that are settled at a time.
    pub batch_size: BatchSize,
    pub later: Later,
    pub report: PartitionReport,
    /// Letters that ran when nobody knows.
    pub sometime: u64,
    /// Outcomes of the live tables that were met, by the day of their id; see [`day_of`].
    pub met: BTreeMap<Option<i64>, i64>,
    /// The topic's policy lets a command that fails hold its key.
    pub parks: bool,
    /// What was read and has not had its turn, in the order of the log, by offset.
    pub ahead: VecDeque<(i64, Item)>,
    /// Differences of what runs now, by the place of their command in it.
    pub found: Vec<(Place, Difference)>,
    pub differences: Arc<Mutex<Differences>>,
    /// Commands of older records are not counted as changed.
    pub changes_since_ms: i64,
    /// Nothing from here on was run by an earlier process in this shadow.
    pub begun_below: i64,
    /// Dead letters of the shadow with greater numbers are the rebuild's own.
    pub letters_before: i64,
}

/// What is to be done with a record that was read.
pub(super) enum Item {
    /// It runs.
    Runs(Due),
    /// It was a dead letter and runs later.
    Keeps(Due),
    /// It is no command, and should be.
    Differs(Box<Difference>),
}

/// Where among what runs at a time: after so many commands that run; and `false` before the next, `true` that one itself.
pub(super) type Place = (usize, bool);

/// The day of an id, in days since 1970; `None` for ids without a time.
fn day_of(id: &Uuid) -> Option<i64> {
    horizon::id_time_ms(id).map(|time_ms| time_ms / horizon::STEP_MS_MAX)
}

/// A command that cannot be read has no values to show but why.
fn unreadable(code: DeadCode) -> Value {
    json!(Ended::dead(code.as_str()))
}

impl Rebuild {
    /// Finds out what becomes of these records; nothing runs yet.
    pub async fn read(&mut self, records: Vec<Record>) -> Result<(), VerifyError> {
        let source = self.rules.source.clone();
        let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
        let letters = self.shadow.cut_letters(&source, &offsets).await.map_err(VerifyError::Shadow)?;
        let mut letter_at: HashMap<(i64, i64), CutLetter> = HashMap::new();
        for letter in letters {
            letter_at.insert((letter.log_offset, letter.record_time_ms), letter);
        }
        let id_of = |record: &Record| {
            // an edited letter may have an id that its record lacks
            let letter = letter_at.get(&(record.offset, record.time_ms()));
            let written = receive::glance(record, self.rules.payload_bytes_max).command_id;
            written.or(letter.and_then(|letter| letter.command_id))
        };
        let ids: Vec<Option<Uuid>> = records.iter().map(id_of).collect();
        let mut wanted: Vec<Uuid> = ids.iter().flatten().copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let outcomes = self.live.outcomes_of(&wanted).await?;
        // in this order: an outcome that is dropped meanwhile is below it
        let horizon = Horizon(self.live.horizon().await?.at_ms);
        for (record, id) in records.into_iter().zip(ids) {
            self.report.records += 1;
            let (offset, key) = (record.offset, record.key().map(|key| String::from_utf8_lossy(key).into_owned()));
            let known = Known {
                rules: &self.rules,
                letter: letter_at.get(&(offset, record.time_ms())),
                outcome: id.and_then(|id| outcomes.get(&id)),
                is_below_horizon: id.is_some_and(|id| horizon.is_below(&id)),
                passed: self.settled.passed(offset),
                parks: self.parks,
            };
            self.report.skipped += u64::from(known.passed == Passed::Skipped);
            let differs = |what, live, rebuilt| {
                let difference = self.unread(what, offset, key.clone(), id, live, rebuilt);
                Some(Item::Differs(Box::new(difference)))
            };
            let item = match known.role(record) {
                Role::Runs(due) => Some(Item::Runs(due)),
                Role::RanLater(due) => Some(Item::Keeps(due)),
                Role::RanSometime(due) => {
                    self.sometime += 1;
                    Some(Item::Runs(due))
                }
                Role::Passes => None,
                Role::NeverSettled => {
                    let rebuilt = json!("settled by no batch, and skipped by no operator");
                    differs(What::NeverSettled, Value::Null, rebuilt)
                }
                Role::Unreadable(live, code) => {
                    let item = differs(What::Outcome, json!(Ended::of(&live)), unreadable(code));
                    self.meets(&live);
                    self.changed(&live, Ended::dead(code.as_str()));
                    item
                }
                Role::LetterMissing(code) => differs(What::LetterMissing, Value::Null, unreadable(code)),
            };
            self.ahead.extend(item.map(|item| (offset, item)));
        }
        Ok(())
    }

    /// Runs what of the records below this offset ran.
    pub async fn run_below(&mut self, offset: i64) -> Result<(), VerifyError> {
        let count = self.ahead.partition_point(|(at, _)| *at < offset);
        let mut dues = Vec::with_capacity(count);
        for (_, item) in self.ahead.drain(..count) {
            match item {
                Item::Runs(due) => {
                    dues.extend(self.later.before(&due));
                    dues.push(due);
                }
                Item::Keeps(due) => self.later.keep(due),
                Item::Differs(difference) => self.found.push(((dues.len(), false), *difference)),
            }
        }
        self.run(dues).await?;
        self.hand_over();
        Ok(())
    }

    /// Runs those of these dead letters that ran later than their records came: it is their turn.
    pub async fn run_letters(&mut self, ids: &[Uuid]) -> Result<(), VerifyError> {
        let dues = ids.iter().filter_map(|id| self.later.take(id)).collect();
        self.run(dues).await?;
        self.hand_over();
        Ok(())
    }

    /// Behind the last record: what is left of the letters that ran later.
    pub async fn finish(mut self, records_max: usize) -> Result<Rebuilt, VerifyError> {
        let mut rest = self.later.rest();
        while !rest.is_empty() {
            let part = rest.drain(..records_max.min(rest.len())).collect();
            self.run(part).await?;
            self.hand_over();
        }
        Ok(Rebuilt { report: self.report, met: self.met, sometime: self.sometime })
    }

    /// The differences of what has run, in the order in which it ran: of each key the first counts.
    fn hand_over(&mut self) {
        self.found.sort_by_key(|(place, _)| *place);
        let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        self.found.drain(..).for_each(|(_, difference)| differences.add(difference));
    }

    fn meets(&mut self, live: &FinalOutcome) {
        *self.met.entry(day_of(&live.delivery.command_id)).or_default() += 1;
    }

    /// Decides and settles commands in this order, but for those that are settled in this shadow already.
    async fn run(&mut self, dues: Vec<Due>) -> Result<(), VerifyError> {
        self.report.commands += dues.len() as u64;
        let mut dues: Vec<(usize, Due)> = dues.into_iter().enumerate().collect();
        if dues.iter().any(|(_, due)| due.command.record.offset < self.begun_below) {
            dues = self.already_run(dues).await?;
        }
        let mut expected: HashMap<Uuid, Expected> = HashMap::with_capacity(dues.len());
        let mut items = VecDeque::with_capacity(dues.len());
        let mut places: HashMap<Uuid, usize> = HashMap::with_capacity(dues.len());
        for (n, due) in dues {
            places.entry(due.command.id).or_insert(n);
            expected.entry(due.command.id).or_insert(due.expected);
            items.push_back(Ok(due.command));
        }
        let (mut caution, mut look_up_all) = (Caution::default(), false);
        while !items.is_empty() {
            let count = batch::alike(items.iter()).min(self.batch_size.commands_max());
            let batch = Batch { items: items.drain(..count).collect(), letters: Vec::new() };
            let decision = match self.decide(&batch, &expected, &caution, look_up_all).await? {
                Ok(decision) => Arc::new(decision),
                Err(Undecided::Unstorable) => {
                    caution.encode_each = true;
                    put_back(&mut items, batch);
                    continue;
                }
                Err(Undecided::Halts(_, halt)) => return Err(VerifyError::Halts(halt.detail)),
            };
            match self.settle(&decision, count == 1).await {
                Ok(durable) => {
                    self.batch_size.settled(count);
                    self.compare(&durable, &mut expected, &places);
                }
                Err(VerifyError::Shadow(postgres::Error::Refused(refusal))) => {
                    self.cache.forget(decision.entities.iter().map(|change| &change.entity_id));
                    match refusal {
                        Refusal::Duplicate if !look_up_all => look_up_all = true,
                        Refusal::Contended(_) | Refusal::TimedOut(_) if count > 1 => self.batch_size.collided(count),
                        Refusal::Judged(refused) => self.judged(&decision, refused, &mut caution)?,
                        Refusal::Data(why) => match batch.items.as_slice() {
                            [item] => {
                                let judgement = Judgement::Dead(DeadCode::DataError, why);
                                caution.judged.insert(delivery_of(item), judgement);
                            }
                            items => self.batch_size.halve(items.len()),
                        },
                        refusal => return Err(VerifyError::Shadow(refusal.into())),
                    }
                    put_back(&mut items, batch);
                }
                Err(error) => return Err(error),
            }
        }
        self.repeated(expected, &places);
        Ok(())
    }

    /// Compares what an earlier process has left of these in this shadow. The others, which it had not come to.
    async fn already_run(&mut self, dues: Vec<(usize, Due)>) -> Result<Vec<(usize, Due)>, VerifyError> {
        let ids: Vec<Uuid> = dues.iter().map(|(_, due)| due.command.id).collect();
        let offsets: Vec<i64> = dues.iter().map(|(_, due)| due.command.record.offset).collect();
        let source = self.rules.source.clone();
        let settled = self.shadow.outcomes_of(&ids).await.map_err(VerifyError::Shadow)?;
        let letters = self.shadow.letters_behind(self.letters_before, &source, &offsets).await;
        let letters = letters.map_err(VerifyError::Shadow)?;
        let mut others = Vec::new();
        for (n, due) in dues {
            let (offset, place) = (due.command.record.offset, (n, true));
            let outcome = settled.get(&due.command.id).filter(|outcome| is_of(outcome, &due.command.record, &source));
            let letter = letters
                .iter()
                .find(|letter| letter.log_offset == offset && letter.record_time_ms == due.command.record.time_ms());
            match (outcome, letter) {
                (Some(rebuilt), _) => self.compare_outcome(Some(due.expected), place, rebuilt),
                (None, Some(letter)) => {
                    let (key, id) = (Some(due.command.entity_id().to_owned()), Some(due.command.id));
                    let rebuilt = (letter.code.as_str(), letter.detail.as_deref());
                    self.compare_dead(&due.expected, place, offset, key, id, rebuilt);
                }
                (None, None) => others.push((n, due)),
            }
        }
        Ok(others)
    }

    /// What only the database could tell: decided again with it.
    fn judged(&self, decision: &Decision, refused: Vec<Refused>, caution: &mut Caution) -> Result<(), VerifyError> {
        let mut is_new = false;
        for (delivery, judgement) in judgements(&self.rules.handlers, decision, refused) {
            is_new |= caution.judged.insert(delivery, judgement.clone()) != Some(judgement);
        }
        // or it would be decided alike for ever
        let again = || VerifyError::Halts("the database refuses what it has refused before".to_owned());
        is_new.then_some(()).ok_or_else(again)
    }

    async fn decide(
        &mut self,
        batch: &Batch,
        expected: &HashMap<Uuid, Expected>,
        caution: &Caution,
        look_up_all: bool,
    ) -> Result<Result<Decision, Undecided>, VerifyError> {
        let unsure = expected.iter().filter(|(_, expected)| look_up_all || !matches!(expected, Expected::Outcome(_)));
        let unsure: Vec<Uuid> = unsure.map(|(id, _)| *id).collect();
        let known = self.shadow.outcomes_of(&unsure).await.map_err(VerifyError::Shadow)?;
        let entities = prefetch::entities(batch, &mut self.cache, &self.shadow, &self.rules, &self.claimed).await;
        let mut entities = entities.map_err(VerifyError::Shadow)?;
        let mut deduplicator = Deduplicator::new(known, Horizon(0), ANY_TIME_MS);
        let mut basis = Basis { rules: &self.rules, deduplicator: &mut deduplicator, entities: &mut entities, caution };
        let decided = decide(&batch.items, &mut basis, ParkedKeys::default());
        Ok(decided.map(|mut decision| {
            self.cache.put_back(entities);
            // a letter that ran later is older than the cursor
            if let Settles::Log { first_offset, last } = &mut decision.settles {
                *first_offset = self.cursor.next_offset;
                *last = LastSettled { offset: last.offset.max(self.cursor.next_offset), ..*last };
            }
            decision
        }))
    }

    async fn settle(&mut self, decision: &Arc<Decision>, is_alone: bool) -> Result<Durable, VerifyError> {
        let shadow = &self.shadow;
        let settled =
            settle(shadow, &self.claimed, self.cursor, &self.rules, decision, &*self.type_ids, is_alone).await;
        let durable = settled.map_err(|unsettled| match unsettled {
            Unsettled::Refused(error) => VerifyError::Shadow(error),
            Unsettled::Disturbed(by) => VerifyError::Disturbed(self.rules.source.clone(), by),
        })?;
        self.cursor = durable.cursor();
        Ok(durable)
    }

    /// Sets every ending against what the tables say.
    fn compare(&mut self, durable: &Durable, expected: &mut HashMap<Uuid, Expected>, places: &HashMap<Uuid, usize>) {
        let place = |id: &Uuid| (places.get(id).copied().unwrap_or(usize::MAX), true);
        for rebuilt in durable.outcomes() {
            let expected = expected.remove(&rebuilt.delivery.command_id);
            self.compare_outcome(expected, place(&rebuilt.delivery.command_id), rebuilt);
        }
        for dead in &durable.decision().dead {
            let Some(known) = dead.command_id.and_then(|id| expected.remove(&id)) else { continue };
            let key = dead.entity_id().map(str::to_owned);
            let place = dead.command_id.as_ref().map_or((usize::MAX, true), place);
            let rebuilt = (dead.code.as_str(), Some(dead.detail.as_str()));
            self.compare_dead(&known, place, dead.record.offset, key, dead.command_id, rebuilt);
        }
    }

    /// What is left has repeated a command that is settled in the shadow.
    fn repeated(&mut self, expected: HashMap<Uuid, Expected>, places: &HashMap<Uuid, usize>) {
        let place = |id: &Uuid| (places.get(id).copied().unwrap_or(usize::MAX), true);
        for live in expected.into_values() {
            if let Expected::Outcome(live) = live {
                self.meets(&live);
                self.report.compared += 1;
                let (ended, place) = (json!(Ended::of(&live)), place(&live.delivery.command_id));
                self.differs(
                    What::Outcome,
                    place,
                    &live,
                    ended,
                    json!("a repeat of a command that was settled before it"),
                );
            }
        }
    }

    /// Sets the ending of a command against what the tables say of it.
    fn compare_outcome(&mut self, expected: Option<Expected>, place: Place, rebuilt: &FinalOutcome) {
        match expected {
            Some(Expected::Outcome(live)) => {
                self.meets(&live);
                self.report.compared += 1;
                if !alike(&live, rebuilt) {
                    self.changed(&live, Ended::of(rebuilt));
                    self.differs(What::Outcome, place, rebuilt, json!(Ended::of(&live)), json!(Ended::of(rebuilt)));
                }
            }
            Some(Expected::Nothing) => {
                self.differs(What::OutcomeMissing, place, rebuilt, Value::Null, json!(Ended::of(rebuilt)));
            }
            Some(Expected::Forgotten) | None => self.report.forgotten += 1,
        }
    }

    /// A command is dead (why: code and detail) that the tables say has ended.
    fn compare_dead(
        &mut self,
        known: &Expected,
        place: Place,
        offset: i64,
        key: Option<String>,
        command_id: Option<Uuid>,
        (code, detail): (&str, Option<&str>),
    ) {
        let (what, live) = match known {
            Expected::Outcome(live) => (What::Outcome, json!(Ended::of(live))),
            Expected::Forgotten => (What::Outcome, json!("no longer kept, and final")),
            Expected::Nothing => (What::LetterMissing, Value::Null),
        };
        if let Expected::Outcome(live) = known {
            self.meets(live);
            self.report.compared += 1;
            self.changed(live, Ended::dead(code));
        }
        let rebuilt = json!({ "outcome": "dead", "code": code, "detail": detail });
        let difference = self.unread(what, offset, key, command_id, live, rebuilt);
        self.found.push((place, difference));
    }

    /// The first difference of a key that is a command's ending.
    fn differs(&mut self, what: What, place: Place, outcome: &FinalOutcome, live: Value, rebuilt: Value) {
        let delivery = &outcome.delivery;
        let after = After {
            command_id: Some(delivery.command_id),
            command_type: Some(delivery.command_type.to_string()),
            ..After::at(&self.rules.source, delivery.offset)
        };
        let entity_id = Some(delivery.entity_id.to_string());
        let (entity_type, after) = (self.entity_type(), Some(after));
        self.found.push((place, Difference { entity_id, after, ..Difference::of(what, entity_type, live, rebuilt) }));
    }

    /// A difference of a record that did not become a command.
    fn unread(
        &self,
        what: What,
        offset: i64,
        entity_id: Option<String>,
        command_id: Option<Uuid>,
        live: Value,
        rebuilt: Value,
    ) -> Difference {
        let after = Some(After { command_id, ..After::at(&self.rules.source, offset) });
        Difference { entity_id, after, ..Difference::of(what, self.entity_type(), live, rebuilt) }
    }

    /// A command that ends otherwise, if it does.
    fn changed(&self, live: &FinalOutcome, rebuilt: Ended) {
        let delivery = &live.delivery;
        if delivery.record_time_ms < self.changes_since_ms {
            return;
        }
        let example = Example {
            topic: delivery.source.topic.to_string(),
            partition: delivery.source.partition,
            offset: delivery.offset,
            command_id: delivery.command_id,
            entity_id: delivery.entity_id.to_string(),
            live: Ended::of(live),
            rebuilt,
        };
        let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        differences.changes.add(&delivery.command_type, example);
    }

    fn entity_type(&self) -> String {
        self.rules.handlers.entity_type.to_string()
    }
}

/// To be decided again, before what comes behind it.
fn put_back(items: &mut VecDeque<Routed>, batch: Batch) {
    batch.items.into_iter().rev().for_each(|item| items.push_front(item));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_settled_if_a_batch_has_it_or_may_have_had_it() {
        let settled = SettledOffsets { forgotten_below: 10, stretches: vec![(12, 20), (25, 30)], skips_to: vec![25] };
        let of = |wanted| (0..40).filter(|offset| settled.passed(*offset) == wanted).collect::<Vec<i64>>();
        assert_eq!(of(Passed::Settled), (0..10).chain(12..20).chain(25..30).collect::<Vec<_>>());
        assert_eq!(of(Passed::Skipped), (20..25).collect::<Vec<_>>());
        assert_eq!(of(Passed::Unexplained), [10, 11].into_iter().chain(30..40).collect::<Vec<_>>());
    }
}
