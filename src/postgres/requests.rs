//! What operators want done with dead letters: written by the tools, done by the partition's owner.

use std::collections::HashMap;

use sqlx::FromRow;

use super::{Refusal, Result, Store};
use crate::dead_letter::{LetterState, stored_headers};
use crate::record::{Record, TopicPartition};
use crate::steps::decide::{Action, Requested};
use crate::steps::fence::Claimed;

#[derive(FromRow)]
struct LetterRow {
    request_id: i64,
    discards: bool,
    accept_expired: bool,
    edited_value: Option<Vec<u8>>,
    dead_letter_id: i64,
    state: String,
    code: String,
    attempts: i32,
    #[sqlx(rename = "offset")]
    log_offset: i64,
    record_time_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: String,
    entity_id: Option<String>,
}

impl LetterRow {
    fn into_requested(self, letters_of_key: &HashMap<String, i64>) -> Result<(Record, Requested)> {
        let broken = |what: String| Refusal::Broken(format!("dead_letters row {}: {what}", self.dead_letter_id));
        let headers = stored_headers(&self.headers).map_err(|error| broken(format!("its headers: {error}")))?;
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        let record =
            Record::copied(self.log_offset, self.record_time_ms, self.key.as_deref(), self.value.as_deref(), &headers);
        let state = LetterState::parse(&self.state).ok_or_else(|| broken(format!("its state {}", self.state)))?;
        let of_key = self.entity_id.as_ref().and_then(|key| letters_of_key.get(key)).copied().unwrap_or(0);
        let requested = Requested {
            request_id: self.request_id,
            action: if self.discards { Action::Discard } else { Action::Redrive },
            accept_expired: self.accept_expired,
            dead_letter_id: self.dead_letter_id,
            state,
            code: self.code,
            attempts: self.attempts,
            entity_id: self.entity_id,
            letters_of_key: u64::try_from(of_key).unwrap_or(0),
            edited_value: self.edited_value,
        };
        Ok((record, requested))
    }
}

/// Ends the requests of which no letter is left, and returns the letters of the others.
const REQUESTED: &str = "
    with done as (
        update requests r set state = 'done', ended_at = now()
         where r.topic = $1 and r.partition = $2 and r.state = 'open'
           and not exists (select from dead_letters d
                            where d.dead_letter_id = r.dead_letter_id and r.entity_id is null
                              and d.state in ('dead', 'parked', 'waiting'))
           and not exists (select from dead_letters d
                            where d.topic = $1 and d.home = $2 and d.entity_id = r.entity_id
                              and d.state in ('parked', 'waiting'))
    )
    select * from (
        select distinct on (d.dead_letter_id)
               r.request_id, r.action = 'discard' as discards, r.accept_expired,
               -- a correction stays one, also when it is run again
               coalesce(case when r.dead_letter_id = d.dead_letter_id then r.edited_value end,
                        d.edited_value) as edited_value,
               d.dead_letter_id, d.state, d.code, d.attempts, d.\"offset\",
               (extract(epoch from d.record_time) * 1000)::bigint as record_time_ms,
               d.key, d.value, d.headers::text as headers, d.entity_id
          from (select * from requests r
                 where r.topic = $1 and r.partition = $2 and r.state = 'open'
                 order by r.request_id limit $3) r
         cross join lateral (
               (select d.* from dead_letters d
                 where r.entity_id is null and d.dead_letter_id = r.dead_letter_id
                   and d.state in ('dead', 'parked', 'waiting'))
               union all
               (select d.* from dead_letters d
                 where d.topic = $1 and d.home = $2 and d.entity_id = r.entity_id
                   and d.state in ('parked', 'waiting')
                 order by d.dead_letter_id limit $3)) d
         order by d.dead_letter_id, r.request_id) letters
     order by dead_letter_id limit $3";

impl Store {
    /// The next letters of which something is requested, oldest first, with their records.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn requested(&self, source: &TopicPartition, letters_max: i64) -> Result<Vec<(Record, Requested)>> {
        let letters: Vec<LetterRow> = sqlx::query_as(REQUESTED)
            .bind(&*source.topic)
            .bind(source.partition)
            .bind(letters_max)
            .fetch_all(&self.pool)
            .await?;
        let keys: Vec<&str> = letters.iter().filter_map(|letter| letter.entity_id.as_deref()).collect();
        let of_key: Vec<(String, i64)> = sqlx::query_as(
            "select entity_id, count(*) from dead_letters
              where topic = $1 and home = $2 and entity_id = any ($3) and state in ('parked', 'waiting')
              group by entity_id",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(keys)
        .fetch_all(&self.pool)
        .await?;
        let of_key = of_key.into_iter().collect();
        letters.into_iter().map(|letter| letter.into_requested(&of_key)).collect()
    }

    /// Ends requests that can't be done, with the reason for each. A stale owner ends none.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn refuse_requests(&self, claimed: &Claimed, refused: &[(i64, String)]) -> Result<()> {
        let (ids, reasons): (Vec<i64>, Vec<&str>) = refused.iter().map(|(id, why)| (*id, why.as_str())).unzip();
        sqlx::query(
            "update requests r set state = 'refused', detail = u.why, ended_at = now()
               from unnest($5::bigint[], $6::text[]) as u (id, why)
              where r.request_id = u.id and r.state = 'open'
                and exists (select from partitions p where p.topic = $1 and p.partition = $2
                               and p.claim_id = $3 and p.fencing_token = $4)",
        )
        .bind(&*claimed.source().topic)
        .bind(claimed.source().partition)
        .bind(claimed.claim_id().0)
        .bind(claimed.token().0)
        .bind(ids)
        .bind(reasons)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
