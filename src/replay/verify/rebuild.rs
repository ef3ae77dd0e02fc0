//! One partition is rebuilt in the shadow: the same steps, with the same handlers, on the records that were settled.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::ended::Ended;
use super::guide::{Due, Expected, Known, Later, Passed, Role, is_of};
use super::report::{Difference, Differences, PartitionReport, What};
use super::settled_offsets::SettledOffsets;
use crate::cursor::LastSettled;
use crate::dead_letter::DeadCode;
use crate::horizon::Horizon;
use crate::parked_keys::ParkedKeys;
use crate::postgres::{CutLetter, Refusal, Store};
use crate::record::Record;
use crate::replay::ReplayError;
use crate::replay::partition::ShadowPartition;
use crate::steps::decide::{Basis, Caution, Decision, Routed, Settles, Undecided, decide};
use crate::steps::deduplicate::Deduplicator;
use crate::steps::receive;
use crate::writer::batch::{self, Batch};
use crate::writer::prefetch;

/// Ids of the future are refused by the clock of the day; which were is known from the tables.
const ANY_TIME_MS: i64 = i64::MAX / 2;

/// What a rebuilt partition leaves.
pub(super) struct Rebuilt {
    pub report: PartitionReport,
    pub differences: Differences,
    /// Outcomes of the live tables that were met, by the day of their id.
    pub met: BTreeMap<Option<i64>, i64>,
    /// Letters that ran when nobody knows.
    pub sometime: u64,
}

/// A partition on its way through the shadow.
pub(super) struct Rebuild {
    pub live: Store,
    pub partition: ShadowPartition,
    pub settled: SettledOffsets,
    /// Batches up to this one lie before the beginning.
    pub batches_from: i64,
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
    pub differences: Differences,
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

/// A command that cannot be read has no values to show but why.
fn unreadable(code: DeadCode) -> Value {
    json!(Ended::dead(code.as_str()))
}

impl Rebuild {
    /// Finds out what becomes of these records; nothing runs yet.
    pub async fn read(&mut self, records: Vec<Record>) -> Result<(), ReplayError> {
        let source = self.partition.rules.source.clone();
        let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
        let [Some(first), Some(last)] = [offsets.first(), offsets.last()] else { return Ok(()) };
        let shadow = &self.partition.shadow;
        let stretches = shadow.cut_stretches(&source, *first, *last).await.map_err(ReplayError::Shadow)?;
        let letters = shadow.cut_letters(&source, &offsets).await.map_err(ReplayError::Shadow)?;
        let mut letter_at: HashMap<(i64, i64), CutLetter> = HashMap::new();
        for letter in letters {
            letter_at.insert((letter.log_offset, letter.record_time_ms), letter);
        }
        let id_of = |record: &Record| {
            // an edited letter may have an id that its record lacks
            let letter = letter_at.get(&(record.offset, record.time_ms()));
            let written = receive::glance(record, self.partition.rules.payload_bytes_max).command_id;
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
                rules: &self.partition.rules,
                letter: letter_at.get(&(offset, record.time_ms())),
                outcome: id.and_then(|id| outcomes.get(&id)),
                is_below_horizon: id.is_some_and(|id| horizon.is_below(&id)),
                passed: self.settled.passed(offset, &stretches),
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
    pub async fn run_below(&mut self, offset: i64) -> Result<(), ReplayError> {
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
    pub async fn run_letters(&mut self, ids: &[Uuid]) -> Result<(), ReplayError> {
        let dues = ids.iter().filter_map(|id| self.later.take(id)).collect();
        self.run(dues).await?;
        self.hand_over();
        Ok(())
    }

    /// Behind the last record: what is left of the letters that ran later.
    pub async fn finish(mut self, records_max: usize) -> Result<Rebuilt, ReplayError> {
        let mut rest = self.later.rest();
        while !rest.is_empty() {
            let part = rest.drain(..records_max.min(rest.len())).collect();
            self.run(part).await?;
            self.hand_over();
        }
        let Self { report, differences, met, sometime, .. } = self;
        Ok(Rebuilt { report, differences, met, sometime })
    }

    /// The differences of what has run, in the order in which it ran: of each key the first counts.
    fn hand_over(&mut self) {
        self.found.sort_by_key(|(place, _)| *place);
        self.found.drain(..).for_each(|(_, difference)| self.differences.add(difference));
    }

    /// Decides and settles commands in this order, but for those that are settled in this shadow already.
    async fn run(&mut self, dues: Vec<Due>) -> Result<(), ReplayError> {
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
            let count = batch::alike(items.iter()).min(self.partition.batch_size.commands_max());
            let batch = Batch { items: items.drain(..count).collect(), letters: Vec::new() };
            let decision = match self.decide(&batch, &expected, &caution, look_up_all).await? {
                Ok(decision) => Arc::new(decision),
                Err(Undecided::Unstorable) => {
                    caution.encode_each = true;
                    put_back(&mut items, batch);
                    continue;
                }
                Err(Undecided::Halts(_, halt)) => return Err(ReplayError::Halts(halt.detail)),
            };
            match self.partition.settle(&decision, count == 1).await? {
                Ok(durable) => {
                    self.partition.batch_size.settled(count);
                    self.compare(&durable, &mut expected, &places);
                }
                Err(refusal) => {
                    match refusal {
                        Refusal::Duplicate if !look_up_all => {
                            self.partition.forget(&decision);
                            look_up_all = true;
                        }
                        refusal => self.partition.refused(refusal, &batch, &decision, &mut caution)?,
                    }
                    put_back(&mut items, batch);
                }
            }
        }
        self.repeated(expected, &places);
        Ok(())
    }

    /// Compares what an earlier process has left of these in this shadow. The others, which it had not come to.
    async fn already_run(&mut self, dues: Vec<(usize, Due)>) -> Result<Vec<(usize, Due)>, ReplayError> {
        let ids: Vec<Uuid> = dues.iter().map(|(_, due)| due.command.id).collect();
        let offsets: Vec<i64> = dues.iter().map(|(_, due)| due.command.record.offset).collect();
        let source = self.partition.rules.source.clone();
        let settled = self.partition.shadow.outcomes_of(&ids).await.map_err(ReplayError::Shadow)?;
        let letters = self.partition.shadow.letters_behind(self.letters_before, &source, &offsets).await;
        let letters = letters.map_err(ReplayError::Shadow)?;
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

    async fn decide(
        &mut self,
        batch: &Batch,
        expected: &HashMap<Uuid, Expected>,
        caution: &Caution,
        look_up_all: bool,
    ) -> Result<Result<Decision, Undecided>, ReplayError> {
        let unsure = expected.iter().filter(|(_, expected)| look_up_all || !matches!(expected, Expected::Outcome(_)));
        let unsure: Vec<Uuid> = unsure.map(|(id, _)| *id).collect();
        let known = self.partition.shadow.outcomes_of(&unsure).await.map_err(ReplayError::Shadow)?;
        let ShadowPartition { shadow, rules, claimed, cache, cursor, .. } = &mut self.partition;
        let entities = prefetch::entities(batch, cache, shadow, rules, claimed).await;
        let mut entities = entities.map_err(ReplayError::Shadow)?;
        let mut deduplicator = Deduplicator::new(known, Horizon(0), ANY_TIME_MS);
        let mut basis = Basis { rules, deduplicator: &mut deduplicator, entities: &mut entities, caution };
        let decided = decide(&batch.items, &mut basis, ParkedKeys::default());
        Ok(decided.map(|mut decision| {
            cache.put_back(entities);
            // a letter that ran later is older than the cursor
            if let Settles::Log { first_offset, last } = &mut decision.settles {
                *first_offset = cursor.next_offset;
                *last = LastSettled { offset: last.offset.max(cursor.next_offset), ..*last };
            }
            decision
        }))
    }
}

/// To be decided again, before what comes behind it.
fn put_back(items: &mut VecDeque<Routed>, batch: Batch) {
    batch.items.into_iter().rev().for_each(|item| items.push_front(item));
}
