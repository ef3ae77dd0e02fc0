//! What operators want done with dead letters: written by the tools, done by the partition's owner.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use super::{Refusal, Result, Store};
use crate::dead_letter::{LetterState, stored_headers};
use crate::record::{Record, TopicPartition};
use crate::steps::decide::{Action, RequestedLetter};
use crate::steps::fence::Claimed;

#[derive(FromRow)]
struct LetterRow {
    request_id: i64,
    action: String,
    accept_expired: bool,
    edited_value: Option<Vec<u8>>,
    dead_letter_id: i64,
    partition: i32,
    state: String,
    code: String,
    attempts: i32,
    #[sqlx(rename = "offset")]
    log_offset: i64,
    record_time_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: String,
    command_id: Option<Uuid>,
    entity_id: Option<String>,
}

impl LetterRow {
    fn into_requested(self, topic: &str, letters_of_key: &HashMap<String, i64>) -> Result<(Record, RequestedLetter)> {
        let broken = |what: String| Refusal::Broken(format!("dead_letters row {}: {what}", self.dead_letter_id));
        let headers = stored_headers(&self.headers).map_err(|error| broken(format!("its headers: {error}")))?;
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        let record =
            Record::copied(self.log_offset, self.record_time_ms, self.key.as_deref(), self.value.as_deref(), &headers);
        let state = LetterState::parse(&self.state).ok_or_else(|| broken(format!("its state {}", self.state)))?;
        let of_key = self.entity_id.as_ref().and_then(|key| letters_of_key.get(key)).copied().unwrap_or(0);
        let action = Action::parse(&self.action)
            .ok_or_else(|| Refusal::Broken(format!("requests row {}: its action {}", self.request_id, self.action)))?;
        let requested = RequestedLetter {
            request_id: self.request_id,
            action,
            accept_expired: self.accept_expired,
            dead_letter_id: self.dead_letter_id,
            source: TopicPartition::new(topic, self.partition),
            state,
            code: self.code,
            attempts: self.attempts,
            command_id: self.command_id,
            entity_id: self.entity_id,
            letters_of_key: u64::try_from(of_key).unwrap_or(0),
            edited_value: self.edited_value,
        };
        Ok((record, requested))
    }
}

/// Requests that are looked at in one go, whether they are done.
const ENDED_MAX: i64 = 5_000;

/// Ends the requests of which no letter is left here.
const END: &str = "
    update requests r
       set ended_at = now(), state = case when moved then 'refused' else 'done' end,
           detail = case when moved then 'the topic was repartitioned, the letter lives elsewhere now: request it again' end
      from (select request_id,
                   exists (select from dead_letters d
                            where asked.entity_id is null and d.dead_letter_id = asked.dead_letter_id
                              and d.state in ('dead', 'parked', 'waiting'))
                   or exists (select from dead_letters d
                               where d.topic = $1 and d.entity_id = asked.entity_id
                                 and d.home = any (array(select partition from partitions where topic = $1))
                                 and d.state in ('parked', 'waiting')) as moved
              from (select * from requests where topic = $1 and partition = $2 and state = 'open'
                     order by entity_id is not null, request_id limit $5) asked
             where not exists (select from dead_letters d
                                where asked.entity_id is null and d.dead_letter_id = asked.dead_letter_id
                                  and d.home = $2 and d.state in ('dead', 'parked', 'waiting'))
               and not exists (select from dead_letters d
                                where d.topic = $1 and d.home = $2 and d.entity_id = asked.entity_id
                                  and d.state in ('parked', 'waiting'))) ended
     where r.request_id = ended.request_id and r.state = 'open'
       and exists (select from partitions p where p.topic = $1 and p.partition = $2
                      and p.claim_id = $3 and p.fencing_token = $4)";

/// Letters by number, those first of which something was requested one by one: of a letter that is
/// requested twice the narrower request counts, then the newer. What is read of them is chosen before
/// their payloads are.
const REQUESTED: &str = "
    with asked as (
        select * from requests r
         where r.topic = $1 and r.partition = $2 and r.state = 'open'
         order by r.entity_id is not null, r.request_id limit $3
    ), meant as (
        select distinct on (d.dead_letter_id) d.dead_letter_id, d.bytes, asked.request_id
          from asked cross join lateral (
               (select d.dead_letter_id, coalesce(octet_length(d.value), 0)::bigint as bytes from dead_letters d
                 where asked.entity_id is null and d.dead_letter_id = asked.dead_letter_id and d.home = $2
                   and d.state in ('dead', 'parked', 'waiting'))
               union all
               (select d.dead_letter_id, coalesce(octet_length(d.value), 0)::bigint from dead_letters d
                 where d.topic = $1 and d.home = $2 and d.entity_id = asked.entity_id
                   and d.state in ('parked', 'waiting')
                 order by d.dead_letter_id limit $3)) d
         order by d.dead_letter_id, asked.entity_id is not null, asked.request_id desc
    ), next as (
        select dead_letter_id, request_id, sum(bytes) over (order by dead_letter_id) - bytes as bytes_before
          from (select * from meant order by dead_letter_id limit $3) meant
    )
    select r.request_id, r.action, r.accept_expired,
           -- a correction stays one, also when it is run again
           coalesce(case when r.dead_letter_id = d.dead_letter_id then r.edited_value end,
                    d.edited_value) as edited_value,
           d.dead_letter_id, d.partition, d.state, d.code, d.attempts, d.\"offset\",
           (extract(epoch from d.record_time) * 1000)::bigint as record_time_ms,
           d.key, d.value, d.headers::text as headers, d.command_id, d.entity_id
      from next join dead_letters d using (dead_letter_id) join requests r using (request_id)
     where next.bytes_before < $4
     order by d.dead_letter_id";

/// How many letters are read at a time.
#[derive(Clone, Copy, Debug)]
pub struct LetterSpan {
    /// At most so many.
    pub letters_max: i64,
    /// The last of them begins within so many bytes of values.
    pub bytes_max: i64,
}

impl Store {
    /// Ends the requests of which no letter is left. A stale owner ends none.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn end_requests(&self, claimed: &Claimed) -> Result<()> {
        sqlx::query(END)
            .bind(&*claimed.source().topic)
            .bind(claimed.source().partition)
            .bind(claimed.claim_id().0)
            .bind(claimed.token().0)
            .bind(ENDED_MAX)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes that the owner is about to run letters, from this to that one. Returns how often that was
    /// begun; `None`: the claim is stale.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn begin_letters(&self, claimed: &Claimed, first: i64, last: i64) -> Result<Option<i32>> {
        let (beginnings,) = sqlx::query_as("select begin_letters_v1($1, $2, $3, $4, $5, $6)")
            .bind(&*claimed.source().topic)
            .bind(claimed.source().partition)
            .bind(claimed.claim_id().0)
            .bind(claimed.token().0)
            .bind(first)
            .bind(last)
            .fetch_one(&self.pool)
            .await?;
        Ok(beginnings)
    }

    /// Notes that nothing is requested of letters any more. A stale owner notes nothing.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn end_letters(&self, claimed: &Claimed) -> Result<()> {
        sqlx::query(
            "update partitions set letters_begun_with = null, letters_begun_through = null, letters_begun = 0
              where topic = $1 and partition = $2 and claim_id = $3 and fencing_token = $4 and letters_begun > 0",
        )
        .bind(&*claimed.source().topic)
        .bind(claimed.source().partition)
        .bind(claimed.claim_id().0)
        .bind(claimed.token().0)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The next letters of which something is requested, with their records.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn requested_letters(
        &self,
        source: &TopicPartition,
        span: LetterSpan,
    ) -> Result<Vec<(Record, RequestedLetter)>> {
        let letters: Vec<LetterRow> = sqlx::query_as(REQUESTED)
            .bind(&*source.topic)
            .bind(source.partition)
            .bind(span.letters_max)
            .bind(span.bytes_max)
            .fetch_all(&self.pool)
            .await?;
        if letters.is_empty() {
            return Ok(Vec::new());
        }
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
        letters.into_iter().map(|letter| letter.into_requested(&source.topic, &of_key)).collect()
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
