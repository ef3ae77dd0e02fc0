//! What is settled and not yet published, read back from the database: after a
//! claim, a delivery error, or a commit that an earlier attempt made.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::{Refusal, Result, Store};
use crate::cursor::Published;
use crate::dead_letter::{
    DeadCode, DeadOutcome, LetterState, Mirror, MirroredLetter, StoredHeaders, publishes, stored_headers,
};
use crate::outcome::{FinalOutcome, Publication};
use crate::record::TopicPartition;
use crate::steps::fence::Claimed;

/// `$1`: with their records.
const DEAD: &str = "
    select dead_letter_id, topic, partition, \"offset\", key, case state when 'discarded' then 'discarded' else code end as code,
           case state when 'discarded' then 'an operator has discarded it' else detail end as detail, attempts,
           (extract(epoch from record_time) * 1000)::bigint as record_time_ms,
           -- of a reused id nothing is said
           case when state <> 'discarded' or code <> 'id-reuse' then command_id end as command_id,
           command_type, entity_type, entity_id, traceparent, state,
           case when $1 then value end as value, case when $1 then headers::text end as headers
      from dead_letters";

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
    /// Its outcomes and events, and, with a mirror, its dead letters.
    pub fn publications<'b>(&'b self, mirror: Option<&'b Mirror>) -> impl Iterator<Item = Publication<'b>> {
        self.items.iter().flat_map(move |item| {
            let (outcome, events, mirrored) = match item {
                Item::Outcome(outcome) => (Some(outcome.outcome()), Some(outcome.events()), None),
                Item::Repeat(outcome) => (Some(outcome.outcome()), None, None),
                Item::Dead(letter) => (letter.publication(), None, mirror.and_then(|mirror| letter.mirrored(mirror))),
            };
            outcome.into_iter().chain(events.into_iter().flatten()).chain(mirrored)
        })
    }
}

/// What a dead letter says of itself.
#[derive(Clone, Debug)]
pub struct StoredDeadOutcome {
    /// Why it is dead.
    pub code: DeadCode,
    /// The value of the outcome that it publishes, if it publishes one.
    pub value: Option<Vec<u8>>,
}

#[derive(FromRow)]
pub(super) struct BatchRow {
    pub(super) batch_seq: i64,
    pub(super) first_offset: i64,
    pub(super) next_offset: i64,
    pub(super) command_ids: Vec<Uuid>,
    repeats: Vec<i32>,
    pub(super) dead_letter_ids: Vec<i64>,
    dead_after: Vec<i32>,
}

/// What a batch owes for one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The outcome of this command, with its events.
    Outcome(Uuid),
    /// The same again, without the events.
    Repeat(Uuid),
    /// Of a dead letter.
    Dead(i64),
}

#[derive(FromRow)]
pub(super) struct DeadRow {
    pub(super) dead_letter_id: i64,
    topic: String,
    partition: i32,
    #[sqlx(rename = "offset")]
    pub(super) log_offset: i64,
    key: Option<Vec<u8>>,
    pub(super) code: String,
    pub(super) detail: Option<String>,
    pub(super) attempts: i32,
    record_time_ms: i64,
    pub(super) command_id: Option<Uuid>,
    pub(super) command_type: Option<String>,
    entity_type: String,
    pub(super) entity_id: Option<String>,
    traceparent: Option<String>,
    pub(super) state: String,
    value: Option<Vec<u8>>,
    /// Only if letters are mirrored, as is the value.
    headers: Option<String>,
}

#[cfg(test)]
impl DeadRow {
    pub(super) fn of_test(state: &str, attempts: i32) -> Self {
        Self {
            dead_letter_id: 1,
            topic: "t".into(),
            partition: 0,
            log_offset: 20,
            key: None,
            code: "handler-failed".into(),
            detail: None,
            attempts,
            record_time_ms: 0,
            command_id: Some(Uuid::from_u128(7)),
            command_type: None,
            entity_type: "e".into(),
            entity_id: None,
            traceparent: None,
            state: state.into(),
            value: None,
            headers: None,
        }
    }
}

/// A dead letter as it is published, with the log that it came from.
pub(super) struct Dead {
    source: TopicPartition,
    pub(super) row: DeadRow,
    headers: StoredHeaders,
}

impl Dead {
    pub(super) fn new(row: DeadRow) -> Result<Self> {
        let headers = row.headers.as_deref().map(stored_headers).transpose();
        let broken = |error| Refusal::Broken(format!("dead_letters row {}: its headers: {error}", row.dead_letter_id));
        let source = TopicPartition::new(row.topic.as_str(), row.partition);
        Ok(Self { headers: headers.map_err(broken)?.unwrap_or_default(), source, row })
    }

    fn mirrored<'a>(&'a self, mirror: &'a Mirror) -> Option<Publication<'a>> {
        let Self { source, row, headers } = self;
        let letter = MirroredLetter {
            number: row.dead_letter_id,
            source,
            offset: row.log_offset,
            record_time_ms: row.record_time_ms,
            key: row.key.as_deref(),
            value: row.value.as_deref(),
            headers: headers.iter().map(|(name, value)| (name.into(), value.as_deref())).collect(),
            code: &row.code,
            detail: row.detail.as_deref(),
            state: LetterState::parse(&row.state)?,
            attempt: row.attempts,
            entity_type: &row.entity_type,
        };
        letter.publication(mirror)
    }

    fn stored(&self) -> Result<StoredDeadOutcome> {
        let Self { row, .. } = self;
        let unknown = || Refusal::Broken(format!("dead_letters row {}: its code {:?}", row.dead_letter_id, row.code));
        let code = DeadCode::parse(&row.code).ok_or_else(unknown)?;
        let value = self.publication().and_then(|publication| publication.value);
        Ok(StoredDeadOutcome { code, value: value.map(Cow::into_owned) })
    }

    /// Its outcome, if it publishes one.
    pub(super) fn publication(&self) -> Option<Publication<'_>> {
        let Self { source, row, .. } = self;
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
    /// What it owes, in order of settlement.
    pub(super) fn due(&self) -> Vec<Due> {
        let repeats: HashSet<i32> = self.repeats.iter().copied().collect();
        let mut dead = self.dead_after.iter().zip(&self.dead_letter_ids).peekable();
        let mut due = Vec::with_capacity(self.command_ids.len() + self.dead_letter_ids.len());
        for n in 0..=self.command_ids.len() {
            while let Some((_, id)) = dead.next_if(|(after, _)| **after as usize <= n) {
                due.push(Due::Dead(*id));
            }
            let repeat = repeats.contains(&(n as i32 + 1));
            due.extend(self.command_ids.get(n).copied().map(if repeat { Due::Repeat } else { Due::Outcome }));
        }
        due
    }

    fn items(&self, outcomes: &HashMap<Uuid, Arc<FinalOutcome>>, mut letters: HashMap<i64, Dead>) -> Vec<Item> {
        // a row is missing only if somebody deleted it: what is gone cannot be published
        let item = |due| match due {
            Due::Outcome(id) => outcomes.get(&id).cloned().map(Item::Outcome),
            Due::Repeat(id) => outcomes.get(&id).cloned().map(Item::Repeat),
            Due::Dead(id) => letters.remove(&id).map(|letter| Item::Dead(Box::new(letter))),
        };
        self.due().into_iter().filter_map(item).collect()
    }
}

impl Store {
    /// The next batches after batch `after_batch`, up to and including batch
    /// `through`, at most `batches_max` of them; dead letters with their records, if wanted.
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
        with_records: bool,
    ) -> Result<Vec<OwedBatch>> {
        let batches = self.batch_rows(claimed.source(), after_batch, through, batches_max).await?;
        let mut owed = Vec::with_capacity(batches.len());
        for batch in batches {
            let outcomes = self.outcomes_of(&batch.command_ids).await?;
            let letters = self.dead_letters(&batch.dead_letter_ids, with_records).await?;
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

    /// The rows of the next batches after batch `after_batch`, up to and including batch `through`.
    pub(super) async fn batch_rows(
        &self,
        source: &TopicPartition,
        after_batch: i64,
        through: i64,
        batches_max: i64,
    ) -> Result<Vec<BatchRow>> {
        Ok(sqlx::query_as(
            "select batch_seq, first_offset, next_offset, command_ids, repeats, dead_letter_ids, dead_after
               from batches where topic = $1 and partition = $2 and batch_seq > $3 and batch_seq <= $4
              order by batch_seq limit $5",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(after_batch)
        .bind(through)
        .bind(batches_max)
        .fetch_all(&self.pool)
        .await?)
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

    /// The dead letters of these offsets of a partition, with what each publishes: of an offset the newest.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn dead_outcomes_at(
        &self,
        source: &TopicPartition,
        offsets: &[i64],
    ) -> Result<HashMap<i64, StoredDeadOutcome>> {
        let sql =
            format!("{DEAD} where topic = $2 and partition = $3 and \"offset\" = any ($4) order by dead_letter_id");
        let rows = sqlx::query_as(AssertSqlSafe(sql))
            .bind(false)
            .bind(&*source.topic)
            .bind(source.partition)
            .bind(offsets)
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(|row: DeadRow| Ok((row.log_offset, Dead::new(row)?.stored()?))).collect()
    }

    async fn dead_letters(&self, ids: &[i64], with_records: bool) -> Result<HashMap<i64, Dead>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let sql = format!("{DEAD} where dead_letter_id = any ($2)");
        let rows = sqlx::query_as(AssertSqlSafe(sql)).bind(with_records).bind(ids).fetch_all(&self.pool).await?;
        rows.into_iter().map(|row: DeadRow| Ok((row.dead_letter_id, Dead::new(row)?))).collect()
    }
}
