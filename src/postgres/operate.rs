//! What operators do to partitions. Each change adds one to the token, so that
//! no owner acts on what it remembers, and leaves a row in `operator_actions`.

use sqlx::PgConnection;

use super::homes::{self, Homed, HomedRow};
use super::repartition::requests_follow;
use super::standing::PartitionSeen;
use super::{Result, Store};
use crate::config::Partitioner;
use crate::halt::HaltCode;
use crate::record::TopicPartition;

/// An operator's explicit choice when a partition is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resume {
    /// Nothing is to be chosen.
    Plain,
    /// Go on at this offset; what lies between is never settled.
    SkipTo(i64),
    /// The topic was recreated: go on at this offset of the new log.
    AcceptNewLog(i64),
    /// The partition count is right as it is now.
    AcceptPartitions,
    /// What the database has forgotten stays forgotten: settle again from its cursor.
    AcceptDatabase,
    /// Commands older than the horizon may be refused as expired.
    AcceptExpired,
    /// The topic was compacted: what that has removed is given up.
    AcceptCompacted,
}

impl std::fmt::Display for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SkipTo(offset) | Self::AcceptNewLog(offset) => write!(f, "{} at offset {offset}", self.name()),
            choice => f.write_str(choice.name()),
        }
    }
}

impl Resume {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::SkipTo(_) => "skip-to",
            Self::AcceptNewLog(_) => "accept-new-log",
            Self::AcceptPartitions => "accept-partitions",
            Self::AcceptDatabase => "accept-database",
            Self::AcceptExpired => "accept-expired",
            Self::AcceptCompacted => "accept-compacted",
        }
    }

    /// Whether this choice resolves a halt of this code.
    pub fn resolves(self, code: &str) -> bool {
        match HaltCode::parse(code) {
            Some(HaltCode::LogTruncated | HaltCode::CursorBeyondEnd) => {
                matches!(self, Self::SkipTo(_) | Self::AcceptNewLog(_))
            }
            Some(HaltCode::LogRecreated) => matches!(self, Self::AcceptNewLog(_)),
            Some(HaltCode::PartitionsChanged) => matches!(self, Self::AcceptPartitions),
            Some(HaltCode::DatabaseBehind) => matches!(self, Self::AcceptDatabase | Self::SkipTo(_)),
            Some(HaltCode::BacklogOlderThanHorizon) => matches!(self, Self::AcceptExpired | Self::SkipTo(_)),
            Some(HaltCode::TopicCompacted) => matches!(self, Self::AcceptCompacted | Self::SkipTo(_)),
            Some(HaltCode::Operator | HaltCode::HandlerFailed | HaltCode::ParkedLimit | HaltCode::DeadLetterFlood) => {
                matches!(self, Self::Plain | Self::SkipTo(_))
            }
            None => false,
        }
    }

    fn next_offset(self) -> Option<i64> {
        match self {
            Self::SkipTo(offset) | Self::AcceptNewLog(offset) => Some(offset),
            _ => None,
        }
    }
}

/// Which entities are read at a time while their homes are looked over.
pub(super) const HOMES_PAGE: i64 = 10_000;

/// How keys are placed now, for the choices that accept another layout.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The topic's entity type.
    pub entity_type: &'a str,
    /// How its producers choose partitions.
    pub partitioner: Partitioner,
    /// Its partition count as it is now.
    pub partition_count: i32,
}

impl Layout<'_> {
    /// The partition that a key lives on.
    pub fn home(&self, entity_id: &str) -> i32 {
        self.partitioner.partition(entity_id.as_bytes(), self.partition_count)
    }
}

/// Who acts, and why.
#[derive(Clone, Debug)]
pub struct OperatorAction<'a> {
    /// The partition.
    pub source: &'a TopicPartition,
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub reason: &'a str,
}

impl Store {
    /// Halts a partition. False: it has no row, or is halted already.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn operator_halt(&self, action: &OperatorAction<'_>) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let halted = sqlx::query(
            "update partitions set halted_code = 'operator', halted_detail = $3, halted_resolve = $4, halted_at = now(),
                    fencing_token = fencing_token + 1
              where topic = $1 and partition = $2 and halted_code is null",
        )
        .bind(&*action.source.topic)
        .bind(action.source.partition)
        .bind(format!("{} has halted it: {}; nothing is settled meanwhile, nothing is lost", action.actor, action.reason))
        .bind(HaltCode::Operator.resolve(action.source))
        .execute(&mut *transaction)
        .await?;
        if halted.rows_affected() == 0 {
            return Ok(false);
        }
        audit(&mut transaction, action, "halt", serde_json::json!({})).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Lets a halted partition go on. False: the partition is not halted with
    /// `code` any more.
    ///
    /// Where the choice accepts a new log, every key of the topic is at home where it
    /// belongs from now on. Its old home's writer finds it gone at its next
    /// commit, should it still decide on it.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn operator_resume(
        &self,
        action: &OperatorAction<'_>,
        code: &str,
        resume: Resume,
        layout: &Layout<'_>,
    ) -> Result<bool> {
        self.resume_if(action, code, resume, layout, None, serde_json::Map::new()).await
    }

    /// The same with [`Resume::AcceptDatabase`], if the partition is halted as `seen`, and nothing was settled since;
    /// `detail` is kept in the audit besides. What the witnesses know of offsets below `accepted` is accepted. A worker that has started anew meanwhile, and so claimed it, does not
    /// matter: it has found the same halt.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn operator_resume_as_seen(
        &self,
        action: &OperatorAction<'_>,
        seen: &PartitionSeen,
        layout: &Layout<'_>,
        accepted: i64,
        detail: serde_json::Map<String, serde_json::Value>,
    ) -> Result<bool> {
        let code = seen.halted_code.as_deref().unwrap_or_default();
        self.resume_if(action, code, Resume::AcceptDatabase, layout, Some((seen, accepted)), detail).await
    }

    async fn resume_if(
        &self,
        action: &OperatorAction<'_>,
        code: &str,
        resume: Resume,
        layout: &Layout<'_>,
        seen: Option<(&PartitionSeen, i64)>,
        more: serde_json::Map<String, serde_json::Value>,
    ) -> Result<bool> {
        let (seen, accepted) = seen.unzip();
        let mut transaction = self.pool.begin().await?;
        let resumed = sqlx::query(
            "update partitions
                set halted_code = null, halted_detail = null, halted_resolve = null, halted_at = null,
                    claims_without_progress = 0,
                    fencing_token = fencing_token + 1,
                    -- what the witnesses know is known to the operator now
                    accepted_offset = greatest(accepted_offset, next_offset, witnessed_offset, $10),
                    witnessed_offset = null,
                    published_offset = case when published_seq = batch_seq then coalesce($4, next_offset)
                                            else least(published_offset, coalesce($4, next_offset)) end,
                    next_offset = coalesce($4, next_offset),
                    -- compaction may have removed the last settled record
                    last_offset = case when $4 is null and $5 not in ('accept-database', 'accept-compacted')
                                       then last_offset end,
                    topic_id = case when $5 <> 'accept-new-log' then topic_id end,
                    partition_count = case when $5 in ('accept-partitions', 'accept-new-log') then 0
                                           else partition_count end,
                    -- whoever is moving homes finds that it has to look again
                    repartitioning = case when $5 not in ('accept-partitions', 'accept-new-log')
                                          then nullif(repartitioning, 'moving') end
              where topic = $1 and partition = $2 and halted_code = $3
                and ($6::bigint is null
                     or (next_offset, batch_seq) = ($6, $7) and decision_id is not distinct from $8
                        and (extract(epoch from halted_at) * 1000000)::bigint is not distinct from $9
                        -- a worker does requests before anything else
                        and (select count(*) from requests r
                              where r.topic = $1 and r.partition = $2 and r.state = 'open') = $11)",
        )
        .bind(&*action.source.topic)
        .bind(action.source.partition)
        .bind(code)
        .bind(resume.next_offset())
        .bind(resume.name())
        .bind(seen.map(|seen| seen.next_offset))
        .bind(seen.map(|seen| seen.batch_seq))
        .bind(seen.and_then(|seen| seen.decision_id))
        .bind(seen.and_then(|seen| seen.halted_at_us))
        .bind(accepted)
        .bind(seen.map(|seen| seen.open_requests))
        .execute(&mut *transaction)
        .await?;
        if resumed.rows_affected() == 0 {
            return Ok(false);
        }
        let entities_moved = match resume {
            // of the other choice that accepts a layout, nothing is misplaced
            Resume::AcceptNewLog(_) => {
                let moved = bring_home(&mut transaction, layout).await?;
                requests_follow(&mut transaction, layout.topic).await?;
                moved
            }
            _ => 0,
        };
        let mut detail = serde_json::json!({
            "code": code,
            "choice": resume.name(),
            "next_offset": resume.next_offset(),
            "entities_moved": entities_moved,
        });
        if let Some(detail) = detail.as_object_mut() {
            detail.extend(more);
        }
        audit(&mut transaction, action, "resume", detail).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Gives every entity, dead letter and parked key of a topic the home that its key has now. Returns
/// how many entities came from elsewhere.
async fn bring_home(transaction: &mut PgConnection, layout: &Layout<'_>) -> Result<u64> {
    let mut entities_moved = 0;
    for kind in Homed::ALL {
        let mut after: Option<HomedRow> = None;
        loop {
            let rows = homes::page(&mut *transaction, kind, layout, after.as_ref()).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.clone());
            for (home, rows) in homes::misplaced(&rows, layout) {
                homes::give_home(&mut *transaction, kind, layout, home, &rows).await?;
                if kind == Homed::Entities {
                    entities_moved += rows.len() as u64;
                }
            }
        }
    }
    Ok(entities_moved)
}

/// Keeps what an operator did. Returns the row's number.
pub(super) async fn audit(
    transaction: &mut PgConnection,
    action: &OperatorAction<'_>,
    name: &str,
    detail: serde_json::Value,
) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "insert into operator_actions (actor, action, topic, partition, reason, detail)
         values ($1, $2, $3, $4, $5, $6) returning action_id",
    )
    .bind(action.actor)
    .bind(name)
    .bind(&*action.source.topic)
    .bind(action.source.partition)
    .bind(action.reason)
    .bind(detail)
    .fetch_one(transaction)
    .await?)
}
