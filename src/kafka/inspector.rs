//! Looks at topics and logs with a client of its own, which knows the group and
//! never joins it. All calls block: run them off the async threads.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::log::Reported;
use super::{Client, copy};
use crate::record::{Record, TopicPartition};

/// Looking failed: the broker cannot be reached, or does not know the topic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The topic or partition does not exist.
    #[error("the topic does not exist")]
    NoTopic,
    /// This user may not look.
    #[error("the broker refuses: {0}")]
    Denied(KafkaError),
    /// Kafka could not answer.
    #[error("the broker does not answer: {0}")]
    Kafka(#[from] KafkaError),
}

impl InspectError {
    /// What the broker's `code` means; `other` says of what the rest is an error.
    pub(super) fn of(code: RDKafkaErrorCode, other: impl FnOnce(RDKafkaErrorCode) -> KafkaError) -> Self {
        use RDKafkaErrorCode::{TopicAuthorizationFailed, UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
        match code {
            UnknownTopicOrPartition | UnknownTopic | UnknownPartition => Self::NoTopic,
            TopicAuthorizationFailed => Self::Denied(other(code)),
            code => other(code).into(),
        }
    }
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The first offset that is still there.
    pub low: i64,
    /// The offset after the last record (the high watermark).
    pub high: i64,
}

/// What stands at an offset.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RecordAt {
    /// This record.
    Found(Box<Record>),
    /// No record: the log ends before it, or goes on after it.
    Missing,
}

/// The client that looks.
pub struct Inspector {
    consumer: BaseConsumer<Reported>,
    /// Reads uncommitted: asked by a client that does not, the broker names the
    /// last stable offset as the end, below what an open transaction holds back.
    ends: BaseConsumer<Reported>,
    /// One reads at a time: the consumer has one assignment.
    reading: Mutex<()>,
    timeout: Duration,
}

impl Inspector {
    /// A client; it connects when it is first asked.
    ///
    /// # Errors
    /// If a setting is not one of librdkafka's.
    pub fn new(client: &Client, timeout: Duration) -> Result<Self, KafkaError> {
        Ok(Self {
            ends: client.inspector().set("isolation.level", "read_uncommitted").create_with_context(Reported)?,
            consumer: client.inspector().create_with_context(Reported)?,
            reading: Mutex::new(()),
            timeout,
        })
    }

    /// The cluster's id, if the broker tells it.
    pub fn cluster_id(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(self.timeout)
    }

    /// The topic's partition count, asked afresh.
    ///
    /// # Errors
    /// [`InspectError::NoTopic`] if there is no such topic.
    pub fn partition_count(&self, topic: &str) -> Result<i32, InspectError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), self.timeout)?;
        let topic = metadata.topics().iter().find(|t| t.name() == topic).ok_or(InspectError::NoTopic)?;
        if let Some(error) = topic.error() {
            return Err(InspectError::of(error.into(), KafkaError::MetadataFetch));
        }
        match i32::try_from(topic.partitions().len()) {
            Ok(0) | Err(_) => Err(InspectError::NoTopic),
            Ok(count) => Ok(count),
        }
    }

    /// Whether the cluster has a controller to ask: admin requests go to it, and
    /// wait for it in vain where the broker that is named is none of the cluster's
    /// (librdkafka's mock cluster names broker 0 and begins at 1).
    pub fn has_controller(&self, topic: &str) -> bool {
        let Ok(metadata) = self.consumer.fetch_metadata(Some(topic), self.timeout) else { return true };
        // SAFETY: the client is alive; the metadata just fetched holds the answer
        let named = unsafe { rdkafka_sys::rd_kafka_controllerid(self.consumer.client().native_ptr(), 0) };
        named < 0 || metadata.brokers().iter().any(|broker| broker.id() == named)
    }

    /// The topic's id, where the broker tells one.
    pub fn topic_id(&self, topic: &str) -> Option<String> {
        if !self.has_controller(topic) {
            return None;
        }
        super::topic_id::topic_id(self.consumer.client(), topic, self.timeout)
    }

    /// Where the log begins and ends, asked of the broker.
    ///
    /// # Errors
    /// [`InspectError::NoTopic`] if there is no such partition; if the broker does not answer.
    pub fn log_end(&self, source: &TopicPartition) -> Result<LogEnd, InspectError> {
        match self.ends.fetch_watermarks(&source.topic, source.partition, self.timeout) {
            Ok((low, high)) => Ok(LogEnd { low, high }),
            Err(KafkaError::MetadataFetch(code)) => Err(InspectError::of(code, KafkaError::MetadataFetch)),
            Err(error) => Err(error.into()),
        }
    }

    /// Where what can be read ends: at the log's end, or where an open transaction begins.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub fn stable_end(&self, source: &TopicPartition) -> Result<i64, InspectError> {
        let (_, stable) = self.consumer.fetch_watermarks(&source.topic, source.partition, self.timeout)?;
        Ok(stable)
    }

    /// Whether no record lies between an offset and the log's end `high`: only
    /// transaction markers, and no transaction is open.
    ///
    /// # Errors
    /// If the broker does not answer in time.
    pub fn holds_nothing_from(&self, source: &TopicPartition, offset: i64, high: i64) -> Result<bool, InspectError> {
        Ok(self.stable_end(source)? == high && matches!(self.first_record_from(source, offset)?, RecordAt::Missing))
    }

    /// The offset that the group has committed, if it has.
    ///
    /// # Errors
    /// If the group's coordinator does not answer.
    pub fn committed(&self, source: &TopicPartition) -> Result<Option<i64>, InspectError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&source.topic, source.partition);
        let committed = self.consumer.committed_offsets(list, self.timeout)?;
        let element = committed.find_partition(&source.topic, source.partition);
        if let Some(element) = &element {
            element.error()?;
        }
        Ok(element.and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    /// The client ids of the group's members. `None`: nobody tells. There is no such
    /// group, this user may not see it, or it uses the `consumer` protocol (KIP-848),
    /// which this request does not describe.
    ///
    /// # Errors
    /// If the group's coordinator does not answer.
    pub fn members(&self, group_id: &str) -> Result<Option<HashSet<String>>, InspectError> {
        let groups = match self.consumer.client().fetch_group_list(Some(group_id), self.timeout) {
            // librdkafka's mock cluster
            Err(KafkaError::GroupListFetch(RDKafkaErrorCode::UnsupportedFeature)) => return Ok(None),
            groups => groups?,
        };
        let Some(group) = groups.groups().iter().find(|group| group.name() == group_id) else {
            return Ok(None);
        };
        // a group of the newer protocol is described as dead
        let members = group.members().iter().map(|member| member.client_id().to_owned());
        Ok((group.state() != "Dead").then(|| members.collect()))
    }

    /// The first offset whose record is as new as `time_ms`, else the log's end.
    ///
    /// librdkafka's mock broker knows no times, and says each time that no record is as new: if the last one is, it is
    /// looked for, as if records' times never went back.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub fn offset_at(&self, source: &TopicPartition, time_ms: i64) -> Result<i64, InspectError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&source.topic, source.partition, Offset::Offset(time_ms))?;
        let found = self.consumer.offsets_for_times(list, self.timeout)?;
        if let Some(Offset::Offset(offset)) =
            found.find_partition(&source.topic, source.partition).map(|element| element.offset())
        {
            return Ok(offset);
        }
        let LogEnd { low, high } = self.log_end(source)?;
        match low < high && self.first_time_from(source, high - 1)?.is_some_and(|last_ms| last_ms >= time_ms) {
            true => self.look_for(source, time_ms, low..high),
            false => Ok(high),
        }
    }

    fn look_for(&self, source: &TopicPartition, time_ms: i64, offsets: Range<i64>) -> Result<i64, InspectError> {
        let Range { start: mut low, end: mut high } = offsets;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_time_from(source, middle)? {
                Some(found_ms) if found_ms < time_ms => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The first record at or after an offset, if one is there. Reads past
    /// transaction markers; an open transaction hides what follows it.
    ///
    /// # Errors
    /// If the broker does not answer in time.
    pub fn first_record_from(&self, source: &TopicPartition, offset: i64) -> Result<RecordAt, InspectError> {
        let record = self.read_from(source, offset, 1, Some)?.pop();
        Ok(record.map_or(RecordAt::Missing, |record| RecordAt::Found(Box::new(record))))
    }

    /// The time of that record, milliseconds since 1970; `None` without a record, or
    /// of one that has no time.
    ///
    /// # Errors
    /// If the broker does not answer in time.
    pub fn first_time_from(&self, source: &TopicPartition, offset: i64) -> Result<Option<i64>, InspectError> {
        Ok(match self.first_record_from(source, offset)? {
            RecordAt::Found(record) => Some(record.timestamp_ms).filter(|time_ms| *time_ms >= 0),
            RecordAt::Missing => None,
        })
    }

    /// The last `count` records, or fewer where the log is shorter.
    ///
    /// # Errors
    /// If the broker does not answer in time.
    pub fn last_records(&self, source: &TopicPartition, count: i64) -> Result<Vec<Record>, InspectError> {
        self.last(source, count, Some)
    }

    /// What `keep` makes of the last `count` records, of which only one at a time is held.
    ///
    /// # Errors
    /// If the broker does not answer in time, or this user may not read the topic.
    pub fn last<T>(
        &self,
        source: &TopicPartition,
        count: i64,
        keep: impl Fn(Record) -> Option<T>,
    ) -> Result<Vec<T>, InspectError> {
        let LogEnd { low, high } = self.log_end(source)?;
        let offset = (high - count).max(low);
        self.read_from(source, offset, usize::try_from(high - offset).unwrap_or(0), keep)
    }

    fn read_from<T>(
        &self,
        source: &TopicPartition,
        offset: i64,
        count: usize,
        keep: impl Fn(Record) -> Option<T>,
    ) -> Result<Vec<T>, InspectError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let _one_at_a_time = self.reading.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&source.topic, source.partition, Offset::Offset(offset))?;
        self.consumer.assign(&list)?;
        let records = (0..count).map_while(|_| self.read_one(source).transpose());
        let kept = records.filter_map(|record| record.map(&keep).transpose()).collect();
        self.consumer.unassign()?;
        kept
    }

    /// What stands at exactly this offset.
    ///
    /// # Errors
    /// If the broker does not answer in time.
    pub fn record_at(&self, source: &TopicPartition, offset: i64) -> Result<RecordAt, InspectError> {
        Ok(match self.first_record_from(source, offset)? {
            RecordAt::Found(record) if record.offset == offset => RecordAt::Found(record),
            _ => RecordAt::Missing,
        })
    }

    /// `None`: the log ends here.
    fn read_one(&self, source: &TopicPartition) -> Result<Option<Record>, InspectError> {
        let deadline = Instant::now() + self.timeout;
        while Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) if message.topic() == &*source.topic && message.partition() == source.partition => {
                    return Ok(Some(copy::record(&message)));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == source.partition => {
                    return Ok(None);
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    return Ok(None);
                }
                Some(Err(KafkaError::MessageConsumption(code @ RDKafkaErrorCode::TopicAuthorizationFailed))) => {
                    return Err(InspectError::of(code, KafkaError::MessageConsumption));
                }
                // left over from the reading before, or a broker that comes and goes
                Some(_) | None => {}
            }
        }
        Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into())
    }
}
