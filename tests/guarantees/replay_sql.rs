//! `replay verify` and `replay try` of commands in SQL, and of handlers in Rust that write tables: what they leave in a
//! team's own tables follows from the log too, and a row that does not is found.

use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use solewriter::replay::progress::Progress;
use solewriter::replay::verify::{Options, verify};
use solewriter::{Context, Rejection, Worker};

use crate::parked_keys::{letters, note, things};
use crate::support;
use crate::support::bank::Bank;
use crate::support::declared::{declared, project};
use crate::support::kafka;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::tables_schema;
use crate::support::producer::Record;
use crate::support::scratch::Scratch;
use crate::support::topics;
use crate::support::worker::{Said, embedded};

/// Every command of whatever partition changes the one row of the pot, and replies what it holds then.
const TABLES: &str = "
    create table if not exists purses (id text primary key, balance bigint not null check (balance >= 0));
    create table if not exists entries (id uuid primary key, purse text not null, amount bigint not null);
    create table if not exists shifts (purse text not null, amount bigint not null);
    create table if not exists pot (id text primary key, total bigint not null);
    insert into pot values ('all', 0) on conflict do nothing;";

const COMMANDS: &str = r#"
[[command]]
type = "purse.put"
reply = { total = ":pot.total" }
emit = [{ type = "purse.filled", data = { total = ":pot.total" } }]
[[command.step]]
sql = """
insert into purses as p (id, balance) values (:entity_id, :amount)
on conflict (id) do update set balance = p.balance + excluded.balance"""
expect = 1
otherwise = "fail"
[[command.step]]
sql = "insert into entries (id, purse, amount) values (:command_id, :entity_id, :amount)"
expect = 1
otherwise = "fail"
[[command.step]]
sql = "insert into shifts (purse, amount) values (:entity_id, :amount)"
expect = 1
otherwise = "fail"
[[command.step]]
sql = "update pot set total = total + :amount where id = 'all' returning total"
expect = 1
otherwise = "fail"
into = "pot"

[[command]]
type = "purse.take"
constraints = { purses_balance_check = "insufficient-funds" }
reply = { total = ":pot.total" }
[[command.step]]
sql = "update purses set balance = balance - :amount where id = :entity_id"
expect = 1
otherwise = { reject = "no-purse" }
[[command.step]]
sql = "insert into entries (id, purse, amount) values (:command_id, :entity_id, - :amount::bigint)"
expect = 1
otherwise = "fail"
[[command.step]]
sql = "update pot set total = total - :amount where id = 'all' returning total"
expect = 1
otherwise = "fail"
into = "pot"
"#;

async fn purses(name: &str, commands: &str) -> (Scratch, Bank) {
    project(name, "purse", 2, TABLES, commands).await
}

fn put(key: &str, amount: i64) -> Record {
    Record::command("purse.put", key, &json!({ "amount": amount }))
}

fn take(key: &str, amount: i64) -> Record {
    Record::command("purse.take", key, &json!({ "amount": amount }))
}

/// Commands of both partitions in turns: applied, rejected, repeated, malformed, dead on their own account.
fn mixed(count: i64) -> Vec<Record> {
    let keys: Vec<String> = (0..2).flat_map(|partition| topics::keys_on(partition, 2, "purse", 4)).collect();
    let mut log: Vec<Record> = Vec::new();
    for n in 0..count {
        let key = &keys[n as usize * 3 % keys.len()];
        log.push(match n % 7 {
            1 | 4 => take(key, n % 40),
            5 => take(key, 1_000_000),
            6 if n > 7 => log[n as usize / 2].clone(),
            _ => put(key, n % 50),
        });
    }
    log.push(put(&keys[0], 1).value("no JSON"));
    log.push(put(&keys[7], i64::MAX));
    log
}

fn verified(bank: &Bank, more: &[&str]) -> (Said, Value) {
    let said = bank.options.run_verb(&[&["replay", "verify", "-o", "json"], more].concat());
    let report = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    (said, report)
}

fn equal(bank: &Bank, more: &[&str]) -> Value {
    let (said, report) = verified(bank, more);
    assert_eq!((said.code, &report["equal"]), (Some(0), &json!(true)), "{report:#}");
    report
}

/// The differences that it finds.
fn differences(bank: &Bank, more: &[&str]) -> Vec<Value> {
    let (said, report) = verified(bank, more);
    assert_eq!((said.code, &report["equal"]), (Some(3), &json!(false)), "{report:#}");
    let found = report["differences"].as_array().cloned().unwrap_or_default();
    assert_eq!(report["difference_count"].as_u64(), Some(found.len() as u64), "{report:#}");
    found
}

fn checkpoint(bank: &Bank, name: &str) {
    let said = bank.options.run_verb(&["checkpoint", "create", "--name", name, "--reason", "the test"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

async fn mixed_traffic_comes_out_equal(name: &str, commands: &str, count: i64) {
    let (_files, bank) = purses(name, commands).await;
    let _worker = bank.worker();
    let sending = bank.send_in_background(mixed(count));
    bank.settled_beyond(count / 2).await;
    let while_it_goes_on = equal(&bank, &[]);
    sending.join().expect("all are sent");
    bank.settled().await;
    let report = equal(&bank, &[]);
    for report in [&while_it_goes_on, &report] {
        assert_eq!(report["unproven"], json!([]), "{report:#}");
        let tables = report["tables"].as_array().expect("tables");
        assert_eq!(tables.len(), 4, "{report:#}");
    }
    let compared: u64 =
        report["partitions"].as_array().into_iter().flatten().filter_map(|it| it["compared"].as_u64()).sum();
    assert_eq!(compared as i64, bank.database.count("processed_commands").await);
    let rows = |table: &str| {
        let name = format!("{}.{table}", tables_schema(&bank.database.schema));
        report["tables"].as_array().into_iter().flatten().find(|it| it["table"] == *name).map(|it| it["rows"].clone())
    };
    assert_eq!(rows("pot"), Some(json!(1)));
    assert_eq!(rows("entries"), Some(json!(bank.database.count("entries").await)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_commands_of_two_partitions_over_shared_rows_come_out_equal() {
    let _turn = support::alone();
    mixed_traffic_comes_out_equal("verify-sql", COMMANDS, 3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_sql_commands_over_shared_rows_come_out_equal() {
    let _turn = support::alone();
    let commands = COMMANDS.replace("reply = {", "isolation = \"serializable\"\nreply = {");
    mixed_traffic_comes_out_equal("verify-serial", &commands, 300).await;
}

/// Killed in the middle of an order over two partitions, begun from a checkpoint: the same command ends the same order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_over_two_partitions_from_a_checkpoint_is_gone_on_with_after_kill_9() {
    let _turn = support::alone();
    let (_files, bank) = purses("verify-sql-on", COMMANDS).await;
    let worker = bank.worker();
    bank.send(&mixed(200));
    bank.settled().await;
    checkpoint(&bank, "before");
    bank.send(&mixed(1_500));
    bank.settled().await;
    drop(worker);

    let (mut killed, shadow) = bank.begun(&["--from", "before"]).await;
    killed.kill9();
    bank.left(&shadow).await;
    // what was run before the kill is compared, too
    bank.database
        .execute("update entries set amount = amount + 1 where id = (select min(id::text)::uuid from entries)")
        .await;
    let (said, report) = verified(&bank, &["--from", "before"]);
    assert_eq!((said.code, bank.shadows().await), (Some(0), 0), "as of its cut, which is older: {report:#}");
    assert!(said.stderr.contains("goes on where it was stopped") && said.stderr.contains(&shadow), "{said:?}");
    let records: u64 =
        report["partitions"].as_array().into_iter().flatten().filter_map(|it| it["records"].as_u64()).sum();
    assert_eq!(records, 1_502, "those of the log behind the checkpoint: {report:#}");
    let found = differences(&bank, &["--from", "before"]);
    assert_eq!(found.len(), 1, "as of now: {found:#?}");
}

/// Batches note the order in which they were committed; in another one their replies would differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_two_partitions_are_run_again_in_the_order_of_their_commits() {
    let _turn = support::alone();
    let (_files, bank) = purses("verify-order", COMMANDS).await;
    let worker = bank.worker();
    let keys: Vec<String> = (0..2).map(|partition| topics::keys_on(partition, 2, "purse", 1).remove(0)).collect();
    for (n, amount) in [(0, 1), (1, 20), (0, 300), (1, 4_000)] {
        bank.send(&[put(&keys[n], amount)]);
        bank.settled().await;
    }
    drop(worker);
    equal(&bank, &[]);
    bank.database.execute("update batches set settled_lsn = '0/1' where partition = 1").await;
    let (said, report) = verified(&bank, &[]);
    assert_eq!(said.code, Some(3), "{report:#}");
    let whats: Vec<_> = report["differences"].as_array().into_iter().flatten().map(|it| it["what"].clone()).collect();
    assert_eq!(whats, ["outcome", "outcome"], "the rows come out alike: {report:#}");
    let doubts = report["unproven"].as_array().cloned().unwrap_or_default();
    assert!(
        doubts.iter().any(|doubt| doubt.as_str().is_some_and(|it| it.contains("order of their commits"))),
        "{report:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_a_team_changed_lost_or_doubled_by_hand_is_found_and_named() {
    let _turn = support::alone();
    let (_files, bank) = purses("verify-sql-hand", COMMANDS).await;
    let worker = bank.worker();
    let (first, second) = (put("a", 5), put("a", 7));
    bank.send(&[first.clone(), second.clone(), put("b", 9), take("a", 2)]);
    bank.settled().await;
    drop(worker);
    equal(&bank, &[]);
    let tables = tables_schema(&bank.database.schema);
    let entry = second.command_id();
    let changes = [
        ("purses", "update purses set balance = 1000 where id = 'a'".to_owned(), json!({ "id": "a" })),
        ("purses", "delete from purses where id = 'b'".to_owned(), json!({ "id": "b" })),
        ("purses", "insert into purses values ('c', 1)".to_owned(), json!({ "id": "c" })),
        // an effect that was done twice
        ("pot", "update pot set total = total + 7 where id = 'all'".to_owned(), json!({ "id": "all" })),
        ("entries", format!("delete from entries where id = '{entry}'"), json!({ "id": entry.to_string() })),
        ("shifts", "insert into shifts values ('b', 9)".to_owned(), Value::Null),
    ];
    for (table, change, key) in changes {
        bank.database.execute(&format!("create table kept as select * from {table}")).await;
        bank.database.execute(&change).await;
        let found = differences(&bank, &[]);
        let [difference] = found.as_slice() else { panic!("{change}: {found:#?}") };
        assert_eq!(
            (&difference["what"], &difference["table"], &difference["key"]),
            (&json!("table"), &json!(format!("{tables}.{table}")), &key),
            "{change}: {difference:#}"
        );
        assert_ne!(difference["live"], difference["rebuilt"], "{change}");
        if table == "entries" {
            assert_eq!(difference["command_id"], json!(entry), "{difference:#}");
            assert_eq!((&difference["live"], &difference["rebuilt"]["amount"]), (&Value::Null, &json!(7)));
        }
        bank.database
            .execute(&format!("delete from {table}; insert into {table} select * from kept; drop table kept"))
            .await;
    }
    bank.database.execute("update pot set total = total + 7").await;
    let said = bank.options.run_verb(&["replay", "verify"]);
    println!("{}", said.stdout);
    assert!(said.stdout.contains(&format!("rows of {tables}.purses compared")), "{said:?}");
    assert!(said.stdout.contains(&format!("row  {tables}.pot {{\"id\":\"all\"}}")), "{said:?}");
    bank.database.execute("update pot set total = total - 7").await;
    // an outcome of the table is set against what the statements say
    let reply = r#"{"total":13}"#;
    let change = format!("update processed_timed set reply = '{reply}' where command_id = '{entry}'");
    bank.database.execute(&change).await;
    let found = differences(&bank, &[]);
    assert_eq!((&found[0]["what"], &found[0]["command_id"]), (&json!("outcome"), &json!(entry)), "{found:#?}");
}

/// A key that is parked at the checkpoint, a row that no command has made, and a log that has lost its beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_has_lost_its_beginning_is_verified_from_a_checkpoint() {
    let _turn = support::alone();
    let (_files, bank) = things("verify-from", 2).await;
    let _worker = bank.worker();
    let keys: Vec<String> = (0..2).flat_map(|partition| topics::keys_on(partition, 2, "thing", 2)).collect();
    bank.send(&keys.iter().map(|key| note(key, "good")).collect::<Vec<_>>());
    bank.send(&[note(&keys[0], "bad"), note(&keys[0], "behind"), note(&keys[2], "good")]);
    bank.settled().await;
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (1, 1));
    // a row from before there was a log, and the cure
    bank.database
        .execute(
            "insert into notes values ('00000000-0000-4000-8000-000000000001', 'seed', 1, 'old'); delete from poison",
        )
        .await;
    let found = differences(&bank, &[]);
    assert_eq!((found.len(), &found[0]["what"]), (1, &json!("table")), "{found:#?}");
    checkpoint(&bank, "cut");
    let report = equal(&bank, &["--from", "cut"]);
    assert_eq!(report["tables"][0]["rows"], json!(6), "{report:#}");

    let redrive = ["dead-letters", "redrive", "--key", &keys[0], "--reason", "cured", "--execute"];
    let said = bank.options.run_verb(&redrive);
    assert_eq!(said.code, Some(0), "{said:?}");
    wait_until("the redrive", PATIENCE, async || bank.database.count("parked_keys").await == 0).await;
    let last = note(&keys[0], "after");
    bank.send(&[note(&keys[3], "good"), last.clone(), note(&keys[1], "good")]);
    bank.settled().await;
    for partition in 0..2 {
        topics::delete_records(&bank.cluster, &bank.topic, partition, 1).await;
    }
    let said = bank.options.run_verb(&["replay", "verify"]);
    assert!(said.code == Some(1) && said.stderr.contains("--from NAME"), "{said:?}");
    let report = equal(&bank, &["--from", "cut"]);
    assert_eq!(report["unproven"], json!([]), "{report:#}");
    let commands: u64 =
        report["partitions"].as_array().into_iter().flatten().filter_map(|it| it["commands"].as_u64()).sum();
    assert_eq!(commands, 5, "two letters and three records: {report:#}");

    let id = last.command_id();
    bank.database.execute(&format!("update notes set word = 'forged' where id = '{id}'")).await;
    let found = differences(&bank, &["--from", "cut"]);
    assert_eq!((found.len(), &found[0]["command_id"]), (1, &json!(id)), "{found:#?}");
    assert_eq!((&found[0]["live"]["word"], &found[0]["rebuilt"]["word"]), (&json!("forged"), &json!("after")));
    // also one that no command has touched since
    bank.database
        .execute(&format!(
            "update notes set word = 'after' where id = '{id}'; update notes set word = 'new' where thing = 'seed'"
        ))
        .await;
    let found = differences(&bank, &["--from", "cut"]);
    assert_eq!((found.len(), &found[0]["live"]["word"]), (1, &json!("new")), "{found:#?}");

    // a topic of that name that was made anew since
    bank.database.execute("update partitions set topic_id = 'another' where partition = 0").await;
    let said = bank.options.run_verb(&["replay", "verify", "--from", "cut"]);
    assert!(said.code == Some(1) && said.stderr.contains("was made anew"), "{said:?}");
    let said = bank.options.run_verb(&["replay", "verify", "--from", "nowhere"]);
    assert!(said.code == Some(2) && said.stderr.contains("there is no checkpoint nowhere"), "{said:?}");
}

/// From a checkpoint, entities of handlers in Rust are verified as well; what lies behind a checkpoint alone is compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entities_are_verified_from_a_checkpoint_too() {
    use crate::support::commands::{deposit, open};

    let _turn = support::alone();
    let bank = Bank::open("verify-from-rust", 2).await;
    let worker = bank.worker();
    let first = deposit("a", 2);
    bank.send(&[open("a", 1), open("b", 1), first.clone()]);
    bank.settled().await;
    checkpoint(&bank, "cut");
    bank.send(&[first, deposit("a", 3), open("c", 5)]);
    bank.settled().await;
    drop(worker);
    let report = equal(&bank, &["--from", "cut"]);
    let commands: u64 =
        report["partitions"].as_array().into_iter().flatten().filter_map(|it| it["commands"].as_u64()).sum();
    assert_eq!((commands, &report["entities"]), (2, &json!(3)), "the repeat is known: {report:#}");
    bank.database.execute("update entities set state = '{\"balance\": 99}' where entity_id = 'b'").await;
    let found = differences(&bank, &["--from", "cut"]);
    assert_eq!(
        (found.len(), &found[0]["entity_id"], &found[0]["live"]["state"]["balance"]),
        (1, &json!("b"), &json!(99))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn try_tells_whom_a_changed_command_in_sql_would_have_refused() {
    let _turn = support::alone();
    let (files, bank) = purses("try-sql", COMMANDS).await;
    let worker = bank.worker();
    bank.send(&[put("a", 100), take("a", 30), take("a", 60), take("a", 50)]);
    bank.settled().await;
    drop(worker);
    let said = bank.options.run_verb(&["replay", "try"]);
    assert!(said.code == Some(0) && said.stdout.contains("all end as they did"), "{said:?}");

    let rule = "update purses set balance = balance - :amount where id = :entity_id";
    let file = files.path().join("commands.toml");
    let changed =
        fs::read_to_string(&file).expect("the commands").replace(rule, &format!("{rule} and :amount::bigint <= 50"));
    fs::write(&file, changed).expect("change the commands");
    let said = bank.options.run_verb(&["replay", "try", "-o", "json"]);
    let report: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!(said.code, Some(3), "{report:#}");
    let kinds: Vec<_> = report["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| (it["was"].clone(), it["becomes"].clone(), it["examples"][0]["offset"].as_i64()))
        .collect();
    let expected = [
        (json!("applied"), json!("no-purse"), Some(2)),
        // what an earlier refusal has left
        (json!("insufficient-funds"), json!("applied"), Some(3)),
    ];
    assert_eq!(kinds, expected, "{report:#}");
}

#[derive(Clone, Default, Deserialize, Serialize)]
struct Account {
    balance: i64,
}

#[derive(Deserialize)]
struct Deposit {
    amount: i64,
}

#[derive(Serialize)]
struct Entry {
    id: uuid::Uuid,
    amount: i64,
}

impl Account {
    fn deposit(&mut self, deposit: Deposit, cx: &mut Context<'_>) -> Result<i64, Rejection> {
        self.balance += deposit.amount;
        let id = cx.new_uuid();
        cx.write("ledger", &Entry { id, amount: deposit.amount });
        Ok(self.balance)
    }
}

const LEDGER: &str = "create table if not exists ledger (
    id uuid primary key, account text not null, amount bigint not null check (amount <= 1000));";

const LEDGER_WRITE: &str = r#"
[[write]]
name = "ledger"
sql = "insert into ledger (id, account, amount) values (:id, :entity_id, :amount)"
expect = 1
constraints = { ledger_amount_check = "too-much-at-once" }
"#;

/// What only the database could tell, that a write breaks a rule, it tells again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_in_rust_with_writes_come_out_equal_and_a_lost_write_is_found() {
    let _turn = support::alone();
    let (_files, options, database) = declared("verify-writes", "account", 1, LEDGER, LEDGER_WRITE).await;
    let topic = options.topics[0].0.clone();
    let bank = Bank::with(kafka::shared(), database, topic, options);
    let accounts = |worker: Worker| worker.entity::<Account>("account", |e| e.on("account.deposit", Account::deposit));
    let deposit = |key: &str, amount: i64| Record::command("account.deposit", key, &json!({ "amount": amount }));
    let worker = embedded(&bank.options, accounts);
    let mut log: Vec<Record> = (1..=40).map(|n| deposit(&format!("acct-{}", n % 3), n)).collect();
    log.insert(5, deposit("acct-1", 2_000));
    log.insert(9, deposit("acct-2", 3_000));
    bank.send(&log);
    bank.settled().await;
    drop(worker);
    assert_eq!(bank.database.count("processed_commands where outcome = 'rejected'").await, 2);
    let (config, worker) = (bank.options.config(), accounts(Worker::new()));
    let report = verify(&worker, &config, &Options::default(), &Progress::default()).await.expect("a verification");
    report.assert_equal();
    assert_eq!((report.tables[0].rows, report.unproven.len()), (40, 0), "{report:?}");

    bank.database.execute("delete from ledger where amount = 17").await;
    let report = verify(&worker, &config, &Options::default(), &Progress::default()).await.expect("a verification");
    assert_eq!((report.difference_count, report.tables[0].differing), (1, 1), "{report:?}");
    assert_eq!(report.differences[0].rebuilt["amount"], json!(17));
}

const DATED: &str = "create table if not exists dated (
    id uuid primary key, thing text not null, at timestamptz not null default now());";

const DATE: &str = r#"
[[command]]
type = "thing.date"
nondeterministic = true
[[command.step]]
sql = "insert into dated (id, thing) values (:command_id, :entity_id)"
expect = 1
otherwise = "fail"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_the_clock_fills_is_no_false_alarm_and_is_named() {
    let _turn = support::alone();
    let (files, bank) = project("verify-dated", "thing", 1, DATED, DATE).await;
    let worker = bank.worker();
    bank.send(&[Record::command("thing.date", "a", &json!({})), Record::command("thing.date", "b", &json!({}))]);
    bank.settled().await;
    drop(worker);
    let report = equal(&bank, &[]);
    let unproven = report["unproven"].as_array().cloned().unwrap_or_default();
    assert!(
        unproven.len() == 1 && unproven[0].as_str().is_some_and(|line| line.contains("column at is not compared")),
        "{report:#}"
    );
    bank.database.execute("update dated set thing = 'c' where thing = 'b'").await;
    let found = differences(&bank, &[]);
    assert_eq!((found.len(), &found[0]["live"]["thing"], &found[0]["live"]["at"]), (1, &json!("c"), &Value::Null));

    // nobody says how the tables are made
    let file = files.path().join("commands.toml");
    let without = fs::read_to_string(&file).expect("the commands").replace("tables = \"tables.sql\"", "");
    fs::write(&file, without).expect("change the commands");
    let said = bank.options.run_verb(&["replay", "verify"]);
    assert!(said.code == Some(2) && said.stderr.contains("no script makes"), "{said:?}");
    let shadows = bank.database.count("pg_database where datname like 'solewriter_shadow_%'").await;
    assert_eq!(shadows, 0);
}
