//! A redrive does what its preview says, to the letters it names, and harms nothing else: not the
//! process, not what comes from the log meanwhile, not the order of what is published.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use solewriter::{Context, Rejection};
use uuid::Uuid;

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::endings;
use crate::support::declared::project;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::Record;
use crate::support::scratch::Scratch;
use crate::support::worker::{Said, Worker, embedded};
use crate::support::{consumer, topics};

/// What a word does is a row, so that it can be changed under a running worker.
const TABLES: &str = "
    create table if not exists poison (word text primary key);
    create table if not exists sluggish (word text primary key, seconds float not null);
    create table if not exists notes (id uuid primary key, thing text not null, word text not null);";

const COMMANDS: &str = r#"
[[command]]
type = "thing.note"
nondeterministic = true # it may sleep
reply = { word = ":note.word" }
[[command.step]]
sql = "select 1 / (1 - count(*)) as fine from poison where word = :word"
expect = 1
otherwise = { reject = "never" }
[[command.step]]
sql = "select count(*) as slept from (select pg_sleep(seconds) from sluggish where word = :word) s"
expect = 1
otherwise = { reject = "never" }
[[command.step]]
sql = """
insert into notes (id, thing, word) values (:command_id, :entity_id, :word) returning word"""
expect = 1
into = "note"
otherwise = { reject = "never" }
"#;

async fn things(name: &str, partitions: i32) -> (Scratch, Bank) {
    let (files, bank) = project(name, "thing", partitions, TABLES, COMMANDS).await;
    bank.database.execute("insert into poison values ('bad'), ('slow')").await;
    (files, bank)
}

fn note(key: &str, word: &str) -> Record {
    Record::command("thing.note", key, &json!({ "word": word }))
}

fn act(bank: &Bank, verb: &str, more: &[&str]) -> (Said, Value) {
    let arguments = ["dead-letters", verb, "-o", "json", "--reason", "the test", "--execute"];
    let said = bank.options.run_verb(&[&arguments, more].concat());
    let report = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    (said, report)
}

async fn letters(bank: &Bank, state: &str) -> i64 {
    bank.database.count(&format!("dead_letters where state = '{state}'")).await
}

fn outcomes(bank: &Bank) -> Vec<consumer::Read> {
    consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic))
}

/// The owner is killed each time while this letter runs; what comes from the log makes progress.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_whose_redrive_ends_the_process_is_found_and_the_others_run() {
    let _turn = support::heavy();
    let (_files, mut bank) = things("deadly", 1).await;
    bank.options = bank.options.clone().property("session.timeout.ms", "2000");
    let log = [note("deadly", "slow"), note("fine", "bad"), note("deadly", "good"), note("fine", "good")];
    bank.send(&log);
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (2, 2));
    bank.database.execute("delete from poison; insert into sluggish values ('slow', 4)").await;
    let options = bank.options.clone();
    let redriving = std::thread::spawn(move || {
        let arguments = ["dead-letters", "redrive", "--all", "--reason", "cured", "--execute", "--timeout", "120s"];
        options.run_verb(&arguments)
    });
    for beginning in 1..=5 {
        let begun = format!("partitions where letters_begun = {beginning}");
        wait_until("the letter to be begun", PATIENCE, async || bank.database.count(&begun).await == 1).await;
        worker.kill9();
        worker = Worker::start(&bank.options);
        bank.send(&[note("live", "good")]);
    }
    let said = redriving.join().expect("the verb");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("process has ended 4 times"), "{said:?}");
    assert_eq!(endings(&outcomes(&bank), log[1].command_id()), ["data-error", "applied"]);
    assert_eq!(endings(&outcomes(&bank), log[3].command_id()), ["parked-key", "applied"]);
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (1, 1), "the key still waits");
    bank.settled().await;
    assert_eq!(bank.database.count("processed_commands where entity_id = 'live'").await, 5);
    assert_eq!(bank.database.count("partitions where halted_code is not null").await, 0);
    // and is given another chance when somebody asks for it
    bank.database.execute("delete from sluggish").await;
    let (said, _) = act(&bank, "redrive", &["--key", "deadly"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_the_log_does_not_wait_for_a_long_redrive() {
    let _turn = support::heavy();
    let (_files, mut bank) = things("turns", 1).await;
    bank.options = bank.options.clone().setting("[worker]\nbatch_commands_max = 10");
    let log: Vec<Record> = (0..200).map(|n| note(&format!("key-{}", n % 50), "bad")).collect();
    bank.send(&log);
    let _worker = bank.worker();
    bank.settled().await;
    bank.database.execute("delete from poison; insert into sluggish values ('bad', 0.05)").await;
    let options = bank.options.clone();
    let redriving = std::thread::spawn(move || {
        let arguments = ["dead-letters", "redrive", "--all", "--reason", "cured", "--execute", "--timeout", "60s"];
        options.run_verb(&arguments)
    });
    wait_until("the first letters", PATIENCE, async || letters(&bank, "redriven").await > 0).await;
    bank.send(&[note("live", "good")]);
    let live = "processed_commands where entity_id = 'live'";
    wait_until("the live command", PATIENCE, async || bank.database.count(live).await == 1).await;
    assert!(letters(&bank, "parked").await > 0, "the redrive is not over");
    assert_eq!(redriving.join().expect("the verb").code, Some(0));
    assert_eq!(letters(&bank, "redriven").await, 200);
}

/// The row that holds an attempt is not changed before its outcome is published, across a crash.
#[tokio::test]
async fn the_outcome_of_each_attempt_is_published_once_and_in_order_also_after_a_crash() {
    let _turn = support::heavy();
    let (_files, bank) = things("attempts", 1).await;
    let bad = note("key", "bad");
    bank.send(std::slice::from_ref(&bad));
    let mut worker = bank.worker();
    bank.settled().await;
    let topic = format!("{}.outcomes", bank.topic);
    topics::set(&bank.cluster, &topic, &[("max.message.bytes", "100")]).await;
    let (said, _) = act(&bank, "redrive", &["--all"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(bank.database.count("dead_letters where attempts = 2").await, 1);
    let (said, _) = act(&bank, "redrive", &["--all", "--timeout", "1s"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert_eq!(bank.database.count("dead_letters where attempts = 2").await, 1, "its outcome is not out yet");
    worker.kill9();
    topics::set(&bank.cluster, &topic, &[("max.message.bytes", "1048588")]).await;
    let _worker = bank.worker();
    let third = "dead_letters where attempts = 3";
    wait_until("the third attempt", PATIENCE, async || bank.database.count(third).await == 1).await;
    bank.settled().await;
    let read = outcomes(&bank);
    let mut ids: Vec<&str> = Vec::new();
    for id in read.iter().filter_map(|read| read.header("ce_id")) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let id = |attempt: u32| {
        Uuid::new_v5(&bad.command_id(), format!("solewriter.dead:{}:0:0:{attempt}", bank.topic).as_bytes()).to_string()
    };
    assert_eq!(ids, [id(1), id(2), id(3)]);
}

#[tokio::test]
async fn a_misrouted_letter_is_produced_again_to_the_partition_of_its_key() {
    let _turn = support::heavy();
    let (_files, bank) = things("misrouted-again", 3).await;
    let stored = bank.producer.send_one(&bank.topic, &note("key", "good"));
    let lost = note("key", "good").header("x-kept", "as it was").on_partition((stored.partition + 1) % 3);
    bank.send(std::slice::from_ref(&lost));
    let _worker = bank.worker();
    bank.settled().await;
    assert_eq!(endings(&outcomes(&bank), lost.command_id()), ["misrouted"]);
    let preview = bank.options.run_verb(&["dead-letters", "redrive", "--code", "misrouted"]);
    assert!(preview.stdout.contains("1 misrouted letter produced again"), "{preview:?}");
    let (said, report) = act(&bank, "redrive", &["--code", "misrouted"]);
    assert_eq!((said.code, &report["produced_again"]), (Some(0), &json!(1)), "{said:?}");
    bank.settled().await;
    assert_eq!(endings(&outcomes(&bank), lost.command_id()), ["misrouted", "applied"]);
    assert_eq!(letters(&bank, "redriven").await, 1);
    let log = consumer::read_all(&bank.cluster, &bank.topic);
    let again: Vec<i32> =
        log.iter().filter(|read| read.header("x-kept").is_some()).map(|read| read.partition).collect();
    assert_eq!(again.len(), 2);
    assert!(again.contains(&stored.partition), "{again:?}");
    let (said, report) = act(&bank, "redrive", &["--all"]);
    assert_eq!((said.code, &report["letters"]), (Some(0), &json!(0)), "{said:?}");
}

/// It is produced as it is, so a correction would be lost.
#[tokio::test]
async fn a_misrouted_letter_is_not_corrected_in_silence() {
    let _turn = support::heavy();
    let (_files, bank) = things("misrouted-edit", 3).await;
    let stored = bank.producer.send_one(&bank.topic, &note("key", "good"));
    bank.send(&[note("key", "good").on_partition((stored.partition + 1) % 3)]);
    let _worker = bank.worker();
    bank.settled().await;
    let arguments = ["dead-letters", "redrive", "--all", "--edit", "-", "--reason", "corrected", "--execute"];
    let said = bank.options.run_verb_with(&arguments, r#"{"word":"better"}"#);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("can't be corrected"), "{said:?}");
    assert_eq!(letters(&bank, "dead").await, 1);
}

/// The redrive that the halt asks for is larger than a batch, and begins with another key's letters.
#[tokio::test]
async fn a_partition_that_is_full_of_waiting_commands_goes_on_when_what_it_asks_for_is_requested() {
    let _turn = support::heavy();
    let (_files, mut bank) = things("full", 1).await;
    bank.options = bank.options.clone().setting("[worker]\nbatch_commands_max = 2\nwaiting_per_key_max = 5");
    let mut log = vec![note("first", "bad")];
    log.extend((0..4).map(|_| note("first", "good")));
    log.push(note("full", "bad"));
    log.extend((0..8).map(|_| note("full", "good")));
    bank.send(&log);
    let _worker = bank.worker();
    let halted = "partitions where halted_code = 'parked-limit'";
    wait_until("the halt", PATIENCE, async || bank.database.count(halted).await == 1).await;
    bank.database.execute("delete from poison").await;
    let (said, _) = act(&bank, "redrive", &["--topic", &bank.topic, "--partition", "0", "--timeout", "0s"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    let said = bank.options.run_verb(&["resume", &bank.topic, "--reason", "cured"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    bank.settled().await;
    // the log may be read to its end before the last letters have run
    let open = "requests where state = 'open'";
    wait_until("all requests to end", PATIENCE, async || bank.database.count(open).await == 0).await;
    assert_eq!(bank.database.count("processed_commands").await, 14);
    assert_eq!(bank.database.count("partitions where halted_code is not null").await, 0);
}

/// In structured mode the value holds id and type too: a correction must not make another command.
#[tokio::test]
async fn a_corrected_value_cannot_change_which_command_it_is() {
    let _turn = support::heavy();
    let (_files, bank) = things("structured", 1).await;
    let bad = note("key", "bad");
    let id = bad.command_id();
    let envelope = |id: Uuid, word: &str| {
        let data = json!({ "word": word });
        json!({ "specversion": "1.0", "id": id, "source": "/test", "type": "thing.note", "data": data }).to_string()
    };
    let structured = Record { headers: Vec::new(), ..bad }
        .header("content-type", "application/cloudevents+json")
        .value(envelope(id, "bad"));
    bank.send(&[structured]);
    let _worker = bank.worker();
    bank.settled().await;
    let edit = |value: String| {
        let arguments = ["dead-letters", "redrive", "--all", "--edit", "-", "--reason", "corrected", "--execute"];
        bank.options.run_verb_with(&arguments, &value)
    };
    let said = edit(envelope(Uuid::now_v7(), "good"));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("another id"), "{said:?}");
    assert_eq!(letters(&bank, "parked").await, 1);
    let said = edit(envelope(id, "good"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(endings(&outcomes(&bank), id), ["data-error", "applied"]);
}

#[tokio::test]
async fn what_is_requested_and_not_done_yet_can_be_taken_back() {
    let _turn = support::heavy();
    let (_files, bank) = things("withdrawn", 1).await;
    bank.send(&[note("key", "bad"), note("key", "good"), note("other", "bad")]);
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    let (said, report) = act(&bank, "redrive", &["--all", "--timeout", "0s"]);
    assert_eq!((said.code, &report["open"]), (Some(4), &json!(2)), "{said:?}");
    let preview = bank.options.run_verb(&["dead-letters", "withdraw", "--key", "key"]);
    assert!(preview.stdout.contains("something is requested of 2 letters; nothing is changed"), "{preview:?}");
    let (said, report) = act(&bank, "withdraw", &["--key", "key"]);
    assert_eq!((said.code, &report["withdrawn"]), (Some(0), &json!(1)), "{said:?}");
    // a letter of a key that is to run again can be given up, and only that one is
    let (said, _) = act(&bank, "discard", &["--key", "other", "--timeout", "0s"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    let _worker = bank.worker();
    wait_until("the discard", PATIENCE, async || letters(&bank, "discarded").await == 1).await;
    let open = "requests where state = 'open'";
    wait_until("all requests to end", PATIENCE, async || bank.database.count(open).await == 0).await;
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (1, 1));
    assert_eq!(bank.database.count("dead_letters where attempts > 1 and state <> 'discarded'").await, 0);
    assert_eq!(bank.database.count("operator_actions where action = 'withdraw'").await, 1);
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Tally {
    words: Vec<String>,
}

#[derive(Deserialize)]
struct Word {
    word: String,
}

impl Tally {
    fn fragile(&mut self, word: Word, cx: &mut Context<'_>) -> Result<usize, Rejection> {
        assert_ne!(word.word, "bad", "this version does not know it");
        self.robust(word, cx)
    }

    fn robust(&mut self, word: Word, cx: &mut Context<'_>) -> Result<usize, Rejection> {
        self.words.push(word.word);
        cx.emit("thing.noted", &self.words.len());
        Ok(self.words.len())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mended_handler_in_rust_goes_on_where_the_key_was_parked() {
    let _turn = support::heavy();
    let bank = Bank::open("mended", 1).await;
    let log: Vec<Record> = ["first", "bad", "third"].map(|word| note("acct-1", word)).into();
    bank.send(&log);
    let worker =
        embedded(&bank.options, |worker| worker.entity::<Tally>("account", |e| e.on("thing.note", Tally::fragile)));
    bank.settled().await;
    drop(worker);
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (1, 1));
    let _worker =
        embedded(&bank.options, |worker| worker.entity::<Tally>("account", |e| e.on("thing.note", Tally::robust)));
    let fourth = note("acct-1", "fourth");
    bank.send(std::slice::from_ref(&fourth));
    bank.settled().await;
    let (said, _) = act(&bank, "redrive", &["--key", "acct-1"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let entity = bank.database.rows("select version, state from entities").await;
    assert_eq!(entity, [json!({ "version": 4, "state": { "words": ["first", "bad", "third", "fourth"] } })]);
    assert_eq!(endings(&outcomes(&bank), log[1].command_id()), ["handler-failed", "applied"]);
    let events = consumer::read_all(&bank.cluster, &format!("{}.events", bank.topic));
    let counts: Vec<Value> = events.iter().map(consumer::Read::json).collect();
    assert_eq!(counts, [json!(1), json!(2), json!(3), json!(4)]);
}
