//! `replay plan` says of every record of a range what became of it, and plainly what it cannot say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support;
use crate::support::bank::{Bank, Traffic};
use crate::support::commands::{DAY_MS, deposit, now_ms, open, v7_at};
use crate::support::declared::project;
use crate::support::producer::{Ending, OpenTransaction, Record, in_transaction};
use crate::support::topics;
use crate::support::worker::Said;

const TABLES: &str = "create table if not exists poison (word text primary key);";

const COMMANDS: &str = r#"
[[command]]
type = "thing.note"
[[command.step]]
sql = "select 1 / (1 - count(*)) as fine from poison where word = :word"
expect = 1
otherwise = { reject = "never" }
[[command.step]]
sql = "select 1 as fine where :word <> 'no'"
expect = 1
otherwise = { reject = "not-wanted" }
[[command]]
type = "thing.look"
[[command.step]]
sql = "select 1 as fine where :word <> 'no'"
expect = 1
otherwise = { reject = "not-wanted" }
"#;

fn note(key: &str, word: &str) -> Record {
    Record::command("thing.note", key, &json!({ "word": word }))
}

/// What `replay plan -o json` says: the records by offset, and the partitions in their order.
struct Plan {
    said: Said,
    records: BTreeMap<i64, Value>,
    partitions: Vec<Value>,
}

impl Bank {
    fn planned(&self, arguments: &[&str]) -> Plan {
        let said = self.options.run_verb(&[&["replay", "plan", "-o", "json"], arguments].concat());
        let lines = said.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let (records, partitions): (Vec<Value>, _) = lines.partition(|line| line["type"] == "record");
        let by_offset = |line: Value| (line["offset"].as_i64().expect("an offset"), line);
        Plan { said, records: records.into_iter().map(by_offset).collect(), partitions }
    }
}

impl Plan {
    fn fates(&self) -> Vec<(i64, &str)> {
        self.records.iter().map(|(offset, line)| (*offset, line["fate"].as_str().expect("a fate"))).collect()
    }

    fn done(self) -> Self {
        assert_eq!(self.said.code, Some(0), "{:?}", self.said);
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fate_is_told_of_the_record_that_has_it() {
    let _turn = support::heavy();
    let (files, bank) = project("fates", "thing", 1, TABLES, COMMANDS).await;
    bank.database.execute("insert into poison values ('bad')").await;
    let mut worker = bank.worker();
    let first = note("a", "good");
    bank.send(&[
        first.clone(),                             // 0
        note("a", "no"),                           // 1
        first.clone(),                             // 2
        note("a", "good").value("no JSON"),        // 3
        note("b", "bad"),                          // 4
        note("b", "good"),                         // 5
        note("a", "good").without_header("ce_id"), // 6
        note("cured", "bad"),                      // 7
        note("given-up", "bad"),                   // 8
    ]);
    in_transaction(&bank.cluster, &bank.topic, &[note("c", "good")], Ending::Commit); // 9, marker 10
    in_transaction(&bank.cluster, &bank.topic, &[note("c", "good")], Ending::Abort); // 11, marker 12
    bank.send(&[Record::command("thing.look", "a", &json!({ "word": "good" }))]); // 13
    bank.settled().await;
    bank.database.execute("delete from poison").await;
    for (verb, key) in [("redrive", "cured"), ("discard", "given-up")] {
        let said = bank.options.run_verb(&["dead-letters", verb, "--key", key, "--reason", "the test", "--execute"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
    bank.send(&[note("a", "good"), first.clone()]); // 14, 15

    let plan = bank.planned(&[]).done();
    let expected = [
        (0, "applied"),
        (1, "rejected"),
        (2, "duplicate"),
        (3, "dead"),
        (4, "parked"),
        (5, "waiting"),
        (6, "dead"),
        (7, "applied"),
        (8, "discarded"),
        (9, "applied"),
        (13, "applied"),
        (14, "unsettled"),
        (15, "unsettled"),
    ];
    assert_eq!(plan.fates(), expected);
    let record = |offset: i64, name: &str| plan.records[&offset][name].clone();
    assert_eq!((record(1, "code"), record(3, "code")), (json!("not-wanted"), json!("malformed-payload")));
    assert_eq!((record(4, "code"), record(6, "code")), (json!("data-error"), json!("missing-id")));
    assert_eq!((record(7, "redriven"), record(0, "redriven")), (json!(true), json!(false)));
    assert_eq!(record(2, "settled_at"), json!({ "topic": bank.topic, "partition": 0, "offset": 0 }));
    assert_eq!((record(2, "command_id"), record(6, "command_id")), (json!(first.command_id()), Value::Null));
    let [partition] = plan.partitions.as_slice() else { panic!("{:?}", plan.partitions) };
    assert_eq!(
        (&partition["records"], &partition["next_offset"], &partition["end"]),
        (&json!(13), &json!(14), &json!(16))
    );
    assert_eq!(partition["fates"]["applied"], 4);
    assert_eq!((&partition["complete"], &partition["lost"]), (&json!(true), &Value::Null));

    // narrower ranges: offsets, an entity, a type
    let place = format!("{}:0", bank.topic);
    let offsets = |arguments: &[&str]| bank.planned(arguments).done().records.into_keys().collect::<Vec<_>>();
    assert_eq!(offsets(&[&format!("{place}:3-5")]), [3, 4]);
    assert_eq!(offsets(&[&place, "--from-offset", "13", "--to-offset", "14"]), [13]);
    assert_eq!(offsets(&["--key", "b"]), [4, 5]);
    assert_eq!(offsets(&["--type", "thing.look"]), [13]);
    assert_eq!(offsets(&["--since", "1h", "--key", "c"]), [9]);
    assert_eq!(offsets(&["--to-datetime", "2001-01-01T00:00:00Z"]), [] as [i64; 0]);

    // a range by time stays what it was once it is in a file
    let exported = bank.options.run_verb(&["replay", "plan", "--since", "1h", "--export"]);
    assert_eq!((exported.code, exported.stdout.as_str()), (Some(0), &*format!("{place}:0-16\n")));
    let file = files.path().join("range");
    std::fs::write(&file, format!("# the first two\n{place}:0-2\n")).expect("write a range");
    let file = file.display().to_string();
    assert_eq!(offsets(&["--from-file", &file]), [0, 1]);
    std::fs::write(&file, "").expect("write a range");
    assert_eq!(bank.planned(&["--from-file", &file]).said.code, Some(2), "nothing is not everything");

    let said = bank.options.run_verb(&["replay", "plan"]);
    for word in ["WAITING", "UNSETTLED", "malformed-payload", "not-wanted", "·"] {
        assert!(said.stdout.contains(word), "{word}: {said:?}");
    }
    assert!(bank.options.run_verb(&["replay", "plan", "nobody.commands"]).code == Some(2));
}

/// What follows the beginning of an open transaction has been seen by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_hides_what_follows_and_is_named() {
    let _turn = support::heavy();
    let bank = Bank::open("hidden", 1).await;
    bank.send(&[open("a", 1), deposit("a", 1)]);
    let _worker = bank.worker();
    bank.settled().await;
    let transaction = OpenTransaction::begin(&bank.cluster, &bank.topic, &[deposit("a", 2)]);
    bank.send(&[deposit("a", 3)]);
    let plan = bank.planned(&[]).done();
    assert_eq!(plan.fates(), [(0, "applied"), (1, "applied")]);
    assert_eq!(plan.partitions[0]["hidden"], json!({ "from": 2, "to": 4 }));
    let said = bank.options.run_verb(&["replay", "plan"]);
    assert!(said.stdout.contains("an open transaction hides offsets 2 to 3"), "{said:?}");
    assert_eq!(said.stderr, "", "the end of a partition is no warning");
    drop(transaction);
}

/// What is not settled waits for an operator there, not for its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halted_partition_is_named_with_what_resolves_it() {
    let _turn = support::heavy();
    let bank = Bank::open("planhalt", 1).await;
    bank.send(&[open("a", 1)]);
    let _worker = bank.worker();
    bank.settled().await;
    let target = format!("{}:0", bank.topic);
    let halted = bank.options.run_verb(&["halt", &target, "--reason", "INC-7"]);
    assert_eq!(halted.code, Some(0), "{halted:?}");
    assert_eq!(bank.options.run_verb(&["replay", "plan"]).stdout.matches("halted").count(), 0, "nothing waits");
    bank.send(&[deposit("a", 2)]);

    let plan = bank.planned(&[]).done();
    assert_eq!(plan.fates(), [(0, "applied"), (1, "unsettled")]);
    let resolve = format!("solewriter resume {target} --reason …");
    let halt = &plan.partitions[0]["halt"];
    assert_eq!((&halt["code"], &halt["resolve"]), (&json!("operator"), &json!(resolve)));
    let said = bank.options.run_verb(&["replay", "plan"]).stdout;
    assert!(said.contains(&format!("{target} halted, operator: ")) && said.contains(&resolve), "{said}");
}

/// What lies below the low watermark is named, by offsets and by time; nothing left at all is a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_has_lost_part_of_the_range_says_so() {
    let _turn = support::heavy();
    let bank = Bank::open("lost", 1).await;
    bank.send(&Traffic::new(1, 5).commands(50));
    let _worker = bank.worker();
    bank.settled().await;
    topics::delete_records(&bank.cluster, &bank.topic, 0, 20).await;

    let plan = bank.planned(&[]).done();
    assert_eq!(plan.partitions[0]["lost"], json!({ "from": 0, "to": 20 }));
    assert_eq!((plan.records.len(), plan.records.keys().next()), (30, Some(&20)));
    let by_time = bank.planned(&["--since", "1d"]).done();
    assert_eq!(by_time.partitions[0]["lost"], json!({ "from": null, "to": 20 }));
    let said = bank.options.run_verb(&["replay", "plan"]);
    assert!(said.stdout.contains("offsets 0 to 19 are no longer in the log"), "{said:?}");
    let inside = bank.planned(&[&format!("{}:0:30-40", bank.topic)]).done();
    assert_eq!(inside.partitions[0]["lost"], Value::Null);

    let gone = bank.planned(&[&format!("{}:0:5-15", bank.topic)]);
    assert_eq!((gone.said.code, gone.records.len()), (Some(1), 0), "{:?}", gone.said);
    assert_eq!(gone.partitions[0]["lost"], json!({ "from": 5, "to": 15 }));
    assert!(gone.said.stderr.contains("nothing of the range is left"), "{:?}", gone.said);
}

/// An id below the horizon that is not found may have run; one above it was never settled by a worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_remembered_is_not_taken_for_what_never_was() {
    let _turn = support::heavy();
    let bank = Bank::open("forgotten", 1).await;
    let old = v7_at(now_ms() - 3 * DAY_MS);
    bank.send(&[open("a", 1), deposit("a", 1).id(old), deposit("a", 2)]);
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
    bank.database.execute("delete from processed_timed where \"offset\" in (1, 2)").await;
    let unknown = bank.planned(&[]).done();
    assert_eq!(unknown.fates(), [(0, "applied"), (1, "unrecorded"), (2, "unrecorded")]);
    bank.database
        .execute("update horizon set at = now() - interval '1 day', floor_id = uuid_floor(now() - interval '1 day')")
        .await;
    let forgotten = bank.planned(&[]).done();
    assert_eq!(forgotten.fates(), [(0, "applied"), (1, "forgotten"), (2, "unrecorded")]);
}
