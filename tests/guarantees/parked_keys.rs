//! A command that fails on its own account holds its key and nobody else; what waits runs again in
//! the order of the log, once, whatever is killed meanwhile.

use std::collections::HashMap;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{endings, now_ms, v7_at};
use crate::support::declared::project;
use crate::support::halted::halted;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::Record;
use crate::support::scratch::Scratch;
use crate::support::worker::{Said, Worker};
use crate::support::{consumer, topics};

/// What is poison is a row, so that it can be cured under a running worker.
pub(crate) const TABLES: &str = "
    create table if not exists poison (word text primary key);
    create table if not exists notes (
        id uuid primary key, thing text not null, n bigint not null, word text not null, unique (thing, n));";

pub(crate) const COMMANDS: &str = r#"
[[command]]
type = "thing.note"
reply = { n = ":note.n" }
[[command.step]]
sql = "select 1 / (1 - count(*)) as fine from poison where word = :word"
expect = 1
otherwise = { reject = "never" }
[[command.step]]
sql = """
insert into notes (id, thing, n, word)
select :command_id, :entity_id, count(*) + 1, :word from notes where thing = :entity_id
returning n"""
expect = 1
into = "note"
otherwise = { reject = "never" }
"#;

pub(crate) async fn things(name: &str, partitions: i32) -> (Scratch, Bank) {
    let (files, bank) = project(name, "thing", partitions, TABLES, COMMANDS).await;
    bank.database.execute("insert into poison values ('bad')").await;
    (files, bank)
}

pub(crate) fn note(key: &str, word: &str) -> Record {
    Record::command("thing.note", key, &json!({ "word": word }))
}

async fn cure(bank: &Bank) {
    bank.database.execute("delete from poison").await;
}

fn redrive(bank: &Bank, more: &[&str]) -> (Said, Value) {
    act(bank, "redrive", more)
}

fn act(bank: &Bank, verb: &str, more: &[&str]) -> (Said, Value) {
    let arguments = ["dead-letters", verb, "-o", "json", "--reason", "the test", "--execute"];
    let said = bank.options.run_verb(&[&arguments, more].concat());
    let report = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    (said, report)
}

pub(crate) async fn letters(bank: &Bank, state: &str) -> i64 {
    bank.database.count(&format!("dead_letters where state = '{state}'")).await
}

/// The outcomes of a topic, in the order of their partitions.
fn outcomes(bank: &Bank) -> Vec<consumer::Read> {
    consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic))
}

/// Every command of these is applied once, each entity's in the order of the log, without a gap.
async fn applied_once_and_in_order(bank: &Bank, log: &[Record]) {
    let mut expected: HashMap<String, Vec<String>> = HashMap::new();
    for record in log {
        let of_key = expected.entry(String::from_utf8(record.key.clone().expect("a key")).expect("text")).or_default();
        let id = record.command_id().to_string();
        if !of_key.contains(&id) {
            of_key.push(id);
        }
    }
    let rows = bank
        .database
        .rows(
            "select entity_id, array_agg(command_id::text order by version) as ids, min(version) as first,
                    max(version) as last
               from processed_commands where outcome = 'applied' group by entity_id",
        )
        .await;
    assert_eq!(rows.len(), expected.len());
    for row in rows {
        let key = row["entity_id"].as_str().expect("a key");
        assert_eq!(row["ids"], json!(expected[key]), "{key}");
        assert_eq!((row["first"].as_i64(), row["last"].as_i64()), (Some(1), Some(expected[key].len() as i64)), "{key}");
    }
    let numbers = "select count(*) from (select n - row_number() over (partition by thing order by n) as gap
                     from notes) g where gap <> 0";
    assert_eq!(bank.database.number(numbers).await, Some(0), "the team's own table has a gap");
    assert_eq!(bank.database.count("notes").await, bank.database.count("processed_commands").await);
}

/// 1,000 commands of one key, the first of them poison, among 50 keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poison_command_holds_its_own_key_and_no_other() {
    let _turn = support::heavy();
    let (_files, bank) = things("poison", 1).await;
    let mut log = vec![note("key-0", "bad")];
    for n in 1..1_000 {
        log.push(note("key-0", "good"));
        log.push(note(&format!("key-{}", 1 + n % 49), "good"));
    }
    bank.send(&log);
    let worker = bank.worker();
    bank.settled().await;
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (1, 999));
    assert_eq!(bank.database.count("processed_commands").await, 999, "the others went on");
    assert_eq!(bank.database.count("entities where entity_id = 'key-0'").await, 0);
    let parked = bank.database.rows("select entity_id, waiting from parked_keys").await;
    assert_eq!(parked, [json!({ "entity_id": "key-0", "waiting": 999 })]);
    assert_eq!(worker.metrics().sum("solewriter_parked_keys", &[]) as i64, 1);
    let status: Value =
        serde_json::from_str(&bank.options.run_verb(&["status", "-o", "json"]).stdout).expect("a document");
    assert_eq!(status["partitions"][0]["parked_keys"], 1);

    // a repeat of what was settled before is answered while its key is parked; of what waits it waits
    bank.send(&[log[2].clone(), log[1].clone()]);
    bank.settled().await;
    let read = outcomes(&bank);
    assert_eq!(endings(&read, log[2].command_id()), ["applied", "applied"]);
    assert_eq!(endings(&read, log[1].command_id()), ["parked-key", "parked-key"]);

    // before the cure it fails again, is parked again, and nothing passes it
    let (said, report) = redrive(&bank, &["--key", "key-0"]);
    assert_eq!((said.code, &report["letters"], &report["keys"]), (Some(1), &json!(1_001), &json!(1)), "{said:?}");
    assert!(report["refused"][0]["why"].as_str().is_some_and(|why| why.contains("data-error")), "{report}");
    assert_eq!(bank.database.count("dead_letters where state = 'parked' and attempts = 2").await, 1);
    assert_eq!(bank.database.count("processed_commands where entity_id = 'key-0'").await, 0);

    cure(&bank).await;
    let (said, report) = redrive(&bank, &["--key", "key-0"]);
    assert_eq!((said.code, &report["done"]), (Some(0), &json!(1)), "{said:?}");
    assert_eq!(letters(&bank, "redriven").await, 1_001);
    assert_eq!(bank.database.count("parked_keys").await, 0);
    let later = note("key-0", "good");
    bank.send(std::slice::from_ref(&later));
    log.push(later);
    bank.settled().await;
    applied_once_and_in_order(&bank, &log).await;
    let read = outcomes(&bank);
    assert_eq!(endings(&read, log[0].command_id()), ["data-error", "data-error", "applied"]);
    assert_eq!(endings(&read, log[1].command_id()), ["parked-key", "parked-key", "applied", "applied"]);
    assert_eq!(bank.database.count("operator_actions where action = 'redrive'").await, 2);
}

/// Two workers and 100 parked keys; whoever owns the partition is killed ten times while they are
/// redriven, and a copy of every command arrives meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_has_one_effect_per_command_whoever_is_killed_and_whatever_is_repeated() {
    let _turn = support::heavy();
    let (_files, mut bank) = things("redriven", 2).await;
    // small batches: more moments to be hit at
    bank.options =
        bank.options.clone().property("session.timeout.ms", "2000").setting("[worker]\nbatch_commands_max = 50");
    let mut workers = [bank.worker(), bank.worker()];
    let mut log = Vec::new();
    for n in 0..10_000 {
        let word = if n < 100 { "bad" } else { "good" };
        log.push(note(&format!("key-{}", n % 100), word));
    }
    bank.send(&log);
    bank.settled().await;
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (100, 9_900));
    cure(&bank).await;
    let copies = bank.send_in_background(log.clone());
    let options = bank.options.clone();
    let redriving = std::thread::spawn(move || {
        let arguments = ["dead-letters", "redrive", "--all", "--reason", "cured", "--execute", "--timeout", "120s"];
        options.run_verb(&arguments)
    });
    let mut random = Rng::with_seed(6);
    for kill in 0..10 {
        let before = letters(&bank, "redriven").await;
        wait_until("some more redriven letters", PATIENCE, async || {
            let now = letters(&bank, "redriven").await;
            now > before + random.i64(50..200)
        })
        .await;
        assert!(bank.database.count("parked_keys").await > 0, "kill {kill}: all are redriven already");
        let victim = &mut workers[kill % 2];
        victim.kill9();
        *victim = Worker::start(&bank.options);
    }
    copies.join().expect("the copies");
    let said = redriving.join().expect("the verb");
    assert_eq!(said.code, Some(0), "{said:?}");
    bank.settled().await;
    wait_until("the copies that came while their keys were parked", PATIENCE, async || {
        let left = letters(&bank, "waiting").await + letters(&bank, "parked").await;
        if left > 0 {
            redrive(&bank, &["--all"]);
        }
        left == 0
    })
    .await;
    applied_once_and_in_order(&bank, &log).await;
    let ended = consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    let applied = ended.iter().filter(|read| read.json()["outcome"] == "applied").count();
    assert!(applied >= 10_000, "{applied} applied outcomes");
}

#[tokio::test]
async fn a_discarded_letter_is_given_up_and_what_waited_behind_it_runs_when_it_is_redriven() {
    let _turn = support::heavy();
    let (_files, bank) = things("discarded", 1).await;
    let log = [note("key", "bad"), note("key", "good"), note("key", "good")];
    bank.send(&log);
    let _worker = bank.worker();
    bank.settled().await;
    let preview = bank.options.run_verb(&["dead-letters", "discard", "--code", "data-error"]);
    assert_eq!(preview.code, Some(0), "{preview:?}");
    assert!(preview.stdout.contains("given up: 1 letter (1 parked, 0 waiting)"), "{preview:?}");
    assert!(preview.stdout.contains("nothing is changed"), "{preview:?}");
    assert_eq!(letters(&bank, "discarded").await, 0);

    let (said, _) = act(&bank, "discard", &["--code", "data-error"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!((letters(&bank, "discarded").await, letters(&bank, "waiting").await), (1, 2));
    let (said, _) = redrive(&bank, &["--key", "key"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    bank.settled().await;
    applied_once_and_in_order(&bank, &log[1..]).await;
    assert_eq!(endings(&outcomes(&bank), log[0].command_id()), ["data-error", "discarded"]);
    assert_eq!(bank.database.count("dead_letters where code = 'data-error' and state = 'discarded'").await, 1);
}

#[tokio::test]
async fn an_edited_payload_is_recorded_beside_the_original_and_keeps_its_id() {
    let _turn = support::heavy();
    let (_files, bank) = things("edited", 1).await;
    let bad = note("key", "bad");
    bank.send(std::slice::from_ref(&bad));
    let _worker = bank.worker();
    bank.settled().await;
    let id = bank.database.number("select dead_letter_id from dead_letters").await.expect("a letter").to_string();
    let arguments = ["dead-letters", "redrive", "--letter", &id, "--edit", "-", "--reason", "corrected", "--execute"];
    bank.database.execute("insert into poison values ('better')").await;
    let said = bank.options.run_verb_with(&arguments, r#"{"word":"better"}"#);
    assert_eq!(said.code, Some(1), "{said:?}");
    // the correction fails too, and stays the correction when the cause is mended
    cure(&bank).await;
    let (said, _) = redrive(&bank, &["--letter", &id]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(bank.database.count("notes where word = 'better'").await, 1);
    let row = bank
        .database
        .rows("select convert_from(value, 'UTF8') as was, convert_from(edited_value, 'UTF8') as is from dead_letters")
        .await;
    assert_eq!(row, [json!({ "was": r#"{"word":"bad"}"#, "is": r#"{"word":"better"}"# })]);
    // the original is the command: its repeat is a duplicate, not another command under its id
    bank.send(std::slice::from_ref(&bad));
    bank.settled().await;
    assert_eq!(endings(&outcomes(&bank), bad.command_id()), ["data-error", "data-error", "applied", "applied"]);
}

/// A corrected copy may have run and been forgotten: an operator says that it has not.
#[tokio::test]
async fn an_id_below_the_horizon_runs_only_if_an_operator_accepts_it_and_is_remembered_then() {
    let _turn = support::heavy();
    let (_files, bank) = things("accepted", 1).await;
    let old = note("key", "good").id(v7_at(now_ms() - 20 * 86_400_000));
    bank.send(std::slice::from_ref(&old));
    let _worker = bank.worker();
    bank.settled().await;
    let (said, report) = redrive(&bank, &["--all"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(report["refused"][0]["why"].as_str().is_some_and(|why| why.contains("--accept-expired")), "{report}");
    let (said, _) = redrive(&bank, &["--all", "--accept-expired"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    // not in a day that the next pass of the maintenance drops
    assert_eq!(bank.database.count("processed_untimed").await, 1);
    bank.send(std::slice::from_ref(&old));
    bank.settled().await;
    assert_eq!(endings(&outcomes(&bank), old.command_id()), ["expired", "applied", "applied"]);
    assert_eq!(bank.database.count("notes").await, 1);
}

#[tokio::test]
async fn the_policies_skip_and_halt_partition_are_obeyed() {
    let _turn = support::heavy();
    let (_files, mut bank) = things("policies", 1).await;
    let stock = bank.options.clone();
    bank.options = stock.clone().on_failure("skip");
    let mut worker = bank.worker();
    let log = [note("key", "bad"), note("key", "good")];
    bank.send(&log);
    bank.settled().await;
    assert_eq!((letters(&bank, "dead").await, bank.database.count("processed_commands").await), (1, 1));
    assert_eq!(bank.database.count("parked_keys").await, 0);
    worker.sigterm_and_wait();

    bank.options = stock.on_failure("halt-partition");
    let worker = bank.worker();
    let (before, bad) = (note("other", "good"), note("third", "bad"));
    bank.send(&[before.clone(), bad.clone()]);
    let told = halted(&bank, &worker, 0).await;
    assert_eq!(told.code, "handler-failed");
    for part in [":3 failed, data-error", "nothing behind it runs", "--skip-to 4"] {
        assert!(told.detail.contains(part), "{part}: {told:?}");
    }
    assert_eq!(
        bank.database.number("select next_offset from partitions").await,
        Some(3),
        "what lies before is settled"
    );
    cure(&bank).await;
    let resumed = bank.options.run_verb(&["resume", &bank.topic, "--reason", "cured"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    bank.settled().await;
    assert_eq!(endings(&outcomes(&bank), bad.command_id()), ["applied"]);
}

#[tokio::test]
async fn more_waiting_commands_than_may_halt_the_partition_and_lose_nothing() {
    let _turn = support::heavy();
    let (_files, mut bank) = things("limit", 1).await;
    bank.options = bank.options.clone().setting("[worker]\nwaiting_per_key_max = 5");
    let worker = bank.worker();
    let mut log = vec![note("key", "bad")];
    log.extend((0..10).map(|_| note("key", "good")));
    bank.send(&log);
    let told = halted(&bank, &worker, 0).await;
    assert_eq!(told.code, "parked-limit");
    let list = format!("solewriter dead-letters list --topic {} --partition 0 --state parked", bank.topic);
    let redrive = format!("solewriter dead-letters redrive --topic {} --partition 0 --reason … --execute", bank.topic);
    for part in ["5 commands wait behind the parked key \"key\"", &list, &redrive] {
        assert!(told.detail.contains(part), "{part}: {told:?}");
    }
    assert_eq!(bank.database.number("select next_offset from partitions").await, Some(6));
    assert_eq!(letters(&bank, "waiting").await, 5);
    cure(&bank).await;
    // the owner of a halted partition changes nothing: the request waits for the resume
    let resume = ["resume", &*bank.topic, "--reason", "cured"];
    let typed = redrive.replace('…', "cured") + " --timeout 1s";
    let asked = bank.options.run_verb(&typed.split_whitespace().skip(1).collect::<Vec<_>>());
    assert_eq!(asked.code, Some(4), "{asked:?}");
    assert!(asked.stdout.contains("stay requested"), "{asked:?}");
    let resumed = bank.options.run_verb(&resume);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    wait_until("all to be applied", PATIENCE, async || bank.database.count("processed_commands").await == 11).await;
    applied_once_and_in_order(&bank, &log).await;
}

#[tokio::test]
async fn a_flood_of_dead_letters_halts_the_partition_instead_of_draining_the_topic() {
    let _turn = support::heavy();
    let (_files, mut bank) = things("flood", 1).await;
    bank.options = bank
        .options
        .clone()
        .setting("[worker]\nbatch_commands_max = 50\ndead_letter_flood_records = 200\ndead_letter_flood_percent = 50");
    let worker = bank.worker();
    let unknown = |n: usize| Record::command("thing.unheard-of", &format!("key-{n}"), &json!({}));
    let fine: Vec<Record> = (0..200).map(|n| note(&format!("key-{n}"), "good")).collect();
    bank.send(&fine);
    bank.settled().await;
    let flood: Vec<Record> = (0..1_000).map(unknown).collect();
    bank.send(&flood);
    let told = halted(&bank, &worker, 0).await;
    assert_eq!(told.code, "dead-letter-flood");
    let list = format!("solewriter dead-letters list --topic {} --partition 0", bank.topic);
    assert!(told.detail.contains(" are dead letters") && told.detail.contains(&list), "{told:?}");
    let dead = letters(&bank, "dead").await;
    assert!((100..400).contains(&dead), "{dead} dead letters");
    assert_eq!(topics::watermarks(&bank.cluster, &bank.topic, 0).1, 1_200);
}
