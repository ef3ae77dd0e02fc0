//! A database that is restored, or failed over, to an earlier time knows less than was published. It
//! halts, whoever is left to testify.

use solewriter::local::postgres::{Options, Postgres};

use super::scene::{PARTITIONS, Scene};
use crate::support;
use crate::support::backup::{Dump, Standby};
use crate::support::bank::Bank;
use crate::support::postgres::Database;
use crate::support::proxy::Proxy;
use crate::support::{kafka, topics};

fn private_postgres() -> Postgres {
    Postgres::start(Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// Partition 0 moves on after a dump was taken, no worker runs, and the dump is restored.
async fn restored(name: &str, postgres: &Postgres) -> Scene {
    let database = Database::fresh_in(&postgres.url(), &name.replace('-', "_")).await;
    let scene = Scene::prepare_on(Bank::open_on(kafka::shared(), database, name, PARTITIONS).await).await;
    let dump = Dump::take(postgres, &scene.bank.database);
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    scene.bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    dump.restore(&scene.bank.database).await;
    scene
}

/// It halts with this witness, and goes on for good when the loss is accepted.
async fn halts_until_accepted(scene: &Scene, witness: &str) {
    let mut worker = scene.bank.worker();
    let told = scene.halts(0, "database-behind", &worker).await;
    assert!(told.detail.contains(witness), "{told:?}");
    scene.goes_on(1).await;
    scene.asks_for_a_choice(0);
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));

    // nothing of what was lost is settled yet when the next owner looks
    scene.resolve(0, &told).await;
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    // what was forgotten was settled again, from the same log on the same state
    scene.bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    scene.bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

#[tokio::test]
async fn a_restored_dump_halts_what_has_moved_on() {
    let _turn = support::heavy();
    let postgres = private_postgres();
    let scene = restored("dump", &postgres).await;
    halts_until_accepted(&scene, "the consumer group has committed offset").await;
}

/// The group is gone: only what was published testifies.
#[tokio::test]
async fn a_restored_dump_halts_on_the_word_of_its_outcomes_alone() {
    let _turn = support::heavy();
    let postgres = private_postgres();
    let scene = restored("dump-alone", &postgres).await;
    topics::delete_group(&scene.bank.cluster, &scene.bank.options.group_id).await;
    halts_until_accepted(&scene, ".outcomes holds the outcome of offset").await;
}

/// A dump that is older than the partition itself.
#[tokio::test]
async fn a_database_that_has_never_heard_of_the_partition_halts_on_the_word_of_its_outcomes() {
    let _turn = support::heavy();
    let scene = Scene::prepare("unheard").await;
    scene.bank.database.execute(&format!("drop schema {} cascade", scene.bank.database.schema)).await;
    let migrated = scene.bank.options.run_verb(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    topics::delete_group(&scene.bank.cluster, &scene.bank.options.group_id).await;
    let mut worker = scene.bank.worker();
    let told = [scene.halts(0, "database-behind", &worker).await, scene.halts(1, "database-behind", &worker).await];
    assert_eq!(scene.bank.settled_count().await, 0);
    scene.resumes(0, &told[0]).await;
    scene.resumes(1, &told[1]).await;
    scene.bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// The outcomes of a log that is gone say nothing of a new one.
#[tokio::test]
async fn a_new_log_beside_the_outcomes_of_an_old_one_is_new() {
    let _turn = support::heavy();
    let scene = Scene::prepare("reused").await;
    scene.bank.database.execute(&format!("drop schema {} cascade", scene.bank.database.schema)).await;
    let migrated = scene.bank.options.run_verb(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let (cluster, topic) = (&scene.bank.cluster, &scene.bank.topic);
    topics::delete(cluster, topic).await;
    topics::create(cluster, topic, PARTITIONS, &[]).await;
    scene.deposit(0, 50);
    scene.deposit(1, 50);
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    scene.goes_on(1).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

/// The last commits had not reached the standby when the primary died.
#[tokio::test]
async fn a_failover_to_a_standby_that_lagged_halts_what_it_has_lost() {
    let _turn = support::heavy();
    let mut primary = private_postgres();
    let proxy = Proxy::in_front_of(&primary.url());
    let database = Database::fresh_in(&proxy.url(&primary.url()), "failover").await;
    let scene = Scene::prepare_on(Bank::open_on(kafka::shared(), database, "failover", PARTITIONS).await).await;
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    scene.goes_on(1).await;
    let standby = Standby::of(&primary).await;
    standby.lag().await;
    scene.goes_on(0).await;

    proxy.down();
    primary.stop_immediate().expect("stop the primary");
    standby.promote().await;
    proxy.point_at(&standby.postgres.url());
    proxy.up();
    // what comes now would be settled on top of a past that never was
    scene.deposit(0, 10);
    let told = scene.halts(0, "database-behind", &worker).await;
    scene.goes_on(1).await;
    scene.resumes(0, &told).await;
    scene.bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}
