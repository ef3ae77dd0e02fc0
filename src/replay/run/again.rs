//! One partition's commands, run again in the shadow as its writer would run them.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::compared::{Compared, Published, Publishes};
use super::report::WouldHalt;
use crate::dead_letter::DeadCode;
use crate::halt::{Halt, HaltCode};
use crate::horizon::Horizon;
use crate::outcome::FinalOutcome;
use crate::parked_keys::ParkedKeys;
use crate::postgres::{self, EmittedEvent, PublishedRow, Refusal, Store};
use crate::record::{Record, TopicPartition};
use crate::replay::ReplayError;
use crate::replay::partition::ShadowPartition;
use crate::steps::commit::{Due, Durable};
use crate::steps::decide::{Basis, Decision, Judgement, Undecided, decide, record_of};
use crate::steps::deduplicate::Deduplicator;
use crate::writer::batch::{self, Batch};
use crate::writer::flood::Flood;
use crate::writer::judged::delivery_of;
use crate::writer::prefetch;

/// What is left of a partition, rows at a time.
const LEFT_ROWS: i64 = 1_000;

/// A partition on its way.
pub(super) struct Again {
    pub live: Store,
    pub partition: ShadowPartition,
    /// What lies below was settled by an earlier process in this shadow.
    pub settled_below: i64,
    pub parked: ParkedKeys,
    pub flood: Flood,
    pub horizon: Horizon,
    /// The database's clock when the copy was made: milliseconds since 1970.
    pub database_time_ms: i64,
    pub found: Compared,
}

fn offsets(batch: &Batch) -> Vec<i64> {
    batch.items.iter().map(|item| record_of(item).offset).collect()
}

impl Again {
    /// Decides and settles these records. False: the partition would halt, and goes no further.
    pub async fn chunk(&mut self, mut records: Vec<Record>) -> Result<bool, ReplayError> {
        let settled = records.partition_point(|record| record.offset < self.settled_below);
        if settled > 0 {
            let mut settled: Vec<Record> = records.drain(..settled).collect();
            self.compare_settled(&Batch::receive(&mut settled, &self.partition.rules)).await?;
        }
        if records.is_empty() {
            return Ok(true);
        }
        if self.found.report.would_halt.is_some() {
            return Ok(false);
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
                    self.halts(&halt, batch.items.first().map_or(0, |item| record_of(item).offset)).await?;
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
                        self.halts(&halt, self.partition.cursor.next_offset).await?;
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
        let known = known(&self.live, &self.partition.shadow, &ids(batch)).await?;
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

    async fn halts(&mut self, halt: &Halt, offset: i64) -> Result<(), ReplayError> {
        // whoever goes on in this shadow finds it
        self.partition.halt(halt).await?;
        self.found.report.would_halt =
            Some(WouldHalt { code: halt.code.to_string(), offset, detail: halt.detail.clone() });
        Ok(())
    }

    /// Sets what would be published against what was.
    async fn compare(&mut self, batch: &Batch, durable: &Durable) -> Result<(), ReplayError> {
        let source = &self.partition.rules.source;
        let publishes = durable.due().map(|due| match due {
            Due::Outcome(outcome) => Publishes::outcome(outcome),
            Due::Repeat(outcome) => Publishes::repeat(outcome),
            Due::Dead(letter, _) => {
                let value = letter.outcome(source, durable.entity_type()).and_then(|publication| publication.value);
                Publishes::dead(letter.code, value.as_deref())
            }
        });
        let publishes = publishes.collect();
        self.compare_with_published(batch, publishes).await
    }

    /// The same of what an earlier process has settled: what it owes is in the shadow.
    async fn compare_settled(&mut self, batch: &Batch) -> Result<(), ReplayError> {
        let source = self.partition.rules.source.clone();
        let shadow = &self.partition.shadow;
        let letters = shadow.dead_outcomes_at(&source, &offsets(batch)).await.map_err(ReplayError::Shadow)?;
        let known = known(&self.live, &self.partition.shadow, &ids(batch)).await?;
        let mut publishes = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            let offset = record_of(item).offset;
            let is_here = |outcome: &&Arc<FinalOutcome>| {
                let delivery = &outcome.delivery;
                delivery.source == source && delivery.offset == offset
            };
            let outcome = item.as_ref().ok().and_then(|command| known.get(&command.id));
            publishes.push(match (letters.get(&offset), outcome) {
                (Some(letter), _) => Publishes::dead(letter.code, letter.value.as_deref()),
                (None, Some(outcome)) if is_here(&outcome) => Publishes::outcome(outcome),
                (None, Some(outcome)) => Publishes::repeat(outcome),
                (None, None) => {
                    let why = format!("offset {offset} is settled and has left nothing");
                    return Err(ReplayError::Disturbed(source, why));
                }
            });
        }
        self.compare_with_published(batch, publishes).await
    }

    /// One for each record of the batch.
    async fn compare_with_published(&mut self, batch: &Batch, publishes: Vec<Publishes>) -> Result<(), ReplayError> {
        let (source, shadow) = (&self.partition.rules.source, &self.partition.shadow);
        let rows = shadow.take_published(source, &offsets(batch)).await.map_err(ReplayError::Shadow)?;
        // of what emits, and of what is known to have emitted
        let emitting = publishes.iter().filter_map(Publishes::emitted_by);
        let ids: Vec<Uuid> = emitting.chain(rows.iter().map(|row| row.command_id)).collect();
        let mut events: HashMap<Uuid, Vec<EmittedEvent>> = HashMap::new();
        for event in shadow.take_published_events(source, &ids).await.map_err(ReplayError::Shadow)? {
            events.entry(event.command_id).or_default().push(event);
        }
        let mut rows: HashMap<i64, PublishedRow> = rows.into_iter().map(|row| (row.log_offset, row)).collect();
        for (item, again) in batch.items.iter().zip(publishes) {
            let row = rows.remove(&record_of(item).offset);
            let id = item.as_ref().map(|command| command.id).ok().or(row.as_ref().map(|row| row.command_id));
            let events = id.and_then(|id| events.remove(&id)).unwrap_or_default();
            self.found.compare(item, &Published { row, events }, &again);
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
            let Some(last) = rows.last() else { break };
            behind = last.log_offset;
            let ids: Vec<Uuid> = rows.iter().map(|row| row.command_id).collect();
            let shadow = &self.partition.shadow;
            shadow.take_published_events(&source, &ids).await.map_err(ReplayError::Shadow)?;
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
        // behind a halt nothing has run
        if self.found.report.would_halt.is_none() {
            self.left_with_events(&source).await?;
        }
        Ok(self.found)
    }

    /// Whose events were published and whose outcome was not, and who has ended neither here nor before.
    async fn left_with_events(&mut self, source: &TopicPartition) -> Result<(), ReplayError> {
        let mut behind = Uuid::nil();
        loop {
            let shadow = &self.partition.shadow;
            let mut ids = shadow.left_with_events(source, behind, LEFT_ROWS).await.map_err(ReplayError::Shadow)?;
            let Some(last) = ids.last() else { return Ok(()) };
            behind = *last;
            let known = known(&self.live, shadow, &ids).await?;
            ids.retain(|id| !known.contains_key(id) && !self.horizon.is_below(id));
            self.found.left_with_events(&ids);
        }
    }
}

/// The final outcomes of these commands: what was settled before is in the live tables, what is settled here in the
/// shadow.
async fn known(live: &Store, shadow: &Store, ids: &[Uuid]) -> Result<HashMap<Uuid, Arc<FinalOutcome>>, ReplayError> {
    let mut known = live.outcomes_of(ids).await?;
    known.extend(shadow.outcomes_of(ids).await.map_err(ReplayError::Shadow)?);
    Ok(known)
}

/// The commands of a batch, each once.
fn ids(batch: &Batch) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = batch.ids().copied().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
