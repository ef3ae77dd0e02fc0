//! The downstream service: reads a whole topic, of all partitions, outside any group.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::kafka::Cluster;
use super::patience::PATIENCE;
use super::topics;

const POLL: Duration = Duration::from_millis(100);

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

impl Read {
    /// The first header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(present, _)| present == name)?;
        value.as_deref().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value as JSON; null for what is not.
    pub fn json(&self) -> serde_json::Value {
        let value = self.value.as_deref().unwrap_or_default();
        serde_json::from_slice(value).unwrap_or(serde_json::Value::Null)
    }

    fn from_message(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }
}

/// Everything that is on the topic now. In order within a partition, not across.
pub fn read_all(cluster: &Cluster, topic: &str) -> Vec<Read> {
    let mut reader = Reader::open(cluster, topic);
    reader.until(PATIENCE, |reader| reader.at_end());
    reader.records
}

/// Reads from the beginning until the records fulfil `enough`; panics after `timeout`.
pub fn read_until(cluster: &Cluster, topic: &str, timeout: Duration, enough: impl Fn(&[Read]) -> bool) -> Vec<Read> {
    let mut reader = Reader::open(cluster, topic);
    reader.until(timeout, |reader| enough(&reader.records));
    reader.records
}

struct Reader {
    client: BaseConsumer,
    topic: String,
    partitions: i32,
    /// Partitions of which every record that was there has been read.
    ended: HashSet<i32>,
    records: Vec<Read>,
}

impl Reader {
    fn open(cluster: &Cluster, topic: &str) -> Self {
        let client: BaseConsumer = cluster
            .client_config()
            // librdkafka wants one; nothing is committed, and no group is joined.
            .set("group.id", "reader-of-a-test")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "50")
            .create()
            .expect("a reader");
        let partitions = topics::partition_count(cluster, topic);
        assert!(partitions > 0, "topic {topic} does not exist");
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition to read");
        }
        client.assign(&all).expect("read all partitions");
        let topic = topic.to_owned();
        Self { client, topic, partitions, ended: HashSet::new(), records: Vec::new() }
    }

    fn at_end(&self) -> bool {
        i32::try_from(self.ended.len()) == Ok(self.partitions)
    }

    fn until(&mut self, timeout: Duration, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + timeout;
        while !enough(self) {
            let count = self.records.len();
            assert!(Instant::now() < deadline, "{}: {count} records in {timeout:?}, not enough", self.topic);
            self.step();
        }
    }

    fn step(&mut self) {
        match self.client.poll(POLL) {
            None => {}
            Some(Ok(message)) => self.records.push(Read::from_message(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.ended.insert(partition);
            }
            // A broker that restarts under the test: librdkafka reports it and goes on by itself.
            Some(Err(error)) => eprintln!("while reading {}: {error}", self.topic),
        }
    }
}
