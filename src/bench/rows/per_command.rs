//! The consumer that everybody writes first: a task per partition, a transaction per command, and the
//! outcome on its topic before the next command.
//!
//! Kept honest: statements are prepared once, a duplicate is known by a table and gets the stored
//! outcome again, offsets are stored after all that, and nothing waits for a batch to fill.

use rdkafka::consumer::Consumer as _;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use tokio::task::JoinSet;

use super::super::Error;
use super::super::services::connection;
use super::super::workload::balance_after;
use super::group::{self, Consumer, Queue};
use super::publish::{Outcomes, delivered};
use super::read::{Read, read};
use crate::config::Config;

/// The two tables of this consumer.
pub(crate) async fn make_tables(connection: &mut PgConnection) -> Result<(), Error> {
    let tables = "create table accounts (account_id text primary key, balance bigint not null) with (fillfactor = 80);
         create table processed (command_id uuid primary key, applied boolean not null, balance bigint not null)";
    sqlx::raw_sql(tables).execute(connection).await?;
    Ok(())
}

/// Settles until it is killed.
pub(crate) async fn run(config: &Config) -> Result<(), Error> {
    let (consumer, queues) = group::join(config)?;
    let outcomes = Outcomes::new(config)?;
    let mut tasks = JoinSet::new();
    for queue in queues {
        let connection = connection(config).await?;
        tasks.spawn(Task { consumer: consumer.clone(), queue, connection, outcomes: outcomes.clone() }.run());
    }
    tasks.spawn(async { Err(group::serve(consumer).await) });
    match tasks.join_next().await {
        Some(joined) => joined.map_err(std::io::Error::other).map_err(Error::io("settle"))?,
        None => Ok(()),
    }
}

struct Task {
    consumer: Consumer,
    queue: Queue,
    connection: PgConnection,
    outcomes: Outcomes,
}

/// What became of a command.
struct Settled {
    applied: bool,
    balance: i64,
}

impl Task {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let record = self.queue.recv().await?;
            let Some(command) = read(&record) else { continue };
            let settled = settle(&mut self.connection, &command).await?;
            let id = command.id.hyphenated().to_string();
            let value = outcome(&id, &command, settled.applied, settled.balance);
            delivered(self.outcomes.send(&command.account, &id, &value).await?).await?;
            self.consumer.store_offset_from_message(&record)?;
        }
    }
}

/// The shortest outcome that tells the same.
pub(super) fn outcome(id: &str, command: &Read, applied: bool, balance: i64) -> String {
    let Read { account, partition, offset, .. } = command;
    let outcome = if applied { "applied" } else { "rejected" };
    format!(
        r#"{{"command_id":"{id}","entity_id":"{account}","outcome":"{outcome}","reply":{{"balance":{balance}}},"partition":{partition},"offset":{offset}}}"#
    )
}

async fn settle(connection: &mut PgConnection, command: &Read) -> Result<Settled, Error> {
    let mut transaction = connection.begin().await?;
    let held: Option<i64> = sqlx::query_scalar("select balance from accounts where account_id = $1 for update")
        .bind(&command.account)
        .fetch_optional(&mut *transaction)
        .await?;
    let held = held.unwrap_or(0);
    let after = balance_after(held, command.is_withdrawal, command.amount);
    let settled = Settled { applied: after.is_some(), balance: after.unwrap_or(held) };
    let inserted =
        sqlx::query("insert into processed (command_id, applied, balance) values ($1, $2, $3) on conflict do nothing")
            .bind(command.id)
            .bind(settled.applied)
            .bind(settled.balance)
            .execute(&mut *transaction)
            .await?;
    if inserted.rows_affected() == 0 {
        let stored = sqlx::query("select applied, balance from processed where command_id = $1")
            .bind(command.id)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.rollback().await?;
        return Ok(Settled { applied: stored.try_get(0)?, balance: stored.try_get(1)? });
    }
    if settled.applied {
        sqlx::query("insert into accounts (account_id, balance) values ($1, $2) on conflict (account_id) do update set balance = excluded.balance")
            .bind(&command.account)
            .bind(settled.balance)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(settled)
}
