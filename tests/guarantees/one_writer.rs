//! P1: only the current owner of a partition can change its entities. A stale owner's write is
//! rejected by the store, not avoided by a time-out.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support;
use crate::support::bank::{Bank, Stream, Traffic};
use crate::support::patience::{PATIENCE, wait_for, wait_until};
use crate::support::producer::Record;
use crate::support::proxy::{Fault, Proxy};
use crate::support::scratch::unique;
use crate::support::worker::Worker;

/// How long workers come and go.
const UNREST: Duration = Duration::from_secs(60);

/// An owner is stopped with a settlement on the wire, until another one has taken the partition over
/// and settled more. The settlement then reaches Postgres, before the owner knows anything.
#[tokio::test]
async fn an_owner_that_wakes_up_after_it_was_replaced_changes_nothing() {
    let _turn = support::heavy();
    let mut bank = Bank::open("wakes-up", 1).await;
    bank.options = bank.options.clone().property("session.timeout.ms", "2000");
    let proxy = Proxy::in_front_of(&bank.database.url);
    let proxied = proxy.url(&bank.database.url);
    let mut stale = Worker::start(&bank.options.clone().database_url(proxied));
    stale.wait_ready();
    let mut traffic = Traffic::new(1, 5);
    bank.send(&traffic.commands(50));
    bank.settled().await;
    let first_owner = bank.owner(0).await;

    proxy.arm("settle_batch", Fault::Held);
    bank.send(&traffic.commands(50));
    proxy.wait_fired(1, PATIENCE);
    stale.sigstop();
    let mut next = bank.worker();
    bank.send(&traffic.commands(50));
    bank.settled().await;
    assert_ne!(bank.owner(0).await, first_owner);

    stale.sigcont();
    proxy.release();
    wait_for("the stale write to be refused", PATIENCE, || {
        let fenced = stale.metrics().sum("solewriter_fenced_total", &[]);
        (fenced >= 1.0).then_some(())
    });
    bank.audit().await;

    // It is as good a worker as before: it takes over what the other one leaves.
    assert_eq!(next.sigterm_and_wait().code(), Some(0));
    bank.send(&traffic.commands(50));
    bank.audit().await;
    assert_eq!(bank.owner(0).await, first_owner);
    assert_eq!(stale.sigterm_and_wait().code(), Some(0));
}

/// A second worker comes again and again, and leaves as soon as it owns something: in order, or by a
/// crash, for a minute. That is a rebalance or two a second.
#[tokio::test]
async fn a_rebalance_every_second_halts_nothing_and_loses_nothing() {
    let _turn = support::heavy();
    let mut bank = Bank::open("rebalances", 6).await;
    bank.options = bank.options.clone().property("session.timeout.ms", "1500");
    let mut steady = bank.worker();
    let stream = Stream::start(&bank, 2);
    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < UNREST {
        rounds += 1;
        let mut other = bank.worker();
        wait_for("the other worker to claim", PATIENCE, || {
            (other.metrics().sum("solewriter_claims_total", &[]) > 0.0).then_some(())
        });
        if rounds % 2 == 0 {
            assert_eq!(other.sigterm_and_wait().code(), Some(0), "{}", other.output());
        } else {
            other.kill9();
        }
    }
    stream.end();
    bank.audit().await;
    let rebalances = steady.metrics().sum("solewriter_rebalances_total", &[]);
    assert!(rebalances >= f64::from(rounds), "{rebalances} rebalances in {rounds} rounds");
    assert_eq!(steady.sigterm_and_wait().code(), Some(0));
}

/// The one that ends gives up its place in the group while it is busy; otherwise its partitions would
/// have no writer until its session has expired, which nobody waits for here.
#[tokio::test]
async fn a_worker_that_ends_in_order_leaves_its_partitions_to_others_at_once() {
    let _turn = support::heavy();
    let mut bank = Bank::open("leaves", 4).await;
    let session_timeout = PATIENCE.as_millis() * 4;
    bank.options = bank.options.clone().property("session.timeout.ms", &session_timeout.to_string());
    let mut workers = [bank.worker(), bank.worker()];
    let owners = "(select distinct owner from partitions) as owners";
    wait_until("both to own partitions", PATIENCE, async || bank.database.count(owners).await == 2).await;
    let stream = Stream::start(&bank, 2);
    bank.settled_beyond(200).await;
    assert_eq!(workers[0].sigterm_and_wait().code(), Some(0), "{}", workers[0].output());
    stream.end();
    bank.audit().await;
    assert_eq!(bank.database.count(owners).await, 1);
    assert_eq!(workers[1].sigterm_and_wait().code(), Some(0));
}

/// Two groups would both be given every partition: no fence between them makes sense.
#[tokio::test]
async fn a_worker_of_another_group_ends_with_code_2_and_changes_nothing() {
    let _turn = support::heavy();
    let bank = Bank::open("two-groups", 2).await;
    let mut worker = bank.worker();
    bank.send(&Traffic::new(3, 10).commands(100));
    bank.audit().await;
    let rows =
        "select topic, partition, owner, fencing_token, claim_id, group_id, next_offset from partitions order by 2";
    let before = bank.database.rows(rows).await;

    let mut options = bank.options.clone();
    options.group_id = unique("another-group");
    let mut other = Worker::start(&options);
    let ended = other.wait_ended(PATIENCE);
    assert_eq!(ended.code(), Some(2), "{}", other.output());
    assert!(other.output().contains(&bank.options.group_id), "it says which group has the schema: {}", other.output());

    assert_eq!(bank.database.rows(rows).await, before);
    let deposit = Record::command("account.open", "one-more", &json!({ "initial": 1 }));
    bank.send(&[deposit]);
    bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// Whoever runs first, every partition has its one writer at the end.
#[tokio::test]
async fn two_workers_share_the_partitions() {
    let _turn = support::heavy();
    let bank = Bank::open("share", 4).await;
    let mut workers = [bank.worker(), bank.worker()];
    let owners = "(select distinct owner from partitions) as owners";
    wait_until("both to own partitions", PATIENCE, async || bank.database.count(owners).await == 2).await;
    bank.send(&Traffic::new(4, 50).commands(2_000));
    bank.audit().await;
    for worker in &mut workers {
        assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    }
}
