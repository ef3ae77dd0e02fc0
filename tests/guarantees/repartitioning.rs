//! Another partition count moves keys to other partitions: their entities, what waits and what is
//! parked move with them, and nothing begins on the new partitions before.

use serde_json::{Value, json};

use crate::parked_keys::{letters, note, things};
use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{deposit, open};
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::{Producer, Record};
use crate::support::topics;
use crate::support::worker::{Said, Worker};

fn repartition(bank: &Bank, more: &[&str]) -> Said {
    bank.options.run_verb(&[&["repartition", &*bank.topic], more].concat())
}

const EXECUTE: [&str; 3] = ["--execute", "--reason", "the test"];

/// Everything that has a home has the one that its key has among so many partitions.
async fn lives_at_home(bank: &Bank, partitions: i32) {
    for table in [
        "select entity_id, partition as home from entities",
        "select entity_id, home from dead_letters
          where state in ('dead', 'parked', 'waiting') and code <> 'misrouted'",
        "select entity_id, partition as home from parked_keys",
    ] {
        for row in bank.database.rows(table).await {
            let key = row["entity_id"].as_str().expect("a key");
            assert_eq!(row["home"], topics::home(key, partitions), "{key}: {table}");
        }
    }
    let rows = bank.database.count(&format!("partitions where partition_count = {partitions}")).await;
    assert_eq!(rows, i64::from(partitions));
}

/// Every entity's versions are those of its applied commands, without a gap, whatever partition they
/// came from.
async fn versions_have_no_gap(bank: &Bank) {
    let gaps = "select count(*) from (
                    select version - row_number() over (partition by entity_id order by version) as gap
                      from processed_commands where outcome = 'applied') v where gap <> 0";
    assert_eq!(bank.database.number(gaps).await, Some(0));
    let behind = "entities e where version <> (select count(*) from processed_commands c
                                                where c.entity_id = e.entity_id and outcome = 'applied')";
    assert_eq!(bank.database.count(behind).await, 0);
}

/// The first key of each name that stays on its partition, and the first that leaves it.
fn stays_and_moves(name: &str, from: i32, to: i32) -> [String; 2] {
    let key = |stays: bool| {
        let mut keys = (0..).map(|n| format!("{name}-{n}"));
        keys.find(|key| (topics::home(key, from) == topics::home(key, to)) == stays).expect("a key")
    };
    [key(true), key(false)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_what_waits_behind_them_move_to_the_partitions_of_the_new_layout() {
    let _turn = support::heavy();
    let (_files, mut bank) = things("planned", 2).await;
    bank.options = bank.options.clone().property("topic.metadata.refresh.interval.ms", "1000");
    let mut worker = bank.worker();
    let parked = stays_and_moves("parked", 2, 3);
    let untouched = &stays_and_moves("untouched", 2, 3)[1];
    let keys: Vec<String> = (0..40).map(|n| format!("key-{n}")).collect();
    let mut log: Vec<Record> = parked.iter().flat_map(|key| [note(key, "bad"), note(key, "good")]).collect();
    log.extend(keys.iter().map(|key| note(key, "good")));
    log.push(note(untouched, "good"));
    log.push(Record::command("thing.unheard-of", &parked[1], &json!({})));
    bank.send(&log);
    bank.settled().await;

    let moving = keys.iter().filter(|key| topics::home(key, 2) != topics::home(key, 3)).count() + 1;
    let preview = repartition(&bank, &["--partitions", "3", "-o", "json"]);
    assert_eq!(preview.code, Some(0), "{preview:?}");
    let preview: Value = serde_json::from_str(&preview.stdout).expect("a document");
    assert_eq!(preview["moving"], json!({ "entities": moving, "letters": 3, "parked_keys": 1 }));
    assert_eq!((&preview["executed"], topics::partition_count(&bank.cluster, &bank.topic)), (&json!(false), 2));
    let came_from = "select dead_letter_id, partition from dead_letters order by 1";
    let logs_before = bank.database.rows(came_from).await;

    let done = repartition(&bank, &[&["--partitions", "3"], &EXECUTE[..]].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(topics::partition_count(&bank.cluster, &bank.topic), 3);
    lives_at_home(&bank, 3).await;
    assert_eq!(bank.database.rows(came_from).await, logs_before, "the log that a letter came from stays");
    assert_eq!(bank.database.count("partitions where halted_code is null").await, 3);
    assert_eq!(bank.database.count("operator_actions where action = 'repartition' and reason = 'the test'").await, 7);

    // a producer that knows the new layout; a parked key still holds its commands, where it is now
    let later: Vec<Record> = keys.iter().chain(&parked).map(|key| note(key, "good")).collect();
    let stored = Producer::new(&bank.cluster).send(&bank.topic, &later);
    assert!(stored.iter().any(|stored| stored.partition == 2));
    bank.settled().await;
    versions_have_no_gap(&bank).await;
    lives_at_home(&bank, 3).await;
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (2, 4));
    assert_eq!(bank.database.count("parked_keys where waiting = 2").await, 2);
    assert_eq!(bank.database.count("processed_commands").await, 81);
    let left = bank.database.count(&format!("entities where entity_id = '{untouched}' and version = 1")).await;
    assert_eq!(left, 1);

    let again = repartition(&bank, &EXECUTE);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("nothing to do"), "{again:?}");
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// A bank of twenty accounts, opened; no worker runs.
async fn opened(name: &str, partitions: i32) -> (Bank, Vec<String>) {
    let mut bank = Bank::open(name, partitions).await;
    // new partitions are noticed soon
    bank.options = bank.options.clone().property("topic.metadata.refresh.interval.ms", "1000");
    let keys: Vec<String> = (0..20).map(|n| format!("acct-{n}")).collect();
    bank.send(&keys.iter().map(|key| open(key, 0)).collect::<Vec<_>>());
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    (bank, keys)
}

fn deposits(keys: &[String]) -> Vec<Record> {
    keys.iter().map(|key| deposit(key, 1)).collect()
}

/// The tool stands in the last page, where a lock holds it up, and dies there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repartition_that_is_killed_goes_on_where_it_stopped_and_nothing_runs_meanwhile() {
    let _turn = support::heavy();
    let (bank, keys) = opened("killed", 3).await;
    let bulk = format!(
        "insert into entities select 'account', 'bulk-' || n, '{}', 0, 1, '{{\"balance\": 1}}'
           from generate_series(1, 30000) n",
        bank.topic
    );
    bank.database.execute(&bulk).await;
    let mut blocker = bank.database.pool.begin().await.expect("a transaction");
    let last = "select * from entities where entity_id = (select max(entity_id) from entities) for update";
    sqlx::query(last).execute(&mut *blocker).await.expect("a lock");
    let mut worker = bank.worker();
    let mut tool = Worker::start_verb(
        &bank.options,
        &[&["repartition", &*bank.topic, "--partitions", "5"], &EXECUTE[..]].concat(),
    );
    wait_until("some pages to be moved", PATIENCE, async || {
        bank.database.count("entities where partition > 2").await > 0
    })
    .await;
    tool.kill9();
    drop(blocker);
    let moving = "partitions where halted_code = 'partitions-changed' and repartitioning = 'moving'";
    assert_eq!(bank.database.count(moving).await, 3);
    assert!(bank.database.count("entities where entity_id like 'bulk-%' and partition = 0").await > 10_000);

    let settled = bank.settled_count().await;
    Producer::new(&bank.cluster).send(&bank.topic, &deposits(&keys));
    let accept = ["resume", &*bank.topic, "--accept-partitions", "--reason", "hasty"];
    let refused = bank.options.run_verb(&accept);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    // whoever owns them claims anew, and finds them halted
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    let _worker = bank.worker();
    assert_eq!(bank.settled_count().await, settled);

    let done = repartition(&bank, &EXECUTE);
    assert_eq!(done.code, Some(0), "{done:?}");
    bank.settled().await;
    lives_at_home(&bank, 5).await;
    assert_eq!(bank.database.count("entities where entity_id like 'bulk-%'").await, 30_000);
    assert_eq!(bank.database.count("entities where version = 2 and state = '{\"balance\": 1}'").await, 20);
    assert_eq!(bank.database.count("dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_while_a_partition_is_not_drained_or_a_row_is_not_proved() {
    let _turn = support::heavy();
    let (bank, keys) = opened("undrained", 2).await;
    bank.send(&deposits(&keys));
    let wanted = [&["--partitions", "3"], &EXECUTE[..]].concat();
    let refused = repartition(&bank, &wanted);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let next = format!("solewriter repartition {} --partitions 3 --drain --execute --reason …", bank.topic);
    assert!(refused.stderr.contains("is not settled: ") && refused.stderr.contains(&next), "{refused:?}");
    assert_eq!(topics::partition_count(&bank.cluster, &bank.topic), 2);
    assert_eq!(bank.database.count("partitions where halted_code is not null").await, 0);

    // a key that is parked, and no letter says so
    let ghost = format!("insert into parked_keys values ('{}', {}, 'ghost', 0)", bank.topic, topics::home("ghost", 2));
    bank.database.execute(&ghost).await;
    let mut worker = bank.worker();
    let differs = repartition(&bank, &[&wanted[..], &["--drain"]].concat());
    assert_eq!(differs.code, Some(3), "{differs:?}");
    assert!(differs.stderr.contains("ghost"), "{differs:?}");
    assert_eq!(bank.database.count("partitions where halted_code is null").await, 0);
    bank.database.execute("delete from parked_keys").await;
    let done = repartition(&bank, &EXECUTE);
    assert_eq!(done.code, Some(0), "{done:?}");
    Producer::new(&bank.cluster).send(&bank.topic, &deposits(&keys));
    bank.settled().await;
    lives_at_home(&bank, 3).await;
    versions_have_no_gap(&bank).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// What `status` names for a halted partition.
fn type_what_status_names(bank: &Bank) -> Said {
    let status = bank.options.run_verb(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).expect("a document");
    let rows = status["partitions"].as_array().expect("partitions");
    let resolve = rows.iter().find_map(|row| row["halt"]["resolve"].as_str()).expect("a command to type");
    let words: Vec<&str> =
        resolve.split_whitespace().skip(1).map(|word| if word == "…" { "x" } else { word }).collect();
    bank.options.run_verb(&words)
}

/// Partitions are added while records wait that were placed for the old layout; one producer learns of
/// it late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_placed_for_the_old_layout_runs_before_the_added_partitions_begin() {
    let _turn = support::heavy();
    let (bank, keys) = opened("accident", 2).await;
    bank.send(&deposits(&keys));
    topics::add_partitions(&bank.cluster, &bank.topic, 3).await;
    Producer::new(&bank.cluster).send(&bank.topic, &deposits(&keys));
    // behind the first record of the new layout, for a key that lives elsewhere by now
    let leaves = keys.iter().find(|key| topics::home(key, 2) == 0 && topics::home(key, 3) != 0).expect("a key");
    let late = Record { partition: Some(0), ..deposit(leaves, 1) };
    bank.producer.send_one(&bank.topic, &late);

    let mut worker = bank.worker();
    let halted = "partitions where halted_code = 'partitions-changed'";
    wait_until("all to halt", PATIENCE, async || bank.database.count(halted).await == 3).await;
    let begun = "partitions where partition = 2 and (next_offset > 0 or batch_seq > 0)";
    assert_eq!(bank.database.count(begun).await, 0, "a new partition has begun");
    assert_eq!(bank.database.count("processed_commands").await, 20);

    let said = type_what_status_names(&bank);
    assert_eq!(said.code, Some(0), "{said:?}");
    bank.settled().await;
    lives_at_home(&bank, 3).await;
    versions_have_no_gap(&bank).await;
    assert_eq!(bank.database.count("processed_commands where outcome = 'applied'").await, 60);
    let on_record = bank.database.rows("select code, entity_id, partition from dead_letters").await;
    assert_eq!(on_record, [json!({ "code": "misrouted", "entity_id": leaves, "partition": 0 })]);
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// The running owner notices at the first record of the new layout: what it has received before it is
/// settled and published, and nothing behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_owner_settles_what_comes_before_the_first_record_of_another_layout() {
    let _turn = support::heavy();
    let (bank, keys) = opened("noticed", 2).await;
    let mut worker = bank.worker();
    let stays = keys.iter().find(|key| topics::home(key, 2) == 0 && topics::home(key, 3) == 0).expect("a key");
    let comes = keys.iter().find(|key| topics::home(key, 2) == 1 && topics::home(key, 3) == 0).expect("a key");
    topics::add_partitions(&bank.cluster, &bank.topic, 3).await;
    let (_, end) = topics::watermarks(&bank.cluster, &bank.topic, 0);
    let mut sent: Vec<Record> = (0..10).map(|_| deposit(stays, 1)).collect();
    sent.push(deposit(comes, 1));
    sent.push(deposit(stays, 1));
    Producer::new(&bank.cluster).send(&bank.topic, &sent);
    let halted = format!(
        "partitions where partition = 0 and halted_code = 'partitions-changed' and next_offset = {0}
            and published_offset = {0}",
        end + 10
    );
    wait_until("the halt", PATIENCE, async || bank.database.count(&halted).await == 1).await;
    assert_eq!(type_what_status_names(&bank).code, Some(0));
    bank.settled().await;
    lives_at_home(&bank, 3).await;
    versions_have_no_gap(&bank).await;
    assert_eq!(bank.database.count("dead_letters").await, 0);
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}
