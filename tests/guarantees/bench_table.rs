//! `bench`: every row is measured and its books are balanced, a wrong book is found, and nothing is
//! left behind.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use solewriter::local::guarded::{Guarded, Program};

use crate::support;
use crate::support::kafka;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::Database;
use crate::support::scratch::Scratch;
use crate::support::topics;
use crate::support::worker::stock_binary;

/// Each row has a start, a stop and a deadline of its own.
const BENCH_PATIENCE: Duration = Duration::from_secs(180);

/// A running `bench -o json`.
struct Bench {
    process: Guarded,
    scratch: Scratch,
}

impl Bench {
    fn start(arguments: &[&str]) -> Self {
        let scratch = Scratch::new("bench");
        let mut command = vec![stock_binary()];
        command.extend(["bench", "-o", "json"].iter().chain(arguments).map(Into::into));
        let program = Program {
            environment: vec![
                ("DATABASE_URL".into(), support::postgres::shared_url().into()),
                ("KAFKA_BOOTSTRAP_SERVERS".into(), kafka::shared().bootstrap_servers.into()),
            ],
            stdout: scratch.path().join("stdout"),
            stderr: scratch.path().join("stderr"),
            directory: scratch.path().to_owned(),
            ..Program::new(command)
        };
        Self { process: program.spawn().expect("run the benchmark"), scratch }
    }

    /// The exit code and what it prints.
    fn ended(mut self) -> (Option<i32>, Value) {
        let status = self.process.wait(BENCH_PATIENCE).expect("wait for the benchmark");
        let read = |name| fs::read_to_string(self.scratch.path().join(name)).unwrap_or_default();
        let printed = serde_json::from_str(&read("stdout"));
        let printed = printed.unwrap_or_else(|error| panic!("{error}: {}{}", read("stdout"), read("stderr")));
        (status.and_then(|status| status.code()), printed)
    }
}

fn row<'t>(table: &'t Value, name: &str) -> &'t Value {
    let rows = table["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name}: {table:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_measured_with_balanced_books_and_nothing_is_left_behind() {
    let _turn = support::heavy();
    let (code, table) = Bench::start(&["--quick", "--commands", "20000", "--rounds", "1"]).ended();
    assert_eq!(code, Some(0), "{table:#}");
    let names: Vec<&str> =
        table["rows"].as_array().expect("rows").iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["consume", "copy", "commit", "per-command", "per-poll", "rust", "sql"]);
    for name in names {
        let row = row(&table, name);
        assert!(row["void"].is_null(), "{row:#}");
        assert!(row["commands_per_second"]["median"].as_f64() > Some(0.0), "{row:#}");
        assert!(row["cpu_seconds_per_100k"]["postgres"].is_object(), "Postgres runs on this machine: {row:#}");
    }
    // the batches of one partition are commits, and commands are many to a batch
    let transactions = |name| row(&table, name)["transaction_ids_per_command"]["median"].as_f64().expect("a number");
    assert!(transactions("rust") < 0.1 && transactions("per-command") >= 1.0, "{table:#}");
    assert_eq!(row(&table, "per-command")["ratio_to_per_command"], 1.0);
    assert_eq!(row(&table, "copy")["share_of_copy"], 1.0);
    assert!(table["machine"]["cores"].as_u64() > Some(0), "{table:#}");
    let database = Database::fresh("bench").await;
    let schema = table["schema"].as_str().expect("a schema");
    assert_eq!(database.count(&format!("pg_namespace where nspname like '{schema}%'")).await, 0);
    let prefix = table["topics"].as_str().expect("a prefix");
    let left: Vec<String> =
        topics::names(&kafka::shared()).into_iter().filter(|name| name.starts_with(prefix)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_book_voids_its_row() {
    let _turn = support::heavy();
    let database = Database::fresh("bench").await;
    // the row with a transaction per command settles a hundredth of them
    let bench = Bench::start(&["--commands", "300000", "--rounds", "1", "--rows", "per-command"]);
    let mut accounts = None;
    wait_until("the first account", PATIENCE, async || {
        let made = "select n.nspname as schema from pg_class c join pg_namespace n on n.oid = c.relnamespace
                     where n.nspname like 'solewriter_bench_%' and c.relname = 'accounts'";
        accounts =
            database.rows(made).await.first().and_then(|row| Some(row["schema"].as_str()?.to_owned() + ".accounts"));
        match &accounts {
            Some(accounts) => database.number(&format!("select count(*) from {accounts}")).await > Some(0),
            None => false,
        }
    })
    .await;
    let accounts = accounts.expect("a table");
    database
        .execute(&format!(
            "update {accounts} set balance = balance + 1 where account_id = (select min(account_id) from {accounts})"
        ))
        .await;
    let (code, table) = bench.ended();
    assert_eq!(code, Some(3), "{table:#}");
    let row = row(&table, "per-command");
    assert!(row["void"].as_str().is_some_and(|void| void.contains("holds")), "{row:#}");
    assert!(row["ratio_to_per_command"].is_null(), "{row:#}");
}
