//! `replay republish` makes a downstream whole again: the same records, byte for byte, in the order of settlement,
//! without one command being run twice; and whatever interrupts it, the same command goes on.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use crate::support;
use crate::support::bank::{Bank, Traffic};
use crate::support::commands::of_command;
use crate::support::consumer::{self, Read};
use crate::support::declared::project;
use crate::support::patience::{PATIENCE, wait_for, wait_until};
use crate::support::producer::Record;
use crate::support::topics;
use crate::support::worker::{Said, Worker};

const TABLES: &str = "create table if not exists poison (word text primary key);";

const COMMANDS: &str = r#"
[[command]]
type = "thing.note"
[[command.step]]
sql = "select 1 / (1 - count(*)) as fine from poison where word = :word"
expect = 1
otherwise = { reject = "never" }
"#;

fn note(key: &str, word: &str) -> Record {
    Record::command("thing.note", key, &json!({ "word": word }))
}

/// What of a record has to be the same.
type Bytes = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

/// The records of a topic as they are, each partition's in their order.
fn on(bank: &Bank, topic: &str) -> BTreeMap<i32, Vec<Bytes>> {
    let mut partitions: BTreeMap<i32, Vec<Bytes>> = BTreeMap::new();
    for Read { partition, key, value, headers, .. } in consumer::read_all(&bank.cluster, topic) {
        partitions.entry(partition).or_default().push((key, value, headers));
    }
    partitions
}

/// The same without the copies of what came before.
fn first_occurrences(mut partitions: BTreeMap<i32, Vec<Bytes>>) -> BTreeMap<i32, Vec<Bytes>> {
    for records in partitions.values_mut() {
        let mut seen = HashSet::new();
        records.retain(|(_, _, headers)| {
            let id = headers.iter().find(|(name, _)| name == "ce_id");
            seen.insert(id.expect("every record has a ce_id").1.clone())
        });
    }
    partitions
}

fn count(partitions: &BTreeMap<i32, Vec<Bytes>>) -> usize {
    partitions.values().map(Vec::len).sum()
}

impl Bank {
    /// As many commands as are settled in many small batches, some repeated, some dead.
    async fn with_history(name: &str, partitions: i32, commands: usize) -> (Self, Worker) {
        let mut bank = Self::open(name, partitions).await;
        bank.options = bank.options.clone().setting("[worker]\nbatch_commands_max = 10");
        let mut log = Traffic::new(7, 40).commands(commands);
        log.insert(commands / 2, log[0].clone().value("no JSON").id(uuid::Uuid::now_v7()));
        log.insert(commands / 3, log[0].clone().without_header("ce_id"));
        bank.send(&log);
        let worker = bank.worker();
        bank.settled().await;
        (bank, worker)
    }

    /// A topic for copies, as many partitions as commands have.
    async fn downstream(&self, name: &str) -> String {
        topics::fresh(&self.cluster, name, topics::partition_count(&self.cluster, &self.topic)).await
    }

    fn outcomes_topic(&self) -> String {
        format!("{}.outcomes", self.topic)
    }

    fn events_topic(&self) -> String {
        format!("{}.events", self.topic)
    }

    fn republish(&self, arguments: &[&str]) -> (Said, Value) {
        let said = self.options.run_verb(&[&["replay", "republish", "-o", "json"], arguments].concat());
        let report = serde_json::from_str(&said.stdout).unwrap_or(Value::Null);
        (said, report)
    }

    fn republished(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--execute", "--reason", "downstream lost a day"]].concat();
        let (said, report) = self.republish(&arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
        report
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_published_is_published_again_byte_for_byte_and_in_order() {
    let _turn = support::heavy();
    let (bank, _worker) = Bank::with_history("again", 2, 400).await;
    let (outcomes, events) = (on(&bank, &bank.outcomes_topic()), on(&bank, &bank.events_topic()));
    let processed = bank.database.count("processed_commands").await;
    let cursors = "select sum(next_offset + batch_seq + fencing_token)::bigint from partitions";
    let before = bank.database.number(cursors).await;

    let (said, planned) = bank.republish(&[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!((&planned["executed"], &planned["outcomes"]), (&json!(false), &json!(count(&outcomes))));
    assert_eq!(planned["events"], json!(count(&events)));
    assert_eq!(planned["partitions"][0]["outcomes_topic"], json!(bank.outcomes_topic()));
    assert_eq!(
        (on(&bank, &bank.outcomes_topic()), on(&bank, &bank.events_topic())),
        (outcomes.clone(), events.clone())
    );
    assert_eq!(bank.database.count("operator_actions").await, 0, "a dry run changes nothing");
    assert_eq!(bank.republish(&["--execute"]).0.code, Some(2), "nobody acts without a reason");

    let (to_outcomes, to_events) = (bank.downstream("copied-outcomes").await, bank.downstream("copied-events").await);
    let done = bank.republished(&["--to-outcomes", &to_outcomes, "--to-events", &to_events]);
    assert_eq!((&done["executed"], &done["complete"]), (&json!(true), &json!(true)));
    assert_eq!(on(&bank, &to_outcomes), outcomes);
    assert_eq!(on(&bank, &to_events), events);

    // both to one topic, and to the topics that they came from: behind what is there
    let both = bank.downstream("copied-both").await;
    bank.republished(&["--to", &both]);
    assert_eq!(count(&on(&bank, &both)), count(&outcomes) + count(&events));
    bank.republished(&["--outcomes-only"]);
    let twice = on(&bank, &bank.outcomes_topic());
    for (partition, records) in &outcomes {
        assert_eq!(twice[partition], [records.as_slice(), records.as_slice()].concat());
    }
    assert_eq!(on(&bank, &bank.events_topic()), events);

    assert_eq!(bank.database.count("processed_commands").await, processed, "no command was run");
    assert_eq!(bank.database.number(cursors).await, before);
    assert_eq!(bank.database.count("republications").await, 0);
    let audited = bank.options.run_verb(&["audit", "--action", "republish"]);
    assert!(audited.stdout.contains("downstream lost a day") && audited.stdout.contains(&to_outcomes), "{audited:?}");
    assert_eq!(bank.republish(&["--to", &bank.topic]).0.code, Some(2), "outcomes are no commands");
    let missing = bank.republish(&["--to", "nobody-has-made-this"]).0;
    assert!(missing.code == Some(2) && missing.stderr.contains("--create --topic nobody-has-made-this"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_offsets_one_entity_or_one_type_can_be_published_again() {
    let _turn = support::heavy();
    let (bank, _worker) = Bank::with_history("narrow", 1, 200).await;
    let originals = consumer::read_all(&bank.cluster, &bank.outcomes_topic());
    let place = |read: &Read| read.json()["offset"].as_i64().expect("an outcome has an offset");

    let part = bank.downstream("part").await;
    bank.republished(&[&format!("{}:0:33-77", bank.topic), "--outcomes-only", "--to", &part]);
    let copied = consumer::read_all(&bank.cluster, &part);
    let expected: HashSet<_> = originals.iter().map(&place).filter(|offset| (33..77).contains(offset)).collect();
    let got: HashSet<_> = copied.iter().map(&place).collect();
    assert!(expected.is_subset(&got), "{:?} are missing", expected.difference(&got));
    // and repeats within the batches of the range, whose own offsets nobody knows
    let more: Vec<_> = copied.iter().filter(|read| !expected.contains(&place(read))).collect();
    assert!(more.len() < 20 && more.iter().all(|read| of_command(&originals, id(read)).len() > 1), "{more:?}");

    let one = bank.downstream("one").await;
    bank.republished(&["--key", "acct-7", "--to", &one]);
    let copied = consumer::read_all(&bank.cluster, &one);
    assert!(!copied.is_empty() && copied.iter().all(|read| read.key.as_deref() == Some(b"acct-7")));
    let of_type = bank.downstream("of-type").await;
    bank.republished(&["--type", "account.open", "--outcomes-only", "--to", &of_type]);
    let copied = consumer::read_all(&bank.cluster, &of_type);
    assert!(!copied.is_empty() && copied.iter().all(|read| read.json()["command_type"] == "account.open"));
}

fn id(read: &Read) -> uuid::Uuid {
    read.json()["command_id"].as_str().and_then(|id| id.parse().ok()).expect("an outcome names its command")
}

/// Rows of letters are overwritten by later attempts: what can be told is the same, what cannot is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_redriven_and_discarded_letters_are_published_again_as_they_were() {
    let _turn = support::heavy();
    let (_files, bank) = project("letters", "thing", 1, TABLES, COMMANDS).await;
    bank.database.execute("insert into poison values ('bad'), ('worse')").await;
    bank.send(&[
        note("a", "good"),
        note("b", "bad"),
        note("b", "good"),
        note("c", "bad"),
        note("d", "good").value("no JSON"),
        note("e", "worse"),
    ]);
    let _worker = bank.worker();
    bank.settled().await;
    bank.database.execute("delete from poison where word = 'bad'").await;
    let act = |verb: &str, key: &str, expected: i32| {
        let said = bank.options.run_verb(&["dead-letters", verb, "--key", key, "--reason", "the test", "--execute"]);
        assert_eq!(said.code, Some(expected), "{said:?}");
    };
    act("redrive", "b", 0);
    act("discard", "c", 0);
    bank.send(&[note("a", "good")]);
    bank.settled().await;
    let outcomes = on(&bank, &bank.outcomes_topic());
    let copies = bank.downstream("letters-again").await;
    let done = bank.republished(&["--outcomes-only", "--to", &copies]);
    assert_eq!(done["partitions"][0]["overwritten"], 0);
    assert_eq!(on(&bank, &copies), outcomes, "outcomes of every attempt, in the order of settlement");

    // the first attempt of this one is overwritten by the second
    act("redrive", "e", 1);
    // its batch moves no offset
    let published = "partitions where published_seq = batch_seq";
    wait_until("the attempt to be published", PATIENCE, async || bank.database.count(published).await == 1).await;
    let (_, planned) = bank.republish(&["--outcomes-only"]);
    assert_eq!(planned["partitions"][0]["overwritten"], 1, "{planned}");
    assert_eq!(planned["outcomes"], json!(count(&on(&bank, &bank.outcomes_topic())) - 1));
}

/// At a rate, so that it is in the middle when it is interrupted; the records that are there tell how far it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_command_goes_on_after_a_stop_and_after_kill_9() {
    let _turn = support::heavy();
    let (bank, _worker) = Bank::with_history("resumed", 2, 400).await;
    let originals = on(&bank, &bank.outcomes_topic());
    let copies = bank.downstream("resumed-copies").await;
    let command = ["replay", "republish", "--outcomes-only", "--to", &copies, "--reason", "the test", "--execute"];
    let at_least = |wanted: usize| {
        wait_for(format!("{wanted} copies"), PATIENCE, || (count(&on(&bank, &copies)) >= wanted).then_some(()));
    };
    let noted = "select sum(done_seq - after_seq)::bigint from republications";

    // stopped: what it has sent is there and noted; the rest was never sent
    let mut running = Worker::start_verb(&bank.options, &[&command[..], &["--rate", "50"]].concat());
    at_least(40);
    assert_eq!(running.sigterm_and_wait().code(), Some(1), "{}", running.output());
    assert!(running.output().contains("the same command goes on"), "{}", running.output());
    let sent = count(&on(&bank, &copies));
    assert!(sent < count(&originals) / 2, "{sent} at a rate of 50 a second");
    assert!(bank.database.number(noted).await > Some(0));

    // killed: some may come twice
    let mut running = Worker::start_verb(&bank.options, &[&command[..], &["--rate", "100"]].concat());
    at_least(sent + 60);
    running.kill9();
    assert!(bank.database.number(noted).await > Some(0));

    let said = bank.options.run_verb(&[&command[..], &["-o", "json"]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    let done: Value = serde_json::from_str(&said.stdout).expect("one JSON document");
    assert!(done["partitions"][0]["goes_on_from"].is_string(), "{done}");
    assert!(done["outcomes"].as_u64() < Some(count(&originals) as u64), "it did not begin anew: {done}");
    assert_eq!(first_occurrences(on(&bank, &copies)), first_occurrences(originals.clone()));
    assert_eq!(bank.database.count("republications").await, 0);

    // what was ended is begun anew
    let again = bank.republished(&["--outcomes-only", "--to", &copies]);
    assert_eq!(
        (&again["outcomes"], &again["partitions"][0]["goes_on_from"]),
        (&json!(count(&originals)), &Value::Null)
    );
}

/// Batches are dropped when they are older than the window: then nobody knows the order any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_kept_is_said() {
    let _turn = support::heavy();
    let (bank, mut worker) = Bank::with_history("dropped", 1, 100).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
    // the log need not have what the tables have
    topics::delete_records(&bank.cluster, &bank.topic, 0, 60).await;
    let all = count(&on(&bank, &bank.outcomes_topic()));
    assert_eq!(bank.republish(&["--outcomes-only"]).1["outcomes"], json!(all));

    bank.database
        .execute("delete from processed_timed where \"offset\" in (select max(\"offset\") from processed_timed)")
        .await;
    assert_eq!(bank.republish(&["--outcomes-only"]).1["partitions"][0]["forgotten"], 1);
    bank.database.execute("delete from batches where batch_seq <= 3").await;
    let kept = bank.database.number("select min(first_offset) from batches").await;
    let (said, planned) = bank.republish(&["--outcomes-only"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(planned["partitions"][0]["dropped"], json!({ "from": 0, "to": kept }));
    let said = bank.options.run_verb(&["replay", "republish"]);
    assert!(said.stdout.contains("in which order, is no longer known"), "{said:?}");
    // one that is dropped behind the first that is kept
    bank.database.execute("delete from batches where batch_seq = 6").await;
    assert_eq!(bank.republish(&["--outcomes-only"]).1["partitions"][0]["dropped_since"], 1);
    bank.database.execute("delete from batches").await;
    assert_eq!(bank.republish(&["--outcomes-only"]).0.code, Some(1));
}
