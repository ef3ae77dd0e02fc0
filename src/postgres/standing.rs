//! How partitions stand: what somebody decides on who resumes them.

use sqlx::FromRow;
use uuid::Uuid;

use super::{Result, Store};
use crate::record::TopicPartition;

/// A partition as it was seen, so that a change since can be noticed.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct PartitionSeen {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is not settled.
    pub next_offset: i64,
    /// Batches settled.
    pub batch_seq: i64,
    /// The decision of the last of them.
    pub decision_id: Option<Uuid>,
    /// The Kafka cluster that its claim names.
    pub cluster_id: String,
    /// The consumer group that its claim names.
    pub group_id: String,
    /// The topic's id, if the broker told it.
    pub topic_id: Option<String>,
    /// The partition count that its records were placed for.
    pub partition_count: i32,
    /// The halt's code; `None`: it is not halted.
    pub halted_code: Option<String>,
    /// When it halted, microseconds since 1970.
    pub halted_at_us: Option<i64>,
    /// The offset behind the highest that a witness has seen settled.
    pub witnessed_offset: Option<i64>,
    /// Requests of operators that its owner has not done.
    pub open_requests: i64,
}

impl PartitionSeen {
    /// The partition.
    pub fn source(&self) -> TopicPartition {
        TopicPartition::new(&*self.topic, self.partition)
    }
}

impl Store {
    /// How all partitions of these topics stand, in order.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn partitions_seen(&self, topics: &[&str]) -> Result<Vec<PartitionSeen>> {
        Ok(sqlx::query_as(
            "select topic, partition, next_offset, batch_seq, decision_id, cluster_id, group_id, topic_id, partition_count,
                    halted_code, (extract(epoch from halted_at) * 1000000)::bigint as halted_at_us, witnessed_offset,
                    (select count(*) from requests r
                      where r.topic = p.topic and r.partition = p.partition and r.state = 'open') as open_requests
               from partitions p where topic = any ($1) order by topic, partition",
        )
        .bind(topics)
        .fetch_all(&self.pool)
        .await?)
    }
}
