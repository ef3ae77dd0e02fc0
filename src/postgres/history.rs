//! What became of commands, entities and records, for people who ask. Nothing
//! here is on the data path: there is no index for these questions, as one would
//! cost every command more than it costs to ask. So the statements scan, within
//! bounds that the caller sets.

use std::time::Duration;

use sqlx::{AssertSqlSafe, FromRow, Postgres, Transaction};
use uuid::Uuid;

use super::lookup::OutcomeRow;
use super::{Result, Store, StoredEntity};
use crate::outcome::FinalOutcome;
use crate::record::TopicPartition;

/// A dead letter, without its raw bytes.
#[derive(Clone, Debug, FromRow)]
pub struct StoredLetter {
    /// Its number.
    pub dead_letter_id: i64,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The partition that its key lives on: another one, if the layout has changed since.
    pub home: i32,
    /// The record's offset.
    #[sqlx(rename = "offset")]
    pub log_offset: i64,
    /// Why it is dead.
    pub code: String,
    /// What is wrong with it.
    pub detail: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// `dead`, or what was done with it.
    pub state: String,
    /// When it was settled, milliseconds since 1970.
    pub at_ms: i64,
    /// The record's own time, milliseconds since 1970.
    pub record_time_ms: i64,
    /// The command's id, as far as it could be read; so for the next three.
    pub command_id: Option<Uuid>,
    /// Its type.
    pub command_type: Option<String>,
    /// The topic's entity type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: Option<String>,
}

/// A settled batch.
#[derive(Clone, Debug, FromRow)]
pub struct BatchRow {
    /// Its number in its partition.
    pub batch_seq: i64,
    /// Its first record.
    pub first_offset: i64,
    /// The offset after its last.
    pub next_offset: i64,
    /// The token that it was settled with.
    pub fencing_token: i64,
    /// When, milliseconds since 1970.
    pub settled_at_ms: i64,
    /// The final outcomes that it owed.
    pub command_ids: Vec<Uuid>,
}

/// Which ids are looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// UUIDv7 of this time, from and to, milliseconds since 1970.
    Made(i64, i64),
    /// Ids without a time.
    Untimed,
}

/// The commands of one entity.
#[derive(Clone, Copy, Debug)]
pub struct EntityQuery<'a> {
    /// The entity's type.
    pub entity_type: &'a str,
    /// The entity's id.
    pub entity_id: &'a str,
    /// Of records as new as this, milliseconds since 1970; 0 for all.
    pub since_ms: i64,
    /// At most so many: the newest.
    pub rows_max: i64,
}

pub(super) const LETTERS: &str = "
    select dead_letter_id, topic, partition, home, \"offset\", code, detail, attempts, state,
           (extract(epoch from at) * 1000)::bigint as at_ms,
           (extract(epoch from record_time) * 1000)::bigint as record_time_ms,
           command_id, command_type, entity_type, entity_id
      from dead_letters";

/// Below every UUIDv7 of this time, above every earlier one.
fn id_floor(time_ms: i64) -> Uuid {
    Uuid::from_u128(u128::from(time_ms.max(0).unsigned_abs()) << 80)
}

impl Store {
    /// A transaction for one scan: it may read tables from end to end, and ends
    /// by itself after `timeout`.
    pub(super) async fn scan(&self, timeout: Duration) -> Result<Transaction<'_, Postgres>> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "select set_config('transaction_read_only', 'on', true), set_config('enable_seqscan', 'on', true),
                    set_config('statement_timeout', $1, true)",
        )
        .bind(timeout.as_millis().max(1).to_string())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction)
    }

    /// The dead deliveries of a command, oldest first: the newest `rows_max`.
    ///
    /// # Errors
    /// If the database cannot be reached, or the scan takes longer than `timeout`.
    pub async fn dead_letters_of(&self, id: Uuid, rows_max: i64, timeout: Duration) -> Result<Vec<StoredLetter>> {
        let mut scan = self.scan(timeout).await?;
        let sql = format!("{LETTERS} where command_id = $1 order by dead_letter_id desc limit $2");
        let letters = sqlx::query_as(AssertSqlSafe(sql)).bind(id).bind(rows_max);
        let mut letters: Vec<StoredLetter> = letters.fetch_all(&mut *scan).await?;
        letters.reverse();
        Ok(letters)
    }

    /// The dead deliveries to an entity, oldest first: the newest `rows_max`. One
    /// that was redriven is not among them: its command has a final outcome.
    ///
    /// # Errors
    /// If the database cannot be reached, or the scan takes longer than `timeout`.
    pub async fn dead_letters_of_entity(
        &self,
        entity: &EntityQuery<'_>,
        timeout: Duration,
    ) -> Result<Vec<StoredLetter>> {
        let mut scan = self.scan(timeout).await?;
        let sql = format!(
            "{LETTERS} where entity_type = $1 and entity_id = $2 and record_time >= time_of($3)
                         and state <> 'redriven' order by dead_letter_id desc limit $4"
        );
        let letters = sqlx::query_as(AssertSqlSafe(sql)).bind(entity.entity_type).bind(entity.entity_id);
        let letters = letters.bind(entity.since_ms).bind(entity.rows_max);
        let mut letters: Vec<StoredLetter> = letters.fetch_all(&mut *scan).await?;
        letters.reverse();
        Ok(letters)
    }

    /// The dead letters of one offset.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn dead_letters_at(&self, source: &TopicPartition, offset: i64) -> Result<Vec<StoredLetter>> {
        let sql = format!("{LETTERS} where topic = $1 and partition = $2 and \"offset\" = $3 order by dead_letter_id");
        let letters = sqlx::query_as(AssertSqlSafe(sql)).bind(&*source.topic).bind(source.partition).bind(offset);
        Ok(letters.fetch_all(&self.pool).await?)
    }

    /// An entity's row, whoever owns its partition: for eyes, not for decisions.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn entity(&self, entity_type: &str, entity_id: &str) -> Result<Option<StoredEntity>> {
        Ok(sqlx::query_as(
            "select entity_id, topic, partition, version, state::text as state from entities
              where entity_type = $1 and entity_id = $2",
        )
        .bind(entity_type)
        .bind(entity_id)
        .fetch_optional(&self.pool)
        .await?)
    }

    /// The final outcomes of an entity's commands, newest first.
    ///
    /// # Errors
    /// If the database cannot be reached, or the scan takes longer than `timeout`.
    pub async fn outcomes_of_entity(
        &self,
        entity: &EntityQuery<'_>,
        ids: Ids,
        timeout: Duration,
    ) -> Result<Vec<FinalOutcome>> {
        let (table, of_ids, from_ms, to_ms) = match ids {
            // by itself, so that the other days are pruned
            Ids::Made(from, to) => ("processed_timed", "c.command_id >= $5 and c.command_id < $6", from, to),
            Ids::Untimed => ("processed_untimed", "$5::uuid <= $6::uuid", 0, 0),
        };
        let sql = format!(
            "select c.command_id, t.command_type, t.entity_type, c.entity_id, c.fingerprint, t.topic, c.partition,
                    c.\"offset\", (extract(epoch from c.record_time) * 1000)::bigint as record_time_ms, c.version,
                    case when c.applied then 'applied' else 'rejected' end as outcome,
                    c.code, c.detail, c.reply, c.events, c.traceparent, c.encoding
               from {table} c join command_types t using (type_id)
              where t.entity_type = $1 and c.entity_id = $2 and c.record_time >= time_of($3)
                and {of_ids}
              order by c.\"offset\" desc limit $4"
        );
        let mut scan = self.scan(timeout).await?;
        let rows: Vec<OutcomeRow> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(entity.entity_type)
            .bind(entity.entity_id)
            .bind(entity.since_ms)
            .bind(entity.rows_max)
            .bind(id_floor(from_ms))
            .bind(id_floor(to_ms))
            .fetch_all(&mut *scan)
            .await?;
        rows.into_iter().map(OutcomeRow::into_outcome).collect()
    }

    /// The batch that settled an offset, while it is kept.
    ///
    /// # Errors
    /// If the database cannot be reached, or the scan takes longer than `timeout`.
    pub async fn batch_of(&self, source: &TopicPartition, offset: i64, timeout: Duration) -> Result<Option<BatchRow>> {
        let mut scan = self.scan(timeout).await?;
        Ok(sqlx::query_as(
            "select batch_seq, first_offset, next_offset, fencing_token, command_ids,
                    (extract(epoch from settled_at) * 1000)::bigint as settled_at_ms
               from batches
              where topic = $1 and partition = $2 and first_offset <= $3 and next_offset > $3
              order by batch_seq desc limit 1",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(offset)
        .fetch_optional(&mut *scan)
        .await?)
    }
}
