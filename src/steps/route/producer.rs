//! Which producer a record seems to come from. Kafka does not tell consumers the client id of a
//! producer, so only headers can.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::record::Record;

/// The headers by which producers name themselves: CloudEvents' source, OpenTelemetry's service,
/// Kafka's client id under its property's name, and the class and the reply topic that Spring adds.
const NAMING: [&str; 5] = ["ce_source", "service.name", "client.id", "__TypeId__", "kafka_replyTopic"];

/// So much of a value is told: bytes, escaped.
const VALUE_BYTES_MAX: usize = 128;

/// `name="value"` of each header that names the record's producer. `None`: there is none.
pub fn producer_of(record: &Record) -> Option<String> {
    let mut named = String::new();
    for name in NAMING {
        let value = record.header(name).map(String::from_utf8_lossy);
        let value = value.or_else(|| (name == NAMING[0]).then(|| structured_source(record)).flatten().map(Into::into));
        if let Some(value) = value {
            let separator = if named.is_empty() { "" } else { ", " };
            // writing to a String cannot fail
            let _ = write!(named, "{separator}{name}=\"{}\"", shortened(&value));
        }
    }
    (!named.is_empty()).then_some(named)
}

/// In structured mode the source is in the envelope.
fn structured_source(record: &Record) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        specversion: String,
        source: String,
    }
    let envelope: Envelope = serde_json::from_slice(record.value()?).ok()?;
    (envelope.specversion == "1.0").then_some(envelope.source)
}

/// Escaped, so that a value can neither end its quotes nor the line.
fn shortened(value: &str) -> String {
    let mut short = String::new();
    for c in value.chars() {
        let before = short.len();
        short.extend(c.escape_debug());
        if short.len() > VALUE_BYTES_MAX {
            short.truncate(before);
            short.push('…');
            break;
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Header;

    fn named(headers: &[Header<'_>], value: &[u8]) -> Option<String> {
        producer_of(&Record::copied(0, 0, Some(b"key"), Some(value), headers))
    }

    #[test]
    fn the_headers_that_name_a_producer_are_told_in_one_order() {
        let headers: &[Header<'_>] =
            &[(b"client.id", Some(b"pay-7")), (b"x-other", Some(b"x")), (b"ce_source", Some(b"/payments"))];
        assert_eq!(named(headers, b"{}").as_deref(), Some(r#"ce_source="/payments", client.id="pay-7""#));
        assert_eq!(named(&[(b"x-other", Some(b"x")), (b"client.id", None)], b"{}"), None);
    }

    #[test]
    fn a_value_can_neither_end_its_quotes_nor_fill_the_detail() {
        let value = b"a\", client.id=\"b\"\n\xff\0";
        let told = named(&[(b"ce_source", Some(value))], b"{}").expect("a source");
        assert_eq!(told, "ce_source=\"a\\\", client.id=\\\"b\\\"\\n\u{fffd}\\0\"");
        let long = vec![b'x'; 5_000];
        let all: Vec<Header<'_>> = NAMING.iter().map(|name| (name.as_bytes(), Some(&*long))).collect();
        assert!(named(&all, b"{}").expect("all of them").len() < 1_024);
    }

    #[test]
    fn in_structured_mode_the_envelope_names_the_source() {
        let value = br#"{"specversion":"1.0","source":"/payments","id":"x","type":"y"}"#;
        assert_eq!(named(&[], value).as_deref(), Some(r#"ce_source="/payments""#));
        assert_eq!(named(&[], br#"{"source":"a field of a command"}"#), None);
    }
}
