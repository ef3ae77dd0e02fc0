//! What the outcomes topic says of the deliveries of one partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::kafka::{Client, InspectError, Inspector, LogReader, blocking};
use crate::postgres::{PublishedRow, Store};
use crate::record::{Record, TopicPartition};
use crate::replay::ReplayError;
use crate::replay::partition::CHUNK_RECORDS_MAX;
use crate::replay::progress::Progress;
use crate::replay::verify::Ended;

/// How long the broker may be silent.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// An outcome is newer than its record, but two clocks have told the times: milliseconds.
const CLOCKS_APART_MS: i64 = 3_600_000;
/// So many records before the place where the clocks say that it begins must speak of nothing that is looked for.
const LOOK_BEFORE: i64 = 10_000;

/// An outcome as it is published: what of it tells how a command ended.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Body {
    pub command_id: Uuid,
    pub command_type: Option<String>,
    pub entity_id: Option<String>,
    pub outcome: String,
    pub code: Option<String>,
    pub version: Option<i64>,
    pub reply: Option<Box<RawValue>>,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

impl Body {
    /// What is no outcome says nothing.
    pub fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    fn is_of(&self, source: &TopicPartition) -> bool {
        *self.topic == *source.topic && self.partition == source.partition
    }

    pub fn is_dead(&self) -> bool {
        self.outcome == "dead"
    }

    /// Whether the command ended in the same way: outcome, code, version and reply, the last byte for byte.
    pub fn is_like(&self, other: &Self) -> bool {
        fn reply(body: &Body) -> Option<&str> {
            body.reply.as_deref().map(RawValue::get)
        }
        self.command_id == other.command_id
            && self.outcome == other.outcome
            && self.code == other.code
            && self.version == other.version
            && reply(self) == reply(other)
    }

    /// As a report shows it.
    pub fn ended(&self) -> Ended {
        let outcome = match &*self.outcome {
            "applied" => "applied",
            "rejected" => "rejected",
            _ => "dead",
        };
        let reply = self.reply.as_ref().and_then(|reply| serde_json::from_str(reply.get()).ok());
        Ended { outcome, code: self.code.clone(), version: self.version, reply, events: Vec::new() }
    }
}

/// Where and what to listen to.
pub(super) struct Listening<'l> {
    pub client: &'l Client,
    pub inspector: &'l Arc<Inspector>,
    pub shadow: &'l Store,
    pub progress: &'l Progress,
    /// The partition that is spoken of.
    pub source: &'l TopicPartition,
    /// Its cursor.
    pub from: i64,
    /// Where its outcomes are.
    pub outcomes_topic: &'l str,
}

/// What was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The offset behind the highest that is spoken of.
    pub end: Option<i64>,
    /// What could not be heard, and why.
    pub unheard: Option<String>,
}

impl Listening<'_> {
    /// Keeps all that was published of the partition's deliveries from its cursor on in the shadow; of older ones,
    /// what was published since too.
    pub async fn listen(&self) -> Result<Heard, ReplayError> {
        let asked = (self.inspector.clone(), self.source.clone(), self.outcomes_topic.to_owned(), self.from);
        let stretch = blocking(move || {
            let (inspector, source, topic, from) = asked;
            stretch(&inspector, &source, &topic, from)
        });
        let begins = match stretch.await {
            Err(InspectError::NoTopic) => {
                let unheard = format!("{}: topic {} does not exist", self.source, self.outcomes_topic);
                return Ok(Heard { end: None, unheard: Some(unheard) });
            }
            stretch => stretch.map_err(|error| ReplayError::Inspect(self.outcomes_topic.to_owned(), error))?,
        };
        let begins = self.look_before(begins).await?;
        let Stretch { outcomes, low, from, end } = begins;
        self.progress.expect(u64::try_from(end - from).unwrap_or(0));
        let mut chunks = self.open(&outcomes, from, end).await?.chunks(CHUNK_RECORDS_MAX);
        let (mut heard, mut read_to) = (Heard::default(), from);
        while let Some(chunk) = chunks.recv().await.transpose()? {
            let behind = chunk.last().map_or(read_to, |last| last.offset + 1);
            let rows = self.rows(&chunk);
            heard.end = heard.end.max(rows.last().map(|row| row.log_offset + 1).filter(|end| *end > self.from));
            if !rows.is_empty() {
                self.shadow.keep_published(self.source, &rows).await.map_err(ReplayError::Shadow)?;
            }
            self.progress.add(u64::try_from(behind - read_to).unwrap_or(0));
            read_to = behind;
        }
        self.progress.add(u64::try_from(end - read_to).unwrap_or(0));
        if low > 0 && from == low {
            heard.unheard = Some(format!(
                "{}: {outcomes} begins at offset {low}: what was published before is no longer in it",
                self.source
            ));
        }
        Ok(heard)
    }

    /// Clocks may be wrong by more: goes back until nothing is spoken of any more.
    async fn look_before(&self, mut begins: Stretch) -> Result<Stretch, ReplayError> {
        let mut records = LOOK_BEFORE;
        while begins.from > begins.low {
            let before = (begins.from - records).max(begins.low);
            let mut chunks = self.open(&begins.outcomes, before, begins.from).await?.chunks(CHUNK_RECORDS_MAX);
            let mut is_spoken_of = false;
            while let Some(chunk) = chunks.recv().await.transpose()? {
                is_spoken_of |= self.rows(&chunk).last().is_some_and(|row| row.log_offset >= self.from);
            }
            if !is_spoken_of {
                break;
            }
            begins.from = before;
            records *= 2;
        }
        Ok(begins)
    }

    async fn open(&self, outcomes: &TopicPartition, from: i64, end: i64) -> Result<LogReader, ReplayError> {
        let (client, outcomes) = (self.client.clone(), outcomes.clone());
        Ok(blocking(move || LogReader::open(&client, &outcomes, from, end, READ_TIMEOUT)).await?)
    }

    /// What these records say, each offset once, in order.
    fn rows(&self, records: &[Record]) -> Vec<PublishedRow> {
        let mut rows: BTreeMap<i64, PublishedRow> = BTreeMap::new();
        for value in records.iter().filter_map(Record::value) {
            let Some(body) = Body::read(value).filter(|body| body.is_of(self.source)) else { continue };
            let row = rows.entry(body.offset).or_insert_with(|| PublishedRow {
                log_offset: body.offset,
                command_id: body.command_id,
                ..PublishedRow::default()
            });
            row.command_id = body.command_id;
            if !body.is_dead() {
                row.ended = Some(value.to_vec());
                continue;
            }
            row.dead = Some(value.to_vec());
            let code = body.code.unwrap_or_default();
            if !row.dead_codes.split(',').any(|known| known == code) {
                let comma = if row.dead_codes.is_empty() { "" } else { "," };
                row.dead_codes = format!("{}{comma}{code}", row.dead_codes);
            }
        }
        rows.into_values().collect()
    }
}

/// Where the outcomes are, and what of them is to be read.
struct Stretch {
    outcomes: TopicPartition,
    low: i64,
    from: i64,
    end: i64,
}

fn stretch(inspector: &Inspector, source: &TopicPartition, topic: &str, cursor: i64) -> Result<Stretch, InspectError> {
    let count = inspector.partition_count(topic)?;
    let outcomes = TopicPartition::new(topic, source.partition % count.max(1));
    let end = inspector.stable_end(&outcomes)?;
    let low = inspector.log_end(&outcomes)?.low;
    // that of the last record that is settled: it is older than the backup, as is all that the database knows; an
    // operator may have redriven a letter long before the next record came
    let from = match inspector.first_time_from(source, cursor.saturating_sub(1).max(0))? {
        Some(time_ms) => inspector.offset_at(&outcomes, time_ms.saturating_sub(CLOCKS_APART_MS).max(0))?,
        // without a record there, only the outcomes tell what was
        None => low,
    };
    Ok(Stretch { outcomes, low, from: from.clamp(low, end.max(low)), end: end.max(low) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(fields: &str) -> Body {
        let value = format!(
            r#"{{"command_id":"01990000-0000-7000-8000-000000000001","command_type":"t","entity_type":"e","entity_id":"a",
                "topic":"t","partition":3,"offset":7,{fields}}}"#
        );
        Body::read(value.as_bytes()).expect("an outcome")
    }

    #[test]
    fn outcomes_are_alike_if_what_a_reader_acts_on_is() {
        let applied = |version: i64, reply: &str| {
            body(&format!(r#""outcome":"applied","code":null,"detail":null,"version":{version},"reply":{reply}"#))
        };
        assert!(applied(2, "{\"a\":1.0}").is_like(&applied(2, "{\"a\":1.0}")));
        assert!(!applied(2, "{\"a\":1.0}").is_like(&applied(2, "{\"a\":1}")), "other bytes are published");
        assert!(!applied(2, "null").is_like(&applied(3, "null")));
        let rejected = |code: &str, detail: &str| {
            body(&format!(r#""outcome":"rejected","code":"{code}","detail":"{detail}","version":2,"reply":null"#))
        };
        assert!(rejected("no", "it says").is_like(&rejected("no", "it said")), "a detail is for people");
        assert!(!rejected("no", "").is_like(&rejected("never", "")));
        assert!(!rejected("no", "").is_like(&applied(2, "null")));
        assert!(Body::read(b"{}").is_none() && Body::read(b"no JSON").is_none());
    }
}
