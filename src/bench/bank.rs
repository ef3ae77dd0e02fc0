//! The accounts of the benchmark: as handlers in Rust, and as commands in SQL.

use serde::{Deserialize, Serialize};

use super::workload::{Amount, DEPOSIT, INSUFFICIENT_FUNDS, WITHDRAW, balance_after};
use super::{Error, Row};
use crate::config::Config;
use crate::declared::{Declared, DeclaredError};
use crate::handlers::{Context, Rejection};
use crate::local::directory::Directory;
use crate::worker::Worker;

/// The entity type.
pub(super) const ACCOUNT: &str = "account";

/// The files of the commands in SQL, by name.
pub(super) const IN_SQL: [(&str, &str); 2] =
    [("accounts.toml", include_str!("bank/accounts.toml")), ("accounts.sql", include_str!("bank/accounts.sql"))];
/// The one of them that the configuration names.
pub(super) const COMMANDS: &str = "accounts.toml";

const REFUSED: Rejection = Rejection::new(INSUFFICIENT_FUNDS);

/// What an account holds.
#[derive(Clone, Default, Deserialize, Serialize)]
struct Account {
    balance: i64,
}

impl Account {
    fn deposit(&mut self, deposit: Amount, _: &mut Context) -> Result<Self, Rejection> {
        self.change(false, deposit.amount)
    }

    fn withdraw(&mut self, withdraw: Amount, _: &mut Context) -> Result<Self, Rejection> {
        self.change(true, withdraw.amount)
    }

    fn change(&mut self, is_withdrawal: bool, amount: i64) -> Result<Self, Rejection> {
        self.balance = balance_after(self.balance, is_withdrawal, amount).ok_or(REFUSED)?;
        Ok(self.clone())
    }
}

/// A worker for a row of ours: with handlers in Rust, or with what the files declare.
pub(super) fn worker(row: Row) -> Worker {
    match row {
        Row::Sql => Worker::new(),
        _ => in_rust(),
    }
}

/// The worker with handlers in Rust.
pub(super) fn in_rust() -> Worker {
    Worker::new().entity::<Account>(ACCOUNT, |e| e.on(DEPOSIT, Account::deposit).on(WITHDRAW, Account::withdraw))
}

/// What the files declare, read as `run` reads them.
pub(super) fn declared(config: &Config) -> Result<Declared, Error> {
    let (config, _files) = beside_files(config)?;
    Ok(Declared::load(&config, &[]).map_err(DeclaredError::from)?)
}

/// The configuration of a process that has the files beside it, and the files, which are gone when they are dropped.
pub(super) fn beside_files(config: &Config) -> Result<(Config, Directory), Error> {
    let files = Directory::make("bench").and_then(|directory| directory.with(&IN_SQL));
    let files = files.map_err(Error::io("write the commands' files"))?;
    Ok((Config { directory: files.path().to_owned(), ..config.clone() }, files))
}
