//! Whether a log is the one that a cursor belongs to. Decided from values, at
//! every claim, before the first commit.

use crate::cursor::LastSettled;
use crate::halt::{Halt, HaltCode};
use crate::kafka::LogEnd;
use crate::postgres::Row;

/// What Kafka says of a partition's log at a claim.
#[derive(Clone, Debug)]
pub struct LogFacts {
    /// The topic's id, where the broker tells one.
    pub topic_id: Option<String>,
    /// The topic's partition count.
    pub partition_count: i32,
    /// Where the log begins and ends.
    pub end: LogEnd,
    /// What the group has committed.
    pub committed: Option<i64>,
    /// The record at the last settled offset: `None` if it was not read (never
    /// settled, or retention has removed it); `Some(None)` if there is no record.
    pub last: Option<Option<LastSettled>>,
}

/// Finds a reason not to go on.
///
/// # Errors
/// The halt, with what happened and what it means.
pub fn verify(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    // a topic that was created again may have another layout too: there is nothing to drain then
    same_topic(row, facts)?;
    same_layout(row, facts)?;
    within_log(row, facts)?;
    same_record(row, facts)?;
    not_behind_group(row, facts)
}

fn same_layout(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    if row.draining || row.partition_count == facts.partition_count {
        return Ok(());
    }
    Err(layout_changed(row.partition_count, facts.partition_count))
}

/// The topic has another partition count than the one that keys were placed for.
pub fn layout_changed(placed_for: i32, found: i32) -> Halt {
    let detail = format!(
        "the topic has {found} partitions, its keys were placed for {placed_for}: one entity may now be on two of them"
    );
    Halt::new(HaltCode::PartitionsChanged, detail)
}

fn same_topic(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    match (&row.topic_id, &facts.topic_id) {
        (Some(mine), Some(theirs)) if mine != theirs => {
            let detail = format!(
                "the topic was deleted and created again (id {mine} is now {theirs}): the cursor {} belongs to a log that is gone",
                row.cursor.next_offset
            );
            Err(Halt::new(HaltCode::LogRecreated, detail))
        }
        _ => Ok(()),
    }
}

fn within_log(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    let (next, LogEnd { low, high }) = (row.cursor.next_offset, facts.end);
    if next > high {
        let detail = format!("the cursor is {next}, the log ends at {high}: it was truncated or is another log");
        return Err(Halt::new(HaltCode::CursorBeyondEnd, detail));
    }
    if next < low {
        let detail = format!("records {next} to {} were never settled and are gone: the log begins at {low}", low - 1);
        return Err(Halt::new(HaltCode::LogTruncated, detail));
    }
    Ok(())
}

fn same_record(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    let (Some(settled), Some(found)) = (row.last, facts.last) else { return Ok(()) };
    if found == Some(settled) {
        return Ok(());
    }
    let offset = settled.offset;
    if row.topic_id.is_some() && facts.topic_id.is_some() {
        let detail = format!(
            "offset {offset}, the last that was settled, holds another record now: the log was truncated and has grown again"
        );
        return Err(Halt::new(HaltCode::LogTruncated, detail));
    }
    let detail = format!(
        "offset {offset}, the last that was settled, holds another record now: the topic was created again, or truncated (this broker tells no topic ids)"
    );
    Err(Halt::new(HaltCode::LogRecreated, detail))
}

fn not_behind_group(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    let next = row.cursor.next_offset;
    match facts.committed {
        Some(committed) if committed > next && committed > row.accepted_offset => {
            let detail = format!(
                "the consumer group has committed offset {committed}, the database's cursor is {next}: the database went back in time; \
                 outcomes of records {next} to {} may be published",
                committed - 1
            );
            let witnessed = Some((row.claimed.token().0, committed));
            Err(Halt { code: HaltCode::DatabaseBehind, detail, witnessed })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Cursor, Published};
    use crate::fencing_token::{ClaimId, FencingToken};
    use crate::parked_keys::ParkedKeys;
    use crate::record::TopicPartition;
    use crate::steps::fence::Claimed;

    const SETTLED: LastSettled = LastSettled { offset: 99, timestamp_ms: 5, checksum: 7 };

    fn row() -> Row {
        Row {
            claimed: Claimed::by_the_database(TopicPartition::new("t", 0), FencingToken(3), ClaimId::random()),
            cursor: Cursor { next_offset: 100, batch_seq: 9, decision_id: None },
            published: Published { batch_seq: 9, next_offset: 100 },
            topic_id: Some("one".into()),
            partition_count: 4,
            draining: false,
            last: Some(SETTLED),
            halted: None,
            accepted_offset: 0,
            claims_without_progress: 1,
            parked: ParkedKeys::default(),
        }
    }

    fn facts() -> LogFacts {
        LogFacts {
            topic_id: Some("one".into()),
            partition_count: 4,
            end: LogEnd { low: 0, high: 150 },
            committed: Some(100),
            last: Some(Some(SETTLED)),
        }
    }

    fn code(change: impl FnOnce(&mut Row, &mut LogFacts)) -> Option<HaltCode> {
        let (mut row, mut facts) = (row(), facts());
        change(&mut row, &mut facts);
        verify(&row, &facts).err().map(|halt| halt.code)
    }

    #[test]
    fn the_log_of_the_cursor_is_accepted() {
        assert_eq!(code(|_, _| {}), None);
        assert_eq!(code(|_, facts| facts.end.low = 100), None, "retention has removed what was settled");
        assert_eq!(code(|_, facts| facts.committed = None), None);
    }

    #[test]
    fn every_other_log_halts_with_its_own_code() {
        assert_eq!(code(|_, facts| facts.partition_count = 5), Some(HaltCode::PartitionsChanged));
        assert_eq!(code(|_, facts| facts.topic_id = Some("two".into())), Some(HaltCode::LogRecreated));
        assert_eq!(code(|_, facts| facts.end.high = 99), Some(HaltCode::CursorBeyondEnd));
        assert_eq!(code(|_, facts| facts.end.low = 101), Some(HaltCode::LogTruncated));
        let other = Some(LastSettled { checksum: 8, ..SETTLED });
        assert_eq!(code(|_, facts| facts.last = Some(other)), Some(HaltCode::LogTruncated));
        assert_eq!(code(|_, facts| facts.last = Some(None)), Some(HaltCode::LogTruncated));
        assert_eq!(
            code(|_, facts| {
                facts.last = Some(other);
                facts.topic_id = None
            }),
            Some(HaltCode::LogRecreated)
        );
    }

    #[test]
    fn a_group_that_knows_more_than_the_database_halts_until_an_operator_accepts() {
        assert_eq!(code(|_, facts| facts.committed = Some(101)), Some(HaltCode::DatabaseBehind));
        assert_eq!(
            code(|row, facts| {
                facts.committed = Some(101);
                row.accepted_offset = 101
            }),
            None
        );
    }
}
