//! What the outcomes topic and the events topic say of the deliveries of one partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::kafka::{Client, InspectError, Inspector, LogReader, ReadError, blocking};
use crate::postgres::{EmittedEvent, PublishedRow, Store};
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
    /// Where its events are.
    pub events_topic: &'l str,
}

/// What was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The offset behind the highest that is spoken of.
    pub end: Option<i64>,
    /// What could not be heard of outcomes, and why.
    pub unheard: Option<String>,
    /// The same of events.
    pub unheard_events: Option<String>,
}

impl Listening<'_> {
    /// Keeps all that was published of the partition's deliveries from its cursor on in the shadow; of older ones,
    /// what was published since too, and all events that were published in that time.
    pub async fn listen(&self) -> Result<Heard, ReplayError> {
        let asked = (self.inspector.clone(), self.source.clone(), self.outcomes_topic.to_owned(), self.from);
        let stretch = blocking(move || {
            let (inspector, source, topic, from) = asked;
            Stretch::of_outcomes(&inspector, &source, &topic, from)
        });
        let begins = match stretch.await {
            Err(InspectError::NoTopic) => {
                // without an outcome there is nothing that events could be set against
                return Ok(Heard { unheard: Some(self.no_topic(self.outcomes_topic)), ..Heard::default() });
            }
            stretch => stretch.map_err(|error| ReplayError::Inspect(self.outcomes_topic.to_owned(), error))?,
        };
        let begins = self.look_before(begins).await?;
        let unheard_events = self.listen_to_events(&begins).await?;
        let mut reading = self.read(&begins).await?;
        let mut heard = Heard { unheard_events, unheard: self.is_cut_off(&begins), end: None };
        while let Some(chunk) = reading.next().await? {
            let rows = self.rows(&chunk);
            heard.end = heard.end.max(rows.last().map(|row| row.log_offset + 1).filter(|end| *end > self.from));
            if !rows.is_empty() {
                self.shadow.keep_published(self.source, &rows).await.map_err(ReplayError::Shadow)?;
            }
        }
        Ok(heard)
    }

    /// Keeps the partition's events from the time of the first outcome on; what could not be heard, and why.
    async fn listen_to_events(&self, outcomes: &Stretch) -> Result<Option<String>, ReplayError> {
        let asked = (self.inspector.clone(), self.source.clone(), self.events_topic.to_owned(), outcomes.clone());
        let stretch = blocking(move || {
            let (inspector, source, topic, outcomes) = asked;
            let time_ms = inspector.first_time_from(&outcomes.published, outcomes.from)?;
            Stretch::of(&inspector, &source, &topic, time_ms)
        });
        let stretch = match stretch.await {
            Err(InspectError::NoTopic) => return Ok(Some(self.no_topic(self.events_topic))),
            stretch => stretch.map_err(|error| ReplayError::Inspect(self.events_topic.to_owned(), error))?,
        };
        let mut reading = self.read(&stretch).await?;
        while let Some(chunk) = reading.next().await? {
            let events = events_of(self.source, &chunk);
            if !events.is_empty() {
                self.shadow.keep_published_events(self.source, &events).await.map_err(ReplayError::Shadow)?;
            }
        }
        Ok(self.is_cut_off(&stretch))
    }

    fn no_topic(&self, topic: &str) -> String {
        format!("{}: topic {topic} does not exist", self.source)
    }

    fn is_cut_off(&self, stretch: &Stretch) -> Option<String> {
        let Stretch { published, low, from, .. } = stretch;
        let begins = format!("{published} begins at offset {low}: what was published before is no longer in it");
        (*low > 0 && from == low).then(|| format!("{}: {begins}", self.source))
    }

    /// Clocks may be wrong by more: goes back until nothing is spoken of any more.
    async fn look_before(&self, mut begins: Stretch) -> Result<Stretch, ReplayError> {
        let mut records = LOOK_BEFORE;
        while begins.from > begins.low {
            let before = (begins.from - records).max(begins.low);
            let mut chunks = self.open(&begins.published, before, begins.from).await?.chunks(CHUNK_RECORDS_MAX);
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

    async fn read(&self, stretch: &Stretch) -> Result<Reading<'_>, ReplayError> {
        let Stretch { published, from, end, .. } = stretch;
        let chunks = self.open(published, *from, *end).await?.chunks(CHUNK_RECORDS_MAX);
        self.progress.expect(u64::try_from(end - from).unwrap_or(0));
        Ok(Reading { chunks, read_to: *from, end: *end, progress: self.progress })
    }

    async fn open(&self, published: &TopicPartition, from: i64, end: i64) -> Result<LogReader, ReplayError> {
        let (client, published) = (self.client.clone(), published.clone());
        Ok(blocking(move || LogReader::open(&client, &published, from, end, READ_TIMEOUT)).await?)
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

/// A stretch, chunk by chunk.
struct Reading<'l> {
    chunks: mpsc::Receiver<Result<Vec<Record>, ReadError>>,
    read_to: i64,
    end: i64,
    progress: &'l Progress,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Option<Vec<Record>>, ReplayError> {
        let chunk = self.chunks.recv().await.transpose()?;
        let behind = match &chunk {
            Some(chunk) => chunk.last().map_or(self.read_to, |last| last.offset + 1),
            None => self.end,
        };
        self.progress.add(u64::try_from(behind - self.read_to).unwrap_or(0));
        self.read_to = behind;
        Ok(chunk)
    }
}

/// The events among these records that a partition's commands have emitted, the newest copy of each.
fn events_of(source: &TopicPartition, records: &[Record]) -> Vec<EmittedEvent> {
    let of_it = crate::outcome::source_of(source);
    let event = |record: &Record| {
        let text = |name: &str| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let id = |name: &str| text(name).and_then(|value| Uuid::parse_str(value).ok());
        let is_of_it = text("ce_source").is_some_and(|source| source == of_it);
        Some(EmittedEvent {
            command_id: id("ce_causationid").filter(|_| is_of_it)?,
            event_id: id("ce_id")?,
            // nobody has emitted what Postgres cannot keep
            event_type: text("ce_type").filter(|name| !name.contains('\0'))?.to_owned(),
            data: record.value()?.to_vec(),
        })
    };
    let events = records.iter().filter_map(event).map(|event| ((event.command_id, event.event_id), event));
    events.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Where outcomes or events are, and what of them is to be read.
#[derive(Clone)]
struct Stretch {
    published: TopicPartition,
    low: i64,
    from: i64,
    end: i64,
}

impl Stretch {
    /// What was published of a partition from a time on, milliseconds since 1970; without one, all.
    fn of(
        inspector: &Inspector,
        source: &TopicPartition,
        topic: &str,
        time_ms: Option<i64>,
    ) -> Result<Self, InspectError> {
        let count = inspector.partition_count(topic)?;
        let published = TopicPartition::new(topic, source.partition % count.max(1));
        let end = inspector.stable_end(&published)?;
        let low = inspector.log_end(&published)?.low;
        let from = match time_ms {
            Some(time_ms) => inspector.offset_at(&published, time_ms.saturating_sub(CLOCKS_APART_MS).max(0))?,
            None => low,
        };
        Ok(Self { published, low, from: from.clamp(low, end.max(low)), end: end.max(low) })
    }

    fn of_outcomes(
        inspector: &Inspector,
        source: &TopicPartition,
        topic: &str,
        cursor: i64,
    ) -> Result<Self, InspectError> {
        // that of the last record that is settled: it is older than the backup, as is all that the database knows; an
        // operator may have redriven a letter long before the next record came. Without a record there, only the
        // outcomes tell what was
        let time_ms = inspector.first_time_from(source, cursor.saturating_sub(1).max(0))?;
        Self::of(inspector, source, topic, time_ms)
    }
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
