//! Looking at partitions' rows: the owner, for what operators did; `status`, for
//! people.

use sqlx::FromRow;
use uuid::Uuid;

use super::{Result, Store};

/// What a running owner must notice of its partitions.
#[derive(Clone, Debug, FromRow)]
pub struct Watched {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The row's token: another one than claimed means that somebody acted.
    pub fencing_token: i64,
    /// The row's claim.
    pub claim_id: Uuid,
    /// Whether something is requested of its dead letters.
    pub requested: bool,
}

/// A partition as `status` shows it.
#[derive(Clone, Debug, FromRow)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Who claimed it last.
    pub owner: String,
    /// The token.
    pub fencing_token: i64,
    /// The cursor.
    pub next_offset: i64,
    /// Everything below is published.
    pub published_offset: i64,
    /// The halt's code.
    pub halted_code: Option<String>,
    /// The halt's detail.
    pub halted_detail: Option<String>,
    /// What to type against it, as the worker that halted knew it.
    pub halted_resolve: Option<String>,
    /// Keys behind a dead letter.
    pub parked_keys: i64,
}

impl Store {
    /// The rows that this owner claimed last.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn watch(&self, owner: &str) -> Result<Vec<Watched>> {
        Ok(sqlx::query_as(
            "select p.topic, p.partition, p.fencing_token, p.claim_id,
                    exists (select from requests r
                             where r.topic = p.topic and r.partition = p.partition and r.state = 'open') as requested
               from partitions p where p.owner = $1",
        )
        .bind(owner)
        .fetch_all(&self.pool)
        .await?)
    }

    /// All partitions, in order.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn status(&self) -> Result<Vec<PartitionStatus>> {
        Ok(sqlx::query_as(
            "select topic, partition, owner, fencing_token, next_offset, published_offset,
                    halted_code, halted_detail, halted_resolve,
                    (select count(*) from parked_keys k
                      where k.topic = p.topic and k.partition = p.partition) as parked_keys
               from partitions p order by topic, partition",
        )
        .fetch_all(&self.pool)
        .await?)
    }
}
