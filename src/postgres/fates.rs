//! What became of many deliveries at once: a look-up for each chunk of a log, none for each record.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use super::{Result, Store};
use crate::record::TopicPartition;

/// The delivery that settled a command, and how it ended; without its reply and events.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct SettledDelivery {
    /// The command.
    pub command_id: Uuid,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    #[sqlx(rename = "offset")]
    pub log_offset: i64,
    /// The record's own time, milliseconds since 1970.
    pub record_time_ms: i64,
    /// The entity's version.
    pub version: i64,
    /// Applied, or rejected.
    pub applied: bool,
    /// Why it was rejected.
    pub code: Option<String>,
}

/// A dead letter, in short.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct LetterAt {
    /// Its number.
    pub dead_letter_id: i64,
    /// The record's offset.
    #[sqlx(rename = "offset")]
    pub log_offset: i64,
    /// The record's own time, milliseconds since 1970.
    pub record_time_ms: i64,
    /// Why it is dead.
    pub code: String,
    /// What is wrong with it.
    pub detail: Option<String>,
    /// `dead`, or what was done with it.
    pub state: String,
}

impl Store {
    /// The cursor of a partition; `None`: nobody has ever claimed it.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn cursor_of(&self, source: &TopicPartition) -> Result<Option<i64>> {
        Ok(sqlx::query_scalar("select next_offset from partitions where topic = $1 and partition = $2")
            .bind(&*source.topic)
            .bind(source.partition)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// Of these commands, those with a final outcome.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn settled_deliveries(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, SettledDelivery>> {
        let (Some(least), Some(greatest)) = (ids.iter().min(), ids.iter().max()) else {
            return Ok(HashMap::new());
        };
        let rows: Vec<SettledDelivery> = sqlx::query_as(
            "select command_id, topic, partition, \"offset\",
                    (extract(epoch from record_time) * 1000)::bigint as record_time_ms,
                    version, outcome = 'applied' as applied, code
               from processed_commands
              where command_id = any ($1)
                -- prunes the days that hold none of them
                and command_id between $2 and $3",
        )
        .bind(ids)
        .bind(least)
        .bind(greatest)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.command_id, row)).collect())
    }

    /// The dead letters of these offsets of a partition, oldest first.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn letters_at(&self, source: &TopicPartition, offsets: &[i64]) -> Result<Vec<LetterAt>> {
        Ok(sqlx::query_as(
            "select dead_letter_id, \"offset\", (extract(epoch from record_time) * 1000)::bigint as record_time_ms,
                    code, detail, state
               from dead_letters where topic = $1 and partition = $2 and \"offset\" = any ($3)
              order by dead_letter_id",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(offsets)
        .fetch_all(&self.pool)
        .await?)
    }
}
