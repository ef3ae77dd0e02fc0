//! How many instructions the pure steps take, under callgrind: `./dev instructions` runs this and compares it with
//! instructions.baseline. Instructions are the same on a busy machine, so CI can judge them; time is for people.
//!
//! A batch of the bank is taken through the steps as the writer does it (src/writer/drive.rs). Only the body of a
//! benchmark is counted: what goes in is made before, and what comes out is dropped after.

use std::collections::HashMap;
use std::hint::black_box;

use gungraun::Callgrind;
use gungraun::prelude::*;
use serde::{Deserialize, Serialize};
use solewriter::config::Partitioner;
use solewriter::dev::{Rehearsal, Rehearsed};
use solewriter::horizon::Horizon;
use solewriter::parked_keys::ParkedKeys;
use solewriter::record::{Header, Record};
use solewriter::steps::decide::{Basis, Caution, Decision, Entities, Entity, Routed};
use solewriter::steps::deduplicate::{Deduplicator, Verdict};
use solewriter::steps::receive::command_id;
use solewriter::steps::route::route;
use solewriter::steps::{self, Parking, Rules};
use solewriter::{Context, Rejection, TopicPartition, Worker};
use uuid::Uuid;

/// Commands of a batch; `./dev` divides by it.
const COMMANDS: u64 = 1000;
const ENTITIES: usize = 200;
const PARTITIONS: i32 = 12;
const PARTITION: i32 = 3;
/// The first command's time: milliseconds since 1970.
const TIME_MS: u64 = 1_770_000_000_000;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

#[derive(Serialize, Deserialize)]
struct Amount {
    amount: i64,
}

#[derive(Serialize)]
struct Balance {
    balance: i64,
}

impl Account {
    fn deposit(&mut self, deposit: Amount, cx: &mut Context) -> Result<Balance, Rejection> {
        self.balance += deposit.amount;
        cx.emit("account.deposited", &deposit);
        Ok(Balance { balance: self.balance })
    }

    fn withdraw(&mut self, withdraw: Amount, cx: &mut Context) -> Result<Balance, Rejection> {
        if withdraw.amount > self.balance {
            let why = format!("balance {} is less than {}", self.balance, withdraw.amount);
            return Err(Rejection::new("insufficient-funds").detail(why));
        }
        self.balance -= withdraw.amount;
        cx.emit("account.withdrawn", &withdraw);
        Ok(Balance { balance: self.balance })
    }
}

fn rules() -> Rules {
    let worker = Worker::new().entity::<Account>("account", |e| {
        e.on("account.deposit", Account::deposit).on("account.withdraw", Account::withdraw)
    });
    Rules {
        source: TopicPartition::new("accounts.commands", PARTITION),
        handlers: worker.handlers("account").expect("just registered").clone(),
        partition_count: PARTITIONS,
        partitioner: Partitioner::Murmur2,
        payload_bytes_max: 1 << 20,
        outcome_bytes_max: 1 << 20,
        parking: Parking::default(),
    }
}

/// Keys that belong on the partition.
fn keys() -> Vec<String> {
    let is_here = |key: &String| Partitioner::Murmur2.partition(key.as_bytes(), PARTITIONS) == PARTITION;
    (1..).map(|n| format!("acct-{n}")).filter(is_here).take(ENTITIES).collect()
}

/// A command as its upstream makes it, before it is a record.
struct Sent {
    key: String,
    data: String,
    headers: [(&'static str, String); 8],
}

/// The n-th command. A withdrawal in four is of more than there is.
fn sent(n: u64, keys: &[String]) -> Sent {
    let (command_type, amount) = match n % 4 {
        0 | 2 => ("account.deposit", 10 + n % 50),
        1 => ("account.withdraw", 1 + n % 7),
        _ => ("account.withdraw", 100_000),
    };
    let time_ms = TIME_MS + n;
    let id = u128::from(time_ms) << 80 | 0x7 << 76 | 0b10 << 62 | u128::from(n * 0x9e37_79b9);
    let id = Uuid::from_u128(id).to_string();
    let headers = [
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", id),
        ("ce_source", "/mobile-app/eu-central".to_owned()),
        ("ce_type", command_type.to_owned()),
        ("ce_time", solewriter::outcome::rfc3339(time_ms as i64)),
        ("content-type", "application/json".to_owned()),
        ("traceparent", format!("00-{:032x}-{:016x}-01", n + 1, n + 1)),
        ("tracestate", "congo=t61rcWkgMzE".to_owned()),
    ];
    Sent { key: keys[n as usize * 7 % keys.len()].clone(), data: format!(r#"{{"amount":{amount}}}"#), headers }
}

fn record(offset: i64, sent: &Sent) -> Record {
    let headers = sent.headers.each_ref().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
    copied(offset, sent, &headers)
}

fn copied(offset: i64, sent: &Sent, headers: &[Header<'_>]) -> Record {
    let time_ms = TIME_MS as i64 + offset;
    Record::copied(offset, time_ms, Some(sent.key.as_bytes()), Some(sent.data.as_bytes()), headers)
}

/// The commands from the n-th on; one in twenty comes twice.
fn batch_sent(first: u64) -> Vec<Sent> {
    let keys = keys();
    (first..first + COMMANDS).map(|n| sent(if n % 20 == 19 { n - 10 } else { n }, &keys)).collect()
}

fn batch_records(first: u64) -> Vec<Record> {
    batch_sent(first).iter().enumerate().map(|(n, sent)| record((first as usize + n) as i64, sent)).collect()
}

fn routed(record: Record, rules: &Rules) -> Routed {
    steps::receive::receive(record, rules).and_then(|command| route(command, rules))
}

fn batch_routed(first: u64, rules: &Rules) -> Vec<Routed> {
    batch_records(first).into_iter().map(|record| routed(record, rules)).collect()
}

/// Every account as it comes out of the writer's cache.
fn entities(rules: &Rules) -> Entities {
    let entity = || Entity { base: Some(5), version: 5, state: rules.handlers.decode(r#"{"balance":100}"#) };
    keys().into_iter().map(|key| (key.into(), entity())).collect()
}

/// What the steps from the fourth on work on.
struct Prepared {
    rules: Rules,
    batch: Vec<Routed>,
    deduplicator: Deduplicator,
    entities: Entities,
    caution: Caution,
}

impl Prepared {
    fn new(first: u64, before: Option<&Decision>) -> Self {
        let rules = rules();
        let before = before.into_iter().flat_map(|before| &before.outcomes);
        let known: HashMap<_, _> = before.map(|outcome| (outcome.delivery.command_id, outcome.clone())).collect();
        let deduplicator = Deduplicator::new(known, Horizon(0), TIME_MS as i64);
        let (batch, entities) = (batch_routed(first, &rules), entities(&rules));
        Self { rules, batch, deduplicator, entities, caution: Caution::default() }
    }

    fn decide(&mut self) -> Decision {
        let Self { rules, batch, deduplicator, entities, caution } = self;
        let mut basis = Basis { rules, deduplicator, entities, caution };
        steps::decide::decide(batch, &mut basis, ParkedKeys::default()).expect("every state can be stored")
    }
}

/// A batch behind one whose commands are known; a twentieth of them comes again.
fn behind_another() -> Prepared {
    let before = Prepared::new(0, None).decide();
    Prepared::new(COMMANDS - COMMANDS / 20, Some(&before))
}

fn first_batch() -> Prepared {
    Prepared::new(0, None)
}

fn decided() -> Rehearsal {
    let mut prepared = first_batch();
    let decision = prepared.decide();
    // the batch is what its name says: else another would be counted without a word
    assert_eq!((decision.outcomes.len(), decision.owed.len()), (950, 1000));
    assert!(decision.dead.is_empty() && decision.entities.len() == ENTITIES);
    Rehearsal::of(decision, &prepared.rules)
}

fn settled() -> Rehearsed {
    decided().committed().expect("nothing is left to the database")
}

fn ready_to_receive() -> (Rules, Vec<Record>) {
    (rules(), batch_records(0))
}

// Out of the client's buffers: one allocation, and one for the headers.
#[library_benchmark(setup = batch_sent)]
#[bench::of_the_bank(0)]
fn copy(sent: Vec<Sent>) -> (Vec<Record>, Vec<Sent>) {
    let records = sent.iter().enumerate().map(|(n, sent)| record(n as i64, sent)).collect();
    (black_box(records), sent)
}

// The envelope alone: eight headers, as CloudEvents' Kafka binding has them.
#[library_benchmark(setup = batch_records)]
#[bench::of_the_bank(0)]
fn headers(records: Vec<Record>) -> Vec<Record> {
    for record in &records {
        black_box(command_id(record, 1 << 20));
    }
    records
}

// Steps 1 and 2: envelope, fingerprint, partition.
#[library_benchmark(setup = ready_to_receive)]
#[bench::of_the_bank()]
fn receive((rules, records): (Rules, Vec<Record>)) -> (Rules, Vec<Routed>) {
    let batch = records.into_iter().map(|record| routed(record, &rules)).collect();
    (rules, black_box(batch))
}

// Step 4.
#[library_benchmark(setup = behind_another)]
#[bench::of_the_bank()]
fn deduplicate(prepared: Prepared) -> (Prepared, Vec<Verdict>) {
    let verdicts = prepared.batch.iter().flatten().map(|command| prepared.deduplicator.judge(command)).collect();
    (prepared, black_box(verdicts))
}

// Step 5, with step 4 inside: the handlers, the next states encoded.
#[library_benchmark(setup = first_batch)]
#[bench::of_the_bank()]
fn decide(mut prepared: Prepared) -> (Prepared, Decision) {
    let decision = prepared.decide();
    (prepared, black_box(decision))
}

// Step 6: the call's arguments, as they are sent.
#[library_benchmark(setup = decided)]
#[bench::of_the_bank()]
fn commit(rehearsal: Rehearsal) -> (Rehearsal, impl Sized) {
    let arguments = rehearsal.arguments().expect("every value can be encoded");
    (rehearsal, black_box(arguments))
}

// Step 7: outcomes and events, values and headers.
#[library_benchmark(setup = settled)]
#[bench::of_the_bank()]
fn publish(rehearsed: Rehearsed) -> Rehearsed {
    for publication in rehearsed.publications() {
        publication.headers.each(|name, value| {
            black_box((name, value));
        });
        black_box(&publication);
    }
    rehearsed
}

library_benchmark_group!(name = data_path, benchmarks = [copy, headers, receive, deduplicate, decide, commit, publish]);

main!(
    // instructions only: caches are simulated, and the simulation says little of a real one
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = data_path
);
