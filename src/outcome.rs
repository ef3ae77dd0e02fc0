//! An outcome: what became of a command, and the record that says so.
//!
//! The parts are stored; one function makes the published bytes of them. It is
//! versioned ([`ENCODING`]), and an old encoding never changes: a repeat in a
//! year is answered byte for byte as today.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::command::Fingerprint;
use crate::record::TopicPartition;

/// The encoding that new outcomes are stored with.
pub const ENCODING: i16 = 1;

/// The longest stored detail, in bytes: 2 KiB.
const DETAIL_BYTES_MAX: usize = 2048;

/// Most outcomes are shorter, in bytes: their buffer need not grow.
const OUTCOME_BYTES_LIKELY: usize = 512;

/// A detail as it may be stored: control characters escaped, at most 2 KiB.
pub fn escaped_detail(detail: &str) -> String {
    let mut escaped = String::with_capacity(detail.len().min(DETAIL_BYTES_MAX));
    for c in detail.chars() {
        let before = escaped.len();
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
        if escaped.len() > DETAIL_BYTES_MAX {
            escaped.truncate(before);
            break;
        }
    }
    escaped
}

/// An event that a handler emitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its CloudEvents type.
    #[serde(rename = "type")]
    pub event_type: Cow<'static, str>,
    /// Its data, as the handler's type encoded it.
    pub data: Box<RawValue>,
}

/// How a command ended, for ever.
#[derive(Clone, Debug)]
pub enum Ending {
    /// The business rule said yes.
    Applied {
        /// The handler's reply.
        reply: Box<RawValue>,
        /// What it emitted, in order.
        events: Vec<Event>,
    },
    /// The business rule said no.
    Rejected {
        /// The rule's code, kebab-case.
        code: Cow<'static, str>,
        /// Why, for a person.
        detail: Option<String>,
    },
}

impl Ending {
    /// An ending as Postgres keeps it, a column each: a reply that is null is JSON's null, and null
    /// events are none.
    ///
    /// # Errors
    /// If reply or events are no JSON.
    pub(crate) fn stored(
        applied: bool,
        code: Option<String>,
        detail: Option<String>,
        reply: Option<&[u8]>,
        events: Option<&[u8]>,
    ) -> serde_json::Result<Self> {
        if !applied {
            return Ok(Self::Rejected { code: code.unwrap_or_default().into(), detail });
        }
        Ok(Self::Applied {
            reply: serde_json::from_slice(reply.unwrap_or(b"null"))?,
            events: serde_json::from_slice(events.unwrap_or(b"[]"))?,
        })
    }
}

/// The delivery of a command that settles it: what is known of an outcome however it ends.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The command's id.
    pub command_id: Uuid,
    /// The command's type.
    pub command_type: Arc<str>,
    /// The entity's type.
    pub entity_type: Arc<str>,
    /// The entity's id.
    pub entity_id: Arc<str>,
    /// Tells a repeat from a reuse of the id.
    pub fingerprint: Fingerprint,
    /// Where the delivery came from.
    pub source: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Its time, milliseconds since 1970.
    pub record_time_ms: i64,
    /// W3C trace context of the delivery.
    pub traceparent: Option<String>,
}

/// A final outcome: one per command id, for ever.
#[derive(Clone, Debug)]
pub struct FinalOutcome {
    /// The delivery that was settled.
    pub delivery: Delivery,
    /// The entity's version: applied, the number of applied commands; rejected,
    /// unchanged.
    pub version: i64,
    /// How it ended.
    pub ending: Ending,
    /// Which encoding makes the published bytes.
    pub encoding: i16,
}

/// A record to publish. Borrows from what was settled: made when it is sent.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    /// Outcomes or events.
    pub channel: Channel,
    /// The source record's partition, which chooses the partition there.
    pub source_partition: i32,
    /// The command's key.
    pub key: Option<&'a [u8]>,
    /// JSON; of a mirrored dead letter what its record had, if anything.
    pub value: Option<Cow<'a, [u8]>>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// What the headers of a publication say.
#[derive(Clone, Debug)]
pub enum Headers<'a> {
    /// Of an outcome or event.
    Envelope(Envelope<'a>),
    /// Of a mirrored dead letter: names and values, in order.
    Listed(Vec<ListedHeader<'a>>),
}

/// A header's name and value.
pub type ListedHeader<'a> = (Cow<'a, str>, Option<Cow<'a, [u8]>>);

/// The kinds of topic that solewriter publishes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// `<command topic>.outcomes`
    Outcomes,
    /// `<command topic>.events`
    Events,
    /// By convention `<command topic>.dlq`
    DeadLetters,
}

/// The value of an outcome record, field by field in the published order.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    pub command_id: Uuid,
    pub command_type: Option<&'a str>,
    pub entity_type: Option<&'a str>,
    pub entity_id: Option<&'a str>,
    pub outcome: &'static str,
    pub code: Option<&'a str>,
    pub detail: Option<&'a str>,
    pub version: Option<i64>,
    pub reply: Option<&'a RawValue>,
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

/// The headers of an outcome or event, as CloudEvents' Kafka binding has them.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// `ce_id`
    pub id: Uuid,
    /// `ce_type`
    pub event_type: &'a str,
    /// `ce_source`
    pub source: &'a TopicPartition,
    /// `ce_subject`
    pub subject: Option<&'a str>,
    /// `ce_time`, milliseconds since 1970
    pub time_ms: i64,
    /// `traceparent`
    pub traceparent: Option<&'a str>,
    /// `ce_causationid`
    pub causation_id: Option<Uuid>,
}

impl Headers<'_> {
    /// Calls `add` with the name and value of each header, in order.
    pub fn each(&self, mut add: impl FnMut(&str, Option<&[u8]>)) {
        match self {
            Self::Envelope(envelope) => envelope.each(|name, value| add(name, Some(value.as_bytes()))),
            Self::Listed(headers) => headers.iter().for_each(|(name, value)| add(name, value.as_deref())),
        }
    }
}

impl Envelope<'_> {
    /// Calls `add` with the name and value of each header, in order.
    pub fn each(&self, mut add: impl FnMut(&'static str, &str)) {
        let mut id = Uuid::encode_buffer();
        let mut text = String::with_capacity(64);
        add("ce_specversion", "1.0");
        add("ce_id", self.id.hyphenated().encode_lower(&mut id));
        add("ce_type", self.event_type);
        write_source(&mut text, self.source);
        add("ce_source", &text);
        if let Some(subject) = self.subject {
            add("ce_subject", subject);
        }
        text.clear();
        write_rfc3339(&mut text, self.time_ms);
        add("ce_time", &text);
        if let Some(causation_id) = self.causation_id {
            add("ce_causationid", causation_id.hyphenated().encode_lower(&mut id));
        }
        add("content-type", "application/json");
        if let Some(traceparent) = self.traceparent {
            add("traceparent", traceparent);
        }
    }
}

/// The value's bytes. Serializing these types to memory cannot fail: strings,
/// numbers and JSON that was valid when it was made.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OUTCOME_BYTES_LIKELY);
    serde_json::to_writer(&mut bytes, value).expect("an outcome is plain JSON");
    bytes
}

/// `ce_id` of the event that a command emits behind `n` others.
pub(crate) fn event_id(command_id: &Uuid, n: usize) -> Uuid {
    Uuid::new_v5(command_id, format!("event:{n}").as_bytes())
}

/// `ce_source` of all that is published of a partition.
pub(crate) fn source_of(source: &TopicPartition) -> String {
    let mut text = String::new();
    write_source(&mut text, source);
    text
}

fn write_source(text: &mut String, source: &TopicPartition) {
    // writing to a String cannot fail
    let _ = write!(text, "/solewriter/{}/{}", source.topic, source.partition);
}

/// A time in milliseconds since 1970, as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time_ms: i64) -> String {
    let mut text = String::with_capacity(24);
    write_rfc3339(&mut text, time_ms);
    text
}

fn write_rfc3339(text: &mut String, time_ms: i64) {
    // writing to a String cannot fail
    let _ = match jiff::Timestamp::from_millisecond(time_ms) {
        Ok(time) => write!(text, "{time:.3}"),
        // out of the years 1 to 9999; Record::time_ms lets none through
        Err(_) => write!(text, "{time_ms}"),
    };
}

impl FinalOutcome {
    /// The value of the outcome record.
    pub(crate) fn body(&self) -> Body<'_> {
        let (outcome, code, detail, reply) = match &self.ending {
            Ending::Applied { reply, .. } => ("applied", None, None, Some(&**reply)),
            Ending::Rejected { code, detail } => ("rejected", Some(&**code), detail.as_deref(), None),
        };
        let delivery = &self.delivery;
        Body {
            command_id: delivery.command_id,
            command_type: Some(&delivery.command_type),
            entity_type: Some(&delivery.entity_type),
            entity_id: Some(&delivery.entity_id),
            outcome,
            code,
            detail,
            version: Some(self.version),
            reply,
            topic: &delivery.source.topic,
            partition: delivery.source.partition,
            offset: delivery.offset,
        }
    }

    /// The outcome record: the same bytes at every repeat.
    pub fn outcome(&self) -> Publication<'_> {
        let id = Uuid::new_v5(&self.delivery.command_id, b"solewriter.outcome");
        self.publication(Channel::Outcomes, id, "solewriter.outcome.v1", None, json(&self.body()).into())
    }

    /// The events that the handler emitted, in order.
    pub fn events(&self) -> impl Iterator<Item = Publication<'_>> {
        let events = match &self.ending {
            Ending::Applied { events, .. } => events.as_slice(),
            Ending::Rejected { .. } => &[],
        };
        events.iter().enumerate().map(|(n, event)| {
            let id = event_id(&self.delivery.command_id, n);
            let value = event.data.get().as_bytes().into();
            self.publication(Channel::Events, id, &event.event_type, Some(self.delivery.command_id), value)
        })
    }

    fn publication<'a>(
        &'a self,
        channel: Channel,
        id: Uuid,
        event_type: &'a str,
        causation_id: Option<Uuid>,
        value: Cow<'a, [u8]>,
    ) -> Publication<'a> {
        let delivery = &self.delivery;
        let envelope = Envelope {
            id,
            event_type,
            source: &delivery.source,
            subject: Some(&delivery.entity_id),
            time_ms: delivery.record_time_ms,
            traceparent: delivery.traceparent.as_deref(),
            causation_id,
        };
        let key = Some(delivery.entity_id.as_bytes());
        let (value, headers) = (Some(value), Headers::Envelope(envelope));
        Publication { channel, source_partition: delivery.source.partition, key, value, headers }
    }
}

/// All headers of a publication, as tests compare them.
#[cfg(test)]
pub(crate) fn headers(publication: &Publication<'_>) -> Vec<(String, Option<String>)> {
    let mut headers = Vec::new();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    publication.headers.each(|name, value| headers.push((name.to_owned(), value.map(text))));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ending: Ending) -> FinalOutcome {
        let delivery = Delivery {
            command_id: Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001),
            command_type: "account.withdraw".into(),
            entity_type: "account".into(),
            entity_id: "acct-42".into(),
            fingerprint: Fingerprint([0; 16]),
            source: TopicPartition::new("accounts.commands", 3),
            offset: 8412,
            record_time_ms: 1_700_000_000_007,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        };
        FinalOutcome { delivery, version: 17, ending, encoding: ENCODING }
    }

    /// Byte for byte: if this fails, the encoding changed, and a new one is due.
    #[test]
    fn an_applied_outcome_is_encoded_as_the_interface_says() {
        let reply = RawValue::from_string(r#"{"balance":70}"#.into()).unwrap();
        let events = vec![Event {
            event_type: "account.withdrawn".into(),
            data: RawValue::from_string(r#"{"amount":30}"#.into()).unwrap(),
        }];
        let outcome = outcome(Ending::Applied { reply, events });
        let published = outcome.outcome();
        assert_eq!(
            String::from_utf8_lossy(published.value.as_deref().unwrap()),
            r#"{"command_id":"01990000-0000-7000-8000-000000000001","command_type":"account.withdraw","entity_type":"account","entity_id":"acct-42","outcome":"applied","code":null,"detail":null,"version":17,"reply":{"balance":70},"topic":"accounts.commands","partition":3,"offset":8412}"#
        );
        let header = |(name, value): (&str, &str)| (name.to_owned(), Some(value.to_owned()));
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "f12aa6a4-9b86-58aa-b9ba-c55a6749e409"),
            ("ce_type", "solewriter.outcome.v1"),
            ("ce_source", "/solewriter/accounts.commands/3"),
            ("ce_subject", "acct-42"),
            ("ce_time", "2023-11-14T22:13:20.007Z"),
            ("content-type", "application/json"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ];
        assert_eq!(headers(&published), expected.map(header));
        let event = outcome.events().next().unwrap();
        assert_eq!(event.value.as_deref(), Some(&br#"{"amount":30}"#[..]));
        assert!(headers(&event).contains(&header(("ce_causationid", &outcome.delivery.command_id.to_string()))));
    }

    #[test]
    fn a_rejection_has_no_reply_and_no_events() {
        let outcome = outcome(Ending::Rejected { code: "insufficient-funds".into(), detail: Some("no".into()) });
        let value: serde_json::Value = serde_json::from_slice(outcome.outcome().value.as_deref().unwrap()).unwrap();
        assert_eq!(value["outcome"], "rejected");
        assert_eq!(value["code"], "insufficient-funds");
        assert!(value["reply"].is_null() && outcome.events().next().is_none());
    }

    #[test]
    fn a_detail_is_escaped_and_short() {
        assert_eq!(escaped_detail("a\0b\nc"), "a\\u{0}b\\nc");
        assert!(escaped_detail(&"é".repeat(5000)).len() <= DETAIL_BYTES_MAX);
    }

    #[test]
    fn a_time_has_milliseconds_also_where_they_are_zero() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    }
}
