//! The horizon and the day partitions, for the maintenance duty. Every change is
//! one call, fenced by the duty's claim in the call itself (`hold_duty_v1`). A call
//! is refused with [`Refusal::Fenced`](super::Refusal::Fenced) if the claim is stale,
//! with [`Refusal::DutyElsewhere`](super::Refusal::DutyElsewhere) if another topic has
//! the duty, and then changes nothing.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryScalar;
use sqlx::{Decode, FromRow, Postgres, Type};
use uuid::Uuid;

use super::{Result, Store};
use crate::horizon;
use crate::steps::fence::Claimed;

/// The horizon's row, with the database's clock. Times in milliseconds since 1970.
#[derive(Clone, Debug, FromRow)]
pub struct HorizonRow {
    /// Where the horizon stands.
    pub at_ms: i64,
    /// The smallest id of that time.
    pub floor_id: Uuid,
    /// The database's clock.
    pub database_time_ms: i64,
    /// The raised horizon waits to be seen by a later transaction, and nothing
    /// that was seen before it still waits for older transactions to end.
    pub unseen: bool,
}

/// How far a partition's log is known to be settled and published.
#[derive(Clone, Debug, FromRow)]
pub struct LogTime {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// How many partitions the topic had at the last claim.
    pub partition_count: i32,
    /// Everything that the log held at this time, milliseconds since 1970; `None`: nobody
    /// has looked yet.
    pub time_ms: Option<i64>,
}

/// A call of a function of the duty, whose first arguments are its claim.
fn call<'q, T>(sql: &'static str, duty: &'q Claimed) -> QueryScalar<'q, Postgres, T, PgArguments>
where
    (T,): for<'r> FromRow<'r, PgRow>,
    T: Type<Postgres> + for<'r> Decode<'r, Postgres>,
{
    sqlx::query_scalar(sql).bind(&*duty.source().topic).bind(duty.claim_id().0).bind(duty.token().0)
}

impl Store {
    /// The horizon.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn horizon(&self) -> Result<HorizonRow> {
        Ok(sqlx::query_as(
            "select (extract(epoch from at) * 1000)::bigint as at_ms, floor_id,
                    (extract(epoch from clock_timestamp()) * 1000)::bigint as database_time_ms,
                    dropping_below is distinct from floor_id
                        and coalesce(drop_after <= pg_snapshot_xmin(pg_current_snapshot()), true) as unseen
               from horizon",
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// The log time of every partition that has a row, of all topics in the schema.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn log_times(&self) -> Result<Vec<LogTime>> {
        Ok(sqlx::query_as(
            "select topic, partition, partition_count, (extract(epoch from log_time) * 1000)::bigint as time_ms
               from partitions",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Makes the days from today to `days_ahead` that are missing.
    ///
    /// # Errors
    /// If the duty is not had, or the database cannot be reached.
    pub async fn make_days(&self, duty: &Claimed, days_ahead: i32) -> Result<i32> {
        Ok(call("select make_days_v1($1, $2, $3, $4)", duty).bind(days_ahead).fetch_one(&self.pool).await?)
    }

    /// Raises the horizon. It never falls.
    ///
    /// # Errors
    /// If the duty is not had, or the database cannot be reached.
    pub async fn raise_horizon(&self, duty: &Claimed, to_ms: i64) -> Result<()> {
        let raise = "select true from raise_horizon_v1($1, $2, $3, $4)";
        call::<bool>(raise, duty).bind(to_ms).fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Notes which transactions may not have seen this horizon, so that nothing
    /// below it is dropped while they run.
    ///
    /// # Errors
    /// If the duty is not had, or the database cannot be reached.
    pub async fn see_horizon(&self, duty: &Claimed, seen: &HorizonRow) -> Result<()> {
        let see = "select true from see_horizon_v1($1, $2, $3, $4)";
        call::<bool>(see, duty).bind(seen.floor_id).fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Drops the oldest day below the horizon that nobody can need any more. It
    /// needs the tables' locks for an instant and gives up after 50 ms, so that no
    /// writer waits longer on it: try again later. Returns its table; `None`: there
    /// is no such day.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`](super::Refusal::TimedOut) if a lock was not had; if the duty is
    /// not had, or the database cannot be reached.
    pub async fn drop_day(&self, duty: &Claimed) -> Result<Option<String>> {
        Ok(call("select drop_day_v1($1, $2, $3)", duty).fetch_one(&self.pool).await?)
    }

    /// Deletes published batches older than the horizon, at most `rows_max`. Returns
    /// how many.
    ///
    /// # Errors
    /// If the duty is not had, or the database cannot be reached.
    pub async fn delete_batches(&self, duty: &Claimed, rows_max: i32) -> Result<i32> {
        Ok(call("select delete_batches_v1($1, $2, $3, $4)", duty).bind(rows_max).fetch_one(&self.pool).await?)
    }

    /// Makes the days of these ids, where they are missing. Not the duty's and not fenced: any writer makes the day that
    /// it needs, and a day below the horizon takes nothing, as ids of that time are refused.
    ///
    /// # Errors
    /// If the database cannot be reached or refuses.
    pub async fn make_days_of(&self, ids: impl Iterator<Item = Uuid>) -> Result<()> {
        for day in horizon::days_of(ids) {
            sqlx::query("select make_day_v1(time_of($1))").bind(day).execute(&self.pool).await?;
        }
        Ok(())
    }
}
