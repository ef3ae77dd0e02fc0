//! A record that cannot be a command is kept whole, with the reason, in the commit that moves the
//! cursor; its neighbours settle.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{DAY_MS, deposit, endings, now_ms, of_command, open, v7_at, withdraw};
use crate::support::consumer::Read;
use crate::support::postgres::Database;
use crate::support::producer::{Partitioner, Producer, Record};
use crate::support::worker::embedded;
use crate::support::{consumer, kafka, topics};

const MEBIBYTE: usize = 1024 * 1024;

/// A record, what is wrong with it, and whether its id can be read: then the outcome is published.
struct Case {
    name: &'static str,
    record: Record,
    code: &'static str,
    id: Option<Uuid>,
}

fn case(name: &'static str, record: Record, code: &'static str) -> Case {
    let id = record.headers.iter().find(|(name, _)| name == "ce_id");
    let id = id.and_then(|(_, value)| Uuid::try_parse_ascii(value.as_deref()?).ok());
    let id = id.filter(|id| !id.is_nil() && !id.is_max());
    Case { name, record, code, id: id.filter(|_| code != "id-reuse" && code != "malformed-id") }
}

/// A good command, to be spoilt.
fn good() -> Record {
    deposit("acct-bad", 1)
}

/// Wrong in every way that comes after what is tested: the first that applies is named.
fn wrong() -> Record {
    Record::default().header("ce_specversion", "0.3").header("ce_type", "unknown")
}

fn null_header(mut record: Record, name: &str) -> Record {
    record = record.without_header(name);
    record.headers.push((name.to_owned(), None));
    record
}

/// A header name that is not UTF-8, as any other client can send.
fn header_with_bytes_for_a_name(mut record: Record) -> Record {
    // SAFETY: never read as text here; the client copies its bytes into a C string
    let name = unsafe { String::from_utf8_unchecked(b"na\xffme\xfe".to_vec()) };
    record.headers.push((name, Some(b"\xff\0\xfe".to_vec())));
    record
}

fn brackets(count: usize) -> String {
    format!("{}{}", "[".repeat(count), "]".repeat(count))
}

fn sized(bytes: usize) -> String {
    let (head, tail) = (r#"{"amount":1,"x":""#, r#""}"#);
    format!("{head}{}{tail}", "a".repeat(bytes - head.len() - tail.len()))
}

fn keys_and_sizes() -> Vec<Case> {
    let key = |key: &[u8]| wrong().key(key);
    vec![
        case("a byte more than the limit", good().value(sized(MEBIBYTE + 1)), "payload-too-large"),
        case("too large, and all else wrong", wrong().value(sized(MEBIBYTE + 1)), "payload-too-large"),
        case(
            "too large, in structured mode",
            wrong().header("content-type", "application/cloudevents+json").value(sized(2 * MEBIBYTE)),
            "payload-too-large",
        ),
        case("no key", wrong(), "malformed-key"),
        case("no key, but an id", Record { key: None, ..good() }, "malformed-key"),
        case("an empty key", key(b""), "malformed-key"),
        case("a key of 513 bytes", good().key(vec![b'k'; 513]), "malformed-key"),
        case("a key with NUL", good().key(b"acct\0"), "malformed-key"),
        case("a key that is no text", good().key(b"acct\xff\xfe"), "malformed-key"),
        case("a huge key", good().key(vec![b'k'; 950_000]), "malformed-key"),
    ]
}

fn envelopes() -> Vec<Case> {
    let structured = |value: &str| {
        good()
            .without_header("ce_id")
            .without_header("ce_type")
            .header("content-type", "application/cloudevents+json")
            .value(value)
    };
    let id = |id: &[u8]| good().header("ce_id", id).without_header("ce_type");
    let named = |name: &[u8]| good().header("ce_type", name).value("no JSON");
    vec![
        case(
            "another version of CloudEvents",
            good().header("ce_specversion", "0.3").without_header("ce_id"),
            "malformed-envelope",
        ),
        case("structured, no JSON", structured("{"), "malformed-envelope"),
        case("structured, an array", structured("[1]"), "malformed-envelope"),
        case("structured, 20,000 brackets", structured(&brackets(10_000)), "malformed-envelope"),
        case(
            "structured, a field twice",
            structured(r#"{"specversion":"1.0","id":"a","id":"b"}"#),
            "malformed-envelope",
        ),
        case("structured, nothing", Record { value: None, ..structured("") }, "malformed-envelope"),
        case(
            "a batch of events",
            good().header("content-type", "application/cloudevents-batch+json"),
            "malformed-envelope",
        ),
        case("no id", good().without_header("ce_id").without_header("ce_type"), "missing-id"),
        case("an id header without a value", null_header(good(), "ce_id"), "missing-id"),
        case(
            "structured, no id",
            structured(r#"{"specversion":"1.0","type":"account.deposit","data":{"amount":1}}"#),
            "missing-id",
        ),
        case("an empty id", id(b""), "malformed-id"),
        case("an id with NUL", id(b"0199aaaa-0000-7000-8000-00000000000\0"), "malformed-id"),
        case("an id that is no text", id(b"\xff\xfe"), "malformed-id"),
        case("the nil id", id(b"00000000-0000-0000-0000-000000000000"), "malformed-id"),
        case("the max id", id(b"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"), "malformed-id"),
        case("an id without hyphens", id(b"0199aaaa000070008000000000000001"), "malformed-id"),
        case("no type", good().without_header("ce_type").value("no JSON"), "missing-type"),
        case("a type header without a value", null_header(good(), "ce_type"), "missing-type"),
        case("an unknown type", named(b"account.close"), "unknown-type"),
        case("a type with NUL and bytes", named(b"account\0\xff"), "unknown-type"),
        case("a huge type", named(&vec![b't'; 100_000]), "unknown-type"),
    ]
}

fn payloads(used: &Record) -> Vec<Case> {
    let value = |value: &str| good().value(value);
    let now = now_ms();
    let reused = deposit("acct-good", 1).id(used.command_id());
    vec![
        case("from the future", value("no JSON").id(v7_at(now + 365 * DAY_MS)), "id-from-future"),
        case("known for another payload", reused.clone().value("no JSON"), "id-reuse"),
        case("too old", value("no JSON").id(v7_at(now - 30 * DAY_MS)), "expired"),
        case("a tombstone", Record { value: None, ..good() }, "malformed-payload"),
        case("nothing", value(""), "malformed-payload"),
        case("null", value("null"), "malformed-payload"),
        case("an array", value("[1]"), "malformed-payload"),
        case("20,000 brackets", value(&format!(r#"{{"amount":{}}}"#, brackets(10_000))), "malformed-payload"),
        case("brackets that never close", value(&"[".repeat(20_000)), "malformed-payload"),
        case("a huge number", value(r#"{"amount":1e400000}"#), "malformed-payload"),
        case("more than 64 bits", value(r#"{"amount":9223372036854775808}"#), "malformed-payload"),
        case("a fraction", value(r#"{"amount":1.5}"#), "malformed-payload"),
        case("a text", value(r#"{"amount":"1"}"#), "malformed-payload"),
        case("a field twice", value(r#"{"amount":1,"amount":2}"#), "malformed-payload"),
        case("a field missing", value("{}"), "malformed-payload"),
        case("something behind it", value(r#"{"amount":1} x"#), "malformed-payload"),
        case("no UTF-8", good().value(b"{\"amount\":1,\"x\":\"\xff\"}"), "malformed-payload"),
        case("NUL", good().value(b"\0"), "malformed-payload"),
        case(
            "strange headers",
            header_with_bytes_for_a_name(
                null_header(value("1").header("x", b"\0\xff"), "n").header("traceparent", b"\x01\xff"),
            ),
            "malformed-payload",
        ),
        case("a time before 1970", Record { timestamp_ms: Some(-86_400_000), ..value("1") }, "malformed-payload"),
        case(
            "a time in the year 292 million",
            Record { timestamp_ms: Some(i64::MAX), ..value("1") },
            "malformed-payload",
        ),
    ]
}

/// Strange, and yet commands.
fn strange_but_good() -> Vec<Record> {
    let value = |value: String| deposit("acct-strange", 1).value(value);
    vec![
        open("acct-strange", 0),
        value(format!(r#"{{"x":{},"amount":1}}"#, brackets(10_000))),
        value(r#"{"x":1e400000,"amount":1}"#.to_owned()),
        value(r#"{"x":{"a":1,"a":2},"amount":1,"y":"\u0000"}"#.to_owned()),
        value(sized(MEBIBYTE)),
        header_with_bytes_for_a_name(null_header(deposit("acct-strange", 1).header("nul", b"\0"), "null")),
        Record { timestamp_ms: Some(-86_400_000), ..deposit("acct-strange", 1) },
        Record { timestamp_ms: Some(i64::MAX), ..deposit("acct-strange", 1) },
        deposit("acct-strange", 1).header("traceparent", b"\0\xff"),
    ]
}

/// Each between two deposits, in one topic, in the interface's order of precedence.
#[tokio::test]
async fn each_malformed_record_is_kept_whole_between_neighbours_that_settle() {
    let _turn = support::heavy();
    let cluster = kafka::shared();
    let bank = Bank::open("malformed", 1).await;
    // any time that a producer claims
    let any_time = [
        ("message.timestamp.after.max.ms", "9223372036854775807"),
        ("message.timestamp.before.max.ms", "9223372036854775807"),
    ];
    topics::set(&cluster, &bank.topic, &any_time).await;
    let used = open("acct-good", 0);
    let mut log = vec![used.clone()];
    let strange = strange_but_good();
    log.extend(strange.iter().cloned());
    let cases: Vec<Case> = keys_and_sizes().into_iter().chain(envelopes()).chain(payloads(&used)).collect();
    let mut places = Vec::new();
    for case in &cases {
        log.push(deposit("acct-good", 1));
        places.push(log.len());
        log.push(case.record.clone());
    }
    log.push(deposit("acct-good", 1));
    let stored = bank.producer.send(&bank.topic, &log);
    let _worker = bank.worker();
    bank.settled().await;

    let balance = |key: &str| format!("select (state->>'balance')::bigint from entities where entity_id = '{key}'");
    let good = i64::try_from(cases.len() + 1).expect("a count");
    assert_eq!(bank.database.number(&balance("acct-good")).await, Some(good));
    let applied = i64::try_from(strange.len() - 1).expect("a count");
    assert_eq!(bank.database.number(&balance("acct-strange")).await, Some(applied));
    let outcomes = consumer::read_all(&cluster, &format!("{}.outcomes", bank.topic));
    assert_eq!(bank.database.count("dead_letters").await, good - 1);
    for (case, place) in cases.iter().zip(places) {
        check_letter(&bank.database, case, stored[place].offset).await;
        check_outcome(&outcomes, case, &bank.topic, stored[place].offset);
    }
    let readable = cases.iter().filter(|case| case.id.is_some()).count();
    assert_eq!(outcomes.len(), 1 + strange.len() + cases.len() + 1 + readable);
}

async fn check_letter(database: &Database, case: &Case, offset: i64) {
    let Case { name, record, code, .. } = case;
    let sql = format!(
        "select encode(key, 'hex') as key, encode(value, 'hex') as value, headers, code, state, attempts, detail,
                octet_length(detail) as detail_bytes
           from dead_letters where \"offset\" = {offset}"
    );
    let rows = database.rows(&sql).await;
    assert_eq!(rows.len(), 1, "{name}: offset {offset}");
    let row = &rows[0];
    assert_eq!(
        (&row["code"], &row["state"], &row["attempts"]),
        (&json!(code), &json!("dead"), &json!(1)),
        "{name}: {}",
        row["detail"]
    );
    assert_eq!(row["headers"], headers_json(record), "{name}");
    assert!(row["key"] == hex(record.key.as_deref()), "{name}: the key is kept byte for byte");
    assert!(row["value"] == hex(record.value.as_deref()), "{name}: the value is kept byte for byte");
    assert!(row["detail_bytes"].as_i64().is_some_and(|bytes| bytes <= 2048), "{name}");
}

fn check_outcome(outcomes: &[Read], case: &Case, topic: &str, offset: i64) {
    let Case { name, record, code, id } = case;
    let here: Vec<&Read> = outcomes.iter().filter(|read| read.json()["offset"] == offset).collect();
    let Some(id) = id else {
        assert!(here.is_empty(), "{name}: an outcome without a readable id, or of a reused one");
        return;
    };
    assert_eq!(here.len(), 1, "{name}");
    let (read, value) = (here[0], here[0].json());
    let expected_id = Uuid::new_v5(id, format!("solewriter.dead:{topic}:0:{offset}:1").as_bytes());
    assert_eq!(read.header("ce_id"), Some(expected_id.to_string().as_str()), "{name}");
    assert_eq!((&value["outcome"], &value["code"]), (&json!("dead"), &json!(code)), "{name}");
    assert_eq!((&value["version"], &value["reply"]), (&Value::Null, &Value::Null), "{name}");
    assert_eq!(
        (&value["command_id"], &value["topic"], &value["partition"]),
        (&json!(id), &json!(topic), &json!(0)),
        "{name}"
    );
    let entity_id = (*code != "malformed-key" && record.key.is_some()).then_some("acct-bad");
    assert_eq!(value["entity_id"], json!(entity_id), "{name}");
    assert_eq!(read.header("ce_subject"), entity_id, "{name}");
    let small = record.key.as_ref().is_none_or(|key| key.len() <= 4096);
    assert!(!small || read.key == record.key, "{name}: key = the command's key");
}

fn hex(bytes: Option<&[u8]>) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.map_or(Value::Null, |bytes| Value::String(hex(bytes)))
}

fn headers_json(record: &Record) -> Value {
    let value = |bytes: &Option<Vec<u8>>| match bytes {
        None => Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => json!(text),
            _ => json!({ "base64": BASE64.encode(bytes) }),
        },
    };
    let pair =
        |(name, bytes): &(String, Option<Vec<u8>>)| json!([String::from_utf8_lossy(name.as_bytes()), value(bytes)]);
    Value::Array(record.headers.iter().map(pair).collect())
}

/// `misrouted` comes after what is wrong with the envelope and before anything about the id.
#[tokio::test]
async fn a_record_on_the_wrong_partition_names_the_partitioner_in_use_and_its_producer() {
    let _turn = support::heavy();
    let bank = Bank::open("misrouted", 7).await;
    let opens: Vec<Record> = (0..30).map(|n| open(&format!("acct-{n}"), 1)).collect();
    let places = bank.producer.send(&bank.topic, &opens);
    let wrong: Vec<Record> =
        (0..30).map(|n| withdraw(&format!("acct-{n}"), 1).value("no JSON").id(opens[n].command_id())).collect();
    let wrong: Vec<Record> = wrong.into_iter().map(|wrong| wrong.header("ce_source", "/legacy\"\n")).collect();
    let crc32 = Producer::with_partitioner(&bank.cluster, Partitioner::Crc32).send(&bank.topic, &wrong);
    let elsewhere = |n: usize| (places[n].partition + 1) % 7;
    bank.send(&[withdraw("acct-0", 1).header("ce_type", "unknown").on_partition(elsewhere(0))]);
    let _worker = bank.worker();
    bank.settled().await;
    let misrouted = places.iter().zip(&crc32).filter(|(place, crc32)| place.partition != crc32.partition).count();
    let count =
        async |condition: &str| usize::try_from(bank.database.count(&format!("dead_letters where {condition}")).await);
    assert_eq!(count("code = 'misrouted' and detail like '%crc32%' and state = 'dead'").await, Ok(misrouted));
    let culprit = r#"; its headers say ce_source="/legacy\"\n""#;
    assert_eq!(count(&format!("detail like '%' || replace('{culprit}', '\\', '\\\\')")).await, Ok(misrouted));
    let check = bank.options.run_verb(&["check", "-o", "json"]);
    let check: Value = serde_json::from_str(&check.stdout).expect("a document");
    let checks = check["checks"].as_array().expect("checks");
    let sample = checks.iter().find(|check| check["name"] == format!("commands on {}", bank.topic));
    let found = sample.and_then(|check| check["detail"].as_str()).expect("a sample");
    assert!(found.contains("crc32") && found.contains(culprit), "{found}");
    assert_eq!(count("code = 'id-reuse'").await, Ok(30 - misrouted));
    assert_eq!(count("code = 'unknown-type'").await, Ok(1));
    assert_eq!(bank.database.count("entities where version = 1").await, 30);
    let outcomes = consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    let dead: Vec<&Read> = outcomes.iter().filter(|read| read.json()["code"] == "misrouted").collect();
    assert_eq!(dead.len(), misrouted);
    for read in dead {
        assert_eq!(read.json()["partition"], read.partition, "beside the log that it came from");
    }
}

mod fragile {
    //! A worker in this process, whose handler fails in every way that a handler can.

    use serde::{Deserialize, Serialize};
    use solewriter::{Context, Rejection};

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Account {
        note: String,
    }

    #[derive(Deserialize)]
    pub struct Note {
        note: String,
    }

    #[derive(Serialize)]
    pub struct Length {
        length: usize,
    }

    impl Account {
        pub fn note(&mut self, note: Note, _: &mut Context<'_>) -> Result<Length, Rejection> {
            self.note = note.note;
            assert_ne!(self.note, "panic", "unlucky");
            Ok(Length { length: self.note.len() })
        }

        pub fn always_panic(&mut self, _: Note, _: &mut Context<'_>) -> Result<Length, Rejection> {
            panic!("this version of the handler panics");
        }

        pub fn echo(&mut self, note: Note, _: &mut Context<'_>) -> Result<String, Rejection> {
            Ok(note.note.repeat(1000))
        }
    }
}

/// The state is untouched, the neighbours of other keys settle, and a repeat of what was applied is
/// answered even by a handler that fails by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_fails_takes_nobody_with_it() {
    let _turn = support::heavy();
    let bank = Bank::open("fragile", 1).await;
    let note = |key: &str, note: &str| Record::command("account.note", key, &json!({ "note": note }));
    let fine = note("acct-a", "fine");
    let failing = [
        note("acct-b", "panic"),
        note("acct-c", "\0"),
        Record::command("account.echo", "acct-d", &json!({ "note": "x".repeat(2000) })),
    ];
    let mut log = vec![fine.clone()];
    for bad in &failing {
        log.extend([bad.clone(), note("acct-a", "next")]);
    }
    bank.send(&log);
    let worker = embedded(&bank.options, |worker| {
        worker.entity::<fragile::Account>("account", |e| {
            e.on("account.note", fragile::Account::note).on("account.echo", fragile::Account::echo)
        })
    });
    bank.settled().await;
    drop(worker);
    assert_eq!(bank.database.count("dead_letters where code = 'handler-failed'").await, 3);
    assert_eq!(bank.database.count("dead_letters where detail like '%unlucky%'").await, 1);
    assert_eq!(
        bank.database
            .count("entities where entity_id = 'acct-a' and version = 4 and state = '{\"note\": \"next\"}'")
            .await,
        1
    );

    let _worker = embedded(&bank.options, |worker| {
        worker.entity::<fragile::Account>("account", |e| e.on("account.note", fragile::Account::always_panic))
    });
    bank.send(&[fine.clone(), note("acct-e", "new")]);
    bank.settled().await;
    let outcomes = consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    assert_eq!(endings(&outcomes, fine.command_id()), ["applied", "applied"]);
    support::commands::assert_identical(&of_command(&outcomes, fine.command_id()));
    assert_eq!(bank.database.count("dead_letters where code = 'handler-failed'").await, 4);
}
