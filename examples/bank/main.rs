//! A bank: accounts that are opened, filled and emptied by commands from Kafka.
//!
//! `cargo run --release --example bank -- dev` shows it at work, `-- --help` the whole command line.

mod account;
mod sample;

use std::process::ExitCode;

use account::Account;
use solewriter::Worker;

fn main() -> ExitCode {
    Worker::new()
        .entity::<Account>("account", |e| {
            e.on("account.open", Account::open)
                .on("account.deposit", Account::deposit)
                .on("account.withdraw", Account::withdraw)
        })
        .sample("account", sample::next, Account::balance)
        .sample_sum("account", "sum of balances", "deposited less withdrawn")
        .main()
}
