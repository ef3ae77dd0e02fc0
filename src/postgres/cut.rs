//! A consistent cut: what the live tables hold in one snapshot, read without writing.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::checkpoint::{copy_rows, settled_before};
use super::{CheckpointCursor, CheckpointError, CheckpointName, Result, Store, snapshot};
use crate::handlers::sql::compile::{literal, quoted};
use crate::handlers::sql::typed::Relation;
use crate::record::TopicPartition;

/// One snapshot of the live tables, until it is dropped. It is held no longer than it takes to read entities and
/// letters: as long as it is there, no version of a row that is newer can be cleaned up.
pub struct Cut {
    snapshot: Transaction<'static, Postgres>,
}

/// An earlier cut, that a checkpoint holds.
#[derive(Clone, Debug)]
pub struct KeptCut {
    /// The checkpoint's schema.
    schema: String,
    /// The number of the attempt that has made it: another checkpoint may get its name.
    attempt: Uuid,
    /// When it was taken, milliseconds since 1970.
    pub at_ms: i64,
    /// Where the partitions were.
    pub cursors: Vec<CheckpointCursor>,
    /// The team's tables that it holds.
    pub tables: Vec<Relation>,
}

/// A partition's row at the cut.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize, Deserialize)]
pub struct CutPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The cursor.
    pub next_offset: i64,
    /// Batches settled.
    pub batch_seq: i64,
    /// The partition count that its records were placed for.
    pub partition_count: i32,
    /// Which log the cursor belongs to, if the broker told.
    pub topic_id: Option<String>,
    /// The oldest batch that is kept.
    pub oldest_seq: Option<i64>,
    /// Its first record.
    pub oldest_offset: Option<i64>,
}

impl CutPartition {
    /// The partition.
    pub fn source(&self) -> TopicPartition {
        TopicPartition::new(&*self.topic, self.partition)
    }
}

/// A dead letter at the cut.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct CutLetter {
    /// Its number.
    pub dead_letter_id: i64,
    /// The record's offset.
    #[sqlx(rename = "offset")]
    pub log_offset: i64,
    /// The record's own time, milliseconds since 1970.
    pub record_time_ms: i64,
    /// Why it was dead.
    pub code: String,
    /// `dead`, or what was done with it.
    pub state: String,
    /// The payload that an operator has put in its place.
    pub edited_value: Option<Vec<u8>>,
    /// The command's id, as far as it could be read by then.
    pub command_id: Option<Uuid>,
}

/// A settled batch at the cut.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct CutBatch {
    /// Its number in its partition.
    pub batch_seq: i64,
    /// How long the database's own log was when its statements had run, in bytes: the order of commits of batches that
    /// have written the same rows.
    pub settled_lsn: i64,
    /// Its first record.
    pub first_offset: i64,
    /// The offset behind its last one.
    pub next_offset: i64,
    /// The commands of a batch of dead letters, in order; none of a batch of the log.
    pub letters: Vec<Uuid>,
}

impl Store {
    /// Takes a snapshot, in which these of the team's tables will be copied, as far as they are there. What stands in
    /// for a table and cannot be locked, a foreign table or a materialized view, can be copied all the same.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn cut(&self, tables: &[Relation]) -> Result<Cut> {
        let names: Vec<String> = tables.iter().map(Relation::quoted).collect();
        let lockable = "select name from unnest($1::text[]) as name join pg_class c on c.oid = to_regclass(name)
                      where c.relkind in ('r', 'p', 'v')";
        let lockable: Vec<String> = sqlx::query_scalar(lockable).bind(names).fetch_all(&self.pool).await?;
        let mut snapshot = self.pool.begin_with("begin isolation level repeatable read read only").await?;
        snapshot::begin(&mut snapshot, &lockable).await?;
        Ok(Cut { snapshot })
    }

    /// What a checkpoint holds, as a beginning.
    ///
    /// # Errors
    /// If there is none of this name, or it is unfinished, or the database cannot be reached.
    pub async fn kept_cut(&self, name: &CheckpointName) -> std::result::Result<KeptCut, CheckpointError> {
        let row = self.checkpoint(name).await?;
        let at_ms = row.about.cut_at_ms.ok_or_else(|| CheckpointError::Unfinished(name.clone()))?;
        let schema = self.checkpoint_schema(name)?;
        let tables = format!("select schema_name, table_name from {}.tables order by place", quoted(&schema));
        let tables: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(tables)).fetch_all(&self.pool).await?;
        let tables = tables.into_iter().map(|(schema, name)| Relation { schema, name }).collect();
        Ok(KeptCut { schema, attempt: row.about.attempt, at_ms, cursors: row.cursors, tables })
    }

    /// What was read of a checkpoint by its name is what [`Self::kept_cut`] has read.
    ///
    /// # Errors
    /// If it was dropped meanwhile, or another has its name, or the database cannot be reached.
    pub async fn check_kept(&self, name: &CheckpointName, kept: &KeptCut) -> std::result::Result<(), CheckpointError> {
        match self.checkpoint(name).await?.about.attempt == kept.attempt {
            true => Ok(()),
            false => Err(CheckpointError::Changed(name.clone())),
        }
    }

    /// The letters of these offsets of a partition at the cut, oldest first; in a shadow.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn cut_letters(&self, source: &TopicPartition, offsets: &[i64]) -> Result<Vec<CutLetter>> {
        Ok(sqlx::query_as(
            "select dead_letter_id, \"offset\", record_time_ms, code, state, edited_value, command_id
               from cut_letters where topic = $1 and partition = $2 and \"offset\" = any ($3)
              order by dead_letter_id",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(offsets)
        .fetch_all(&self.pool)
        .await?)
    }

    /// The stretches of a partition's log that were settled at the cut, each as its first offset and the one behind its
    /// last, in order: those between two offsets, and the next one; in a shadow.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn cut_stretches(&self, source: &TopicPartition, first: i64, last: i64) -> Result<Vec<(i64, i64)>> {
        // they do not overlap: before `first` only the last one can reach it
        Ok(sqlx::query_as(
            "(select first_offset, next_offset from cut_stretches
               where topic = $1 and partition = $2 and first_offset <= $3 order by first_offset desc limit 1)
             union all
             (select first_offset, next_offset from cut_stretches
               where topic = $1 and partition = $2 and first_offset > $3 and first_offset <= $4)
             union all
             (select first_offset, next_offset from cut_stretches
               where topic = $1 and partition = $2 and first_offset > greatest($3, $4) order by first_offset limit 1)
             order by 1",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(first)
        .bind(last)
        .fetch_all(&self.pool)
        .await?)
    }

    /// The batches of a partition at the cut, behind this one, in order; in a shadow.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn cut_batches(
        &self,
        source: &TopicPartition,
        after_seq: i64,
        batches_max: i64,
    ) -> Result<Vec<CutBatch>> {
        Ok(sqlx::query_as(
            "select batch_seq, settled_lsn, first_offset, next_offset, letters from cut_batches
              where topic = $1 and partition = $2 and batch_seq > $3 order by batch_seq limit $4",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(after_seq)
        .bind(batches_max)
        .fetch_all(&self.pool)
        .await?)
    }
}

impl Cut {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.snapshot
    }

    /// When it began, milliseconds since 1970, by the database's clock.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn at_ms(&mut self) -> Result<i64> {
        let at = "select (extract(epoch from now()) * 1000)::bigint";
        Ok(sqlx::query_scalar(at).fetch_one(self.connection()).await?)
    }

    /// The partitions of these topics, in order.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn partitions(&mut self, topics: &[&str]) -> Result<Vec<CutPartition>> {
        Ok(sqlx::query_as(
            "select p.topic, p.partition, p.next_offset, p.batch_seq, p.partition_count, p.topic_id,
                    b.batch_seq as oldest_seq, b.first_offset as oldest_offset
               from partitions p
               left join lateral (select batch_seq, first_offset from batches
                                   where (topic, partition) = (p.topic, p.partition)
                                   order by batch_seq limit 1) b on true
              where p.topic = any ($1) order by p.topic, p.partition",
        )
        .bind(topics)
        .fetch_all(self.connection())
        .await?)
    }

    /// Where operators have let a partition go on, skipping what no batch had settled before: offsets.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn skips(&mut self, source: &TopicPartition) -> Result<Vec<i64>> {
        Ok(sqlx::query_scalar(
            "select (detail ->> 'next_offset')::bigint from operator_actions
              where action = 'resume' and detail ->> 'choice' = 'skip-to' and topic = $1 and partition = $2
              order by 1",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .fetch_all(self.connection())
        .await?)
    }

    /// How many final outcomes each partition of these topics has, by day of the id: days since 1970, `None` for
    /// ids without a time. Those that were settled before a checkpoint are left out.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn outcome_counts(
        &mut self,
        topics: &[&str],
        from: Option<&KeptCut>,
    ) -> Result<Vec<(String, i32, Option<i64>, i64)>> {
        let behind = from.map_or("true".to_owned(), |kept| format!("not ({})", settled_before(&kept.schema)));
        let counts = format!(
            "select topic, partition,
                    case when get_byte(uuid_send(command_id), 6) >> 4 = 7
                         then ('x' || left(replace(command_id::text, '-', ''), 12))::bit(48)::bigint / 86400000 end,
                    count(*)
               from processed_commands c where topic = any ($1) and {behind} group by 1, 2, 3"
        );
        Ok(sqlx::query_as(AssertSqlSafe(counts)).bind(topics).fetch_all(self.connection()).await?)
    }

    /// The first of these topics whose keys have lived on other partitions before, or in another log; since a
    /// checkpoint, if there is one.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn repartitioned(&mut self, topics: &[&str], from: Option<&KeptCut>) -> Result<Option<String>> {
        let topic = sqlx::query_scalar(
            "select topic from operator_actions
              where topic = any ($1) and ($2::bigint is null or at > to_timestamp($2 / 1000.0))
                and (action = 'repartition'
                     or (action = 'resume' and detail ->> 'choice' in ('accept-new-log', 'accept-partitions')))
              order by 1 limit 1",
        );
        Ok(topic.bind(topics).bind(from.map(|kept| kept.at_ms)).fetch_optional(self.connection()).await?)
    }

    /// The first partition of these topics whose cursor has gone back over the checkpoint's: by an operator's
    /// `--skip-to`, or in another log. Then offsets do not tell what was settled before the cut. As far as
    /// batches are kept, which is as far as ids are.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn went_back(&mut self, topics: &[&str], kept: &KeptCut) -> Result<Option<TopicPartition>> {
        let went_back = format!(
            "select b.topic, b.partition from batches b join {}.partitions p using (topic, partition)
              where b.topic = any ($1) and b.first_offset < b.next_offset
                and case when b.batch_seq <= p.batch_seq then b.next_offset > p.next_offset
                         else b.first_offset < p.next_offset end
              order by 1, 2 limit 1",
            quoted(&kept.schema)
        );
        let found: Option<(String, i32)> =
            sqlx::query_as(AssertSqlSafe(went_back)).bind(topics).fetch_optional(self.connection()).await?;
        Ok(found.map(|(topic, partition)| TopicPartition::new(&*topic, partition)))
    }

    /// Copies the entities of these topics to a shadow. Their number.
    ///
    /// # Errors
    /// If a database refuses or cannot be reached.
    pub async fn copy_entities(&mut self, topics: &[&str], shadow: &Store) -> Result<u64> {
        self.copy(&format!("entities where {}", of_topics(topics)), shadow, "cut_entities").await
    }

    /// Copies what decides about the dead letters of these topics to a shadow.
    ///
    /// # Errors
    /// If a database refuses or cannot be reached.
    pub async fn copy_letters(&mut self, topics: &[&str], shadow: &Store) -> Result<()> {
        let letters = format!(
            "(select dead_letter_id, topic, partition, \"offset\",
                     (extract(epoch from record_time) * 1000)::bigint as record_time_ms, code, state,
                     case state when 'redriven' then edited_value end as edited_value, command_id
                from dead_letters where {}) as letters",
            of_topics(topics)
        );
        self.copy(&letters, shadow, "cut_letters").await?;
        Ok(())
    }

    /// Copies the order in which the batches of these topics were committed to a shadow.
    ///
    /// # Errors
    /// If a database refuses or cannot be reached.
    pub async fn copy_batches(&mut self, topics: &[&str], shadow: &Store) -> Result<()> {
        let batches = format!(
            "(select topic, partition, batch_seq, (settled_lsn - '0/0'::pg_lsn)::bigint as settled_lsn, first_offset,
                     next_offset, case when first_offset = next_offset then command_ids else '{{}}' end as letters
                from batches where {}) as batches",
            of_topics(topics)
        );
        self.copy(&batches, shadow, "cut_batches").await?;
        Ok(())
    }

    /// Copies which stretches of these topics' logs the kept batches have settled to a shadow. What lies between two of
    /// them are transaction markers, or records that were skipped.
    ///
    /// # Errors
    /// If a database refuses or cannot be reached.
    pub async fn copy_stretches(&mut self, topics: &[&str], shadow: &Store) -> Result<()> {
        // a cursor may have gone back: a batch goes on with a stretch if it begins no later than all before have ended
        let stretches = format!(
            "(select topic, partition, min(first_offset) as first_offset, max(next_offset) as next_offset
                from (select topic, partition, first_offset, next_offset,
                             count(*) filter (where first_offset > ended) over in_order as stretch
                        from (select topic, partition, batch_seq, first_offset, next_offset,
                                     max(next_offset) over (in_order rows between unbounded preceding and 1 preceding) as ended
                                from batches
                               where first_offset < next_offset and {}
                              window in_order as (partition by topic, partition order by first_offset, batch_seq)) b
                      window in_order as (partition by topic, partition order by first_offset, batch_seq)) s
               group by topic, partition, stretch) as stretches",
            of_topics(topics)
        );
        self.copy(&stretches, shadow, "cut_stretches").await?;
        Ok(())
    }

    async fn copy(&mut self, source: &str, shadow: &Store, target: &str) -> Result<u64> {
        copy_rows(self.connection(), source, &mut shadow.patient_connection().await?, target).await
    }

    /// Lets the snapshot go.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn end(self) -> Result<()> {
        Ok(self.snapshot.commit().await?)
    }
}

/// As a condition: a copy takes no parameters.
fn of_topics(topics: &[&str]) -> String {
    let topics: Vec<String> = topics.iter().map(|topic| literal(topic)).collect();
    format!("topic = any (array[{}]::text[])", topics.join(", "))
}
