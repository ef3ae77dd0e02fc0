//! The horizon and the day partitions, for the maintenance duty. Every change is
//! fenced by the duty's claim: its row is locked in the same transaction.

use sqlx::{AssertSqlSafe, FromRow, PgConnection, Postgres, Transaction};

use super::{Refusal, Result, Store};
use crate::steps::fence::Claimed;

/// The horizon's row, with the database's clock. Times in milliseconds since 1970.
#[derive(Clone, Debug, FromRow)]
pub struct HorizonRow {
    /// Where the horizon stands.
    pub at_ms: i64,
    /// The database's clock.
    pub database_time_ms: i64,
    /// The raised horizon waits to be seen by a later transaction, and nothing
    /// that was seen before it still waits for older transactions to end.
    pub unseen: bool,
}

impl Store {
    /// The horizon.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn horizon(&self) -> Result<HorizonRow> {
        Ok(sqlx::query_as(
            "select (extract(epoch from at) * 1000)::bigint as at_ms,
                    (extract(epoch from clock_timestamp()) * 1000)::bigint as database_time_ms,
                    dropping_below is distinct from floor_id
                        and coalesce(drop_after <= pg_snapshot_xmin(pg_current_snapshot()), true) as unseen
               from horizon",
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Topic and log time of every partition that has a row, milliseconds since
    /// 1970.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn log_times(&self) -> Result<Vec<(String, Option<i64>)>> {
        Ok(sqlx::query_as("select topic, (extract(epoch from log_time) * 1000)::bigint from partitions")
            .fetch_all(&self.pool)
            .await?)
    }

    /// Raises the horizon. It never falls.
    ///
    /// # Errors
    /// If the database cannot be reached. False: the claim is stale.
    pub async fn raise_horizon(&self, duty: &Claimed, to_ms: i64) -> Result<bool> {
        let Some(mut transaction) = self.fenced(duty).await? else { return Ok(false) };
        sqlx::query("update horizon set at = time_of($1), floor_id = uuid_floor(time_of($1)) where at < time_of($1)")
            .bind(to_ms)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Notes, in a transaction that sees the raised horizon, which transactions
    /// may not have seen it: those older than this one.
    ///
    /// Told apart by this transaction's own id. (A snapshot's xmax would not do:
    /// it is the first id not yet *completed*, so a batch may be older than the
    /// raise, still run, and lie above it.) A batch takes its id before it reads
    /// the horizon, so each that read the older one has a smaller id.
    ///
    /// # Errors
    /// If the database cannot be reached. False: the claim is stale.
    pub async fn see_horizon(&self, duty: &Claimed) -> Result<bool> {
        let Some(mut transaction) = self.fenced(duty).await? else { return Ok(false) };
        sqlx::query("update horizon set dropping_below = floor_id, drop_after = pg_current_xact_id()")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The days that may be dropped, oldest first: those that lie as a whole below
    /// a horizon that was seen, and that no running transaction is older than. (The
    /// horizon itself may be higher by now: that proves nothing yet.)
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn droppable_days(&self) -> Result<Vec<String>> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "select c.relname
               from horizon h, pg_inherits i join pg_class c on c.oid = i.inhrelid
              where h.drop_after <= pg_snapshot_xmin(pg_current_snapshot())
                and i.inhparent = 'processed_timed'::regclass
                and c.relname < 'processed_' || to_char(
                    -- the first 48 bits of an id are its time
                    time_of(('x' || left(replace(h.dropping_below::text, '-', ''), 12))::bit(48)::bigint)
                        at time zone 'UTC', 'YYYYMMDD')
              order by 1",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    /// Drops a day. It needs the table's lock for an instant and gives up after
    /// 50 ms, so that no writer waits longer on it: try again later.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`] if the lock was not had. False: the claim is stale.
    pub async fn drop_day(&self, duty: &Claimed, name: &str) -> Result<bool> {
        if !name.strip_prefix("processed_").is_some_and(|day| day.bytes().all(|b| b.is_ascii_digit())) {
            return Err(Refusal::Broken(format!("{name} is no day of processed_timed")).into());
        }
        let Some(mut transaction) = self.fenced(duty).await? else { return Ok(false) };
        sqlx::query("set local lock_timeout = '50ms'").execute(&mut *transaction).await?;
        // the name is checked above
        sqlx::query(AssertSqlSafe(format!("drop table {name}"))).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Makes the day of this time (milliseconds since 1970), if it is missing.
    ///
    /// # Errors
    /// If the database cannot be reached or refuses.
    pub async fn make_day(&self, at_ms: i64) -> Result<bool> {
        let (made,) = sqlx::query_as("select make_day_v1(time_of($1))").bind(at_ms).fetch_one(&self.pool).await?;
        Ok(made)
    }

    /// Deletes published batches older than the horizon, at most `rows_max` of
    /// each partition. Returns how many.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn delete_old_batches(&self, rows_max: i64) -> Result<u64> {
        let deleted = sqlx::query(
            "delete from batches b using (
                 select old.topic, old.partition, old.batch_seq from partitions p, lateral (
                     select topic, partition, batch_seq, settled_at from batches
                      where topic = p.topic and partition = p.partition and batch_seq <= p.published_seq
                      order by batch_seq limit $1) old
                  where old.settled_at < (select at from horizon)) gone
              where (b.topic, b.partition, b.batch_seq) = (gone.topic, gone.partition, gone.batch_seq)",
        )
        .bind(rows_max)
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }

    /// A transaction in which the duty's claim is proven to stand until it ends.
    async fn fenced(&self, duty: &Claimed) -> Result<Option<Transaction<'static, Postgres>>> {
        let mut transaction = self.pool.begin().await?;
        let connection: &mut PgConnection = &mut transaction;
        let stands = sqlx::query(
            "select from partitions where topic = $1 and partition = $2 and claim_id = $3 and fencing_token = $4
                and halted_code is null for share",
        )
        .bind(&*duty.source().topic)
        .bind(duty.source().partition)
        .bind(duty.claim_id().0)
        .bind(duty.token().0)
        .fetch_optional(connection)
        .await?;
        Ok(stands.map(|_| transaction))
    }
}
