//! Accounts that have been there for long, so that a command meets one that its worker has never seen.

use sqlx::postgres::{PgConnection, PgCopyIn};

use super::super::trial::{Row, Trial};
use super::super::workload::account_id;
use super::super::{Error, bank};
use crate::config::Partitioner;

/// So many rows are sent at once.
const CHUNK: u64 = 50_000;

/// Makes every account of the trial's workload, with nothing in it, at its home.
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
        copy(&mut connection, "account (id, balance)", accounts, |account| format!("{}\t0\n", account_id(account)))
            .await?;
        sqlx::raw_sql("vacuum (analyze) account").execute(&mut connection).await?;
    }
    // as after some time: what is durable is marked so, and the planner knows the table
    sqlx::raw_sql("vacuum (analyze) entities").execute(&mut connection).await?;
    trial.services().checkpoint().await;
    Ok(())
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
