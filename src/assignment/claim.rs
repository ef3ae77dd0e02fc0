//! Claiming: becoming the owner in Postgres, and proving that the log is the one
//! that the cursor belongs to.

use uuid::Uuid;

use super::compaction::{self, Compaction};
use super::partition::{AskError, Partition, crash_loop};
use super::testimony;
use super::verify::{LogFacts, Testimony, layout_changed, verify};
use crate::config::Start;
use crate::cursor::LastSettled;
use crate::fencing_token::{ClaimId, FencingToken};
use crate::halt::{Halt, HaltCode, resolve};
use crate::horizon::Horizon;
use crate::kafka::{InspectError, Inspector, LogEnd, RecordAt};
use crate::postgres::{self, Beginning, ClaimRequest, Row};
use crate::record::{Record, TopicPartition};
use crate::steps::fence::{Claimed, check_not_behind};

/// After this many claims without progress, that is from the third on, batches of one.
const CAREFUL_AFTER_CLAIMS: i32 = 2;
/// After this many, that is at the fifth, the partition halts.
const CLAIMS_WITHOUT_PROGRESS_MAX: i32 = 4;

/// A claimed partition whose log is its cursor's.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The row.
    pub row: Row,
    /// The database's clock, milliseconds since 1970.
    pub database_time_ms: i64,
    /// Earlier owners died before they settled anything: one record at a time.
    pub careful: bool,
}

/// How a claim ended.
pub(super) enum Claiming {
    /// A writer may begin.
    Claimed(Box<Claim>),
    /// The partition is halted; an operator's change raises the claim's token.
    Halted(Claimed),
    /// Somebody else claimed meanwhile.
    Fenced,
}

/// Claims a partition.
pub(super) async fn claim(partition: &Partition) -> Result<Claiming, AskError> {
    // the witness before the claim: read after it, another owner's progress
    // would look like a database that went back
    let (before, outcomes) = look(partition).await?;
    let Some(row) = become_owner(partition, &before, &outcomes).await? else { return Ok(Claiming::Fenced) };
    partition.stands_at(row.cursor);
    if let Some((code, detail)) = &row.halted {
        partition.gauges.halted(Some(code));
        let resolve = resolve(code, &partition.source);
        tracing::warn!(source = %partition.source, code, detail, resolve, "is halted: an operator decides");
        return Ok(Claiming::Halted(row.claimed));
    }
    if let Err(halt) = prove(partition, &row, before, &outcomes).await? {
        let held = record_halt(partition, &row.claimed, &halt).await?;
        return Ok(held.map_or(Claiming::Fenced, Claiming::Halted));
    }
    let horizon = partition.worker.store.horizon().await?;
    partition.witnessed(row.claimed.token(), row.cursor);
    let careful = row.claims_without_progress >= CAREFUL_AFTER_CLAIMS;
    Ok(Claiming::Claimed(Box::new(Claim { row, database_time_ms: horizon.database_time_ms, careful })))
}

/// What is asked of Kafka before the claim.
struct LogBefore {
    partition_count: i32,
    topic_id: Option<String>,
    end: LogEnd,
    committed: Option<i64>,
    compaction: Option<Compaction>,
}

/// All of it at once. The outcomes, too: what is published was durable before,
/// so the claim that follows sees it.
async fn look(partition: &Partition) -> Result<(LogBefore, Vec<Testimony>), AskError> {
    let compaction = async { Ok(compaction::of(&partition.worker, &partition.topic).await) };
    let (log, outcomes, compaction) =
        tokio::try_join!(partition.ask(LogBefore::look), testimony::hear(partition), compaction)?;
    Ok((LogBefore { compaction, ..log }, outcomes))
}

impl LogBefore {
    fn look(inspector: &Inspector, source: &TopicPartition) -> Result<Self, InspectError> {
        Ok(Self {
            partition_count: inspector.partition_count(&source.topic)?,
            topic_id: inspector.topic_id(&source.topic),
            end: inspector.log_end(source)?,
            committed: inspector.committed(source)?,
            compaction: None,
        })
    }
}

/// The row with the new token. `None`: somebody else was faster.
async fn become_owner(partition: &Partition, log: &LogBefore, outcomes: &[Testimony]) -> Result<Option<Row>, AskError> {
    let request = ClaimRequest {
        source: &partition.source,
        claim_id: ClaimId::random(),
        owner: &partition.worker.owner,
        cluster_id: &partition.worker.cluster_id,
        group_id: &partition.worker.group_id,
        beginning: None,
        topic_id: log.topic_id.as_deref(),
        partition_count: log.partition_count,
    };
    if let Some(row) = partition.worker.store.claim(&request).await? {
        return Ok(Some(row));
    }
    // judged before the row is made: a crash in between must not forget the halt
    let beginning = begin(partition, log, outcomes).await?;
    let row = partition.worker.store.claim(&ClaimRequest { beginning: Some(&beginning), ..request }).await?;
    if let (Some(halt), Some(row)) = (&beginning.halt, &row)
        && row.halted.is_some()
        && row.claimed.token() == FencingToken(1)
    {
        say_halted(partition, halt);
    }
    Ok(row)
}

/// Where a partition without a row begins, and whether somebody has to decide first.
async fn begin(partition: &Partition, log: &LogBefore, outcomes: &[Testimony]) -> Result<Beginning, AskError> {
    if let Some(halt) = added(partition, log).await? {
        // whatever `start` says of a topic: its keys' earlier commands are on other partitions
        return Ok(Beginning { offset: log.end.low, halt: Some(halt) });
    }
    let offset = start_offset(partition, log.end).await?;
    Ok(Beginning { offset, halt: first_claim(partition, offset, log, outcomes).await? })
}

/// A partition that was added to its topic: commands of its keys may wait on the partitions that they
/// lived on before, so it does not begin until `repartition` has moved them.
async fn added(partition: &Partition, log: &LogBefore) -> Result<Option<Halt>, AskError> {
    let topic = &partition.source.topic;
    let placed_for = partition.worker.store.other_layout(topic, log.partition_count).await?;
    Ok(placed_for.map(|placed_for| layout_changed(placed_for, log.partition_count)))
}

async fn start_offset(partition: &Partition, end: LogEnd) -> Result<i64, AskError> {
    match &partition.topic.start {
        Start::Latest => Ok(end.high),
        Start::At(time) => {
            let time_ms = time.as_millisecond();
            partition.ask(move |inspector, source| inspector.offset_at(source, time_ms)).await
        }
        _ => Ok(end.low),
    }
}

/// A partition without a row: either it is new, or the database went back to a
/// time before it, or its backlog is older than anything that is remembered.
async fn first_claim(
    partition: &Partition,
    next_offset: i64,
    log: &LogBefore,
    outcomes: &[Testimony],
) -> Result<Option<Halt>, AskError> {
    if let Some(committed) = log.committed {
        return Ok(Some(never_heard(&format!("the consumer group has committed offset {committed}"), committed)));
    }
    if let Some(outcome) = testimony::forgotten(partition, next_offset..log.end.high, outcomes).await? {
        let witness =
            format!("{} holds the outcome of offset {}", partition.topic.publish_to.outcomes.0, outcome.offset);
        return Ok(Some(never_heard(&witness, outcome.offset + 1)));
    }
    if next_offset >= log.end.high {
        return Ok(None);
    }
    let oldest = partition.ask(move |inspector, source| inspector.first_record_from(source, next_offset)).await?;
    let horizon = partition.worker.store.horizon().await?;
    Ok(match oldest {
        RecordAt::Found(record) if is_older(&record, Horizon(horizon.at_ms)) => {
            Some(older_than_horizon(&record, horizon.at_ms))
        }
        _ => None,
    })
}

fn never_heard(witness: &str, settled_offset: i64) -> Halt {
    let detail = format!(
        "{witness}, and the database has never heard of this partition: it went back in time, or it is not the one that \
         settled this topic; commands would run again, and outcomes that differ from the published ones would follow them \
         (solewriter replay run says which)"
    );
    Halt { code: HaltCode::DatabaseBehind, detail, witnessed: Some((0, settled_offset)) }
}

/// Whether a record belongs to a backlog older than the horizon: by its own time
/// and by its id's. One alone is a producer's clock, not a backlog.
fn is_older(record: &Record, horizon: Horizon) -> bool {
    let id = record.header("ce_id").and_then(|id| Uuid::try_parse_ascii(id).ok());
    (0..horizon.0).contains(&record.timestamp_ms) && id.is_some_and(|id| horizon.is_below(&id))
}

fn older_than_horizon(record: &Record, horizon_ms: i64) -> Halt {
    let detail = format!(
        "the backlog begins at offset {} of {}, before the horizon {}: an id older than that may have \
         been settled and forgotten, so its command would be refused as expired",
        record.offset,
        crate::outcome::rfc3339(record.time_ms()),
        crate::outcome::rfc3339(horizon_ms)
    );
    Halt::new(HaltCode::BacklogOlderThanHorizon, detail)
}

/// Proves that going on is correct, or finds the reason why it cannot be.
async fn prove(
    partition: &Partition,
    row: &Row,
    before: LogBefore,
    outcomes: &[Testimony],
) -> Result<Result<(), Halt>, AskError> {
    let token_before = FencingToken(row.claimed.token().0 - 1);
    if let Err(halt) = check_not_behind(partition.witness(), token_before, row.cursor, row.accepted_offset) {
        return Ok(Err(halt));
    }
    if row.claims_without_progress >= CLAIMS_WITHOUT_PROGRESS_MAX {
        return Ok(Err(crash_loop(row.claims_without_progress, row.cursor.next_offset)));
    }
    let functions = &partition.topic.handlers.in_database.functions;
    let absent = partition.worker.store.absent_functions(functions).await?;
    if !absent.is_empty() {
        return Ok(Err(functions_changed(&absent)));
    }
    let (last, next_offset) = (row.last, row.cursor.next_offset);
    let unsettled = next_offset.max(row.accepted_offset)..before.end.high;
    let facts = partition.ask(move |inspector, source| facts(inspector, source, before, last, next_offset)).await?;
    if let Err(halt) = verify(row, &facts) {
        return Ok(Err(halt));
    }
    let forgotten = testimony::forgotten(partition, unsettled, outcomes).await?;
    Ok(match forgotten {
        Some(outcome) => Err(behind_outcomes(row, &partition.topic.publish_to.outcomes.0, outcome)),
        None => Ok(()),
    })
}

fn behind_outcomes(row: &Row, topic: &str, Testimony { command_id, offset }: Testimony) -> Halt {
    let next = row.cursor.next_offset;
    let detail = format!(
        "{topic} holds the outcome of offset {offset} (command {command_id}), the database does not, and its cursor is \
         {next}: the database went back in time (restored, or failed over to a replica that had lost commits); \
         outcomes of records {next} to {offset} are published and forgotten. Make sure that it is the database you want; \
         solewriter replay run says whether they end as they were published. Then they run again, where the log still has \
         them, and outcomes that differ may follow the published ones"
    );
    Halt { code: HaltCode::DatabaseBehind, detail, witnessed: Some((row.claimed.token().0, offset + 1)) }
}

/// Nobody runs what he does not know.
fn functions_changed(absent: &[String]) -> Halt {
    let detail = format!(
        "functions of commands in SQL are gone, or somebody has changed them ({}), and nobody runs what he does not know; first \
         type: solewriter migrate",
        absent.join(", ")
    );
    Halt::new(HaltCode::HandlerFailed, detail)
}

fn facts(
    inspector: &Inspector,
    source: &TopicPartition,
    before: LogBefore,
    last: Option<LastSettled>,
    next_offset: i64,
) -> Result<LogFacts, InspectError> {
    let mut end = before.end;
    if next_offset > end.high {
        // a leader that was just elected may not know its high watermark yet
        end = inspector.log_end(source)?;
    }
    let readable = last.filter(|last| last.offset >= end.low && last.offset < end.high);
    let last = match readable.map(|last| (last.offset, inspector.record_at(source, last.offset))) {
        None => None,
        Some((_, Ok(RecordAt::Found(record)))) => Some(Some(settled(&record))),
        // retention may have removed it since the log's end was read
        Some((offset, Ok(RecordAt::Missing))) if inspector.log_end(source)?.low > offset => None,
        Some((_, Ok(RecordAt::Missing))) => Some(None),
        Some((_, Err(error))) => return Err(error),
    };
    Ok(LogFacts {
        topic_id: before.topic_id,
        partition_count: before.partition_count,
        end,
        committed: before.committed,
        last,
        compaction: before.compaction,
    })
}

fn settled(record: &Record) -> LastSettled {
    LastSettled { offset: record.offset, timestamp_ms: record.timestamp_ms, checksum: record.checksum() }
}

/// Records a halt and says it. Returns the claim as the row has it now; `None`:
/// it is stale.
pub(super) async fn record_halt(
    partition: &Partition,
    claimed: &Claimed,
    halt: &Halt,
) -> postgres::Result<Option<Claimed>> {
    let recorded = partition.worker.store.halt(claimed, halt).await?;
    if recorded.is_some() {
        say_halted(partition, halt);
    }
    Ok(recorded)
}

fn say_halted(partition: &Partition, halt: &Halt) {
    partition.gauges.halted(Some(halt.code.as_str()));
    let resolve = halt.code.resolve(&partition.source);
    tracing::error!(source = %partition.source, code = %halt.code, detail = halt.detail, resolve, "halted");
}
