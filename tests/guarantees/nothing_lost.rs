//! P4, with P2, P3 and P5: whatever crashes, every command takes effect once, in order, and every
//! outcome is published.

use std::time::{Duration, Instant};

use crate::support;
use crate::support::bank::{Bank, Stream, Traffic};
use crate::support::crashes::Crashes;
use crate::support::kafka::{Broker, BrokerOptions};
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::Database;
use crate::support::proxy::{Fault, Proxy};
use crate::support::worker::Worker;

/// Two workers; ten times one of them is killed in the middle of its work and started again.
#[tokio::test]
async fn ten_crashes_among_100_000_commands_change_nothing() {
    let _turn = support::heavy();
    let bank = Bank::open("crashes", 8).await;
    Crashes { seed: 20_261_122, kills: 10, commands: 100_000, batch_commands_max: 200 }.happen(bank).await;
}

/// The database crashes under load and recovers; the worker waits and goes on, in the same process.
#[tokio::test]
async fn a_crash_of_postgres_under_load_is_waited_for() {
    let _turn = support::heavy();
    let options = solewriter::local::postgres::Options { durable: true, ..Default::default() };
    let mut postgres = solewriter::local::postgres::Postgres::start(options).expect("start Postgres");
    let database = Database::fresh_in(&postgres.url(), "crash").await;
    let bank = Bank::open_on(support::kafka::shared(), database, "postgres-crash", 4).await;
    let mut worker = bank.worker();
    let stream = Stream::start(&bank, 5);
    for _ in 0..3 {
        let before = bank.settled_count().await;
        bank.settled_beyond(before + 500).await;
        postgres.stop_immediate().expect("stop Postgres");
        worker_notices(&worker).await;
        postgres.start_again().expect("start Postgres again");
    }
    stream.end();
    bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// Not ready without its database, but alive.
async fn worker_notices(worker: &Worker) {
    let code = |path| worker.get(path).map(|(code, _)| code);
    wait_until("the worker to notice", PATIENCE, async || code("/readyz") == Some(503)).await;
    assert_eq!(code("/healthz"), Some(200));
}

/// The broker stops in order, then crashes, both under load.
#[tokio::test]
async fn a_broker_that_goes_and_comes_back_is_waited_for() {
    let _turn = support::heavy();
    let mut broker = Broker::start(BrokerOptions::default());
    let database = Database::fresh("broker_restart").await;
    let bank = Bank::open_on(broker.cluster(), database, "broker-restart", 4).await;
    let mut worker = bank.worker();
    let stream = Stream::start(&bank, 6);
    for end in [Broker::stop, Broker::kill] {
        let before = bank.settled_count().await;
        bank.settled_beyond(before + 500).await;
        end(&mut broker);
        broker.start_again();
    }
    let before = bank.settled_count().await;
    bank.settled_beyond(before + 500).await;
    stream.end();
    bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// The worker sends the same compare-and-set again, which tells it that the first one won.
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_repeated() {
    one_fault_each_time(Fault::AnswerLost, 11).await;
}

#[tokio::test]
async fn a_commit_that_was_lost_on_its_way_is_sent_again() {
    one_fault_each_time(Fault::RequestLost, 12).await;
}

async fn one_fault_each_time(fault: Fault, seed: u64) {
    let _turn = support::heavy();
    let bank = Bank::open("cut", 2).await;
    let proxy = Proxy::in_front_of(&bank.database.url);
    let proxied = proxy.url(&bank.database.url);
    let mut worker = Worker::start(&bank.options.clone().database_url(proxied));
    worker.wait_ready();
    let mut traffic = Traffic::new(seed, 20);
    bank.send(&traffic.commands(100));
    bank.settled().await;
    for round in 1..=5 {
        proxy.arm("settle_batch", fault);
        bank.send(&traffic.commands(40));
        proxy.wait_fired(round, PATIENCE);
        bank.settled().await;
    }
    bank.audit().await;
    let fenced = worker.metrics().sum("solewriter_fenced_total", &[]);
    assert_eq!(fenced, 0.0, "a lost connection fences nobody");
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// What was settled is published too when a worker has ended in order: the next one owes nothing.
#[tokio::test]
async fn a_graceful_stop_under_load_leaves_nothing_unpublished() {
    let _turn = support::heavy();
    let mut bank = Bank::open("sigterm", 4).await;
    bank.options = bank.options.clone().setting("[worker]\nbatch_commands_max = 50");
    let mut worker = bank.worker();
    bank.send(&Traffic::new(7, 100).commands(30_000));
    bank.settled_beyond(1_000).await;
    let began = Instant::now();
    let ended = worker.sigterm_and_wait();
    assert_eq!(ended.code(), Some(0), "{}", worker.output());
    // the default of drain_timeout, which this does not need
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    assert!(bank.settled_count().await < 30_000, "it was stopped under load");
    let owing = bank.database.count("partitions where published_offset <> next_offset").await;
    assert_eq!(owing, 0);
    let mut next = bank.worker();
    bank.audit().await;
    assert_eq!(next.sigterm_and_wait().code(), Some(0));
}
