//! A violated constraint is an answer: the command is rejected with a code, what it has written
//! before is undone, and its neighbours in the batch stand.

use serde_json::{Value, json};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{Ended, ended};
use crate::support::consumer::read_all;
use crate::support::declared::project;
use crate::support::producer::Record;

const TABLES: &str = r#"
create table if not exists shelf (id text primary key);
create table if not exists journal (command_id uuid primary key, thing text not null);
create table if not exists thing (
    id     text primary key,
    count  bigint not null check (count >= 0),
    label  text not null,
    shelf  text references shelf,
    slot   integer,
    serial integer constraint "Serial, 100%" unique,
    weight integer constraint heavy check (weight <= 100),
    owner  text,
    constraint thing_slot_key unique (slot) deferrable initially deferred,
    constraint thing_owner_fkey foreign key (owner) references thing deferrable initially deferred,
    constraint apart exclude using btree (weight with =) where (weight < 0)
);
"#;

/// Each writes the journal first, so that there is something to undo.
const COMMANDS: &str = r#"
[[command]]
type = "shelf.put"

[[command.step]]
sql = "insert into shelf values (:entity_id)"

[[command]]
type        = "thing.put"
reply       = { journal = ":journal.n" }
optional    = ["label", "shelf", "slot", "serial", "weight", "owner"]
constraints = { heavy = "too-heavy", thing_pkey = "thing-exists" }

[[command.step]]
sql = "insert into journal values (:command_id, :entity_id)"

[[command.step]]
sql = "select count(*) as n from journal"
expect = 1
otherwise = { reject = "no-count" }
into = "journal"

[[command.step]]
sql = """
insert into thing (id, count, label, shelf, slot, serial, weight, owner)
values (:entity_id, :count, :label, :shelf, :slot, :serial, :weight, :owner)"""

[[command.emit]]
type = "thing.was-put"
data = { count = ":count" }

# Deferrable constraints are looked at when a statement ends, not in the middle of it.
[[command]]
type = "thing.swap"

[[command.step]]
sql = "insert into journal values (:command_id, :entity_id)"

[[command.step]]
sql = "update thing set slot = :sum - slot where slot between 1 and :sum - 1"
expect = 2
otherwise = { reject = "no-pair" }

[[command]]
type        = "thing.drop"
constraints = { thing_owner_fkey = "still-owns" }

[[command.step]]
sql = "insert into journal values (:command_id, :entity_id)"

[[command.step]]
sql = "delete from thing where id = :entity_id"
expect = 1
otherwise = { reject = "unknown-thing", detail = "there is no {entity_id}" }

[[command]]
type = "thing.divide"

[[command.step]]
sql = "insert into journal values (:command_id, :entity_id)"

[[command.step]]
sql = "update thing set count = count / :by where id = :entity_id"
expect = 1
otherwise = { reject = "unknown-thing" }
"#;

fn put(key: &str, fields: &Value) -> Record {
    let mut data = json!({ "count": 1, "label": key });
    for (name, value) in fields.as_object().expect("fields") {
        data[name] = value.clone();
    }
    Record::command("thing.put", key, &data)
}

/// How each ends; `None`: dead `data-error`.
type Script = Vec<(Record, Option<(&'static str, Option<&'static str>)>)>;

/// The whole script at once: its first command raises, so that what the writer has taken up until
/// then is decided again together.
async fn neighbours(bank: &Bank, script: &Script) {
    let log: Vec<Record> = script.iter().map(|(record, _)| record.clone()).collect();
    bank.send(&log);
    let _worker = bank.worker();
    bank.settled().await;
    let batches = bank.database.rows("select first_offset, next_offset from batches").await;
    assert!(batches.len() < log.len(), "none had a neighbour: {batches:?}");

    let found = ended(&read_all(&bank.cluster, &format!("{}.outcomes", bank.topic)));
    let mut applied = Vec::new();
    for (nth, (record, expected)) in script.iter().enumerate() {
        let (ending, detail) = expected.unwrap_or(("data-error", None));
        let ended = &found[&record.command_id()];
        assert_eq!((&*ended.ending, ended.copies), (ending, 1), "{nth}: {record:?}");
        if expected.is_some() {
            let expected = Ended { detail: detail.map(str::to_owned), ..ended.clone() };
            assert_eq!(*ended, expected, "{nth}: {record:?}");
        }
        if ending == "applied" {
            applied.push(record);
        }
    }
    // nothing but what was applied has written, and that once
    let journal = "select command_id from journal order by command_id";
    let mut written: Vec<_> = applied
        .iter()
        .filter(|record| record.headers.iter().all(|(_, value)| value.as_deref() != Some(b"shelf.put")))
        .map(|record| json!({ "command_id": record.command_id() }))
        .collect();
    written.sort_by_key(Value::to_string);
    assert_eq!(bank.database.rows(journal).await, written);
    let ids = |outcome: &str| format!("processed_commands where outcome = '{outcome}'");
    let dead = script.iter().filter(|(_, expected)| expected.is_none()).count();
    let count = |n: usize| i64::try_from(n).expect("a count");
    assert_eq!(bank.database.count(&ids("applied")).await, count(applied.len()));
    assert_eq!(bank.database.count(&ids("rejected")).await, count(script.len() - applied.len() - dead));
    let data_errors = "dead_letters where code = 'data-error' and detail = 'step 2: division by zero (SQLSTATE 22012)'";
    assert_eq!(
        (bank.database.count(data_errors).await, bank.database.count("dead_letters").await),
        (count(dead), count(dead))
    );
}

fn applied() -> Option<(&'static str, Option<&'static str>)> {
    Some(("applied", None))
}

fn rejected(code: &'static str) -> Option<(&'static str, Option<&'static str>)> {
    Some((code, None))
}

#[tokio::test]
async fn each_kind_of_constraint_rejects_its_command_and_nothing_else() {
    let _turn = support::heavy();
    let (_files, mut bank) = project("constraints", "thing", 1, TABLES, COMMANDS).await;
    bank.options = bank.options.clone().on_failure("skip");
    let script: Script = vec![
        (put("first", &json!({ "count": -1 })), rejected("constraint-thing-count-check")),
        (put("a", &json!({ "serial": 1 })), applied()),
        (put("a", &json!({})), rejected("thing-exists")),
        (put("b", &json!({ "label": null })), rejected("constraint-thing-label-not-null")),
        (put("b", &json!({ "serial": 2 })), applied()),
        (put("c", &json!({ "serial": 1 })), rejected("constraint-serial-100")),
        (put("c", &json!({ "weight": 101 })), rejected("too-heavy")),
        (put("c", &json!({ "weight": 100, "serial": 3 })), applied()),
        (put("d", &json!({ "shelf": "top" })), rejected("constraint-thing-shelf-fkey")),
        (Record::command("shelf.put", "top", &json!({})), applied()),
        (put("d", &json!({ "shelf": "top" })), applied()),
        (Record::command("shelf.put", "top", &json!({})), rejected("constraint-shelf-pkey")),
        (put("e", &json!({ "weight": -5 })), applied()),
        (put("f", &json!({ "weight": -5 })), rejected("constraint-apart")),
        (Record::command("thing.divide", "a", &json!({ "by": 0 })), None),
        (Record::command("thing.divide", "nobody", &json!({ "by": 0 })), rejected("unknown-thing")),
        (Record::command("thing.divide", "a", &json!({ "by": 1 })), applied()),
        (Record::command("thing.drop", "nobody", &json!({})), Some(("unknown-thing", Some("there is no nobody")))),
        (Record::command("thing.drop", "b", &json!({})), applied()),
        (put("b", &json!({ "serial": 2, "count": 7 })), applied()),
        (put("last", &json!({ "count": -1 })), rejected("constraint-thing-count-check")),
    ];
    neighbours(&bank, &script).await;
    let things = bank.database.rows("select id, count, weight, shelf from thing order by id").await;
    let thing = |id: &str, count: i64, weight: Option<i64>, shelf: Option<&str>| json!({ "id": id, "count": count, "weight": weight, "shelf": shelf });
    assert_eq!(
        things,
        [
            thing("a", 1, None, None),
            thing("b", 7, None, None),
            thing("c", 1, Some(100), None),
            thing("d", 1, None, Some("top")),
            thing("e", 1, Some(-5), None),
        ]
    );
    // each saw the journal of those before it, and of nobody who was undone
    let outcomes = read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    let seen: Vec<i64> = outcomes.iter().filter_map(|read| read.json()["reply"]["journal"].as_i64()).collect();
    assert_eq!(seen, [1, 2, 3, 4, 5, 8]);
    let events = read_all(&bank.cluster, &format!("{}.events", bank.topic));
    assert_eq!(events.len(), seen.len(), "an event for each that was put");
}

/// A batch ends where it happens to end, so nothing waits for its end.
#[tokio::test]
async fn a_deferrable_constraint_is_looked_at_when_the_statement_ends() {
    let _turn = support::heavy();
    let (_files, bank) = project("deferrable", "thing", 1, TABLES, COMMANDS).await;
    let command = |command_type: &str, key: &str, data: &Value| Record::command(command_type, key, data);
    let script: Script = vec![
        // its owner is put by the next one: too late
        (put("early", &json!({ "owner": "boss" })), rejected("constraint-thing-owner-fkey")),
        (put("boss", &json!({ "slot": 1 })), applied()),
        (put("a", &json!({ "owner": "boss", "slot": 2 })), applied()),
        (put("own", &json!({ "owner": "own" })), applied()),
        // who holds the slot is dropped by a later one: too late
        (put("b", &json!({ "slot": 2 })), rejected("constraint-thing-slot-key")),
        (command("thing.drop", "boss", &json!({})), rejected("still-owns")),
        // between two rows of one statement there are two of slot 2
        (command("thing.swap", "a", &json!({ "sum": 3 })), applied()),
        (command("thing.swap", "a", &json!({ "sum": 2 })), rejected("no-pair")),
        (command("thing.drop", "a", &json!({})), applied()),
        (put("b", &json!({ "slot": 1 })), applied()),
        (command("thing.drop", "boss", &json!({})), applied()),
    ];
    neighbours(&bank, &script).await;
    let things = bank.database.rows("select id, slot, owner from thing order by id").await;
    let thing = |id: &str, slot: Option<i64>, owner: Option<&str>| json!({ "id": id, "slot": slot, "owner": owner });
    assert_eq!(things, [thing("b", Some(1), None), thing("own", None, Some("own"))]);
}
