//! Reads the outcomes topics from their beginning, as an upstream service would, into the books.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::books::Heard;
use super::{Error, SharedBooks, open};
use crate::config::Config;
use crate::kafka::Client;

const POLL: Duration = Duration::from_millis(50);
/// How long the broker may take to name the partitions of a topic.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A thread that reads until it is stopped.
pub(super) struct Listener {
    stopped: Arc<AtomicBool>,
    first: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(config: &Config, books: SharedBooks) -> Result<Self, Error> {
        let consumer = everything(config)?;
        let (stopped, first) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let mut listener = Self { stopped: stopped.clone(), first: first.clone(), thread: None };
        let listen = move || {
            let mut heard_any = false;
            while !stopped.load(Ordering::Acquire) {
                let Some(Ok(message)) = consumer.poll(POLL) else {
                    continue;
                };
                if let Some(heard) = heard(&message) {
                    open(&books).heard(heard);
                    if !std::mem::replace(&mut heard_any, true) {
                        first.notify_one();
                    }
                }
            }
        };
        let spawned = std::thread::Builder::new().name("dev-listener".into()).spawn(listen);
        listener.thread = Some(spawned.map_err(Error::io("start a thread"))?);
        Ok(listener)
    }

    /// Ready once, when the first outcome is on its topic.
    pub(super) async fn first_effect(&self) {
        self.first.notified().await;
    }

    /// Blocks for a poll at most. The broker goes next: the client must not miss it.
    pub(super) fn stop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads the outcomes panicked");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A consumer of all partitions of all outcomes topics, in no group.
fn everything(config: &Config) -> Result<BaseConsumer, Error> {
    let client = Client::new(&config.kafka, "solewriter-dev-listener")?;
    let mut settings = client.reader();
    // what waits for a full queue is not heard, and would be taken for slow
    settings.set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = settings.create()?;
    let mut all = TopicPartitionList::new();
    for topic in &config.topics {
        let name = topic.outcomes_topic();
        let metadata = consumer.fetch_metadata(Some(&name), ASK_TIMEOUT)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            all.add_partition_offset(&name, partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&all)?;
    Ok::<_, KafkaError>(consumer).map_err(Error::from)
}

/// The parts of an outcome record that the books need.
#[derive(serde::Deserialize)]
struct Value {
    command_id: Option<uuid::Uuid>,
    command_type: Option<String>,
    entity_id: Option<String>,
    outcome: String,
    code: Option<String>,
    detail: Option<String>,
    version: Option<i64>,
}

fn heard(message: &BorrowedMessage<'_>) -> Option<Heard> {
    let value: Value = serde_json::from_slice(message.payload()?).ok()?;
    let mut digest = DefaultHasher::new();
    (message.key(), message.payload()).hash(&mut digest);
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        (header.key, header.value).hash(&mut digest);
    }
    Some(Heard {
        command_id: value.command_id?,
        command_type: value.command_type.unwrap_or_default(),
        entity_id: value.entity_id.unwrap_or_default(),
        outcome: value.outcome,
        code: value.code,
        detail: value.detail,
        version: value.version,
        digest: digest.finish(),
        at: Instant::now(),
    })
}
