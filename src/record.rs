//! A Kafka record as it was received: owned bytes, read but not yet believed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of a topic, by name and number.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.partition)
    }
}

/// What a record costs beside its bytes, in bytes: the structs that hold it
/// while it is in flight. Keeps a flood of tiny records inside the budget.
const OVERHEAD_BYTES: usize = 256;

/// The latest time that both RFC 3339 and Postgres can write: the last
/// millisecond of the year 9999. A producer may claim any other.
const RECORD_TIME_MS_MAX: i64 = 253_402_300_799_999;

/// One Kafka record in one allocation (and one more for its headers).
#[derive(Clone, Debug)]
pub struct Record {
    /// Its place in the partition.
    pub offset: i64,
    /// The record's timestamp as Kafka has it, in milliseconds since 1970;
    /// negative where there is none.
    pub timestamp_ms: i64,
    bytes: Box<[u8]>,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Box<[HeaderRange]>,
}

#[derive(Clone, Debug)]
struct HeaderRange {
    name: Range<u32>,
    value: Option<Range<u32>>,
}

/// A header's name and value. Neither need be UTF-8.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

impl Record {
    /// Copies a record out of the client's buffers.
    pub fn copied(
        offset: i64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Self {
        let header_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
        let length = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + header_bytes;
        let mut bytes = Vec::with_capacity(length);
        let mut append = |part: &[u8]| {
            // Kafka frames a record's length in 32 bits, signed
            let start = bytes.len() as u32;
            bytes.extend_from_slice(part);
            start..bytes.len() as u32
        };
        let key = key.map(&mut append);
        let value = value.map(&mut append);
        let headers = headers
            .iter()
            .map(|(name, value)| HeaderRange { name: append(name), value: value.map(&mut append) })
            .collect();
        Self { offset, timestamp_ms, bytes: bytes.into(), key, value, headers }
    }

    /// The same record with another value.
    #[must_use]
    pub fn with_value(&self, value: &[u8]) -> Self {
        let headers: Vec<Header<'_>> = self.headers().collect();
        Self::copied(self.offset, self.timestamp_ms, self.key(), Some(value), &headers)
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_ref().map(|range| self.slice(range))
    }

    /// The value; none is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_ref().map(|range| self.slice(range))
    }

    /// All headers, in order.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = Header<'_>> {
        self.headers.iter().map(|h| (self.slice(&h.name), h.value.as_ref().map(|range| self.slice(range))))
    }

    /// The value of the first header of this name. A header without a value
    /// counts as absent.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(n, _)| *n == name.as_bytes()).and_then(|(_, value)| value)
    }

    /// The record's time, in milliseconds since 1970, within what RFC 3339 and
    /// Postgres can write.
    pub fn time_ms(&self) -> i64 {
        self.timestamp_ms.clamp(0, RECORD_TIME_MS_MAX)
    }

    /// What the record costs while it is in flight, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.headers.len() * size_of::<HeaderRange>() + OVERHEAD_BYTES
    }

    /// CRC-32 of key, value and headers with their lengths: tells whether a log
    /// still holds this record at its offset.
    pub fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut part = |bytes: Option<&[u8]>| {
            hasher.update(&bytes.map_or(-1, |b| b.len() as i64).to_le_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        part(self.key());
        part(self.value());
        for (name, value) in self.headers() {
            part(Some(name));
            part(value);
        }
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
        Record::copied(7, 1000, key, value, &[(b"a", Some(b"1")), (b"a", Some(b"2")), (b"n", None)])
    }

    #[test]
    fn a_copy_reads_as_what_was_copied() {
        let record = record(Some(b"key"), None);
        assert_eq!(record.key(), Some(&b"key"[..]));
        assert_eq!(record.value(), None);
        assert_eq!(record.header("a"), Some(&b"1"[..]), "of a header given twice the first counts");
        assert_eq!(record.header("n"), None);
        assert_eq!(record.headers().count(), 3);
    }

    #[test]
    fn a_checksum_tells_records_apart_that_concatenate_alike() {
        assert_ne!(record(Some(b"ab"), Some(b"c")).checksum(), record(Some(b"a"), Some(b"bc")).checksum());
        assert_ne!(record(Some(b""), None).checksum(), record(None, Some(b"")).checksum());
    }

    #[test]
    fn a_time_out_of_range_is_brought_into_range() {
        let at = |ms| Record::copied(0, ms, None, None, &[]).time_ms();
        assert_eq!(at(-1), 0);
        assert_eq!(at(i64::MAX), RECORD_TIME_MS_MAX);
    }
}
