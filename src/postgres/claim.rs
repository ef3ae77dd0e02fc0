//! Claiming a partition, and halting one that was claimed.

use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use super::{Result, Store};
use crate::cursor::{Cursor, LastSettled, Published};
use crate::fencing_token::{ClaimId, FencingToken};
use crate::halt::Halt;
use crate::parked_keys::ParkedKeys;
use crate::record::TopicPartition;
use crate::steps::fence::Claimed;

/// Who claims what.
#[derive(Clone, Debug)]
pub struct ClaimRequest<'a> {
    /// The partition.
    pub source: &'a TopicPartition,
    /// A fresh id.
    pub claim_id: ClaimId,
    /// Differs for every running worker process.
    pub owner: &'a str,
    /// The Kafka cluster.
    pub cluster_id: &'a str,
    /// The consumer group.
    pub group_id: &'a str,
    /// How to begin if the partition has no row; without it none is made.
    pub beginning: Option<&'a Beginning>,
    /// The topic's id, where the broker tells one.
    pub topic_id: Option<&'a str>,
    /// The topic's partition count.
    pub partition_count: i32,
}

/// How a partition begins that has no row yet.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The first offset to settle.
    pub offset: i64,
    /// Why an operator has to decide first.
    pub halt: Option<Halt>,
}

/// A partition's row as a claim returned it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Proof of the claim.
    pub claimed: Claimed,
    /// Where to go on.
    pub cursor: Cursor,
    /// How far outcomes and events are published.
    pub published: Published,
    /// The topic's id when the row was made or last accepted.
    pub topic_id: Option<String>,
    /// The partition count likewise.
    pub partition_count: i32,
    /// Records that were placed for that count are to be settled, although the topic has another.
    pub draining: bool,
    /// The record before the cursor.
    pub last: Option<LastSettled>,
    /// The halt that is in force: code and detail.
    pub halted: Option<(String, String)>,
    /// What an operator has accepted as lost.
    pub accepted_offset: i64,
    /// Claims that began to decide and have settled nothing, since the last that did.
    pub claims_without_progress: i32,
    /// The parked keys.
    pub parked: ParkedKeys,
}

#[derive(FromRow)]
struct ClaimedRow {
    fencing_token: i64,
    next_offset: i64,
    batch_seq: i64,
    decision_id: Option<Uuid>,
    published_seq: i64,
    published_offset: i64,
    topic_id: Option<String>,
    partition_count: i32,
    repartitioning: Option<String>,
    last_offset: Option<i64>,
    last_timestamp: Option<i64>,
    last_checksum: Option<i64>,
    halted_code: Option<String>,
    halted_detail: Option<String>,
    accepted_offset: i64,
    claims_without_progress: i32,
}

impl ClaimedRow {
    fn into_row(self, source: TopicPartition, claim_id: ClaimId, parked: ParkedKeys) -> Row {
        let last = self.last_offset.zip(self.last_timestamp).zip(self.last_checksum);
        Row {
            claimed: Claimed::by_the_database(source, FencingToken(self.fencing_token), claim_id),
            cursor: Cursor { next_offset: self.next_offset, batch_seq: self.batch_seq, decision_id: self.decision_id },
            published: Published { batch_seq: self.published_seq, next_offset: self.published_offset },
            topic_id: self.topic_id,
            partition_count: self.partition_count,
            draining: self.repartitioning.as_deref() == Some("draining"),
            last: last.map(|((offset, timestamp_ms), checksum)| LastSettled {
                offset,
                timestamp_ms,
                checksum: checksum as u32,
            }),
            halted: self.halted_code.map(|code| (code, self.halted_detail.unwrap_or_default())),
            accepted_offset: self.accepted_offset,
            claims_without_progress: self.claims_without_progress,
            parked,
        }
    }
}

async fn parked_keys<'e>(executor: impl PgExecutor<'e>, source: &TopicPartition) -> Result<ParkedKeys> {
    let keys: Vec<(String, i64)> =
        sqlx::query_as("select entity_id, waiting from parked_keys where topic = $1 and partition = $2")
            .bind(&*source.topic)
            .bind(source.partition)
            .fetch_all(executor)
            .await?;
    Ok(keys.into_iter().map(|(key, waiting)| (key, u64::try_from(waiting).unwrap_or(0))).collect())
}

impl Store {
    /// Becomes the owner of a partition. `None`: it has no row, and no start
    /// offset was given.
    ///
    /// # Errors
    /// [`super::Refusal::AnotherGroup`] if the row belongs to another group or cluster.
    pub async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Option<Row>> {
        let beginning = request.beginning;
        let halt = beginning.and_then(|beginning| beginning.halt.as_ref());
        let mut transaction = self.pool.begin().await?;
        let row: Option<ClaimedRow> =
            sqlx::query_as("select * from claim_partition_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)")
                .bind(&*request.source.topic)
                .bind(request.source.partition)
                .bind(request.claim_id.0)
                .bind(request.owner)
                .bind(request.cluster_id)
                .bind(request.group_id)
                .bind(beginning.map(|beginning| beginning.offset))
                .bind(request.topic_id)
                .bind(request.partition_count)
                .bind(halt.map(|halt| halt.code.to_string()))
                .bind(halt.map(|halt| &*halt.detail))
                .bind(halt.map(|halt| halt.code.resolve(request.source)))
                .bind(halt.and_then(|halt| halt.witnessed).map(|(_, offset)| offset))
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(row) = row else { return Ok(None) };
        // only the owner changes them
        let parked = parked_keys(&mut *transaction, request.source).await?;
        transaction.commit().await?;
        Ok(Some(row.into_row(request.source.clone(), request.claim_id, parked)))
    }

    /// Another partition count that rows of this topic were placed for, if there is one.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn other_layout(&self, topic: &str, partition_count: i32) -> Result<Option<i32>> {
        // 0: an operator has accepted whatever the next claim finds
        let other = "select partition_count from partitions
                      where topic = $1 and partition_count not in (0, $2) order by partition limit 1";
        Ok(sqlx::query_scalar(other).bind(topic).bind(partition_count).fetch_optional(&self.pool).await?)
    }

    /// The parked keys of a partition.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn parked_keys(&self, source: &TopicPartition) -> Result<ParkedKeys> {
        parked_keys(&self.pool, source).await
    }

    /// Notes that the owner is about to decide its first batch. False: the claim
    /// is stale.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn begin_deciding(&self, claimed: &Claimed) -> Result<bool> {
        let (current,) = sqlx::query_as("select begin_deciding_v1($1, $2, $3, $4)")
            .bind(&*claimed.source().topic)
            .bind(claimed.source().partition)
            .bind(claimed.claim_id().0)
            .bind(claimed.token().0)
            .fetch_one(&self.pool)
            .await?;
        Ok(current)
    }

    /// Records that the claimed partition refuses to go on. Returns the claim
    /// with the token that the row has now; `None`: the claim is stale, somebody
    /// else decides.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn halt(&self, claimed: &Claimed, halt: &Halt) -> Result<Option<Claimed>> {
        let (token, offset) = halt.witnessed.unzip();
        let (token,): (Option<i64>,) = sqlx::query_as("select halt_partition_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(&*claimed.source().topic)
            .bind(claimed.source().partition)
            .bind(claimed.claim_id().0)
            .bind(claimed.token().0)
            .bind(halt.code.as_str())
            .bind(&halt.detail)
            .bind(halt.code.resolve(claimed.source()))
            .bind(token)
            .bind(offset)
            .fetch_one(&self.pool)
            .await?;
        let held = |token| Claimed::by_the_database(claimed.source().clone(), FencingToken(token), claimed.claim_id());
        Ok(token.map(held))
    }
}
