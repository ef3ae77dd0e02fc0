//! The upstream service: sends commands, well formed or not.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Message};
use uuid::Uuid;

use super::kafka::Cluster;
use super::scratch::unique;
use super::topics;

const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// A record as it goes to Kafka; every part can be wrong on purpose.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// `None`: the partitioner decides.
    pub partition: Option<i32>,
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A well-formed command with a fresh UUIDv7.
    pub fn command(command_type: &str, key: &str, data: &serde_json::Value) -> Self {
        let record =
            Self { key: Some(key.as_bytes().to_vec()), value: Some(data.to_string().into_bytes()), ..Self::default() };
        record.id(Uuid::now_v7()).header("ce_type", command_type)
    }

    /// Replaces the command id.
    pub fn id(self, id: Uuid) -> Self {
        self.header("ce_id", id.to_string())
    }

    /// Sets a header; one of the same name is replaced.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self = self.without_header(name);
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(present, _)| present != name);
        self
    }

    /// Sent to this partition, whatever the partitioner would say.
    pub fn on_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    fn owned_headers(&self) -> OwnedHeaders {
        let headers = OwnedHeaders::new_with_capacity(self.headers.len());
        self.headers
            .iter()
            .fold(headers, |headers, (name, value)| headers.insert(Header { key: name, value: value.as_ref() }))
    }
}

/// How a key is mapped to a partition. Services in other languages differ here, which is the point
/// of some tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioner {
    /// Java's, and what a command's key promises.
    Murmur2,
    /// librdkafka's own default.
    Crc32,
    /// Sarama's.
    Fnv1a,
}

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stored {
    pub partition: i32,
    pub offset: i64,
}

pub struct Producer {
    client: BaseProducer<Deliveries>,
}

impl Producer {
    /// As a Java producer would send.
    pub fn new(cluster: &Cluster) -> Self {
        Self::with_partitioner(cluster, Partitioner::Murmur2)
    }

    pub fn with_partitioner(cluster: &Cluster, partitioner: Partitioner) -> Self {
        let partitioner = match partitioner {
            Partitioner::Murmur2 => "murmur2_random",
            Partitioner::Crc32 => "consistent_random",
            Partitioner::Fnv1a => "fnv1a_random",
        };
        let client = cluster
            .client_config()
            .set("partitioner", partitioner)
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("message.max.bytes", "4194304")
            .create_with_context(Deliveries::default())
            .expect("a producer");
        Self { client }
    }

    /// Sends all, in order, and returns where each was stored.
    pub fn send(&self, topic: &str, records: &[Record]) -> Vec<Stored> {
        for (index, record) in records.iter().enumerate() {
            self.enqueue(topic, record, index);
        }
        self.client.flush(DELIVERY_TIMEOUT).expect("deliver all records");
        let mut delivered = self.client.context().take();
        let mut stored = |index| delivered.remove(&index).expect("every record has a delivery report");
        (0..records.len()).map(|index| stored(index).expect("store a record")).collect()
    }

    pub fn send_one(&self, topic: &str, record: &Record) -> Stored {
        self.send(topic, std::slice::from_ref(record))[0]
    }

    fn enqueue(&self, topic: &str, record: &Record, index: usize) {
        let mut next = BaseRecord::with_opaque_to(topic, index).headers(record.owned_headers());
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.partition = record.partition;
        next.timestamp = record.timestamp_ms;
        while let Err((error, refused)) = self.client.send::<[u8], [u8]>(next) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(error, full, "the client refused a record");
            self.client.poll(Duration::from_millis(20));
            next = refused;
        }
    }
}

/// How a transaction ends; either leaves a marker in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Abort,
}

/// Sends records in a transaction of their own. Returns when its markers are on the log: the broker writes them after
/// it has answered, and what is sent meanwhile would stand before them.
pub fn in_transaction(cluster: &Cluster, topic: &str, records: &[Record], ending: Ending) {
    // the ends that committed records have: those of an open transaction are not counted
    let ends = || (0..topics::partition_count(cluster, topic)).map(|n| topics::watermarks(cluster, topic, n).1);
    let before: Vec<i64> = ends().collect();
    let open = OpenTransaction::begin(cluster, topic, records);
    match ending {
        Ending::Commit => open.producer.client.commit_transaction(DELIVERY_TIMEOUT),
        Ending::Abort => open.producer.client.abort_transaction(DELIVERY_TIMEOUT),
    }
    .expect("end the transaction");
    let deadline = Instant::now() + DELIVERY_TIMEOUT;
    loop {
        let grown: Vec<i64> = ends().zip(&before).map(|(now, before)| now - before).collect();
        let markers = grown.iter().filter(|grown| **grown > 0).count();
        if grown.iter().sum::<i64>() >= (records.len() + markers) as i64 && markers > 0 {
            return;
        }
        assert!(Instant::now() < deadline, "no markers of the transaction: {grown:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A transaction that stays open: nobody who reads committed records sees what follows its first.
pub struct OpenTransaction {
    producer: Producer,
}

impl OpenTransaction {
    /// With these records in it.
    pub fn begin(cluster: &Cluster, topic: &str, records: &[Record]) -> Self {
        let client = cluster
            .client_config()
            .set("partitioner", "murmur2_random")
            .set("transactional.id", unique("transactions"))
            .create_with_context(Deliveries::default());
        let producer = Producer { client: client.expect("a transactional producer") };
        producer.client.init_transactions(DELIVERY_TIMEOUT).expect("be known as transactional");
        producer.client.begin_transaction().expect("begin a transaction");
        producer.send(topic, records);
        Self { producer }
    }
}

/// Delivery reports by the index of the record in its batch.
#[derive(Default)]
struct Deliveries {
    reports: Mutex<HashMap<usize, Result<Stored, KafkaError>>>,
}

impl Deliveries {
    fn take(&self) -> HashMap<usize, Result<Stored, KafkaError>> {
        std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let stored = match result {
            Ok(message) => Ok(Stored { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).insert(index, stored);
    }
}
