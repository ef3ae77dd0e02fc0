//! P5, outcomes are published: at least once, first occurrences in order of settlement per
//! partition, byte for byte the same each time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{deposit, of_command, open, withdraw};
use crate::support::consumer::Read;
use crate::support::patience::{PATIENCE, wait_for, wait_until};
use crate::support::producer::Record;
use crate::support::worker::Worker;
use crate::support::{consumer, kafka, topics};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

impl Bank {
    fn published(&self, kind: &str) -> Vec<Read> {
        consumer::read_all(&self.cluster, &format!("{}.{kind}", self.topic))
    }
}

fn headers(read: &Read) -> Vec<(&str, &str)> {
    let text =
        |value: &'_ Option<Vec<u8>>| String::from_utf8(value.clone().expect("a value")).expect("text").leak() as &str;
    read.headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect()
}

/// The first occurrence of each record on a topic of one partition, by its id.
fn first_occurrences(published: &[Read]) -> Vec<&Read> {
    let mut seen = HashSet::new();
    published.iter().filter(|read| seen.insert(read.header("ce_id").expect("ce_id").to_owned())).collect()
}

/// All copies of each record are the same bytes.
fn assert_copies_identical(published: &[Read]) {
    for first in first_occurrences(published) {
        for copy in published.iter().filter(|read| read.header("ce_id") == first.header("ce_id")) {
            assert_eq!((&copy.key, &copy.value, &copy.headers), (&first.key, &first.value, &first.headers));
        }
    }
}

fn offsets(published: &[&Read]) -> Vec<i64> {
    published.iter().map(|read| read.json()["offset"].as_i64().expect("an offset")).collect()
}

/// Every byte as the interface has it; the outcomes topic has fewer partitions than the commands'.
#[tokio::test]
async fn an_outcome_and_its_events_have_exactly_the_promised_shape() {
    let _turn = support::heavy();
    let bank = Bank::open("shape", 4).await;
    topics::create(&bank.cluster, &format!("{}.outcomes", bank.topic), 3, &[]).await;
    let topic = &bank.topic;
    let _worker = bank.worker();
    let key = "acct-42";
    let at = |record: Record| Record { timestamp_ms: Some(1_790_000_000_000), ..record };
    let opened = at(open(key, 7).header("traceparent", TRACE).header("x-other", "kept and ignored"));
    let rejected = at(withdraw(key, 8));
    let dead = at(deposit(key, 1).value("[1]").header("traceparent", TRACE));
    let stored = bank.producer.send(topic, &[opened.clone(), rejected.clone(), dead.clone()]);
    let settled_at = wait_settled(&bank, stored[0].partition, 3).await;
    bank.settled().await;
    assert!(
        settled_at.elapsed() < Duration::from_secs(2),
        "published_offset reaches next_offset within 1 s of idleness"
    );

    let outcomes = bank.published("outcomes");
    let (partition, offset) = (stored[0].partition, stored[0].offset);
    let id = opened.command_id();
    let read = of_command(&outcomes, id)[0];
    assert_eq!((read.partition, read.key.as_deref()), (partition % 3, Some(key.as_bytes())));
    let value = format!(
        r#"{{"command_id":"{id}","command_type":"account.open","entity_type":"account","entity_id":"acct-42","outcome":"applied","code":null,"detail":null,"version":1,"reply":{{"balance":7}},"topic":"{topic}","partition":{partition},"offset":{offset}}}"#
    );
    assert_eq!(read.value.as_deref(), Some(value.as_bytes()));
    let source = format!("/solewriter/{topic}/{partition}");
    let outcome_id = Uuid::new_v5(&id, b"solewriter.outcome").to_string();
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", &outcome_id),
        ("ce_type", "solewriter.outcome.v1"),
        ("ce_source", &source),
        ("ce_subject", key),
        ("ce_time", "2026-09-21T14:13:20.000Z"),
        ("content-type", "application/json"),
        ("traceparent", TRACE),
    ];
    assert_eq!(headers(read), expected);

    let events = bank.published("events");
    let event_id = Uuid::new_v5(&id, b"event:0").to_string();
    assert_eq!(events.len(), 1, "only what was applied has events");
    assert_eq!((events[0].partition, events[0].key.as_deref()), (partition, Some(key.as_bytes())));
    assert_eq!(events[0].value.as_deref(), Some(&br#"{"initial":7}"#[..]));
    let mut found = headers(&events[0]);
    found.sort_unstable();
    let mut expected = expected;
    expected[1].1 = &event_id;
    expected[2].1 = "account.opened";
    let causation = id.to_string();
    let mut expected: Vec<_> = expected.into_iter().chain([("ce_causationid", causation.as_str())]).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);

    let value = of_command(&outcomes, rejected.command_id())[0].json();
    assert_eq!(value["outcome"], "rejected");
    assert_eq!(
        (&value["code"], &value["version"], &value["reply"]),
        (&"insufficient-funds".into(), &1.into(), &Value::Null)
    );
    let read = of_command(&outcomes, dead.command_id())[0];
    let name = format!("solewriter.dead:{topic}:{partition}:{}:1", stored[2].offset);
    let dead_id = Uuid::new_v5(&dead.command_id(), name.as_bytes()).to_string();
    assert_eq!((read.header("ce_id"), read.header("traceparent")), (Some(dead_id.as_str()), Some(TRACE)));
    let value = read.json();
    assert_eq!((&value["outcome"], &value["code"]), (&"dead".into(), &"malformed-payload".into()));
    assert_eq!((&value["version"], &value["reply"]), (&Value::Null, &Value::Null));
}

/// Returns when the cursor has reached this offset.
async fn wait_settled(bank: &Bank, partition: i32, next_offset: i64) -> Instant {
    let settled = format!("partitions where partition = {partition} and next_offset = {next_offset}");
    wait_until("the cursor", PATIENCE, async || bank.database.count(&settled).await == 1).await;
    Instant::now()
}

/// Everything that a batch can owe: applied with events, rejected, duplicates, dead with and
/// without an outcome.
fn mixture(round: i64) -> Vec<Record> {
    let mut records = Vec::new();
    for n in 0..30 {
        let key = format!("acct-{round}-{n}");
        let first = open(&key, 5).header("traceparent", TRACE);
        records.extend([
            first.clone(),
            deposit(&key, 1).value(r#"{"amount":null}"#),
            first.clone(),
            withdraw(&key, 100),
            deposit(&key, 2).without_header("ce_id"),
            deposit(&key, 3),
            first.clone().value("{}"),
            deposit("\u{1}odd \"key\"\\", 4).header("ce_type", "un\u{7}known"),
        ]);
    }
    records
}

/// Set back between two workers: what a crash between commit and publish leaves behind. The new
/// owner publishes it from the database, before anything newer.
#[tokio::test]
async fn what_a_crash_left_unpublished_comes_first_and_is_the_same_bytes() {
    let _turn = support::heavy();
    let bank = Bank::open("crash", 1).await;
    bank.send(&mixture(1));
    let mut worker = bank.worker();
    bank.settled().await;
    assert!(worker.sigterm_and_wait().success());
    let before = [bank.published("outcomes"), bank.published("events")];
    bank.database.execute("update partitions set published_seq = 0, published_offset = 0").await;
    bank.send(&mixture(2));
    let _worker = bank.worker();
    bank.settled().await;
    for (kind, before) in ["outcomes", "events"].into_iter().zip(before) {
        let all = bank.published(kind);
        let again = &all[before.len()..2 * before.len()];
        for (first, again) in before.iter().zip(again) {
            assert_eq!((&first.key, &first.value, &first.headers), (&again.key, &again.value, &again.headers));
        }
        assert_copies_identical(&all);
        let firsts = first_occurrences(&all);
        if kind == "outcomes" {
            assert!(offsets(&firsts).is_sorted());
            // per account and round: open, one dead, its repeat is no new one, rejected, applied, unknown type
            assert_eq!(firsts.len(), 2 * 30 * 5);
        } else {
            assert_eq!(all.len(), 3 * 60, "two events for each account, the first round's again");
        }
    }
}

/// The broker dies after the commands were fetched and before the outcomes are delivered; the worker
/// is killed while they are owed.
#[tokio::test]
async fn outcomes_owed_when_the_worker_was_killed_are_published_by_the_next() {
    let _turn = support::heavy();
    let bank = Bank::open("killed", 1).await;
    let outcomes = format!("{}.outcomes", bank.topic);
    // nothing fits: whatever is committed stays owed
    topics::create(&bank.cluster, &outcomes, 1, &[]).await;
    let mut worker = bank.worker();
    topics::set(&bank.cluster, &outcomes, &[("max.message.bytes", "100")]).await;
    bank.send(&mixture(1));
    wait_settled(&bank, 0, 240).await;
    wait_refused(&worker, 1);
    worker.kill9();
    assert!(bank.published("outcomes").is_empty());
    topics::set(&bank.cluster, &outcomes, &[]).await;
    let _worker = bank.worker();
    bank.settled().await;
    let published = bank.published("outcomes");
    assert_eq!(first_occurrences(&published).len(), 30 * 5);
    assert!(offsets(&first_occurrences(&published)).is_sorted());
    assert_copies_identical(&published);
    assert_eq!(first_occurrences(&bank.published("events")).len(), 60);
}

fn wait_refused(worker: &Worker, times: usize) {
    wait_for("a refused delivery", PATIENCE, || {
        let refused = worker.output().matches("publishing starts over").count();
        (refused >= times).then_some(())
    });
}

/// One record too large for its topic: those before it are there, none behind it; when the topic
/// takes it, everything goes on in order.
#[tokio::test]
async fn publishing_stops_at_the_first_record_that_cannot_be_delivered_and_goes_on_from_there() {
    let _turn = support::heavy();
    let mut bank = Bank::open("refused", 1).await;
    // so that a record's size is what it seems
    bank.options = bank.options.clone().property("compression.type", "none");
    let worker = bank.worker();
    bank.send(&(0..10).map(|n| open(&format!("acct-{n}"), n)).collect::<Vec<_>>());
    bank.settled().await;
    let outcomes = format!("{}.outcomes", bank.topic);
    topics::set(&bank.cluster, &outcomes, &[("max.message.bytes", "1500")]).await;
    let before: Vec<Record> = (10..15).map(|n| open(&format!("acct-{n}"), n)).collect();
    for record in &before {
        bank.send(std::slice::from_ref(record));
        bank.settled().await;
    }
    let large = open(&random_key(512), 15);
    let behind: Vec<Record> = (16..60).map(|n| open(&format!("acct-{n}"), n)).collect();
    bank.send(std::slice::from_ref(&large));
    for record in &behind {
        bank.send(std::slice::from_ref(record));
    }
    // settling goes on past it, until as much is owed as may be
    let past = "partitions where next_offset > 17";
    wait_until("the cursor", PATIENCE, async || bank.database.count(past).await == 1).await;
    wait_refused(&worker, 3);
    assert_eq!(bank.database.number("select published_offset from partitions").await, Some(15));
    assert_eq!(offsets(&first_occurrences(&bank.published("outcomes"))), (0..15).collect::<Vec<_>>());
    topics::set(&bank.cluster, &outcomes, &[]).await;
    bank.settled().await;
    let published = bank.published("outcomes");
    assert_eq!(offsets(&first_occurrences(&published)), (0..60).collect::<Vec<_>>());
    assert_copies_identical(&published);
    let events = bank.published("events");
    assert_eq!(first_occurrences(&events).len(), 60);
    assert_copies_identical(&events);
}

/// Random, so that it does not compress.
fn random_key(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

/// The limit of a topic is on whole batches: many outcomes that fit one by one must not be refused
/// together.
#[tokio::test]
async fn a_topic_that_takes_only_small_batches_gets_small_batches() {
    let _turn = support::heavy();
    let bank = Bank::open("small", 1).await;
    let settings = [("max.message.bytes", "16384"), ("compression.type", "uncompressed")];
    topics::create(&bank.cluster, &format!("{}.outcomes", bank.topic), 1, &settings).await;
    bank.send(&(0..300).map(|_| open(&random_key(500), 1)).collect::<Vec<_>>());
    let worker = bank.worker();
    bank.settled().await;
    assert_eq!(offsets(&bank.published("outcomes").iter().collect::<Vec<_>>()), (0..300).collect::<Vec<_>>());
    assert!(!worker.output().contains("starts over"));
}

/// Somebody deletes the outcomes topic and makes it again: what was owed meanwhile arrives.
#[tokio::test]
async fn an_outcomes_topic_that_was_recreated_gets_what_is_owed() {
    let _turn = support::heavy();
    let bank = Bank::open("recreated", 1).await;
    let outcomes = format!("{}.outcomes", bank.topic);
    let _worker = bank.worker();
    bank.send(&[open("acct-a", 1)]);
    bank.settled().await;
    topics::delete(&kafka::shared(), &outcomes).await;
    bank.send(&[deposit("acct-a", 2), deposit("acct-a", 3)]);
    wait_settled(&bank, 0, 3).await;
    topics::create(&bank.cluster, &outcomes, 1, &[]).await;
    bank.settled().await;
    let published = bank.published("outcomes");
    assert_eq!(offsets(&first_occurrences(&published)), [1, 2]);
}
