//! The bank in SQL answers as the bank in Rust does, and survives what that survives.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::Value;
use uuid::Uuid;

use crate::support;
use crate::support::bank::{Bank, Traffic};
use crate::support::commands::{DAY_MS, deposit, now_ms, open, v4_beside, v7_at, withdraw};
use crate::support::consumer::{Read, read_all};
use crate::support::crashes::Crashes;
use crate::support::postgres::Database;
use crate::support::producer::Record;
use crate::support::topics::{home, keys_on};
use crate::support::worker::WorkerOptions;

const PARTITIONS: i32 = 3;
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Where the details of the two differ, and may: serde says in its own words what is wrong with a
/// payload; the bank in SQL knows one command type more, which the refusal of an unknown one lists;
/// and it names only the offset of a command that is still being decided when its id is used again,
/// which is not published.
const OWN_WORDS: [&str; 3] = ["id-reuse", "malformed-payload", "unknown-type"];

/// The bank in SQL on the topic of the bank in Rust, with a group, a schema and topics of its own.
async fn twin(rust: &Bank) -> Bank {
    let database = Database::fresh("conformance_sql").await;
    let file = support::example("bank").join("commands.toml");
    let topic = &rust.topic;
    let options = WorkerOptions::new(&rust.cluster, &database, topic)
        .in_sql("account", &[file])
        .setting(&format!(
            "[[topics]]\nname = '{topic}'\nentity = 'account'
             outcomes_topic = '{topic}.sql.outcomes'\nevents_topic = '{topic}.sql.events'"
        ))
        // it cuts the log into other batches, which changes nothing
        .setting("[worker]\nbatch_commands_max = 150");
    Bank::with(rust.cluster.clone(), database, topic.clone(), options)
}

/// One log, two banks: 3,000 commands of ordinary traffic, and every edge of a rule, a payload and
/// an envelope that is known here; each bank in a batch of its own making.
#[tokio::test]
async fn the_bank_in_sql_answers_byte_for_byte_as_the_bank_in_rust() {
    let _turn = support::heavy();
    let rust = Bank::open("conformance", PARTITIONS).await;
    let sql = twin(&rust).await;
    let mut traffic = Traffic::new(20_261_201, 60);
    let mut edges = rules();
    edges.extend(payloads());
    edges.extend(envelopes());
    let key = &keys_on(0, PARTITIONS, "acct-used", 1)[0];
    let used = open(key, 5).header("traceparent", TRACE);
    let mut random = Rng::with_seed(1);
    // queued up before the workers start, each edge twice in a row, so that copies share a batch
    rust.send(&mixed(&mut random, traffic.commands(1_500), &edges, 2));
    rust.send(&[used.clone(), used.clone(), deposit(key, 1).id(used.command_id())]);
    let (_in_rust, _in_sql) = (rust.worker(), sql.worker());
    rust.settled().await;
    sql.settled().await;
    // and once more, now that all is settled, with ids that were used by others
    edges.extend(reused(&used));
    rust.send(&mixed(&mut random, traffic.commands(1_500), &edges, 1));
    rust.settled().await;
    sql.settled().await;

    let endings = same_outcomes(&rust, &sql);
    let all = [
        "already-open",
        "applied",
        "expired",
        "id-from-future",
        "insufficient-funds",
        "invalid-amount",
        "malformed-payload",
        "misrouted",
        "not-open",
        "unknown-type",
    ];
    assert!(endings.is_superset(&all.map(str::to_owned).into()), "{endings:?}");
    same_events(&rust, &sql);
    same_dead_letters(&rust, &sql).await;
    same_accounts(&rust, &sql).await;
}

/// Each edge somewhere among the commands, so many times in a row. What is of one key stays in order.
fn mixed(random: &mut Rng, commands: Vec<Record>, edges: &[Record], copies: usize) -> Vec<Record> {
    let mut places: Vec<usize> = edges.iter().map(|_| random.usize(..commands.len())).collect();
    places.sort_unstable();
    let mut edges = edges.iter().zip(places).peekable();
    let mut log = Vec::new();
    for (at, command) in commands.into_iter().enumerate() {
        while let Some((edge, _)) = edges.next_if(|(_, place)| *place == at) {
            log.extend(std::iter::repeat_n(edge.clone(), copies));
        }
        log.push(command);
    }
    log
}

/// Every refusal at its edge, in the order in which they are looked at.
fn rules() -> Vec<Record> {
    let amounts = [0, -1, i64::MIN, i64::MIN + 1, i64::MAX, 1, 2, i64::MAX - 1];
    let both = |key: &'static str| amounts.into_iter().flat_map(move |n| [deposit(key, n), withdraw(key, n)]);
    let mut log: Vec<Record> = both("edge-a").collect();
    log.extend([
        open("edge-a", -1),
        open("edge-a", i64::MIN),
        open("edge-a", 5),
        open("edge-a", 5),
        open("edge-a", -5),
    ]);
    log.extend(both("edge-a"));
    let max = i64::MAX;
    log.extend([open("edge-max", max), deposit("edge-max", 1), deposit("edge-max", max), withdraw("edge-max", max)]);
    log.extend([withdraw("edge-max", 1), deposit("edge-max", max), deposit("edge-max", 1), open("edge-zero", 0)]);
    log.extend(both("edge-zero"));
    log.extend(both("edge-max"));
    log
}

/// What the amount may be, of each command type; and what else may be in a payload.
fn payloads() -> Vec<Record> {
    let amounts = [
        "null",
        "true",
        "\"1\"",
        "\"\"",
        "[1]",
        "{}",
        "1.0",
        "1.5",
        "1e2",
        "-0",
        "0.0",
        "01",
        "+1",
        "1e400000",
        " 7 ",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "NaN",
        "0x1",
    ];
    let nested = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let around = [
        "",
        "null",
        "[1]",
        "1",
        "{}",
        "no JSON",
        "{\"A\":1}",
        "{\"A\":1",
        "{\"A\":1} x",
        "{\"A\":1,}",
        "{'A':1}",
        "{\"A\":1,\"A\":2}",
        "{\"A\":1,\"A\":1}",
        "{\"a\":1}",
        "{\"A\":1,\"x\":2,\"x\":[]}",
        " \n{ \"A\" : 1 }\t",
        "\u{feff}{\"A\":1}",
        "\u{a0}{\"A\":1}",
        "{\"x\":1e400000,\"A\":1}",
        "{\"A\":1,\"y\":\"\\u0000\"}",
        "{\"A\":1,\"y\":\"\\ud800\"}",
        "{\"\\ud800\":1,\"A\":1}",
        "{\"\\u0000\":\"'; drop table account; --\",\"A\":1}",
        &format!("{{\"x\":{nested},\"A\":1}}"),
        &format!("{{\"A\":{nested}}}"),
    ]
    .map(str::to_owned);
    let values = amounts.iter().map(|amount| format!("{{\"A\":{amount}}}")).chain(around);
    let values: Vec<String> = values.collect();
    let mut log = Vec::new();
    for (number, (command_type, field)) in
        [("account.open", "initial"), ("account.deposit", "amount"), ("account.withdraw", "amount")].iter().enumerate()
    {
        // opened by whatever is the first to be well formed
        let command = |key: &str| Record::command(command_type, key, &Value::Null);
        for (nth, value) in values.iter().enumerate() {
            let key = if number == 0 { format!("payload-{nth}") } else { format!("payload-{}", nth % 7) };
            log.push(command(&key).value(value.replace("\"A\"", &format!("\"{field}\""))));
        }
        let escaped = format!("{{\"\\u0{:03x}{}\":1}}", u32::from(field.as_bytes()[0]), &field[1..]);
        log.push(command("payload-escaped").value(escaped));
        log.push(command("payload-bytes").value(format!("{{\"{field}\":1,\"x\":\"\u{1}\"}}")));
        log.push(
            command("payload-bytes").value([b"{\"".as_slice(), field.as_bytes(), b"\":1,\"x\":\"\xff\"}"].concat()),
        );
        log.push(Record { value: None, ..command("payload-none") });
    }
    log
}

/// Ids, types, keys and partitions.
fn envelopes() -> Vec<Record> {
    let now = now_ms();
    let old = v7_at(now - 3 * DAY_MS);
    let elsewhere = (home("edge-lost", PARTITIONS) + 1) % PARTITIONS;
    let mut log = vec![
        open("edge-ids", 100),
        deposit("edge-ids", 1).id(Uuid::new_v4()),
        deposit("edge-ids", 2).id(old),
        deposit("edge-ids", 3).id(v4_beside(old)),
        deposit("edge-ids", 4).id(v7_at(now - 30 * DAY_MS)),
        deposit("edge-ids", 5).id(v7_at(now + 365 * DAY_MS)),
        deposit("edge-ids", 6).id(Uuid::nil()),
        deposit("edge-ids", 7).header("ce_id", "no id"),
        deposit("edge-ids", 8).without_header("ce_id"),
        deposit("edge-ids", 9).without_header("ce_type"),
        deposit("edge-ids", 10).header("ce_type", "account.close"),
        deposit("edge-ids", 11).header("ce_type", "account.deposit "),
        deposit("edge-ids", 12).header("ce_specversion", "0.3"),
        deposit("edge-ids", 13).header("traceparent", TRACE),
        deposit("edge-ids", 14).header("traceparent", "no trace"),
        deposit("edge-ids", 15).structured(),
        withdraw("edge-ids", 1_000).structured().header("traceparent", TRACE),
        Record { key: None, ..open("none", 1) }.on_partition(0),
        open("", 1).on_partition(0),
        open("nul\0", 1),
        open(&"k".repeat(512), 1),
        open(&"k".repeat(513), 1),
        open("edge-lost", 1).on_partition(elsewhere),
        deposit("edge-lost", 1),
        open("edge-lost", 1),
        deposit("edge-lost", 1).on_partition(elsewhere),
    ];
    for key in ["'; drop table account; --", "Zürich", "口座-東京", "$1", ":amount", r#"\"{}\n"#, "a b\tc\nd", "%s %I"]
    {
        log.extend([open(key, 5), withdraw(key, 6), withdraw(key, 5), deposit(key, i64::MAX), deposit(key, 1)]);
    }
    log
}

/// The id of a settled command with something else, on its own partition and on others.
fn reused(used: &Record) -> Vec<Record> {
    let id = used.command_id();
    let others = (0..PARTITIONS).flat_map(|partition| keys_on(partition, PARTITIONS, "acct-used", 2));
    let mut log: Vec<Record> = others.map(|key| deposit(&key, 5).id(id)).collect();
    log.extend([open("acct-used-0", 6).id(id), used.clone().value("no JSON"), Record { value: None, ..used.clone() }]);
    log.push(Record { key: used.key.clone(), ..withdraw("", 5).id(id) });
    log
}

/// What both have published, by partition.
fn published(rust: &Bank, sql: &Bank, kind: &str) -> BTreeMap<i32, (Vec<Read>, Vec<Read>)> {
    let mut by_partition: BTreeMap<i32, (Vec<Read>, Vec<Read>)> = BTreeMap::new();
    for read in read_all(&rust.cluster, &format!("{}.{kind}", rust.topic)) {
        by_partition.entry(read.partition).or_default().0.push(read);
    }
    for read in read_all(&sql.cluster, &format!("{}.sql.{kind}", sql.topic)) {
        by_partition.entry(read.partition).or_default().1.push(read);
    }
    by_partition
}

/// What is compared: all but when and at which offset it was published, and the details in each
/// bank's own words.
fn said(read: &Read) -> Read {
    let mut said = Read { offset: 0, timestamp_ms: None, ..read.clone() };
    let mut value = read.json();
    if value["outcome"] == "dead" && value["code"].as_str().is_some_and(|code| OWN_WORDS.contains(&code)) {
        assert!(value["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{value}");
        value["detail"] = Value::Null;
        said.value = Some(value.to_string().into_bytes());
    }
    said
}

/// Returns how the commands ended.
fn same_outcomes(rust: &Bank, sql: &Bank) -> BTreeSet<String> {
    let mut endings = BTreeSet::new();
    for (partition, (in_rust, in_sql)) in published(rust, sql, "outcomes") {
        for (ours, theirs) in in_sql.iter().zip(&in_rust) {
            assert_eq!(said(ours), said(theirs), "partition {partition}: {} {}", ours.json(), theirs.json());
            let outcome = ours.json();
            endings.extend(outcome["code"].as_str().or(outcome["outcome"].as_str()).map(str::to_owned));
        }
        assert_eq!(in_sql.len(), in_rust.len(), "partition {partition}");
    }
    endings
}

fn same_events(rust: &Bank, sql: &Bank) {
    let events = published(rust, sql, "events");
    assert_eq!(events.len(), usize::try_from(PARTITIONS).expect("a count"));
    for (partition, (in_rust, in_sql)) in events {
        for (ours, theirs) in in_sql.iter().zip(&in_rust) {
            assert_eq!(said(ours), said(theirs), "partition {partition}: {ours:?} {theirs:?}");
        }
        assert_eq!(in_sql.len(), in_rust.len(), "partition {partition}");
    }
}

async fn same_dead_letters(rust: &Bank, sql: &Bank) {
    let own_words = OWN_WORDS.map(|code| format!("'{code}'")).join(", ");
    let letters = format!(
        "select partition, \"offset\", encode(key, 'hex') as key, encode(value, 'hex') as value, headers, code, state,
                record_time, command_id, command_type, entity_type, entity_id, traceparent,
                case when code not in ({own_words}) then detail end as detail
           from dead_letters order by partition, \"offset\""
    );
    let (in_rust, in_sql) = (rust.database.rows(&letters).await, sql.database.rows(&letters).await);
    for (ours, theirs) in in_sql.iter().zip(&in_rust) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(in_sql.len(), in_rust.len());
    let codes: BTreeSet<&str> = in_sql.iter().filter_map(|row| row["code"].as_str()).collect();
    let unpublished = ["id-reuse", "malformed-envelope", "malformed-id", "malformed-key", "missing-id", "missing-type"];
    assert!(codes.is_superset(&unpublished.into()), "{codes:?}");
}

async fn same_accounts(rust: &Bank, sql: &Bank) {
    let in_state = "select entity_id, version, (state->>'balance')::bigint as balance from entities order by 1";
    let in_table = "select entity_id, version, balance from entities full join account on id = entity_id order by 1";
    let (in_rust, in_sql) = (rust.database.rows(in_state).await, sql.database.rows(in_table).await);
    assert_eq!(in_sql, in_rust);
    assert!(in_sql.len() > 60, "{} accounts", in_sql.len());
    assert_eq!(sql.database.count("account where savings <> 0").await, 0);
}

/// Two workers; five times one of them is killed in the middle of its work and started again.
#[tokio::test]
async fn five_crashes_among_20_000_commands_in_sql_change_nothing() {
    let _turn = support::heavy();
    let bank = Bank::in_sql("bank", "commands.toml", "account", 8).await;
    Crashes { seed: 20_261_203, kills: 5, commands: 20_000, batch_commands_max: 100 }.happen(bank).await;
}
