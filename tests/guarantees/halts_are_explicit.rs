//! P6: where correctness cannot be proven, the partition halts with a named reason and the command
//! that resolves it. It never skips, and leaves everything else alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support;
use crate::support::bank::{Bank, Traffic};
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::Record;
use crate::support::topics;
use crate::support::worker::Worker;

const PARTITIONS: i32 = 2;

/// A bank whose accounts are open, and keys by the partition that they live on.
struct Scene {
    bank: Bank,
    keys: BTreeMap<i32, Vec<String>>,
}

impl Scene {
    /// Some commands of every partition are settled; no worker runs.
    async fn prepare(name: &str) -> Self {
        let bank = Bank::open(name, PARTITIONS).await;
        let scene = Self { keys: open_accounts(&bank), bank };
        scene.deposit(0, 10);
        scene.deposit(1, 10);
        let mut worker = scene.bank.worker();
        scene.bank.audit().await;
        assert_eq!(worker.sigterm_and_wait().code(), Some(0));
        scene
    }

    /// Deposits to accounts of one partition.
    fn deposit(&self, partition: i32, count: usize) {
        let keys = self.keys[&partition].iter().cycle().take(count);
        let deposit = |key: &String| Record::command("account.deposit", key, &json!({ "amount": 1 }));
        self.bank.send(&keys.map(deposit).collect::<Vec<_>>());
    }

    async fn next_offset(&self, partition: i32) -> i64 {
        let sql = format!("select next_offset from partitions where partition = {partition}");
        self.bank.database.number(&sql).await.expect("a cursor")
    }

    async fn halted_code(&self, partition: i32) -> Option<String> {
        let sql = format!("select halted_code from partitions where partition = {partition}");
        let row = self.bank.database.rows(&sql).await.pop()?;
        row["halted_code"].as_str().map(str::to_owned)
    }

    /// The partition halts, for that reason; the worker stays ready and alive.
    async fn halts(&self, partition: i32, code: &str, worker: &Worker) {
        wait_until(format!("a halt of partition {partition}"), PATIENCE, async || {
            self.halted_code(partition).await.is_some()
        })
        .await;
        assert_eq!(self.halted_code(partition).await.as_deref(), Some(code), "{}", worker.output());
        let said = |path| worker.get(path).map(|(code, _)| code);
        assert_eq!((said("/readyz"), said("/healthz")), (Some(200), Some(200)));
        let gauge = [("partition", &*partition.to_string()), ("state", "halted")];
        wait_until("the metric to say so", PATIENCE, async || {
            worker.metrics().sum("solewriter_partition_state", &gauge) == 1.0
        })
        .await;
    }

    /// The other partition settles what comes.
    async fn goes_on(&self, partition: i32) {
        self.deposit(partition, 10);
        self.bank.partition_settled(partition).await;
        assert_eq!(self.halted_code(partition).await, None);
    }

    /// Types what `status` says, with a reason.
    async fn resolve(&self, partition: i32) {
        self.type_what_status_names(partition);
        let audited =
            format!("operator_actions where action = 'resume' and partition = {partition} and reason = 'tested'");
        assert_eq!(self.bank.database.count(&audited).await, 1);
    }

    fn type_what_status_names(&self, partition: i32) {
        let status = self.bank.options.run_verb(&["status", "-o", "json"]);
        assert_eq!(status.code, Some(0), "{status:?}");
        let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
        let rows = status["partitions"].as_array().expect("partitions");
        let row = rows.iter().find(|row| row["partition"] == partition).expect("its row");
        assert_eq!(row["state"], "halted");
        let resolve = row["halt"]["resolve"].as_str().expect("a command to type");
        let words = resolve.split_whitespace().skip(1);
        let words: Vec<&str> = words.map(|word| if word == "…" { "tested" } else { word }).collect();
        let said = self.bank.options.run_verb(&words);
        assert_eq!(said.code, Some(0), "{resolve}: {said:?}");
    }

    /// The plain resume is refused: the halt asks a question.
    fn asks_for_a_choice(&self, partition: i32) {
        let at = format!("{}:{partition}", self.bank.topic);
        let said = self.bank.options.run_verb(&["resume", &at, "--reason", "hasty"]);
        assert_eq!(said.code, Some(2), "{said:?}");
    }

    async fn resumes(&self, partition: i32) {
        self.asks_for_a_choice(partition);
        self.resolve(partition).await;
        self.goes_on(partition).await;
    }

    async fn update(&self, partition: i32, set: &str) {
        let sql = format!("update partitions set {set} where partition = {partition}");
        self.bank.database.execute(&sql).await;
    }
}

/// Twenty accounts, opened; by partition.
fn open_accounts(bank: &Bank) -> BTreeMap<i32, Vec<String>> {
    let names: Vec<String> = (0..20).map(|n| format!("acct-{n}")).collect();
    let open = |name: &String| Record::command("account.open", name, &json!({ "initial": 100 }));
    let opens: Vec<Record> = names.iter().map(open).collect();
    let mut keys: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for (name, stored) in names.into_iter().zip(bank.producer.send(&bank.topic, &opens)) {
        keys.entry(stored.partition).or_default().push(name);
    }
    keys
}

/// Retention took records that were never settled.
#[tokio::test]
async fn a_log_truncated_past_the_cursor_halts_its_partition() {
    let _turn = support::heavy();
    let scene = Scene::prepare("truncated").await;
    let cursor = scene.next_offset(0).await;
    scene.deposit(0, 10);
    topics::delete_records(&scene.bank.cluster, &scene.bank.topic, 0, cursor + 5).await;
    let mut worker = scene.bank.worker();
    scene.halts(0, "log-truncated", &worker).await;
    scene.goes_on(1).await;
    assert_eq!(scene.next_offset(0).await, cursor, "nothing was skipped");
    scene.resumes(0).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// Same topic id, plausible length: only the last settled record tells.
#[tokio::test]
async fn a_log_that_was_truncated_and_has_grown_again_is_noticed() {
    let _turn = support::heavy();
    let scene = Scene::prepare("regrown").await;
    scene.update(0, "last_checksum = last_checksum # 1").await;
    let mut worker = scene.bank.worker();
    scene.halts(0, "log-truncated", &worker).await;
    scene.goes_on(1).await;
    scene.resumes(0).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

#[tokio::test]
async fn a_cursor_beyond_the_end_of_the_log_halts_its_partition() {
    let _turn = support::heavy();
    let scene = Scene::prepare("beyond").await;
    scene.update(0, "next_offset = next_offset + 5, published_offset = published_offset + 5").await;
    let mut worker = scene.bank.worker();
    scene.halts(0, "cursor-beyond-end", &worker).await;
    scene.goes_on(1).await;
    scene.resumes(0).await;
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
    for partition in 0..PARTITIONS {
        scene.halts(partition, "log-recreated", &worker).await;
    }
    assert_eq!(scene.bank.settled_count().await, settled, "nothing was settled");
    for partition in 0..PARTITIONS {
        scene.resumes(partition).await;
    }
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// Keys may have moved to another partition, and so under another writer: nobody goes on until every
/// entity is where its key is now.
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
    scene.type_what_status_names(0);
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

/// The group's committed offset is the witness: no worker remembers anything.
#[tokio::test]
async fn a_database_restored_while_no_worker_runs_halts() {
    let _turn = support::heavy();
    let scene = Scene::prepare("restored").await;
    copy_aside(&scene).await;
    let mut worker = scene.bank.worker();
    scene.deposit(0, 10);
    scene.bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    put_back(&scene).await;
    let mut worker = scene.bank.worker();
    scene.halts(0, "database-behind", &worker).await;
    scene.goes_on(1).await;
    scene.resumes(0).await;
    // what was forgotten was settled again, from the same log on the same state
    scene.bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
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
    scene.halts(0, "database-behind", &worker).await;
    scene.goes_on(1).await;
    scene.resumes(0).await;
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
    let said = scene.bank.options.run_verb(&["halt", &at, "--reason", "wrong rate"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let began = Instant::now();
    scene.halts(0, "operator", &worker).await;
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
    let cursor = scene.next_offset(0).await;
    scene.deposit(0, 10);
    scene.goes_on(1).await;
    assert_eq!(scene.next_offset(0).await, cursor, "it settles nothing");

    // no question was asked, so the plain resume answers it
    scene.resolve(0).await;
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
