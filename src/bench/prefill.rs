//! What the tables hold before a trial begins, as they would after some time in production.

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgCopyIn};

use super::services::Services;
use super::trial::{Row, Trial};
use super::workload::{Ids, Workload, account_id};
use super::{Error, bank};
use crate::config::Partitioner;

/// Those that a window of a week still holds, today included.
const DAYS: i32 = 6;
/// A version 4 made one of version 7: evenly over the five days up to the first id of the workload.
const BY_TIME: &str = "(left(ms, 8) || '-' || right(ms, 4) || '-7' || substr(random::text, 16))::uuid";
/// So many accounts are sent at once.
const CHUNK: u64 = 50_000;

/// Rows of earlier commands in the idempotency table: of the last days before the workload if ids are
/// made by time.
pub(super) async fn processed(services: &Services, workload: &Workload, rows: u64) -> Result<(), Error> {
    if rows == 0 {
        return Ok(());
    }
    let mut connection = services.connection().await?;
    let began_ms = i64::try_from(workload.began_ms).unwrap_or(i64::MAX);
    match workload.ids {
        Ids::V7 => {
            for day in 0..DAYS {
                sqlx::query("select make_day_v1(to_timestamp($1::bigint / 1000) - $2 * interval '1 day')")
                    .bind(began_ms)
                    .bind(day)
                    .execute(&mut connection)
                    .await?;
            }
            insert(&mut connection, "processed_timed", BY_TIME, rows, began_ms).await?;
            execute(&mut connection, "vacuum (analyze) processed_timed").await
        }
        // an index on ids made by chance is built in a fraction of the time that inserting takes
        Ids::V4 => {
            execute(&mut connection, "alter table processed_untimed drop constraint processed_untimed_pkey").await?;
            insert(&mut connection, "processed_untimed", "random", rows, began_ms).await?;
            execute(&mut connection, "set maintenance_work_mem = '512MB'").await?;
            execute(&mut connection, "alter table processed_untimed add primary key (command_id)").await?;
            execute(&mut connection, "vacuum (analyze) processed_untimed").await
        }
    }
}

/// Their partition is -1, so that the books can tell them from the trial's own.
async fn insert(connection: &mut PgConnection, table: &str, id: &str, rows: u64, began_ms: i64) -> Result<(), Error> {
    let statement = format!(
        "insert into {table}
         select n, n, 1, to_timestamp($2::bigint / 1000), -1, 1, 1, true, {id}, random, 'acct-0000001',
                null, null, '{{\"balance\":1000}}', null, null
           from (select n, gen_random_uuid() as random,
                        lpad(to_hex($2 - ($1 - n) * (5 * 86400000) / $1 - 1), 12, '0') as ms
                   from generate_series(1, $1::bigint) n) numbered"
    );
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    sqlx::query(AssertSqlSafe(statement)).bind(rows).bind(began_ms).execute(connection).await?;
    Ok(())
}

async fn execute(connection: &mut PgConnection, statement: &'static str) -> Result<(), Error> {
    sqlx::raw_sql(statement).execute(connection).await?;
    Ok(())
}

/// All accounts of the trial's workload, with nothing in it, at home where their commands come.
pub(super) async fn accounts(trial: &Trial<'_>) -> Result<(), Error> {
    let mut connection = trial.services().connection().await?;
    let backlog = trial.backlog();
    let is_in_sql = trial.row() == Row::Sql;
    // commands in SQL keep their state in the team's own table
    let state = if is_in_sql { r"\N" } else { r#"{"balance":0}"# };
    let entity = |account: u64| {
        let id = account_id(account);
        let home = Partitioner::Murmur2.partition(id.as_bytes(), backlog.partitions);
        format!("{}\t{id}\t{}\t{home}\t1\t{state}\n", bank::ACCOUNT, backlog.topic)
    };
    let accounts = backlog.workload.accounts;
    copy(&mut connection, "entities (entity_type, entity_id, topic, partition, version, state)", accounts, entity)
        .await?;
    if is_in_sql {
        let account = |account: u64| format!("{}\t0\n", account_id(account));
        copy(&mut connection, "account (id, balance)", accounts, account).await?;
        execute(&mut connection, "vacuum (analyze) account").await?;
    }
    // what is durable is marked so, and the planner knows the table
    execute(&mut connection, "vacuum (analyze) entities").await
}

async fn copy(
    connection: &mut PgConnection,
    table: &str,
    accounts: u64,
    row: impl Fn(u64) -> String,
) -> Result<(), Error> {
    let mut copy = connection.copy_in_raw(&format!("copy {table} from stdin")).await?;
    if let Err(error) = send(&mut copy, accounts, row).await {
        copy.abort("not all rows could be sent").await?;
        return Err(error);
    }
    copy.finish().await?;
    Ok(())
}

async fn send(copy: &mut PgCopyIn<&mut PgConnection>, accounts: u64, row: impl Fn(u64) -> String) -> Result<(), Error> {
    for first in (0..accounts).step_by(CHUNK as usize) {
        let rows: String = (first..accounts.min(first + CHUNK)).map(&row).collect();
        copy.send(rows.as_bytes()).await?;
    }
    Ok(())
}
