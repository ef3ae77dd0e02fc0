//! What a batch reads depends on the batch, not on how much is stored already.

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{deposit, open};
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::Record;

const BATCHES: usize = 40;
const BATCH_COMMANDS: usize = 200;
const COMMANDS: i64 = (BATCHES * BATCH_COMMANDS) as i64;

/// A plan that was made while the table was small is kept until the next ANALYZE: one that reads
/// the table once per batch would read it 40 times.
#[tokio::test]
async fn a_plan_made_on_empty_tables_reads_no_table_whole() {
    let _turn = support::heavy();
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
