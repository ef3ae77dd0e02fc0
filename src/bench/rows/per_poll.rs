//! The consumer that a careful team writes: a task per partition, a transaction per poll with a
//! statement per table, the cursor in the same transaction, and the outcomes of one poll on their way
//! while the next is settled.
//!
//! It has no fence, no dead letters and no horizon, and skips a record that cannot be read.

use std::collections::HashMap;

use futures_util::FutureExt as _;
use rdkafka::producer::DeliveryFuture;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::super::Error;
use super::super::workload::balance_after;
use super::group::{self, Partition};
use super::per_command::outcome;
use super::publish::delivered;
use super::read::{Read, read};
use crate::config::Config;

/// The three tables of this consumer.
pub(crate) async fn make_tables(connection: &mut PgConnection) -> Result<(), Error> {
    let tables = "create table accounts (account_id text primary key, balance bigint not null) with (fillfactor = 80);
         create table processed (command_id uuid primary key, applied boolean not null, balance bigint not null);
         create table cursors (partition int primary key, next_offset bigint not null)";
    sqlx::raw_sql(tables).execute(connection).await?;
    Ok(())
}

/// Settles until it is killed.
pub(crate) async fn run(config: &Config) -> Result<(), Error> {
    let commands_max = config.worker.batch_commands_max.get();
    let task = |partition| Task { partition, commands_max, on_their_way: Vec::new(), last: None }.run();
    group::run(config, task).await
}

struct Task {
    partition: Partition,
    /// As many as solewriter settles at once.
    commands_max: usize,
    /// The outcomes of the last poll…
    on_their_way: Vec<DeliveryFuture>,
    /// …and the partition and the offset of its last record.
    last: Option<(i32, i64)>,
}

/// What became of a command, or had become of it before.
type Settled = HashMap<Uuid, (bool, i64)>;

impl Task {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let commands = poll(&self.partition, self.commands_max).await?;
            let settled = settle(&mut self.partition.connection, &commands).await?;
            self.all_delivered().await?;
            self.publish(&commands, &settled).await?;
            if commands.len() < self.commands_max {
                self.all_delivered().await?;
            }
        }
    }

    async fn publish(&mut self, commands: &[Read], settled: &Settled) -> Result<(), Error> {
        for command in commands {
            let Some((applied, balance)) = settled.get(&command.id) else { continue };
            let id = command.id.hyphenated().to_string();
            let value = outcome(&id, command, *applied, *balance);
            self.on_their_way.push(self.partition.outcomes.send(&command.account, &id, &value).await?);
        }
        self.last = commands.last().map(|last| (last.partition, last.offset));
        Ok(())
    }

    /// Only then may the group's offset pass them.
    async fn all_delivered(&mut self) -> Result<(), Error> {
        for delivery in self.on_their_way.drain(..) {
            delivered(delivery).await?;
        }
        if let Some((partition, offset)) = self.last.take() {
            self.partition.published(partition, offset)?;
        }
        Ok(())
    }
}

/// Whatever is there, at least one record.
async fn poll(partition: &Partition, commands_max: usize) -> Result<Vec<Read>, Error> {
    let mut commands: Vec<Read> = read(&partition.record().await?).into_iter().collect();
    while commands.len() < commands_max {
        match partition.record().now_or_never() {
            Some(record) => commands.extend(read(&record?)),
            None => break,
        }
    }
    Ok(commands)
}

async fn settle(connection: &mut PgConnection, commands: &[Read]) -> Result<Settled, Error> {
    let ids: Vec<Uuid> = commands.iter().map(|command| command.id).collect();
    let mut accounts: Vec<&str> = commands.iter().map(|command| command.account.as_str()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let mut transaction = connection.begin().await?;
    let known: Vec<(Uuid, bool, i64)> =
        sqlx::query_as("select command_id, applied, balance from processed where command_id = any ($1)")
            .bind(&ids)
            .fetch_all(&mut *transaction)
            .await?;
    let held: Vec<(String, i64)> =
        sqlx::query_as("select account_id, balance from accounts where account_id = any ($1) for update")
            .bind(&accounts)
            .fetch_all(&mut *transaction)
            .await?;
    let mut decided = Decided {
        settled: known.into_iter().map(|(id, applied, balance)| (id, (applied, balance))).collect(),
        balances: held.into_iter().collect(),
        ..Decided::default()
    };
    for command in commands {
        decided.settle(command);
    }
    decided.write(&mut transaction, commands).await?;
    transaction.commit().await?;
    Ok(decided.settled)
}

#[derive(Default)]
struct Decided<'a> {
    settled: Settled,
    balances: HashMap<String, i64>,
    changed: HashMap<&'a str, i64>,
    ids: Vec<Uuid>,
    applied: Vec<bool>,
    replies: Vec<i64>,
}

impl<'a> Decided<'a> {
    fn settle(&mut self, command: &'a Read) {
        if self.settled.contains_key(&command.id) {
            return;
        }
        let account = command.account.as_str();
        let held = self.changed.get(account).or_else(|| self.balances.get(account)).copied().unwrap_or(0);
        let after = balance_after(held, command.is_withdrawal, command.amount);
        if let Some(after) = after {
            self.changed.insert(account, after);
        }
        let balance = after.unwrap_or(held);
        self.settled.insert(command.id, (after.is_some(), balance));
        self.ids.push(command.id);
        self.applied.push(after.is_some());
        self.replies.push(balance);
    }

    async fn write(&self, connection: &mut PgConnection, commands: &[Read]) -> Result<(), Error> {
        sqlx::query("insert into processed select * from unnest($1::uuid[], $2::boolean[], $3::bigint[])")
            .bind(&self.ids)
            .bind(&self.applied)
            .bind(&self.replies)
            .execute(&mut *connection)
            .await?;
        let (accounts, balances): (Vec<&str>, Vec<i64>) =
            self.changed.iter().map(|(account, balance)| (*account, *balance)).unzip();
        sqlx::query("insert into accounts select * from unnest($1::text[], $2::bigint[]) on conflict (account_id) do update set balance = excluded.balance")
            .bind(accounts)
            .bind(balances)
            .execute(&mut *connection)
            .await?;
        let Some(last) = commands.last() else { return Ok(()) };
        sqlx::query("insert into cursors values ($1, $2) on conflict (partition) do update set next_offset = excluded.next_offset")
            .bind(last.partition)
            .bind(last.offset + 1)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }
}
