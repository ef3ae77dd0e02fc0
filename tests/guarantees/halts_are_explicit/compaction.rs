//! A compacted topic loses commands in silence: it halts, at the claim and under a running worker.

use super::scene::Scene;
use crate::support;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::topics;

const COMPACTED: [(&str, &str); 1] = [("cleanup.policy", "compact")];
const DELETED: [(&str, &str); 1] = [("cleanup.policy", "delete")];

#[tokio::test]
async fn a_compacted_topic_halts_at_the_claim_until_it_is_compacted_no_more() {
    let _turn = support::heavy();
    let scene = Scene::prepare("compacted").await;
    let (cluster, topic) = (&scene.bank.cluster, &scene.bank.topic);
    topics::set(cluster, topic, &[("cleanup.policy", "compact,delete")]).await;
    scene.deposit(0, 10);
    let settled = scene.bank.settled_count().await;
    let mut worker = scene.bank.worker();
    let told = scene.halts(0, "topic-compacted", &worker).await;
    let other = scene.halts(1, "topic-compacted", &worker).await;
    assert_eq!(scene.bank.settled_count().await, settled, "nothing was settled");
    let first = format!("--entity-name {topic} --add-config cleanup.policy=delete");
    assert!(told.detail.contains(&first), "{told:?}");

    // the choice alone cures nothing: it halts again
    scene.asks_for_a_choice(0);
    let token = scene.token(0).await;
    scene.resolve(0, &told).await;
    let again = format!("partitions where partition = 0 and halted_code is not null and fencing_token > {token} + 1");
    wait_until("another halt", PATIENCE, async || scene.bank.database.count(&again).await == 1).await;
    assert_eq!(scene.halts(0, "topic-compacted", &worker).await, told);

    topics::set(cluster, topic, &DELETED).await;
    scene.resumes(0, &told).await;
    scene.resumes(1, &other).await;
    scene.bank.audit().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

#[tokio::test]
async fn a_topic_that_becomes_compacted_under_a_running_worker_halts() {
    let _turn = support::heavy();
    let scene = Scene::prepare("compacting").await;
    let mut worker = scene.bank.worker();
    scene.goes_on(0).await;
    topics::set(&scene.bank.cluster, &scene.bank.topic, &COMPACTED).await;
    let told = scene.halts(0, "topic-compacted", &worker).await;
    topics::set(&scene.bank.cluster, &scene.bank.topic, &DELETED).await;
    scene.resumes(0, &told).await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}
