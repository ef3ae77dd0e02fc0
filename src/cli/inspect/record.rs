//! `inspect record`: what stands at an offset, and what became of it.

mod became;

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use self::became::{Became, Facts};
use super::command::settled;
use super::letter::{self, Letter};
use super::{Place, SCAN_TIMEOUT};
use crate::cli::backend;
use crate::cli::exit::Problem;
use crate::cli::output;
use crate::config::Config;
use crate::dead_letter::text_or_base64;
use crate::horizon::Horizon;
use crate::kafka::{InspectError, Inspector, LogEnd, RecordAt};
use crate::outcome::{Delivery, FinalOutcome, rfc3339};
use crate::postgres::{BatchRow, Store};
use crate::record::Record;
use crate::steps::receive;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct RecordReport {
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(flatten)]
    became: Became,
    /// The cursor; nothing where no worker has claimed the partition yet.
    next_offset: Option<i64>,
    command_id: Option<Uuid>,
    /// The command's final one, as it was published.
    outcome: Option<Box<RawValue>>,
    dead_letters: Vec<Letter>,
    batch: Option<Batch>,
    record: Option<Shown>,
    #[serde(skip)]
    parts: Option<Arc<FinalOutcome>>,
}

/// The batch that settled it.
#[derive(Clone, Debug, Serialize)]
struct Batch {
    batch_seq: i64,
    first_offset: i64,
    next_offset: i64,
    fencing_token: i64,
    settled_at: String,
}

/// The record as the log has it.
#[derive(Clone, Debug, Serialize)]
struct Shown {
    key: Option<Value>,
    value: Option<Value>,
    headers: Vec<(String, Option<Value>)>,
    time: String,
}

pub(super) async fn inspect(config: &Config, place: &Place) -> anyhow::Result<RecordReport> {
    let store = backend::fitting_store(config).await?;
    let horizon = Horizon(store.horizon().await?.at_ms);
    // the log first: what is settled in between is then found in the tables
    let (log, record) = look(&backend::inspector(config)?, place).await?;
    let Place { source, offset } = place;
    let row =
        store.status().await?.into_iter().find(|row| row.topic == *source.topic && row.partition == source.partition);
    let next_offset = row.map(|row| row.next_offset);
    let letters = store.dead_letters_at(source, *offset).await?;
    let batch = match next_offset {
        Some(next_offset) if *offset < next_offset => store.batch_of(source, *offset, SCAN_TIMEOUT).await?,
        _ => None,
    };
    let payload_bytes_max = config.worker.payload_bytes_max.get();
    let command_id = match &record {
        Some(record) => receive::command_id(record, payload_bytes_max),
        None => letters.first().and_then(|letter| letter.command_id),
    };
    let outcome = outcome(&store, place, command_id, batch.as_ref()).await?;
    let dead_code = letters.last().map(|letter| letter.code.clone());
    let facts = Facts {
        place,
        log,
        next_offset,
        recorded: record.is_some(),
        forgettable: command_id.is_some_and(|id| horizon.is_below(&id)),
        dead_code,
        outcome: outcome.as_deref(),
    };
    Ok(RecordReport {
        topic: source.topic.to_string(),
        partition: source.partition,
        offset: *offset,
        became: facts.became(),
        next_offset,
        command_id: outcome.as_ref().map(|outcome| outcome.delivery.command_id).or(command_id),
        outcome: outcome.as_ref().map(|outcome| to_raw_value(&outcome.body())).transpose()?,
        dead_letters: letters.into_iter().map(Letter::from).collect(),
        batch: batch.map(Batch::from),
        record: record.as_deref().map(Shown::of),
        parts: outcome,
    })
}

/// By the id that the record carries; where the log no longer holds it, by the batch that settled it.
async fn outcome(
    store: &Store,
    place: &Place,
    command_id: Option<Uuid>,
    batch: Option<&BatchRow>,
) -> anyhow::Result<Option<Arc<FinalOutcome>>> {
    if let Some(id) = command_id {
        return Ok(store.outcomes_of(&[id]).await?.remove(&id));
    }
    let ids = batch.map(|batch| &*batch.command_ids).unwrap_or_default();
    let is_here = |delivery: &Delivery| delivery.source == place.source && delivery.offset == place.offset;
    Ok(store.outcomes_of(ids).await?.into_values().find(|outcome| is_here(&outcome.delivery)))
}

/// The log's ends, and the record if it is still there.
async fn look(inspector: &Arc<Inspector>, place: &Place) -> anyhow::Result<(LogEnd, Option<Box<Record>>)> {
    let (inspector, asked) = (inspector.clone(), place.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let Place { source, offset } = asked;
        if inspector.partition_count(&source.topic)? <= source.partition {
            return Err(InspectError::NoTopic);
        }
        let log = inspector.log_end(&source)?;
        let record = match (log.low..log.high).contains(&offset).then(|| inspector.record_at(&source, offset)) {
            Some(Ok(RecordAt::Found(record))) => Some(record),
            Some(Ok(RecordAt::Missing)) | None => None,
            Some(Err(error)) => return Err(error),
        };
        Ok((log, record))
    });
    looked.await?.map_err(|error| match error {
        InspectError::NoTopic => Problem::usage(format!("{} does not exist on this cluster", place.source)).into(),
        error => Problem::unreachable(format!("{}: {error}", place.source)).into(),
    })
}

impl From<BatchRow> for Batch {
    fn from(row: BatchRow) -> Self {
        Self {
            batch_seq: row.batch_seq,
            first_offset: row.first_offset,
            next_offset: row.next_offset,
            fencing_token: row.fencing_token,
            settled_at: rfc3339(row.settled_at_ms),
        }
    }
}

impl Shown {
    fn of(record: &Record) -> Self {
        let header = |(name, value): (&[u8], Option<&[u8]>)| {
            (String::from_utf8_lossy(name).into_owned(), value.map(text_or_base64))
        };
        Self {
            key: record.key().map(text_or_base64),
            value: record.value().map(text_or_base64),
            headers: record.headers().map(header).collect(),
            time: rfc3339(record.time_ms()),
        }
    }
}

/// A value for people: text as it is, anything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), crate::outcome::escaped_detail)
}

impl RecordReport {
    pub(super) fn text(&self) -> String {
        let batch = self.batch.as_ref().map(|batch| {
            let Batch { batch_seq, first_offset, next_offset, fencing_token, settled_at } = batch;
            format!("{batch_seq}, offsets {first_offset} to {}, token {fencing_token}, {settled_at}", next_offset - 1)
        });
        let record = self.record.as_ref();
        let part = |value: Option<&Option<Value>>| {
            value.map(|value| value.as_ref().map_or_else(|| "(none)".to_owned(), text).into())
        };
        let head = output::facts([
            ("record", Some(format!("{}:{}:{}", self.topic, self.partition, self.offset).into())),
            ("state", Some(output::toned(self.became.state.as_str(), self.became.state.tone()))),
            ("meaning", Some((&self.became.detail).into())),
            ("cursor", self.next_offset.map(Into::into)),
            ("batch", batch.map(Into::into)),
            ("key", part(record.map(|record| &record.key))),
            ("value", part(record.map(|record| &record.value))),
            ("time", record.map(|record| (&record.time).into())),
        ]);
        let outcome = self.parts.as_deref().map(|outcome| format!("\n{}", settled(outcome)));
        head + &self.headers() + &outcome.unwrap_or_default() + &letter::table(&self.dead_letters)
    }

    fn headers(&self) -> String {
        let headers = self.record.as_ref().map(|record| record.headers.as_slice()).unwrap_or_default();
        if headers.is_empty() {
            return String::new();
        }
        let mut table = output::table(&["HEADER", "VALUE"]);
        for (name, value) in headers {
            let value = value.as_ref().map_or_else(|| "(none)".to_owned(), text);
            table.add_row([crate::outcome::escaped_detail(name), value]);
        }
        format!("\n{}", output::drawn(&table))
    }
}
