//! Reads and parses the records, and does nothing: no consumer can be faster.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::spawn_blocking;

use super::super::Error;
use super::super::backlog::Backlog;
use super::super::services::Services;
use super::super::trial::Worked;
use super::read::read;

/// How long the next record may take.
const NEXT_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the whole backlog.
pub(crate) async fn run(services: &Services, backlog: &Backlog) -> Result<Worked, Error> {
    let mut config = services.client("consume")?.reader();
    // librdkafka's own defaults, where a reader of single records has others
    for setting in ["fetch.wait.max.ms", "queued.max.messages.kbytes", "queued.min.messages"] {
        config.remove(setting);
    }
    // but this one: a consumer whose queue has been full for a moment waits for a second
    config.set("fetch.queue.backoff.ms", "20");
    let consumer: BaseConsumer = config.create()?;
    let backlog = backlog.clone();
    let worked = spawn_blocking(move || consume(&consumer, &backlog)).await;
    worked.map_err(std::io::Error::other).map_err(Error::io("consume"))?
}

fn consume(consumer: &BaseConsumer, backlog: &Backlog) -> Result<Worked, Error> {
    let mut list = TopicPartitionList::new();
    for partition in 0..backlog.partitions {
        list.add_partition_offset(&backlog.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut began = None;
    // what the first record has taken is no part of the rate, nor is the record
    for _ in 0..backlog.workload.commands {
        let record = consumer.poll(NEXT_TIMEOUT).ok_or_else(|| Error::Silent("the commands".to_owned()))??;
        if read(&record).is_none() {
            return Err(Error::Silent("a command that can be read".to_owned()));
        }
        began.get_or_insert_with(Instant::now);
    }
    let took = began.map_or(Duration::ZERO, |began| began.elapsed());
    Ok(Worked { commands: backlog.workload.commands - 1, took })
}
