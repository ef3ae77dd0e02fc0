//! A consumer group of one, a task per partition: how both consumers that people write run.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, DefaultConsumerContext, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use super::super::Error;
use super::super::services::connection;
use super::publish::Outcomes;
use crate::config::Config;
use crate::kafka;

const METADATA_TIMEOUT: Duration = Duration::from_secs(30);

/// What the task of one partition works with.
pub(super) struct Partition {
    pub(super) connection: PgConnection,
    pub(super) outcomes: Outcomes,
    queue: Queue,
    consumer: Consumer,
    topic: String,
}

type Queue = StreamPartitionQueue<DefaultConsumerContext>;
/// Keeps the queues alive, and commits what they have stored.
type Consumer = Arc<StreamConsumer>;

impl Partition {
    /// The next record.
    pub(super) async fn record(&self) -> Result<BorrowedMessage<'_>, Error> {
        Ok(self.queue.recv().await?)
    }

    /// The outcome of this record, and of all before it, is on its topic: the group's offset may pass it.
    pub(super) fn published(&self, partition: i32, offset: i64) -> Result<(), Error> {
        Ok(self.consumer.store_offset(&self.topic, partition, offset)?)
    }
}

/// Runs a task for each partition, until one of them fails or the process is killed.
pub(super) async fn run<F>(config: &Config, settle: impl Fn(Partition) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (consumer, queues) = join(config)?;
    let outcomes = Outcomes::new(config)?;
    let topic = config.topics.first().map(|topic| topic.name.clone()).unwrap_or_default();
    let mut tasks = JoinSet::new();
    for queue in queues {
        let (connection, outcomes) = (connection(config).await?, outcomes.clone());
        let (consumer, topic) = (consumer.clone(), topic.clone());
        tasks.spawn(settle(Partition { connection, outcomes, queue, consumer, topic }));
    }
    tasks.spawn(async { Err(serve(consumer).await) });
    match tasks.join_next().await {
        Some(joined) => joined.map_err(std::io::Error::other).map_err(Error::io("settle"))?,
        None => Ok(()),
    }
}

/// Reads all partitions of the configured topic from the beginning; stored offsets are committed every
/// five seconds, as by default.
fn join(config: &Config) -> Result<(Consumer, Vec<Queue>), Error> {
    let client = kafka::Client::new(&config.kafka, "bench")?;
    let mut settings = client.consumer();
    settings.set("enable.auto.commit", "true");
    // librdkafka's own limits of what is fetched ahead
    for setting in ["queued.max.messages.kbytes", "queued.min.messages", "max.partition.fetch.bytes", "fetch.max.bytes"]
    {
        settings.remove(setting);
    }
    let consumer: Consumer = Arc::new(settings.create()?);
    let topic = config.topics.first().map(|topic| topic.name.as_str()).unwrap_or_default();
    let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let queue = |partition| {
        let queue = consumer.split_partition_queue(topic, partition);
        queue.ok_or_else(|| Error::Silent(format!("partition {partition} of {topic}")))
    };
    // before anything is read, so that no record goes elsewhere
    let queues = (0..partitions as i32).map(queue).collect::<Result<_, _>>()?;
    consumer.assign(&list)?;
    Ok((consumer, queues))
}

/// Serves what is not a record; no record comes here, as each partition has its queue.
async fn serve(consumer: Consumer) -> Error {
    match consumer.recv().await {
        Ok(_) => Error::Silent("a record in the queue of its partition, not beside it".to_owned()),
        Err(error) => error.into(),
    }
}
