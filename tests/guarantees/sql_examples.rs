//! The examples of commands in SQL do what their pages say.

mod bank;
mod oncall;
mod pages;
mod races;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{Ended, ended};
use crate::support::consumer::read_all;
use crate::support::kafka;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::Database;
use crate::support::producer::{Producer, Record};
use crate::support::topics;
use crate::support::worker::{Worker, WorkerOptions};

const EXAMPLES: [&str; 6] = ["bank", "bookings", "documents", "oncall", "orders", "stock"];

fn applied() -> Ended {
    Ended { ending: "applied".to_owned(), detail: None, copies: 1 }
}

fn rejected(code: &str, detail: Option<&str>) -> Ended {
    Ended { ending: code.to_owned(), detail: detail.map(str::to_owned), copies: 1 }
}

/// Everything is there before the worker starts; then each ends as expected.
async fn end_as_expected(bank: &Bank, script: &[(Record, Ended)]) {
    let log: Vec<Record> = script.iter().map(|(record, _)| record.clone()).collect();
    bank.send(&log);
    let _worker = bank.worker();
    bank.settled().await;
    let found = ended(&read_all(&bank.cluster, &format!("{}.outcomes", bank.topic)));
    for (nth, (record, expected)) in script.iter().enumerate() {
        assert_eq!(found.get(&record.command_id()), Some(expected), "{nth}: {record:?}");
    }
    assert_eq!(found.len(), script.len());
}

#[tokio::test]
async fn a_stale_edit_is_told_the_current_version() {
    let _turn = support::heavy();
    let bank = Bank::in_sql("documents", "commands.toml", "document", 2).await;
    let create = |key: &str, body: &str| Record::command("document.create", key, &json!({ "body": body }));
    let edit = |key: &str, version: i64, body: &str| {
        Record::command("document.edit", key, &json!({ "version": version, "body": body }))
    };
    let stale = |current: i64| rejected("stale-version", Some(&format!("the current version is {current}")));
    let script = [
        (edit("minutes", 1, "nothing yet"), rejected("unknown-document", None)),
        (create("minutes", "Minutes"), applied()),
        (edit("minutes", 1, "Minutes, by Ann"), applied()),
        (edit("minutes", 1, "Minutes of Monday"), stale(2)),
        (create("minutes", "again"), rejected("document-exists", None)),
        (create("menu", "Soup"), applied()),
        (edit("minutes", 2, "Minutes of Monday, by Ann"), applied()),
        (edit("minutes", 2, "late"), stale(3)),
        (edit("minutes", 4, "early"), stale(3)),
        (edit("menu", 3, "Fish"), stale(1)),
        (edit("menu", 1, "it's '; drop table document; -- \\ $1 :body {body}"), applied()),
    ];
    end_as_expected(&bank, &script).await;
    assert_eq!(
        bank.database.rows("select * from document order by id").await,
        [
            json!({ "id": "menu", "version": 2, "body": "it's '; drop table document; -- \\ $1 :body {body}" }),
            json!({ "id": "minutes", "version": 3, "body": "Minutes of Monday, by Ann" }),
        ]
    );
    let edited = read_all(&bank.cluster, &format!("{}.events", bank.topic));
    let mut versions: Vec<Value> = edited.iter().map(support::consumer::Read::json).collect();
    versions.sort_by_key(|event| event["version"].as_i64());
    assert_eq!(versions, [json!({ "version": 2 }), json!({ "version": 2 }), json!({ "version": 3 })]);
}

#[tokio::test]
async fn a_room_is_not_taken_twice_and_its_neighbours_stand() {
    let _turn = support::heavy();
    let bank = Bank::in_sql("bookings", "commands.toml", "room", 2).await;
    let add = |room: &str| Record::command("room.add", room, &json!({ "seats": 4 }));
    let period = |command_type: &str, room: &str, booking: &str, from: &str, until: &str| {
        let day = |time: &str| format!("2026-12-01T{time}Z");
        Record::command(command_type, room, &json!({ "booking": booking, "from": day(from), "until": day(until) }))
    };
    let make = |room: &str, booking: &str, from: &str, until: &str| period("booking.make", room, booking, from, until);
    let moved = |room: &str, booking: &str, from: &str, until: &str| period("booking.move", room, booking, from, until);
    let cancel = |room: &str, booking: &str| Record::command("booking.cancel", room, &json!({ "booking": booking }));
    let taken = || rejected("already-booked", None);
    let invalid = || rejected("invalid-period", Some("until is not after from"));
    let script = [
        (make("blue", "early", "07:00", "08:00"), rejected("unknown-room", None)),
        (add("blue"), applied()),
        (add("red"), applied()),
        (add("blue"), rejected("room-exists", None)),
        (make("blue", "review", "09:00", "10:00"), applied()),
        (make("blue", "interview", "09:30", "10:30"), taken()),
        (make("blue", "standup", "08:45", "09:00"), applied()),
        (make("blue", "inside", "09:10", "09:20"), taken()),
        (make("blue", "around", "08:00", "11:00"), taken()),
        (make("blue", "retro", "10:00", "11:00"), applied()),
        (make("red", "interview", "09:30", "10:30"), applied()),
        (make("blue", "review", "12:00", "13:00"), rejected("booking-exists", None)),
        (make("blue", "backwards", "14:00", "13:00"), invalid()),
        (make("blue", "nothing", "14:00", "14:00"), invalid()),
        (moved("blue", "retro", "09:59", "10:59"), taken()),
        (moved("blue", "review", "09:00", "09:45"), applied()),
        (moved("blue", "retro", "09:45", "10:45"), applied()),
        (moved("blue", "retro", "10:00", "10:00"), invalid()),
        (moved("red", "retro", "10:00", "11:00"), rejected("unknown-booking", None)),
        (cancel("blue", "review"), applied()),
        (cancel("blue", "review"), rejected("unknown-booking", None)),
        (make("blue", "inside", "09:10", "09:20"), applied()),
    ];
    end_as_expected(&bank, &script).await;
    let booked = "select room || ' ' || booking || ' ' || to_char(lower(during) at time zone 'UTC', 'HH24:MI') as b
                    from booking order by room, during";
    let booked = bank.database.rows(booked).await;
    assert_eq!(
        booked.iter().filter_map(|row| row["b"].as_str()).collect::<Vec<_>>(),
        ["blue standup 08:45", "blue inside 09:10", "blue retro 09:45", "red interview 09:30"]
    );

    // a time that depends on the session or the clock is no time
    let when = |from: &str| json!({ "booking": "late", "from": from, "until": "2026-12-02T09:00Z" });
    for from in ["2026-12-01 09:00", "now", "2026-12-01T09:00+01:00", "2026-13-45T09:00Z"] {
        bank.send(&[Record::command("booking.make", "blue", &when(from))]);
    }
    let _worker = bank.worker();
    bank.settled().await;
    assert_eq!(bank.database.count("dead_letters where code = 'malformed-payload'").await, 4);
    assert_eq!(bank.database.count("booking").await, 4);
}

/// A file of samples: `{"key":…,"type":…,"data":…}` in each line.
fn samples(example: &str, file: &str) -> Vec<Record> {
    let text = fs::read_to_string(support::example(example).join(file)).expect("read the samples");
    let sample = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("{line} has no {name}")).to_owned();
        Record::command(&text("type"), &text("key"), &line["data"])
    };
    text.lines().map(sample).collect()
}

/// An entity type with its files of commands and of samples.
type Sampled = (&'static str, &'static str, &'static str, &'static str);

/// One worker takes the samples of all these entity types.
async fn are_accepted(sampled: &[Sampled]) {
    let (cluster, database) = (kafka::shared(), Database::fresh("samples").await);
    let mut options = WorkerOptions::new(&cluster, &database, "none");
    options.topics.clear();
    let (mut files, mut sent) = (Vec::new(), 0);
    for (entity, example, commands, file) in sampled {
        let topic = topics::fresh(&cluster, &format!("samples-{entity}"), 2).await;
        let samples = samples(example, file);
        assert!(samples.len() > 20, "{example}/{file}");
        sent += i64::try_from(samples.len()).expect("a count");
        Producer::new(&cluster).send(&topic, &samples);
        options.topics.push((topic, (*entity).to_owned()));
        let folder: &Path = &support::example(example);
        files.push(folder.join(commands));
    }
    options.program = support::worker::stock_binary();
    let options = options.declared(&files);
    let migrated = options.run_verb(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let mut worker = Worker::start(&options);
    worker.wait_ready();
    let ended = "(select 1 from processed_commands union all select 1 from dead_letters) as ended";
    wait_until("all samples to end", PATIENCE, async || database.count(ended).await == sent).await;
    assert_eq!(database.rows("select entity_type, entity_id, code, detail from dead_letters").await, [Value::Null; 0]);
    for (entity, ..) in sampled {
        let applied = format!("processed_commands where entity_type = '{entity}' and outcome = 'applied'");
        assert!(database.count(&applied).await > 0, "{entity}");
        let rejected = format!("processed_commands where entity_type = '{entity}' and outcome = 'rejected'");
        assert!(database.count(&rejected).await > 0, "samples show what is refused: {entity}");
    }
}

#[tokio::test]
async fn every_sample_is_a_command_and_one_worker_takes_them_all() {
    let _turn = support::heavy();
    are_accepted(&[
        ("account", "bank", "commands.toml", "dev.jsonl"),
        ("room", "bookings", "commands.toml", "dev.jsonl"),
        ("document", "documents", "commands.toml", "dev.jsonl"),
        ("shift", "oncall", "commands.toml", "dev.jsonl"),
        ("customer", "orders", "commands.toml", "dev.jsonl"),
        ("sku", "stock", "commands.toml", "dev.jsonl"),
    ])
    .await;
    are_accepted(&[("doctor", "oncall", "serializable.toml", "doctors.jsonl")]).await;
}
