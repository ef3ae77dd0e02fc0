//! Settled batches as they were published, read back for whoever wants it again: no claim, nothing that is owed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::owed::{BatchRow, Dead, DeadRow, Due};
use super::{Result, Store};
use crate::dead_letter::{DeadCode, LetterState};
use crate::outcome::{FinalOutcome, Publication};
use crate::record::TopicPartition;

/// What is kept of a partition's batches, and which of them settled a range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Kept {
    /// The batches after this one were settled at or after the record at the range's beginning; `None`: none was.
    pub after_seq: Option<i64>,
    /// And up to this one before the record at its end; redriven and discarded letters included.
    pub through_seq: Option<i64>,
    /// Everything up to this batch is published by the worker.
    pub published_seq: i64,
    /// The oldest batch that is kept.
    pub oldest_seq: Option<i64>,
    /// Its first record.
    pub oldest_offset: Option<i64>,
    /// The cursor.
    pub next_offset: i64,
}

/// A settled batch with everything that it owed, in order.
pub struct SettledBatch {
    /// Its number in its partition.
    pub batch_seq: i64,
    /// It settled records of the log, and no letters that an operator wanted run again or given up.
    pub is_of_log: bool,
    /// What it owed.
    pub items: Vec<SettledItem>,
}

/// What a batch owed for one record.
pub enum SettledItem {
    /// A final outcome, with its events.
    Outcome(Arc<FinalOutcome>),
    /// A stored outcome again, without the events.
    Repeat(Arc<FinalOutcome>),
    /// A dead delivery.
    Dead(Box<DeadOf>),
    /// The outcome of this command, which is no longer remembered.
    Forgotten(Uuid),
    /// An attempt of this letter: a later attempt has taken its place in the row.
    Overwritten(i64),
}

/// A dead delivery as the batch that settled it left it.
pub struct DeadOf(Dead);

impl DeadOf {
    /// Its outcome, if it published one.
    pub fn publication(&self) -> Option<Publication<'_>> {
        self.0.publication()
    }

    /// The record's offset.
    pub fn offset(&self) -> i64 {
        self.0.row.log_offset
    }

    /// The entity's id, if the key is one.
    pub fn entity_id(&self) -> Option<&str> {
        self.0.row.entity_id.as_deref()
    }

    /// The command's type, if it could be read.
    pub fn command_type(&self) -> Option<&str> {
        self.0.row.command_type.as_deref()
    }
}

impl DeadRow {
    /// The letter as attempt number `attempt` has left it; `None`: a later attempt has overwritten that.
    ///
    /// A row keeps code and detail of the last attempt that failed. An attempt that ended it (it ran, or was
    /// given up) counts, and leaves them as they are.
    fn at_attempt(mut self, attempt: i32) -> Option<Self> {
        let state = LetterState::parse(&self.state)?;
        let ended = matches!(state, LetterState::Redriven | LetterState::Discarded);
        if state == LetterState::Discarded && attempt == self.attempts {
            // of a reused id nothing is said
            self.command_id = self.command_id.filter(|_| self.code != DeadCode::IdReuse.as_str());
            self.code = DeadCode::Discarded.as_str().to_owned();
            self.detail = Some(DISCARDED.to_owned());
            return Some(self);
        }
        let failed_last = self.attempts - i32::from(ended);
        if attempt != failed_last {
            return None;
        }
        self.attempts = attempt;
        Some(self)
    }

    /// Which of its attempts owed something last.
    fn owed_last(&self) -> i32 {
        self.attempts - i32::from(self.state == LetterState::Redriven.as_str())
    }
}

/// The detail of every letter that was given up.
const DISCARDED: &str = "an operator has discarded it";

impl Store {
    /// Which batches settled the offsets of a partition from `from` to the one before `to`. `None`: nobody has
    /// ever claimed it.
    ///
    /// # Errors
    /// If the database cannot be reached, or the scan takes longer than `timeout`.
    pub async fn kept_batches(
        &self,
        source: &TopicPartition,
        from: i64,
        to: i64,
        timeout: Duration,
    ) -> Result<Option<Kept>> {
        let mut scan = self.scan(timeout).await?;
        Ok(sqlx::query_as(
            "select min(b.batch_seq) filter (where b.next_offset > $3) - 1 as after_seq,
                    -- what operators had done between two records of the log was settled before the second
                    max(b.batch_seq) filter (where b.first_offset < $4
                                                or (b.first_offset = b.next_offset and b.first_offset = $4))
                        as through_seq,
                    p.published_seq, min(b.batch_seq) as oldest_seq, min(b.first_offset) as oldest_offset,
                    p.next_offset
               from partitions p left join batches b on (b.topic, b.partition) = (p.topic, p.partition)
              where p.topic = $1 and p.partition = $2
              group by p.topic, p.partition",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(from)
        .bind(to)
        .fetch_optional(&mut *scan)
        .await?)
    }

    /// The next batches after batch `after_seq`, up to and including batch `through`, at most `batches_max` of
    /// them, with everything that they owed.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn settled_batches(
        &self,
        source: &TopicPartition,
        after_seq: i64,
        through: i64,
        batches_max: i64,
    ) -> Result<Vec<SettledBatch>> {
        let rows = self.batch_rows(source, after_seq, through, batches_max).await?;
        let mut settled = Vec::with_capacity(rows.len());
        for row in rows {
            let outcomes = self.outcomes_of(&row.command_ids).await?;
            let mut letters = self.letters_as_of(source, &row).await?;
            let item = |due| match due {
                Due::Outcome(id) => outcomes.get(&id).cloned().map_or(SettledItem::Forgotten(id), SettledItem::Outcome),
                Due::Repeat(id) => outcomes.get(&id).cloned().map_or(SettledItem::Forgotten(id), SettledItem::Repeat),
                Due::Dead(id) => letters.remove(&id).map_or(SettledItem::Overwritten(id), SettledItem::Dead),
            };
            settled.push(SettledBatch {
                batch_seq: row.batch_seq,
                is_of_log: row.is_of_log(),
                items: row.due().into_iter().map(item).collect(),
            });
        }
        Ok(settled)
    }

    /// The letters that a batch names, as it has left them.
    async fn letters_as_of(&self, source: &TopicPartition, batch: &BatchRow) -> Result<HashMap<i64, Box<DeadOf>>> {
        let ids = &batch.dead_letter_ids;
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<DeadRow> = sqlx::query_as(
            "select dead_letter_id, topic, partition, \"offset\", key, code, detail, attempts,
                    (extract(epoch from record_time) * 1000)::bigint as record_time_ms,
                    command_id, command_type, entity_type, entity_id, traceparent, state,
                    null::bytea as value, null::text as headers
               from dead_letters where dead_letter_id = any ($1)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let later = if batch.is_of_log() { HashMap::new() } else { self.owed_later(source, batch).await? };
        let mut letters = HashMap::new();
        for row in rows {
            let id = row.dead_letter_id;
            let attempt = match batch.is_of_log() {
                true => 1,
                false => row.owed_last() - later.get(&id).copied().unwrap_or(0),
            };
            if let Some(row) = row.at_attempt(attempt) {
                letters.insert(id, Box::new(DeadOf(Dead::new(row)?)));
            }
        }
        Ok(letters)
    }

    /// How often the letters of a batch have owed something after it.
    async fn owed_later(&self, source: &TopicPartition, batch: &BatchRow) -> Result<HashMap<i64, i32>> {
        let rows: Vec<(i64, i32)> = sqlx::query_as(
            "select id, count(*)::int
               from batches this
               -- also those of another home, if the topic was repartitioned since
               join batches b on b.topic = this.topic and b.first_offset = b.next_offset and b.settled_at > this.settled_at
              cross join unnest(b.dead_letter_ids) as id
              where this.topic = $1 and this.partition = $2 and this.batch_seq = $3 and id = any ($4)
              group by id",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(batch.batch_seq)
        .bind(&batch.dead_letter_ids)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().collect())
    }
}

impl BatchRow {
    /// A batch of letters moves no cursor.
    fn is_of_log(&self) -> bool {
        self.first_offset < self.next_offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, attempts: i32) -> DeadRow {
        DeadRow::of_test(state, attempts)
    }

    /// What the attempts of a letter are read back as: code and attempt, or nothing.
    fn read(state: &str, attempts: i32) -> Vec<Option<(String, i32)>> {
        let read = |attempt| row(state, attempts).at_attempt(attempt).map(|row| (row.code, row.attempts));
        (1..=attempts).map(read).collect()
    }

    #[test]
    fn a_letter_is_read_back_as_the_attempt_left_it_or_not_at_all() {
        let failed = |attempt| Some(("handler-failed".to_owned(), attempt));
        assert_eq!(read("dead", 1), [failed(1)]);
        assert_eq!(read("parked", 3), [None, None, failed(3)]);
        assert_eq!(read("redriven", 2), [failed(1), None], "the second ran: it owed no dead outcome");
        assert_eq!(read("redriven", 3), [None, failed(2), None]);
        assert_eq!(read("discarded", 2), [failed(1), Some(("discarded".to_owned(), 2))]);
        assert_eq!(row("redriven", 3).owed_last(), 2);
        assert_eq!(row("discarded", 3).owed_last(), 3);
    }

    #[test]
    fn nothing_is_said_of_a_reused_id_that_was_given_up() {
        let mut reused = row("discarded", 2);
        reused.code = "id-reuse".to_owned();
        assert_eq!(reused.at_attempt(2).expect("given up").command_id, None);
    }
}
