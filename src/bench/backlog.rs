//! The log that rows settle: the workload's records, all there before a row begins.

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, Message as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::services::Services;
use super::workload::Workload;
use crate::config::Partitioner;

/// How long one record may take.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// librdkafka's queue is full: look again after this.
pub(super) const FULL_WAIT: Duration = Duration::from_millis(5);

/// A topic with a workload on it.
#[derive(Clone, Debug)]
pub(super) struct Backlog {
    pub(super) topic: String,
    pub(super) partitions: i32,
    pub(super) workload: Workload,
}

impl Backlog {
    /// Makes the topic and fills it.
    pub(super) async fn fill(services: &Services, workload: Workload, partitions: i32) -> Result<Self, Error> {
        let Self { topic, .. } = Self::empty(services, workload, partitions).await?;
        let producer =
            bulk_producer(services.client("producer")?.command_producer(Partitioner::Murmur2, DELIVERY_TIMEOUT))?;
        let to = topic.clone();
        // whoever no longer waits, as at Ctrl-C, wants no more records either
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let produced = spawn_blocking(move || produce(&producer, &to, &workload, &stop)).await;
        produced.map_err(std::io::Error::other).map_err(Error::io("produce the commands"))??;
        Ok(Self { topic, partitions, workload })
    }

    /// Makes the topic, for a workload that comes bit by bit.
    pub(super) async fn empty(services: &Services, workload: Workload, partitions: i32) -> Result<Self, Error> {
        let topic = services.topic(&format!("commands-{:06x}", fastrand::u32(..1 << 24)));
        services.create_topic(&topic, partitions).await?;
        Ok(Self { topic, partitions, workload })
    }

    /// Drops the topic.
    pub(super) async fn drop(self, services: &Services) -> Result<(), Error> {
        services.delete_topics(&[&self.topic]).await
    }
}

/// As fast as it goes, where the worker's own producers wait for nothing.
fn bulk_producer(mut config: ClientConfig) -> Result<ThreadedProducer<Deliveries>, KafkaError> {
    config
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "100000")
        .create_with_context(Deliveries::default())
}

fn produce(
    producer: &ThreadedProducer<Deliveries>,
    topic: &str,
    workload: &Workload,
    stop: &CancellationToken,
) -> Result<(), Error> {
    for number in 0..workload.commands {
        if stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        let command = workload.command(number);
        let (key, data) = (command.key(), command.data(workload.payload_bytes));
        let mut record = BaseRecord::to(topic)
            .key(&key)
            .payload(&data)
            .headers(headers(&command.id.hyphenated().to_string(), command.command_type()));
        while let Err((error, refused)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = refused;
            std::thread::sleep(FULL_WAIT);
        }
    }
    producer.flush(Timeout::After(DELIVERY_TIMEOUT))?;
    let delivered = producer.context().delivered.load(Ordering::Acquire);
    if delivered == workload.commands {
        Ok(())
    } else {
        Err(Error::NotDelivered { delivered, commands: workload.commands })
    }
}

/// CloudEvents' Kafka binding, binary mode, as `publish` sends it.
pub(super) fn headers(id: &str, command_type: &str) -> OwnedHeaders {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_type", command_type),
        ("ce_source", "bench"),
        ("content-type", "application/json"),
    ];
    headers.into_iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
        all.insert(Header { key, value: Some(value) })
    })
}

/// Counts what the broker has acknowledged.
#[derive(Clone, Default)]
struct Deliveries {
    delivered: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Release);
            }
            Err((error, record)) => tracing::warn!(%error, topic = record.topic(), "a command was not delivered"),
        }
    }
}
