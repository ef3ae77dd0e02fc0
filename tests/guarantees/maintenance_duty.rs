//! The maintenance duty (days ahead, the horizon, days and batches behind it) is one owner's at a
//! time. Kafka elects it, and the fence that guards a commit guards each of its changes.

mod never_blocks_the_writers;

use solewriter::config::Partitioner;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support;
use crate::support::bank::{Bank, Traffic};
use crate::support::commands::{DAY_MS, deposit, now_ms, open, v7_at};
use crate::support::patience::{PATIENCE, wait_for, wait_until};
use crate::support::postgres::Database;
use crate::support::proxy::{Fault, Proxy};
use crate::support::topics;
use crate::support::worker::{Worker, WorkerOptions};

/// Passes of one owner in a row, from which is told that the others make none.
const PASSES: f64 = 5.0;

impl Bank {
    /// Workers that pass all the time, and are missed within seconds.
    fn quick(mut self) -> Self {
        let options = self.options.clone().property("session.timeout.ms", "2000");
        self.options = options.setting("[worker]\nmaintenance_interval = \"50ms\"");
        self
    }

    /// Workers that pass once, at their claim.
    fn once(&self) -> WorkerOptions {
        self.options.clone().setting("[worker]\nmaintenance_interval = \"1d\"")
    }
}

fn started(options: &WorkerOptions) -> Worker {
    let mut worker = Worker::start(options);
    worker.wait_ready();
    worker
}

fn passes(worker: &Worker) -> f64 {
    worker.metrics().sum("solewriter_maintenance_passes_total", &[])
}

fn wait_for_passes(worker: &Worker, more: f64) {
    let before = passes(worker);
    wait_for(format!("{more} passes after {before}"), PATIENCE, || (passes(worker) >= before + more).then_some(()));
}

/// Which of two has the duty; the other one makes not one pass meanwhile.
fn on_duty(workers: [&Worker; 2]) -> usize {
    let before = workers.map(passes);
    let made = || [passes(workers[0]) - before[0], passes(workers[1]) - before[1]];
    let on_duty = wait_for("one of two to have the duty", PATIENCE, || made().iter().position(|made| *made >= PASSES));
    assert_eq!(made()[1 - on_duty], 0.0, "both have the duty");
    on_duty
}

async fn two_own(bank: &Bank) {
    let owners = "(select distinct owner from partitions) as owners";
    wait_until("both to own partitions", PATIENCE, async || bank.database.count(owners).await == 2).await;
}

/// Two workers share four partitions; the one on duty dies, then the next one leaves in order.
#[tokio::test]
async fn one_worker_has_the_duty_and_it_is_taken_over_after_kill_9_and_after_a_stop() {
    let _turn = support::heavy();
    let bank = Bank::open("duty", 4).await.quick();
    let mut workers = vec![bank.worker(), bank.worker()];
    two_own(&bank).await;
    let mut dead = workers.remove(on_duty([&workers[0], &workers[1]]));
    dead.kill9();
    wait_for_passes(&workers[0], PASSES);

    workers.push(bank.worker());
    two_own(&bank).await;
    let mut leaving = workers.remove(on_duty([&workers[0], &workers[1]]));
    assert_eq!(leaving.sigterm_and_wait().code(), Some(0));
    wait_for_passes(&workers[0], PASSES);
    bank.send(&Traffic::new(1, 10).commands(100));
    bank.audit().await;
}

/// Its next call is on its way when it is stopped; another worker takes the duty over, and only then
/// does the call reach the database.
#[tokio::test]
async fn a_duty_that_wakes_up_after_it_was_taken_over_changes_nothing() {
    let _turn = support::heavy();
    let bank = Bank::open("duty-zombie", 1).await.quick();
    let proxy = Proxy::in_front_of(&bank.database.url);
    let mut stale = started(&bank.options.clone().database_url(proxy.url(&bank.database.url)));
    wait_for_passes(&stale, PASSES);
    let stale_owner = bank.owner(0).await.expect("an owner");
    proxy.arm("drop_day_v1", Fault::Held);
    proxy.wait_fired(1, PATIENCE);
    stale.sigstop();
    let next = started(&bank.once());
    wait_for("the duty to be taken over", PATIENCE, || (passes(&next) == 1.0).then_some(()));

    // what any duty would drop at once
    bank.database
        .execute(
            "select make_day_v1(now() - interval '40 days');
             update horizon set dropping_below = floor_id, drop_after = '3'",
        )
        .await;
    let there = "pg_class where oid = to_regclass('processed_' || to_char((now() - interval '40 days')
                     at time zone 'UTC', 'YYYYMMDD'))";
    let released = bank.database.rows("select clock_timestamp()::text as at").await;
    let released = released[0]["at"].as_str().expect("a time").to_owned();
    proxy.release();
    // it sleeps on: when it wakes up it may learn of the rebalance before it reads the answer
    let ran = format!(
        "pg_stat_activity where application_name = '{stale_owner}' and query like '%drop_day_v1%' and state = 'idle'
             and query_start > '{released}'"
    );
    wait_until("the stale call to end", PATIENCE, async || bank.database.count(&ran).await == 1).await;
    assert_eq!(bank.database.count(there).await, 1, "a stale duty has dropped a day");

    stale.sigcont();
    bank.send(&Traffic::new(4, 10).commands(100));
    bank.audit().await;
}

/// Each of its functions, by a claim that another one has followed, and by an owner whose topic is
/// not the first.
#[tokio::test]
async fn every_change_of_the_duty_is_refused_to_whoever_has_it_not() {
    let database = Database::fresh("duty_refused").await;
    let cluster = support::kafka::shared();
    let options = WorkerOptions::new(&cluster, &database, "b");
    assert_eq!(options.run_verb(&["migrate"]).code, Some(0));
    let claim = |topic: &str, id: u32| {
        format!(
            "select claim_partition_v1('{topic}', 0, '00000000-0000-4000-8000-00000000000{id}', 'o', 'c', 'g', 0,
                                       't', 1, null, null, null, null)"
        )
    };
    database.execute(&claim("b", 1)).await;
    let held = "'b', '00000000-0000-4000-8000-000000000001'::uuid, 1::bigint";
    let calls = |claim: &str| {
        [
            format!("make_days_v1({claim}, 9)"),
            format!("drop_day_v1({claim})"),
            format!("raise_horizon_v1({claim}, (extract(epoch from now()) * 1000)::bigint)"),
            format!("see_horizon_v1({claim}, uuid_floor(now()))"),
            format!("delete_batches_v1({claim}, 10)"),
        ]
    };
    // so that each of them has something to do
    let prepare = "select make_day_v1(now() - interval '40 days');
         update partitions set published_seq = 9;
         update horizon set dropping_below = floor_id, drop_after = '3';
         insert into batches (topic, partition, batch_seq, first_offset, next_offset, fencing_token,
                              settled_at, command_ids, repeats, dead_letter_ids, dead_after)
         values ('b', 0, 1, 0, 0, 0, '-infinity', '{}', '{}', '{}', '{}')";
    database.execute(prepare).await;
    let tables = "select (select array_agg(c.relname order by 1) from pg_inherits i join pg_class c on c.oid = inhrelid
                           where inhparent = 'processed_timed'::regclass) as days, h.*,
                         (select count(*) from batches) as batches from horizon h";
    let before = database.rows(tables).await;

    database.execute(&claim("b", 2)).await;
    refused(&database, &calls(held), "SW001").await;
    let held = "'b', '00000000-0000-4000-8000-000000000002'::uuid, 2::bigint";
    database.execute(&claim("a", 3)).await;
    refused(&database, &calls(held), "SW020").await;
    assert_eq!(database.rows(tables).await, before);

    let held = "'a', '00000000-0000-4000-8000-000000000003'::uuid, 1::bigint";
    for call in calls(held) {
        let before = database.rows(tables).await;
        database.execute(&format!("select {call}")).await;
        assert_ne!(database.rows(tables).await, before, "{call} has nothing to do, so its refusals say nothing");
    }
}

async fn refused(database: &Database, calls: &[String], code: &str) {
    for call in calls {
        let sql = AssertSqlSafe(format!("select {call}"));
        let error = sqlx::raw_sql(sql).execute(&database.pool).await.expect_err(call);
        let error = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(error.as_deref(), Some(code), "{call}");
    }
}

/// One schema, two services with a topic each, in groups of their own.
#[tokio::test]
async fn workers_with_other_topics_in_one_schema_have_one_duty() {
    let _turn = support::heavy();
    let bank = Bank::open("duty-z", 1).await.quick();
    let later = bank.worker();
    wait_for_passes(&later, PASSES);
    let mut options = bank.options.clone();
    options.topics[0].0 = topics::fresh(&bank.cluster, "duty-a", 1).await;
    options.group_id += "-other";
    let mut first = started(&options);
    wait_for_passes(&first, 1.0);
    assert_eq!(on_duty([&first, &later]), 0, "the first topic by name carries the duty");

    // its group has no other member: nobody takes the duty over, rather than two
    assert_eq!(first.sigterm_and_wait().code(), Some(0));
    let before = passes(&later);
    bank.send(&Traffic::new(2, 10).commands(100));
    bank.settled().await;
    assert_eq!(passes(&later), before);
    // a topic that is retired is taken out of the table
    bank.database.execute(&format!("delete from partitions where topic = '{}'", options.topics[0].0)).await;
    wait_for_passes(&later, PASSES);
}

/// Nothing but the clock is moved: commands and batches are made older than they are.
#[tokio::test]
async fn days_are_made_ahead_and_dropped_with_their_batches_once_they_are_behind() {
    let _turn = support::heavy();
    let mut bank = Bank::open("duty-days", 1).await.quick();
    bank.options = bank.options.clone().setting("[deduplication]\nwindow = \"1h\"");
    bank.database
        .execute(
            "update horizon set at = at - interval '6 days', floor_id = uuid_floor(at - interval '6 days'),
                    dropping_below = null, drop_after = null",
        )
        .await;
    let mut worker = started(&bank.once());
    bank.send(&[open("acct-a", 1).id(v7_at(now_ms() - 3 * DAY_MS))]);
    bank.settled().await;
    assert!(worker.sigterm_and_wait().success());
    let day = |ago: i32| {
        format!(
            "pg_class where oid = to_regclass('processed_' || to_char((now() - interval '{ago} days')
                 at time zone 'UTC', 'YYYYMMDD'))"
        )
    };
    let ahead = format!("(select 1 from {}) as later", day(-2));
    assert_eq!(bank.database.count(&day(3)).await, 1);
    bank.database
        .execute(
            "update batches set settled_at = settled_at - interval '3 days';
             do $$ begin
                 execute 'drop table processed_' || to_char((now() + interval '2 days') at time zone 'UTC', 'YYYYMMDD');
             end $$",
        )
        .await;
    assert_eq!(bank.database.count(&ahead).await, 0);

    let worker = bank.worker();
    bank.send(&[deposit("acct-a", 1)]);
    bank.settled().await;
    wait_until("a day ahead", PATIENCE, async || bank.database.count(&ahead).await == 1).await;
    wait_until("the old day to be dropped", PATIENCE, async || bank.database.count(&day(3)).await == 0).await;
    let old = "batches where settled_at < now() - interval '2 days'";
    wait_until("the old batch to be deleted", PATIENCE, async || bank.database.count(old).await == 0).await;
    wait_until("the horizon to be a window behind", PATIENCE, async || {
        bank.database.count("horizon where at > now() - interval '61 minutes'").await == 1
    })
    .await;
    wait_for_passes(&worker, PASSES);
    assert_eq!(bank.database.count("processed_commands").await, 1, "what is within the window stays");
    assert_eq!(bank.database.count("batches").await, 1);
    assert_eq!(bank.database.count(&day(0)).await, 1);
    wait_for("the gauge to follow", PATIENCE, || {
        (worker.metrics().sum("solewriter_horizon_lag_seconds", &[]) < 60.0).then_some(())
    });
}

/// A long query on the day, such as a dump: the duty gives up, the writers go on.
#[tokio::test]
async fn a_day_that_somebody_reads_is_dropped_when_he_has_done() {
    let _turn = support::heavy();
    let bank = Bank::open("duty-reader", 1).await.quick();
    bank.database.execute("select make_day_v1(now() - interval '40 days')").await;
    let day = "to_regclass('processed_' || to_char((now() - interval '40 days') at time zone 'UTC', 'YYYYMMDD'))";
    let name = bank.database.rows(&format!("select {day}::text as name")).await;
    let name = name[0]["name"].as_str().expect("a day").to_owned();
    let mut reader = PgConnection::connect(&bank.database.url).await.expect("connect");
    let read = format!("begin; select count(*) from {}.{name}", bank.database.schema);
    sqlx::raw_sql(AssertSqlSafe(read)).execute(&mut reader).await.expect("read the day");
    let worker = bank.worker();
    bank.database.execute("update horizon set dropping_below = floor_id, drop_after = '3'").await;
    wait_for("the duty to give up", PATIENCE, || worker.output().contains("is in use").then_some(()));
    bank.send(&Traffic::new(3, 10).commands(200));
    bank.audit().await;
    wait_for_passes(&worker, PASSES);
    assert_eq!(bank.database.count(&format!("pg_class where oid = {day}")).await, 1);

    sqlx::raw_sql("commit").execute(&mut reader).await.expect("end");
    wait_until("the day to be dropped", PATIENCE, async || {
        bank.database.count(&format!("pg_class where oid = {day}")).await == 0
    })
    .await;
}

/// Partition 1 is halted: the horizon stands still, and it is told which partition holds it. Then
/// partition 0: nobody has the duty, until it is resumed.
#[tokio::test]
async fn a_halted_partition_holds_the_horizon_and_partition_0_the_whole_duty_and_both_are_told() {
    let _turn = support::heavy();
    let bank = Bank::open("duty-halted", 2).await.quick();
    let worker = bank.worker();
    bank.send(&[open(&key_of(0), 1), open(&key_of(1), 1)]);
    bank.settled().await;
    let looked = "partitions where log_time is not null";
    wait_until("a look at each log", PATIENCE, async || bank.database.count(looked).await == 2).await;
    bank.verb_on("halt", 1);
    let back = "update partitions set log_time = now() - interval '20 days' where partition = 1;
                update horizon set at = now() - interval '27 days', floor_id = uuid_floor(now() - interval '27 days')";
    bank.database.execute(back).await;
    let told = |line: &str| line.contains("holds the horizon back") && line.contains("\"partition\":1");
    wait_for("the culprit to be told", PATIENCE, || worker.output().lines().any(told).then_some(()));
    let lag_days = |worker: &Worker| worker.metrics().sum("solewriter_horizon_lag_seconds", &[]) / 86_400.0;
    wait_for("the alarm", PATIENCE, || ((19.9..20.1).contains(&lag_days(&worker))).then_some(()));
    bank.verb_on("resume", 1);
    wait_for("the horizon to follow", PATIENCE, || (lag_days(&worker) < 0.01).then_some(()));

    bank.verb_on("halt", 0);
    let halted = || worker.metrics().sum("solewriter_partition_state", &[("partition", "0"), ("state", "halted")]);
    wait_for("partition 0 to halt", PATIENCE, || (halted() == 1.0).then_some(()));
    let before = passes(&worker);
    bank.send(&[deposit(&key_of(1), 1)]);
    bank.partition_settled(1).await;
    assert_eq!(passes(&worker), before, "no duty while partition 0 is halted");
    bank.verb_on("resume", 0);
    wait_for_passes(&worker, PASSES);
}

/// A key of this partition of two.
fn key_of(partition: i32) -> String {
    let mut keys = (0..).map(|n| format!("acct-{n}"));
    keys.find(|key| Partitioner::Murmur2.partition(key.as_bytes(), 2) == partition).expect("a key")
}

impl Bank {
    fn verb_on(&self, verb: &str, partition: i32) {
        let place = format!("{}:{partition}", self.topic);
        let said = self.options.run_verb(&[verb, &place, "--reason", "a test"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}
