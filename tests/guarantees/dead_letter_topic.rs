//! Every dead letter that is written goes to the dead-letter topic as well, if there is one: its
//! bytes as they were, why it is dead behind them, in order, whatever is killed meanwhile.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{deposit, open};
use crate::support::consumer::Read;
use crate::support::declared::project;
use crate::support::patience::{PATIENCE, wait_for, wait_until};
use crate::support::producer::{Record, Stored};
use crate::support::scratch::Scratch;
use crate::support::worker::WorkerOptions;
use crate::support::{consumer, topics};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What is poison is a row, so that it can be cured under a running worker.
const TABLES: &str = "create table if not exists poison (word text primary key);";

const COMMANDS: &str = r#"
[[command]]
type = "thing.note"
[[command.step]]
sql = "select 1 / (1 - count(*)) as fine from poison where word = :word"
expect = 1
otherwise = { reject = "never" }
"#;

fn dlq(bank: &Bank) -> String {
    format!("{}.dlq", bank.topic)
}

/// The bank's options with its topic's dead letters mirrored.
fn mirrored(bank: &Bank, options: &WorkerOptions) -> WorkerOptions {
    let entity = &options.topics[0].1;
    let (topic, dlq) = (&bank.topic, dlq(bank));
    options.clone().setting(&format!("[[topics]]\nname = {topic:?}\nentity = {entity:?}\ndead_letter_topic = {dlq:?}"))
}

async fn mirrored_bank(name: &str, partitions: i32) -> Bank {
    let mut bank = Bank::open(name, partitions).await;
    bank.options = mirrored(&bank, &bank.options);
    bank
}

async fn mirrored_things(name: &str) -> (Scratch, Bank) {
    let (files, mut bank) = project(name, "thing", 1, TABLES, COMMANDS).await;
    bank.options = mirrored(&bank, &bank.options);
    bank.database.execute("insert into poison values ('bad')").await;
    (files, bank)
}

fn note(key: &str, word: &str) -> Record {
    Record::command("thing.note", key, &json!({ "word": word }))
}

fn read(bank: &Bank) -> Vec<Read> {
    consumer::read_all(&bank.cluster, &dlq(bank))
}

/// One of the headers that say why.
fn why<'r>(read: &'r Read, name: &str) -> Option<&'r str> {
    read.header(&format!("__dlq.errors.{name}"))
}

/// Where the record came from.
fn origin(read: &Read) -> Stored {
    let number = |name| why(read, name).and_then(|text| text.parse().ok()).expect("a number");
    let partition = i32::try_from(number("partition")).expect("a partition");
    Stored { partition, offset: number("offset") }
}

fn offsets(letters: &[Read]) -> Vec<i64> {
    letters.iter().map(|letter| origin(letter).offset).collect()
}

/// The record's own headers: those in front of ours.
fn own_headers(read: &Read) -> &[(String, Option<Vec<u8>>)] {
    let ours = read.headers.iter().position(|(name, _)| name.starts_with("__dlq.errors."));
    &read.headers[..ours.expect("why it is dead")]
}

fn assert_as_it_was(letter: &Read, record: &Record) {
    assert_eq!((&letter.key, &letter.value), (&record.key, &record.value));
    assert_eq!(own_headers(letter), record.headers);
}

/// Records that cannot be commands, each in its own way; of some of them not even the id is known.
fn strange() -> Vec<Record> {
    let mut headers = deposit("acct-1", 1).without_header("ce_id").header("bytes", b"\xff\0\xfe").header("empty", b"");
    headers.headers.extend([("null".to_owned(), None), ("twice".to_owned(), Some(b"1".to_vec()))]);
    headers.headers.extend([("null".to_owned(), None), ("twice".to_owned(), Some(b"2".to_vec()))]);
    vec![
        headers,
        Record::default(),
        deposit("acct-1", 1).key(b"\xff\0\xfe"),
        deposit("acct-1", 1).value(b"\xff\0{"),
        Record { key: Some(Vec::new()), value: Some(Vec::new()), ..Record::default() },
        Record { value: None, ..deposit("acct-1", 1) },
        deposit("acct-1", 1).value("[1]").header("traceparent", TRACE),
    ]
}

#[tokio::test]
async fn a_dead_letter_is_mirrored_with_its_bytes_and_the_reason() {
    let _turn = support::heavy();
    let bank = mirrored_bank("mirror", 1).await;
    let used = open("acct-1", 1);
    let mut log = vec![used.clone()];
    log.extend(strange());
    // an id that belongs to another command publishes no outcome either
    log.push(deposit("acct-1", 2).id(used.command_id()));
    log.push(deposit("acct-1", 3));
    let stored = bank.producer.send(&bank.topic, &log);
    let _worker = bank.worker();
    bank.settled().await;

    let letters = read(&bank);
    let dead = 1..log.len() - 1;
    assert_eq!(offsets(&letters), stored[dead.clone()].iter().map(|stored| stored.offset).collect::<Vec<_>>());
    for (letter, record) in letters.iter().zip(&log[dead]) {
        assert_as_it_was(letter, record);
    }
    let codes: Vec<_> = letters.iter().map(|letter| why(letter, "code").expect("a code")).collect();
    let malformed = "malformed-payload";
    let expected =
        ["missing-id", "malformed-key", "malformed-key", malformed, "malformed-key", malformed, malformed, "id-reuse"];
    assert_eq!(codes, expected);
    let traced = &letters[6];
    assert_eq!(traced.header("traceparent"), Some(TRACE));
    let row = "select dead_letter_id, detail, to_char(record_time at time zone 'UTC',
                      'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as at from dead_letters where \"offset\" = 7";
    let row = bank.database.rows(row).await.remove(0);
    let says = |name| json!(why(traced, name));
    assert_eq!((says("message"), says("timestamp")), (row["detail"].clone(), row["at"].clone()));
    assert_eq!(says("letter"), json!(row["dead_letter_id"].to_string()));
    assert_eq!((says("topic"), says("group")), (json!(bank.topic), json!(bank.options.group_id)));
    assert_eq!((says("state"), says("entity.type")), (json!("dead"), json!("account")));
    assert_eq!(says("delivery.count"), json!("1"));
    assert_eq!(says("omitted"), Value::Null);
}

/// Beside the log that they came from, as far as the topic has as many partitions; it is made with
/// the command topic's count.
#[tokio::test]
async fn letters_go_to_the_partition_of_their_record_modulo_the_count() {
    let _turn = support::heavy();
    let bank = mirrored_bank("mirror-places", 4).await;
    topics::create(&bank.cluster, &dlq(&bank), 3, &[]).await;
    let log: Vec<Record> = (0..4).map(|p| Record::default().on_partition(p)).collect();
    bank.send(&log);
    let worker = bank.worker();
    bank.settled().await;
    let letters = read(&bank);
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|letter| letter.partition == origin(letter).partition % 3));
    drop(worker);

    let made = mirrored_bank("mirror-made", 4).await;
    assert_eq!(check(&made)["detail"], "does not exist yet");
    let _worker = made.worker();
    assert_eq!(topics::partition_count(&made.cluster, &dlq(&made)), 4);
    assert_eq!(check(&made)["detail"], "4 partitions");
    // it would refuse letters without a key
    topics::set(&made.cluster, &dlq(&made), &[("cleanup.policy", "compact")]).await;
    let compacted = check(&made);
    assert_eq!(compacted["status"], "failed");
    let cure = compacted["cure"].as_str().expect("a cure");
    assert!(cure.contains(&format!("{} --add-config cleanup.policy=delete", dlq(&made))), "{cure}");
}

/// What `check` says of the dead-letter topic.
fn check(bank: &Bank) -> Value {
    let said = bank.options.run_verb(&["check", "-o", "json"]);
    let said: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let checks = said["checks"].as_array().expect("checks");
    let name = format!("topic {}", dlq(bank));
    checks.iter().find(|check| check["name"] == name).expect("the dead-letter topic").clone()
}

#[tokio::test]
async fn nothing_is_mirrored_without_the_key_and_what_is_configured_when_it_is_published_decides() {
    let _turn = support::heavy();
    let mut bank = Bank::open("mirror-off", 1).await;
    bank.send(&[Record::default()]);
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(topics::partition_count(&bank.cluster, &dlq(&bank)), 0);
    assert!(worker.sigterm_and_wait().success());
    // what a crash would have left behind
    bank.database.execute("update partitions set published_seq = 0, published_offset = 0").await;
    bank.options = mirrored(&bank, &bank.options);
    bank.send(&[Record::default()]);
    let _worker = bank.worker();
    bank.settled().await;
    assert_eq!(offsets(&read(&bank)), [0, 1]);
}

#[tokio::test]
async fn a_header_of_the_producer_is_never_taken_for_the_reason() {
    let _turn = support::heavy();
    let bank = mirrored_bank("mirror-forged", 1).await;
    bank.send(&[Record::default().header("__dlq.errors.code", "forged").header("__dlq.errors.omitted", "value")]);
    let _worker = bank.worker();
    bank.settled().await;
    let letter = &read(&bank)[0];
    assert_eq!((why(letter, "code"), why(letter, "omitted")), (Some("malformed-key"), None));
    assert_eq!(letter.header("__dlq.original.__dlq.errors.code"), Some("forged"));
}

/// Parked, waiting, and again when they fail again; not when they are run to their end or given up.
#[tokio::test]
async fn each_attempt_that_fails_is_mirrored_with_the_record_as_it_was() {
    let _turn = support::heavy();
    let (_files, bank) = mirrored_things("mirror-attempts").await;
    let log = [note("key", "bad"), note("key", "good")];
    bank.send(&log);
    let _worker = bank.worker();
    bank.settled().await;
    let said = |letters: &[Read]| -> Vec<String> {
        let said = |letter: &Read| {
            let says = |name| why(letter, name).unwrap_or_default();
            format!("{} {} {}", says("state"), says("code"), says("delivery.count"))
        };
        letters.iter().map(said).collect()
    };
    let first = ["parked data-error 1", "waiting parked-key 1"];
    assert_eq!(said(&read(&bank)), first);

    let act = |arguments: &[&str], input: &str| {
        let verb = ["dead-letters", "redrive", "--reason", "the test", "--execute"];
        bank.options.run_verb_with(&[&verb, arguments].concat(), input)
    };
    assert_eq!(act(&["--key", "key"], "").code, Some(1));
    // and once more with a corrected value, which is no better
    bank.database.execute("insert into poison values ('worse')").await;
    let letter = bank.database.number("select min(dead_letter_id) from dead_letters").await.expect("a letter");
    let edited = act(&["--letter", &letter.to_string(), "--edit", "-"], r#"{"word":"worse"}"#);
    assert_eq!(edited.code, Some(1), "{edited:?}");
    bank.settled().await;
    let letters = read(&bank);
    assert_eq!(said(&letters), [&first[..], &["parked data-error 2", "parked data-error 3"]].concat());
    for letter in [&letters[0], &letters[2], &letters[3]] {
        assert_as_it_was(letter, &log[0]);
    }

    bank.database.execute("delete from poison").await;
    let discard = ["dead-letters", "discard", "--code", "data-error", "--reason", "the test", "--execute"];
    assert_eq!(bank.options.run_verb(&discard).code, Some(0));
    assert_eq!(act(&["--key", "key"], "").code, Some(0));
    bank.settled().await;
    assert_eq!(read(&bank).len(), 4);
}

/// Nothing fits on the dead-letter topic while the batches are committed, so they are owed when the
/// worker is killed; the next owner has only the database.
#[tokio::test]
async fn letters_owed_when_the_worker_was_killed_are_mirrored_by_the_next() {
    let _turn = support::heavy();
    let bank = mirrored_bank("mirror-killed", 1).await;
    topics::create(&bank.cluster, &dlq(&bank), 1, &[]).await;
    let mut worker = bank.worker();
    topics::set(&bank.cluster, &dlq(&bank), &[("max.message.bytes", "100")]).await;
    let log: Vec<Record> = (0..20).flat_map(|_| strange()).collect();
    bank.send(&log);
    let settled = format!("partitions where next_offset = {}", log.len());
    wait_until("the cursor", PATIENCE, async || bank.database.count(&settled).await == 1).await;
    wait_for("a refused letter", PATIENCE, || worker.output().contains("publishing starts over").then_some(()));
    worker.kill9();
    assert!(read(&bank).is_empty());
    assert_eq!(bank.database.number("select published_offset from partitions").await, Some(0));
    topics::set(&bank.cluster, &dlq(&bank), &[]).await;
    let _worker = bank.worker();
    bank.settled().await;
    let letters = read(&bank);
    assert_eq!(offsets(&letters), (0..log.len() as i64).collect::<Vec<_>>());
    for (letter, record) in letters.iter().zip(&log) {
        assert_as_it_was(letter, record);
    }
}

/// Killed ten times at any moment: every letter is there, the first copies in order.
#[tokio::test]
async fn no_letter_is_missing_or_out_of_order_whenever_the_worker_is_killed() {
    let _turn = support::heavy();
    let mut bank = mirrored_bank("mirror-crashes", 1).await;
    bank.options =
        bank.options.clone().property("session.timeout.ms", "2000").setting("[worker]\nbatch_commands_max = 50");
    let mut worker = bank.worker();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..10 {
        let before = bank.settled_count().await;
        let sending = bank.send_in_background((0..200).flat_map(|_| strange()).collect());
        bank.settled_beyond(before + random.i64(50..1_200)).await;
        worker.kill9();
        sending.join().expect("the records");
        worker = bank.worker();
    }
    bank.settled().await;
    let mut seen = HashSet::new();
    let firsts: Vec<i64> = offsets(&read(&bank)).into_iter().filter(|offset| seen.insert(*offset)).collect();
    assert_eq!(firsts, (0..10 * 200 * strange().len() as i64).collect::<Vec<_>>());
}

/// Random, so that it does not compress.
fn random_text(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

/// Too large for what the topic says that it takes, and then for what it takes all of a sudden.
#[tokio::test]
async fn a_letter_that_the_topic_does_not_take_is_mirrored_without_its_value_and_stops_nobody() {
    let _turn = support::heavy();
    let mut bank = mirrored_bank("mirror-large", 1).await;
    // so that a record's size is what it seems
    bank.options = bank.options.clone().property("compression.type", "none");
    let large = |bytes: usize| deposit("acct-1", 1).without_header("ce_id").value(random_text(bytes));
    // Kafka's default, which is less than the command topic here takes
    topics::create(&bank.cluster, &dlq(&bank), 1, &[("max.message.bytes", "1048588")]).await;
    let _worker = bank.worker();
    let log = [large(10), large(1_048_576), large(2_000_000), large(1_000_000), large(20)];
    bank.send(&log);
    bank.settled().await;
    let letters = read(&bank);
    assert_eq!(offsets(&letters), [0, 1, 2, 3, 4]);
    let omitted: Vec<_> = letters.iter().map(|letter| why(letter, "omitted")).collect();
    assert_eq!(omitted, [None, Some("value"), Some("value"), None, None]);
    for (letter, record) in letters.iter().zip(&log) {
        let whole = why(letter, "omitted").is_none();
        assert_as_it_was(letter, &Record { value: record.value.clone().filter(|_| whole), ..record.clone() });
    }
    let see = why(&letters[1], "omitted.see").expect("where its value is");
    let number = see.strip_prefix("solewriter dead-letters show ").expect("what to type");
    let shown = bank.options.run_verb(&["dead-letters", "show", number, "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("a document");
    assert_eq!(shown["value"].as_str().map(str::as_bytes), log[1].value.as_deref());

    topics::set(&bank.cluster, &dlq(&bank), &[("max.message.bytes", "100000")]).await;
    bank.send(&[large(10), large(300_000), large(30)]);
    bank.settled().await;
    let letters = read(&bank);
    let mut seen = HashSet::new();
    let firsts: Vec<&Read> = letters.iter().filter(|letter| seen.insert(origin(letter).offset)).collect();
    let omitted: Vec<_> = firsts[5..].iter().map(|letter| why(letter, "omitted")).collect();
    assert_eq!(omitted, [None, Some("value"), None]);
}
