//! Commands in SQL while other programs lock, change and deadlock on the same rows, and while
//! somebody changes what `migrate` has made.

use std::time::Duration;

use serde_json::json;
use sqlx::{Acquire as _, AssertSqlSafe, PgConnection};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{deposit, endings, open, withdraw};
use crate::support::consumer;
use crate::support::declared::project;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::Database;
use crate::support::producer::Record;
use crate::support::worker::Worker;

impl Bank {
    fn endings_of(&self, record: &Record) -> Vec<String> {
        let outcomes = consumer::read_all(&self.cluster, &format!("{}.outcomes", self.topic));
        endings(&outcomes, record.command_id())
    }
}

/// Runs one statement on a session of the test's own.
async fn run(session: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(session).await.map(|_| ())
}

/// Somebody waits for a lock that a session of the test holds.
async fn somebody_waits_for(database: &Database, session: &mut PgConnection) {
    let (holder,): (i32,) = sqlx::query_as("select pg_backend_pid()").fetch_one(session).await.expect("a pid");
    let waiting = format!("pg_stat_activity where {holder} = any (pg_blocking_pids(pid))");
    wait_until("somebody to wait for the lock", PATIENCE, async || database.count(&waiting).await > 0).await;
}

fn accounts(keys: &[&str], initial: i64) -> Vec<Record> {
    keys.iter().map(|key| open(key, initial)).collect()
}

/// The lock is held for longer than `lock_timeout`, and the command is applied once it is gone.
#[tokio::test]
async fn a_command_that_waits_on_a_foreign_lock_is_run_again_until_the_lock_is_gone() {
    let _turn = support::heavy();
    let mut bank = Bank::in_sql("bank", "commands.toml", "account", 1).await;
    bank.options = bank.options.setting("[database]\nlock_timeout = \"200ms\"");
    let worker = bank.worker();
    bank.send(&accounts(&["acct-1", "acct-2"], 100));
    bank.settled().await;
    let mut foreign = bank.database.pool.acquire().await.expect("a session");
    let mut lock = foreign.begin().await.expect("a transaction");
    run(&mut lock, "select from account where id = 'acct-1' for update").await.expect("the lock");
    let taken = withdraw("acct-1", 30);
    bank.send(&[withdraw("acct-2", 1), taken.clone(), deposit("acct-2", 5)]);
    wait_until("a batch to be sent again", PATIENCE, async || worker.output().contains("SQLSTATE 55P03")).await;
    assert_eq!(bank.database.number("select balance from account where id = 'acct-1'").await, Some(100));
    lock.rollback().await.expect("let go");
    bank.settled().await;
    assert_eq!(bank.endings_of(&taken), ["applied"]);
    assert_eq!(bank.database.number("select sum(balance)::bigint from account").await, Some(174));
    assert_eq!(bank.database.count("dead_letters").await, 0);
}

/// Past `timed_out_retry_max` the command has failed on its own account: the others go on.
#[tokio::test]
async fn a_command_that_goes_on_timing_out_is_dead_and_the_others_go_on() {
    let _turn = support::heavy();
    let mut bank = Bank::in_sql("bank", "commands.toml", "account", 1).await;
    let limits = "[database]\nlock_timeout = \"100ms\"\n[worker]\ntimed_out_retry_max = \"1s\"";
    bank.options = bank.options.setting(limits);
    let _worker = bank.worker();
    bank.send(&accounts(&["acct-1", "acct-2"], 100));
    bank.settled().await;
    let mut foreign = bank.database.pool.acquire().await.expect("a session");
    let mut lock = foreign.begin().await.expect("a transaction");
    run(&mut lock, "select from account where id = 'acct-1' for update").await.expect("the lock");
    let (taken, other) = (withdraw("acct-1", 30), deposit("acct-2", 5));
    bank.send(&[taken.clone(), other.clone()]);
    bank.settled().await;
    assert_eq!(
        (bank.endings_of(&taken), bank.endings_of(&other)),
        (vec!["handler-failed".into()], vec!["applied".into()])
    );
    let letter = bank.database.rows("select code, detail from dead_letters").await.remove(0);
    assert!(letter["detail"].as_str().is_some_and(|detail| detail.contains("timed out")), "{letter}");
    lock.rollback().await.expect("let go");
}

/// With `on_failure = "halt-partition"` nothing is given up: an operator decides.
#[tokio::test]
async fn a_command_that_goes_on_timing_out_halts_the_partition_if_that_is_the_policy() {
    let _turn = support::heavy();
    let mut bank = Bank::in_sql("bank", "commands.toml", "account", 1).await;
    let topic = bank.topic.clone();
    let policy = format!("[[topics]]\nname = \"{topic}\"\nentity = \"account\"\non_failure = \"halt-partition\"");
    let limits = "[database]\nlock_timeout = \"100ms\"\n[worker]\ntimed_out_retry_max = \"1s\"";
    bank.options = bank.options.setting(&policy).setting(limits);
    let _worker = bank.worker();
    bank.send(&[open("acct-1", 100)]);
    bank.settled().await;
    let mut foreign = bank.database.pool.acquire().await.expect("a session");
    let mut lock = foreign.begin().await.expect("a transaction");
    run(&mut lock, "select from account where id = 'acct-1' for update").await.expect("the lock");
    let taken = withdraw("acct-1", 30);
    bank.send(std::slice::from_ref(&taken));
    let halted = "partitions where halted_code = 'handler-failed' and halted_detail like '%timed out%'";
    wait_until("the halt", PATIENCE, async || bank.database.count(halted).await == 1).await;
    lock.rollback().await.expect("let go");
    let resumed = bank.options.run_verb(&["resume", &topic, "--reason", "the lock is gone"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    bank.settled().await;
    assert_eq!(bank.endings_of(&taken), ["applied"]);
}

/// Another program adds to the same balances all the while: nobody's change is lost.
#[tokio::test]
async fn a_foreign_writer_of_the_same_rows_loses_nothing_and_nothing_of_ours() {
    let _turn = support::heavy();
    let bank = Bank::in_sql("bank", "commands.toml", "account", 2).await;
    let _worker = bank.worker();
    let keys: Vec<String> = (0..10).map(|n| format!("acct-{n}")).collect();
    bank.send(&accounts(&keys.iter().map(String::as_str).collect::<Vec<_>>(), 0));
    bank.settled().await;
    let commands: Vec<Record> = (0..2_000).map(|n| deposit(&keys[n % 10], 3)).collect();
    bank.send(&commands);
    let mut foreign = 0;
    loop {
        bank.database.execute("update account set balance = balance + 1 where id = 'acct-3'").await;
        foreign += 1;
        if bank.settled_count().await >= 2_010 {
            break;
        }
    }
    bank.settled().await;
    let sum = bank.database.number("select sum(balance)::bigint from account").await;
    assert_eq!(sum, Some(2_000 * 3 + foreign));
    assert_eq!(bank.database.count("processed_commands where outcome = 'applied'").await, 2_010);
}

/// A foreign session and a batch hold what the other one wants. Postgres ends one of them; if it is
/// the batch, it is run again.
#[tokio::test]
async fn a_deadlock_with_a_foreign_session_is_survived_by_every_command() {
    let _turn = support::heavy();
    let mut bank = Bank::in_sql("bank", "commands.toml", "account", 1).await;
    // Postgres looks for deadlocks after one second
    bank.options = bank.options.setting("[database]\nlock_timeout = \"5s\"");
    let worker = bank.worker();
    bank.send(&accounts(&["acct-1", "acct-2"], 100));
    bank.settled().await;
    drop(worker);
    let mut foreign = bank.database.pool.acquire().await.expect("a session");
    let mut lock = foreign.begin().await.expect("a transaction");
    run(&mut lock, "update account set balance = balance + 1000 where id = 'acct-2'").await.expect("the lock");
    let both = [withdraw("acct-1", 1), withdraw("acct-2", 2)];
    bank.send(&both);
    let _worker = bank.worker();
    // the batch holds acct-1 and waits for acct-2
    somebody_waits_for(&bank.database, &mut lock).await;
    let foreign_won = run(&mut lock, "update account set balance = balance + 1000 where id = 'acct-1'").await;
    let foreign_added = match foreign_won {
        Ok(()) => {
            lock.commit().await.expect("commit");
            2_000
        }
        Err(_) => {
            lock.rollback().await.expect("rollback");
            0
        }
    };
    bank.settled().await;
    for command in &both {
        assert_eq!(bank.endings_of(command), ["applied"]);
    }
    let sum = bank.database.number("select sum(balance)::bigint from account").await;
    assert_eq!(sum, Some(200 - 3 + foreign_added));
}

const SHARED_TABLES: &str = "create table if not exists shared (id int primary key, n bigint not null);
    insert into shared select n, 0 from generate_series(0, 49) as n on conflict do nothing;";
const SHARED_COMMANDS: &str = r#"
[[command]]
type = "thing.bump"
[[command.step]]
sql = "update shared set n = n + 1 where id = :row"
expect = 1
otherwise = { reject = "no-such-row" }
"#;

/// Each partition's commands go through the rows in an order of its own, so that whole batches
/// deadlock. They shrink until they do not.
#[tokio::test]
async fn eight_partitions_that_write_fifty_shared_rows_in_opposite_orders_shrink_their_batches_and_finish() {
    let _turn = support::heavy();
    let (_files, mut bank) = project("opposite", "thing", 8, SHARED_TABLES, SHARED_COMMANDS).await;
    bank.options = bank.options.setting("[worker]\nbatch_commands_max = 20\n[database]\nlock_timeout = \"5s\"");
    let mut commands = Vec::new();
    for n in 0..50_i64 {
        for key in 0..40_i64 {
            let row = if key % 2 == 0 { n } else { 49 - n };
            commands.push(Record::command("thing.bump", &format!("thing-{key}"), &json!({ "row": row })));
        }
    }
    bank.send(&commands);
    let worker = bank.worker();
    let done = "processed_commands where outcome = 'applied'";
    let finished = Duration::from_secs(120);
    wait_until("all to be applied", finished, async || bank.database.count(done).await == 2_000).await;
    bank.settled().await;
    assert_eq!(bank.database.count("shared where n = 40").await, 50);
    assert_eq!(bank.database.count("dead_letters").await, 0);
    drop(worker);
}

/// What `migrate` has made is changed by hand under a running worker: it runs it no further.
#[tokio::test]
async fn a_function_changed_under_a_running_worker_halts_its_partitions_until_migrate_has_made_it_anew() {
    let _turn = support::heavy();
    let bank = Bank::in_sql("bank", "commands.toml", "account", 2).await;
    let _worker = bank.worker();
    bank.send(&accounts(&["acct-1", "acct-2", "acct-3"], 100));
    bank.settled().await;
    let name = "select proname as name from pg_proc where proname like 'command_account_withdraw%'
                   and pronamespace = current_schema()::regnamespace";
    let name = bank.database.rows(name).await.remove(0)["name"].as_str().expect("a name").to_owned();
    bank.database
        .execute(&format!(
            "create or replace function {name}(sw_entity_id text, sw_command_id uuid, sw_command_time timestamptz,
                 sw_args jsonb, out sw_code text, out sw_detail text, out sw_reply text, out sw_events text)
             language plpgsql as 'begin sw_reply := null; end'"
        ))
        .await;
    let halted = format!(
        "partitions where halted_code = 'handler-failed' and halted_detail like '%{name}%type: solewriter migrate%'"
    );
    wait_until("both partitions to halt", PATIENCE, async || bank.database.count(&halted).await == 2).await;
    let taken = withdraw("acct-1", 30);
    bank.send(std::slice::from_ref(&taken));
    let made = bank.options.run_verb(&["migrate"]);
    assert!(made.stdout.contains(&format!("made function {name}")), "{made:?}");
    let resumed = bank.options.run_verb(&["resume", &bank.topic, "--reason", "made anew"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    bank.settled().await;
    assert_eq!(bank.endings_of(&taken), ["applied"]);
    assert_eq!(bank.database.number("select balance from account where id = 'acct-1'").await, Some(70));
}

/// Before `migrate`, and after a change of the files.
#[tokio::test]
async fn run_refuses_functions_that_migrate_has_not_made() {
    let (files, bank) = project("unmade", "thing", 1, SHARED_TABLES, SHARED_COMMANDS).await;
    let file = files.path().join("commands.toml");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replace("n + 1", "n + 2")).expect("write the file");
    let said = bank.options.run_verb(&["run"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("type: solewriter migrate"), "{said:?}");
    let check = bank.options.run_verb(&["check", "-o", "json"]);
    assert!(check.stdout.contains("missing, or not what the files say"), "{check:?}");
    let made = bank.options.run_verb(&["migrate"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let mut worker = Worker::start(&bank.options);
    worker.wait_ready();
}
