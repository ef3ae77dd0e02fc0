//! The audit: what operators did, and what became of what they requested.

use std::time::Duration;

use sqlx::FromRow;

use super::{Result, Store};

/// Which actions are meant. What is `None` excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Of this topic.
    pub topic: Option<String>,
    /// Of this partition.
    pub partition: Option<i32>,
    /// By those whose name contains this.
    pub actor: Option<String>,
    /// Of this name, such as `halt`.
    pub action: Option<String>,
    /// At this time or later: milliseconds since 1970.
    pub since_ms: Option<i64>,
}

/// What an operator did.
#[derive(Clone, Debug, FromRow)]
pub struct Audited {
    /// Its number.
    pub action_id: i64,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// What, such as `resume`.
    pub action: String,
    /// Of which topic.
    pub topic: Option<String>,
    /// Of which partition.
    pub partition: Option<i32>,
    /// Why.
    pub reason: String,
    /// What belongs to the action.
    pub detail: serde_json::Value,
    /// How many requests it made; 0: it was none of those that an owner executes.
    pub requested: i64,
    /// Of these, not done yet.
    pub open: i64,
    /// Done.
    pub done: i64,
    /// Refused by the owner.
    pub refused: i64,
    /// Taken back before they were done.
    pub withdrawn: i64,
    /// Why, of one of the refused.
    pub why: Option<String>,
}

const AUDIT: &str = "
    select a.action_id, (extract(epoch from a.at) * 1000)::bigint as at_ms, a.actor, a.action, a.topic,
           a.partition, a.reason, a.detail, coalesce(r.requested, 0) as requested,
           coalesce(r.open, 0) as open, coalesce(r.done, 0) as done, coalesce(r.refused, 0) as refused,
           coalesce(r.withdrawn, 0) as withdrawn, r.why
      from (select * from operator_actions
             where ($1::text is null or topic = $1) and ($2::int is null or partition = $2)
               and ($3::text is null or position($3 in actor) > 0) and ($4::text is null or action = $4)
               and ($5::bigint is null or at >= time_of($5))
             order by action_id desc limit $6) a
      left join lateral (select count(*) as requested,
                                count(*) filter (where state = 'open') as open,
                                count(*) filter (where state = 'done') as done,
                                count(*) filter (where state = 'refused') as refused,
                                count(*) filter (where state = 'withdrawn') as withdrawn,
                                min(detail) filter (where state = 'refused') as why
                           from requests where action_id = a.action_id) r on true
     order by a.action_id";

impl Store {
    /// What operators did, newest last: the newest `rows_max`.
    ///
    /// # Errors
    /// If the database cannot be reached, or the scan takes longer than `timeout`.
    pub async fn audited(&self, filter: &AuditFilter, rows_max: i64, timeout: Duration) -> Result<Vec<Audited>> {
        let mut scan = self.scan(timeout).await?;
        Ok(sqlx::query_as(AUDIT)
            .bind(&filter.topic)
            .bind(filter.partition)
            .bind(&filter.actor)
            .bind(&filter.action)
            .bind(filter.since_ms)
            .bind(rows_max)
            .fetch_all(&mut *scan)
            .await?)
    }
}
