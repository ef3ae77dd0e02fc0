//! Step 1, receive: bytes and headers become a command, or a dead letter with a
//! code. Never panics, never trusts.
//!
//! An envelope is CloudEvents 1.0 in the Kafka binding: binary mode (headers
//! `ce_…`, the data in the value) or structured mode (the envelope in the value).

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Rules;
use crate::command::{Command, Fingerprint};
use crate::dead_letter::{DeadCode, DeadLetter, LetterState, entity_id};
use crate::outcome::escaped_detail;
use crate::record::Record;

/// A traceparent longer than this is not carried over: bytes. Version 00 has 55.
const TRACEPARENT_BYTES_MAX: usize = 256;

/// What is wrong with a record: the code and, for a person, why.
pub(super) type Fault = (DeadCode, String);

/// What could be read of an envelope. Each part is judged later, in the order of
/// the interface, so that a fault names the first that applies.
#[derive(Default)]
struct Envelope {
    malformed: Option<String>,
    id: Option<Result<Uuid, String>>,
    command_type: Option<String>,
    data: Option<Range<usize>>,
    traceparent: Option<String>,
}

/// The headers that an envelope is made of; each the first of its name, and without a value as if it
/// were not there.
#[derive(Default)]
struct EnvelopeHeaders<'r> {
    specversion: Option<&'r [u8]>,
    id: Option<&'r [u8]>,
    command_type: Option<&'r [u8]>,
    content_type: Option<&'r [u8]>,
    traceparent: Option<&'r [u8]>,
}

impl<'r> EnvelopeHeaders<'r> {
    /// Goes through the headers once, from the last to the first.
    fn of(record: &'r Record) -> Self {
        let mut headers = Self::default();
        for (name, value) in record.headers().rev() {
            match name {
                b"ce_specversion" => headers.specversion = value,
                b"ce_id" => headers.id = value,
                b"ce_type" => headers.command_type = value,
                b"content-type" => headers.content_type = value,
                b"traceparent" => headers.traceparent = value,
                _ => {}
            }
        }
        headers
    }
}

/// The command that a record carries.
///
/// # Errors
/// The dead letter that it becomes, with the first code that applies. Boxed, as
/// it is rare and large.
pub fn receive(record: Record, rules: &Rules) -> Result<Command, Box<DeadLetter>> {
    let envelope = Envelope::read(&record, rules.payload_bytes_max);
    match first_fault(&record, &envelope, rules) {
        Some((code, detail)) => Err(Box::new(envelope.into_dead_letter(record, code, &detail))),
        None => Ok(envelope.into_command(record, rules)),
    }
}

/// The command id that a record carries, if it can be read.
pub fn command_id(record: &Record, payload_bytes_max: usize) -> Option<Uuid> {
    glance(record, payload_bytes_max).command_id
}

/// What a record says that it is, judged by nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The command id, if it can be read.
    pub command_id: Option<Uuid>,
    /// The command type, if it can be read.
    pub command_type: Option<String>,
}

/// What a record says that it is.
pub fn glance(record: &Record, payload_bytes_max: usize) -> Glance {
    let Envelope { id, command_type, .. } = Envelope::read(record, payload_bytes_max);
    Glance { command_id: id.and_then(Result::ok), command_type }
}

fn first_fault(record: &Record, envelope: &Envelope, rules: &Rules) -> Option<Fault> {
    let value_bytes = record.value().map_or(0, <[u8]>::len);
    if value_bytes > rules.payload_bytes_max {
        let limit = rules.payload_bytes_max;
        return Some((DeadCode::PayloadTooLarge, format!("the value has {value_bytes} bytes, the limit is {limit}")));
    }
    if entity_id(record.key()).is_none() {
        let why = "the key must be an entity id: UTF-8 without U+0000, 1 to 512 bytes";
        return Some((DeadCode::MalformedKey, why.into()));
    }
    if let Some(why) = &envelope.malformed {
        return Some((DeadCode::MalformedEnvelope, why.clone()));
    }
    match &envelope.id {
        None => return Some((DeadCode::MissingId, "no command id: header ce_id".into())),
        Some(Err(why)) => return Some((DeadCode::MalformedId, why.clone())),
        Some(Ok(_)) => {}
    }
    match &envelope.command_type {
        None => Some((DeadCode::MissingType, "no command type: header ce_type".into())),
        Some(name) if rules.handlers.command(name).is_none() => {
            Some((DeadCode::UnknownType, unknown_type(name, rules)))
        }
        Some(_) => None,
    }
}

fn unknown_type(name: &str, rules: &Rules) -> String {
    let known = rules.handlers.command_names().join(", ");
    format!("no handler for {name:?}; entity type {} has {known}", rules.handlers.entity_type)
}

impl Envelope {
    fn read(record: &Record, payload_bytes_max: usize) -> Self {
        let headers = EnvelopeHeaders::of(record);
        let media_type = headers.content_type.unwrap_or_default().split(|b| *b == b';').next();
        let media_type = media_type.unwrap_or_default().trim_ascii();
        let mut envelope = if media_type.eq_ignore_ascii_case(b"application/cloudevents+json") {
            match record.value() {
                Some(value) if value.len() > payload_bytes_max => Self::default(),
                value => Self::structured(value.unwrap_or_default()),
            }
        } else if media_type.eq_ignore_ascii_case(b"application/cloudevents-batch+json") {
            let malformed = Some("a record is one command: no batches".into());
            Self { malformed, ..Self::binary(&headers, record.value()) }
        } else {
            Self::binary(&headers, record.value())
        };
        if let Some(traceparent) = headers.traceparent {
            envelope.traceparent = String::from_utf8(traceparent.to_vec()).ok();
        }
        let carried = |t: &String| t.len() <= TRACEPARENT_BYTES_MAX && !t.chars().any(char::is_control);
        envelope.traceparent = envelope.traceparent.filter(carried);
        envelope
    }

    fn binary(headers: &EnvelopeHeaders<'_>, value: Option<&[u8]>) -> Self {
        let specversion = headers.specversion.unwrap_or(b"1.0");
        Self {
            malformed: (specversion != b"1.0").then(|| wrong_specversion(&String::from_utf8_lossy(specversion))),
            id: headers.id.map(|id| match std::str::from_utf8(id) {
                Ok(id) => parse_id(id),
                Err(_) => parse_id(&String::from_utf8_lossy(id)),
            }),
            command_type: headers.command_type.map(|t| String::from_utf8_lossy(t).into_owned()),
            data: value.map(|value| 0..value.len()),
            traceparent: None,
        }
    }

    fn structured(value: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Structured<'a> {
            specversion: Option<String>,
            id: Option<String>,
            #[serde(rename = "type")]
            command_type: Option<String>,
            #[serde(borrow)]
            data: Option<&'a RawValue>,
            #[serde(borrow)]
            data_base64: Option<&'a RawValue>,
            traceparent: Option<String>,
        }
        let read: Structured<'_> = match serde_json::from_slice(value) {
            Ok(read) => read,
            Err(error) => return Self { malformed: Some(format!("no CloudEvent: {error}")), ..Self::default() },
        };
        let malformed = match read.specversion.as_deref() {
            Some(version) if version != "1.0" => Some(wrong_specversion(version)),
            _ if read.data_base64.is_some() => Some("data_base64: a command's data is a JSON object".into()),
            _ => None,
        };
        Self {
            malformed,
            id: read.id.as_deref().map(parse_id),
            command_type: read.command_type,
            data: read.data.map(|data| range_within(value, data.get().as_bytes())),
            traceparent: read.traceparent,
        }
    }

    fn into_command(self, record: Record, rules: &Rules) -> Command {
        let name = self.command_type.unwrap_or_default();
        let command_type = rules.handlers.command(&name).cloned();
        let data = self.data.clone().and_then(|range| record.value()?.get(range));
        let key = record.key().unwrap_or_default();
        Command {
            id: self.id.and_then(Result::ok).expect("first_fault has seen the id"),
            fingerprint: Fingerprint::of(&rules.handlers.entity_type, key, &name, data),
            command_type: command_type.expect("first_fault has seen the type"),
            traceparent: self.traceparent,
            data: self.data,
            record,
        }
    }

    fn into_dead_letter(self, record: Record, code: DeadCode, detail: &str) -> DeadLetter {
        DeadLetter {
            record,
            code,
            detail: escaped_detail(detail),
            state: LetterState::Dead,
            attempt: 1,
            source: None,
            command_id: self.id.and_then(Result::ok),
            command_type: self.command_type.map(|name| name.replace('\0', "\u{fffd}")),
            traceparent: self.traceparent,
        }
    }
}

fn wrong_specversion(given: &str) -> String {
    format!("specversion {given:?}: only 1.0 is known")
}

/// A command id: the 36-character hyphenated form, any case, not nil and not max.
pub(crate) fn parse_id(id: &str) -> Result<Uuid, String> {
    let parsed = (id.len() == 36).then(|| Uuid::try_parse(id).ok()).flatten();
    parsed
        .filter(|id| !id.is_nil() && !id.is_max())
        .ok_or_else(|| format!("{id:?} is no command id: a UUID in its 36-character form, not nil and not max"))
}

/// Where `part`, which was borrowed from `whole`, lies in it.
fn range_within(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

impl Command {
    /// The dead letter that this command becomes.
    pub(crate) fn dead(&self, (code, detail): Fault) -> DeadLetter {
        DeadLetter {
            record: self.record.clone(),
            code,
            detail: escaped_detail(&detail),
            state: LetterState::Dead,
            attempt: 1,
            source: None,
            command_id: Some(self.id),
            command_type: Some(self.command_type.name.to_string()),
            traceparent: self.traceparent.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Header;
    use crate::steps::decide::tests::rules;

    const ID: &[u8] = b"01990000-0000-7000-8000-00000000000A";

    fn code(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> Result<Command, DeadCode> {
        receive(Record::copied(0, 0, key, value, headers), &rules()).map_err(|dead| dead.code)
    }

    fn good<'a>() -> Vec<Header<'a>> {
        vec![(b"ce_id", Some(ID)), (b"ce_type", Some(b"account.open"))]
    }

    #[test]
    fn a_good_record_is_a_command_with_its_id_in_lower_case() {
        let command = code(Some(b"a"), Some(b"{}"), &good()).unwrap();
        assert_eq!(command.id.to_string(), "01990000-0000-7000-8000-00000000000a");
        assert_eq!((command.entity_id(), command.data()), ("a", Some(&b"{}"[..])));
    }

    #[test]
    fn structured_mode_means_the_same() {
        let value = br#" {"specversion":"1.0","id":"01990000-0000-7000-8000-00000000000a","type":"account.open","x":[[]],"data": {"a": 1} }"#;
        let content_type: Header<'_> = (b"content-type", Some(b"application/cloudevents+json; charset=utf-8"));
        let structured = code(Some(b"a"), Some(value), &[content_type]).unwrap();
        let binary = code(Some(b"a"), Some(br#"{"a": 1}"#), &good()).unwrap();
        assert_eq!(structured.data(), binary.data());
        assert_eq!(structured.fingerprint, binary.fingerprint);
        assert_eq!(code(Some(b"a"), Some(b"{"), &[content_type]).unwrap_err(), DeadCode::MalformedEnvelope);
    }

    #[test]
    fn the_first_fault_that_applies_is_named() {
        let big = vec![b' '; rules().payload_bytes_max + 1];
        let fault = |key, value, headers: &[Header<'_>]| code(key, value, headers).unwrap_err();
        assert_eq!(fault(None, Some(&big), &[]), DeadCode::PayloadTooLarge);
        for key in [None, Some(&b""[..]), Some(&b"a\0"[..]), Some(&b"\xff"[..]), Some(&[b'k'; 513][..])] {
            assert_eq!(fault(key, None, &[]), DeadCode::MalformedKey);
        }
        let v = |name: &'static str, value: &'static str| (name.as_bytes(), Some(value.as_bytes()));
        assert_eq!(fault(Some(b"a"), None, &[v("ce_specversion", "0.3")]), DeadCode::MalformedEnvelope);
        assert_eq!(fault(Some(b"a"), None, &[]), DeadCode::MissingId);
        for id in [
            "",
            "x",
            "00000000-0000-0000-0000-000000000000",
            "019900000000700080000000000000aa",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ] {
            assert_eq!(fault(Some(b"a"), None, &[v("ce_id", id)]), DeadCode::MalformedId, "{id}");
        }
        assert_eq!(fault(Some(b"a"), None, &[(b"ce_id", Some(ID))]), DeadCode::MissingType);
        assert_eq!(fault(Some(b"a"), None, &[(b"ce_id", Some(ID)), v("ce_type", "x")]), DeadCode::UnknownType);
    }

    #[test]
    fn a_letter_keeps_what_could_be_read() {
        let record = Record::copied(0, 0, None, None, &good());
        let dead = receive(record, &rules()).unwrap_err();
        assert!(dead.command_id.is_some());
        assert_eq!(dead.command_type.as_deref(), Some("account.open"));
    }

    proptest! {
        #[test]
        fn no_record_makes_it_panic(
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
            headers in prop::collection::vec(
                (prop::sample::select(vec!["ce_id", "ce_type", "ce_specversion", "content-type", "traceparent", "\0"]),
                 prop::option::of(prop::sample::select(vec![&b""[..], ID, b"account.open", b"application/cloudevents+json", b"\xff\0", b"1.0"]))), 0..6),
        ) {
            let headers: Vec<Header<'_>> = headers.iter().map(|(n, v)| (n.as_bytes(), *v)).collect();
            if let Err(dead) = receive(Record::copied(0, 0, key.as_deref(), value.as_deref(), &headers), &rules()) {
                prop_assert!(!dead.detail.contains('\0') && !dead.headers_json().contains("\\u0000"));
            }
        }
    }
}
