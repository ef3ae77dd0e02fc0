//! Own tables from handlers in Rust: a declared write runs inside the commit of its command, or its
//! command is not applied.

use serde::{Deserialize, Serialize};
use serde_json::json;
use solewriter::{Context, Rejection};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::endings;
use crate::support::consumer;
use crate::support::declared::declared;
use crate::support::kafka;
use crate::support::producer::Record;
use crate::support::worker::embedded;

#[derive(Clone, Default, Deserialize, Serialize)]
struct Account {
    balance: i64,
}

#[derive(Deserialize)]
struct Deposit {
    amount: i64,
    /// What the handler is to do wrong.
    #[serde(default)]
    mistake: String,
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
        match deposit.mistake.as_str() {
            "no such write" => cx.write("legder", &Entry { id, amount: deposit.amount }),
            "no such field" => cx.write("ledger", &json!({ "id": id })),
            "no row" => cx.write("count", &json!({ "id": "nobody" })),
            _ => cx.write("ledger", &Entry { id, amount: deposit.amount }),
        }
        cx.write("count", &json!({ "id": "all" }));
        Ok(self.balance)
    }
}

const TABLES: &str = "
    create table if not exists ledger (
        id uuid primary key, account text not null, amount bigint not null check (amount <= 1000),
        at timestamptz not null);
    create table if not exists counters (id text primary key, n bigint not null);
    insert into counters values ('all', 0) on conflict do nothing;";

const WRITES: &str = r#"
[[write]]
name = "ledger"
sql = "insert into ledger (id, account, amount, at) values (:id, :entity_id, :amount, :command_time)"
expect = 1
constraints = { ledger_amount_check = "too-much-at-once" }

[[write]]
name = "count"
sql = "update counters set n = n + 1 where id = :id"
expect = 1
"#;

fn deposit(key: &str, amount: i64, mistake: &str) -> Record {
    Record::command("account.deposit", key, &json!({ "amount": amount, "mistake": mistake }))
}

/// Those that fail are undone with all that they wrote, their neighbours stand, wherever the batches end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_in_the_commit_of_its_command_or_the_command_has_no_effect() {
    let _turn = support::heavy();
    let (_files, options, database) = declared("writes", "account", 1, TABLES, WRITES).await;
    let topic = options.topics[0].0.clone();
    let bank = Bank::with(kafka::shared(), database, topic, options.on_failure("skip"));
    let good: Vec<Record> = (1..=20).map(|n| deposit(&format!("acct-{}", n % 3), n, "")).collect();
    let too_much = deposit("acct-1", 2_000, "");
    let mistakes = ["no such write", "no such field", "no row"].map(|mistake| deposit("acct-1", 7, mistake));
    let mut log = good.clone();
    log.insert(5, too_much.clone());
    log.extend(mistakes.iter().cloned());
    log.push(good[3].clone());
    log.push(deposit("acct-1", 100, ""));
    bank.send(&log);
    let _worker = embedded(&bank.options, |worker| {
        worker.entity::<Account>("account", |e| e.on("account.deposit", Account::deposit))
    });
    bank.settled().await;
    let outcomes = consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    assert_eq!(endings(&outcomes, too_much.command_id()), ["too-much-at-once"]);
    for mistake in &mistakes {
        assert_eq!(endings(&outcomes, mistake.command_id()), ["handler-failed"]);
    }
    let why = bank.database.rows("select detail from dead_letters order by \"offset\"").await;
    for (letter, expected) in why.iter().zip(["no file of `commands` declares it", "field amount: missing", "0 rows"]) {
        assert!(letter["detail"].as_str().is_some_and(|detail| detail.contains(expected)), "{letter}");
    }
    let applied = (1..=20).sum::<i64>() + 100;
    assert_eq!(bank.database.number("select sum(amount)::bigint from ledger").await, Some(applied));
    assert_eq!(bank.database.number("select n from counters").await, Some(21));
    let states = "select sum((state->>'balance')::bigint)::bigint from entities";
    assert_eq!(bank.database.number(states).await, Some(applied));
}
