//! A dead letter on the dead-letter topic: key, value and headers as they were, and behind them, in
//! headers of its own, why it is dead. Those that KIP-1191 has too are called as there.

use std::borrow::Cow;
use std::sync::Arc;

use super::LetterState;
use crate::outcome::{Channel, Headers, ListedHeader, Publication, rfc3339};
use crate::record::TopicPartition;

/// Begins the name of every header that says why a record is dead.
const WHY: &str = "__dlq.errors.";
/// Put before the name of a record's own header that could be mistaken for one of those; and once
/// more before one that begins like this, so that it can be taken off again.
const ORIGINAL: &str = "__dlq.original.";

/// More of those there are not.
const WHY_HEADERS_MAX: usize = 13;

/// What a record is mirrored without, as far as the topic does not take it.
const OMISSIONS: [&[&str]; 3] = [&[], &["value"], &["value", "headers"]];
/// What is left then always fits: the detail has at most 2 KiB.
const OMITTED_AT_MOST: &[&str] = &["value", "headers", "key"];

/// What a record costs beside its key, value and headers, with a batch of its own around it: bytes
/// (61 of the batch, at most 21 of the record, its counts and the lengths of key and value).
const RECORD_OVERHEAD_BYTES: usize = 100;
/// What a header costs beside its name and value, at most: bytes.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// How the dead letters of a topic are mirrored.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The consumer group that found them dead.
    pub group_id: Arc<str>,
    /// A record that is longer is mirrored without its value: bytes, with headers.
    pub record_bytes_max: usize,
}

/// A dead letter with its record, settled just now or read from its row.
#[derive(Clone, Debug)]
pub struct MirroredLetter<'a> {
    /// Its row's number.
    pub number: i64,
    /// Where it came from.
    pub source: &'a TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Its time, milliseconds since 1970.
    pub record_time_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Vec<(Cow<'a, str>, Option<&'a [u8]>)>,
    /// Why it is dead.
    pub code: &'a str,
    /// What is wrong with it.
    pub detail: Option<&'a str>,
    /// What becomes of it.
    pub state: LetterState,
    /// Which attempt this was.
    pub attempt: i32,
    /// The topic's entity type.
    pub entity_type: &'a str,
}

impl<'a> MirroredLetter<'a> {
    /// The record on the dead-letter topic, with as much as that takes: whatever a producer sent, it
    /// must not keep what comes behind it from being published. `None`: the letter was given up.
    pub fn publication(&self, mirror: &'a Mirror) -> Option<Publication<'a>> {
        if self.state == LetterState::Discarded {
            return None;
        }
        let mut records = OMISSIONS.iter().map(|omitted| self.record(mirror, omitted));
        let fitting = records.find(|record| record_bytes(record) <= mirror.record_bytes_max);
        Some(fitting.unwrap_or_else(|| self.record(mirror, OMITTED_AT_MOST)))
    }

    fn record(&self, mirror: &'a Mirror, omitted: &[&str]) -> Publication<'a> {
        let has = |part: &&str| !omitted.contains(part);
        let mut headers: Vec<ListedHeader<'a>> = Vec::with_capacity(self.headers.len() + WHY_HEADERS_MAX);
        if has(&"headers") {
            headers.extend(self.headers.iter().map(|(name, value)| (original(name), value.map(Cow::Borrowed))));
        }
        self.why(mirror, |name, value| headers.push((format!("{WHY}{name}").into(), Some(bytes(value)))));
        if !omitted.is_empty() {
            let see = format!("solewriter dead-letters show {}", self.number);
            headers.push((format!("{WHY}omitted").into(), Some(omitted.join(",").into_bytes().into())));
            headers.push((format!("{WHY}omitted.see").into(), Some(see.into_bytes().into())));
        }
        Publication {
            channel: Channel::DeadLetters,
            source_partition: self.source.partition,
            key: self.key.filter(|_| has(&"key")),
            value: self.value.filter(|_| has(&"value")).map(Cow::Borrowed),
            headers: Headers::Listed(headers),
        }
    }

    /// Why it is dead.
    fn why(&self, mirror: &'a Mirror, mut add: impl FnMut(&str, Cow<'a, str>)) {
        add("topic", (*self.source.topic).into());
        add("partition", self.source.partition.to_string().into());
        add("offset", self.offset.to_string().into());
        add("group", (*mirror.group_id).into());
        add("delivery.count", self.attempt.to_string().into());
        if let Some(detail) = self.detail {
            add("message", detail.into());
        }
        add("code", self.code.into());
        add("state", self.state.as_str().into());
        add("timestamp", rfc3339(self.record_time_ms).into());
        add("entity.type", self.entity_type.into());
        add("letter", self.number.to_string().into());
    }
}

/// The name of a header of the record's own.
fn original<'a>(name: &Cow<'a, str>) -> Cow<'a, str> {
    let is_ours = name.starts_with(WHY) || name.starts_with(ORIGINAL);
    if is_ours { format!("{ORIGINAL}{name}").into() } else { name.clone() }
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}

/// What a record costs in the log, without compression.
fn record_bytes(record: &Publication<'_>) -> usize {
    let mut sum =
        RECORD_OVERHEAD_BYTES + record.key.map_or(0, <[u8]>::len) + record.value.as_deref().map_or(0, <[u8]>::len);
    record.headers.each(|name, value| {
        sum += HEADER_OVERHEAD_BYTES + name.len() + value.map_or(0, <[u8]>::len);
    });
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"acct-1";

    fn letter<'a>(source: &'a TopicPartition, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> MirroredLetter<'a> {
        MirroredLetter {
            number: 17,
            source,
            offset: 8,
            record_time_ms: 1_700_000_000_007,
            key: Some(KEY),
            value: Some(b"{\"amount\":0}"),
            headers: headers.iter().map(|(name, value)| (Cow::Borrowed(*name), *value)).collect(),
            code: "data-error",
            detail: Some("division by zero"),
            state: LetterState::Parked,
            attempt: 2,
            entity_type: "account",
        }
    }

    fn mirror(record_bytes_max: usize) -> Mirror {
        Mirror { group_id: "bank".into(), record_bytes_max }
    }

    fn headers(record: &Publication<'_>) -> Vec<(String, Option<Vec<u8>>)> {
        let mut headers = Vec::new();
        record.headers.each(|name, value| headers.push((name.to_owned(), value.map(<[u8]>::to_vec))));
        headers
    }

    fn header(record: &Publication<'_>, name: &str) -> Option<String> {
        let (_, value) = headers(record).into_iter().find(|(found, _)| found == name)?;
        value.map(|value| String::from_utf8(value).expect("text"))
    }

    #[test]
    fn a_record_is_as_it_was_with_the_reason_behind_its_headers() {
        let source = TopicPartition::new("accounts", 3);
        let own: &[(&str, Option<&[u8]>)] = &[("a", Some(b"\xff\0")), ("a", None), ("traceparent", Some(b"00-x"))];
        let (letter, mirror) = (letter(&source, own), mirror(usize::MAX));
        let record = letter.publication(&mirror).expect("a record");
        assert_eq!((record.key, record.value.as_deref()), (letter.key, letter.value));
        assert_eq!(record.source_partition, 3);
        let found = headers(&record);
        let own: Vec<_> = own.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect();
        assert_eq!(found[..3], own);
        let text = |(name, value): &(String, Option<Vec<u8>>)| {
            let value = String::from_utf8(value.clone().expect("a value")).expect("text");
            format!("{}={value}", name.strip_prefix(WHY).expect("one of ours"))
        };
        let why: Vec<String> = found[3..].iter().map(text).collect();
        let expected = [
            "topic=accounts",
            "partition=3",
            "offset=8",
            "group=bank",
            "delivery.count=2",
            "message=division by zero",
            "code=data-error",
            "state=parked",
            "timestamp=2023-11-14T22:13:20.007Z",
            "entity.type=account",
            "letter=17",
        ];
        assert_eq!(why, expected);
    }

    #[test]
    fn a_header_that_could_be_mistaken_for_ours_is_renamed_and_can_be_named_back() {
        let source = TopicPartition::new("accounts", 3);
        let own = [("__dlq.errors.code", Some(&b"fake"[..])), ("__dlq.original.x", None), ("__dlq.other", None)];
        let (letter, mirror) = (letter(&source, &own), mirror(usize::MAX));
        let record = letter.publication(&mirror).expect("a record");
        let names: Vec<String> = headers(&record).into_iter().take(3).map(|(name, _)| name).collect();
        assert_eq!(names, ["__dlq.original.__dlq.errors.code", "__dlq.original.__dlq.original.x", "__dlq.other"]);
        assert_eq!(header(&record, "__dlq.errors.code").as_deref(), Some("data-error"));
    }

    #[test]
    fn what_is_too_long_is_left_out_part_by_part() {
        let source = TopicPartition::new("accounts", 3);
        let (key, value, own) = (vec![b'k'; 10_000], vec![b'v'; 20_000], vec![b'h'; 5_000]);
        let own = [("a", Some(&*own))];
        let letter = MirroredLetter { key: Some(&key), value: Some(&value), ..letter(&source, &own) };
        for (record_bytes_max, omitted) in [
            (40_000, None),
            (34_000, Some("value")),
            (14_000, Some("value,headers")),
            (9_000, Some("value,headers,key")),
            (0, Some("value,headers,key")),
        ] {
            let mirror = mirror(record_bytes_max);
            let record = letter.publication(&mirror).expect("a record");
            assert_eq!(header(&record, "__dlq.errors.omitted").as_deref(), omitted);
            let see = header(&record, "__dlq.errors.omitted.see");
            assert_eq!(see.is_some(), omitted.is_some());
            assert!(see.is_none_or(|see| see == "solewriter dead-letters show 17"));
            assert!(record_bytes(&record) <= record_bytes_max.max(1_000));
        }
    }

    #[test]
    fn a_letter_that_was_given_up_is_not_mirrored_again() {
        let source = TopicPartition::new("accounts", 3);
        let letter = MirroredLetter { state: LetterState::Discarded, ..letter(&source, &[]) };
        assert!(letter.publication(&mirror(usize::MAX)).is_none());
    }
}
