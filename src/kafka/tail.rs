//! Follows a topic from its end, all partitions, in no group.
//!
//! Where the end is, is asked before [`Tail::begin`] returns: whatever is
//! published afterwards will be read. A topic (or a partition) that is made later
//! is read from its beginning, as all of it came afterwards. All calls block.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::Client;
use super::log::Reported;

/// How often a topic that does not exist is looked for.
const MISSING_LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often partitions that were added are looked for.
const GROWN_LOOK_EVERY: Duration = Duration::from_secs(30);

/// The topic cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// Kafka does not answer, or has refused: begin again.
    #[error("the end of the topic cannot be read")]
    Kafka(#[from] KafkaError),
}

/// A reader of one topic.
pub struct Tail {
    consumer: BaseConsumer<Reported>,
    topic: String,
    /// Partitions 0 to this are followed; 0: the topic does not exist yet.
    partition_count: i32,
    looked_at: Instant,
    timeout: Duration,
}

impl Tail {
    /// Begins at the end that the topic has now. Asking may take `timeout`.
    ///
    /// # Errors
    /// If the broker does not answer or refuses. A topic that is missing is no error.
    pub fn begin(client: &Client, topic: &str, timeout: Duration) -> Result<Self, TailError> {
        let consumer = client.tail().create_with_context(Reported)?;
        let topic = topic.to_owned();
        let mut tail = Self { consumer, topic, partition_count: 0, looked_at: Instant::now(), timeout };
        let count = tail.count_partitions()?;
        let mut ends = TopicPartitionList::new();
        for partition in 0..count {
            let (_, end) = tail.consumer.fetch_watermarks(&tail.topic, partition, timeout)?;
            ends.add_partition_offset(&tail.topic, partition, Offset::Offset(end))?;
        }
        tail.follow(count, &ends)?;
        Ok(tail)
    }

    /// The next record's value, if one comes within `wait`.
    ///
    /// # Errors
    /// If the client has failed for good: begin again.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Vec<u8>>, TailError> {
        self.look_for_partitions()?;
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(record)) => Ok(record.payload().map(<[u8]>::to_vec)),
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(error.into()),
            Some(Err(error)) => {
                tracing::warn!(%error, topic = self.topic, "outcomes cannot be read now; trying again");
                Ok(None)
            }
        }
    }

    /// Partitions that were not there before are read from their beginning.
    fn look_for_partitions(&mut self) -> Result<(), TailError> {
        let every = if self.partition_count == 0 { MISSING_LOOK_EVERY } else { GROWN_LOOK_EVERY };
        if self.looked_at.elapsed() < every {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let count = match self.count_partitions() {
            Ok(count) => count,
            Err(error) => {
                tracing::debug!(%error, topic = self.topic, "the partition count is unknown; asking again");
                return Ok(());
            }
        };
        let mut added = TopicPartitionList::new();
        for partition in self.partition_count..count {
            added.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
        }
        self.follow(count, &added)
    }

    fn follow(&mut self, partition_count: i32, added: &TopicPartitionList) -> Result<(), TailError> {
        if added.count() > 0 {
            self.consumer.incremental_assign(added)?;
            self.partition_count = partition_count;
        }
        Ok(())
    }

    /// 0: there is no such topic.
    fn count_partitions(&self) -> Result<i32, KafkaError> {
        use RDKafkaErrorCode::{LeaderNotAvailable, UnknownTopic, UnknownTopicOrPartition};
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), self.timeout)?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == self.topic) else { return Ok(0) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => Ok(i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)),
            // the last: it is being made
            Some(UnknownTopicOrPartition | UnknownTopic | LeaderNotAvailable) => Ok(0),
            Some(code) => Err(KafkaError::MetadataFetch(code)),
        }
    }
}
