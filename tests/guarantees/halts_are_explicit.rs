//! P6: where correctness cannot be proven, the partition halts with a named reason and the command
//! that resolves it. It never skips, and leaves everything else alone.

mod compaction;
mod database_went_back;
mod scene;

use std::time::{Duration, Instant};

use scene::{PARTITIONS, Scene};
use serde_json::json;

use crate::support;
use crate::support::bank::{Bank, Traffic};
use crate::support::commands::{now_ms, v7_at};
use crate::support::halted::halted;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::Record;
use crate::support::topics;

/// Retention took records that were never settled.
#[tokio::test]
async fn a_log_truncated_past_the_cursor_halts_its_partition() {
    let _turn = support::heavy();
    let scene = Scene::prepare("truncated").await;
    let cursor = scene.next_offset(0).await;
    scene.deposit(0, 10);
    topics::delete_records(&scene.bank.cluster, &scene.bank.topic, 0, cursor + 5).await;
    let mut worker = scene.bank.worker();
    let told = scene.halts(0, "log-truncated", &worker).await;
    scene.goes_on(1).await;
    assert_eq!(scene.next_offset(0).await, cursor, "nothing was skipped");
    scene.resumes(0, &told).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// Same topic id, plausible length: only the last settled record tells.
#[tokio::test]
async fn a_log_that_was_truncated_and_has_grown_again_is_noticed() {
    let _turn = support::heavy();
    let scene = Scene::prepare("regrown").await;
    scene.update(0, "last_checksum = last_checksum # 1").await;
    let mut worker = scene.bank.worker();
    let told = scene.halts(0, "log-truncated", &worker).await;
    scene.goes_on(1).await;
    scene.resumes(0, &told).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

#[tokio::test]
async fn a_cursor_beyond_the_end_of_the_log_halts_its_partition() {
    let _turn = support::heavy();
    let scene = Scene::prepare("beyond").await;
    scene.update(0, "next_offset = next_offset + 5, published_offset = published_offset + 5").await;
    let mut worker = scene.bank.worker();
    let told = scene.halts(0, "cursor-beyond-end", &worker).await;
    scene.goes_on(1).await;
    scene.resumes(0, &told).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

#[tokio::test]
async fn a_topic_created_again_shorter_halts() {
    a_topic_created_again("recreated-shorter", 1).await;
}

/// With more records than before: the cursor would look plausible.
#[tokio::test]
async fn a_topic_created_again_longer_halts() {
    a_topic_created_again("recreated-longer", 50).await;
}

async fn a_topic_created_again(name: &str, records: usize) {
    let _turn = support::heavy();
    let scene = Scene::prepare(name).await;
    let (cluster, topic) = (&scene.bank.cluster, &scene.bank.topic);
    topics::delete(cluster, topic).await;
    topics::create(cluster, topic, PARTITIONS, &[]).await;
    scene.deposit(0, records);
    scene.deposit(1, records);
    let settled = scene.bank.settled_count().await;
    let mut worker = scene.bank.worker();
    let first = scene.halts(0, "log-recreated", &worker).await;
    let second = scene.halts(1, "log-recreated", &worker).await;
    assert_eq!(scene.bank.settled_count().await, settled, "nothing was settled");
    scene.resumes(0, &first).await;
    scene.resumes(1, &second).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// Keys may have moved to another partition, and so under another writer. The partitions go on when
/// each key is where its partition is now.
#[tokio::test]
async fn added_partitions_halt_the_topic_until_its_keys_have_moved() {
    let _turn = support::heavy();
    let scene = Scene::prepare("added").await;
    topics::add_partitions(&scene.bank.cluster, &scene.bank.topic, 4).await;
    let mut worker = scene.bank.worker();
    for partition in 0..4 {
        scene.halts(partition, "partitions-changed", &worker).await;
        scene.asks_for_a_choice(partition);
    }
    // what leaves keys behind is refused
    let accept = ["resume", &*scene.bank.topic, "--accept-partitions", "--reason", "hasty"];
    let said = scene.bank.options.run_verb(&accept);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("solewriter repartition"), "{said:?}");
    let told = scene.halts(0, "partitions-changed", &worker).await;
    scene.type_it(&told);
    let database = &scene.bank.database;
    assert_eq!(database.count("partitions where halted_code is null and partition_count = 4").await, 4);
    // some of the old accounts live on the new partitions now
    let producer = support::producer::Producer::new(&scene.bank.cluster);
    let keys = scene.keys.values().flatten();
    let deposit = |key: &String| Record::command("account.deposit", key, &json!({ "amount": 1 }));
    let deposits: Vec<Record> = keys.map(deposit).collect();
    let stored = producer.send(&scene.bank.topic, &deposits);
    scene.bank.settled().await;
    assert_eq!(database.count("entities").await, 20);
    for partition in [2, 3] {
        let homes = format!("entities where partition = {partition}");
        let moved = stored.iter().filter(|stored| stored.partition == partition).count();
        assert!(moved > 0);
        assert_eq!(database.count(&homes).await, i64::try_from(moved).expect("a count"));
    }
    assert_eq!(database.count("dead_letters").await, 0);
    assert_eq!(database.count("processed_commands where outcome = 'applied'").await, 60);
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

const TABLES: [&str; 4] = ["partitions", "processed_timed", "entities", "batches"];

/// As a backup does.
async fn copy_aside(scene: &Scene) {
    for table in TABLES {
        let sql = format!("create table backup_{table} as select * from {table}");
        scene.bank.database.execute(&sql).await;
    }
}

/// As a restore does: all at once.
async fn put_back(scene: &Scene) {
    let tables = TABLES.map(|table| format!("delete from {table}; insert into {table} select * from backup_{table};"));
    let sql = format!("begin; {} commit;", tables.concat());
    scene.bank.database.execute(&sql).await;
}

/// The worker's own memory is the witness.
#[tokio::test]
async fn a_database_restored_under_a_running_worker_halts() {
    let _turn = support::heavy();
    let scene = Scene::prepare("restored-running").await;
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    scene.goes_on(1).await;
    copy_aside(&scene).await;
    scene.goes_on(0).await;
    put_back(&scene).await;
    // what comes now would be settled on top of a past that never was
    scene.deposit(0, 10);
    let told = scene.halts(0, "database-behind", &worker).await;
    scene.goes_on(1).await;
    scene.resumes(0, &told).await;
    scene.bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

#[tokio::test]
async fn an_operators_halt_and_resume_reach_the_running_owner() {
    let _turn = support::heavy();
    let scene = Scene::prepare("operator").await;
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    let at = format!("{}:0", scene.bank.topic);
    let preview = scene.bank.options.run_verb(&["halt", &at, "--dry-run"]);
    assert_eq!(preview.code, Some(0), "{preview:?}");
    assert!(preview.stdout.contains("would be halted"), "{preview:?}");
    assert_eq!(scene.halted_code(0).await, None);
    let said = scene.bank.options.run_verb(&["halt", &at, "--reason", "wrong rate"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let began = Instant::now();
    let told = scene.halts(0, "operator", &worker).await;
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
    let cursor = scene.next_offset(0).await;
    scene.deposit(0, 10);
    scene.goes_on(1).await;
    assert_eq!(scene.next_offset(0).await, cursor, "it settles nothing");

    let preview = scene.bank.options.run_verb(&["resume", &at, "--skip-to", "latest", "--dry-run"]);
    assert!(preview.stdout.contains("are never settled"), "{preview:?}");
    assert_eq!(scene.halted_code(0).await.as_deref(), Some("operator"));
    // no question was asked, so the plain resume answers it
    scene.resolve(0, &told).await;
    scene.goes_on(0).await;
    scene.bank.audit().await;
    let audited = "operator_actions where action = 'halt' and reason = 'wrong rate' and actor <> ''";
    assert_eq!(scene.bank.database.count(audited).await, 1);
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// A halt outlives its worker: the next owner does not go on either.
#[tokio::test]
async fn a_halt_outlives_the_worker() {
    let _turn = support::heavy();
    let scene = Scene::prepare("outlives").await;
    let said = scene.bank.options.run_verb(&["halt", &scene.bank.topic, "--reason", "maintenance"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut worker = scene.bank.worker();
    scene.halts(0, "operator", &worker).await;
    scene.halts(1, "operator", &worker).await;
    scene.bank.send(&Traffic::new(9, 20).commands(20));
    worker.kill9();
    let settled = scene.bank.settled_count().await;
    let mut worker = scene.bank.worker();
    scene.halts(0, "operator", &worker).await;
    assert_eq!(scene.bank.settled_count().await, settled);
    let said = scene.bank.options.run_verb(&["resume", &scene.bank.topic, "--reason", "done"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    scene.bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// A topic whose commands are older than anything that is remembered: each may have been settled and
/// forgotten.
#[tokio::test]
async fn a_backlog_older_than_the_horizon_waits_for_a_decision() {
    let _turn = support::heavy();
    let bank = Bank::open("backlog", 1).await;
    let old = Record::command("account.open", "acct", &json!({ "initial": 1 })).id(v7_at(now_ms() - 1_000));
    bank.send(std::slice::from_ref(&old));
    bank.database.execute("update horizon set at = now(), floor_id = uuid_floor(now())").await;
    let worker = bank.worker();
    let told = halted(&bank, &worker, 0).await;
    assert_eq!(told.code, "backlog-older-than-horizon");
    assert_eq!(bank.settled_count().await, 0);
    let scene = Scene { keys: [(0, vec!["acct".to_owned()])].into(), bank };
    scene.asks_for_a_choice(0);
    scene.resolve(0, &told).await;
    scene.bank.settled().await;
    assert_eq!(scene.bank.database.count("dead_letters where code = 'expired'").await, 1);
}

/// While there is no topic there is nothing to settle; the one that comes next is another log.
#[tokio::test]
async fn a_topic_deleted_under_a_running_worker_stops_nothing_else_and_halts_when_it_is_back() {
    let _turn = support::heavy();
    let mut scene = Scene::prepare("deleted").await;
    scene.bank.options = scene.bank.options.clone().property("topic.metadata.refresh.interval.ms", "500");
    let (cluster, topic) = (scene.bank.cluster.clone(), scene.bank.topic.clone());
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    let settled = scene.bank.settled_count().await;
    topics::delete(&cluster, &topic).await;
    wait_until("the worker to say so", PATIENCE, async || worker.output().contains("does not exist any more")).await;
    assert!(worker.output().contains(&format!("--create --topic {topic} --partitions {PARTITIONS}")));
    let status = scene.bank.options.run_verb(&["status"]);
    assert!(status.code == Some(0) && status.stderr.contains("the topic does not exist"), "{status:?}");
    assert_eq!(worker.get("/healthz").map(|(code, _)| code), Some(200));
    topics::create(&cluster, &topic, PARTITIONS, &[]).await;
    scene.deposit(0, 50);
    let told = scene.halts(0, "log-recreated", &worker).await;
    assert_eq!(scene.bank.settled_count().await, settled, "nothing was settled");
    scene.resumes(0, &told).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}
