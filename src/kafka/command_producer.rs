//! The producer of commands: idempotent, acknowledged by all replicas, each
//! record's delivery awaited by its own sender.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long to wait before a full queue is tried again.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// Where a record was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition that its key chose.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

type Report = Result<Placed, KafkaError>;

struct Reports;

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer of commands");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log::forward(level, facility, message);
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<Report>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sender: Box<oneshot::Sender<Report>>) {
        let report = match result {
            Ok(record) => Ok(Placed { partition: record.partition(), offset: record.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        // whoever sent it may have stopped waiting
        let _ = sender.send(report);
    }
}

/// The producer.
pub struct CommandProducer {
    producer: ThreadedProducer<Reports>,
}

/// A record on its way.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Report>);

impl Delivery {
    /// Waits until the broker has the record, or the delivery has failed.
    ///
    /// # Errors
    /// If the broker refuses the record or cannot be reached in time.
    pub async fn finished(self) -> Report {
        // the sender is dropped without a report only with its producer
        self.0.await.unwrap_or(Err(KafkaError::Canceled))
    }
}

impl CommandProducer {
    /// A producer; it connects at once and goes on trying.
    ///
    /// # Errors
    /// If a setting is not one of librdkafka's.
    pub fn new(settings: &rdkafka::ClientConfig) -> Result<Self, KafkaError> {
        Ok(Self { producer: settings.create_with_context(Reports)? })
    }

    /// Hands a record over; records of one partition keep this order. Waits while
    /// the queue is full, for `patience` at most.
    ///
    /// # Errors
    /// If the record is refused before it is sent.
    pub async fn send(
        &self,
        topic: &str,
        key: &[u8],
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        patience: Duration,
    ) -> Result<Delivery, KafkaError> {
        let (sender, receiver) = oneshot::channel();
        let own = OwnedHeaders::new_with_capacity(headers.len());
        let add = |own: OwnedHeaders, (key, value): &(&str, Option<&[u8]>)| own.insert(Header { key, value: *value });
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(sender)).key(key);
        record.payload = value;
        record = record.headers(headers.iter().fold(own, add));
        let deadline = Instant::now() + patience;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(Delivery(receiver)),
                Err((error, refused)) if is_full(&error) && Instant::now() < deadline => record = refused,
                Err((error, _)) => return Err(error),
            }
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
    }
}

fn is_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}
