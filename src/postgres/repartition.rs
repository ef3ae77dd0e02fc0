//! What `repartition` does to a topic's rows in `partitions`: halts them, lets them drain, marks them
//! while homes change, and gives them the new layout. Each change adds one to a row's token and is
//! audited.

use sqlx::{FromRow, PgConnection};

use super::{Layout, Result, Store};
use crate::halt::HaltCode;
use crate::record::TopicPartition;

/// A partition of a topic, as far as its layout goes.
#[derive(Clone, Debug, FromRow)]
pub struct PlacedPartition {
    /// The partition.
    pub partition: i32,
    /// The partition count that its records were placed for; 0: whatever its next claim finds.
    pub partition_count: i32,
    /// The topic's id, where the broker tells one.
    pub topic_id: Option<String>,
    /// The cursor.
    pub next_offset: i64,
    /// Whether outcomes of settled records are still to be published.
    pub owes: bool,
    /// The halt's code.
    pub halted_code: Option<String>,
    /// The halt's detail.
    pub halted_detail: Option<String>,
    /// What of it is under way: `draining` or `moving`.
    pub repartitioning: Option<String>,
}

/// Who changes a topic's layout, and why.
#[derive(Clone, Debug)]
pub struct TopicAction<'a> {
    /// To what.
    pub layout: Layout<'a>,
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// Whether all partitions of a topic stand still since homes began to change. They do until the end
/// of the transaction.
pub(super) async fn is_held(transaction: &mut PgConnection, topic: &str) -> Result<bool> {
    // a partition that was added meanwhile is made halted, and has not begun
    let held = "select bool_and(coalesce(halted_code = 'partitions-changed'
                                         and (repartitioning = 'moving' or batch_seq = 0), false))
                  from (select * from partitions where topic = $1 order by partition for share) p";
    let held: Option<bool> = sqlx::query_scalar(held).bind(topic).fetch_one(transaction).await?;
    Ok(held.unwrap_or(false))
}

impl Store {
    /// The partitions of a topic, in order.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn placed_partitions(&self, topic: &str) -> Result<Vec<PlacedPartition>> {
        Ok(sqlx::query_as(
            "select partition, partition_count, topic_id, next_offset, published_seq < batch_seq as owes,
                    halted_code, halted_detail, repartitioning
               from partitions where topic = $1 order by partition",
        )
        .bind(topic)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Lets partitions settle what was placed for their own layout, although the topic has another.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn drain_partitions(&self, by: &TopicAction<'_>, partitions: &[i32]) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        let draining: Vec<i32> = sqlx::query_scalar(
            "update partitions
                set repartitioning = 'draining', halted_code = null, halted_detail = null, halted_resolve = null, halted_at = null,
                    claims_without_progress = 0, fencing_token = fencing_token + 1
              where topic = $1 and partition = any ($2)
                and coalesce(halted_code, 'partitions-changed') = 'partitions-changed'
             returning partition",
        )
        .bind(by.layout.topic)
        .bind(partitions)
        .fetch_all(&mut *transaction)
        .await?;
        audit(&mut transaction, by, &draining, serde_json::json!({ "step": "drain" })).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Halts the partitions of a topic that are not halted.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn halt_topic(&self, by: &TopicAction<'_>, detail: &str) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        let halted: Vec<i32> = sqlx::query_scalar(
            "update partitions
                set repartitioning = null, halted_code = 'partitions-changed', halted_detail = $2,
                    halted_resolve = $3, halted_at = now(), fencing_token = fencing_token + 1
              where topic = $1 and halted_code is null
             returning partition",
        )
        .bind(by.layout.topic)
        .bind(detail)
        .bind(HaltCode::PartitionsChanged.resolve(&TopicPartition::new(by.layout.topic, 0)))
        .fetch_all(&mut *transaction)
        .await?;
        audit(&mut transaction, by, &halted, serde_json::json!({ "step": "halt" })).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Homes begin to change. False: a partition does not stand where it was `seen`.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn begin_moving(&self, by: &TopicAction<'_>, seen: &[PlacedPartition]) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let marked: Vec<i32> = sqlx::query_scalar(
            "update partitions p set repartitioning = 'moving', fencing_token = fencing_token + 1
               from unnest($2::int[], $3::bigint[]) as seen (partition, next_offset)
              where p.topic = $1 and p.partition = seen.partition and p.next_offset = seen.next_offset
                and p.halted_code = 'partitions-changed'
             returning p.partition",
        )
        .bind(by.layout.topic)
        .bind(seen.iter().map(|row| row.partition).collect::<Vec<_>>())
        .bind(seen.iter().map(|row| row.next_offset).collect::<Vec<_>>())
        .fetch_all(&mut *transaction)
        .await?;
        if marked.len() != seen.len() || !is_held(&mut transaction, by.layout.topic).await? {
            return Ok(false);
        }
        audit(&mut transaction, by, &marked, serde_json::json!({ "step": "move" })).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Homes are right: requests go where their letters are, every partition gets the new layout, those
    /// that have no row one that begins at the offset in `begins`, and all go on. False: somebody has
    /// resumed a partition meanwhile, and nothing was changed.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn finish_repartition(
        &self,
        by: &TopicAction<'_>,
        begins: &[(i32, i64)],
        detail: serde_json::Value,
    ) -> Result<bool> {
        let (topic, partition_count) = (by.layout.topic, by.layout.partition_count);
        let mut transaction = self.pool.begin().await?;
        // first, so that no claim can make one behind this back
        sqlx::query(
            "insert into partitions (topic, partition, fencing_token, claim_id, owner, cluster_id, group_id,
                                     next_offset, published_offset, topic_id, partition_count,
                                     halted_code, halted_detail, halted_at)
             select $1, b.partition, 0, gen_random_uuid(), 'nobody', p.cluster_id, p.group_id,
                    b.low, b.low, p.topic_id, $4, 'partitions-changed', 'it was added to the topic', now()
               from unnest($2::int[], $3::bigint[]) as b (partition, low)
              cross join (select * from partitions where topic = $1 order by partition limit 1) p
                 on conflict do nothing",
        )
        .bind(topic)
        .bind(begins.iter().map(|(partition, _)| *partition).collect::<Vec<_>>())
        .bind(begins.iter().map(|(_, low)| *low).collect::<Vec<_>>())
        .bind(partition_count)
        .execute(&mut *transaction)
        .await?;
        if !is_held(&mut transaction, topic).await? {
            return Ok(false);
        }
        requests_follow(&mut transaction, topic).await?;
        let resumed: Vec<i32> = sqlx::query_scalar(
            "update partitions
                set partition_count = $2, repartitioning = null,
                    halted_code = null, halted_detail = null, halted_resolve = null, halted_at = null,
                    claims_without_progress = 0, fencing_token = fencing_token + 1
              where topic = $1
             returning partition",
        )
        .bind(topic)
        .bind(partition_count)
        .fetch_all(&mut *transaction)
        .await?;
        audit(&mut transaction, by, &resumed, detail).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// What is requested of letters is requested of the owner of their home.
pub(super) async fn requests_follow(transaction: &mut PgConnection, topic: &str) -> Result<()> {
    sqlx::query(
        "with home as (
             select r.request_id, coalesce(d.home, k.partition) as partition
               from requests r
               left join dead_letters d on d.dead_letter_id = r.dead_letter_id
               left join parked_keys k on k.topic = r.topic and k.entity_id = r.entity_id
              where r.topic = $1 and r.state = 'open'
         )
         update requests r set partition = home.partition
           from home where r.request_id = home.request_id and r.partition <> home.partition",
    )
    .bind(topic)
    .execute(transaction)
    .await?;
    Ok(())
}

async fn audit(
    transaction: &mut PgConnection,
    by: &TopicAction<'_>,
    partitions: &[i32],
    detail: serde_json::Value,
) -> Result<()> {
    sqlx::query(
        "insert into operator_actions (actor, action, topic, partition, reason, detail)
         select $1, 'repartition', $2, partition, $4, $5 from unnest($3::int[]) as partition order by partition",
    )
    .bind(by.actor)
    .bind(by.layout.topic)
    .bind(partitions)
    .bind(by.reason)
    .bind(detail)
    .execute(transaction)
    .await?;
    Ok(())
}
