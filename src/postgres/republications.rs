//! How far a republication has come: what makes the same command go on after a crash.

use sqlx::FromRow;

use super::operate::audit;
use super::{OperatorAction, Result, Store};
use crate::record::TopicPartition;

/// One partition of a republication.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Republication {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// When it was begun, milliseconds since 1970.
    pub begun_at_ms: i64,
    /// The first offset that is meant.
    pub from_offset: i64,
    /// The offset behind the last.
    pub to_offset: i64,
    /// Batches after this one are meant.
    pub after_seq: i64,
    /// Up to this one.
    pub through_seq: i64,
    /// Everything up to this batch was published again.
    pub done_seq: i64,
}

impl Republication {
    /// The partition.
    pub fn source(&self) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), self.partition)
    }
}

impl Store {
    /// What was begun by the same command and not ended.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn republications(&self, asked: &str) -> Result<Vec<Republication>> {
        Ok(sqlx::query_as(
            "select topic, partition, (extract(epoch from begun_at) * 1000)::bigint as begun_at_ms,
                    from_offset, to_offset, after_seq, through_seq, done_seq
               from republications where asked = $1 order by topic, partition",
        )
        .bind(asked)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Notes what a command is about to publish again, in the place of what it has begun before, and audits it
    /// for each partition, with what else belongs to it.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn begin_republication(
        &self,
        asked: &str,
        (actor, reason): (&str, &str),
        partitions: &[(Republication, serde_json::Value)],
    ) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("delete from republications where asked = $1").bind(asked).execute(&mut *transaction).await?;
        for (row, detail) in partitions {
            sqlx::query(
                "insert into republications (asked, topic, partition, begun_at, from_offset, to_offset, after_seq,
                                             through_seq, done_seq)
                 values ($1, $2, $3, time_of($4), $5, $6, $7, $8, $9)",
            )
            .bind(asked)
            .bind(&row.topic)
            .bind(row.partition)
            .bind(row.begun_at_ms)
            .bind(row.from_offset)
            .bind(row.to_offset)
            .bind(row.after_seq)
            .bind(row.through_seq)
            .bind(row.done_seq)
            .execute(&mut *transaction)
            .await?;
            let mut detail = detail.clone();
            detail["from_offset"] = row.from_offset.into();
            detail["to_offset"] = row.to_offset.into();
            detail["batches"] = (row.through_seq - row.done_seq).into();
            detail["goes_on"] = (row.done_seq > row.after_seq).into();
            let source = row.source();
            audit(&mut transaction, &OperatorAction { source: &source, actor, reason }, "republish", detail).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Everything of a partition up to this batch is published again.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn republished(&self, asked: &str, source: &TopicPartition, done_seq: i64) -> Result<()> {
        sqlx::query(
            "update republications set done_seq = greatest(done_seq, $4)
              where asked = $1 and topic = $2 and partition = $3",
        )
        .bind(asked)
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(done_seq)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All of it is done.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn end_republication(&self, asked: &str) -> Result<()> {
        sqlx::query("delete from republications where asked = $1").bind(asked).execute(&self.pool).await?;
        Ok(())
    }
}
