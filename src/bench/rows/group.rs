//! A consumer group of one, a queue per partition: how both consumers that people write read.

use std::sync::Arc;

use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, DefaultConsumerContext, StreamConsumer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;

use super::super::Error;
use crate::config::Config;
use crate::kafka;

const METADATA_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads one partition.
pub(super) type Queue = StreamPartitionQueue<DefaultConsumerContext>;

/// Keeps the queues alive, and commits what they have stored.
pub(super) type Consumer = Arc<StreamConsumer>;

/// Reads all partitions of the configured topic from the beginning; stored offsets are committed every
/// five seconds, as by default.
pub(super) fn join(config: &Config) -> Result<(Consumer, Vec<Queue>), Error> {
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
pub(super) async fn serve(consumer: Consumer) -> Error {
    match consumer.recv().await {
        Ok(_) => Error::Silent("a record in the queue of its partition, not beside it".to_owned()),
        Err(error) => error.into(),
    }
}
