//! What the outcomes topic and the events topic say, kept in a shadow until it is compared.

use sqlx::FromRow;
use uuid::Uuid;

use super::{Result, Store};
use crate::record::TopicPartition;

/// What was published of one delivery, the newest copy of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct PublishedRow {
    /// The delivery's offset.
    #[sqlx(rename = "offset")]
    pub log_offset: i64,
    /// The command's id.
    pub command_id: Uuid,
    /// Its final outcome, if one was published: the record's value.
    pub ended: Option<Vec<u8>>,
    /// Its last dead outcome, if one was: the record's value.
    pub dead: Option<Vec<u8>>,
    /// The codes of all its dead outcomes, each once, with commas between them.
    pub dead_codes: String,
}

/// An event of a command: what of it a reader acts on.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct EmittedEvent {
    /// The command that emitted it.
    pub command_id: Uuid,
    /// Its own id.
    pub event_id: Uuid,
    /// Its CloudEvents type.
    pub event_type: String,
    /// The record's value.
    pub data: Vec<u8>,
}

impl Store {
    /// Makes the tables of what was published, in a shadow; whatever an earlier process has kept there is forgotten.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn prepare_published(&self) -> Result<()> {
        sqlx::raw_sql(
            "create unlogged table if not exists published (
                 topic      text   not null,
                 partition  int    not null,
                 \"offset\" bigint not null,
                 command_id uuid   not null,
                 ended      bytea,
                 dead       bytea,
                 dead_codes text   not null,
                 primary key (topic, partition, \"offset\")
             );
             create unlogged table if not exists published_events (
                 topic      text  not null,
                 partition  int   not null,
                 command_id uuid  not null,
                 event_id   uuid  not null,
                 event_type text  not null,
                 data       bytea not null,
                 primary key (topic, partition, command_id, event_id)
             );
             truncate published, published_events;",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Keeps what was published of deliveries of one partition, in a shadow: each offset once, newer than what is kept
    /// of it already.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn keep_published(&self, source: &TopicPartition, rows: &[PublishedRow]) -> Result<()> {
        sqlx::query(
            "insert into published as kept (topic, partition, \"offset\", command_id, ended, dead, dead_codes)
             select $1, $2, n.* from unnest($3::bigint[], $4::uuid[], $5::bytea[], $6::bytea[], $7::text[]) as n
             on conflict (topic, partition, \"offset\") do update
                set command_id = excluded.command_id,
                    ended = coalesce(excluded.ended, kept.ended),
                    dead = coalesce(excluded.dead, kept.dead),
                    dead_codes = (select coalesce(string_agg(distinct code, ','), '')
                                    from unnest(string_to_array(kept.dead_codes, ',')
                                                || string_to_array(excluded.dead_codes, ',')) as code)",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(rows.iter().map(|row| row.log_offset).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.command_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.ended.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.dead.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &*row.dead_codes).collect::<Vec<_>>())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes what was published of these deliveries out of a shadow.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn take_published(&self, source: &TopicPartition, offsets: &[i64]) -> Result<Vec<PublishedRow>> {
        Ok(sqlx::query_as(
            "delete from published where topic = $1 and partition = $2 and \"offset\" = any ($3)
             returning \"offset\", command_id, ended, dead, dead_codes",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(offsets)
        .fetch_all(&self.pool)
        .await?)
    }

    /// What is left of a partition in a shadow behind an offset, in order; at most `rows_max`.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn published_behind(
        &self,
        source: &TopicPartition,
        offset: i64,
        rows_max: i64,
    ) -> Result<Vec<PublishedRow>> {
        Ok(sqlx::query_as(
            "select \"offset\", command_id, ended, dead, dead_codes from published
              where topic = $1 and partition = $2 and \"offset\" > $3 order by \"offset\" limit $4",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(offset)
        .bind(rows_max)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Keeps events of one partition's commands in a shadow: each once, newer than what is kept of it already.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn keep_published_events(&self, source: &TopicPartition, events: &[EmittedEvent]) -> Result<()> {
        sqlx::query(
            "insert into published_events (topic, partition, command_id, event_id, event_type, data)
             select $1, $2, n.* from unnest($3::uuid[], $4::uuid[], $5::text[], $6::bytea[]) as n
             on conflict (topic, partition, command_id, event_id) do update
                set event_type = excluded.event_type, data = excluded.data",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(events.iter().map(|event| event.command_id).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.event_id).collect::<Vec<_>>())
        .bind(events.iter().map(|event| &*event.event_type).collect::<Vec<_>>())
        .bind(events.iter().map(|event| &*event.data).collect::<Vec<_>>())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes the events of these commands out of a shadow.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn take_published_events(
        &self,
        source: &TopicPartition,
        command_ids: &[Uuid],
    ) -> Result<Vec<EmittedEvent>> {
        Ok(sqlx::query_as(
            "delete from published_events where topic = $1 and partition = $2 and command_id = any ($3)
             returning command_id, event_id, event_type, data",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(command_ids)
        .fetch_all(&self.pool)
        .await?)
    }

    /// The commands of a partition whose events are left in a shadow, behind an id, in order; at most `ids_max`.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn left_with_events(&self, source: &TopicPartition, behind: Uuid, ids_max: i64) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar(
            "select distinct command_id from published_events
              where topic = $1 and partition = $2 and command_id > $3 order by command_id limit $4",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(behind)
        .bind(ids_max)
        .fetch_all(&self.pool)
        .await?)
    }
}
