//! A consistent cut: what the live tables hold in one snapshot, read without writing.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::checkpoint::{quoted, settled_before};
use super::{CheckpointCursor, CheckpointError, Result, Store};
use crate::record::TopicPartition;
use crate::replay::checkpoint::CheckpointName;

/// Rows that go over at a time.
const PAGE_ROWS: i64 = 2_000;

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
    /// When it was taken, milliseconds since 1970.
    pub at_ms: i64,
    /// Where the partitions were.
    pub cursors: Vec<CheckpointCursor>,
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
    /// The oldest batch that is kept, and its first record.
    pub oldest_seq: Option<i64>,
    /// See there.
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

#[derive(FromRow)]
struct BatchRow {
    topic: String,
    partition: i32,
    #[sqlx(flatten)]
    batch: CutBatch,
}

#[derive(FromRow)]
struct EntityRow {
    entity_type: String,
    entity_id: String,
    topic: String,
    partition: i32,
    version: i64,
    state: Option<String>,
}

#[derive(FromRow)]
struct LetterRow {
    dead_letter_id: i64,
    topic: String,
    partition: i32,
    #[sqlx(rename = "offset")]
    log_offset: i64,
    record_time_ms: i64,
    code: String,
    state: String,
    edited_value: Option<Vec<u8>>,
    command_id: Option<Uuid>,
}

impl Store {
    /// Takes a snapshot.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn cut(&self) -> Result<Cut> {
        let mut snapshot = self.pool.begin_with("begin isolation level repeatable read read only").await?;
        sqlx::query(
            "select set_config('statement_timeout', '0', true),
                    set_config('idle_in_transaction_session_timeout', '0', true),
                    -- rows that this role must not see are an error, and not left out
                    set_config('row_security', 'off', true),
                    (select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout')",
        )
        .execute(&mut *snapshot)
        .await?;
        Ok(Cut { snapshot })
    }

    /// What a checkpoint holds, as a beginning.
    ///
    /// # Errors
    /// If there is none of this name, or it is unfinished, or the database cannot be reached.
    pub async fn kept_cut(&self, name: &CheckpointName) -> std::result::Result<KeptCut, CheckpointError> {
        let row = self.checkpoint(name).await?;
        let at_ms = row.about.cut_at_ms.ok_or_else(|| CheckpointError::Unfinished(name.clone()))?;
        Ok(KeptCut { schema: self.checkpoint_schema(name)?, at_ms, cursors: row.cursors })
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
}

impl Store {
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

    /// The stretches of a partition's log that its kept batches have settled, in order: first offset and the one
    /// behind the last. What lies between two of them are transaction markers, or records that were skipped.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn settled_stretches(&mut self, source: &TopicPartition) -> Result<Vec<(i64, i64)>> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "select min(first_offset), max(next_offset)
               from (select first_offset, next_offset,
                            -- a batch that begins where the one before has ended goes on with its stretch
                            count(*) filter (where begins) over (order by batch_seq) as stretch
                       from (select batch_seq, first_offset, next_offset,
                                    first_offset is distinct from lag(next_offset) over (order by batch_seq) as begins
                               from batches
                              where topic = $1 and partition = $2 and first_offset < next_offset) b) s
              group by stretch order by 1",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .fetch_all(self.connection())
        .await?;
        Ok(rows)
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
        sqlx::query("select set_config('enable_seqscan', 'on', true)").execute(self.connection()).await?;
        let behind = from.map_or("true".to_owned(), |kept| format!("not ({})", settled_before(&kept.schema)));
        let counts = format!(
            "select topic, partition,
                    case when get_byte(uuid_send(command_id), 6) >> 4 = 7
                         then ('x' || left(replace(command_id::text, '-', ''), 12))::bit(48)::bigint / 86400000 end,
                    count(*)
               from processed_commands c where topic = any ($1) and {behind} group by 1, 2, 3"
        );
        let counts = sqlx::query_as(AssertSqlSafe(counts)).bind(topics).fetch_all(self.connection()).await?;
        sqlx::query("select set_config('enable_seqscan', 'off', true)").execute(self.connection()).await?;
        Ok(counts)
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

    /// Copies the entities of these topics to a shadow, page by page. Their number.
    ///
    /// # Errors
    /// If a database refuses or cannot be reached.
    pub async fn copy_entities(&mut self, topics: &[&str], shadow: &Store) -> Result<u64> {
        let (mut after_type, mut after_id, mut copied) = (String::new(), String::new(), 0);
        loop {
            let page: Vec<EntityRow> = sqlx::query_as(
                "select entity_type, entity_id, topic, partition, version, state::text as state from entities
                  where (entity_type, entity_id) > ($1, $2) and topic = any ($3)
                  order by entity_type, entity_id limit $4",
            )
            .bind(&after_type)
            .bind(&after_id)
            .bind(topics)
            .bind(PAGE_ROWS)
            .fetch_all(self.connection())
            .await?;
            let Some(last) = page.last() else { return Ok(copied) };
            copied += page.len() as u64;
            (after_type, after_id) = (last.entity_type.clone(), last.entity_id.clone());
            sqlx::query(
                "insert into cut_entities (entity_type, entity_id, topic, partition, version, state)
                 select t, i, o, p, v, s::jsonb
                   from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::text[])
                        as page (t, i, o, p, v, s)",
            )
            .bind(page.iter().map(|row| &*row.entity_type).collect::<Vec<_>>())
            .bind(page.iter().map(|row| &*row.entity_id).collect::<Vec<_>>())
            .bind(page.iter().map(|row| &*row.topic).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.partition).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.version).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.state.as_deref()).collect::<Vec<_>>())
            .execute(&shadow.pool)
            .await?;
        }
    }

    /// Copies what decides about the dead letters of these topics to a shadow, page by page.
    ///
    /// # Errors
    /// If a database refuses or cannot be reached.
    pub async fn copy_letters(&mut self, topics: &[&str], shadow: &Store) -> Result<()> {
        let mut after = 0;
        loop {
            let page: Vec<LetterRow> = sqlx::query_as(
                "select dead_letter_id, topic, partition, \"offset\",
                        (extract(epoch from record_time) * 1000)::bigint as record_time_ms, code, state,
                        case state when 'redriven' then edited_value end as edited_value, command_id
                   from dead_letters where dead_letter_id > $1 and topic = any ($2)
                  order by dead_letter_id limit $3",
            )
            .bind(after)
            .bind(topics)
            .bind(PAGE_ROWS)
            .fetch_all(self.connection())
            .await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.dead_letter_id;
            sqlx::query(
                "insert into cut_letters
                 select * from unnest($1::bigint[], $2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::text[],
                                      $7::text[], $8::bytea[], $9::uuid[])",
            )
            .bind(page.iter().map(|row| row.dead_letter_id).collect::<Vec<_>>())
            .bind(page.iter().map(|row| &*row.topic).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.partition).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.log_offset).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.record_time_ms).collect::<Vec<_>>())
            .bind(page.iter().map(|row| &*row.code).collect::<Vec<_>>())
            .bind(page.iter().map(|row| &*row.state).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.edited_value.as_deref()).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.command_id).collect::<Vec<_>>())
            .execute(&shadow.pool)
            .await?;
        }
    }

    /// Copies the order in which the batches of these topics were committed to a shadow, page by page.
    ///
    /// # Errors
    /// If a database refuses or cannot be reached.
    pub async fn copy_batches(&mut self, topics: &[&str], shadow: &Store) -> Result<()> {
        let (mut topic, mut partition, mut batch_seq) = (String::new(), 0, 0);
        loop {
            let page: Vec<BatchRow> = sqlx::query_as(
                "select topic, partition, batch_seq, (settled_lsn - '0/0'::pg_lsn)::bigint as settled_lsn, first_offset,
                        next_offset, case when first_offset = next_offset then command_ids else '{}' end as letters
                   from batches
                  where (topic, partition, batch_seq) > ($1, $2, $3) and topic = any ($4)
                  order by topic, partition, batch_seq limit $5",
            )
            .bind(&topic)
            .bind(partition)
            .bind(batch_seq)
            .bind(topics)
            .bind(PAGE_ROWS)
            .fetch_all(self.connection())
            .await?;
            let Some(last) = page.last() else { return Ok(()) };
            (topic, partition, batch_seq) = (last.topic.clone(), last.partition, last.batch.batch_seq);
            sqlx::query(
                "insert into cut_batches (topic, partition, batch_seq, settled_lsn, first_offset, next_offset, letters)
                 select t, p, s, l, f, n, array(select jsonb_array_elements_text(i))::uuid[]
                   from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::jsonb[])
                        as page (t, p, s, l, f, n, i)",
            )
            .bind(page.iter().map(|row| &*row.topic).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.partition).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.batch.batch_seq).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.batch.settled_lsn).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.batch.first_offset).collect::<Vec<_>>())
            .bind(page.iter().map(|row| row.batch.next_offset).collect::<Vec<_>>())
            .bind(page.iter().map(|row| Json(&row.batch.letters)).collect::<Vec<_>>())
            .execute(&shadow.pool)
            .await?;
        }
    }

    /// Lets the snapshot go.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn end(self) -> Result<()> {
        Ok(self.snapshot.commit().await?)
    }
}
