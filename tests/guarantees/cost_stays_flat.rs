//! What a batch reads depends on the batch, not on how much is stored already.

use solewriter::local::postgres::{Options, Postgres};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{deposit, open};
use crate::support::kafka;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::Database;
use crate::support::producer::Record;
use crate::support::topics;
use crate::support::worker::WorkerOptions;

const BATCHES: usize = 40;
const BATCH_COMMANDS: usize = 200;
const COMMANDS: i64 = (BATCHES * BATCH_COMMANDS) as i64;

/// A plan that was made while the table was small is kept until the next ANALYZE: one that reads
/// the table once per batch would read it 40 times.
#[tokio::test]
async fn a_plan_made_on_empty_tables_reads_no_table_whole() {
    let _turn = support::alone();
    let mut bank = Bank::open("plans", 1).await;
    bank.options = bank.options.clone().setting(&format!("[worker]\nbatch_commands_max = {BATCH_COMMANDS}"));
    bank.database.execute("alter table entities set (autovacuum_enabled = off)").await;
    let accounts: Vec<Record> = (0..COMMANDS).map(|n| open(&format!("acct-{n}"), 1)).collect();
    bank.send(&accounts);
    let mut worker = bank.worker();
    bank.settled().await;
    let deposits: Vec<Record> = (0..COMMANDS).map(|n| deposit(&format!("acct-{n}"), 1)).collect();
    bank.send(&deposits);
    bank.settled().await;
    // a connection's counters are certain to be visible when it has ended
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    let table =
        format!("from pg_stat_user_tables where schemaname = '{}' and relname = 'entities'", bank.database.schema);
    let made = format!("select n_tup_ins {table}");
    wait_until("the counters", PATIENCE, async || bank.database.number(&made).await == Some(COMMANDS)).await;
    let read = format!("select seq_tup_read + coalesce(idx_tup_fetch, 0) {table}");
    let read = bank.database.number(&read).await.expect("a counter");
    assert!(read <= 4 * COMMANDS, "{read} rows of entities were read to make {COMMANDS} and change each once");
}

/// A subtransaction that writes consumes a transaction id: one for each of 30,000 commands a second
/// bring the wrap-around in a day. Nobody else uses this Postgres.
#[tokio::test]
async fn commands_in_sql_consume_a_transaction_id_per_batch_and_none_per_command() {
    const COMMANDS: i64 = 5_000;
    let _turn = support::alone();
    let postgres = Postgres::start(Options::default()).expect("start Postgres");
    let database = Database::fresh_in(&postgres.url(), "xids").await;
    let cluster = kafka::shared();
    let topic = topics::fresh(&cluster, "xids", 1).await;
    let options = WorkerOptions::new(&cluster, &database, &topic);
    let options = options.in_sql("account", &[support::example("bank").join("commands.toml")]);
    let bank = Bank::with(cluster, database, topic, options);
    let accounts: Vec<Record> = (0..COMMANDS / 2).map(|n| open(&format!("acct-{n}"), 1)).collect();
    bank.send(&accounts);
    let deposits: Vec<Record> = (0..COMMANDS / 2).map(|n| deposit(&format!("acct-{n}"), 1)).collect();
    bank.send(&deposits);
    let next_id = "select pg_current_xact_id()::text::bigint";
    let before = bank.database.number(next_id).await.expect("an id");
    let _worker = bank.worker();
    bank.settled().await;
    let consumed = bank.database.number(next_id).await.expect("an id") - before;
    assert!(consumed * 1_000 <= 10 * COMMANDS, "{consumed} transaction ids for {COMMANDS} commands");
    assert_eq!(bank.database.count("processed_commands where outcome = 'applied'").await, COMMANDS);
}
