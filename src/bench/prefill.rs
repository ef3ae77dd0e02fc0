//! What the tables hold before a trial begins, as they would after some time in production.

use sqlx::{AssertSqlSafe, PgConnection};

use super::Error;
use super::backlog::Backlog;
use super::bank::ACCOUNT;
use super::services::Services;
use super::trial::Row;
use super::workload::{Ids, Workload, account_id};
use crate::config::Partitioner;

/// Those that a window of a week still holds, today included.
const DAYS: i32 = 6;
/// Evenly over the five days up to the first id of the workload.
const BY_TIME: &str = "(lpad(to_hex($2 - (($1 - n)::numeric * 5 * 86400000 / $1)::bigint - 1), 12, '0')
     || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid";
/// How many accounts are sent to the database at once.
const ACCOUNTS_PER_CHUNK: u64 = 20_000;

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
        }
        // an index on ids made by chance is built in a fraction of the time that inserting takes
        Ids::V4 => {
            execute(&mut connection, "alter table processed_untimed drop constraint processed_untimed_pkey").await?;
            insert(&mut connection, "processed_untimed", "gen_random_uuid()", rows, began_ms).await?;
            execute(&mut connection, "alter table processed_untimed add primary key (command_id)").await?;
        }
    }
    execute(&mut connection, "analyze").await
}

/// Their partition is -1, so that the books can tell them from the trial's own.
async fn insert(connection: &mut PgConnection, table: &str, id: &str, rows: u64, began_ms: i64) -> Result<(), Error> {
    let statement = format!(
        "insert into {table}
         select n, n, 1, to_timestamp($2::bigint / 1000), -1, 1, 1, true, {id}, gen_random_uuid(), 'acct-0000001',
                null, null, '{{\"balance\":1000}}', null, null
           from generate_series(1, $1::bigint) n"
    );
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    sqlx::query(AssertSqlSafe(statement)).bind(rows).bind(began_ms).execute(connection).await?;
    Ok(())
}

async fn execute(connection: &mut PgConnection, statement: &'static str) -> Result<(), Error> {
    sqlx::raw_sql(statement).execute(connection).await?;
    Ok(())
}

/// All accounts of the workload, each at home on the partition that its commands come on, with nothing
/// in it.
pub(super) async fn accounts(services: &Services, row: Row, backlog: &Backlog) -> Result<(), Error> {
    let mut connection = services.connection().await?;
    let state = if row == Row::Sql { r"\N" } else { r#"{"balance":0}"# };
    let home = |id: &str| Partitioner::Murmur2.partition(id.as_bytes(), backlog.partitions);
    let entity = |id: &str| format!("{ACCOUNT}\t{id}\t{}\t{}\t1\t{state}\n", backlog.topic, home(id));
    let accounts = backlog.workload.accounts;
    copy(&mut connection, "entities (entity_type, entity_id, topic, partition, version, state)", accounts, entity)
        .await?;
    if row == Row::Sql {
        copy(&mut connection, "account (id, balance)", accounts, |id| format!("{id}\t0\n")).await?;
    }
    // as after some time: what is durable is marked so, and the planner knows the table
    execute(&mut connection, "vacuum (analyze) entities").await?;
    if row == Row::Sql {
        execute(&mut connection, "vacuum (analyze) account").await?;
    }
    services.checkpoint().await;
    Ok(())
}

/// A line for each account, in COPY's text form.
async fn copy(
    connection: &mut PgConnection,
    table: &str,
    accounts: u64,
    line: impl Fn(&str) -> String,
) -> Result<(), Error> {
    let mut copy = connection.copy_in_raw(&format!("copy {table} from stdin")).await?;
    for from in (0..accounts).step_by(ACCOUNTS_PER_CHUNK as usize) {
        let mut lines = String::new();
        for account in from..accounts.min(from + ACCOUNTS_PER_CHUNK) {
            lines.push_str(&line(&account_id(account)));
        }
        copy.send(lines.as_bytes()).await?;
    }
    copy.finish().await?;
    Ok(())
}
