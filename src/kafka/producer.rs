//! The producer of outcomes and events: idempotent, in order, one for all
//! partitions of a process.
//!
//! A delivery error other than a passing one (which librdkafka retries itself)
//! discards the producer: a record that failed must not be overtaken by a later
//! one. Every publisher then reads what is unpublished from the database again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::{ClientContext, Message as _};
use tokio::sync::Notify;

use super::Client;
use crate::outcome::Publication;

/// An outcome has eight headers, an event nine; a dead letter has its own besides.
const HEADERS_EXPECTED: usize = 9;

/// The deliveries of one batch: counts down to done, or fails as a whole.
#[derive(Debug, Default)]
pub struct BatchDelivery {
    outstanding: AtomicUsize,
    failed: AtomicBool,
    /// The topic that refused one of its records as too large.
    too_large_for: OnceLock<Box<str>>,
    changed: Notify,
}

impl BatchDelivery {
    /// Of a batch whose records are about to be handed over. It holds one count
    /// for itself until [`Self::all_sent`], so that it cannot be done too early.
    pub fn begin() -> Arc<Self> {
        Arc::new(Self { outstanding: AtomicUsize::new(1), ..Self::default() })
    }

    /// Every record of the batch was handed over.
    pub fn all_sent(&self) {
        self.delivered();
    }

    fn delivered(&self) {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_one();
        }
    }

    fn fail(&self, error: &KafkaError, topic: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            // the first counts, as with any failure
            let _ = self.too_large_for.set(topic.into());
        }
        self.failed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether all are delivered.
    pub fn is_delivered(&self) -> bool {
        self.outstanding.load(Ordering::Acquire) == 0 && !self.failed.load(Ordering::Acquire)
    }

    /// Whether this topic has refused a record of it as too large.
    pub fn is_too_large_for(&self, topic: &str) -> bool {
        self.too_large_for.get().is_some_and(|refused_by| **refused_by == *topic)
    }

    /// Waits until all are delivered.
    ///
    /// # Errors
    /// If one was not, and will not be.
    pub async fn finished(&self) -> Result<(), SendError> {
        loop {
            let changed = self.changed.notified();
            if self.failed.load(Ordering::Acquire) {
                let failed = || SendError::Failed("a record could not be delivered".into());
                return Err(self.too_large_for.get().cloned().map_or_else(failed, SendError::TooLarge));
            }
            if self.outstanding.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            changed.await;
        }
    }
}

/// Handing a record to the producer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The producer's queue is full: wait and try again.
    #[error("the producer's queue is full")]
    Full,
    /// The producer was discarded: publish from the database.
    #[error("the record was refused: {0}")]
    Failed(String),
    /// Whoever sends has been replaced by another owner: it is not for it to publish.
    #[error("the claim is stale")]
    Fenced,
    /// The same as failed, because this topic does not take a record as large.
    #[error("topic {0} refused a record as too large")]
    TooLarge(Box<str>),
}

impl SendError {
    /// Whether this topic has refused the record as too large.
    pub fn is_too_large_for(&self, topic: &str) -> bool {
        matches!(self, Self::TooLarge(refused_by) if **refused_by == *topic)
    }
}

struct Deliveries {
    /// A record failed for good: nothing more may be sent by this producer.
    broken: AtomicBool,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "producer");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log::forward(level, facility, message);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = Arc<BatchDelivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<BatchDelivery>) {
        match result {
            Ok(_) => batch.delivered(),
            Err((error, message)) => {
                // whoever sees that the producer is broken shall see why
                batch.fail(error, message.topic());
                if !self.broken.swap(true, Ordering::AcqRel) {
                    tracing::error!(%error, topic = message.topic(), "a record could not be delivered; the producer is discarded and everything unpublished is published again from the database");
                }
            }
        }
    }
}

/// The producer, replaced by a fresh one after a failure.
pub struct Producer {
    client: Client,
    /// What every topic that it sends to takes.
    batch_bytes_max: usize,
    current: Mutex<Session>,
}

impl Producer {
    /// A producer; it connects at once and goes on trying.
    ///
    /// # Errors
    /// If a setting is not one of librdkafka's.
    pub fn new(client: Client, batch_bytes_max: usize) -> Result<Self, KafkaError> {
        let producer = Arc::new(create(&client, batch_bytes_max)?);
        Ok(Self { client, batch_bytes_max, current: Mutex::new(Session { producer, generation: 0 }) })
    }

    /// The producer to send a batch with. All records of a batch go through one,
    /// so that none overtakes another after a failure; whoever has batches in flight
    /// must see to it that the next goes through the same
    /// ([`Session::generation`]).
    pub fn session(&self) -> Result<Session, SendError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.producer.context().broken.load(Ordering::Acquire) {
            let fresh =
                create(&self.client, self.batch_bytes_max).map_err(|error| SendError::Failed(error.to_string()))?;
            // whatever is still queued must not be delivered after what comes now
            current.producer.purge(PurgeConfig::default().queue().inflight());
            *current = Session { producer: Arc::new(fresh), generation: current.generation + 1 };
        }
        Ok(current.clone())
    }

    /// Waits until everything sent is delivered or has failed.
    pub fn flush(&self, timeout: Duration) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).producer.clone();
        // what is not delivered in time is published again by the next owner
        let _ = current.flush(timeout);
    }
}

fn create(client: &Client, batch_bytes_max: usize) -> Result<ThreadedProducer<Deliveries>, KafkaError> {
    client.producer(batch_bytes_max).create_with_context(Deliveries { broken: AtomicBool::new(false) })
}

/// A producer that has not failed when the batch began.
#[derive(Clone)]
pub struct Session {
    producer: Arc<ThreadedProducer<Deliveries>>,
    generation: u64,
}

impl Session {
    /// Which producer this is: grows by one with each that was discarded.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Hands one record over. Its delivery is reported to `batch`.
    ///
    /// # Errors
    /// [`SendError::Full`]: try again; anything else ends the batch.
    pub fn send(
        &self,
        topic: &str,
        partition: i32,
        publication: &Publication<'_>,
        batch: &Arc<BatchDelivery>,
    ) -> Result<(), SendError> {
        if self.producer.context().broken.load(Ordering::Acquire) {
            return Err(SendError::Failed("the producer was discarded".into()));
        }
        let mut headers = Some(OwnedHeaders::new_with_capacity(HEADERS_EXPECTED));
        publication.headers.each(|key, value| {
            headers = headers.take().map(|headers| headers.insert(Header { key, value }));
        });
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, batch.clone()).partition(partition);
        record.headers = headers;
        record.key = publication.key;
        record.payload = publication.value.as_deref();
        batch.outstanding.fetch_add(1, Ordering::AcqRel);
        match self.producer.send(record) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                batch.outstanding.fetch_sub(1, Ordering::AcqRel);
                Err(SendError::Full)
            }
            Err((error, _)) => {
                self.producer.context().broken.store(true, Ordering::Release);
                Err(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => SendError::TooLarge(topic.into()),
                    _ => SendError::Failed(error.to_string()),
                })
            }
        }
    }
}
