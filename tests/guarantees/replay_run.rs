//! `replay run` says, before a restored database goes on, whether what it has forgotten ends as it was published; and
//! lifts the halt only if it does. It changes nothing that is alive, and publishes nothing.

mod events;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use solewriter::local::postgres::{Options, Postgres};
use solewriter::postgres::Store;
use solewriter::replay::progress::Progress;
use solewriter::replay::run::{self, Found, dry_run};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::parked_keys;
use crate::replay_verify::{note, notebooks};
use crate::support;
use crate::support::backup::Dump;
use crate::support::bank::{Bank, Traffic};
use crate::support::commands::{assert_identical, deposit, endings, now_ms, of_command, open, v7_at, withdraw};
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::Database;
use crate::support::producer::{Ending, Record, in_transaction};
use crate::support::scratch::Scratch;
use crate::support::worker::{Said, Worker, WorkerOptions};
use crate::support::{consumer, kafka, topics};

fn private_postgres() -> Postgres {
    Postgres::start(Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

async fn bank_in(postgres: &Postgres, name: &str, partitions: i32) -> Bank {
    let database = Database::fresh_in(&postgres.url(), &name.replace('-', "_")).await;
    Bank::open_on(kafka::shared(), database, name, partitions).await
}

/// A worker in this process whose end can be waited for.
struct Embedded {
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Embedded {
    fn start(bank: &Bank, is_cured: &Arc<AtomicBool>) -> Self {
        Self::of(notebooks(solewriter::Worker::new(), is_cured), bank)
    }

    fn of(worker: solewriter::Worker, bank: &Bank) -> Self {
        let shutdown = CancellationToken::new();
        let running = worker.run(bank.options.config(), shutdown.clone());
        Self { shutdown, running: tokio::spawn(async move { running.await.expect("run the worker") }) }
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.running.await.expect("the worker ends");
    }
}

impl Bank {
    async fn behind(&self, partition: i32) {
        let halted = format!("partitions where partition = {partition} and halted_code = 'database-behind'");
        wait_until("the halt", PATIENCE, async || self.database.count(&halted).await == 1).await;
    }

    /// What the verb says: the exit code, and the report.
    fn run_again(&self, more: &[&str]) -> (Said, Value) {
        let said = self.options.run_verb(&[&["replay", "run", "-o", "json"], more].concat());
        let report = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        (said, report)
    }

    fn all_outcomes(&self) -> Vec<consumer::Read> {
        consumer::read_all(&self.cluster, &format!("{}.outcomes", self.topic))
    }
}

/// What is settled before the dump and behind it; then the dump is restored.
async fn restored(name: &str, before: &[Record], forgotten: &[Record]) -> (Postgres, Bank) {
    let postgres = private_postgres();
    let bank = bank_in(&postgres, name, 1).await;
    bank.send(before);
    let mut worker = bank.worker();
    bank.settled().await;
    let dump = Dump::take(&postgres, &bank.database);
    bank.send(forgotten);
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
    dump.restore(&bank.database).await;
    (postgres, bank)
}

/// A worker finds that the database went back.
async fn halted(bank: &Bank) -> Worker {
    let worker = bank.worker();
    bank.behind(0).await;
    worker
}

/// Applied, rejected, repeated, dead, parked and waiting ones, transactions, and repeats of what was not forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_log_ends_as_it_was_published_and_other_handlers_are_found() {
    let _turn = support::alone();
    let postgres = private_postgres();
    let mut bank = bank_in(&postgres, "run-mixed", 1).await;
    bank.options.topics[0].1 = "notebook".to_owned();
    let is_cured = Arc::new(AtomicBool::new(false));
    let worker = Embedded::start(&bank, &is_cured);
    let kept = note("a", "kept");
    bank.send(&[kept.clone(), note("held", "bad"), note("held", "waits")]);
    bank.settled().await;
    let dump = Dump::take(&postgres, &bank.database);
    let (first, bad) = (note("a", "good"), note("b", "bad"));
    bank.send(&[
        first.clone(),
        note("a", "no"),
        first.clone(),
        kept.clone(),
        note("a", "x").value("no JSON"),
        bad.clone(),
        note("b", "behind"),
        note("held", "still"),
        note("a", "x").without_header("ce_id"),
    ]);
    in_transaction(&bank.cluster, &bank.topic, &[note("c", "kept")], Ending::Commit);
    in_transaction(&bank.cluster, &bank.topic, &[note("c", "dropped")], Ending::Abort);
    bank.send(&[note("c", "more"), first.clone()]);
    bank.settled().await;
    worker.end().await;
    dump.restore(&bank.database).await;
    let worker = Embedded::start(&bank, &is_cured);
    bank.behind(0).await;

    let (digest, ends) = (bank.digest().await, bank.ends());
    let found = dry_run_of(&bank, &is_cured).await;
    assert!(found.report.alike, "{}", found.report.text());
    let [partition] = found.report.partitions.as_slice() else { panic!("{:?}", found.report) };
    // good, no, no JSON, bad, behind, still, c's two: as published; good twice and kept once: repeats; one without an id
    let counted = (partition.records, partition.alike, partition.repeats, partition.silent, partition.new);
    assert_eq!(counted, (12, 8, 3, 1, 0), "{partition:?}");
    // of good and c's two
    assert_eq!((partition.events_alike, partition.events_new, partition.events_missing), (3, 0, 0), "{partition:?}");
    assert_eq!(partition.from, 3);
    assert_eq!((bank.digest().await, bank.ends()), (digest, ends.clone()));
    assert_eq!(bank.shadows().await, 0);

    // a handler that was changed meanwhile
    is_cured.store(true, Ordering::Relaxed);
    let found = dry_run_of(&bank, &is_cured).await;
    assert!(!found.report.alike);
    // what waited behind it follows from it: of each key the first
    let [difference] = found.report.differences.as_slice() else { panic!("{}", found.report.text()) };
    assert_eq!((found.report.partitions[0].differing, found.report.partitions[0].forgotten), (2, 0));
    assert_eq!((difference.offset, difference.command_id), (8, Some(bad.command_id())), "{difference:?}");
    assert_eq!(difference.published.code.as_deref(), Some("handler-failed"));
    let again = difference.again.as_ref().expect("it is in the log");
    assert_eq!((again.outcome, &again.reply), ("applied", &Some(json!(1))), "{again:?}");
    assert_eq!((bank.digest().await, bank.ends()), (digest, ends));

    // what was seen is no longer so: it is left as it is
    is_cured.store(false, Ordering::Relaxed);
    let found = dry_run_of(&bank, &is_cured).await;
    bank.database.execute("update partitions set decision_id = gen_random_uuid()").await;
    let config = bank.options.config();
    let store = Store::new(&config.database, "a test").expect("an address");
    let resumed = run::resume(&store, &config, &found, "somebody", "the test").await;
    assert_eq!(resumed.expect("the database answers").len(), 1, "changed meanwhile");
    assert_eq!(bank.database.count("partitions where halted_code = 'database-behind'").await, 1);
    assert_eq!(bank.database.count("operator_actions").await, 0);
    let found = dry_run_of(&bank, &is_cured).await;
    let resumed = run::resume(&store, &config, &found, "somebody", "the test").await;
    assert_eq!(resumed.expect("the database answers"), []);
    bank.settled().await;
    worker.end().await;
}

async fn dry_run_of(bank: &Bank, is_cured: &Arc<AtomicBool>) -> Found {
    let worker = notebooks(solewriter::Worker::new(), is_cured);
    let progress = Progress::default();
    let found = dry_run(&worker, &bank.options.config(), &run::Options::default(), &progress).await;
    let found = found.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    assert_eq!(progress.done(), progress.total());
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_as_it_was_published_is_resumed_settled_and_published_again() {
    let _turn = support::alone();
    let postgres = private_postgres();
    let bank = bank_in(&postgres, "run-execute", 3).await;
    let mut traffic = Traffic::new(3, 40);
    bank.send(&traffic.commands(1_500));
    let mut worker = bank.worker();
    bank.settled().await;
    let dump = Dump::take(&postgres, &bank.database);
    let cursors = bank.settled_count().await;
    bank.send(&traffic.commands(3_000));
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    dump.restore(&bank.database).await;
    let mut worker = bank.worker();
    for partition in 0..3 {
        bank.behind(partition).await;
    }
    let at = |partition: i32| format!("{}:{partition}", bank.topic);

    let (digest, ends) = (bank.digest().await, bank.ends());
    let (said, report) = bank.run_again(&[]);
    assert_eq!((said.code, &report["alike"], &report["executed"]), (Some(0), &json!(true), &json!(false)), "{said:?}");
    let sum = |name: &str| {
        let partitions = report["partitions"].as_array().expect("partitions").iter();
        partitions.map(|partition| partition[name].as_i64().expect(name)).sum::<i64>()
    };
    assert_eq!((sum("records"), sum("alike") + sum("repeats")), (3_000, 3_000), "{report:#}");
    assert_eq!((bank.digest().await, bank.ends()), (digest, ends));
    let said = bank.options.run_verb(&["replay", "run"]);
    assert!(said.code == Some(0) && said.stdout.contains("alike: every command ends as it was published"), "{said:?}");
    println!("{}", said.stdout);
    let said = bank.options.run_verb(&["replay", "run", "--execute"]);
    assert!(said.code == Some(2) && said.stderr.contains("--reason"), "{said:?}");
    assert_eq!(bank.settled_count().await, cursors);

    // one of them, and then the others
    let execute = ["--execute", "--reason", "restored"];
    let (said, report) = bank.run_again(&[&[&*at(1)], execute.as_slice()].concat());
    assert_eq!((said.code, &report["settled"]), (Some(0), &json!(true)), "{said:?}");
    bank.partition_settled(1).await;
    assert_eq!(bank.database.count("partitions where halted_code is not null").await, 2);
    let refused = bank.options.run_verb(&["replay", "run", &at(1)]);
    assert!(refused.code == Some(2) && refused.stderr.contains("is not halted"), "{refused:?}");
    let said = bank.options.run_verb(&[["replay", "run"].as_slice(), execute.as_slice()].concat());
    assert!(said.code == Some(0) && said.stdout.contains("resumed, and settled and published again"), "{said:?}");
    println!("{}", said.stdout);
    // every outcome that was published twice is the same
    bank.audit().await;
    let published = bank.all_outcomes();
    let mut copies: BTreeMap<String, Vec<&consumer::Read>> = BTreeMap::new();
    for read in &published {
        if let Some(id) = read.json()["command_id"].as_str() {
            copies.entry(id.to_owned()).or_default().push(read);
        }
    }
    assert!(copies.values().any(|copies| copies.len() > 1), "what was forgotten is published again");
    copies.values().for_each(|copies| assert_identical(copies));
    let audited = bank.database.rows("select detail from operator_actions where action = 'resume'").await;
    assert_eq!(audited.len(), 3);
    assert!(audited.iter().all(|row| row["detail"]["choice"] == "accept-database"), "{audited:?}");
    assert!(audited.iter().all(|row| row["detail"]["replay_run"]["differing"] == 0), "{audited:?}");
    let none = bank.options.run_verb(&["replay", "run"]);
    assert!(none.code == Some(2) && none.stderr.contains("halted with database-behind"), "{none:?}");
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// Somebody has changed an account in the restored database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_otherwise_is_named_with_both_outcomes_and_nothing_is_resumed_unless_that_is_accepted() {
    let _turn = support::alone();
    let taken = withdraw("x", 8);
    let (_postgres, bank) = restored(
        "run-differs",
        &[open("x", 10), open("y", 1)],
        &[taken.clone(), deposit("y", 1), withdraw("x", 100), open("y", 3)],
    )
    .await;
    bank.database.execute("update entities set state = '{\"balance\": 5}' where entity_id = 'x'").await;
    let mut worker = halted(&bank).await;
    let (digest, ends) = (bank.digest().await, bank.ends());
    let (said, report) = bank.run_again(&[]);
    assert_eq!((said.code, &report["alike"]), (Some(3), &json!(false)), "{said:?}");
    let [difference] = report["differences"].as_array().expect("differences").as_slice() else {
        panic!("{report:#}");
    };
    let named = |name: &str| difference[name].clone();
    assert_eq!(
        (named("command_id"), named("offset"), named("entity_id")),
        (json!(taken.command_id()), json!(2), json!("x"))
    );
    assert_eq!(
        (&difference["published"]["outcome"], &difference["published"]["reply"]["balance"]),
        (&json!("applied"), &json!(2))
    );
    assert_eq!(
        (&difference["again"]["outcome"], &difference["again"]["code"]),
        (&json!("rejected"), &json!("insufficient-funds")),
        "{difference:#}"
    );
    let said = bank.options.run_verb(&["replay", "run"]);
    assert!(said.code == Some(3) && said.stdout.contains("not alike: nothing is changed"), "{said:?}");
    println!("{}", said.stdout);
    let execute = ["--execute", "--reason", "restored"];
    let (said, report) = bank.run_again(&execute);
    assert_eq!((said.code, &report["executed"]), (Some(3), &json!(false)), "{said:?}");
    assert_eq!((bank.digest().await, bank.ends()), (digest, ends), "nothing is changed or published");
    let (said, report) = bank.run_again(&[execute.as_slice(), &["--accept-differences"]].concat());
    assert_eq!((said.code, &report["settled"], &report["alike"]), (Some(0), &json!(true), &json!(false)), "{said:?}");
    bank.settled().await;
    let heard = endings(&bank.all_outcomes(), taken.command_id());
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_ne!(heard[0], heard[1]);
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// One partition would halt, and everything else that may become of a command does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_or_stopped_in_the_middle_the_same_dry_run_goes_on_and_finds_the_same() {
    let _turn = support::alone();
    let postgres = private_postgres();
    let mut bank = bank_in(&postgres, "run-killed", 2).await;
    let settings = bank.options.clone();
    bank.options = settings.clone().setting("[worker]\ndead_letter_flood_percent = 100");
    let kept = open("kept", 1);
    bank.send(&[kept.clone(), open("changed", 10)]);
    let mut worker = bank.worker();
    bank.settled().await;
    let dump = Dump::take(&postgres, &bank.database);
    // of one key, so on one partition
    let unknown = |n| Record::command("account.unheard-of", "changed", &json!({ "n": n }));
    let reused = open("acct-0", 7);
    let mut records = vec![reused.clone(), kept, reused.clone().value(r#"{"initial":8}"#), reused];
    records.extend([withdraw("changed", 8), withdraw("acct-0", 100), withdraw("acct-0", 1).value("no JSON")]);
    records.push(deposit("acct-0", 1).without_header("ce_id"));
    records.extend((0..30).map(unknown));
    records.extend((1..150).map(|n| open(&format!("acct-{n}"), n)));
    bank.send(&records);
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
    dump.restore(&bank.database).await;
    bank.options = settings.setting("[worker]\ndead_letter_flood_records = 20\ndead_letter_flood_percent = 50");
    let mut worker = bank.worker();
    for partition in 0..2 {
        bank.behind(partition).await;
    }
    bank.database.execute("update entities set state = '{\"balance\": 5}' where entity_id = 'changed'").await;

    let (digest, ends) = (bank.digest().await, bank.ends());
    let mut settled_before = 0;
    for is_killed in [true, false] {
        let mut running = Worker::start_verb(&bank.options, &["replay", "run", "--rate", "20"]);
        // not looked into before: nobody may be connected when it is found
        let users = "pg_stat_activity where datname like 'solewriter_shadow_%' and usesysid is not null";
        wait_until("the shadow to be used", PATIENCE, async || bank.database.count(users).await > 0).await;
        wait_until("a partition to be halted, and the other to go on", PATIENCE, async || {
            let halted = "partitions where halted_code = 'dead-letter-flood'";
            in_shadow(&bank, halted).await == 1 && in_shadow(&bank, "processed_commands").await > settled_before
        })
        .await;
        match is_killed {
            true => running.kill9(),
            false => assert_eq!(running.sigterm_and_wait().code(), Some(1), "{}", running.output()),
        }
        let said = running.output();
        assert_eq!(is_killed, !said.contains("the same command goes on in solewriter_shadow"), "{said}");
        assert_eq!(is_killed, !said.contains("goes on where it was stopped"), "{said}");
        assert_eq!(bank.shadows().await, 1, "one, which the other goes on in");
        assert_eq!((bank.digest().await, bank.ends()), (digest, ends.clone()));
        settled_before = in_shadow(&bank, "processed_commands").await;
    }
    let (said, mut gone_on) = bank.run_again(&[]);
    assert_eq!((said.code, bank.shadows().await), (Some(3), 0), "{said:?}");
    // a flood is counted by batches: as many at a time
    let (said, mut anew) = bank.run_again(&["--anew", "--rate", "20"]);
    assert_eq!((said.code, bank.shadows().await), (Some(3), 0), "{said:?}");
    let notes = (gone_on["notes"].take(), anew["notes"].take());
    assert!(notes.0[0].as_str().is_some_and(|note| note.contains("--anew")), "{notes:?}");
    assert_eq!(notes.1, json!([]));
    let copied_at = (gone_on["copied_at"].take(), anew["copied_at"].take());
    assert!(copied_at.0.as_str() < copied_at.1.as_str(), "{copied_at:?}");
    assert_eq!(gone_on, anew, "whoever stopped it");
    assert_eq!(anew["differences"].as_array().map(Vec::len), Some(1), "{anew:#}");
    let partitions = anew["partitions"].as_array().expect("partitions").iter();
    let halts: Vec<&Value> = partitions.filter(|it| !it["would_halt"].is_null()).collect();
    let [halts] = halts.as_slice() else { panic!("{anew:#}") };
    assert_eq!(halts["would_halt"]["code"], "dead-letter-flood", "{halts:#}");
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_mended_after_a_dry_run_was_stopped_is_seen_by_the_one_that_resumes() {
    let _turn = support::alone();
    let mut forgotten = vec![withdraw("x", 8)];
    forgotten.extend((0..100).map(|n| open(&format!("acct-{n}"), n)));
    let (_postgres, bank) = restored("run-mended", &[open("x", 10)], &forgotten).await;
    let mut worker = halted(&bank).await;
    let set = async |balance: i64| {
        let sql = format!("update entities set state = '{{\"balance\": {balance}}}' where entity_id = 'x'");
        bank.database.execute(&sql).await;
    };
    set(5).await;
    let mut running = Worker::start_verb(&bank.options, &["replay", "run", "--rate", "5"]);
    wait_until("some of it to be run", PATIENCE, async || in_shadow(&bank, "processed_commands").await > 2).await;
    running.kill9();
    set(10).await;
    let (said, report) = bank.run_again(&["--execute", "--reason", "restored"]);
    assert_eq!((said.code, &report["alike"], &report["settled"]), (Some(0), &json!(true), &json!(true)), "{said:?}");
    assert!(said.stderr.contains("there is a shadow database"), "{said:?}");
    bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// How many rows there are in the one shadow, if it can be read.
async fn in_shadow(bank: &Bank, rows: &str) -> i64 {
    let names = "select datname::text as name from pg_database where datname like 'solewriter_shadow_%'";
    let names = bank.database.rows(names).await;
    let [row] = names.as_slice() else { return 0 };
    let options: PgConnectOptions = bank.database.url.parse().expect("a database URL");
    let Ok(pool) = PgPool::connect_with(options.database(row["name"].as_str().expect("a name"))).await else {
        return 0;
    };
    let sql = format!("select count(*) from {}.{rows}", bank.database.schema);
    let count = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await;
    pool.close().await;
    // it is in the making
    count.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_has_lost_is_said_and_nothing_is_done() {
    let _turn = support::alone();
    let deposits: Vec<Record> = (0..10).map(|_| deposit("x", 1)).collect();
    let (_postgres, bank) = restored("run-lost", &[open("x", 10)], &deposits).await;
    let mut worker = halted(&bank).await;
    topics::delete_records(&bank.cluster, &bank.topic, 0, 5).await;
    let digest = bank.digest().await;
    for more in [[].as_slice(), &["--execute", "--reason", "restored"]] {
        let said = bank.options.run_verb(&[&["replay", "run"], more].concat());
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("offsets 1 to 4 are no longer in the log"), "{said:?}");
    }
    assert_eq!((bank.digest().await, bank.shadows().await), (digest, 0));
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// The halt was the operator's, or there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_behind_is_refused() {
    let _turn = support::alone();
    let bank = Bank::open("run-refused", 2).await;
    bank.send(&Traffic::new(1, 10).commands(20));
    let mut worker = bank.worker();
    bank.settled().await;
    let at = |partition: i32| format!("{}:{partition}", bank.topic);
    let halted = bank.options.run_verb(&["halt", &at(0), "--reason", "the test"]);
    assert_eq!(halted.code, Some(0), "{halted:?}");
    let expected = [
        (at(0), "is halted with operator"),
        (at(1), "is not halted"),
        (at(7), "not known"),
        ("other".to_owned(), "not in the configuration"),
    ];
    for (place, why) in expected {
        let said = bank.options.run_verb(&["replay", "run", &place]);
        assert!(said.code == Some(2) && said.stderr.contains(why), "{place}: {said:?}");
    }
    assert_eq!(bank.shadows().await, 0);
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// A command that would be refused now, as its id is older than the horizon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_window_has_passed_is_a_difference() {
    let _turn = support::alone();
    let old = deposit("x", 1).id(v7_at(now_ms() - 3_600_000));
    let (_postgres, bank) = restored("run-expired", &[open("x", 10)], &[old.clone(), deposit("x", 2)]).await;
    let horizon = "update horizon set at = now() - interval '10 min', floor_id = uuid_floor(now() - interval '10 min')";
    bank.database.execute(horizon).await;
    let mut worker = halted(&bank).await;
    let (said, report) = bank.run_again(&[]);
    assert_eq!(said.code, Some(3), "{said:?}");
    let differences = report["differences"].as_array().expect("differences");
    assert_eq!(differences[0]["again"]["code"], "expired", "{report:#}");
    assert_eq!(differences[0]["command_id"], json!(old.command_id()));
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// Commands in SQL, whose tables are copied; and what an operator had redriven, which is forgotten too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_that_is_forgotten_is_named_with_what_to_type() {
    let _turn = support::alone();
    let postgres = private_postgres();
    let database = Database::fresh_in(&postgres.url(), "run_redriven").await;
    let files = Scratch::new("run-redriven");
    let file = files.path().join("commands.toml");
    fs::write(files.path().join("tables.sql"), parked_keys::TABLES).expect("write the tables' script");
    let commands = format!("entity = \"thing\"\ntables = \"tables.sql\"\n{}", parked_keys::COMMANDS);
    fs::write(&file, commands).expect("write the commands");
    let cluster = kafka::shared();
    let topic = topics::fresh(&cluster, "run-redriven", 1).await;
    let options = WorkerOptions::new(&cluster, &database, &topic).declared(&[file]).in_sql_of("thing");
    let bank = Bank::with(cluster, database, topic, options);
    bank.database.execute("insert into poison values ('bad')").await;
    let word = parked_keys::note;
    bank.send(&[word("held", "bad"), word("held", "waits"), word("free", "one")]);
    let mut worker = bank.worker();
    bank.settled().await;
    let dump = Dump::take(&postgres, &bank.database);
    let (bad, behind) = (word("later", "bad"), word("later", "waits"));
    bank.send(&[bad.clone(), behind.clone(), word("free", "two")]);
    bank.settled().await;
    bank.database.execute("delete from poison").await;
    let redrive = |key: &str| {
        let said = bank.options.run_verb(&["dead-letters", "redrive", "--key", key, "--reason", "cured", "--execute"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    };
    redrive("held");
    redrive("later");
    bank.send(&[word("later", "three"), word("held", "three")]);
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    let first = bank.all_outcomes();
    dump.restore(&bank.database).await;
    let mut worker = halted(&bank).await;

    let digest = bank.digest().await;
    let (said, report) = bank.run_again(&[]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert_eq!(report["differences"], json!([]), "{report:#}");
    let forgotten = report["forgotten"].as_array().expect("forgotten");
    // two letters of "held" from before the dump; of "later" three and of "held" one behind it
    assert_eq!(forgotten.len(), 6, "{report:#}");
    let of = |offset: i64| forgotten.iter().find(|it| it["offset"] == offset).unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(of(3)["command_id"], json!(bad.command_id()));
    assert_eq!((&of(3)["published"]["outcome"], &of(3)["again"]["code"]), (&json!("applied"), &json!("data-error")));
    assert_eq!(of(4)["again"]["code"], "parked-key");
    let number = bank.database.number("select dead_letter_id from dead_letters where \"offset\" = 0").await;
    assert_eq!((of(0)["dead_letter_id"].as_i64(), &of(0)["again"]), (number, &Value::Null));
    assert_eq!(bank.digest().await, digest);
    let said = bank.options.run_verb(&["replay", "run"]);
    assert!(said.stdout.contains("type: solewriter dead-letters redrive --letter"), "{said:?}");
    println!("{}", said.stdout);

    let (said, report) = bank.run_again(&["--execute", "--reason", "restored", "--accept-differences"]);
    assert_eq!((said.code, &report["settled"]), (Some(0), &json!(true)), "{said:?}");
    bank.settled().await;
    bank.database.execute("delete from poison").await;
    for forgotten in [of(0), of(3)] {
        let typed = forgotten["resolve"].as_str().expect("what to type").replace('…', "again");
        let words: Vec<&str> = typed.split_whitespace().skip(1).collect();
        let said = bank.options.run_verb(&words);
        assert_eq!(said.code, Some(0), "{typed}: {said:?}");
    }
    wait_until("the redrives", PATIENCE, async || bank.database.count("parked_keys").await == 0).await;
    bank.settled().await;
    let again = bank.all_outcomes();
    let ids: Vec<_> = first.iter().filter_map(|read| read.json()["command_id"].as_str()?.parse().ok()).collect();
    for id in ids {
        let last = |outcomes: &[consumer::Read]| of_command(outcomes, id).last().map(|read| read.json());
        assert_eq!(last(&again), last(&first));
    }
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}
