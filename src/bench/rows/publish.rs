//! How the consumers that people write publish their outcomes.

use std::time::Duration;

use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use super::super::Error;
use super::super::backlog::headers;
use crate::config::Config;
use crate::kafka;

/// What the broker takes at once by default, in bytes.
const BATCH_BYTES_MAX: usize = 1_000_000;
const FULL_WAIT: Duration = Duration::from_millis(5);

/// Idempotent, acknowledged by all, without lingering: as solewriter's own.
#[derive(Clone)]
pub(super) struct Outcomes {
    producer: FutureProducer,
    topic: String,
}

impl Outcomes {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let client = kafka::Client::new(&config.kafka, "bench")?;
        let topic = config.topics.first().map(|topic| topic.outcomes_topic().into()).unwrap_or_default();
        let mut settings = client.producer(BATCH_BYTES_MAX);
        // what waits in the queue is limited as by default, not as where eight writers share it
        settings.remove("queue.buffering.max.kbytes").remove("queue.buffering.max.messages");
        Ok(Self { producer: settings.create()?, topic })
    }

    /// Hands one over; it is on its topic when the future says so.
    pub(super) async fn send(&self, key: &str, id: &str, value: &str) -> Result<DeliveryFuture, Error> {
        let headers = headers(id, "bench.outcome");
        let mut record = FutureRecord::to(&self.topic).key(key).payload(value).headers(headers);
        loop {
            match self.producer.send_result(record) {
                Ok(delivery) => return Ok(delivery),
                Err((error, refused)) if is_full(&error) => record = refused,
                Err((error, _)) => return Err(error.into()),
            }
            tokio::time::sleep(FULL_WAIT).await;
        }
    }
}

/// Waits until it is on its topic.
pub(super) async fn delivered(delivery: DeliveryFuture) -> Result<(), Error> {
    on_its_topic(delivery.await)
}

/// What has become of it.
pub(super) fn on_its_topic(acknowledged: <DeliveryFuture as Future>::Output) -> Result<(), Error> {
    match acknowledged {
        Ok(Ok(_)) => Ok(()),
        Ok(Err((error, _))) => Err(error.into()),
        Err(_) => Err(Error::Silent("the outcome's acknowledgement".to_owned())),
    }
}

fn is_full(error: &rdkafka::error::KafkaError) -> bool {
    error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull)
}
