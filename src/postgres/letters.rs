//! Dead letters, for operators: finding them, and requesting something of them.

use std::time::Duration;

use sqlx::{AssertSqlSafe, FromRow};

use super::history::LETTERS;
use super::operate::audit;
use super::{OperatorAction, Result, Store, StoredLetter};
use crate::record::TopicPartition;
use crate::steps::decide::Action;

/// Which dead letters are meant. What is empty or `None` excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    /// Their numbers.
    pub ids: Vec<i64>,
    /// Their topic.
    pub topic: Option<String>,
    /// Their partition.
    pub partition: Option<i32>,
    /// Their key, as far as it is an entity's id.
    pub key: Option<String>,
    /// Their codes.
    pub codes: Vec<String>,
    /// Their command type.
    pub command_type: Option<String>,
    /// Their states.
    pub states: Vec<String>,
    /// Settled at this time or later: milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Settled before this time.
    pub until_ms: Option<i64>,
}

const FILTER: &str = "
     where ($1::bigint[] = '{}' or dead_letter_id = any ($1))
       and ($2::text is null or topic = $2) and ($3::int is null or partition = $3)
       and ($4::text is null or entity_id = $4)
       and ($5::text[] = '{}' or code = any ($5)) and ($6::text is null or command_type = $6)
       and ($7::text[] = '{}' or state = any ($7))
       and ($8::bigint is null or at >= time_of($8)) and ($9::bigint is null or at < time_of($9))";

/// A dead letter with its raw bytes.
#[derive(Clone, Debug, FromRow)]
pub struct RawLetter {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, `[[name, value], …]`.
    pub headers: String,
    /// What an operator has put in the value's place.
    pub edited_value: Option<Vec<u8>>,
}

/// Something requested of a dead letter, or of all letters of a parked key.
#[derive(Clone, Debug, Default)]
pub struct LetterRequest {
    /// One letter; of a parked key, the one that is edited.
    pub dead_letter_id: Option<i64>,
    /// A parked key.
    pub entity_id: Option<String>,
    /// The payload that takes the place of the record's.
    pub edited_value: Option<Vec<u8>>,
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestsEnded {
    /// Still to be done.
    pub open: u64,
    /// Done.
    pub done: u64,
    /// Rises or falls while their owners run letters: the sum of those that batches began with.
    pub begun_with: i64,
    /// Not done, or withdrawn: the request, and why.
    pub refused: Vec<(i64, String)>,
}

impl Store {
    /// The letters that a filter means, oldest first.
    ///
    /// # Errors
    /// If the database cannot be reached, or the scan takes longer than `timeout`.
    pub async fn letters(
        &self,
        filter: &LetterFilter,
        letters_max: i64,
        timeout: Duration,
    ) -> Result<Vec<StoredLetter>> {
        let mut scan = self.scan(timeout).await?;
        let sql = format!("{LETTERS} {FILTER} order by dead_letter_id limit $10");
        Ok(sqlx::query_as(AssertSqlSafe(sql))
            .bind(&filter.ids)
            .bind(&filter.topic)
            .bind(filter.partition)
            .bind(&filter.key)
            .bind(&filter.codes)
            .bind(&filter.command_type)
            .bind(&filter.states)
            .bind(filter.since_ms)
            .bind(filter.until_ms)
            .bind(letters_max)
            .fetch_all(&mut *scan)
            .await?)
    }

    /// The raw bytes of a letter. `None`: there is no such letter.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn raw_letter(&self, dead_letter_id: i64) -> Result<Option<RawLetter>> {
        Ok(sqlx::query_as(
            "select key, value, headers::text as headers, edited_value from dead_letters where dead_letter_id = $1",
        )
        .bind(dead_letter_id)
        .fetch_optional(&self.pool)
        .await?)
    }

    /// How many letters of a parked key are parked and how many wait.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn letters_of_key(&self, source: &TopicPartition, entity_id: &str) -> Result<(i64, i64)> {
        Ok(sqlx::query_as(
            "select count(*) filter (where state = 'parked'), count(*) filter (where state = 'waiting')
               from dead_letters
              where topic = $1 and home = $2 and entity_id = $3 and state in ('parked', 'waiting')",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(entity_id)
        .fetch_one(&self.pool)
        .await?)
    }

    /// How many settled commands came behind these letters for the same entity: a letter that parks
    /// nothing runs after them.
    ///
    /// # Errors
    /// If the database cannot be reached, or the scan takes longer than `timeout`.
    pub async fn passed_by(&self, dead_letter_ids: &[i64], timeout: Duration) -> Result<i64> {
        let mut scan = self.scan(timeout).await?;
        Ok(sqlx::query_scalar(
            "select count(*) from processed_commands c
               join (select entity_type, entity_id, topic, partition, min(\"offset\") as \"offset\"
                       from dead_letters where dead_letter_id = any ($1) group by 1, 2, 3, 4) d
                 on (c.entity_type, c.entity_id, c.topic) = (d.entity_type, d.entity_id, d.topic)
              -- on another partition: since the layout has changed
              where c.partition <> d.partition or c.\"offset\" > d.\"offset\"",
        )
        .bind(dead_letter_ids)
        .fetch_one(&mut *scan)
        .await?)
    }

    /// The letters among these of which something is requested already.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn requested_already(&self) -> Result<Vec<(String, i32, Option<i64>, Option<String>)>> {
        Ok(sqlx::query_as("select topic, partition, dead_letter_id, entity_id from requests where state = 'open'")
            .fetch_all(&self.pool)
            .await?)
    }

    /// Requests something of a partition's letters, and audits it. The owner does it. Returns the
    /// requests' numbers.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn request(
        &self,
        by: &OperatorAction<'_>,
        action: Action,
        accept_expired: bool,
        requests: &[LetterRequest],
    ) -> Result<Vec<i64>> {
        let mut transaction = self.pool.begin().await?;
        let detail = serde_json::json!({
            "requests": requests.len(),
            "keys": requests.iter().filter(|request| request.entity_id.is_some()).count(),
            "edited": requests.iter().filter(|request| request.edited_value.is_some()).count(),
            "accept_expired": accept_expired,
        });
        let action_id = audit(&mut transaction, by, action.as_str(), detail).await?;
        let ids: Vec<i64> = sqlx::query_scalar(
            "insert into requests (actor, reason, action, topic, partition, accept_expired, action_id,
                                   dead_letter_id, entity_id, edited_value)
             select $1, $2, $3, $4, $5, $6, $10, r.letter, r.entity, r.edited
               from unnest($7::bigint[], $8::text[], $9::bytea[]) as r (letter, entity, edited)
             returning request_id",
        )
        .bind(by.actor)
        .bind(by.reason)
        .bind(action.as_str())
        .bind(&*by.source.topic)
        .bind(by.source.partition)
        .bind(accept_expired)
        .bind(requests.iter().map(|request| request.dead_letter_id).collect::<Vec<_>>())
        .bind(requests.iter().map(|request| request.entity_id.as_deref()).collect::<Vec<_>>())
        .bind(requests.iter().map(|request| request.edited_value.as_deref()).collect::<Vec<_>>())
        .bind(action_id)
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ids)
    }

    /// Takes back what is requested of these letters of a partition, and of their keys, as far as it
    /// is not done yet; and audits it. Returns how many requests that were.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn withdraw(&self, by: &OperatorAction<'_>, dead_letter_ids: &[i64], keys: &[String]) -> Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let ids: Vec<i64> = sqlx::query_scalar(
            "update requests set state = 'withdrawn', detail = 'withdrawn by ' || $5 || ': ' || $6, ended_at = now()
              where topic = $1 and partition = $2 and state = 'open'
                and (entity_id = any ($4) or entity_id is null and dead_letter_id = any ($3))
             returning request_id",
        )
        .bind(&*by.source.topic)
        .bind(by.source.partition)
        .bind(dead_letter_ids)
        .bind(keys)
        .bind(by.actor)
        .bind(by.reason)
        .fetch_all(&mut *transaction)
        .await?;
        if !ids.is_empty() {
            let detail = serde_json::json!({ "requests": ids.len(), "first_request_id": ids.iter().min() });
            audit(&mut transaction, by, "withdraw", detail).await?;
        }
        transaction.commit().await?;
        Ok(ids.len() as u64)
    }

    /// What became of requests.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn requests_ended(&self, request_ids: &[i64]) -> Result<RequestsEnded> {
        let (open, done, begun_with): (i64, i64, i64) = sqlx::query_as(
            "select count(*) filter (where state = 'open'), count(*) filter (where state = 'done'),
                    (select coalesce(sum(letters_begun_with), 0)::bigint from partitions)
               from requests where request_id = any ($1)",
        )
        .bind(request_ids)
        .fetch_one(&self.pool)
        .await?;
        let refused = sqlx::query_as(
            "select request_id, coalesce(detail, '') from requests
              where request_id = any ($1) and state in ('refused', 'withdrawn') order by request_id",
        )
        .bind(request_ids)
        .fetch_all(&self.pool)
        .await?;
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        Ok(RequestsEnded { open: count(open), done: count(done), begun_with, refused })
    }
}
