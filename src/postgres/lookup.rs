//! What a batch needs to know before it is decided: outcomes of ids, states of
//! entities, the numbers of command types.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::FromRow;
use uuid::Uuid;

use super::{Refusal, Result, Store};
use crate::command::Fingerprint;
use crate::outcome::{Delivery, Ending, FinalOutcome};
use crate::record::TopicPartition;
use crate::steps::fence::Claimed;

/// A command type's number.
#[derive(Clone, Debug, FromRow)]
pub struct CommandTypeRow {
    /// The number that `processed_commands` stores.
    pub type_id: i16,
    /// The topic.
    pub topic: String,
    /// The entity type.
    pub entity_type: String,
    /// The command type.
    pub command_type: String,
}

/// An entity's row.
#[derive(Clone, Debug, FromRow)]
pub struct StoredEntity {
    /// The entity's id.
    pub entity_id: String,
    /// Its home.
    pub topic: String,
    /// Its home.
    pub partition: i32,
    /// How many commands have been applied to it.
    pub version: i64,
    /// Its state as JSON; null for SQL commands.
    pub state: Option<String>,
}

/// Of some deliveries, those whose end the tables know.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Commands with a final outcome.
    pub command_ids: HashSet<Uuid>,
    /// Offsets with a dead letter.
    pub offsets: HashSet<i64>,
}

#[derive(FromRow)]
struct EntityRow {
    entity_id: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
    version: Option<i64>,
    state: Option<String>,
}

impl EntityRow {
    fn into_entity(self) -> Option<StoredEntity> {
        Some(StoredEntity {
            entity_id: self.entity_id?,
            topic: self.topic?,
            partition: self.partition?,
            version: self.version?,
            state: self.state,
        })
    }
}

#[derive(FromRow)]
pub(super) struct OutcomeRow {
    command_id: Uuid,
    command_type: String,
    entity_type: String,
    entity_id: String,
    fingerprint: Uuid,
    topic: String,
    partition: i32,
    #[sqlx(rename = "offset")]
    log_offset: i64,
    record_time_ms: i64,
    version: i64,
    outcome: String,
    code: Option<String>,
    detail: Option<String>,
    reply: Option<Vec<u8>>,
    events: Option<Vec<u8>>,
    traceparent: Option<String>,
    encoding: i16,
}

impl OutcomeRow {
    pub(super) fn into_outcome(self) -> Result<FinalOutcome> {
        let applied = self.outcome == "applied";
        // it was valid when it was written; a row that somebody changed by hand is reported, not guessed
        let ending = Ending::stored(applied, self.code, self.detail, self.reply.as_deref(), self.events.as_deref())
            .map_err(|error| {
                Refusal::Broken(format!("processed_commands row {} holds no JSON: {error}", self.command_id))
            })?;
        let delivery = Delivery {
            command_id: self.command_id,
            command_type: self.command_type.into(),
            entity_type: self.entity_type.into(),
            entity_id: self.entity_id.into(),
            fingerprint: Fingerprint(self.fingerprint.into_bytes()),
            source: TopicPartition::new(self.topic, self.partition),
            offset: self.log_offset,
            record_time_ms: self.record_time_ms,
            traceparent: self.traceparent,
        };
        Ok(FinalOutcome { delivery, version: self.version, ending, encoding: self.encoding })
    }
}

const OUTCOMES: &str = "
    select command_id, command_type, entity_type, entity_id, fingerprint, topic, partition, \"offset\",
           (extract(epoch from record_time) * 1000)::bigint as record_time_ms,
           version, outcome, code, detail, reply, events, traceparent, encoding
      from processed_commands
     where command_id = any ($1)
       -- prunes the days that hold none of them
       and command_id between $2 and $3";

impl Store {
    /// The stored outcomes of those ids that are settled.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn outcomes_of(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Arc<FinalOutcome>>> {
        let (Some(least), Some(greatest)) = (ids.iter().min(), ids.iter().max()) else {
            return Ok(HashMap::new());
        };
        let rows: Vec<OutcomeRow> =
            sqlx::query_as(OUTCOMES).bind(ids).bind(least).bind(greatest).fetch_all(&self.pool).await?;
        rows.into_iter().map(|row| Ok((row.command_id, Arc::new(row.into_outcome()?)))).collect()
    }

    /// Which of these commands are settled, and at which of these offsets of a
    /// partition there is a dead letter.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn known(&self, source: &TopicPartition, ids: &[Uuid], offsets: &[i64]) -> Result<Known> {
        let (Some(least), Some(greatest)) = (ids.iter().min(), ids.iter().max()) else {
            return Ok(Known::default());
        };
        let command_ids: Vec<Uuid> = sqlx::query_scalar(
            "select command_id from processed_commands where command_id = any ($1) and command_id between $2 and $3",
        )
        .bind(ids)
        .bind(least)
        .bind(greatest)
        .fetch_all(&self.pool)
        .await?;
        let offsets: Vec<i64> = sqlx::query_scalar(
            "select \"offset\" from dead_letters where topic = $1 and partition = $2 and \"offset\" = any ($3)",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(offsets)
        .fetch_all(&self.pool)
        .await?;
        Ok(Known { command_ids: command_ids.into_iter().collect(), offsets: offsets.into_iter().collect() })
    }

    /// The rows of those entities that have one, read in one snapshot with the
    /// claim: what a fenced writer reads may belong to a history that is undone
    /// later. `None`: the claim is stale.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn entities(
        &self,
        claimed: &Claimed,
        entity_type: &str,
        entity_ids: &[&str],
    ) -> Result<Option<Vec<StoredEntity>>> {
        if entity_ids.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let rows: Vec<EntityRow> = sqlx::query_as(
            "select e.entity_id, e.topic, e.partition, e.version, e.state::text as state
               from partitions p
               left join unnest($6) as wanted (id) on true
               -- OFFSET 0: one look-up for each, whatever the statistics say; a plan
               -- that reads all entities of the type for each batch is quadratic
               left join lateral (
                        select entity_id, topic, partition, version, state from entities
                         where entity_type = $5 and entity_id = wanted.id
                        offset 0) e on true
              where p.topic = $1 and p.partition = $2 and p.claim_id = $3 and p.fencing_token = $4",
        )
        .bind(&*claimed.source().topic)
        .bind(claimed.source().partition)
        .bind(claimed.claim_id().0)
        .bind(claimed.token().0)
        .bind(entity_type)
        .bind(entity_ids)
        .fetch_all(&self.pool)
        .await?;
        // without any entity the claim's row still comes, with nulls beside it
        Ok((!rows.is_empty()).then(|| rows.into_iter().filter_map(EntityRow::into_entity).collect()))
    }

    /// The numbers of a topic's command types; new ones are given a number.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn number_command_types(
        &self,
        topic: &str,
        entity_type: &str,
        command_types: &[&str],
    ) -> Result<Vec<CommandTypeRow>> {
        sqlx::query(
            "insert into command_types (topic, entity_type, command_type)
             select $1, $2, name from unnest($3::text[]) as name
              where not exists (select from command_types t
                                 where (t.topic, t.entity_type, t.command_type) = ($1, $2, name))
              order by name on conflict do nothing",
        )
        .bind(topic)
        .bind(entity_type)
        .bind(command_types)
        .execute(&self.pool)
        .await?;
        Ok(sqlx::query_as(
            "select type_id, topic, entity_type, command_type from command_types
              where topic = $1 and entity_type = $2",
        )
        .bind(topic)
        .bind(entity_type)
        .fetch_all(&self.pool)
        .await?)
    }
}
