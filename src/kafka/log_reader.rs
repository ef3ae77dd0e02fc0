//! Reads a stretch of one partition from its beginning to its end, once, in no group.
//!
//! What is authoritative: offsets. A stretch ends by position, not by a record: its last offsets may be
//! transaction markers or aborted records, which nobody is ever given. So the reader looks at the log's
//! stable end *before* it reads, refuses a stretch that is not all there, and ends at the first record
//! beyond the stretch or where the broker says that nothing more is to be had.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::log::Reported;
use super::{Client, copy};
use crate::record::{Record, TopicPartition};

/// How long one poll waits: how late a stop is heard while the broker is silent.
const POLL: Duration = Duration::from_millis(100);
/// Chunks that are read ahead of who works on them.
const CHUNKS_AHEAD: usize = 2;
/// What one chunk holds at most, whatever its records cost: bytes.
const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A stretch of a log cannot be read (to its end).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The log begins behind the stretch's beginning, or ended before its end.
    #[error(
        "{source_log}:{offset} is not in the log, which goes from {low} to {stable}: retention, or a topic that was recreated"
    )]
    Gone {
        /// The partition.
        source_log: TopicPartition,
        /// The first offset that is wanted and not there.
        offset: i64,
        /// Where the log begins.
        low: i64,
        /// Where what can be read ends: an open transaction hides the rest.
        stable: i64,
    },
    /// Nothing came for as long as the reader waits.
    #[error("{source_log}:{offset}: the broker sends nothing for {timeout:?}; is it there? type: solewriter check")]
    Silent {
        /// The partition.
        source_log: TopicPartition,
        /// Read up to here.
        offset: i64,
        /// How long it waited.
        timeout: Duration,
    },
    /// Kafka refuses.
    #[error("{source_log}:{offset}: {error}")]
    Kafka {
        /// The partition.
        source_log: TopicPartition,
        /// Read up to here.
        offset: i64,
        /// What Kafka says.
        #[source]
        error: KafkaError,
    },
}

/// A reader of one stretch of one partition. It blocks: use it off the async threads, or [`Self::chunks`].
pub struct LogReader {
    consumer: BaseConsumer<Reported>,
    source: TopicPartition,
    /// The least offset that the next record can have.
    position: i64,
    /// The offset behind the stretch.
    end: i64,
    timeout: Duration,
}

impl LogReader {
    /// A reader of the records from offset `from` to the one before `end`. An answer of the broker may
    /// take `timeout`.
    ///
    /// # Errors
    /// [`ReadError::Gone`] if the log does not hold all of it; if the broker does not answer.
    pub fn open(
        client: &Client,
        source: &TopicPartition,
        from: i64,
        end: i64,
        timeout: Duration,
    ) -> Result<Self, ReadError> {
        let failed = |error| ReadError::Kafka { source_log: source.clone(), offset: from, error };
        let consumer: BaseConsumer<Reported> = client.log_reader().create_with_context(Reported).map_err(failed)?;
        let reader = Self { consumer, source: source.clone(), position: from, end, timeout };
        if from < end {
            let (low, stable) =
                reader.consumer.fetch_watermarks(&source.topic, source.partition, timeout).map_err(failed)?;
            if from < low || end > stable {
                let offset = if from < low { from } else { stable };
                return Err(ReadError::Gone { source_log: source.clone(), offset, low, stable });
            }
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&source.topic, source.partition, Offset::Offset(from)).map_err(failed)?;
            reader.consumer.assign(&list).map_err(failed)?;
        }
        Ok(reader)
    }

    /// Everything below this offset has been read, or is nothing to read.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The next record; `None`: the stretch is read.
    ///
    /// # Errors
    /// If it cannot be had. What was read before is right, and nothing after it is skipped.
    pub fn read(&mut self) -> Result<Option<Record>, ReadError> {
        let deadline = Instant::now() + self.timeout;
        while self.position < self.end {
            let polled = self.consumer.poll(POLL);
            let polled = polled
                .map(|polled| polled.map(|message| (message.offset() < self.end).then(|| copy::record(&message))));
            match polled {
                Some(Ok(Some(record))) => {
                    self.position = record.offset + 1;
                    return Ok(Some(record));
                }
                // a record beyond the stretch, or the end of the log: when this was opened the stable end was
                // not before the stretch's, so nothing of it is still to come
                Some(Ok(None)) | Some(Err(KafkaError::PartitionEOF(_))) => self.position = self.end,
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => return Err(self.gone()),
                Some(Err(error)) if !is_passing(&error) => {
                    return Err(ReadError::Kafka { source_log: self.source.clone(), offset: self.position, error });
                }
                Some(Err(_)) | None if Instant::now() >= deadline => {
                    let (source_log, offset) = (self.source.clone(), self.position);
                    return Err(ReadError::Silent { source_log, offset, timeout: self.timeout });
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(None)
    }

    /// The next records: at most `records_max`, and few if they are large. Empty: the stretch is read.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_chunk(&mut self, records_max: usize) -> Result<Vec<Record>, ReadError> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < records_max && bytes < CHUNK_BYTES_MAX {
            let Some(record) = self.read()? else { break };
            bytes += record.size_bytes();
            chunk.push(record);
        }
        Ok(chunk)
    }

    /// Reads on a thread of its own, a little ahead of whoever receives. The channel closes behind the
    /// last chunk, or behind an error; dropping the receiver ends the reading.
    pub fn chunks(mut self, records_max: usize) -> mpsc::Receiver<Result<Vec<Record>, ReadError>> {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        tokio::task::spawn_blocking(move || {
            loop {
                let chunk = self.read_chunk(records_max);
                let (is_end, is_error) = (chunk.as_ref().is_ok_and(Vec::is_empty), chunk.is_err());
                if is_end || sender.blocking_send(chunk).is_err() || is_error {
                    return;
                }
            }
        });
        receiver
    }

    /// The log has lost what is to be read next.
    fn gone(&self) -> ReadError {
        let (source_log, offset) = (self.source.clone(), self.position);
        match self.consumer.fetch_watermarks(&self.source.topic, self.source.partition, self.timeout) {
            Ok((low, stable)) => ReadError::Gone { source_log, offset, low, stable },
            Err(error) => ReadError::Kafka { source_log, offset, error },
        }
    }
}

/// Whether the client goes on by itself: a broker that restarts, a leader that moves.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::Resolve
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::BrokerNotAvailable
                | Code::ReplicaNotAvailable
                | Code::NetworkException
        )
    )
}
