//! The consumer that everybody writes first: a task per partition, a transaction per command.
//!
//! Kept honest: statements are prepared once, a duplicate is known by a table and gets the stored
//! outcome again, the next command does not wait until the broker has acknowledged the outcome of the
//! one before (only its offset does), and nothing waits for a batch to fill.

use std::collections::VecDeque;

use futures_util::FutureExt as _;
use rdkafka::producer::DeliveryFuture;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::super::Error;
use super::super::workload::balance_after;
use super::group::{self, Partition};
use super::publish::{delivered, on_its_topic};
use super::read::{Read, read};
use crate::config::Config;

/// Outcomes of a partition that the broker has not acknowledged, at most: as many requests as an idempotent
/// producer has in flight. More would make the rate of a short run, which is that of the outcomes, the
/// producer's and not the consumer's. A count.
const ON_THEIR_WAY_MAX: usize = 5;

/// The two tables of this consumer.
pub(crate) async fn make_tables(connection: &mut PgConnection) -> Result<(), Error> {
    let tables = "create table accounts (account_id text primary key, balance bigint not null) with (fillfactor = 80);
         create table processed (command_id uuid primary key, applied boolean not null, balance bigint not null)";
    sqlx::raw_sql(tables).execute(connection).await?;
    Ok(())
}

/// Settles until it is killed.
pub(crate) async fn run(config: &Config) -> Result<(), Error> {
    group::run(config, |partition| Task { partition, on_their_way: VecDeque::new() }.run()).await
}

struct Task {
    partition: Partition,
    /// Outcomes that the broker has not acknowledged, with the partition and the offset of the command.
    on_their_way: VecDeque<(DeliveryFuture, i32, i64)>,
}

/// What became of a command.
struct Settled {
    applied: bool,
    balance: i64,
}

impl Task {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let Some(command) = read(&self.partition.record().await?) else { continue };
            let settled = settle(&mut self.partition.connection, &command).await?;
            let id = command.id.hyphenated().to_string();
            let value = outcome(&id, &command, settled.applied, settled.balance);
            let delivery = self.partition.outcomes.send(&command.account, &id, &value).await?;
            self.on_their_way.push_back((delivery, command.partition, command.offset));
            self.store_acknowledged().await?;
        }
    }

    /// The group's offset passes what is on its topic, in order.
    async fn store_acknowledged(&mut self) -> Result<(), Error> {
        while let Some((mut delivery, partition, offset)) = self.on_their_way.pop_front() {
            match (&mut delivery).now_or_never() {
                Some(acknowledged) => on_its_topic(acknowledged)?,
                None if self.on_their_way.len() < ON_THEIR_WAY_MAX => {
                    self.on_their_way.push_front((delivery, partition, offset));
                    return Ok(());
                }
                None => delivered(delivery).await?,
            }
            self.partition.published(partition, offset)?;
        }
        Ok(())
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
