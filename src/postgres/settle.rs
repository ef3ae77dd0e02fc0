//! The commit: one call of `settle_batch_v1`, in autocommit.

use sqlx::postgres::{PgArguments, PgDatabaseError};
use sqlx::types::Json;
use sqlx::{Execute, FromRow};
use uuid::Uuid;

use super::{Error, Refusal, Result, Store};
use crate::cursor::{Cursor, Published};
use crate::fencing_token::FencingToken;
use crate::outcome::{Delivery, ENCODING, Ending, FinalOutcome};
use crate::steps::commit::{Answer, Held, Settlement};
use crate::steps::decide::{Decision, Owed, Settles};
use crate::steps::fence::Claimed;

/// What rides along with a settlement, or is recorded while there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How far outcomes and events are on their topics.
    pub published: Published,
    /// The newest log time proved, milliseconds since 1970.
    pub log_time_ms: Option<i64>,
}

/// The database's answer, and its clock in milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct Settling {
    /// What became of the settlement.
    pub answer: Answer,
    /// The database's clock when the call began.
    pub database_time_ms: i64,
}

#[derive(FromRow)]
struct AnswerRow {
    status: String,
    fencing_token: Option<i64>,
    next_offset: Option<i64>,
    batch_seq: Option<i64>,
    decision_id: Option<Uuid>,
    dead_letter_ids: Option<Vec<i64>>,
    database_time_ms: i64,
    r_applied: Option<Vec<bool>>,
    r_version: Option<Vec<i64>>,
    r_code: Option<Vec<Option<String>>>,
    r_detail: Option<Vec<Option<String>>>,
    r_reply: Option<Vec<Option<Vec<u8>>>>,
    r_events: Option<Vec<Option<Vec<u8>>>>,
}

impl AnswerRow {
    /// How the commands ended that the database decided. `None`: not as they should.
    fn take_ended(&mut self) -> Option<Vec<(i64, Ending)>> {
        let columns = self.r_applied.take()?.into_iter().zip(self.r_version.take()?).zip(self.r_code.take()?);
        let columns = columns.zip(self.r_detail.take()?).zip(self.r_reply.take()?).zip(self.r_events.take()?);
        columns
            .map(|(((((applied, version), code), detail), reply), events)| {
                let ending = Ending::stored(applied, code, detail, reply.as_deref(), events.as_deref());
                Some((version, ending.ok()?))
            })
            .collect()
    }

    fn into_answer(mut self) -> Answer {
        let held = Held {
            token: FencingToken(self.fencing_token.unwrap_or(0)),
            cursor: Cursor {
                next_offset: self.next_offset.unwrap_or(0),
                batch_seq: self.batch_seq.unwrap_or(0),
                decision_id: self.decision_id,
            },
        };
        match self.status.as_str() {
            "committed" => Answer::Committed {
                ended: self.take_ended().unwrap_or_default(),
                dead_letter_ids: self.dead_letter_ids.unwrap_or_default(),
            },
            "halted" => Answer::Halted,
            "superseded" => Answer::Superseded(held),
            "behind" => Answer::Behind(held),
            _ => Answer::Fenced(held),
        }
    }
}

/// The final outcomes of a batch, a column each, sorted by command id: inserted
/// in index order, and in one order by all, so that no two batches deadlock.
/// Those that the database decides are as they run. (Ids made by time are nearly
/// sorted then, and two batches meet only in ids that came on two partitions.)
#[derive(Default)]
struct Commands<'a> {
    id: Vec<Uuid>,
    fingerprint: Vec<Uuid>,
    type_id: Vec<i16>,
    entity_id: Vec<&'a str>,
    offset: Vec<i64>,
    record_time_ms: Vec<i64>,
    applied: Vec<bool>,
    version: Vec<i64>,
    code: Vec<Option<&'a str>>,
    detail: Vec<Option<&'a str>>,
    reply: Vec<Option<&'a [u8]>>,
    events: Vec<Option<Vec<u8>>>,
    traceparent: Vec<Option<&'a str>>,
}

impl<'a> Commands<'a> {
    fn of(decision: &'a Decision, type_id: impl Fn(&str) -> i16) -> Self {
        let mut outcomes: Vec<&FinalOutcome> = decision.outcomes.iter().map(|outcome| &**outcome).collect();
        outcomes.sort_unstable_by_key(|outcome| outcome.delivery.command_id);
        let mut columns = Self::with_capacity(outcomes.len() + decision.called.len());
        for outcome in outcomes {
            columns.push(&outcome.delivery, &type_id);
            columns.push_ended(outcome);
        }
        for called in &decision.called {
            columns.push(&called.delivery, &type_id);
        }
        columns
    }

    fn with_capacity(commands: usize) -> Self {
        Self {
            id: Vec::with_capacity(commands),
            fingerprint: Vec::with_capacity(commands),
            type_id: Vec::with_capacity(commands),
            entity_id: Vec::with_capacity(commands),
            offset: Vec::with_capacity(commands),
            record_time_ms: Vec::with_capacity(commands),
            applied: Vec::with_capacity(commands),
            version: Vec::with_capacity(commands),
            code: Vec::with_capacity(commands),
            detail: Vec::with_capacity(commands),
            reply: Vec::with_capacity(commands),
            events: Vec::with_capacity(commands),
            traceparent: Vec::with_capacity(commands),
        }
    }

    fn push(&mut self, delivery: &'a Delivery, type_id: impl Fn(&str) -> i16) {
        self.id.push(delivery.command_id);
        self.fingerprint.push(Uuid::from_bytes(delivery.fingerprint.0));
        self.type_id.push(type_id(&delivery.command_type));
        self.entity_id.push(&delivery.entity_id);
        self.offset.push(delivery.offset);
        self.record_time_ms.push(delivery.record_time_ms);
        self.traceparent.push(delivery.traceparent.as_deref());
    }

    fn push_ended(&mut self, outcome: &'a FinalOutcome) {
        self.version.push(outcome.version);
        match &outcome.ending {
            Ending::Applied { reply, events } => {
                self.applied.push(true);
                self.code.push(None);
                self.detail.push(None);
                self.reply.push(Some(reply.get().as_bytes()));
                self.events.push((!events.is_empty()).then(|| crate::outcome::json(events)));
            }
            Ending::Rejected { code, detail } => {
                self.applied.push(false);
                self.code.push(Some(code));
                self.detail.push(detail.as_deref());
                self.reply.push(None);
                self.events.push(None);
            }
        }
    }
}

/// What runs in the database, a column each, in order. Of commands that it decides
/// the rest stands in [`Commands`].
#[derive(Default)]
struct Calls<'a> {
    function: Vec<i16>,
    arguments: Vec<&'a str>,
    offset: Vec<i64>,
    entity_id: Vec<&'a str>,
    command_id: Vec<Uuid>,
    record_time_ms: Vec<i64>,
}

impl<'a> Calls<'a> {
    fn of(decision: &'a Decision) -> Self {
        let mut columns = Self::default();
        for called in &decision.called {
            columns.function.push(called.function);
            columns.arguments.push(&called.arguments);
        }
        for own in &decision.writes {
            columns.function.push(own.write.function);
            columns.arguments.push(&own.write.arguments);
            columns.offset.push(own.offset);
            columns.entity_id.push(&own.entity_id);
            columns.command_id.push(own.command_id);
            columns.record_time_ms.push(own.record_time_ms);
        }
        columns
    }
}

/// What owes a publication, as the batch's row keeps it.
#[derive(Default)]
struct OwedColumns {
    command_ids: Vec<Uuid>,
    repeats: Vec<i32>,
    dead_after: Vec<i32>,
}

impl OwedColumns {
    fn of(decision: &Decision) -> Self {
        let mut columns = Self::default();
        for owed in &decision.owed {
            match owed {
                Owed::Outcome(outcome) => columns.command_ids.push(outcome.delivery.command_id),
                Owed::Repeat(outcome) => {
                    columns.command_ids.push(outcome.delivery.command_id);
                    columns.repeats.push(columns.command_ids.len() as i32);
                }
                Owed::Called(n) => columns.command_ids.push(decision.called[*n].delivery.command_id),
                Owed::CalledRepeat(n) => {
                    columns.command_ids.push(decision.called[*n].delivery.command_id);
                    columns.repeats.push(columns.command_ids.len() as i32);
                }
                Owed::Dead(_) => columns.dead_after.push(columns.command_ids.len() as i32),
            }
        }
        columns
    }
}

const SETTLE: &str = "select * from settle_batch_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
     $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, \
     $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52, $53, $54, $55, $56, $57, $58, $59, \
     $60, $61)";

/// The call's arguments, encoded as they are sent.
///
/// # Errors
/// If a value cannot be encoded.
pub(crate) fn arguments(
    settlement: &Settlement,
    progress: Progress,
    type_id: impl Fn(&str) -> i16,
) -> sqlx::Result<PgArguments> {
    let Settlement { claimed, cursor, decision, running, .. } = settlement;
    let calls = Calls::of(decision);
    let commands = Commands::of(decision, type_id);
    let owed = OwedColumns::of(decision);
    let entities = &decision.entities;
    let (read, changed) = match &decision.settles {
        Settles::Log { first_offset, last } => (Some((*first_offset, *last)), None),
        Settles::Letters(changes) => (None, Some(Json(changes))),
    };
    let last = read.map(|(_, last)| last);
    // letters that are dead again have their row
    let dead = if read.is_some() { decision.dead.as_slice() } else { &[] };
    let mut call = sqlx::query(SETTLE)
        // (a)
        .bind(&*claimed.source().topic)
        .bind(claimed.source().partition)
        .bind(claimed.claim_id().0)
        .bind(claimed.token().0)
        .bind(cursor.next_offset)
        .bind(cursor.batch_seq)
        .bind(cursor.decision_id)
        .bind(settlement.decision_id)
        .bind(settlement.next_cursor().next_offset)
        .bind(read.map_or(cursor.next_offset, |(first_offset, _)| first_offset))
        .bind(last.map(|last| last.offset))
        .bind(last.map(|last| last.timestamp_ms))
        .bind(last.map(|last| i64::from(last.checksum)))
        .bind(progress.published.batch_seq)
        .bind(progress.published.next_offset)
        .bind(progress.log_time_ms)
        // (b)
        .bind(running.runner.as_deref())
        .bind(!decision.called.is_empty())
        .bind(running.careful)
        .bind(running.part_bytes_max)
        .bind(&calls.function)
        .bind(&calls.arguments)
        .bind(&calls.offset)
        .bind(&calls.entity_id)
        .bind(&calls.command_id)
        .bind(&calls.record_time_ms)
        // (c)
        .bind(&*settlement.entity_type)
        .bind(entities.iter().map(|e| &*e.entity_id).collect::<Vec<_>>())
        .bind(entities.iter().map(|e| e.base).collect::<Vec<_>>())
        .bind(entities.iter().map(|e| e.change.as_ref().map(|(version, _)| *version)).collect::<Vec<_>>())
        .bind(entities.iter().map(|e| e.change.as_ref().map(|(_, state)| &**state)).collect::<Vec<_>>())
        // (d)
        .bind(&commands.id)
        .bind(&commands.fingerprint)
        .bind(&commands.type_id)
        .bind(&commands.entity_id)
        .bind(&commands.offset)
        .bind(&commands.record_time_ms)
        .bind(ENCODING)
        .bind(&commands.applied)
        .bind(&commands.version)
        .bind(&commands.code)
        .bind(&commands.detail)
        .bind(&commands.reply)
        .bind(&commands.events)
        .bind(&commands.traceparent)
        // (e)
        .bind(dead.iter().map(|d| d.record.offset).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.record.key()).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.record.value()).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.headers_json()).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.code.as_str()).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| &*d.detail).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.state.as_str()).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.record.time_ms()).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.command_id).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.command_type.as_deref()).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.entity_id()).collect::<Vec<_>>())
        .bind(dead.iter().map(|d| d.traceparent.as_deref()).collect::<Vec<_>>())
        .bind(&owed.command_ids)
        .bind(&owed.repeats)
        .bind(&owed.dead_after)
        .bind(changed);
    Ok(call.take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default())
}

impl Store {
    /// Settles one batch in one round trip: everything or nothing.
    ///
    /// # Errors
    /// A [`super::Refusal`]: nothing was written. [`super::Error::Unavailable`]:
    /// it may or may not have been; send the same settlement again.
    pub async fn settle(
        &self,
        settlement: &Settlement,
        progress: Progress,
        type_id: impl Fn(&str) -> i16,
    ) -> Result<Settling> {
        let pool = if settlement.decision.serializable { &self.serializable } else { &self.pool };
        let settled: sqlx::Result<AnswerRow> = match arguments(settlement, progress, type_id) {
            Ok(arguments) => sqlx::query_as_with(SETTLE, arguments).fetch_one(pool).await,
            Err(error) => Err(error),
        };
        let row = settled.map_err(|error| self.refusal_of_settlement(error))?;
        Ok(Settling { database_time_ms: row.database_time_ms, answer: row.into_answer() })
    }

    /// A team's own table may have the name of one of ours.
    fn refusal_of_settlement(&self, error: sqlx::Error) -> Error {
        let schema = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()?.schema());
        let is_foreign = schema.is_some_and(|schema| *schema != *self.schema);
        match Error::from(error) {
            Error::Refused(Refusal::Duplicate | Refusal::DayMissing) if is_foreign => {
                Refusal::Data("a constraint of another schema's table is violated".into()).into()
            }
            error => error,
        }
    }

    /// Records the publisher's watermark and the log time while there is no batch
    /// to carry them. False: the claim is stale.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn record_progress(&self, claimed: &Claimed, cursor: Cursor, progress: Progress) -> Result<bool> {
        let (current,) = sqlx::query_as("select record_published_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(&*claimed.source().topic)
            .bind(claimed.source().partition)
            .bind(claimed.claim_id().0)
            .bind(claimed.token().0)
            .bind(cursor.batch_seq)
            .bind(cursor.decision_id)
            .bind(progress.published.batch_seq)
            .bind(progress.published.next_offset)
            .bind(progress.log_time_ms)
            .fetch_one(&self.pool)
            .await?;
        Ok(current)
    }
}
