//! A dead letter: a delivery that had no effect, with its raw bytes and the reason.

mod mirrored;

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

pub use self::mirrored::{Mirror, MirroredLetter};
use crate::outcome::{Body, Channel, Envelope, Headers, Publication};
use crate::record::{Record, TopicPartition};

/// A key or command type of a dead delivery that is longer is not published: the
/// outcome must stay below the broker's limit, whatever a producer sent. Bytes.
const PUBLISHED_PART_BYTES_MAX: usize = 4096;

/// Why a delivery is dead. The names are part of the public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[allow(missing_docs)] // the names say it; docs/interface.md describes each
pub enum DeadCode {
    MissingId,
    MalformedId,
    MissingType,
    UnknownType,
    MalformedKey,
    MalformedPayload,
    MalformedEnvelope,
    PayloadTooLarge,
    Misrouted,
    IdFromFuture,
    IdReuse,
    Expired,
    HandlerFailed,
    DataError,
    ParkedKey,
    Discarded,
}

impl DeadCode {
    /// The code as it stands in the tables and outcomes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingId => "missing-id",
            Self::MalformedId => "malformed-id",
            Self::MissingType => "missing-type",
            Self::UnknownType => "unknown-type",
            Self::MalformedKey => "malformed-key",
            Self::MalformedPayload => "malformed-payload",
            Self::MalformedEnvelope => "malformed-envelope",
            Self::PayloadTooLarge => "payload-too-large",
            Self::Misrouted => "misrouted",
            Self::IdFromFuture => "id-from-future",
            Self::IdReuse => "id-reuse",
            Self::Expired => "expired",
            Self::HandlerFailed => "handler-failed",
            Self::DataError => "data-error",
            Self::ParkedKey => "parked-key",
            Self::Discarded => "discarded",
        }
    }

    /// The code of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::MissingId,
            Self::MalformedId,
            Self::MissingType,
            Self::UnknownType,
            Self::MalformedKey,
            Self::MalformedPayload,
            Self::MalformedEnvelope,
            Self::PayloadTooLarge,
            Self::Misrouted,
            Self::IdFromFuture,
            Self::IdReuse,
            Self::Expired,
            Self::HandlerFailed,
            Self::DataError,
            Self::ParkedKey,
            Self::Discarded,
        ]
        .into_iter()
        .find(|code| code.as_str() == name)
    }

    /// Whether the interface judges this only after the id was looked up: a known
    /// id comes first, as a duplicate or as `id-reuse`.
    pub fn follows_look_up(self) -> bool {
        matches!(self, Self::MalformedPayload | Self::HandlerFailed | Self::DataError | Self::ParkedKey)
    }

    /// Whether the command has failed on its own account, so that its key is parked
    /// behind it. Nothing that is wrong with the record parks a key.
    pub fn parks(self) -> bool {
        matches!(self, Self::HandlerFailed | Self::DataError)
    }
}

impl fmt::Display for DeadCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is to become of a dead letter, or has. The names are part of the public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LetterState {
    /// It parks nothing.
    Dead,
    /// Its command has failed: later commands of its key wait.
    Parked,
    /// It waits behind a parked one.
    Waiting,
    /// It was run again, to its end.
    Redriven,
    /// An operator has given it up.
    Discarded,
}

impl LetterState {
    /// The state as it stands in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }

    /// The state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Dead, Self::Parked, Self::Waiting, Self::Redriven, Self::Discarded]
            .into_iter()
            .find(|state| state.as_str() == name)
    }

    /// Whether its key is parked because of it.
    pub fn holds_its_key(self) -> bool {
        matches!(self, Self::Parked | Self::Waiting)
    }
}

impl fmt::Display for LetterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A delivery that had no effect.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The record as received.
    pub record: Record,
    /// Why it is dead.
    pub code: DeadCode,
    /// What is wrong with it, for a person; escaped, at most 2 KiB.
    pub detail: String,
    /// What becomes of it.
    pub state: LetterState,
    /// How often it has been tried, this time included.
    pub attempt: i32,
    /// The log that its record came from, if that need not be its writer's: the layout may have
    /// changed since.
    pub source: Option<TopicPartition>,
    /// The command's id, if it could be read.
    pub command_id: Option<Uuid>,
    /// The command's type, if it could be read.
    pub command_type: Option<String>,
    /// W3C trace context of the delivery.
    pub traceparent: Option<String>,
}

/// What of a dead letter is published: all but its raw bytes.
#[derive(Clone, Debug)]
pub struct DeadOutcome<'a> {
    /// Where it came from.
    pub source: &'a TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Its time, milliseconds since 1970.
    pub record_time_ms: i64,
    /// Its key, as it was.
    pub key: Option<&'a [u8]>,
    /// The code.
    pub code: &'a str,
    /// The detail.
    pub detail: Option<&'a str>,
    /// Which attempt this was.
    pub attempt: i32,
    /// The command's id.
    pub command_id: Uuid,
    /// The command's type.
    pub command_type: Option<&'a str>,
    /// The topic's entity type.
    pub entity_type: &'a str,
    /// The entity's id, if the key is one.
    pub entity_id: Option<&'a str>,
    /// W3C trace context of the delivery.
    pub traceparent: Option<&'a str>,
}

/// Whether a dead delivery of this code, with this id, publishes an outcome: not
/// without a readable id, and not for an id that belongs to another command.
pub fn publishes(code: &str, command_id: Option<Uuid>) -> Option<Uuid> {
    command_id.filter(|_| code != DeadCode::IdReuse.as_str())
}

impl DeadLetter {
    /// The key as an entity id, if it is one: UTF-8 without U+0000, 1 to 512 bytes.
    pub fn entity_id(&self) -> Option<&str> {
        entity_id(self.record.key())
    }

    /// The headers as they are stored: `[[name, value], …]` in order; a value
    /// that is no text or holds U+0000 as `{"base64": …}`.
    pub fn headers_json(&self) -> String {
        let pairs = self.record.headers().map(|(name, value)| {
            Value::Array(vec![header_name(name).into(), value.map_or(Value::Null, text_or_base64)])
        });
        Value::Array(pairs.collect()).to_string()
    }

    /// Where its record came from; `writer` is the partition of whoever has settled it.
    pub fn source<'a>(&'a self, writer: &'a TopicPartition) -> &'a TopicPartition {
        self.source.as_ref().unwrap_or(writer)
    }

    /// The outcome that this letter publishes, if it publishes one. `writer` is the partition of
    /// whoever has settled it.
    pub fn outcome<'a>(&'a self, writer: &'a TopicPartition, entity_type: &'a str) -> Option<Publication<'a>> {
        let command_id = publishes(self.code.as_str(), self.command_id)?;
        let outcome = DeadOutcome {
            source: self.source(writer),
            offset: self.record.offset,
            record_time_ms: self.record.time_ms(),
            key: self.record.key(),
            code: self.code.as_str(),
            detail: Some(&self.detail),
            attempt: self.attempt,
            command_id,
            command_type: self.command_type.as_deref(),
            entity_type,
            entity_id: self.entity_id(),
            traceparent: self.traceparent.as_deref(),
        };
        Some(outcome.publication())
    }

    /// The letter as it goes to the dead-letter topic, `number` being its row's. `None`: an operator
    /// has given it up, which only its outcome tells.
    pub fn mirrored<'a>(
        &'a self,
        writer: &'a TopicPartition,
        entity_type: &'a str,
        number: i64,
        mirror: &'a Mirror,
    ) -> Option<Publication<'a>> {
        let headers = self.record.headers().map(|(name, value)| (header_name(name), value)).collect();
        let letter = MirroredLetter {
            number,
            source: self.source(writer),
            offset: self.record.offset,
            record_time_ms: self.record.time_ms(),
            key: self.record.key(),
            value: self.record.value(),
            headers,
            code: self.code.as_str(),
            detail: Some(&self.detail),
            state: self.state,
            attempt: self.attempt,
            entity_type,
        };
        letter.publication(mirror)
    }
}

/// A header's name as it is stored and published: it has no other form than text, so
/// what is none is replaced.
fn header_name(name: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(name);
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text }
}

/// A key as an entity id, if it is one: UTF-8 without U+0000, 1 to 512 bytes.
pub fn entity_id(key: Option<&[u8]>) -> Option<&str> {
    let id = std::str::from_utf8(key?).ok()?;
    (!id.is_empty() && id.len() <= 512 && !id.contains('\0')).then_some(id)
}

/// Bytes as JSON shows them: text, or `{"base64": …}` for what is none or holds
/// U+0000.
pub(crate) fn text_or_base64(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Value::String(text.to_owned()),
        _ => json!({ "base64": base64(value) }),
    }
}

/// Headers of a stored record: names and values, in order.
pub(crate) type StoredHeaders = Vec<(String, Option<Vec<u8>>)>;

/// Headers as [`DeadLetter::headers_json`] has written them.
///
/// # Errors
/// If somebody has changed them by hand.
pub(crate) fn stored_headers(json: &str) -> Result<StoredHeaders, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(String),
        Bytes { base64: String },
    }
    let pairs: Vec<(String, Option<Stored>)> = serde_json::from_str(json)?;
    let bytes = |stored| match stored {
        Stored::Text(text) => Ok(text.into_bytes()),
        Stored::Bytes { base64 } => BASE64.decode(base64).map_err(serde::de::Error::custom),
    };
    pairs.into_iter().map(|(name, value)| Ok((name, value.map(bytes).transpose()?))).collect()
}

/// Bytes as base64 (RFC 4648, padded).
pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

impl<'a> DeadOutcome<'a> {
    /// The outcome record of this delivery.
    pub fn publication(&self) -> Publication<'a> {
        let body = Body {
            command_id: self.command_id,
            command_type: self.command_type.filter(|name| name.len() <= PUBLISHED_PART_BYTES_MAX),
            entity_type: Some(self.entity_type),
            entity_id: self.entity_id,
            outcome: "dead",
            code: Some(self.code),
            detail: self.detail,
            version: None,
            reply: None,
            topic: &self.source.topic,
            partition: self.source.partition,
            offset: self.offset,
        };
        let TopicPartition { topic, partition } = self.source;
        let name = format!("solewriter.dead:{topic}:{partition}:{}:{}", self.offset, self.attempt);
        let envelope = Envelope {
            id: Uuid::new_v5(&self.command_id, name.as_bytes()),
            event_type: "solewriter.outcome.v1",
            source: self.source,
            subject: self.entity_id,
            time_ms: self.record_time_ms,
            traceparent: self.traceparent,
            causation_id: None,
        };
        Publication {
            channel: Channel::Outcomes,
            source_partition: self.source.partition,
            key: self.key.filter(|key| key.len() <= PUBLISHED_PART_BYTES_MAX),
            value: Some(crate::outcome::json(&body).into()),
            headers: Headers::Envelope(envelope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: &[crate::record::Header<'_>], code: DeadCode, command_id: Option<Uuid>) -> DeadLetter {
        DeadLetter {
            record: Record::copied(9, 0, Some(b"\xff"), None, headers),
            code,
            detail: "why".into(),
            state: LetterState::Dead,
            attempt: 1,
            source: None,
            command_id,
            command_type: None,
            traceparent: None,
        }
    }

    #[test]
    fn headers_keep_order_and_any_bytes() {
        let letter = letter(
            &[(b"b", Some(b"x")), (b"a", Some(b"\0")), (b"a", Some(b"\xff\xfe")), (b"n", None)],
            DeadCode::MissingId,
            None,
        );
        let stored = letter.headers_json();
        assert_eq!(stored, r#"[["b","x"],["a",{"base64":"AA=="}],["a",{"base64":"//4="}],["n",null]]"#);
        let read = stored_headers(&stored).unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        assert_eq!(read, letter.record.headers().collect::<Vec<_>>());
    }

    #[test]
    fn an_unreadable_id_and_a_reused_one_publish_nothing() {
        let source = TopicPartition::new("t", 0);
        let id = Some(Uuid::from_u128(1));
        assert!(letter(&[], DeadCode::MissingId, None).outcome(&source, "e").is_none());
        assert!(letter(&[], DeadCode::IdReuse, id).outcome(&source, "e").is_none());
        let letter = letter(&[], DeadCode::Misrouted, id);
        let published = letter.outcome(&source, "e").unwrap();
        let headers = crate::outcome::headers(&published);
        assert!(headers.iter().all(|(name, _)| name != "ce_subject"), "the key is unreadable");
        assert_eq!(published.key, Some(&b"\xff"[..]));
    }
}
