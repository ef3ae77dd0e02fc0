//! Topics: made, changed and damaged by the admin client.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

use super::kafka::Cluster;
use super::patience::{PATIENCE, wait_for, wait_until};
use super::scratch::unique;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A new topic under a name of its own; returns the name.
pub async fn fresh(cluster: &Cluster, name: &str, partitions: i32) -> String {
    let topic = unique(name);
    create(cluster, &topic, partitions, &[]).await;
    topic
}

/// Makes a topic with the given settings (`("cleanup.policy", "compact")`).
pub async fn create(cluster: &Cluster, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        wanted = wanted.set(name, value);
    }
    expect_done("create the topic", admin(cluster).create_topics([&wanted], &options()).await);
    // The controller has answered; a client sees the topic when the broker's metadata has caught
    // up.
    wait_for(format!("topic {topic}"), PATIENCE, || (partition_count(cluster, topic) == partitions).then_some(()));
}

/// Deletes a topic; when it returns, one of the same name can be made.
pub async fn delete(cluster: &Cluster, topic: &str) {
    expect_done("delete the topic", admin(cluster).delete_topics(&[topic], &options()).await);
    wait_for(format!("topic {topic} to go"), PATIENCE, || (partition_count(cluster, topic) == 0).then_some(()));
}

/// Gives a topic these settings, and the broker's defaults for all others.
pub async fn set(cluster: &Cluster, topic: &str, settings: &[(&str, &str)]) {
    let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in settings {
        wanted = wanted.set(name, value);
    }
    let results = admin(cluster).alter_configs([&wanted], &options()).await;
    for result in results.expect("change a topic's settings") {
        result.unwrap_or_else(|(_, code)| panic!("could not change {topic}: {code}"));
    }
}

/// Drops the records below `offset`, as retention does.
pub async fn delete_records(cluster: &Cluster, topic: &str, partition: i32, offset: i64) {
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(topic, partition, rdkafka::Offset::Offset(offset)).expect("an offset to delete up to");
    let result = admin(cluster).delete_records(&below, &options()).await.expect("delete records");
    for element in result.elements() {
        element.error().expect("delete the records of a partition");
    }
}

/// Grows the topic to `partitions` in all: the operation that changes which partition a key belongs
/// to.
pub async fn add_partitions(cluster: &Cluster, topic: &str, partitions: usize) {
    let wanted = NewPartitions::new(topic, partitions);
    let result = admin(cluster).create_partitions([&wanted], &options()).await;
    expect_done("add partitions", result);
    wait_for(format!("topic {topic} to grow"), PATIENCE, || {
        (usize::try_from(partition_count(cluster, topic)) == Ok(partitions)).then_some(())
    });
}

/// 0 for a topic that does not exist.
pub fn partition_count(cluster: &Cluster, topic: &str) -> i32 {
    let metadata = client(cluster).fetch_metadata(Some(topic), REQUEST_TIMEOUT).expect("ask for metadata");
    let partitions = metadata.topics().iter().find(|found| found.name() == topic);
    let count = partitions.filter(|found| found.error().is_none()).map_or(0, |found| found.partitions().len());
    i32::try_from(count).expect("a partition count")
}

/// All topics.
pub fn names(cluster: &Cluster) -> Vec<String> {
    let metadata = client(cluster).fetch_metadata(None, REQUEST_TIMEOUT).expect("ask for metadata");
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

/// The first offset that is still there, and the one after the last.
pub fn watermarks(cluster: &Cluster, topic: &str, partition: i32) -> (i64, i64) {
    client(cluster).fetch_watermarks(topic, partition, REQUEST_TIMEOUT).expect("ask for watermarks")
}

/// What the group has committed for the partition.
pub fn committed(cluster: &Cluster, group: &str, topic: &str, partition: i32) -> Option<i64> {
    let client: BaseConsumer = cluster.client_config().set("group.id", group).create().expect("a client");
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let answer = client.committed_offsets(asked, REQUEST_TIMEOUT).expect("ask for committed offsets");
    answer.elements().first().and_then(|element| element.offset().to_raw()).filter(|offset| *offset >= 0)
}

/// Forgets what a group has committed, once its last member is gone.
pub async fn delete_group(cluster: &Cluster, group: &str) {
    wait_until(format!("group {group} to go"), PATIENCE, async || {
        let deleted = admin(cluster).delete_groups(&[group], &options()).await.expect("delete a group");
        match deleted.into_iter().next().expect("an answer") {
            Ok(_) => true,
            Err((_, RDKafkaErrorCode::NonEmptyGroup)) => false,
            Err((_, code)) => panic!("could not delete group {group}: {code}"),
        }
    })
    .await;
}

/// Where a key belongs, as Java's client reckons it.
pub fn home(key: &str, partitions: i32) -> i32 {
    let hash = murmur2::murmur2(key.as_bytes(), murmur2::KAFKA_SEED) & 0x7fff_ffff;
    i32::try_from(hash).expect("31 bits") % partitions
}

/// The first `count` of `name-0`, `name-1`, … that belong to this partition.
pub fn keys_on(partition: i32, partitions: i32, name: &str, count: usize) -> Vec<String> {
    let keys = (0..).map(|n| format!("{name}-{n}"));
    keys.filter(|key| home(key, partitions) == partition).take(count).collect()
}

fn client(cluster: &Cluster) -> BaseConsumer {
    cluster.client_config().create().expect("a client")
}

fn admin(cluster: &Cluster) -> AdminClient<DefaultClientContext> {
    cluster.client_config().create().expect("an admin client")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

fn expect_done(what: &str, results: KafkaResult<Vec<TopicResult>>) {
    for result in results.unwrap_or_else(|error| panic!("could not {what}: {error}")) {
        result.unwrap_or_else(|(topic, code)| panic!("could not {what} {topic}: {code}"));
    }
}
