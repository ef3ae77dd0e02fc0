//! `replay verify` finds the database equal to what its log says where it is, whatever the log looks like, and
//! names the first command of a key after which it is not. It changes nothing that is alive, and publishes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use solewriter::config;
use solewriter::local::postgres::{Options as PostgresOptions, Postgres};
use solewriter::postgres::Store;
use solewriter::replay::progress::Progress;
use solewriter::replay::verify::{Options, Report, verify};
use solewriter::{Context, Rejection};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support;
use crate::support::bank::{Bank, Stream, Traffic};
use crate::support::commands::{DAY_MS, deposit, now_ms, open, v7_at, withdraw};
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::Database;
use crate::support::producer::{Ending, Record, in_transaction};
use crate::support::scratch::unique;
use crate::support::worker::{Said, Worker, embedded};
use crate::support::{kafka, topics};

const UNWANTED: Rejection = Rejection::new("unwanted");

#[derive(Clone, Default, Serialize, Deserialize)]
struct Notebook {
    words: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Note {
    word: String,
}

impl Notebook {
    fn note(&mut self, note: Note, cx: &mut Context, is_cured: bool) -> Result<usize, Rejection> {
        assert!(is_cured || note.word != "bad", "a bad word");
        if note.word == "no" {
            return Err(UNWANTED);
        }
        cx.emit("notebook.noted", &note);
        self.words.push(note.word);
        Ok(self.words.len())
    }

    /// What no handler may do.
    fn stamp(&mut self, note: Note, _: &mut Context) -> Result<usize, Rejection> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        self.words.push(format!("{} at {}", note.word, now.as_nanos()));
        Ok(self.words.len())
    }
}

pub(crate) fn notebooks(worker: solewriter::Worker, is_cured: &Arc<AtomicBool>) -> solewriter::Worker {
    let is_cured = is_cured.clone();
    worker.entity::<Notebook>("notebook", |e| {
        e.on("notebook.note", move |book: &mut Notebook, note: Note, cx: &mut Context<'_>| {
            book.note(note, cx, is_cured.load(Ordering::Relaxed))
        })
        .on("notebook.stamp", Notebook::stamp)
    })
}

pub(crate) fn note(key: &str, word: &str) -> Record {
    Record::command("notebook.note", key, &json!({ "word": word }))
}

async fn notebook_bank(name: &str, partitions: i32) -> Bank {
    let mut bank = Bank::open(name, partitions).await;
    bank.options.topics[0].1 = "notebook".to_owned();
    bank
}

/// With the library, as a team's own test does.
async fn verified(bank: &Bank, is_cured: &Arc<AtomicBool>) -> Report {
    let worker = notebooks(solewriter::Worker::new(), is_cured);
    let progress = Progress::default();
    let report = verify(&worker, &bank.options.config(), &Options::default(), &progress).await;
    let report = report.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    assert_eq!(progress.done(), progress.total());
    report
}

impl Bank {
    /// What the verb says: the exit code, and the report.
    fn verified(&self) -> (Said, Value) {
        let said = self.options.run_verb(&["replay", "verify", "-o", "json"]);
        let report = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        (said, report)
    }

    /// The one difference that the verb finds.
    fn difference(&self) -> Value {
        let (said, report) = self.verified();
        assert_eq!((said.code, &report["equal"]), (Some(3), &json!(false)), "{said:?}");
        assert_eq!(report["difference_count"], 1, "{report:#}");
        report["differences"][0].clone()
    }

    /// Everything that the live tables hold, as one number.
    pub(crate) async fn digest(&self) -> Option<i64> {
        let tables = ["processed_commands", "entities", "dead_letters", "batches", "horizon", "requests"];
        let rows = tables.map(|table| format!("select to_jsonb(t)::text as line from {table} t")).join(" union all ");
        let cursors = "select row(next_offset, batch_seq, fencing_token, claim_id)::text from partitions";
        let sql = format!(
            "select sum(hashtextextended(line, 0)::numeric % 1000000007)::bigint from ({rows} union all {cursors}) r"
        );
        self.database.number(&sql).await
    }

    pub(crate) fn ends(&self) -> Vec<i64> {
        let kinds = ["", ".outcomes", ".events"].map(|kind| format!("{}{kind}", self.topic));
        kinds.iter().map(|topic| topics::watermarks(&self.cluster, topic, 0).1).collect()
    }

    pub(crate) async fn shadows(&self) -> i64 {
        self.database.count("pg_database where datname like 'solewriter_shadow_%'").await
    }
}

/// Repeats, dead letters, transactions, parked keys that were redriven, waiting ones, discarded ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_log_comes_out_equal_and_nothing_alive_changes() {
    let _turn = support::alone();
    let bank = notebook_bank("verify-mixed", 1).await;
    let is_cured = Arc::new(AtomicBool::new(false));
    let worker = embedded(&bank.options, |worker| notebooks(worker, &is_cured));
    let first = note("a", "good");
    bank.send(&[
        first.clone(),
        note("a", "no"),
        first.clone(),
        note("a", "x").value("no JSON"),
        note("b", "bad"),
        note("b", "behind"),
        note("b", "no"),
        note("a", "x").without_header("ce_id"),
        note("given-up", "bad"),
    ]);
    in_transaction(&bank.cluster, &bank.topic, &[note("c", "kept")], Ending::Commit);
    in_transaction(&bank.cluster, &bank.topic, &[note("c", "dropped")], Ending::Abort);
    bank.send(&[note("c", "more"), first.clone()]);
    bank.settled().await;
    is_cured.store(true, Ordering::Relaxed);
    for (verb, key) in [("redrive", "b"), ("discard", "given-up")] {
        let said = bank.options.run_verb(&["dead-letters", verb, "--key", key, "--reason", "the test", "--execute"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    wait_until("the redrive", PATIENCE, async || bank.database.count("parked_keys").await == 0).await;
    is_cured.store(false, Ordering::Relaxed);
    bank.send(&[note("b", "after"), note("d", "bad"), note("d", "waits")]);
    bank.settled().await;
    drop(worker);

    is_cured.store(true, Ordering::Relaxed);
    let (digest, ends) = (bank.digest().await, bank.ends());
    let report = verified(&bank, &is_cured).await;
    report.assert_equal();
    assert!(report.unproven.is_empty(), "{report:?}");
    let [partition] = report.partitions.as_slice() else { panic!("{report:?}") };
    // a twice, b four times, c twice
    assert_eq!((partition.commands, partition.compared, partition.skipped), (8, 8, 0), "{report:?}");
    assert_eq!(report.entities, 3);
    assert_eq!((bank.digest().await, bank.ends()), (digest, ends));
    assert_eq!(bank.shadows().await, 0);
}

/// The cut is one moment: commands that are settled meanwhile are not in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_database_is_equal_while_it_goes_on() {
    let _turn = support::alone();
    let bank = Bank::open("verify-live", 3).await;
    bank.send(&Traffic::new(1, 50).commands(3_000));
    let _worker = bank.worker();
    bank.settled_beyond(2_000).await;
    let stream = Stream::start(&bank, 7);
    for _ in 0..2 {
        let (said, report) = bank.verified();
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(report["partitions"].as_array().is_some_and(|partitions| partitions.len() == 3), "{report:#}");
    }
    stream.end();
    bank.audit().await;
    let said = bank.options.run_verb(&["replay", "verify"]);
    assert!(said.code == Some(0) && said.stdout.contains("equal: the database is what its log says"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_by_hand_is_found_with_the_command_and_both_values() {
    let _turn = support::alone();
    let bank = Bank::open("verify-changed", 1).await;
    let (opened, filled, taken) = (open("x", 5), deposit("x", 7), withdraw("x", 100));
    bank.send(&[opened, filled.clone(), taken.clone(), open("y", 1), open("y", 2).without_header("ce_id")]);
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
    let tables = "processed_timed entities dead_letters";
    for table in tables.split(' ') {
        bank.database.execute(&format!("create table kept_{table} as select * from {table}")).await;
    }
    let (said, _) = bank.verified();
    assert_eq!(said.code, Some(0), "{said:?}");
    let id = |record: &Record| record.command_id().to_string();
    let changes = [
        ("update entities set state = '{\"balance\": 1000000}' where entity_id = 'x'".to_owned(), "entity"),
        ("update entities set state = '{\"balance\": 19}', version = 3 where entity_id = 'x'".to_owned(), "entity"),
        ("delete from entities where entity_id = 'x'".to_owned(), "entity"),
        (format!("delete from processed_timed where command_id = '{}'", id(&filled)), "outcome-missing"),
        (
            format!("update processed_timed set reply = '{{\"balance\":13}}' where command_id = '{}'", id(&filled)),
            "outcome",
        ),
        (format!("update processed_timed set events = null where command_id = '{}'", id(&filled)), "outcome"),
        (format!("update processed_timed set code = 'no-such-rule' where command_id = '{}'", id(&taken)), "outcome"),
        ("delete from dead_letters".to_owned(), "letter-missing"),
    ];
    for (change, what) in changes {
        bank.database.execute(&change).await;
        let difference = bank.difference();
        assert_eq!(difference["what"], what, "{change}: {difference:#}");
        let expected = match what {
            "entity" => (json!("x"), json!(2), json!(id(&taken))),
            "letter-missing" => (json!("y"), json!(4), Value::Null),
            _ if change.contains("no-such-rule") => (json!("x"), json!(2), json!(id(&taken))),
            _ => (json!("x"), json!(1), json!(id(&filled))),
        };
        let named = |name: &str| difference[name].clone();
        assert_eq!((named("entity_id"), named("offset"), named("command_id")), expected, "{change}: {difference:#}");
        assert_ne!(difference["live"], difference["rebuilt"], "{change}");
        for table in tables.split(' ') {
            let columns = if table == "dead_letters" { "overriding system value " } else { "" };
            let back = format!("delete from {table}; insert into {table} {columns}select * from kept_{table}");
            bank.database.execute(&back).await;
        }
    }
    // a cursor that somebody has moved
    bank.send(&[deposit("x", 1), deposit("y", 1)]);
    bank.database.execute("update partitions set next_offset = next_offset + 1").await;
    let difference = bank.difference();
    assert_eq!((&difference["what"], &difference["offset"]), (&json!("never-settled"), &json!(5)), "{difference:#}");
    bank.database.execute("update partitions set next_offset = next_offset - 1").await;
    // an outcome that no record leads to
    let invented = v7_at(now_ms());
    let invent = format!(
        "create temporary table invented as select * from processed_timed where command_id = '{}';
         update invented set command_id = '{invented}', \"offset\" = 4;
         insert into processed_timed select * from invented; drop table invented",
        id(&filled)
    );
    bank.database.execute(&invent).await;
    let (said, report) = bank.verified();
    assert_eq!((said.code, &report["differences"][0]["what"]), (Some(3), &json!("outcome-unexplained")), "{report:#}");
    assert_eq!(report["differences"][0]["live"]["outcomes"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_reads_the_clock_is_found() {
    let _turn = support::alone();
    let bank = notebook_bank("verify-clock", 1).await;
    let is_cured = Arc::new(AtomicBool::new(true));
    let worker = embedded(&bank.options, |worker| notebooks(worker, &is_cured));
    bank.send(&[
        note("a", "good"),
        Record::command("notebook.stamp", "a", &json!({ "word": "now" })),
        note("b", "good"),
    ]);
    bank.settled().await;
    drop(worker);
    let report = verified(&bank, &is_cured).await;
    let [difference] = report.differences.as_slice() else { panic!("{report:?}") };
    let after = difference.after.as_ref().expect("a command");
    assert_eq!((difference.entity_id.as_deref(), after.offset), (Some("a"), 1));
    assert_eq!(after.command_type.as_deref(), Some("notebook.stamp"));
    let said = std::panic::catch_unwind(|| report.assert_equal()).expect_err("it differs");
    let said = said.downcast_ref::<String>().expect("a message");
    assert!(said.contains("notebook.stamp") && said.contains(" at "), "{said}");
}

/// Outcomes older than the horizon are no longer kept, and no difference; a log that has lost its beginning is none
/// to rebuild from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_run_again_and_what_is_gone_is_said() {
    let _turn = support::alone();
    let bank = Bank::open("verify-forgotten", 1).await;
    let old = deposit("a", 1).id(v7_at(now_ms() - 3 * DAY_MS));
    bank.send(&[open("a", 1), old.clone(), deposit("a", 2), old]);
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
    bank.database.execute("delete from processed_timed where \"offset\" = 1").await;
    bank.database
        .execute("update horizon set at = now() - interval '1 day', floor_id = uuid_floor(now() - interval '1 day')")
        .await;
    let (said, report) = bank.verified();
    let partition = &report["partitions"][0];
    assert_eq!(
        (said.code, &partition["compared"], &partition["forgotten"]),
        (Some(0), &json!(2), &json!(1)),
        "{report:#}"
    );

    topics::delete_records(&bank.cluster, &bank.topic, 0, 2).await;
    let said = bank.options.run_verb(&["replay", "verify"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("the log begins at offset 2, the rebuild at 0"), "{said:?}");
    assert_eq!(bank.shadows().await, 0);
}

impl Bank {
    /// How many commands were run again in a shadow: none while it is in the making, also if it begins from a checkpoint.
    async fn run_again_in(&self, shadow: &str) -> i64 {
        let (address, _) = self.database.url.rsplit_once('/').expect("a database URL with a database");
        // no connection of ours may stay: the shadow would be taken for one that is in use
        let mut one = PgConnection::connect(&format!("{address}/{shadow}")).await.expect("connect to the shadow");
        let commands = format!("select count(*) from {}.processed_commands", self.database.schema);
        let commands: Result<i64, _> = sqlx::query_scalar(AssertSqlSafe(commands)).fetch_one(&mut one).await;
        one.close().await.expect("disconnect");
        // the schema is not there at once
        commands.unwrap_or(0)
    }

    async fn the_shadow(&self) -> Option<String> {
        let all = "select datname::text from pg_database where datname like 'solewriter_shadow_%'";
        sqlx::query_scalar(all).fetch_optional(&self.database.pool).await.expect("ask the database")
    }

    /// Begins a slow verification, or goes on with the one that was left, and returns when some more of it is done.
    pub(crate) async fn begun(&self, more: &[&str]) -> (Worker, String) {
        let left = self.the_shadow().await;
        let run_before = match &left {
            Some(shadow) => self.run_again_in(shadow).await,
            None => 0,
        };
        let slow = ["replay", "verify", "--rate", "200"];
        let verifying = Worker::start_verb(&self.options, &[&slow, more].concat());
        if let Some(shadow) = left {
            // not looked into before: nobody may be connected when it is found
            let users = format!("pg_stat_activity where datname = '{shadow}' and usesysid is not null");
            wait_until("the shadow to be gone on in", PATIENCE, async || self.database.count(&users).await > 0).await;
        }
        wait_until("the shadow to be filled", PATIENCE, async || match self.the_shadow().await {
            Some(shadow) => self.run_again_in(&shadow).await > run_before,
            None => false,
        })
        .await;
        (verifying, self.the_shadow().await.expect("a shadow"))
    }

    /// Waits until the server has noticed that whoever used the shadow is dead.
    pub(crate) async fn left(&self, shadow: &str) {
        let connected = format!("pg_stat_activity where datname = '{shadow}'");
        wait_until("the server to notice", PATIENCE, async || self.database.count(&connected).await == 0).await;
    }
}

/// Stopped, and after kill -9, the same command goes on in the same shadow, and its report is that of the whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_command_goes_on_after_a_stop_and_after_kill_9() {
    let _turn = support::alone();
    let bank = Bank::open("verify-goes-on", 2).await;
    bank.send(&Traffic::new(3, 50).commands(3_000));
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
    // a difference among the first, which the process that reports it has not run
    let first = "select entity_id from processed_commands where partition = 0 and outcome = 'applied' order by \"offset\" limit 1";
    bank.database
        .execute(
            "update processed_timed set reply = convert_to('77', 'UTF8')
              where partition = 0 and \"offset\" = (select min(\"offset\") from processed_timed where partition = 0 and applied)",
        )
        .await;
    let wrong: String = sqlx::query_scalar(first).fetch_one(&bank.database.pool).await.expect("the first");

    let (mut stopped, shadow) = bank.begun(&[]).await;
    assert_eq!(stopped.sigterm_and_wait().code(), Some(1), "{}", stopped.output());
    let said = stopped.output();
    assert!(said.contains("stopped before the end") && said.contains(&shadow), "{said}");

    let (mut killed, same) = bank.begun(&[]).await;
    assert_eq!(same, shadow, "it goes on, and does not begin anew");
    killed.kill9();
    bank.left(&shadow).await;
    let (said, report) = bank.verified();
    assert_eq!((said.code, bank.shadows().await), (Some(3), 0), "{said:?}");
    assert_eq!(report["difference_count"], 1, "{report:#}");
    let difference = &report["differences"][0];
    assert_eq!((&difference["what"], &difference["entity_id"]), (&json!("outcome"), &json!(wrong)), "{difference:#}");
    let of_partition = |key: &str| -> u64 {
        let partitions = report["partitions"].as_array().expect("partitions");
        partitions.iter().map(|partition| partition[key].as_u64().expect("a number")).sum()
    };
    assert_eq!((of_partition("records"), of_partition("compared")), (3_000, of_partition("commands")), "{report:#}");

    // another one at the same time has a shadow of its own
    let (mut stopped, left) = bank.begun(&[]).await;
    let said = bank.options.run_verb(&["replay", "verify"]);
    assert_eq!((said.code, bank.the_shadow().await.as_ref()), (Some(3), Some(&left)), "{said:?}");

    // anew, if that is wanted
    assert_eq!(stopped.sigterm_and_wait().code(), Some(1), "{}", stopped.output());
    assert_ne!(left, shadow);
    let said = bank.options.run_verb(&["replay", "verify", "--anew"]);
    assert_eq!((said.code, bank.shadows().await), (Some(3), 0), "{said:?}");
}

/// A shadow is not in the write-ahead log: what a crash of the server empties is noticed, and never compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_is_noticed_and_the_same_command_begins_anew() {
    let _turn = support::alone();
    let mut postgres = Postgres::start(PostgresOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let database = Database::fresh_in(&postgres.url(), "verify_crash").await;
    let bank = Bank::open_on(kafka::shared(), database, "verify-crash", 2).await;
    bank.send(&Traffic::new(5, 50).commands(3_000));
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());

    let mut crash = || {
        postgres.stop_immediate().expect("stop Postgres");
        postgres.start_again().expect("start Postgres");
    };
    let (mut running, _) = bank.begun(&[]).await;
    crash();
    assert!(!running.wait_ended(PATIENCE).success(), "{}", running.output());
    let said = bank.options.run_verb(&["replay", "verify", "--anew"]);
    assert!(said.code == Some(0) && said.stdout.contains("equal: "), "{said:?}");

    let (mut stopped, shadow) = bank.begun(&[]).await;
    assert_eq!(stopped.sigterm_and_wait().code(), Some(1), "{}", stopped.output());
    assert!(stopped.output().contains(&shadow), "{}", stopped.output());
    crash();
    let said = bank.options.run_verb(&["replay", "verify"]);
    assert!(said.code == Some(0) && said.stdout.contains("equal: "), "{said:?}");
    assert!(!said.stderr.contains("goes on where it was stopped"), "{said:?}");
    assert_eq!(bank.shadows().await, 0);
}

/// An offset tells what was settled before a checkpoint only as long as the cursor went forward.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_the_cursor_has_gone_back_over_is_refused() {
    let _turn = support::alone();
    let bank = Bank::open("verify-back", 1).await;
    let _worker = bank.worker();
    bank.send(&[open("a", 1), deposit("a", 2), deposit("a", 3)]);
    bank.settled().await;
    let operate = |arguments: &[&str]| {
        let said = bank.options.run_verb(&[arguments, &["--reason", "the test"]].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
    };
    let verify = |checkpoint: &str| bank.options.run_verb(&["replay", "verify", "--from", checkpoint]);
    operate(&["checkpoint", "create", "--name", "before"]);
    bank.send(&[deposit("a", 4)]);
    bank.settled().await;
    assert_eq!(verify("before").code, Some(0));

    let partition = format!("{}:0", bank.topic);
    operate(&["halt", &partition]);
    operate(&["resume", &partition, "--skip-to", "earliest"]);
    bank.send(&[deposit("a", 5)]);
    bank.settled().await;
    operate(&["checkpoint", "create", "--name", "after"]);
    let said = verify("before");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("has gone back"), "{said:?}");
    // whose own cursor is above all that was settled before
    assert_eq!(verify("after").code, Some(0));
    assert_eq!(bank.verified().0.code, Some(0));
}

/// What an operator has asked for and no worker has done yet is in a checkpoint, and hinders nobody who begins there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_with_an_open_request_can_be_begun_from() {
    let _turn = support::alone();
    let bank = notebook_bank("verify-request", 1).await;
    let is_cured = Arc::new(AtomicBool::new(false));
    let worker = embedded(&bank.options, |worker| notebooks(worker, &is_cured));
    bank.send(&[note("a", "good"), note("b", "bad"), note("b", "behind")]);
    bank.settled().await;
    drop(worker);
    bank.database
        .execute(
            "insert into requests (actor, reason, action, action_id, topic, partition, dead_letter_id)
             select 'somebody', 'the test', 'redrive', 1, topic, partition, dead_letter_id
               from dead_letters where state = 'parked'",
        )
        .await;
    let said = bank.options.run_verb(&["checkpoint", "create", "--name", "asked", "--reason", "the test"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let from = Some("asked".parse().expect("a name"));
    let worker = notebooks(solewriter::Worker::new(), &is_cured);
    let options = Options { from, ..Options::default() };
    let report = verify(&worker, &bank.options.config(), &options, &Progress::default()).await;
    let report = report.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    report.assert_equal();
    assert_eq!((report.entities, bank.shadows().await), (1, 0), "{report:?}");
}

/// What a statement compares or sorts comes out in a shadow as in the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_has_the_locale_of_its_database() {
    let server = Database::fresh("locale").await;
    let (address, _) = server.url.rsplit_once('/').expect("a database URL with a database");
    for locale in ["locale_provider icu icu_locale 'de-AT' lc_collate 'C' lc_ctype 'C'", "lc_collate 'C' lc_ctype 'C'"]
    {
        let (name, shadow) = (unique("located"), unique("solewriter_shadow"));
        server.execute(&format!("create database {name} template template0 {locale}")).await;
        let url = format!("{address}/{name}").parse().expect("a database URL");
        let config = config::Database { url: Some(url), ..config::Database::default() };
        let store = Store::new(&config, "the test").expect("an address");
        store.create_shadow(&shadow).await.expect("make the shadow");
        store.close().await;
        let of = |database: &str| {
            format!(
                "select to_jsonb(d) - '{{oid,datname,datdba,datfrozenxid,datminmxid,datacl}}'::text[] as settings
                   from pg_database d where datname = '{database}'"
            )
        };
        let (its, shadows) = (server.rows(&of(&name)).await, server.rows(&of(&shadow)).await);
        for database in [shadow, name] {
            server.execute(&format!("drop database {database}")).await;
        }
        assert_eq!(its, shadows);
    }
}
