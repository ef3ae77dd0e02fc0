//! The cursor: how far a partition's log has been settled.

use uuid::Uuid;

/// How far a partition has been settled, as its row in Postgres says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The first offset that is not settled: every record below it is.
    pub next_offset: i64,
    /// How many batches have been settled, redrives and discards included.
    pub batch_seq: i64,
    /// The decision that put it there: tells this history from one that a
    /// restored database reached another way. `None` before the first batch.
    pub decision_id: Option<Uuid>,
}

/// How far a partition's outcomes and events have been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Every batch up to this one is on its topics.
    pub batch_seq: i64,
    /// Every outcome and event of a record below this offset is on its topic.
    pub next_offset: i64,
}

/// The record before the cursor, kept to recognize the log: a log that was
/// truncated and has grown past the cursor again has the same topic id and a
/// plausible length, but another record here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSettled {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, as Kafka has it.
    pub timestamp_ms: i64,
    /// [`crate::record::Record::checksum`].
    pub checksum: u32,
}
