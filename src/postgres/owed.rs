//! What is settled and not yet published, read back from the database: after a
//! claim, a delivery error, or a commit that an earlier attempt made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::FromRow;
use uuid::Uuid;

use super::{Refusal, Result, Store};
use crate::cursor::Published;
use crate::dead_letter::{DeadOutcome, publishes};
use crate::outcome::{FinalOutcome, Publication};
use crate::record::TopicPartition;
use crate::steps::fence::Claimed;

/// A settled batch with everything that it owes, in order.
pub struct OwedBatch {
    /// How far everything is published once these are.
    pub published: Published,
    items: Vec<Item>,
}

enum Item {
    Outcome(Arc<FinalOutcome>),
    Repeat(Arc<FinalOutcome>),
    /// Boxed, as it is rare and large.
    Dead(Box<Dead>),
}

impl OwedBatch {
    /// Its outcomes and events.
    pub fn publications(&self) -> impl Iterator<Item = Publication<'_>> {
        self.items.iter().flat_map(|item| {
            let (outcome, events) = match item {
                Item::Outcome(outcome) => (Some(outcome.outcome()), Some(outcome.events())),
                Item::Repeat(outcome) => (Some(outcome.outcome()), None),
                Item::Dead(letter) => (letter.publication(), None),
            };
            outcome.into_iter().chain(events.into_iter().flatten())
        })
    }
}

#[derive(FromRow)]
struct BatchRow {
    batch_seq: i64,
    next_offset: i64,
    command_ids: Vec<Uuid>,
    repeats: Vec<i32>,
    dead_letter_ids: Vec<i64>,
    dead_after: Vec<i32>,
}

#[derive(FromRow)]
struct DeadRow {
    dead_letter_id: i64,
    topic: String,
    partition: i32,
    #[sqlx(rename = "offset")]
    log_offset: i64,
    key: Option<Vec<u8>>,
    code: String,
    detail: Option<String>,
    attempts: i32,
    record_time_ms: i64,
    command_id: Option<Uuid>,
    command_type: Option<String>,
    entity_type: String,
    entity_id: Option<String>,
    traceparent: Option<String>,
}

/// A dead letter, with the log that it came from.
struct Dead {
    source: TopicPartition,
    row: DeadRow,
}

impl Dead {
    fn publication(&self) -> Option<Publication<'_>> {
        let Self { source, row } = self;
        let command_id = publishes(&row.code, row.command_id)?;
        let outcome = DeadOutcome {
            source,
            offset: row.log_offset,
            record_time_ms: row.record_time_ms,
            key: row.key.as_deref(),
            code: &row.code,
            detail: row.detail.as_deref(),
            attempt: row.attempts,
            command_id,
            command_type: row.command_type.as_deref(),
            entity_type: &row.entity_type,
            entity_id: row.entity_id.as_deref(),
            traceparent: row.traceparent.as_deref(),
        };
        Some(outcome.publication())
    }
}

impl BatchRow {
    fn items(&self, outcomes: &HashMap<Uuid, Arc<FinalOutcome>>, mut letters: HashMap<i64, Dead>) -> Vec<Item> {
        let repeats: HashSet<i32> = self.repeats.iter().copied().collect();
        let mut dead = self.dead_after.iter().zip(&self.dead_letter_ids).peekable();
        let mut items = Vec::with_capacity(self.command_ids.len() + self.dead_letter_ids.len());
        for n in 0..=self.command_ids.len() {
            while let Some((_, id)) = dead.next_if(|(after, _)| **after as usize <= n) {
                items.extend(letters.remove(id).map(|letter| Item::Dead(Box::new(letter))));
            }
            // a row is missing only if somebody deleted it: what is gone cannot be published
            let outcome = self.command_ids.get(n).and_then(|id| outcomes.get(id)).cloned();
            let repeat = repeats.contains(&(n as i32 + 1));
            items.extend(outcome.map(if repeat { Item::Repeat } else { Item::Outcome }));
        }
        items
    }
}

impl Store {
    /// The next batches after batch `after_batch`, up to and including batch
    /// `through`, at most `batches_max` of them.
    ///
    /// # Errors
    /// If the database cannot be reached. [`Refusal::Fenced`]: the claim is stale, and what a letter
    /// owed may have been overwritten by what its next attempt owes.
    pub async fn owed(
        &self,
        claimed: &Claimed,
        after_batch: i64,
        through: i64,
        batches_max: i64,
    ) -> Result<Vec<OwedBatch>> {
        let batches: Vec<BatchRow> = sqlx::query_as(
            "select batch_seq, next_offset, command_ids, repeats, dead_letter_ids, dead_after
               from batches where topic = $1 and partition = $2 and batch_seq > $3 and batch_seq <= $4
              order by batch_seq limit $5",
        )
        .bind(&*claimed.source().topic)
        .bind(claimed.source().partition)
        .bind(after_batch)
        .bind(through)
        .bind(batches_max)
        .fetch_all(&self.pool)
        .await?;
        let mut owed = Vec::with_capacity(batches.len());
        for batch in batches {
            let outcomes = self.outcomes_of(&batch.command_ids).await?;
            let letters = self.dead_letters(&batch.dead_letter_ids).await?;
            owed.push(OwedBatch {
                published: Published { next_offset: batch.next_offset, batch_seq: batch.batch_seq },
                items: batch.items(&outcomes, letters),
            });
        }
        // asked last: an owner after this one may have changed letters only if it had claimed by then
        if !self.claim_stands(claimed).await? {
            return Err(Refusal::Fenced.into());
        }
        Ok(owed)
    }

    async fn claim_stands(&self, claimed: &Claimed) -> Result<bool> {
        Ok(sqlx::query_scalar(
            "select exists (select from partitions
                             where topic = $1 and partition = $2 and claim_id = $3 and fencing_token = $4)",
        )
        .bind(&*claimed.source().topic)
        .bind(claimed.source().partition)
        .bind(claimed.claim_id().0)
        .bind(claimed.token().0)
        .fetch_one(&self.pool)
        .await?)
    }

    async fn dead_letters(&self, ids: &[i64]) -> Result<HashMap<i64, Dead>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<DeadRow> = sqlx::query_as(
            "select dead_letter_id, topic, partition, \"offset\", key, case state when 'discarded' then 'discarded' else code end as code,
                    case state when 'discarded' then 'an operator has discarded it' else detail end as detail, attempts,
                    (extract(epoch from record_time) * 1000)::bigint as record_time_ms,
                    -- of a reused id nothing is said
                    case when state <> 'discarded' or code <> 'id-reuse' then command_id end as command_id,
                    command_type, entity_type, entity_id, traceparent
               from dead_letters where dead_letter_id = any ($1)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let source = |row: &DeadRow| TopicPartition::new(row.topic.as_str(), row.partition);
        Ok(rows.into_iter().map(|row| (row.dead_letter_id, Dead { source: source(&row), row })).collect())
    }
}
