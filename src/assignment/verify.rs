//! Whether a log is the one that a cursor belongs to. Decided from values, at
//! every claim, before the first commit.

use std::ops::Range;

use uuid::Uuid;

use super::compaction::Compaction;
use crate::cursor::LastSettled;
use crate::halt::{Halt, HaltCode};
use crate::horizon::Horizon;
use crate::kafka::LogEnd;
use crate::postgres::{Known, Row};

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
    /// How the topic is compacted, if it is.
    pub compaction: Option<Compaction>,
}

/// What an outcome on the outcomes topic says: this delivery was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// The command.
    pub command_id: Uuid,
    /// The offset of the delivery.
    pub offset: i64,
}

/// Finds a reason not to go on.
///
/// # Errors
/// The halt, with what happened and what it means.
pub fn verify(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    // a topic that was created again may have another layout too: there is nothing to drain then
    same_topic(row, facts)?;
    not_compacted(row, facts)?;
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
        "the topic has {found} partitions, its keys were placed for {placed_for}: commands of one entity may now be on two \
         of them, under two writers; stop the producers before you resolve it"
    );
    Halt::new(HaltCode::PartitionsChanged, detail)
}

fn same_topic(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    match (&row.topic_id, &facts.topic_id) {
        (Some(mine), Some(theirs)) if mine != theirs => {
            let detail = format!(
                "the topic was deleted and created again (id {mine} is now {theirs}): the cursor {} belongs to a log that \
                 is gone, with what was not settled of it; nothing of the new one is settled yet",
                row.cursor.next_offset
            );
            Err(Halt::new(HaltCode::LogRecreated, detail))
        }
        _ => Ok(()),
    }
}

fn not_compacted(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    let Some(Compaction { policy, cure }) = &facts.compaction else { return Ok(()) };
    let detail = format!(
        "the topic's cleanup.policy is {policy}: compaction keeps the newest command of a key and removes the older ones; \
         of those from offset {} on, some may be gone before they were settled, and nothing shows which. First type: \
         {cure}; until then it halts again",
        row.cursor.next_offset
    );
    Err(Halt::new(HaltCode::TopicCompacted, detail))
}

fn within_log(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    let (next, LogEnd { low, high }) = (row.cursor.next_offset, facts.end);
    if next > high {
        let detail = format!(
            "the cursor is {next}, the log ends at {high}: it was truncated (an unclean leader election, a broker that lost \
             its disk) or is another log; what comes now at offsets below {next} would never be settled"
        );
        return Err(Halt::new(HaltCode::CursorBeyondEnd, detail));
    }
    if next < low {
        let detail = format!(
            "records {next} to {} were never settled and are gone (retention, or somebody has deleted them): the log begins \
             at {low}; their commands had no effect and get no outcome",
            low - 1
        );
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
            "offset {offset}, the last that was settled, holds another record now: the log was truncated (an unclean leader \
             election, a broker that lost its disk) and has grown again; what stands below {} may never have been settled",
            offset + 1
        );
        return Err(Halt::new(HaltCode::LogTruncated, detail));
    }
    let detail = format!(
        "offset {offset}, the last that was settled, holds another record now: the topic was created again, or truncated \
         (this broker tells no topic ids); nothing of the new log is settled yet"
    );
    Err(Halt::new(HaltCode::LogRecreated, detail))
}

fn not_behind_group(row: &Row, facts: &LogFacts) -> Result<(), Halt> {
    let next = row.cursor.next_offset;
    match facts.committed {
        Some(committed) if committed > next && committed > row.accepted_offset => {
            let detail = format!(
                "the consumer group has committed offset {committed}, the database's cursor is {next}: the database went back in \
                 time (restored, or failed over to a replica that had lost commits); outcomes of records {next} to {} may be \
                 published and forgotten. Make sure that it is the database you want; solewriter replay run says whether they end \
                 as they were published. Then they run again, where the log still has them, and outcomes that differ may \
                 follow the published ones",
                committed - 1
            );
            let witnessed = Some((row.claimed.token().0, committed));
            Err(Halt { code: HaltCode::DatabaseBehind, detail, witnessed })
        }
        _ => Ok(()),
    }
}

/// The outcomes of these offsets. Below the horizon a database has forgotten by
/// right.
pub fn suspects(offsets: &Range<i64>, horizon: Horizon, outcomes: &[Testimony]) -> Vec<Testimony> {
    let testifies = |outcome: &&Testimony| offsets.contains(&outcome.offset) && !horizon.is_below(&outcome.command_id);
    outcomes.iter().filter(testifies).copied().collect()
}

/// The suspect of the highest offset that the database does not hold: neither as
/// a final outcome nor as a dead letter.
pub fn forgotten(suspects: &[Testimony], known: &Known) -> Option<Testimony> {
    let is_known = |suspect: &Testimony| {
        known.command_ids.contains(&suspect.command_id) || known.offsets.contains(&suspect.offset)
    };
    suspects.iter().filter(|suspect| !is_known(suspect)).max_by_key(|suspect| suspect.offset).copied()
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
            compaction: None,
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
        let compacted = Compaction { policy: "compact".into(), cure: "mend it".into() };
        assert_eq!(code(|_, facts| facts.compaction = Some(compacted)), Some(HaltCode::TopicCompacted));
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
    /// An outcome of an id that was made at this time.
    fn outcome(offset: i64, time_ms: u128) -> Testimony {
        Testimony { command_id: Uuid::from_u128((time_ms << 80) | (7 << 76) | offset as u128), offset }
    }

    #[test]
    fn outcomes_from_the_cursor_to_the_logs_end_testify_unless_they_are_older_than_the_horizon() {
        let outcomes = [outcome(99, 10), outcome(100, 10), outcome(101, 4), outcome(102, 10), outcome(103, 10)];
        let suspects = suspects(&(100..103), Horizon(5), &outcomes);
        assert_eq!(suspects, [outcome(100, 10), outcome(102, 10)]);
    }

    #[test]
    fn an_outcome_that_the_tables_hold_does_not_testify() {
        let suspects = [outcome(102, 10), outcome(103, 10), outcome(100, 10)];
        let known = |ids: &[Testimony], offsets: &[i64]| Known {
            command_ids: ids.iter().map(|outcome| outcome.command_id).collect(),
            offsets: offsets.iter().copied().collect(),
        };
        assert_eq!(
            forgotten(&suspects, &Known::default()),
            Some(outcome(103, 10)),
            "copies come late: the highest tells"
        );
        assert_eq!(forgotten(&suspects, &known(&[outcome(103, 10)], &[102])), Some(outcome(100, 10)));
        assert_eq!(forgotten(&suspects, &known(&suspects, &[])), None);
        assert_eq!(forgotten(&suspects, &known(&[], &[100, 102, 103])), None, "dead letters are found by their place");
    }
}
