//! Sends the sample commands, one in twenty of them twice, at a steady rate.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::books::Ordered;
use super::commands::{Commands, Next};
use super::{Error, Sample, SharedBooks, open};
use crate::config::{Config, Topic};
use crate::kafka::Client;
use crate::postgres::PartitionStatus;

/// Five hundred a second, in portions.
const PORTION: usize = 10;
const PORTION_EVERY: Duration = Duration::from_millis(20);
/// One in this many is a repeat of a recent command.
const REPEAT_ONE_IN: usize = 20;
/// As many recent commands may be repeated.
const RECENT_MAX: usize = 1_000;
/// The embedded broker keeps 5 MiB of a partition and forgets the rest, settled or not. So many
/// commands fit into one, and the traffic waits for the workers when that many are not settled.
const UNSETTLED_MAX: u64 = 10_000;
/// A sample command, with its headers.
const COMMAND_BYTES_MAX: usize = 1_000_000;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// The offset after the last record that was sent, per topic and partition.
pub(super) type Ends = HashMap<(String, i32), i64>;

/// Where the broker says that records are.
#[derive(Default)]
struct Deliveries {
    report: Mutex<Report>,
}

#[derive(Default)]
struct Report {
    ends: Ends,
    failed: Option<String>,
}

impl Deliveries {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Default)]
struct Context(Arc<Deliveries>);

impl ClientContext for Context {}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut report = self.0.report();
        match result {
            Ok(record) => {
                let end = report.ends.entry((record.topic().to_owned(), record.partition())).or_default();
                *end = (*end).max(record.offset() + 1);
            }
            Err((error, _)) => report.failed = Some(error.to_string()),
        }
    }
}

/// Where the last records are.
pub(super) struct Sent(Ends);

impl Sent {
    /// Whether every record that was sent is settled.
    pub(super) fn all_below_cursors(&self, rows: &[PartitionStatus]) -> bool {
        let settled = |topic: &str, partition, end| {
            rows.iter().any(|row| row.topic == topic && row.partition == partition && row.next_offset >= end)
        };
        self.0.iter().all(|((topic, partition), end)| settled(topic, *partition, *end))
    }
}

/// The sending task.
pub(super) struct Traffic {
    deliveries: Arc<Deliveries>,
    settled: Arc<AtomicU64>,
    stop: CancellationToken,
    sending: JoinHandle<Result<(), Error>>,
}

impl Traffic {
    pub(super) fn start(commands: Commands, config: &Config, books: SharedBooks) -> Result<Self, Error> {
        let client = Client::new(&config.kafka, "solewriter-dev-traffic")?;
        let context = Context::default();
        let producer = client.producer(COMMAND_BYTES_MAX).create_with_context(context.clone())?;
        let (settled, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let sender = Sender {
            producer,
            books,
            commands,
            topics: config.topics.clone(),
            recent: VecDeque::new(),
            sent: 0,
            deliveries: context.0.clone(),
            settled: settled.clone(),
        };
        let sending = tokio::spawn(sender.run(stop.clone()));
        Ok(Self { deliveries: context.0, settled, stop, sending })
    }

    /// So many records are settled.
    pub(super) fn settled(&self, records: u64) {
        self.settled.store(records, Ordering::Relaxed);
    }

    /// Where the records end by now.
    pub(super) fn ends(&self) -> Ends {
        self.deliveries.report().ends.clone()
    }

    /// Sends no more, and waits until all are delivered.
    pub(super) async fn stop(&mut self) -> Result<Sent, Error> {
        self.stop.cancel();
        let sent = (&mut self.sending).await;
        sent.map_err(|error| Error::NotSent(error.to_string()))??;
        let mut report = self.deliveries.report();
        match report.failed.take() {
            Some(why) => Err(Error::NotSent(why)),
            None => Ok(Sent(report.ends.clone())),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A command as it was sent: a repeat is the same to the byte.
struct Message {
    topic: String,
    id: Uuid,
    sample: Sample,
}

struct Sender {
    producer: ThreadedProducer<Context>,
    books: SharedBooks,
    commands: Commands,
    topics: Vec<Topic>,
    recent: VecDeque<Message>,
    sent: u64,
    deliveries: Arc<Deliveries>,
    settled: Arc<AtomicU64>,
}

impl Sender {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let mut portions = tokio::time::interval(PORTION_EVERY);
        while stop.run_until_cancelled(portions.tick()).await.is_some() {
            let unsettled = self.sent.saturating_sub(self.settled.load(Ordering::Relaxed));
            if unsettled > UNSETTLED_MAX {
                continue;
            }
            for _ in 0..PORTION {
                self.send_one()?;
            }
            if let Some(why) = self.deliveries.report().failed.clone() {
                return Err(Error::NotSent(why));
            }
        }
        let flushed = tokio::task::spawn_blocking(move || self.producer.flush(FLUSH_TIMEOUT)).await;
        flushed.map_err(|error| Error::NotSent(error.to_string()))?.map_err(Error::from)
    }

    fn send_one(&mut self) -> Result<(), Error> {
        if !self.recent.is_empty() && fastrand::usize(..REPEAT_ONE_IN) == 0 {
            let again = fastrand::usize(..self.recent.len());
            open(&self.books).repeated(self.recent[again].id);
            return self.send(&self.recent[again]).inspect(|()| self.sent += 1);
        }
        let Some(Next { entity_type, sample, is_reckoned }) = self.commands.next() else {
            return Ok(());
        };
        let Some(topic) = self.topics.iter().find(|topic| *topic.entity == *entity_type) else {
            return Err(Error::NotSent(format!("no topic carries commands of entity {entity_type}")));
        };
        let message = Message { topic: topic.name.clone(), id: Uuid::now_v7(), sample };
        // in the books before it is on its way: its outcome may be heard at once
        open(&self.books).ordered(Ordered {
            command_id: message.id,
            entity_type,
            entity_id: message.sample.entity_id.clone(),
            adds: is_reckoned.then_some(message.sample.adds),
            at: Instant::now(),
        });
        self.send(&message)?;
        self.sent += 1;
        self.recent.push_back(message);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        Ok(())
    }

    fn send(&self, Message { topic, id, sample }: &Message) -> Result<(), Error> {
        let id = id.to_string();
        let headers = [("ce_specversion", "1.0"), ("ce_id", &id), ("ce_type", &sample.command_type)];
        let headers = headers
            .into_iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let record = BaseRecord::to(topic).key(&sample.entity_id).payload(&sample.data).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error.into())
    }
}
